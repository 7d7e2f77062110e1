"""The functions: what is live and since when, and what CloudWatch counted of them in the last day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from nexus.settings import settings
from ops import versions
from ops.aws import client, in_parallel

BACK: Final = timedelta(hours=24)
WANTED: Final = {
    "invocations": ("Invocations", "Sum"),
    "errors": ("Errors", "Sum"),
    "throttles": ("Throttles", "Sum"),
    "median": ("Duration", "p50"),
    "p95": ("Duration", "p95"),
    "at_once": ("ConcurrentExecutions", "Maximum"),
}


@dataclass(frozen=True, slots=True)
class Function:
    """A queue's function. What CloudWatch tells is of the last day, durations in seconds; None where it tells
    nothing."""

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
    at_once: int | None


def look(queues: Sequence[str]) -> list[Function]:
    """Errors of AWS are botocore's."""
    configurations = in_parallel(versions.configuration, queues)
    counted = _counted(queues)
    return [_function(*pair, counted) for pair in zip(queues, configurations, strict=True)]


def _function(queue: str, found: Any, counted: dict[tuple[str, str], float]) -> Function:
    def whole(name: str) -> int | None:
        value = counted.get((queue, name))
        return None if value is None else round(value)

    def seconds(name: str) -> float | None:
        value = counted.get((queue, name))
        return None if value is None else round(value / 1000, 3)

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
        median=seconds("median"),
        p95=seconds("p95"),
        at_once=whole("at_once"),
    )


def _counted(queues: Sequence[str]) -> dict[tuple[str, str], float]:
    """What CloudWatch has of the last day, by queue and name."""
    queries: list[Any] = [
        {
            "Id": f"{name}{n}",
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/Lambda",
                    "MetricName": metric,
                    "Dimensions": [{"Name": "FunctionName", "Value": settings().function_name(queue)}],
                },
                "Period": int(BACK.total_seconds()),
                "Stat": statistic,
            },
        }
        for n, queue in enumerate(queues)
        for name, (metric, statistic) in WANTED.items()
    ]
    now = datetime.now(UTC)
    answer = client("cloudwatch").get_metric_data(MetricDataQueries=queries, StartTime=now - BACK, EndTime=now)
    values = {result["Id"]: result["Values"] for result in answer["MetricDataResults"] if result.get("Values")}
    found = {}
    for n, queue in enumerate(queues):
        for name, (_, statistic) in WANTED.items():
            if told := values.get(f"{name}{n}"):
                found[queue, name] = sum(told) if statistic == "Sum" else max(told)
    return found
