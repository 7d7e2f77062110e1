"""What a function's logs and metrics show about how it dies, and when that has ended."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from ops import cloudwatch, diagnosis, figures, health, logs
from ops.problems import Problem

NOW = 1_795_000_000.0
IMPORT = "[ERROR] Runtime.ImportModuleError: Unable to import module 'app': No module named 'x'"


class Log:
    """A function's log, as FilterLogEvents gives it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def write(self, at: float, *messages: str | dict[str, Any], stream: str = "s-1") -> None:
        for message in messages:
            text = message if isinstance(message, str) else json.dumps(message)
            self.events.append(
                {
                    "timestamp": int(at * 1000),
                    "message": text,
                    "logStreamName": stream,
                    "eventId": str(len(self.events)),
                }
            )

    def invocation(self, at: float, *messages: str | dict[str, Any], stream: str = "s-1") -> None:
        self.write(at, f"START RequestId: r-{at} Version: 1", *messages, f"END RequestId: r-{at}", stream=stream)

    def run(self, at: float, outcome: str | None, task: str = "t", run_id: str = "r", **fields: Any) -> None:
        started: dict[str, Any] = {"message": "run started", "task": task, "run_id": run_id}
        lines: list[dict[str, Any]] = [started]
        if outcome is not None:
            lines.append({"message": "run ended", "task": task, "run_id": run_id, "outcome": outcome, **fields})
        self.invocation(at, *lines)

    def read(
        self,
        _: str,
        phrases: Sequence[str],
        start: float,
        end: float | None = None,
        *,
        stream: str | None = None,
    ) -> Iterator[logs.Line]:
        for event in self.events:
            line = logs._line(event, "users")
            if (
                all(phrase in event["message"] for phrase in phrases)
                and start <= line.at <= (end or NOW)
                and stream in (None, line.stream)
            ):
                yield line


DEPLOYED = "2026/11/28/[8]1f2e"
BEFORE = "2026/11/28/[7]9a8b"
"""Streams of the version that was deployed, and of the one before it, which is live after a rollback."""


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log()
    monkeypatch.setattr(logs, "read", made.read)
    return made


def test_a_function_that_cannot_start_is_named_with_its_last_words_and_since_when(log: Log) -> None:
    log.run(NOW - 300, "success")
    for seconds in (120, 60, 5):
        log.invocation(NOW - seconds, IMPORT)
    found = diagnosis.dying("users", NOW, 0.0)
    assert found is not None
    assert (found.since, found.times, found.in_a_run) == (NOW - 120, 3, False)
    assert found.error == "Runtime.ImportModuleError: Unable to import module 'app': No module named 'x'"


@pytest.mark.parametrize(
    "last",
    [
        "2026-11-27T04:00:00.000Z 0e-1 Task timed out after 3.00 seconds",
        "RequestId: 0e-1 Error: Runtime exited with error: signal: killed Runtime.ExitError",
        "[ERROR] KeyError: 'x'\nTraceback (most recent call last):\n  File ...",
    ],
)
def test_each_error_that_lambda_logs_is_recognised(log: Log, last: str) -> None:
    log.invocation(NOW - 5, last)
    found = diagnosis.dying("users", NOW, 0.0)
    assert found is not None
    assert (found.error or "none") in last
    assert "\n" not in str(found.error)


def test_a_function_is_no_longer_dying_once_a_run_starts_or_it_is_changed(log: Log) -> None:
    log.invocation(NOW - 60, IMPORT)
    assert diagnosis.dying("users", NOW, 0.0) is not None
    assert diagnosis.dying("users", NOW, NOW - 30) is None
    log.run(NOW - 10, "success")
    assert diagnosis.dying("users", NOW, 0.0) is None


def test_a_death_in_the_middle_of_a_run_is_distinguished(log: Log) -> None:
    log.invocation(NOW - 5, {"message": "run started", "run_id": "r"}, "Runtime exited with error: signal: killed")
    found = diagnosis.dying("users", NOW, 0.0)
    assert found is not None
    assert found.in_a_run


def test_a_tasks_own_log_line_is_not_taken_for_lambdas_error(log: Log) -> None:
    log.invocation(NOW - 5, {"message": "[ERROR] Task timed out after 3.00 seconds, said the other side"})
    assert diagnosis.dying("users", NOW, 0.0) is None


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Whether each run has ended; those not named have not."""
    ended: dict[str, bool] = {}

    def read_records(handles: Sequence[Any]) -> list[Any]:
        return [SimpleNamespace(ended=ended.get(handle.id, False)) for handle in handles]

    monkeypatch.setattr("nexus.client.read_records", read_records)
    return ended


def failures(log: Log, *ago: float) -> None:
    for seconds in ago:
        log.run(NOW - seconds, "retry", run_id=f"r-{seconds:g}", reason="ModuleNotFoundError: No module named 'x'")


def test_a_task_whose_every_attempt_fails_is_named_with_its_error(log: Log, live: dict[str, bool]) -> None:
    log.run(NOW - 600, "success")
    failures(log, 500, 90, 40, 5)
    log.run(NOW - 3, "success", task="another")
    (found,) = diagnosis.failing("users", NOW, 0.0)
    assert (found.task, found.times, found.since, found.run_id) == ("t", 4, NOW - 500, "r-5")
    assert found.reason == "ModuleNotFoundError: No module named 'x'"
    # And it is over as soon as none of its runs is retried
    live.update({f"r-{seconds}": True for seconds in (500, 90, 40, 5)})
    assert diagnosis.failing("users", NOW, 0.0) == []


@pytest.mark.usefixtures("live")
def test_a_task_with_two_failures_or_a_success_is_not_failing(log: Log) -> None:
    failures(log, 90, 40)
    assert diagnosis.failing("users", NOW, 0.0) == []
    log.run(NOW - 20, "success")
    failures(log, 5)
    assert diagnosis.failing("users", NOW, 0.0) == []


def test_only_as_much_of_a_busy_tasks_log_is_read_as_decides(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(900):
        log.run(NOW - 900 + n, "retry" if n in (100, 200, 300) else "success", **({"shortfall": "x"} if n == 5 else {}))
    lines: list[logs.Line] = []

    def read(*args: Any, **given: Any) -> Iterator[logs.Line]:
        for line in log.read(*args, **given):
            lines.append(line)
            yield line

    monkeypatch.setattr(logs, "read", read)
    assert diagnosis.failing("users", NOW, 0.0) == []
    assert diagnosis.falling_short("users", NOW, 0.0) == []
    assert len(lines) < 10


def test_a_streak_begins_after_the_last_success_however_long_ago(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_still_tried", lambda _: True)
    log.run(NOW - 800, "retry")
    log.run(NOW - 700, "success")
    for ago in (600, 400, 200, 5):
        log.run(NOW - ago, "retry")
    (found,) = diagnosis.failing("users", NOW, 0.0)
    assert (found.times, found.since) == (4, NOW - 600)


class CloudWatch:
    """Lambda's metrics of two functions: invocations and errors by minutes before now."""

    def __init__(self, minutes: dict[tuple[str, str], dict[float, float]]) -> None:
        self.minutes = minutes

    def read(self, *_: Any) -> dict[tuple[str, str], dict[datetime, float]]:
        return {
            name: {datetime.fromtimestamp(NOW - 60 * ago, UTC): values[ago] for ago in sorted(values)}
            for name, values in self.minutes.items()
        }


def test_a_function_that_dies_without_a_log_line_shows_in_lambdas_errors(
    monkeypatch: pytest.MonkeyPatch, environment: None
) -> None:
    minutes: dict[tuple[str, str], dict[float, float]] = {
        # The first queue's function has failed for three minutes, the second's has recovered.
        ("users", "Invocations"): {9: 4, 3: 2, 1: 5},
        ("users", "Errors"): {9: 1, 3: 2, 1: 5},
        ("media", "Invocations"): {3: 2, 1: 2},
        ("media", "Errors"): {3: 2, 1: 0},
    }
    monkeypatch.setattr(cloudwatch, "read", CloudWatch(minutes).read)
    (found,) = diagnosis.silent_deaths(["users", "media"], NOW, {})
    assert (found.queue, found.since, found.times, found.error) == ("users", NOW - 180, 7, None)
    # And what happened before the last change does not count
    assert diagnosis.silent_deaths(["users", "media"], NOW, {"users": NOW - 30}) == []


def test_a_task_most_of_whose_runs_fall_short_is_named_with_its_reasons(log: Log) -> None:
    log.run(NOW - 60, "success")
    for seconds, reason in ((50, "no such user"), (40, "suppressed: bounce"), (30, "no such user")):
        log.run(NOW - seconds, "success", run_id=f"r-{seconds}", shortfall=reason)
    log.run(NOW - 20, "failure", reason="OSError: gone")
    log.run(NOW - 10, "success", task="another")
    (found,) = diagnosis.falling_short("users", NOW, 0.0)
    assert (found.task, found.times, found.runs, found.run_id) == ("t", 3, 4, "r-30")
    assert found.reasons == {"no such user": 2, "suppressed: bounce": 1}
    finding = health._of_falling_short(found)
    assert finding.what.endswith("succeeded without effect: no such user (2), suppressed: bounce (1)")
    # And it is over as soon as most runs do
    log.run(NOW - 5, "success")
    log.run(NOW - 4, "success")
    assert diagnosis.falling_short("users", NOW, 0.0) == []


def test_of_many_that_fell_short_the_latest_are_read(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "MOST", 10)
    for ago in (800, 50, 5, 4):
        for n in range(9):
            log.run(NOW - ago, "success", run_id=f"r-{ago}-{n}", shortfall="no such user")
        if ago == 50:
            log.run(NOW - 40, "success")  # of the nine of this window, which are still most
        (found,) = diagnosis.falling_short("users", NOW, 0.0)
        # The last ten seconds have too many themselves in the end: the first ten are compared with their own time
        assert (found.times, found.runs) == {800: (9, 9), 50: (9, 10), 5: (9, 9), 4: (10, 18)}[ago]
    # And they are over as soon as the latest have their effect
    for n in range(21):
        log.run(NOW - 5.5, "success", run_id=f"good-{n}")
    log.events.sort(key=lambda event: int(event["timestamp"]))
    assert diagnosis.falling_short("users", NOW, 0.0) == []


def test_a_task_whose_only_run_fell_short_is_reported(log: Log) -> None:
    log.run(NOW - 50, "success", shortfall="no such user")
    assert [one.runs for one in diagnosis.falling_short("users", NOW, 0.0)] == [1]
    assert diagnosis.falling_short("users", NOW, NOW - 40) == [], "the function has been changed since"


def test_the_figures_count_by_reason_what_fell_short(log: Log) -> None:
    log.run(NOW - 60, "success")
    log.run(NOW - 50, "success", shortfall="no such user")
    log.run(NOW - 40, "retry", reason="OSError: gone")
    events = [event for line in log.read("users", [], 0.0) if (event := logs.event_of(line))]
    found = figures.of_events("t", "users", events)
    assert (found.success, found.retry, found.shortfalls) == (2, 1, {"no such user": 1})
    assert figures.in_words({"a": 4, "b": 3, "c": 2, "d": 1}) == "a (4), b (3), c (2), ..."


def test_the_figures_go_back_as_far_as_the_log_can_be_read(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt is a line of it: those of a busy day would take hours, and fill the memory."""
    monkeypatch.setattr("ops.figures.time.time", lambda: NOW)
    monkeypatch.setattr(logs, "client", lambda _: None)
    monkeypatch.setattr(figures, "MOST", 10)
    found = []
    for ago in (80_000, 3_000, 500, 50, 5, 4):
        for n in range(10):
            log.run(NOW - ago, "success", task="ping", run_id=f"{ago}-{n}", attempt=1)
        if ago > 4:
            back, of = figures.lately(["users"])
            found.append((back, of["ping"].success))
    assert found == [(86_400.0, 10), (3_600.0, 10), (600.0, 10), (60.0, 10), (10.0, 10)]
    with pytest.raises(Problem, match="too many attempts"):
        figures.lately(["users"])


def test_a_tasks_figures_are_those_of_all_its_queues(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.figures.time.time", lambda: NOW)
    ends = [
        logs.Event(NOW, queue, "ping", f"r-{queue}-{n}", "success", 1, 0.1) for queue in ("a", "b") for n in range(3)
    ]
    monkeypatch.setattr(logs, "events", lambda *_, **__: ends)
    assert figures.lately(["a", "b"])[1]["ping"].total == 6


# --- after a rollback ---


def test_log_lines_of_another_version_do_not_count(log: Log) -> None:
    short = {"message": "run ended", "task": "t", "run_id": "r", "outcome": "success", "shortfall": "no such user"}
    log.invocation(NOW - 120, IMPORT, stream=DEPLOYED)
    log.write(NOW - 60, short, stream=DEPLOYED)
    for look in (diagnosis.dying, diagnosis.falling_short):
        assert look("users", NOW, 0.0, "8")
        assert not look("users", NOW, 0.0, "7")
    log.invocation(NOW - 30, IMPORT, stream=BEFORE)
    found = diagnosis.dying("users", NOW, 0.0, "7")
    assert found is not None
    assert (found.since, found.times) == (NOW - 30, 1)


def test_a_task_that_failed_in_another_version_only_is_not_failing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_still_tried", lambda _: True)
    for seconds in (90, 80, 70):
        log.write(
            NOW - seconds, {"message": "run ended", "task": "t", "run_id": "r", "outcome": "retry"}, stream=DEPLOYED
        )
    assert diagnosis.failing("users", NOW, 0.0, "8")
    assert not diagnosis.failing("users", NOW, 0.0, "7")


@pytest.mark.parametrize(
    ("stream", "version", "other"), [(DEPLOYED, "7", True), (BEFORE, "7", False), ("s", "7", False)]
)
def test_metrics_may_be_those_of_another_version(log: Log, stream: str, version: str, other: bool) -> None:
    log.invocation(NOW - 60, "said", stream=stream)
    silent = diagnosis.Dying("users", NOW - 120, 3, None)
    assert diagnosis.of_another_version(silent, version) == other
