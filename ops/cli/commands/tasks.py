"""Commands about one task or run: send, result, revoke, logs."""

import itertools
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops import audit, spans
from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import REPAIR, ExitCode, Problem, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nexus.client import AsyncResult
    from nexus.runs.record import RunRecord


def add_to(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "send")(send)
    command(app, "result")(result)
    command(app, "revoke")(revoke)
    command(app, "logs")(logs)


Timeout = Annotated[str | None, typer.Option(help="How long to wait: 90s, 5m. Without a limit if left out.")]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Whether a command that sends tasks waits for their results. Raises Problem for a timeout that is not a duration,
    or that has nothing to limit."""

    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and show it.")] = False
    timeout: Timeout = None

    def __post_init__(self) -> None:
        _check_timeout(self.timeout, "--wait", waits=self.wait)

    def show(self, sent: "Sequence[tuple[AsyncResult[Any], str, str]]") -> int:
        """Prints the ids of runs (handle, task, queue), or waits and prints their results. Returns the exit code."""
        handles = [handle for handle, _, _ in sent]
        if self.wait:
            if not options.json:  # if the wait is interrupted, this is what is known of the run
                output.note(f"Sent: {' '.join(handle.id for handle in handles)}")
            return _follow(handles, self.timeout)
        if options.json:
            shown = [{"id": handle.id, "task": task, "queue": queue} for handle, task, queue in sent]
            output.emit(shown if len(shown) > 1 else shown[0])
        else:
            for handle in handles:
                output.line(handle.id)
                if output.fancy():
                    output.note(f"`nexus result {handle.id} --follow` shows its result.")
        return ExitCode.DONE


def _check_timeout(timeout: str | None, option: str, *, waits: bool) -> None:
    if timeout is not None:
        spans.seconds(timeout)
        if not waits:
            raise usage(f"--timeout limits {option}", "Without it, nothing is waited for.", f"Give {option} too.")


def send(
    *,
    task: Annotated[str, typer.Argument(help="The task's name in the catalogue.", autocompletion=common.complete_task)],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="name=value; a value in [], {} or quotes is JSON.", autocompletion=common.complete_argument
        ),
    ] = None,
    args: Annotated[str | None, typer.Option(help="All arguments as JSON; - reads stdin.", metavar="JSON")] = None,
    countdown: Annotated[str | None, typer.Option(help="Run after this delay: 90s, 2h.")] = None,
    eta: Annotated[str | None, typer.Option(help="Run at this time: 2026-11-23T09:00, UTC.")] = None,
    expires: Annotated[
        str | None,
        typer.Option(help="Discard the run if an attempt, including a retry, would start later: 10m, or a time (UTC)."),
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(help="Send it to another queue that serves the task.", autocompletion=common.complete_queue),
    ] = None,
    task_id: Annotated[str | None, typer.Option("--id", help="The run's id: sending twice makes one run.")] = None,
    waiting: Waiting,
) -> int:
    """Send a task, as .delay() does."""
    from nexus.errors import ConfigurationError
    from ops import lookup

    timing = spans.timing({"countdown": countdown, "eta": eta, "expires": expires})
    if task_id is not None:
        lookup.check_whole(task_id)
    common.connect()
    wanted = common.the_task(task)
    given = _arguments(wanted, arguments or [], args)
    wanted.check(given)
    if queue is not None:
        common.the_queue(queue)
    try:
        handle = wanted.apply_async(given, queue=queue, task_id=task_id, **timing)
    except ConfigurationError as error:
        raise _not_sent(error, queue or wanted.queue or "default") from None
    audit.note_outcome(f"sent: {handle.id}")
    return waiting.show([(handle, wanted.name, queue or str(wanted.queue))])


def _not_sent(error: Exception, queue: str) -> Problem:
    """The Problem of a send that found no queue. The stack exists, or this command would have failed earlier."""
    from nexus.settings import settings
    from ops import health

    if health.queue_counts(settings().queue_name(queue)) is None:
        return Problem(f"{settings().stack} has no queue {queue}: it was deleted", "Nothing was sent.", REPAIR)
    return Problem(str(error))


def _arguments(task: Any, pairs: list[str], whole: str | None) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if whole is not None:
        text = sys.stdin.read() if whole == "-" else whole
        try:
            loaded = json.loads(text)
        except ValueError as error:
            raise usage("--args is not JSON", str(error)) from None
        if not isinstance(loaded, dict):
            raise usage("--args must be a JSON object", 'Such as {"user_id": "u-1"}.')
        given = loaded
    return {**given, **arguments_of(task, pairs)}


def arguments_of(task: Any, pairs: list[str]) -> dict[str, Any]:
    """Parses name=value pairs into a task's arguments. A value that looks like JSON is JSON; the model validates."""
    known = list(task.arguments.model_fields)
    given: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise usage(f"{pair!r} is not an argument", "Arguments are name=value.", _takes(task))
        if name not in known:
            do = common.closest(name, known) if known else _takes(task)
            raise usage(f"{task.name} has no argument {name!r}", do=do)
        given[name] = spans.argument(name, value)
    return given


def _takes(task: Any) -> str:
    fields = task.arguments.model_fields
    if not fields:
        return f"{task.name} takes no arguments."
    shown = (name if field.is_required() else f"[{name}]" for name, field in fields.items())
    return f"{task.name} takes {', '.join(shown)}."


def result(
    run_ids: Annotated[
        list[str],
        typer.Argument(
            help="Ids of runs, or their first or last eight characters.",
            metavar="ID",
            autocompletion=common.complete_run,
        ),
    ],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait until it ends, with a progress bar.")] = False,
    timeout: Timeout = None,
) -> int:
    """Show runs: status, attempts, result or error, and what they wait for; exit code 1 if one has failed."""
    from nexus.client import AsyncResult, read_records
    from ops import lookup

    _check_timeout(timeout, "--follow", waits=follow)
    common.connect()
    handles: list[AsyncResult[Any]] = [AsyncResult(lookup.run_id(text)) for text in run_ids]
    return _follow(handles, timeout) if follow else _show(read_records(handles))


def _follow(handles: "Sequence[AsyncResult[Any]]", timeout: str | None) -> int:
    """Waits until all runs have ended, and shows them. Raises Problem if the time runs out first."""
    limit = None if timeout is None else time.monotonic() + spans.seconds(timeout)
    records = [_ended(handle, limit) for handle in handles]
    code = _show(records)
    late = [record for record in records if not record.ended and record.status != "UNKNOWN"]
    if late:
        raise Problem(
            f"{late[0].id} is still {late[0].status} after {output.age(spans.seconds(str(timeout)))}",
            do=f"`nexus result {' '.join(record.id for record in late)} --follow` continues to wait.",
            code=ExitCode.STILL_RUNNING,
        )
    return code


def _ended(handle: "AsyncResult[Any]", limit: float | None) -> "RunRecord":
    """A run's record once it has ended, or at the limit. Polls every 0.2 seconds at first, every two later."""
    pause = 0.2
    shown = output.fancy(sys.stderr) and not options.json
    with output.bar(shown=shown) as bar:
        while True:
            record = handle.record()
            if shown:
                done, total = handle.progress if not record.ended else (0, 0)
                bar(done, total or None, _progress(record, done, total))
            if record.ended or record.status == "UNKNOWN" or (limit is not None and time.monotonic() >= limit):
                return record
            left = pause if limit is None else min(pause, max(0.0, limit - time.monotonic()))
            time.sleep(left)
            pause = min(pause * 1.3, 2.0)


def _progress(record: "RunRecord", done: int, total: int) -> str:
    note = record.progress[2] if record.progress else ""
    if record.status == "RETRY" and record.error:
        note = f"{record.error.type}: {record.error.message}"
    return " ".join(filter(None, (record.task or record.id, record.status, note, f"{done}/{total}" if total else "")))


def _show(records: "Sequence[RunRecord]") -> int:
    """Prints records, several as one JSON list, and returns the exit code for their statuses."""
    from ops import runs

    if options.json:
        shown = [runs.as_plain(record, waits=True) for record in records]
        output.emit(shown if len(shown) > 1 else shown[0])
    elif len(records) == 1 and records[0].status == "UNKNOWN":
        raise Problem(f"{records[0].id} is unknown", "No run has this id: never sent, or its record has expired.")
    else:
        for place, record in enumerate(records):
            if place:
                output.line()
            _print(record)
    return max(_code(record) for record in records)


def _code(record: "RunRecord") -> ExitCode:
    return ExitCode.WRONG if record.status in ("FAILURE", "REVOKED", "UNKNOWN") else ExitCode.DONE


def _print(record: "RunRecord") -> None:
    from ops.cli import records

    fields, below = records.described(record)
    output.pairs(fields)
    if below:
        output.line(below)
    if record.status != "FAILURE" or not output.fancy():
        return
    run_id = record.id
    if record.waits:
        output.note(f"`nexus runs parent:{run_id} status:failure` lists its members that failed.")
        output.note(f"`nexus dlq retry {run_id}` sends them again.")
    elif record.log:  # what never reached a function has neither a dead letter nor a log
        output.note(f"`nexus dlq show {run_id}` shows its dead letter, `nexus logs {run_id}` what it wrote.")
        output.note(f"`nexus dlq retry {run_id}` sends it again.")


def revoke(
    *,
    run_ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids of runs, or their first or last eight characters.",
            metavar="ID",
            autocompletion=common.complete_run,
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Every live run of this task.", autocompletion=common.complete_task)
    ] = None,
    queue: Annotated[
        str | None, typer.Option(help="Every live run of this queue.", autocompletion=common.complete_queue)
    ] = None,
    status: Annotated[str | None, typer.Option(help="Only runs with this status: PENDING, RETRY or STARTED.")] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Only those that were due, or started, longer ago: 2h.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them and revoke none.")] = False,
    reason: Annotated[str, typer.Option(help="The reason to record.")] = "revoked by an operator",
    yes: common.Yes = False,
) -> int:
    """Stop runs from starting, and fan-outs from continuing. A run in progress is not killed, and not retried."""
    from nexus.client import AsyncResult, read_records
    from ops import lookup
    from ops.aws import in_parallel
    from ops.cli import records

    filters = (task, queue, status, older_than)
    if bool(run_ids) == any(filters):
        raise usage("Which runs?", do="Give ids; or --task, --queue, --status, --older-than.")
    deployment = common.connect()
    if run_ids:
        found = read_records([AsyncResult[Any](lookup.run_id(text)) for text in run_ids])
    else:
        found = _live(task, queue, status, older_than)
        if not found:
            output.note("No live run matches.")
    ids = [run.id for run in found]
    if dry_run:
        shown = [{"id": run.id, "task": run.task, "queue": run.queue, "status": run.status} for run in found]
        if options.json:
            output.emit(shown)
        else:
            output.table(shown)
        if found:
            output.note(f"{_counted(found)} would be revoked.")
        return ExitCode.DONE
    if found:
        common.confirm(deployment, f"Revoke {_counted(found)} in {deployment.stack}?", yes=yes)

    counted = itertools.count(1)

    def stop(run_id: str) -> dict[str, Any]:
        handle: AsyncResult[Any] = AsyncResult(run_id)
        before = handle.status
        after = "UNKNOWN" if before == "UNKNOWN" else handle.revoke(reason)
        audit.note_progress(f"{next(counted):,} of {len(ids):,} runs were dealt with")
        return {"id": run_id, "before": before, "status": after, "means": records.meaning(before, after)}

    outcomes = in_parallel(stop, ids)
    after = Counter(t["status"] for t in outcomes)
    audit.note_outcome(", ".join(f"{count} {status}" for status, count in after.items()))
    if options.json:
        output.emit(outcomes)
    else:
        output.table([{"id": t["id"], "was": t["before"], "is": t["status"], "": t["means"]} for t in outcomes])
    done = all(t["status"] == "REVOKED" or (t["before"] == t["status"] == "STARTED") for t in outcomes)
    return ExitCode.DONE if done or not run_ids else ExitCode.WRONG


def _counted(found: "Sequence[RunRecord]") -> str:
    """How many runs, and of which tasks: 12 runs (8 ping, 4 send_welcome_email)."""
    by_task = Counter(run.task or "unknown" for run in found).most_common()
    tasks = ", ".join(f"{count:,} {task}" for task, count in by_task)
    return f"{len(found):,} run{'s' * (len(found) != 1)} ({tasks})"


def _live(task: str | None, queue: str | None, status: str | None, older_than: str | None) -> "list[RunRecord]":
    """The live runs that match a filter. Raises Problem if a status, queue, task or age is invalid."""
    from ops import lookup

    wanted = None if status is None else status.upper()
    if wanted not in (None, "PENDING", "RETRY", "STARTED"):
        raise usage(f"{status!r} is not a status of a live run", do="There are: PENDING, RETRY, STARTED.")
    queues = common.the_queues(queue)
    name = None if task is None else common.the_task(task).name
    before = time.time() - (0 if older_than is None else spans.seconds(older_than))
    found = lookup.live_runs(queues, name, wanted)
    return [run for run in found if (run.started_at or run.eta or run.sent_at or 0.0) <= before]


def logs(
    run_id: Annotated[
        str | None,
        typer.Argument(
            help="A run's id, or its first or last eight characters.", metavar="ID", autocompletion=common.complete_run
        ),
    ] = None,
    queue: Annotated[
        str | None, typer.Option(help="Everything that a queue's function wrote.", autocompletion=common.complete_queue)
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Look since: 2h, or a time (UTC); for --queue 1h if left out.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue until the run has ended, or Ctrl-C.")
    ] = False,
) -> int:
    """Show what a run wrote to its log, by its id; or what a queue's function wrote."""
    from ops import logs as reading
    from ops import lookup

    if (run_id is None) == (queue is None):
        raise usage("Whose log?", do="Give a run's id, or --queue NAME.")
    start = spans.since(since or "1h")
    common.connect()
    if run_id is not None:
        lines = reading.of_run(lookup.run_id(run_id), None if since is None else start, follow=follow)
    else:
        lines = reading.of_queue(common.the_queue(str(queue)), start, follow=follow)
    count = 0
    for line in lines:
        count += 1
        if options.json:
            output.emit_line(line)
        else:
            output.line(line.text, {"ERROR": "red", "WARNING": "yellow"}.get(line.level))
    if not count:
        output.note("The log has no lines from that time." if run_id is None else "No line names this run.")
    return ExitCode.DONE if count or run_id is None else ExitCode.WRONG
