"""Every metric that the project reads is one that AWS publishes: CloudWatch returns nothing for any other name."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nexus.settings import settings
from ops import cloudwatch, cost, diagnosis, functions, health
from tests.support.template import STACK, resolved, resources

OPS = Path(__file__).parents[3] / "ops"
QUEUES = ("media", "users")

PUBLISHED: Mapping[str, Mapping[frozenset[str], frozenset[str]]] = {
    "AWS/SQS": {
        frozenset({"QueueName"}): frozenset(
            {
                "ApproximateAgeOfOldestMessage",
                "ApproximateNumberOfGroupsWithInflightMessages",
                "ApproximateNumberOfMessagesDelayed",
                "ApproximateNumberOfMessagesNotVisible",
                "ApproximateNumberOfMessagesVisible",
                "NumberOfEmptyReceives",
                "NumberOfMessagesDeleted",
                "NumberOfMessagesReceived",
                "NumberOfMessagesSent",
                "SentMessageSize",
            }
        )
    },
    "AWS/Lambda": {
        frozenset({"FunctionName"}): frozenset(
            {
                "AsyncEventAge",
                "AsyncEventsDropped",
                "AsyncEventsReceived",
                "ConcurrentExecutions",
                "DeadLetterErrors",
                "DestinationDeliveryFailures",
                "Duration",
                "Errors",
                "Invocations",
                "Throttles",
            }
        )
    },
    "AWS/S3": {frozenset({"BucketName", "StorageType"}): frozenset({"BucketSizeBytes", "NumberOfObjects"})},
    "AWS/Scheduler": {
        frozenset({"ScheduleGroup"}): frozenset(
            {
                "InvocationAttemptCount",
                "InvocationDroppedCount",
                "InvocationThrottleCount",
                "InvocationsFailedToBeSentToDeadLetterCount",
                "InvocationsSentToDeadLetterCount",
                "TargetErrorCount",
                "TargetErrorThrottledCount",
            }
        )
    },
}
"""The metrics by namespace and dimensions, from each service's page about its CloudWatch metrics."""

READERS: Sequence[tuple[ModuleType, Callable[[], object]]] = (
    (health, lambda: health._oldest(QUEUES)),
    (functions, lambda: functions._counted(QUEUES)),
    (diagnosis, lambda: diagnosis.silent_deaths(QUEUES, 1_800_000_000.0, {})),
    (cost, lambda: cost._objects(["nexus-test-uploads", "nexus-test-media"])),
)


def is_published(namespace: str, name: str, dimensions: Iterable[str]) -> bool:
    return name in PUBLISHED.get(namespace, {}).get(frozenset(dimensions), ())


class CloudWatch:
    """Returns a value for a metric that exists and none for any other, as CloudWatch does."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.requests = 0

    def get_metric_data(self, **request: Any) -> dict[str, Any]:
        self.requests += 1
        results = []
        for query in request["MetricDataQueries"]:
            metric = query["MetricStat"]["Metric"]
            self.asked.append(metric)
            there = is_published(metric["Namespace"], metric["MetricName"], _names(metric))
            values = {request["StartTime"]: 42.0} if there else {}
            results.append({"Id": query["Id"], "Timestamps": list(values), "Values": list(values.values())})
        return {"MetricDataResults": results}


def _names(metric: Mapping[str, Any]) -> list[str]:
    return [dimension["Name"] for dimension in metric["Dimensions"]]


@pytest.fixture
def service(environment: None, monkeypatch: pytest.MonkeyPatch) -> CloudWatch:
    made = CloudWatch()
    monkeypatch.setattr(cloudwatch, "client", lambda _: made)
    return made


@pytest.mark.parametrize(("module", "read"), READERS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_metric_that_the_command_reads_is_published(
    module: ModuleType, read: Callable[[], object], service: CloudWatch
) -> None:
    read()

    assert service.asked
    for metric in service.asked:
        assert is_published(metric["Namespace"], metric["MetricName"], _names(metric)), metric


def test_no_module_reads_metrics_without_being_tested_here() -> None:
    reading = {path.stem for path in OPS.rglob("*.py") if "cloudwatch import Metric" in path.read_text()}
    assert reading == {module.__name__.rpartition(".")[2] for module, _ in READERS}


def test_each_queue_has_the_age_of_its_oldest_message(service: CloudWatch) -> None:
    assert health._oldest(QUEUES) == {"media": 42.0, "users": 42.0}
    assert [metric["Dimensions"][0]["Value"] for metric in service.asked] == [
        settings().queue_name(queue) for queue in QUEUES
    ]


def test_more_metrics_than_one_request_takes_are_read_in_several(
    service: CloudWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloudwatch, "MOST", 3)
    queues = [f"q{n}" for n in range(7)]
    assert health._oldest(queues) == dict.fromkeys(queues, 42.0)
    assert service.requests == 3


def test_no_metrics_are_read_without_a_request(service: CloudWatch) -> None:
    """AWS refuses an empty list."""
    assert health._oldest([]) == {}
    assert service.requests == 0


def test_a_metric_that_an_alarm_watches_is_published() -> None:
    alarms = [resolved(one["Properties"]) for one in resources("AWS::CloudWatch::Alarm").values()]
    assert alarms
    for alarm in alarms:
        assert is_published(alarm["Namespace"], alarm["MetricName"], _names(alarm)), alarm["AlarmName"]


def test_a_metric_on_the_dashboard_is_published() -> None:
    (dashboard,) = resources("AWS::CloudWatch::Dashboard").values()
    widgets = json.loads(resolved(dashboard["Properties"])["DashboardBody"])["widgets"]
    found = [metric for widget in widgets for metric in widget["properties"]["metrics"] if metric[0].startswith("AWS/")]
    assert found
    for namespace, name, dimension, value, *_ in found:
        assert is_published(namespace, name, [dimension]), (namespace, name, dimension)
        assert value.startswith(STACK)
