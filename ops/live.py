"""Runs that have not ended: running for two seconds or longer, waiting for a retry, or scheduled for later.

Read from the sparse index `live` of the run table (sixteen partitions per queue) and, for delays beyond SQS's limit,
from EventBridge Scheduler. Times are seconds since 1970.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, Literal

from nexus.aws.dynamodb import from_item
from nexus.aws.sdk import client
from nexus.client import AsyncResult, read_records
from nexus.runs.record import RunRecord
from nexus.runs.transitions import SHARDS
from nexus.settings import settings
from ops.aws import in_parallel
from ops.spans import At

SKEW = 900.0
"""Seconds by which this machine's clock may be behind: AWS refuses requests from one that is further off."""

type State = Literal["STARTED", "RETRY", "PENDING"]


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run in the index. `since` is when it started or is due; its sandbox must settle it by `lease_until`."""

    id: str
    task: str
    queue: str
    status: str
    since: At
    attempts: int = 0
    lease_until: At | None = None
    parent: str | None = None
    segment: int | None = None
    args: Any = None
    progress: tuple[int, int, str] | None = None
    scheduled_by: str = "SQS"

    @property
    def lost(self) -> bool:
        """Whether its sandbox died: its lease has expired without a result. SQS redelivers its message."""
        return self.lease_until is not None and self.lease_until < time.time()


@dataclass(frozen=True, slots=True)
class Found:
    """The runs, sorted by `since`; `more` is whether the limit cut some off."""

    runs: tuple[LiveRun, ...]
    more: bool


def runs(queues: Sequence[str], status: State | None = None, *, limit: int = 100, details: bool = True) -> Found:
    """Up to `limit` live runs, oldest first; `details` adds arguments and progress from their records."""
    shards = [f"{queue}#{shard}" for queue in queues for shard in SHARDS]
    pages = in_parallel(lambda key: _shard(key, status, limit), shards, threads=32)
    found = sorted((run for page, _ in pages for run in page), key=lambda run: run.since)
    more = len(found) > limit or any(cut for _, cut in pages)
    found = found[:limit]
    if details and found:
        records = {record.id: record for record in read_records([AsyncResult(run.id) for run in found])}
        found = [_with_record(run, records[run.id]) for run in found]
    return Found(tuple(found), more)


def _shard(key: str, status: str | None, limit: int) -> tuple[list[LiveRun], bool]:
    dynamodb = client("dynamodb")
    request: dict[str, Any] = {
        "TableName": settings().table("task-runs"),
        "IndexName": "live",
        "KeyConditionExpression": "live = :key",
        "ExpressionAttributeValues": {":key": {"S": key}},
    }
    names, values = {}, request["ExpressionAttributeValues"]
    if status:
        names["#status"] = "status"
        values[":status"] = {"S": status}
        request["FilterExpression"] = "#status = :status"
    if status == "STARTED":  # a run has started in the past: those that are due later, perhaps millions, are not read
        names["#since"] = "since"
        values[":soon"] = {"N": str(round(time.time() + SKEW, 3))}
        request["KeyConditionExpression"] += " AND #since <= :soon"
    if names:
        request["ExpressionAttributeNames"] = names
    found: list[LiveRun] = []
    while True:
        response = dynamodb.query(**request)
        found += [_run(from_item(item), key.partition("#")[0]) for item in response["Items"]]
        if len(found) > limit:
            return found[:limit], True
        if "LastEvaluatedKey" not in response:
            return found, False
        request["ExclusiveStartKey"] = response["LastEvaluatedKey"]


def _run(item: Any, queue: str) -> LiveRun:
    record = RunRecord.of(item)
    return LiveRun(
        id=record.id,
        task=record.task,
        queue=queue,
        status=record.status,
        since=float(item.get("since", 0)),
        attempts=record.attempts,
        lease_until=record.lease_until,
    )


def _with_record(run: LiveRun, record: RunRecord) -> LiveRun:
    since = record.started_at if run.status == "STARTED" and record.started_at is not None else run.since
    detailed = replace(run, parent=record.parent, segment=record.segment, args=record.args, progress=record.progress)
    return replace(detailed, since=since)


def scheduled(queues: Sequence[str], *, limit: int = 100) -> Found:
    """Runs sent for later: delayed messages and one-off schedules, the next first.

    Of more than LISTED schedules, the first by id are looked at: those of runs without a record may be missing.
    """
    found = runs(queues, "PENDING", limit=limit)
    known = {run.id for run in found.runs}
    listed = dict.fromkeys(islice(_schedules(), LISTED))
    later = [name for name in listed if name not in known]
    held = known & set(listed)
    if len(listed) == LISTED:
        held |= {run.id for run in in_parallel(_scheduled, sorted(known - held)) if run is not None}
    # A run that was sent without a record is known only from its schedule.
    later_runs = [run for run in in_parallel(_scheduled, later[:limit]) if run is not None and run.queue in queues]
    earlier = [replace(run, scheduled_by="Scheduler") if run.id in held else run for run in found.runs]
    merged = sorted([*earlier, *later_runs], key=lambda run: run.since)
    return Found(tuple(merged[:limit]), found.more or len(merged) > limit or len(later) > limit)


LISTED: Final = 10_000
"""The most schedules that are listed: a hundred requests."""


def _schedules() -> Iterable[str]:
    scheduler = client("scheduler")
    try:
        for page in scheduler.get_paginator("list_schedules").paginate(GroupName=settings().stack):
            for schedule in page["Schedules"]:
                yield schedule["Name"]
    except scheduler.exceptions.ResourceNotFoundException:
        return


def _scheduled(name: str) -> LiveRun | None:
    from datetime import UTC, datetime

    from nexus.envelope import decode
    from nexus.errors import InvalidMessage

    scheduler = client("scheduler")
    try:
        schedule = scheduler.get_schedule(Name=name, GroupName=settings().stack)
    except scheduler.exceptions.ResourceNotFoundException:
        return None  # It was sent in the meantime.
    try:
        envelope = decode(schedule["Target"].get("Input", ""))
        due = datetime.strptime(schedule["ScheduleExpression"], "at(%Y-%m-%dT%H:%M:%S)").replace(tzinfo=UTC)
    except (InvalidMessage, ValueError):
        return None
    queue = schedule["Target"]["Arn"].rpartition(f":{settings().stack}-")[2]
    return LiveRun(
        envelope.id, envelope.task, queue, "PENDING", due.timestamp(), args=envelope.args, scheduled_by="Scheduler"
    )


def parents(found: Iterable[LiveRun | RunRecord]) -> list[RunRecord]:
    """The fan-outs and groups that wait for these runs."""
    ids = sorted({run.parent for run in found if run.parent})
    return [record for record in read_records([AsyncResult(run_id) for run_id in ids]) if record.fanned_out]
