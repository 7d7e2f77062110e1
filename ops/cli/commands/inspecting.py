"""`nexus inspect ...`: what Celery's inspect told, in its words."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import ExitCode

if TYPE_CHECKING:
    from ops.live import Found

app = common.app("What is registered, runs, waits and is set; and ping.")

Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Show at most so many.")]


@command(app, "registered")
def registered(queue: common.OptionalQueue = None) -> int:
    """The tasks that each queue serves, with their arguments, limits and schedules."""
    from nexus import catalogue

    queues = common.the_queues(queue)
    tasks = [task for name in queues for task in catalogue.TASKS.values() if task.queue == name]
    if options.json:
        output.emit([_task(task) for task in tasks])
        return ExitCode.DONE
    output.table(
        ("queue", "task", "arguments", "limit", "retries", "schedule", "summary"),
        [
            (
                task.queue,
                task.name,
                " ".join(n if f.is_required() else f"[{n}]" for n, f in task.arguments.model_fields.items()),
                f"{task.time_limit:g}s",
                task.retry.max_retries,
                task.schedule.meaning if task.schedule else "",
                task.summary,
            )
            for task in tasks
        ],
        right=("limit", "retries"),
    )
    return ExitCode.DONE


def _task(task: Any) -> dict[str, Any]:
    return {
        "task": task.name,
        "queue": str(task.queue),
        "summary": task.summary,
        "arguments": task.arguments.model_json_schema(),
        "time_limit": task.time_limit,
        "max_retries": task.retry.max_retries,
        "schedule": task.schedule,
        "unique": task.unique is not None,
        "rate_limit": task.rate_limit.per_second if task.rate_limit else None,
    }


@command(app, "active")
def active(queue: common.OptionalQueue = None, limit: Limit = 100) -> int:
    """What runs now, and the jobs that wait for it."""
    from nexus import tallies
    from ops import live

    queues = common.the_queues(queue)
    common.connect()
    found = live.runs(queues, "STARTED", limit=limit)
    jobs = [(job, tallies.progress(job)) for job in live.parents(found.runs)]
    if options.json:
        waiting = [{"id": j.id, "task": j.task, "done": done, "total": total} for j, (done, total) in jobs]
        output.emit({"runs": found.runs, "more": found.more, "jobs": waiting})
        return ExitCode.DONE
    now = time.time()
    _table(
        found,
        ("id", "task", "queue", "attempt", "for", "left", "progress", "arguments"),
        [
            (
                run.id,
                run.task,
                run.queue,
                run.attempts,
                output.age(now - run.since),
                "lost" if run.lost else output.age((run.lease_until or now) - now),
                _progress(run),
                _arguments(run.args),
            )
            for run in found.runs
        ],
        "Nothing runs.",
    )
    for job, (done, total) in jobs:
        output.line(f"{job.task} {job.id} waits for its segments: {done} of {total} done")
    return ExitCode.DONE


@command(app, "reserved")
def reserved(queue: common.OptionalQueue = None, limit: Limit = 100) -> int:
    """What has run, and waits for its next attempt; and each queue's messages in flight."""
    from nexus.settings import settings
    from ops import health, live
    from ops.aws import in_parallel

    queues = common.the_queues(queue)
    common.connect()
    found = live.runs(queues, "RETRY", limit=limit)
    counts = dict(
        zip(queues, in_parallel(lambda q: health.queue_counts(settings().queue_name(q)), queues), strict=True)
    )
    in_flight = {name: count.in_flight for name, count in counts.items() if count}
    if options.json:
        output.emit({"runs": found.runs, "more": found.more, "in_flight": in_flight})
        return ExitCode.DONE
    now = time.time()
    _table(
        found,
        ("id", "task", "queue", "attempts", "next in", "arguments"),
        [
            (run.id, run.task, run.queue, run.attempts, _until(run.since, now), _arguments(run.args))
            for run in found.runs
        ],
        "Nothing waits for another attempt.",
    )
    output.line("In flight: " + ", ".join(f"{name} {count}" for name, count in in_flight.items()))
    return ExitCode.DONE


@command(app, "scheduled")
def scheduled(queue: common.OptionalQueue = None, limit: Limit = 100) -> int:
    """What is sent for later, by countdown or eta."""
    from ops import live

    queues = common.the_queues(queue)
    common.connect()
    found = live.scheduled(queues, limit=limit)
    if options.json:
        output.emit({"runs": found.runs, "more": found.more})
        return ExitCode.DONE
    now = time.time()
    _table(
        found,
        ("id", "task", "queue", "due", "in", "held by", "arguments"),
        [
            (
                run.id,
                run.task,
                run.queue,
                output.time_of(run.since),
                _until(run.since, now),
                run.scheduled_by,
                _arguments(run.args),
            )
            for run in found.runs
        ],
        "Nothing is sent for later.",
    )
    return ExitCode.DONE


@command(app, "stats")
def stats(
    queue: common.OptionalQueue = None,
    since: Annotated[str, typer.Option(help="How far back to count: 1h, 1d.")] = "1h",
) -> int:
    """How many attempts ended how, and how long they took, by task."""
    from ops import figures

    queues = common.the_queues(queue)
    back = common.seconds(since)
    common.connect()
    found = figures.by_task(queues, back)
    if options.json:
        output.emit({"seconds": back, "tasks": found})
        return ExitCode.DONE
    output.table(
        ("task", "queue", "success", "failure", "retry", "other", "per minute", "median", "p95", "longest"),
        [
            (
                row.task,
                row.queue,
                row.success,
                row.failure,
                row.retry,
                row.other,
                f"{row.total * 60 / back:.1f}",
                f"{row.median:.3f}s",
                f"{row.p95:.3f}s",
                f"{row.longest:.3f}s",
            )
            for row in found
        ],
        right=("success", "failure", "retry", "other", "per minute", "median", "p95", "longest"),
    )
    if not found:
        output.line(f"Nothing has ended in the last {since}.")
    return ExitCode.DONE


@command(app, "conf")
def conf(queue: common.OptionalQueue = None) -> int:
    """The settings in force: of the stack, and of each queue with its function."""
    from ops import configuration

    queues = common.the_queues(queue)
    deployment = common.connect()
    found = configuration.of_queues(queues)
    if options.json:
        output.emit({"stack": deployment.parameters, "queues": found})
        return ExitCode.DONE
    output.table(
        ("queue", "at once", "batch", "function", "memory", "visibility", "kept", "receives", "at most"),
        [
            (
                row.queue,
                "no limit" if row.concurrency is None else row.concurrency,
                row.batch_size,
                output.age(row.timeout),
                f"{row.memory} MB",
                output.age(row.visibility_timeout),
                output.age(row.retention),
                row.max_receives,
                f"{row.time_limit:g}s",
            )
            for row in found
        ],
        right=("at once", "batch", "function", "memory", "visibility", "kept", "receives", "at most"),
    )
    output.line()
    output.pairs(dict(sorted(deployment.parameters.items())))
    return ExitCode.DONE


@command(app, "ping")
def ping(
    queue: common.OptionalQueue = None,
    timeout: Annotated[str, typer.Option(help="How long to wait for the answers.")] = "60s",
) -> int:
    """Send a ping through each queue, and show how long its answer took; exit code 1 when one does not answer."""
    from ops import pinging

    queues = common.the_queues(queue)
    limit = common.seconds(timeout)
    common.connect()
    found = pinging.ping(queues, limit)
    if options.json:
        output.emit(found)
    else:
        output.table(
            ("queue", "answer", "round trip", "waited", "ran", "id"),
            [
                (
                    pong.queue,
                    "pong" if pong.answered else pong.status,
                    "-" if pong.round_trip is None else f"{pong.round_trip * 1000:.0f} ms",
                    "-" if pong.waited is None else f"{pong.waited * 1000:.0f} ms",
                    "-" if pong.ran is None else f"{pong.ran * 1000:.0f} ms",
                    pong.id,
                )
                for pong in found
            ],
            right=("round trip", "waited", "ran"),
        )
    return ExitCode.DONE if all(pong.answered for pong in found) else ExitCode.WRONG


def _table(found: "Found", columns: tuple[str, ...], rows: list[tuple[object, ...]], nothing: str) -> None:
    if not rows:
        output.line(nothing)
        return
    output.table(columns, rows, right=("attempt", "attempts", "for", "left", "next in", "in"))
    if found.more:
        output.line(f"... and more: --limit shows more than {len(rows)}.")


def _until(due: float, now: float) -> str:
    """How long it is until then; a minute late, it is said: its message may be lost, or its queue paused or behind."""
    return output.age(due - now) if due > now - 60 else f"overdue {output.age(now - due)}"


def _progress(run: Any) -> str:
    if run.progress:
        done, total, note = run.progress
        return f"{done}/{total} {note}".rstrip()
    return f"segment {run.segment}" if run.segment is not None else ""


def _arguments(args: Any) -> str:
    return "" if not args else output.cut(" ".join(f"{name}={value}" for name, value in args.items()), 60)
