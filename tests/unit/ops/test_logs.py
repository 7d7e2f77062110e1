"""The functions' logs: how pages are read, what a stream remembers, and what `nexus logs` and `nexus events` show."""

import itertools
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from nexus.client import AsyncResult
from nexus.runs.record import RunRecord
from ops import aws, catalogue, logs
from ops.cli import common
from ops.main import main
from ops.problems import ExitCode, Problem
from social.catalogue import QUEUES

pytestmark = pytest.mark.usefixtures("environment")

NOW = 1_800_000_000.0
RUN = "01a203f2-0000-7000-8000-000000000001"


class CloudWatch:
    """FilterLogEvents, which returns these pages one after the other."""

    exceptions = type("exceptions", (), {"ResourceNotFoundException": KeyError})

    def __init__(self, *pages: dict[str, Any]) -> None:
        self._pages = iter(pages)
        self.requests: list[dict[str, Any]] = []

    def filter_log_events(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        return next(self._pages)


def line(number: int, text: str = "hello") -> dict[str, Any]:
    return {"eventId": str(number), "timestamp": number, "message": text, "logStreamName": "s"}


def reading(monkeypatch: pytest.MonkeyPatch, *pages: dict[str, Any]) -> CloudWatch:
    made = CloudWatch(*pages)
    monkeypatch.setattr(logs, "client", lambda _: made)
    return made


# --- pages ---


def test_pages_are_followed_by_their_token_and_no_line_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = reading(
        monkeypatch, {"events": [line(1), line(2)], "nextToken": "t"}, {"events": [line(2), line(3)]}, {"events": []}
    )
    found = list(logs.read("users", [], 0.0, stream="s"))
    assert [one.id for one in found] == ["1", "2", "3"]
    assert [request.get("nextToken") for request in cloud.requests] == [None, "t"]
    assert cloud.requests[0]["logStreamNames"] == ["s"]


def test_a_full_page_without_a_token_is_continued_at_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    full = [line(n) for n in range(1, 10_001)]
    cloud = reading(
        monkeypatch,
        {"events": [line(1)], "nextToken": "t"},
        {"events": full},
        {"events": [line(10_000), line(10_001)]},
    )
    assert len(list(logs.read("users", [], 0.0))) == 10_001
    assert [request["startTime"] for request in cloud.requests] == [0, 0, 10_000]
    # A token continues only the request that it answered
    assert [request.get("nextToken") for request in cloud.requests] == [None, "t", None]


def test_a_reader_without_patience_asks_for_no_further_page(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    cloud = reading(monkeypatch, {"events": [line(1)], "nextToken": "t"}, {"events": [line(2)]})
    assert [one.id for one in logs.read("users", [], 0.0, patience=5.0)] == ["1"]
    assert len(cloud.requests) == 1


def test_a_line_that_only_begins_like_json_is_text() -> None:
    assert logs._line(line(1, "{cut"), "users").message == "{cut"
    assert logs._line(line(1, '{"message": "said", "level": "INFO"}'), "users").message == "said"


# --- streams ---


class Growing:
    """A log to which lines are added while it is followed. Each sleep is a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, later: Iterator[dict[str, Any]]) -> None:
        self.lines: list[logs.Line] = []
        self.now = NOW
        self.starts: list[float] = []
        self._later = later
        monkeypatch.setattr("time.time", lambda: self.now)
        monkeypatch.setattr("time.sleep", self._sleep)
        monkeypatch.setattr(logs, "read", self._read)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        if (fields := next(self._later, None)) is None:
            raise KeyboardInterrupt
        self.write(fields)

    def write(self, fields: dict[str, Any]) -> None:
        message = str(fields["message"])
        self.lines.append(logs.Line(str(len(self.lines)), self.now, "users", message, fields=fields))

    def _read(self, _queue: str, phrases: Any, start: float, *_: Any, **__: Any) -> Iterator[logs.Line]:
        self.starts.append(start)
        yield from (one for one in self.lines if one.at >= start and all(p in one.message for p in phrases))


def test_a_queues_log_is_followed_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Growing(monkeypatch, iter([{"message": "second"}, {"message": "third"}]))
    log.write({"message": "first"})
    found: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(one.message for one in logs.of_queue("users", NOW - 60.0, follow=True))
    assert found == ["first", "second", "third"]
    # Lines are ingested late, so that each look begins before the one before it.
    assert log.starts == [NOW - 60.0, NOW - logs.OVERLAP, NOW + 1 - logs.OVERLAP]
    assert [one.message for one in logs.of_queue("users", NOW - 60.0, follow=False)] == found


def test_a_run_is_followed_until_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Growing(monkeypatch, iter([{"message": f"{RUN} ended"}]))
    log.write({"message": f"{RUN} began"})
    monkeypatch.setattr(AsyncResult, "record", lambda _: RunRecord.of({"id": RUN, "queue": "users", "sent_at": NOW}))
    monkeypatch.setattr(AsyncResult, "ready", lambda _: log.now > NOW)
    found = [one.message for one in logs.of_run(RUN, None, follow=True)]
    assert found == [f"{RUN} began", f"{RUN} ended"]


def ends(number: int, **also: Any) -> dict[str, Any]:
    return {"message": "run ended", "task": "ping", "run_id": f"r-{number}", "outcome": "success", "attempt": 1, **also}


def test_a_failed_runs_log_is_read_page_by_page_up_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not up to now: days of a busy queue's log may lie between."""
    failure: dict[str, Any] = {"id": RUN, "queue": "users", "status": "FAILURE", "sent_at": NOW, "ended_at": NOW + 5}
    monkeypatch.setattr(AsyncResult, "record", lambda _: RunRecord.of(failure))
    cloud = reading(monkeypatch, {"events": [line(1, RUN)], "nextToken": "t"}, {"events": [line(2, RUN)]})
    lines = logs.of_run(RUN, None, follow=False)
    assert next(lines).id == "1"
    assert len(cloud.requests) == 1
    assert [one.id for one in lines] == ["2"]
    assert [request["endTime"] for request in cloud.requests] == [int((NOW + 65) * 1000)] * 2


def test_a_run_that_ended_before_the_time_to_look_since_is_not_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CloudWatch Logs refuses a span that ends before it begins."""
    ended: dict[str, Any] = {"id": RUN, "queue": "users", "status": "SUCCESS", "sent_at": NOW, "ended_at": NOW + 5}
    monkeypatch.setattr(AsyncResult, "record", lambda _: RunRecord.of(ended))
    cloud = reading(monkeypatch, {"events": [line(1, RUN)]})
    for follow in (True, False):
        with pytest.raises(Problem, match=f"{RUN} ended at 2027-01-15 08:00:05 UTC, before the time to look since"):
            list(logs.of_run(RUN, NOW + 66.0, follow=follow))
    assert cloud.requests == []
    # A line may be written within a minute of the end
    assert [one.id for one in logs.of_run(RUN, NOW + 64.0, follow=False)] == ["1"]


def test_the_log_of_a_run_whose_queue_is_not_known_is_looked_for_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue.use("social.catalogue", tuple(QUEUES))
    monkeypatch.setattr(AsyncResult, "record", lambda _: RunRecord.of({"id": RUN}))
    at = {"users": 2.0, "media": 1.0, "emails": 3.0}
    monkeypatch.setattr(
        logs, "read", lambda queue, *_, **__: iter([logs.Line(queue, at[queue], queue, RUN)] if queue in at else [])
    )
    assert [one.id for one in logs.of_run(RUN, 60.0, follow=False)] == ["media", "users", "emails"]


def test_each_event_comes_once_however_long_it_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    # More seconds than a poll looks back, twice: what is forgotten is older than any line that is read again.
    Growing(monkeypatch, iter([ends(n) for n in range(100)]))
    found: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(event.run_id for event in logs.stream(["users"], NOW - 5.0))
    assert found == [f"r-{n}" for n in range(100)]


def test_each_line_of_a_queue_comes_once_however_long_it_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    Growing(monkeypatch, iter([{"message": str(n)} for n in range(100)]))
    found: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(one.message for one in logs.of_queue("users", NOW - 60.0, follow=True))
    assert found == [str(n) for n in range(100)]


def test_events_are_kept_and_not_their_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of a busy queue has millions, each with the fields of its metrics."""
    metrics = {"_aws": {"CloudWatchMetrics": [{"Dimensions": [["queue", "task"]]}]}, "function_arn": "a" * 80}
    pages = [
        [line(1, json.dumps(ends(n, **metrics))) for n in range(first, first + 100)] for first in range(0, 4000, 100)
    ]

    class Paged(CloudWatch):
        def filter_log_events(self, **request: Any) -> dict[str, Any]:
            events = pages.pop() if pages and "ended" in request["filterPattern"] else []
            for n, event in enumerate(events):
                event["eventId"] = f"{len(pages)}-{n}"
            return {"events": events, **({"nextToken": "t"} if pages and events else {})}

    monkeypatch.setattr(logs, "client", lambda _: Paged())
    tracemalloc.start()
    try:
        found = logs.events(["users"], 0.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 4000
    assert peak / len(found) < 1000


def test_a_run_that_is_revoked_at_the_end_of_an_attempt_is_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Growing(monkeypatch, iter([]))
    log.write(ends(1, outcome="revoked"))
    log.write({"message": "run revoked", "task": "ping", "run_id": "r-1"})
    log.write({"message": "run revoked", "task": "ping", "run_id": "r-2"})
    assert [(e.run_id, e.outcome, e.attempt) for e in logs.events(["users"], NOW)] == [
        ("r-1", "revoked", 1),
        ("r-2", "revoked", 0),
    ]


# --- CloudWatch Logs answers few requests a second ---


@pytest.fixture
def throttled(cloud: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An account in which others use up the quota for a while: the first five requests are refused."""
    refused = [json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"})] * 5

    def answered(request: Any, **_: Any) -> Any:
        body = refused.pop() if refused else json.dumps({"events": [line(1)]})
        headers: Any = {}
        made: Any = AWSResponse(request.url, 400 if "__type" in body else 200, headers, None)
        made._content = body.encode()
        return made

    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("botocore.retries.bucket.TokenBucket.acquire", lambda *_, **__: True)  # it would wait
    aws._client.cache_clear()
    events: Any = aws.client("logs").meta.events
    events.register("before-send.cloudwatch-logs.FilterLogEvents", answered)
    yield refused
    aws._client.cache_clear()


def test_a_log_is_read_although_requests_are_throttled_at_first(throttled: list[str]) -> None:
    assert [one.id for one in logs.read("users", [], 0.0)] == ["1"]
    assert not throttled


@pytest.mark.usefixtures("cloud")
def test_a_process_that_serves_pages_does_not_wait_for_the_quota() -> None:
    aws._client.cache_clear()
    config: Any = aws.client("logs").meta.config
    assert config.retries["mode"] == "adaptive"
    aws.hurry(connect_timeout=2, read_timeout=8, attempts=1)
    aws._client.cache_clear()
    config = aws.client("logs").meta.config
    assert config.retries == {"mode": "standard", "total_max_attempts": 2}
    aws._client.cache_clear()


@pytest.mark.parametrize(("queues", "seconds"), [(1, 1.0), (6, 2.4), (20, 8.0)])
def test_a_stream_asks_no_more_often_than_an_account_may(
    monkeypatch: pytest.MonkeyPatch, queues: int, seconds: float
) -> None:
    asked: list[str] = []

    def read(queue: str, *_: Any) -> Iterator[logs.Line]:
        asked.append(queue)
        return iter(())

    def sleep(pause: float) -> None:
        assert pause == pytest.approx(seconds)
        assert len(asked) / pause <= 5.0
        raise KeyboardInterrupt

    monkeypatch.setattr(logs, "read", read)
    monkeypatch.setattr(logs, "client", lambda _: None)
    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        list(logs.stream([f"q{n}" for n in range(queues)], NOW))


# --- commands ---


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue.use("social.catalogue", tuple(QUEUES))
    monkeypatch.setattr(common, "connect", lambda: None)


@pytest.mark.usefixtures("connected")
def test_a_functions_log_lines_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    log = Growing(monkeypatch, iter([]))
    assert main(["logs", "--queue", "users"]) == ExitCode.DONE
    assert "The log has no lines from that time." in capsys.readouterr().err
    assert log.starts == [NOW - 3600]

    log.write({"message": "said"})
    assert main(["logs", "--queue", "users", "--since", "2h"]) == ExitCode.DONE
    assert "said" in capsys.readouterr().out
    assert log.starts[-1] == NOW - 7200
    assert main(["logs", "--queue", "users", "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["message"] == "said"
    assert main(["logs", "--queue", "usres"]) == ExitCode.USAGE


@pytest.mark.usefixtures("connected")
def test_an_event_is_a_line_with_its_attempt_and_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Growing(monkeypatch, iter([]))
    log.write(ends(1, duration=1500))
    log.write(ends(2, outcome="retry", attempt=3, reason="Timeout: too slow"))
    assert main(["events", "--queue", "users", "--no-follow"]) == ExitCode.DONE
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["08:00:00", "success", "ping", "r-1", "1.500s"]
    assert second.split()[1:4] == ["retry", "ping", "r-2"]
    assert second.endswith("(attempt 3)  Timeout: too slow")
