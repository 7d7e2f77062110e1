"""What the runs cost, by task, queue and day: the records' measures (`nexus.runs.spent`) at `nexus.prices`.

The run history's index counts the runs, and the costs come from their records. For a busy task's day a sample is read,
and its mean applies to all. The sample is the runs with the lowest id endings: practically random, and repeatable.
"""

import heapq
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict

from nexus import prices
from nexus.aws.dynamodb import Row, from_item
from nexus.backend.store import RUNS
from nexus.prices import Cost
from nexus.runs.spent import Spent
from nexus.settings import settings
from ops import catalogue, cloudwatch, history
from ops.aws import client, in_parallel
from ops.cloudwatch import Metric

SAMPLE: Final = 2_000
"""The most records to read per task, and at least LEAST for each of its days."""

LEAST: Final = 100
WEEK: Final = 7 * 86_400.0
POLLS: Final = 5 * 3 * 60 * 24
"""ReceiveMessage calls per day of an idle queue: Lambda keeps five open, each for twenty seconds."""

PARTS: Final = {"requests": "requests", "compute": "Lambda", "s3": "S3", "logs": "logs", "mail": "mail"}
"""The parts of a run's cost, named as in `nexus.prices.Cost`."""

BY: Final = ("task", "queue", "day")

NO_QUEUE: Final = "no queue"
"""In place of a queue's name: groups have no queue."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The runs of one task sent on one day (UTC), and their cost. `read` is how many records were read; `unmeasured` of
    those predate the measure and count with the mean of the others."""

    task: str
    queue: str
    day: str
    runs: int
    read: int
    unmeasured: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table: a sum of slices. `each` is the cost per run."""

    name: str
    runs: int
    cost: Cost
    estimated: bool

    @property
    def each(self) -> float:
        return self.cost.total / self.runs if self.runs else 0.0


@dataclass(frozen=True, slots=True)
class Idle:
    """A cost without any runs, in dollars per month."""

    what: str
    dollars: float


def read_slices(since: float, *, sample: int = SAMPLE) -> list[Slice]:
    """The costs of runs sent since then (seconds since 1970). Raises Problem if no run history is kept."""
    days = max(1, round((time.time() - since) / 86_400 + 0.5))
    seen = _Seen(max(LEAST, sample // days))
    history.over(history.Query(since=since), seen.take)
    wanted = [run_id for group in seen.lowest.values() for _, run_id in seen.sample(group)]
    records = {str(item["id"]): item for item in map(from_item, _read(wanted))}
    found = []
    for (task, day), group in seen.lowest.items():
        items = [records[run_id] for _, run_id in seen.sample(group) if run_id in records]
        found.append(_slice(task, day, seen.runs[task, day], items))
    return sorted(found, key=lambda one: (one.day, one.task))


def _read(run_ids: Sequence[str]) -> Iterable[Row]:
    names = ("id", "queue", "status", "attempts", "spent")
    return RUNS.get_many([{"id": run_id} for run_id in run_ids], attributes=names, threads=16)


class _Seen:
    """The number of runs by task and day, and for each the ones with the lowest id endings."""

    def __init__(self, size: int) -> None:
        self.runs: Counter[tuple[str, str]] = Counter()
        self.lowest: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        self._size = size
        self._lock = threading.Lock()

    def take(self, page: Sequence[Row]) -> None:
        with self._lock:
            for item in page:
                run_id = item["id"]["S"]
                key = item["task"]["S"], _day(float(item["sent_at"]["N"]))
                self.runs[key] += 1
                group = self.lowest[key]
                group.append((run_id[-12:], run_id))
                if len(group) > 4 * self._size:
                    group[:] = self.sample(group)

    def sample(self, group: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return heapq.nsmallest(self._size, set(group))  # a run that fails meanwhile is read twice


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def _slice(task: str, day: str, runs: int, items: Sequence[Mapping[str, Any]]) -> Slice:
    measured = [Spent.of(item) for item in items]
    # A waiting run has used nothing yet. One that ended without a measure is older than the measure.
    old = sum(Spent.of(item) is None and _has_run(item) for item in items)
    measurable = len(items) - old
    total = sum((prices.cost(spent) for spent in measured if spent is not None), Cost())
    known = catalogue.tasks().get(task)
    queues = Counter(str(item.get("queue", "")) for item in items)
    queue = known.queue if known is not None and known.queue else next(iter(queues), "") or NO_QUEUE
    return Slice(task, queue, day, runs, len(items), old, total.times(runs / measurable) if measurable else Cost())


def _has_run(item: Mapping[str, Any]) -> bool:
    return item["status"] in ("SUCCESS", "FAILURE") and int(item.get("attempts", 0)) > 0


def by(slices: Iterable[Slice], what: str) -> list[Line]:
    """Sums by task or queue, most expensive first, or by day."""
    groups: dict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        groups[getattr(one, what)].append(one)
    lines = [total(name, group) for name, group in groups.items()]
    return sorted(lines, key=(lambda line: line.name) if what == "day" else (lambda line: -line.cost.total))


def total(name: str, slices: Iterable[Slice]) -> Line:
    """The sum of all slices."""
    found = list(slices)
    estimated = any(one.read < one.runs or one.unmeasured for one in found)
    return Line(name, sum(one.runs for one in found), sum((one.cost for one in found), Cost()), estimated)


def today(slices: Iterable[Slice]) -> list[Slice]:
    """The slices of today."""
    day = _day(time.time())
    return [one for one in slices if one.day == day]


def covered(slices: Iterable[Slice], since: float) -> float:
    """The days that all these slices cover: from `since`, or from the first day with a run if that is later; at least
    one."""
    first = min((datetime.fromisoformat(one.day).replace(tzinfo=UTC).timestamp() for one in slices), default=since)
    return max((time.time() - max(since, first)) / 86_400, 1.0)


def month_ahead(slices: Iterable[Slice], idle_costs: Iterable[Idle], days: float) -> float:
    """Dollars for a month at the rate of these slices, idle costs included.

    `days` is what the slices of all tasks cover (`covered`), so that tasks add up to their total. A task that is newer
    than that counts as if it had not been sent on the days before.
    """
    monthly = sum(one.dollars for one in idle_costs)
    return monthly + sum(one.cost.total for one in slices) / days * prices.MONTH


# --- idle costs ---


def idle() -> list[Idle]:
    """Idle costs by kind. Leaves out what AWS does not report."""
    stack = settings().stack
    pages = client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
    parts = [one for page in pages for one in page["StackResourceSummaries"]]
    kinds = Counter(one["ResourceType"] for one in parts)
    named = {kind: [one["PhysicalResourceId"] for one in parts if one["ResourceType"] == kind] for kind in kinds}
    queues = len(catalogue.queues())
    receives = queues * POLLS * prices.MONTH * prices.SQS_REQUEST
    alarms, secrets = kinds["AWS::CloudWatch::Alarm"], kinds["AWS::SecretsManager::Secret"]
    sizes: list[Callable[[], Idle]] = [
        lambda: Idle("tables", _gigabytes(_table, named.get("AWS::DynamoDB::Table", [])) * prices.TABLE_GB),
        lambda: Idle("logs", _gigabytes(_log_group, named.get("AWS::Logs::LogGroup", [])) * prices.LOG_GB),
        lambda: Idle("objects", _objects(named.get("AWS::S3::Bucket", [])) / prices.GB * prices.OBJECT_GB),
    ]
    return [
        Idle(f"{alarms} alarms", alarms * prices.ALARM),
        Idle(f"{secrets} secret{'s' if secrets != 1 else ''}", secrets * prices.SECRET),
        Idle(f"empty receives of {queues} queues", receives),
        *in_parallel(lambda ask: ask(), sizes),
    ]


def _gigabytes(size: Callable[[str], float], names: Sequence[str]) -> float:
    return sum(in_parallel(size, names)) / prices.GB


def _table(name: str) -> float:
    from nexus.aws.sdk import client as runtime_client

    described = runtime_client("dynamodb").describe_table(TableName=name)["Table"]
    indexes = sum(index.get("IndexSizeBytes", 0) for index in described.get("GlobalSecondaryIndexes", ()))
    return described.get("TableSizeBytes", 0) + indexes


def _log_group(name: str) -> float:
    found = client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return sum(one.get("storedBytes", 0) for one in found if one["logGroupName"] == name)


def _objects(buckets: Sequence[str]) -> float:
    """Bytes, as CloudWatch reports them once a day."""
    wanted = {
        bucket: Metric(
            "AWS/S3", "BucketSizeBytes", "Average", {"BucketName": bucket, "StorageType": "StandardStorage"}, 86_400
        )
        for bucket in buckets
    }
    found = cloudwatch.read(wanted, timedelta(days=3))
    return sum(next(iter(values.values())) for values in found.values())


# --- for programs, and in words ---


class CostLine(TypedDict):
    """Runs added up: dollars, of one run, and what they are for; `estimated` from a sample of the records."""

    name: str
    runs: int
    dollars: float
    dollars_a_run: float
    of: Cost
    estimated: bool


def as_plain(line: Line) -> CostLine:
    """A line as plain values for JSON."""
    each, whole = line.each, line.cost.total
    return CostLine(
        name=line.name, runs=line.runs, dollars=whole, dollars_a_run=each, of=line.cost, estimated=line.estimated
    )


def dollars(amount: float) -> str:
    """Dollars as text: whole cents from ten cents up, below that at least two significant digits."""
    digits = 2 if amount == 0 or amount >= 0.1 else max(3, 1 - math.floor(math.log10(amount)))
    return f"${amount:,.{digits}f}"
