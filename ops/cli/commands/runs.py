"""`nexus runs`: the run history; `nexus audit`: who changed what."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops import spans
from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import ExitCode, usage

if TYPE_CHECKING:
    from nexus.runs.record import RunRecord


def add_to(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "runs")(runs)
    command(app, "audit")(audit)


def runs(
    *,
    typed_filters: Annotated[
        list[str] | None,
        typer.Argument(
            help="Search terms: task:NAME status:failure since:2h user_id=u-1 id:9752202a.", metavar="FILTER"
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Only this task's.", autocompletion=common.complete_task)] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue's.", autocompletion=common.complete_queue)] = None,
    status: Annotated[str | None, typer.Option(help="pending, started, retry, success, failure or revoked.")] = None,
    since: Annotated[str | None, typer.Option(help="Sent since: 2h, or 2026-11-23T09:00 (UTC).")] = None,
    until: Annotated[str | None, typer.Option(help="Sent until: 1h, or a time.")] = None,
    error: Annotated[str | None, typer.Option(help="With this text in the error; case matters.")] = None,
    parent: Annotated[str | None, typer.Option(help="Sent by this run.", autocompletion=common.complete_run)] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Started by this schedule: a task's, or a periodic task.", autocompletion=common.complete_task
        ),
    ] = None,
    arg: Annotated[
        list[str] | None,
        typer.Option(help="With this argument value, or a prefix followed by *.", metavar="NAME=VALUE"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Show at most this many.")] = 50,
    after: Annotated[str | None, typer.Option(help="Continue after a page: its `next` value.", metavar="PLACE")] = None,
) -> int:
    """Search the run history, newest first; --json also prints the value for --after, as `next`."""
    from nexus.runs import tallies
    from ops import catalogue, history, lookup
    from ops import runs as showing

    typed = history.parse_words(typed_filters or ())
    given = {"task": task, "queue": queue, "status": status, "since": since, "until": until}
    given |= {"error": error, "parent": parent, "schedule": schedule}
    pairs = dict(_pair(text) for text in arg or ())
    filters = history.query(given, pairs)
    common.connect()
    wanted = lookup.whole(history.both(typed, filters))
    if wanted.queue is not None:
        common.the_queue(wanted.queue)
    found = history.find(wanted, limit, after)
    if options.json:
        shown = [showing.as_plain(record, result=False) for record in found.runs]
        output.emit({"runs": shown, "next": found.after, "examined": found.examined})
        return ExitCode.DONE
    now = time.time()
    output.table([_row(record, now) for record in found.runs], right=("sent", "took"))
    if not found.runs and found.after is None:
        output.line("No run matches.")
        known = {} if catalogue.missing() else catalogue.tasks()
        if known and wanted.task not in (None, tallies.GROUP, *known):
            output.note(f"The catalogue has no task {wanted.task!r}. {common.closest(str(wanted.task), list(known))}")
    elif found.after is not None:
        more = f"{found.examined} runs examined." if len(found.runs) < limit else "There are more."
        output.note(f"{more} `--after {found.after}` continues there.")
    return ExitCode.DONE


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise usage(f"{text!r} is not an argument", "Arguments are name=value.")
    return name, value


def _row(record: "RunRecord", now: float) -> dict[str, Any]:
    from ops import runs as showing

    took = showing.took(record)
    what = f"{record.error.type}: {record.error.message}" if record.error and record.status != "SUCCESS" else ""
    return {
        "id": record.id,
        "task": record.task,
        "status": record.status,
        "sent": f"{output.age(now - (record.sent_at or now))} ago",
        "took": "" if took is None else f"{took:.3f}s",
        "arguments": output.cut(output.arguments(record.args), 50),
        "error": output.cut(what, 60),
    }


def audit(
    who: Annotated[str, typer.Option(help="Only by users whose name contains this.", metavar="NAME")] = "",
    what: Annotated[str, typer.Option(help="Only commands and actions that contain this: retry, schedule.")] = "",
    since: Annotated[str | None, typer.Option(help="Only since: 2h, or 2026-11-23T09:00 (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Show at most this many.")] = 50,
) -> int:
    """Who changed what, and when: by commands, by clicks in `nexus web`, by keys in `nexus monitor`."""
    from ops import audit as trail

    from_ = 0.0 if since is None else spans.since(since)
    common.connect()
    found = trail.entries(limit, who=who, what=what, since=from_)
    if options.json:
        output.emit(found)
        return ExitCode.DONE
    output.table(
        [
            {
                "when": output.time_of(entry.at),
                "what": entry.what,
                "about": output.cut(" ".join(f"{k}={_shown(v)}" for k, v in entry.about.items()), 60),
                "outcome": output.cut(entry.outcome, 60),
                "who": entry.who,
            }
            for entry in found
        ]
    )
    if not found:
        output.line("No changes are recorded." if not (who or what or since) else "No change matches.")
    return ExitCode.DONE


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
