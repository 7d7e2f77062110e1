"""Why a run has not started or ended yet, and what will release it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from nexus.backend import backend
from nexus.backend.store import number
from nexus.client.steps import load
from nexus.runs import tallies
from nexus.runs.record import RunRecord
from nexus.settings import settings
from ops import catalogue, diagnosis, health, live
from ops.problems import REPAIR

LATE = 60.0
"""Seconds after which a due run whose queue is empty has lost its message."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A reason, and what releases the run: time, or a command."""

    why: str
    release: str


def reasons(record: RunRecord) -> list[Wait]:
    """Everything a run waits for, reasons for its whole queue first; empty if it runs or has ended."""
    now = time.time()
    if record.status == "STARTED":
        return list(_started(record, now))
    if record.status not in ("PENDING", "RETRY"):
        return []
    if record.status == "PENDING" and _follows(record):
        release = f"Its end; `nexus result {record.parent}` shows what that waits for."
        return [Wait(f"it follows {record.parent}, which has not ended", release)]
    due = record.eta or 0.0
    found = [*_queue(record.queue), *(_not_due(record) if due > now else _budget(record.task))]
    return found or list(_in_line(record, now))


def _follows(record: RunRecord) -> bool:
    """Whether it is a later step of a chain, whose message is sent when the step before it has ended.

    The steps are in the record of the run whose message was sent: those between it and this one are PENDING too.
    """
    store = backend().store
    before = store.get([record.parent]).get(record.parent, {}) if record.parent else {}
    if RunRecord.of(before).ended:
        return False
    while "then" not in before and before.get("status") == "PENDING" and "parent" in before:
        above = str(before["parent"])
        before = store.get([above]).get(above, {})
    return any(step.id == record.id for step in load(str(before.get("then", "[]")), str(before.get("id", ""))))


def stopped(queue: str) -> Wait | None:
    """Why nothing in a queue runs; None if it may."""
    return next(_queue(queue), None)


def _started(record: RunRecord, now: float) -> Iterator[Wait]:
    if record.fanned_out:
        done, total = tallies.progress(record)
        yield Wait(
            f"{done} of its {total} parts are done", f"`nexus inspect active {record.queue}` shows the current runs."
        )
    elif record.lease_until is not None and record.lease_until < now:
        yield Wait("its sandbox died", "SQS redelivers its message after the visibility timeout.")


def _queue(queue: str) -> Iterator[Wait]:
    """What stops the whole queue."""
    if health.queue_counts(settings().queue_name(queue)) is None:
        yield Wait(f"the queue {queue} is missing", REPAIR)
        return
    source = health.event_source(queue)
    if source is None:
        yield Wait(f"no event source feeds {queue}'s function", REPAIR)
    elif source.get("State") in ("Disabled", "Disabling"):
        yield Wait(f"the queue {queue} is paused", f"`nexus resume {queue}`")
    if health.reserved_concurrency(queue) == 0:
        yield Wait(f"the reserved concurrency of {queue}'s function is 0", f"`nexus resume {queue}`")


def _not_due(record: RunRecord) -> Iterator[Wait]:
    due = record.eta or 0.0
    at = f"{datetime.fromtimestamp(due, UTC):%Y-%m-%d %H:%M:%S} UTC"
    item = backend().store.get([record.id]).get(record.id, {})
    place = backend().store.get([record.place]).get(record.place, {}) if record.place else {}
    holder = str(place.get("holder", ""))
    if holder and holder != record.id and place.get("waiter") == record.id:
        until = datetime.fromtimestamp(number(place, "lease_until") or due, UTC)
        release = f"Its end, {until:%H:%M:%S} UTC at the latest; or `nexus revoke {holder}`."
        yield Wait(f"{holder} is live, and {record.task} is unique", release)
    elif "slot" in item:
        yield Wait(f"{record.task} has a rate limit, and its start is booked for {at}", "It starts then.")
    elif record.status == "RETRY" and record.error is not None:
        error = f"{record.error.type}: {record.error.message}"
        yield Wait(f"attempt {record.attempts} failed ({error}); the next comes at {at}", "It starts then.")
    else:
        release = f"It starts then; `nexus revoke {record.id}` cancels it."
        yield Wait(f"it is due at {at}", release)


def _budget(task: str) -> Iterator[Wait]:
    """What holds a task's messages until the next day."""
    from ops import budgets

    known = None if catalogue.missing() else catalogue.tasks().get(task)
    if known is None or known.budget is None:
        return
    one = budgets.of(task)
    if one.spent:
        release = f"00:00 UTC; `nexus budget {task} --dollars N` releases new messages."
        yield Wait(f"{task} has spent today's budget ({one.summary()})", release)


def _in_line(record: RunRecord, now: float) -> Iterator[Wait]:
    """Why a run that may start has not started."""
    queue = record.queue
    dying = diagnosis.dying(queue, now, *health.live_version(queue))
    if dying is not None:
        yield Wait(f"the function dies: {dying.error}", "`nexus status` shows what to do.")
        return
    counts, source = health.queue_counts(settings().queue_name(queue)), health.event_source(queue)
    most = (source or {}).get("ScalingConfig", {}).get("MaximumConcurrency")
    running = live.runs([queue], "STARTED", limit=1000, details=False).runs
    # A sandbox claims its whole batch at once, and the lease lasts as long as the invocation.
    busy = len({run.lease_until for run in running if not run.lost})
    waiting = counts.waiting if counts else 0
    dead = health.queue_counts(settings().dead_letter_queue_name(queue))
    late = now - max(record.eta or 0, record.sent_at or 0) > LATE
    if most is not None and busy >= most:
        release = f"The end of one of them (`nexus inspect active {queue}`), or `nexus concurrency {queue} {most * 2}`."
        yield Wait(f"all {most} sandboxes of {queue} are busy, and {waiting} messages wait", release)
    elif counts is not None and not counts.total and late and dead is not None and dead.total:
        release = f"`nexus dlq show {record.id}` shows whether it is, `nexus validate` what is wrong with the function."
        yield Wait(f"{queue} has no message for it: it may be a dead letter ({queue} has {dead.total})", release)
    elif counts is not None and not counts.total and late:
        release = f"`nexus send {record.task} ... --id {record.id}` sends it again under its id."
        yield Wait(f"{queue} has no message for it: it was purged, or has expired", release)
    else:
        release = f"It starts automatically; `nexus status` shows how {queue} is."
        flying = f", {counts.in_flight} in flight" if counts and counts.in_flight else ""
        yield Wait(f"its turn: {waiting} waiting in {queue}{flying}", release)
