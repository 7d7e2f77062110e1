"""Commands that watch: events, monitor."""

import time
from typing import Annotated

import typer

from ops import spans
from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import ExitCode, usage


def add_to(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "events")(events)
    command(app, "monitor")(monitor)


def events(
    *,
    task: Annotated[str | None, typer.Option(help="Only this task's.", autocompletion=common.complete_task)] = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="Only these, comma-separated: success, failure, retry, revoked, fanned_out, continued.",
            autocompletion=common.complete_outcome,
        ),
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue's.", autocompletion=common.complete_queue)] = None,
    since: Annotated[str, typer.Option(help="Start at: 10m ago, 1h, or 2026-11-23T09:00 (UTC).")] = "1m",
    follow: Annotated[
        bool, typer.Option(help="Continue until Ctrl-C; otherwise print the events so far and end.")
    ] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="End after this many.")] = None,
) -> int:
    """A stream of attempts as they end: time, outcome, task, id, duration, reason."""
    from ops import logs

    wanted = None if status is None else {word.strip().lower() for word in status.split(",")}
    if wanted and (unknown := wanted - set(logs.OUTCOMES)):
        raise usage(f"{min(unknown)!r} is not an outcome", do=f"There are: {', '.join(logs.OUTCOMES)}.")
    start = spans.since(since)
    common.connect()
    queues = common.the_queues(queue)
    if task is not None:
        found = common.the_task(task)
        queues = [q for q in queues if found.served_by(q)]
    count = 0
    for event in logs.stream(queues, start, task, follow=follow):
        if wanted and event.outcome not in wanted:
            continue
        count += 1
        if options.json:
            output.emit_line(event)
        else:
            style = output.STYLES.get(logs.SETTLED.get(event.outcome, ""))
            reason = f"  {output.flat(event.reason)}" if event.reason else ""
            attempt = f" (attempt {event.attempt})" if event.attempt > 1 else ""
            output.line(
                f"{spans.of_day(event.at)}  {event.outcome:<10}  {event.task:<30}  {event.run_id}"
                f"  {event.seconds:8.3f}s{attempt}{reason}",
                style if event.outcome != "success" else None,
            )
        if limit is not None and count >= limit:
            break
    if not count and not follow:
        output.note(f"No attempt has ended in the last {output.age(time.time() - start)}.")
    return ExitCode.DONE


def monitor(
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between refreshes.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one snapshot and end.")] = False,
) -> int:
    """A live view: queues, current runs, rates, failures; keys select, filter, open, retry and revoke. q ends it."""
    from ops.cli import watch
    from ops.cli.monitor import Monitor

    if not once and not options.json and not output.fancy():
        raise usage("monitor needs a terminal", do="In a pipe: `nexus monitor --once`, or --json.")
    deployment = common.connect()
    common.the_queues(None)
    if options.json:
        output.emit(Monitor().poll())
        return ExitCode.DONE
    if once:
        watch.show_once(deployment)
    else:
        watch.run(deployment, every)
    return ExitCode.DONE
