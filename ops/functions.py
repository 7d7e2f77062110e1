"""The functions: the live version and its age, CloudWatch's metrics of the last day, and cold starts and memory from
Lambda's own log lines, which no metric has."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from nexus.settings import settings
from ops import cloudwatch, logs, versions
from ops.aws import in_parallel
from ops.cloudwatch import Metric
from ops.figures import percentile

BACK: Final = timedelta(hours=24)
HOUR: Final = 3600.0
LITTLE, MOST = 20, 10_000
"""Reads an hour of log, or a day if the hour has fewer invocations than that, and at most this many lines."""

WANTED: Final = {
    "invocations": ("Invocations", "Sum"),
    "errors": ("Errors", "Sum"),
    "throttles": ("Throttles", "Sum"),
    "median": ("Duration", "p50"),
    "p95": ("Duration", "p95"),
    "p99": ("Duration", "p99"),
    "at_once": ("ConcurrentExecutions", "Maximum"),
}


@dataclass(frozen=True, slots=True)
class Sandboxes:
    """A summary of Lambda's REPORT lines of the last `since` seconds. Times in seconds, memory in MB; None if the lines
    do not have it, as in the local cloud."""

    invocations: int
    since: float
    cold_starts: int
    cold_start_median: float | None
    memory_median: int | None
    memory_p95: int | None
    durations: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Function:
    """A queue's function. CloudWatch's figures cover the last day; None if it has none. Durations are in seconds, from
    the log if CloudWatch has none."""

    queue: str
    name: str
    version: str
    deployed_at: datetime | None
    memory: int
    timeout: int
    architecture: str
    invocations: int | None
    errors: int | None
    throttles: int | None
    median: float | None
    p95: float | None
    p99: float | None
    at_once: int | None
    sandboxes: Sandboxes


def read_all(queues: Sequence[str]) -> list[Function]:
    """Every queue's function. Raises botocore's errors."""
    configurations = in_parallel(versions.configuration, queues)
    sandboxes = in_parallel(_sandboxes, queues)
    counted = _counted(queues)
    return [_function(*all_, counted) for all_ in zip(queues, configurations, sandboxes, strict=True)]


def _function(queue: str, found: Any, sandboxes: Sandboxes, counted: dict[tuple[str, str], float]) -> Function:
    def whole(name: str) -> int | None:
        value = counted.get((queue, name))
        return None if value is None else round(value)

    def seconds(name: str, percent: int) -> float | None:
        value = counted.get((queue, name))
        return percentile(sandboxes.durations, percent) if value is None else round(value / 1000, 3)

    changed = found.get("LastModified")
    return Function(
        queue=queue,
        name=settings().function_name(queue),
        version=str(found.get("Version", "")),
        deployed_at=datetime.fromisoformat(changed).astimezone(UTC) if changed else None,
        memory=int(found["MemorySize"]),
        timeout=int(found["Timeout"]),
        architecture=",".join(found.get("Architectures", [])),
        invocations=whole("invocations"),
        errors=whole("errors"),
        throttles=whole("throttles"),
        median=seconds("median", 50),
        p95=seconds("p95", 95),
        p99=seconds("p99", 99),
        at_once=whole("at_once"),
        sandboxes=sandboxes,
    )


def _sandboxes(queue: str) -> Sandboxes:
    found = _reports(queue, HOUR)
    return found if found.invocations >= LITTLE else _reports(queue, BACK.total_seconds())


def _reports(queue: str, since: float) -> Sandboxes:
    lines = islice(logs.read(queue, ["REPORT RequestId"], time.time() - since), MOST)
    return of_reports([line.message for line in lines], since)


def of_reports(texts: Sequence[str], since: float) -> Sandboxes:
    """Parses Lambda's REPORT lines. Only a cold start has an Init Duration."""
    reports = [dict(_MEASURE.findall(text)) for text in texts]
    cold = sorted(round(float(one["Init Duration"]) / 1000, 3) for one in reports if "Init Duration" in one)
    memory = sorted(used for one in reports if (used := float(one.get("Max Memory Used", 0))))
    median, p95 = percentile(memory, 50), percentile(memory, 95)
    return Sandboxes(
        invocations=len(reports),
        since=since,
        cold_starts=len(cold),
        cold_start_median=percentile(cold, 50),
        memory_median=None if median is None else round(median),
        memory_p95=None if p95 is None else round(p95),
        durations=tuple(sorted(float(one["Duration"]) / 1000 for one in reports if "Duration" in one)),
    )


_MEASURE: Final = re.compile(r"([A-Z][A-Za-z ]+): ([0-9.]+) (?:ms|MB)")


def _counted(queues: Sequence[str]) -> dict[tuple[str, str], float]:
    """CloudWatch's figures of the last day, by queue and name."""
    wanted = {
        (queue, name): Metric(
            "AWS/Lambda",
            metric,
            statistic,
            {"FunctionName": settings().function_name(queue)},
            int(BACK.total_seconds()),
        )
        for queue in queues
        for name, (metric, statistic) in WANTED.items()
    }
    return {
        (queue, name): sum(values.values()) if wanted[queue, name].statistic == "Sum" else max(values.values())
        for (queue, name), values in cloudwatch.read(wanted, BACK).items()
    }
