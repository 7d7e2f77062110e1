"""What CloudWatch and Lambda's own log lines show about functions and their sandboxes."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nexus.settings import settings
from ops import cloudwatch, functions, logs, versions
from ops.cloudwatch import Metric
from ops.functions import of_reports

COLD = (
    "REPORT RequestId: 1\tDuration: 120.50 ms\tBilled Duration: 821 ms\tMemory Size: 512 MB\tMax Memory Used: 90 MB\t"
    "Init Duration: 700.10 ms\t\nXRAY TraceId: 1-2-3\tSegmentId: 4\tSampled: true"
)
WARM = "REPORT RequestId: 2\tDuration: {} ms\tBilled Duration: 4 ms\tMemory Size: 512 MB\tMax Memory Used: {} MB\t"


def test_cold_starts_memory_and_durations_are_in_the_reports() -> None:
    found = of_reports([COLD, *(WARM.format(n, 100 + n) for n in range(1, 100))], 3600.0)
    assert (found.invocations, found.cold_starts, found.cold_start_median) == (100, 1, 0.7)
    assert (found.memory_median, found.memory_p95) == (150, 195)
    assert (found.durations[0], found.durations[-1]) == (0.001, 0.1205)


def test_figures_missing_from_the_log_are_none() -> None:
    found = of_reports([WARM.format(7, 0)], 3600.0)
    assert (found.cold_starts, found.cold_start_median, found.memory_median, found.memory_p95) == (0, None, None, None)
    assert of_reports([], 3600.0).durations == ()


# --- the functions of a stack ---

QUEUES = ("media", "users")


class CloudWatch:
    """Figures of the media function only: the users function has not run for a day."""

    def __init__(self) -> None:
        self.asked: Mapping[tuple[str, str], Metric] = {}

    def read(self, wanted: Mapping[tuple[str, str], Metric], back: timedelta) -> dict[Any, dict[datetime, float]]:
        self.asked = wanted
        known = {"invocations": [3.0, 4.0], "errors": [1.0], "p95": [1500.0, 900.0], "at_once": [2.0, 5.0]}
        now = datetime.now(UTC)
        return {("media", name): {now - n * back: one for n, one in enumerate(of)} for name, of in known.items()}


@pytest.fixture
def watching(environment: None, monkeypatch: pytest.MonkeyPatch) -> CloudWatch:
    """A stack of two functions, and CloudWatch."""
    made = CloudWatch()
    monkeypatch.setattr(cloudwatch, "read", made.read)
    configuration = {
        "Version": "7",
        "MemorySize": 512,
        "Timeout": 60,
        "Architectures": ["arm64"],
        "LastModified": "2026-11-27T09:00:00+00:00",
    }
    found = {"media": configuration, "users": {"MemorySize": 256, "Timeout": 30}}
    monkeypatch.setattr(versions, "configuration", found.__getitem__)
    return made


def reports(monkeypatch: pytest.MonkeyPatch, **ago: list[float]) -> None:
    """Lambda's lines of invocations this many seconds ago, by queue."""

    def read(queue: str, phrases: Sequence[str], start: float) -> Iterator[logs.Line]:
        assert phrases == ["REPORT RequestId"]
        text = WARM.format(40, 100)
        yield from (logs.Line("i", NOW - one, queue, text) for one in ago.get(queue, []) if NOW - one >= start)

    monkeypatch.setattr(logs, "read", read)
    monkeypatch.setattr("time.time", lambda: NOW)


NOW = 1_800_000_000.0


def test_figures_are_cloudwatchs_and_missing_durations_are_the_logs(
    watching: CloudWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports(monkeypatch, users=[10.0] * 30)

    media, users = functions.read_all(QUEUES)

    assert (media.invocations, media.errors, media.throttles, media.at_once) == (7, 1, None, 5)
    assert (media.p95, media.median) == (1.5, None)
    assert (media.version, media.memory, media.timeout, media.architecture) == ("7", 512, 60, "arm64")
    assert media.deployed_at == datetime(2026, 11, 27, 9, tzinfo=UTC)
    assert (users.invocations, users.p95, users.median, users.deployed_at) == (None, 0.04, 0.04, None)
    names = {metric.dimensions["FunctionName"] for metric in watching.asked.values()}
    assert names == {settings().function_name(queue) for queue in QUEUES}


@pytest.mark.usefixtures("watching")
def test_a_function_that_ran_little_in_the_last_hour_is_read_back_to_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    reports(monkeypatch, media=[10.0] * 30 + [7200.0] * 5, users=[10.0] * 3 + [7200.0] * 5)
    media, users = functions.read_all(QUEUES)
    assert (media.sandboxes.invocations, media.sandboxes.since) == (30, 3600.0)
    assert (users.sandboxes.invocations, users.sandboxes.since) == (8, 86_400.0)
