"""A run's timeline, from its record, its log lines, its parts and what follows it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from nexus.backend import backend
from nexus.backend.store import Value, Write
from nexus.client import AsyncResult
from nexus.client.steps import TaskStep, dump
from nexus.ids import new_id
from nexus.runs import tallies
from nexus.runs.record import RunRecord
from nexus.testing import in_memory
from ops import logs, timeline

T = 1_700_000_000.0


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NEXUS_CATALOGUE", "social.catalogue")
    with in_memory():
        yield


def recorded(run_id: str | None = None, **values: Value) -> RunRecord:
    """A run's record with these attributes."""
    run_id = run_id or new_id()
    backend().store.apply(Write(run_id, {"task": "send_notification", "queue": "default", **values}, insert=True))
    return AsyncResult[Any](run_id).record()


def line(record: RunRecord, message: str, at: float, attempt: int, **fields: Any) -> logs.Line:
    """A log line that reached the log late."""
    own = datetime.fromtimestamp(T + at, UTC).isoformat()
    reported = {"run_id": record.id, "attempt": attempt, "timestamp": own, **fields}
    return logs.Line(new_id(), T + 1000, "default", message, "INFO", fields=reported)


def test_waits_and_attempts_follow_each_other() -> None:
    record = recorded(status="SUCCESS", sent_at=T, started_at=T + 40, ended_at=T + 42, attempts=2)
    other = recorded(status="SUCCESS")
    found = timeline.of(
        record,
        [
            line(record, "run started", 5, 1),
            line(other, "run started", 6, 1),
            line(record, "run ended", 10, 1, outcome="retry"),
            line(record, "run started", 40, 2),
            line(record, "run ended", 42, 2, outcome="success"),
        ],
    )
    assert [(b.kind, b.label, b.start and b.start - T, b.end and b.end - T, b.status) for b in found.bars] == [
        ("wait", "in line", 0, 5, ""),
        ("attempt", "attempt 1", 5, 10, "retry"),
        ("wait", "until the next attempt", 10, 40, ""),
        ("attempt", "attempt 2", 40, 42, "success"),
    ]
    assert (found.start, found.end, found.in_progress) == (T, T + 42, False)


def test_a_run_without_log_lines_shows_the_last_attempt_of_its_record() -> None:
    record = recorded(status="FAILURE", sent_at=T, started_at=T + 40, ended_at=T + 42, attempts=4)
    assert [(b.label, b.status) for b in timeline.of(record, []).bars] == [("in line", ""), ("attempt 4", "failure")]


def test_an_attempt_whose_sandbox_died_ends_with_its_run() -> None:
    record = recorded(status="FAILURE", sent_at=T, started_at=T + 5, ended_at=T + 65, attempts=1)
    bars = timeline.of(record, [line(record, "run started", 5, 1)]).bars
    assert [(b.label, b.end, b.status) for b in bars if b.kind == "attempt"] == [("attempt 1", T + 65, "failure")]


def test_an_overtaken_attempt_has_its_own_bar() -> None:
    """A sandbox that was frozen beyond its lease ends its attempt while, or after, another one works."""
    record = recorded(status="SUCCESS", sent_at=T, started_at=T + 60, ended_at=T + 70, attempts=2)
    started = [line(record, "run started", 5, 1), line(record, "run started", 60, 2)]
    first = [line(record, "run ended", 65, 1, outcome="success"), line(record, "attempt overtaken", 66, 1)]
    second = [line(record, "run ended", 70, 2, outcome="success")]
    for lines in (started + first + second, started + second + first):
        found = timeline.of(record, lines)
        assert [(b.label, b.start and b.start - T, b.end and b.end - T, b.status) for b in found.bars] == [
            ("in line", 0, 5, ""),
            ("attempt 1", 5, 65, "overtaken"),
            ("attempt 2", 60, 70, "success"),
        ]
        assert not found.in_progress

    # One that failed says so in its last line; one that never ends was lost when the next attempt began
    failed = line(record, "run ended", 65, 1, outcome="overtaken", reason="ValueError")
    for own, end, status in (([failed], 65, "overtaken"), ([], 60, "lost")):
        bar = timeline.of(record, started + own + second).bars[1]
        assert (bar.label, bar.end, bar.status) == ("attempt 1", T + end, status)


def test_a_waiting_run_lasts_until_now() -> None:
    found = timeline.of(recorded(status="PENDING", sent_at=T), [])
    assert [(b.kind, b.end) for b in found.bars] == [("wait", None)]
    assert found.in_progress
    assert found.end > T


def test_parts_and_what_follows_have_their_own_bars() -> None:
    run_id, after = new_id(), new_id()
    follows = dump([TaskStep(id=after, task="ping", queue="default")])
    values: dict[str, Value] = {"total": 3, "phase": 1, "waits": True, "then": follows}
    record = recorded(run_id, status="STARTED", sent_at=T, started_at=T + 1, **values)
    tallies.put_all(tallies.new_tallies(run_id, 1, 3, 2_000_000_000))
    backend().store.apply(Write(tallies.tally(run_id, 1, 0), add={"done": frozenset({0}), "failed": frozenset({2})}))
    recorded(tallies.member(run_id, 1, 0), status="SUCCESS", sent_at=T, started_at=T + 9, ended_at=T + 12)
    recorded(tallies.member(run_id, 1, 2), status="FAILURE", sent_at=T, started_at=T + 3, ended_at=T + 20)
    found = timeline.of(
        record, [line(record, "run started", 1, 1), line(record, "run ended", 2, 1, outcome="fanned_out")]
    )
    reported = [(b.kind, b.label, b.status, b.start and b.start - T, b.end and b.end - T) for b in found.bars]
    assert reported == [
        ("wait", "in line", "", 0, 1),
        ("attempt", "attempt 1", "fanned_out", 1, 2),
        ("parts", "its parts", "started", 2, None),
        ("part", "part 2", "failure", 3, 20),
        ("part", "part 0", "success", 9, 12),
        ("next", "then: ping", "unknown", None, None),
    ]
    assert (found.parts, found.shown) == (3, 2)
    assert [one.status for one in timeline.of_members(record)] == ["done", "open", "failed"]


def test_a_bounded_sample_of_ten_thousand_parts_includes_the_failed_ones() -> None:
    failed = set(range(3, 10_000, 101))
    members = [timeline.Member(str(n), n, "failed" if n in failed else "done") for n in range(10_000)]
    shown = timeline.sample(members)
    assert len(shown) <= timeline.SHOWN
    assert sum(one.status == "failed" for one in shown) >= timeline.FAILED_SHOWN
    assert [one.index for one in shown] == sorted(one.index for one in shown)
    assert shown[-1].index > 9_900
    assert timeline.sample(members[:200]) == members[:200]


def test_a_line_without_its_own_time_has_the_logs_time() -> None:
    assert timeline._written(logs.Line("i", T, "default", "said", fields={"timestamp": "soon"})) == T
    assert timeline._written(logs.Line("i", T, "default", "said")) == T


def test_a_job_in_its_second_phase_shows_the_parts_of_the_first_too() -> None:
    record = recorded(status="STARTED", sent_at=T, started_at=T, total=1, phase=2, waits=True)
    recorded(tallies.member(record.id, 1, 0), status="SUCCESS", started_at=T + 1, ended_at=T + 2)
    recorded(tallies.member(record.id, 2, 0), status="STARTED", started_at=T + 3)
    found = timeline.of(record, [])
    assert [(bar.label, bar.start and bar.start - T) for bar in found.bars if bar.kind == "part"] == [
        ("part of the first phase 0", 1),
        ("part 0", 3),
    ]
