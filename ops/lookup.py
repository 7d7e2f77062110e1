"""Finds runs by the first or last characters of their ids, by filter, and recent ones.

An id made by a sender starts with its time (UUIDv7): runs of the same minute share their first eight characters. The
last eight are random, so narrow terminals show those. The run history finds either (`ops.history`); without one, the
search covers the live runs and the first pages of the run table.
"""

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from nexus.aws.dynamodb import from_item
from nexus.aws.sdk import client
from nexus.runs.record import RunRecord
from nexus.settings import settings
from ops import catalogue, history, live, logs
from ops.aws import in_parallel
from ops.problems import Problem, usage

RECENT = 600.0
"""Completion offers runs that ended within this many seconds."""

SEGMENTS = 8
PAGES = 25
"""The most that a search by partial id may read without a run history: 200 MB of run records, a third of a cent."""

CANDIDATES = 5


@dataclass(frozen=True, slots=True)
class Known:
    """A run's id, with its task and status."""

    id: str
    task: str
    status: str


def short(run_id: str) -> str:
    """An id as narrow terminals show it; every command accepts it."""
    return run_id[-history.SHORTEST :]


def run_id(text: str) -> str:
    """The whole id of a run from eight or more of its first or last characters. Raises Problem for none or several."""
    text = text.strip().lower()
    if is_whole(text):
        return text
    if not history.is_part(text):
        why = f"An id is a UUID, or its first or last {history.SHORTEST} characters and more."
        raise usage(f"{text!r} is not a run id", why)
    found = _having(text)
    if len(found) > 1:
        shown = "; ".join(f"{one.id} {one.task} {one.status}".rstrip() for one in found[:CANDIDATES])
        many = str(len(found)) if len(found) <= CANDIDATES else f"more than {CANDIDATES}"
        raise usage(f"{text} matches {many} runs", f"{shown}.", "Give more of the id.")
    if not found:
        why = "Only the runs of the last day are searched, unless the id's first characters contain its time."
        do = f"`nexus runs id:{text} since:7d` searches further back; a complete id is found at any age."
        raise Problem(f"No run's id begins or ends with {text}", why, do)
    return found[0].id


def whole(wanted: history.Query) -> history.Query:
    """The query with its parent's whole id. Raises Problem if there is no such run, or several."""
    return wanted if wanted.parent is None else replace(wanted, parent=run_id(wanted.parent))


def is_whole(text: str) -> bool:
    """Whether it is a whole id, not a prefix."""
    return re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) is not None


def check_whole(text: str) -> None:
    """Raises Problem if it is not a whole id."""
    if not is_whole(text):
        raise usage(f"{text!r} is not a run id", "An id is a UUID, as `nexus send` prints it.")


def _having(part: str) -> list[Known]:
    """The runs whose ids begin or end with `part`: all from the time span in which the first was found.

    The history is partitioned by the catalogue's tasks. Without a history or a catalogue, reads the records themselves.
    """
    if not catalogue.missing():
        with suppress(history.NotKept):
            found = history.find(history.Query(id=part), CANDIDATES + 1).runs
            return [Known(one.id, one.task, one.status) for one in found]
    stored = [one for one in _scan("contains(id, :part)", {":part": {"S": part}}, PAGES) if is_whole(one.id)]
    running = live.runs(catalogue.queues(), limit=10_000, details=False).runs
    known = {one.id: Known(one.id, one.task, "") for one in stored}
    known |= {one.id: Known(one.id, one.task, one.status) for one in running}
    return [one for one in known.values() if history.has_part(one.id, part)]


def live_runs(queues: Sequence[str], task: str | None, status: str | None) -> list[RunRecord]:
    """Every run that has not ended and matches. Reads the whole run table."""
    wanted = (status,) if status else ("PENDING", "RETRY", "STARTED")
    values = {f":{name}": {"S": name} for name in wanted}
    expression = f"#status IN ({', '.join(values)})"
    if task is not None:
        expression, values = f"{expression} AND task = :task", {**values, ":task": {"S": task}}
    return [run for run in _scan(expression, values) if run.queue in queues]


def _scan(expression: str, values: Mapping[str, Any], pages: int | None = None) -> list[RunRecord]:
    """The items that match a filter expression, from at most `pages` pages (1 MB) of each segment: what they are and
    when they were sent, were due and started. Those that are not runs (a unique task's lock, say) have no task.
    """
    names = {f"#{name}": name for name in ("id", "task", "queue", "status", "sent_at", "started_at", "eta")}
    request: dict[str, Any] = {
        "TableName": settings().table("task-runs"),
        "FilterExpression": expression,
        "ProjectionExpression": ", ".join(names),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": dict(values),
        "TotalSegments": SEGMENTS,
    }

    def segment(number: int) -> list[RunRecord]:
        scanned = client("dynamodb").get_paginator("scan").paginate(**request, Segment=number)
        return [RunRecord.of(from_item(item)) for page in islice(scanned, pages) for item in page["Items"]]

    return [run for found in in_parallel(segment, range(SEGMENTS)) for run in found]


def recent() -> list[Known]:
    """Runs that are live or ended recently, latest first."""
    queues = catalogue.queues()
    ended = {event.run_id: Known(event.run_id, event.task, event.outcome) for event in _lately(queues)}
    running = {run.id: Known(run.id, run.task, run.status) for run in live.runs(queues, details=False).runs}
    return list(reversed(({**ended, **running}).values()))


def _lately(queues: Sequence[str]) -> list[logs.Event]:
    return logs.events(queues, time.time() - RECENT)
