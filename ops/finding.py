"""Runs by the first characters of their ids, by what they are, and those of late.

A run that has started is in its function's log, and while it runs in the index of live runs. One that waits in its
queue is in the run table alone, which is then read from end to end. An id that was made by a sender begins with its
time (UUIDv7), so that the log is looked through from there on.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from nexus.aws.dynamodb import from_item
from nexus.aws.sdk import client
from nexus.runs.record import RunRecord
from nexus.settings import settings
from ops import catalogue, live, logs
from ops.aws import in_parallel
from ops.problems import Problem, usage

SHORTEST = 8
AN_HOUR, A_DAY, A_YEAR = 3600.0, 86_400.0, 366 * 86_400.0
RECENT = 600.0
"""Seconds of ended runs that are offered."""

SEGMENTS = 8
PAGES = 25
"""What a part of an id may cost: 200 MB of run records, a fraction of a cent."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A run by its record: `since` it started, or was due or sent (seconds since 1970)."""

    id: str
    task: str
    queue: str
    since: float

    @classmethod
    def of(cls, item: Any) -> "Stored":
        """Items of the table that are no runs (a unique task's place, say) have no task."""
        record = RunRecord.of(item)
        return cls(record.id, record.task, record.queue, record.started_at or record.eta or record.sent_at or 0.0)


@dataclass(frozen=True, slots=True)
class Known:
    """A run's id, with its task and how it is."""

    id: str
    task: str
    status: str


def run_id(text: str) -> str:
    """The whole id of a run by its first eight characters or more. Raises Problem when none or several have them."""
    text = text.strip().lower()
    if is_whole(text):
        return text
    if len(text) < SHORTEST or not re.fullmatch(r"[0-9a-f-]+", text):
        why = f"An id is a UUID, as `nexus send` prints it, or its first {SHORTEST} characters and more."
        raise usage(f"{text!r} is no run id", why)
    found = _beginning_with(text)
    if len(found) > 1:
        raise usage(f"{text} fits {len(found)} runs", ", ".join(sorted(found)[:5]), "Give more of the id.")
    if not found:
        why = "No live run has such an id, and no log line names one."
        raise Problem(f"No run's id begins with {text}", why, "Give the whole id: its record may still be there.")
    return found.pop()


def is_whole(text: str) -> bool:
    """Whether it is a whole id, and no first part of one."""
    return re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) is not None


def check_whole(text: str) -> None:
    """Raises Problem for what is no whole id."""
    if not is_whole(text):
        raise usage(f"{text!r} is no run id", "An id is a UUID, as `nexus send` prints it.")


def _beginning_with(start: str) -> set[str]:
    queues = catalogue.queues()
    running = live.runs(queues, limit=10_000, details=False).runs
    found = {run.id for run in running if run.id.startswith(start)}
    spans = iter(_when(start))
    while not found and (span := next(spans, None)) is not None:
        pages = in_parallel(partial(_in_log, start=start, span=span), queues)
        found = {run_id for page in pages for run_id in page}
    return found or {run.id for run in _scan("begins_with(id, :start)", {":start": {"S": start}}, PAGES)}


def live_runs(queues: Sequence[str], task: str | None, status: str | None) -> list[Stored]:
    """Every run that has not ended, by what it is. Reads the whole run table."""
    wanted = (status,) if status else ("PENDING", "RETRY", "STARTED")
    values = {f":{name}": {"S": name} for name in wanted}
    expression = f"#status IN ({', '.join(values)})"
    if task is not None:
        expression, values = f"{expression} AND task = :task", {**values, ":task": {"S": task}}
    return [run for run in _scan(expression, values) if run.queue in queues]


def _scan(expression: str, values: Mapping[str, Any], pages: int | None = None) -> list[Stored]:
    """The run records that a filter lets through, in at most so many pages (1 MB) of each segment."""
    request: dict[str, Any] = {
        "TableName": settings().table("task-runs"),
        "FilterExpression": expression,
        "ExpressionAttributeValues": dict(values),
        "TotalSegments": SEGMENTS,
    }
    if "#status" in expression:
        request["ExpressionAttributeNames"] = {"#status": "status"}

    def segment(number: int) -> list[Stored]:
        scanned = client("dynamodb").get_paginator("scan").paginate(**request, Segment=number)
        return [Stored.of(from_item(item)) for page in islice(scanned, pages) for item in page["Items"]]

    return [run for found in in_parallel(segment, range(SEGMENTS)) for run in found]


def _in_log(queue: str, start: str, span: tuple[float, float]) -> set[str]:
    names = (str(line.fields.get("run_id", "")) for line in logs.read(queue, [start], *span))
    return {name for name in names if name.startswith(start)}


def _when(start: str) -> Sequence[tuple[float, float]]:
    """The spans of time to look through, in seconds since 1970, the likeliest first."""
    now = time.time()
    # The first 48 bits of a UUIDv7 are milliseconds since 1970 (RFC 9562); the first 32 of them are 65 seconds exact.
    sent = int(start.replace("-", "")[:8], 16) * 2**16 / 1000
    if now - A_YEAR < sent < now + A_DAY:
        return (sent - 60, sent + AN_HOUR), (sent - 60, now + 60)
    return ((now - A_DAY, now + 60),)


def recent() -> list[Known]:
    """Runs that are live or have lately ended, the latest first."""
    queues = catalogue.queues()
    ended = {event.run_id: Known(event.run_id, event.task, event.outcome) for event in _lately(queues)}
    running = {run.id: Known(run.id, run.task, run.status) for run in live.runs(queues, details=False).runs}
    return list(reversed(({**ended, **running}).values()))


def _lately(queues: Sequence[str]) -> list[logs.Event]:
    return logs.events(queues, time.time() - RECENT)
