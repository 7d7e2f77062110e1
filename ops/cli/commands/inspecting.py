"""`nexus inspect ...`: what Celery's inspect shows, under the same names."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops import spans
from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.live import Found, LiveRun

app = common.app("Registered tasks, running and waiting runs, settings; and ping.")

Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Show at most this many.")]


@command(app, "registered")
def registered(queue: common.OptionalQueue = None) -> int:
    """The tasks that each queue serves, with their arguments, limits and schedules."""
    from ops import catalogue

    common.connect()
    known = catalogue.tasks().values()
    tasks = [task for name in common.the_queues(queue) for task in known if task.queue == name]
    tasks += [task for task in known if task.everywhere and not task.queue]
    if options.json:
        output.emit([_task(task) for task in tasks])
        return ExitCode.DONE
    output.table(
        [
            {
                "queue": task.queue or "(every)",
                "task": task.name,
                "arguments": " ".join(
                    n if f.is_required() else f"[{n}]" for n, f in task.arguments.model_fields.items()
                ),
                "limit": f"{task.time_limit:g}s",
                "retries": task.retry.max_retries,
                "schedule": task.schedule.meaning if task.schedule else "",
                "summary": task.summary,
            }
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
    """Runs in progress for two seconds or longer, and the jobs that wait for them."""
    from nexus.runs import tallies
    from ops import live

    common.connect()
    queues = common.the_queues(queue)
    found = live.runs(queues, "STARTED", limit=limit)
    jobs = [(job, tallies.progress(job)) for job in live.parents(found.runs)]
    if options.json:
        waiting = [{"id": j.id, "task": j.task, "done": done, "total": total} for j, (done, total) in jobs]
        output.emit({"runs": found.runs, "more": found.more, "jobs": waiting})
        return ExitCode.DONE
    now = time.time()
    _table(
        found,
        lambda run: {
            "attempt": run.attempts,
            "for": output.age(now - run.since),
            "left": "lost" if run.lost else output.age((run.lease_until or now) - now),
            "progress": _progress(run),
        },
        "No run has taken two seconds yet.",
    )
    for job, (done, total) in jobs:
        output.line(f"{job.task} {job.id} waits for its segments: {done} of {total} done")
    return ExitCode.DONE


@command(app, "reserved")
def reserved(queue: common.OptionalQueue = None, limit: Limit = 100) -> int:
    """Runs that wait for their next attempt, and each queue's messages in flight."""
    from nexus.settings import settings
    from ops import health, live
    from ops.aws import in_parallel

    common.connect()
    queues = common.the_queues(queue)
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
        lambda run: {"attempts": run.attempts, "next in": _until(run.since, now)},
        "No run waits for another attempt.",
    )
    output.line("In flight: " + ", ".join(f"{name} {count}" for name, count in in_flight.items()))
    return ExitCode.DONE


@command(app, "scheduled")
def scheduled(queue: common.OptionalQueue = None, limit: Limit = 100) -> int:
    """Runs that are due later, by countdown or eta."""
    from ops import live

    common.connect()
    queues = common.the_queues(queue)
    found = live.scheduled(queues, limit=limit)
    if options.json:
        output.emit({"runs": found.runs, "more": found.more})
        return ExitCode.DONE
    now = time.time()
    _table(
        found,
        lambda run: {
            "due": output.time_of(run.since),
            "in": _until(run.since, now),
            "held by": run.scheduled_by,
        },
        "No run is due later.",
    )
    return ExitCode.DONE


@command(app, "stats")
def stats(
    queue: common.OptionalQueue = None,
    since: Annotated[str, typer.Option(help="Count the attempts since: 1h, or 2026-11-23T09:00 (UTC).")] = "1h",
) -> int:
    """Outcomes and durations of attempts by task, and successes that fell short of their purpose."""
    from ops import figures

    start = spans.since(since)
    back = round(time.time() - start, 3)
    common.connect()
    queues = common.the_queues(queue)
    found = figures.by_task(queues, start)
    if options.json:
        output.emit({"seconds": back, "tasks": found})
        return ExitCode.DONE
    output.table(
        [
            {
                "task": row.task,
                "queue": row.queue,
                "success": row.success,
                "failure": row.failure,
                "retry": row.retry,
                "other": row.other,
                "per minute": f"{row.total * 60 / back:.1f}",
                "median": f"{row.median:.3f}s",
                "p95": f"{row.p95:.3f}s",
                "longest": f"{row.longest:.3f}s",
                "fell short": figures.in_words(row.shortfalls),
            }
            for row in found
        ],
        right=("success", "failure", "retry", "other", "per minute", "median", "p95", "longest"),
    )
    if not found:
        output.line(f"No attempt has ended in the last {output.age(back)}.")
    return ExitCode.DONE


@command(app, "conf")
def conf(queue: common.OptionalQueue = None) -> int:
    """The current settings of the stack, and of each queue with its function."""
    from ops import configuration, health
    from ops.schedules import parameter

    deployment = common.connect()
    queues = common.the_queues(queue)
    found, rules = configuration.of_queues(queues), health.rule_states()
    # The parameter holds the schedule as deployed; `nexus schedule set` changes only the rule.
    parameters = {**deployment.parameters}
    in_force = {rule.task: rule.expression for rule in rules if rule.expression}
    for task, expression in in_force.items():
        deployed = parameters.get(parameter(task))
        if deployed is not None and deployed != expression:
            parameters[parameter(task)] = f"{expression} (deployed: {deployed})"
    if options.json:
        output.emit({"stack": deployment.parameters, "queues": found, "schedules": in_force})
        return ExitCode.DONE
    output.table(
        [
            {
                "queue": row.queue,
                "at once": "no limit" if row.concurrency is None else row.concurrency,
                "batch": row.batch_size,
                "function": output.age(row.timeout),
                "memory": f"{row.memory} MB",
                "visibility": output.age(row.visibility_timeout),
                "kept": output.age(row.retention),
                "receives": row.max_receives,
                "at most": "-" if row.time_limit is None else f"{row.time_limit:g}s",
            }
            for row in found
        ],
        right=("at once", "batch", "function", "memory", "visibility", "kept", "receives", "at most"),
    )
    output.line()
    output.pairs(dict(sorted(parameters.items())))
    return ExitCode.DONE


@command(app, "ping")
def ping(
    queue: common.OptionalQueue = None,
    timeout: Annotated[str, typer.Option(help="How long to wait for the responses.")] = "60s",
) -> int:
    """Send a ping through each queue and show the response time; exit code 1 if a queue does not respond."""
    from ops import pinging

    limit = spans.seconds(timeout)
    common.connect()
    queues = common.the_queues(queue)
    found = pinging.ping(queues, limit)
    if options.json:
        output.emit(found)
    else:
        output.table(
            [
                {
                    "queue": pong.queue,
                    "answer": "pong" if pong.answered else pong.status,
                    "round trip": _milliseconds(pong.round_trip),
                    "waited": _milliseconds(pong.waited),
                    "ran": _milliseconds(pong.ran),
                    "id": pong.id,
                }
                for pong in found
            ],
            right=("round trip", "waited", "ran"),
        )
        for pong in found:
            if pong.why:
                output.line(f"{pong.queue}: {pong.why}", "yellow")
    return ExitCode.DONE if all(pong.answered for pong in found) else ExitCode.WRONG


def _table(found: "Found", columns: "Callable[[LiveRun], dict[str, object]]", nothing: str) -> None:
    if not found.runs:
        output.line(nothing)
        return
    rows = []
    for run in found.runs:
        arguments = output.cut(output.arguments(run.args), 60)
        rows.append({"id": run.id, "task": run.task, "queue": run.queue, **columns(run), "arguments": arguments})
    output.table(rows, right=("attempt", "attempts", "for", "left", "next in", "in"))
    if found.more:
        output.line(f"... and more: --limit shows more than {len(found.runs)}.")


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


def _until(due: float, now: float) -> str:
    """The time left until `due`. Says if it is a minute late: its message is lost, or the queue paused or behind."""
    return output.age(due - now) if due > now - 60 else f"overdue {output.age(now - due)}"


def _progress(run: Any) -> str:
    if run.progress:
        done, total, note = run.progress
        return f"{done}/{total} {note}".rstrip()
    return f"segment {run.segment}" if run.segment is not None else ""
