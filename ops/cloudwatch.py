"""Reads CloudWatch's metrics."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ops.aws import client

MOST: Final = 500
"""The most metrics of one GetMetricData."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A statistic of a metric, for each `period` seconds: `Metric("AWS/SQS", "...", "Maximum", {"QueueName": "x"})`."""

    namespace: str
    name: str
    statistic: str
    dimensions: Mapping[str, str]
    period: int = 60


def read[K: Hashable](
    wanted: Mapping[K, Metric], back: timedelta, until: datetime | None = None
) -> dict[K, dict[datetime, float]]:
    """The values of each metric by the start of their period, latest first, from `back` before `until` (now, if left
    out). A metric without values is left out."""
    keys, end = list(wanted), until or datetime.now(UTC)
    found: dict[K, dict[datetime, float]] = {}
    for first in range(0, len(keys), MOST):
        page = keys[first : first + MOST]
        queries: list[Any] = [_query(f"m{n}", wanted[key]) for n, key in enumerate(page)]
        response = client("cloudwatch").get_metric_data(
            MetricDataQueries=queries, StartTime=end - back, EndTime=end, ScanBy="TimestampDescending"
        )
        for result in response["MetricDataResults"]:
            if values := result.get("Values"):
                found[page[int(result["Id"][1:])]] = dict(zip(result["Timestamps"], values, strict=True))
    return found


def _query(name: str, metric: Metric) -> Mapping[str, Any]:
    dimensions = [{"Name": dimension, "Value": value} for dimension, value in metric.dimensions.items()]
    named = {"Namespace": metric.namespace, "MetricName": metric.name, "Dimensions": dimensions}
    return {"Id": name, "MetricStat": {"Metric": named, "Period": metric.period, "Stat": metric.statistic}}
