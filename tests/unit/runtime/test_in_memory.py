"""The basis of an application's tests, with its own catalogue: groups, chains, expiry, rates and unique tasks."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nexus import clock, periodic
from nexus.client import chain, chord, group, result_of, then
from nexus.errors import Retry
from nexus.registry import Implementation, registry
from nexus.tasks import Arguments, RateLimit, RetryPolicy, Task
from nexus.testing import Tasks, in_memory
from nexus.worker import Continuation, Run
from tests.support import own_catalogue as catalogue
from tests.support.own_catalogue import NOTE, Counted, NoteSent, ReportPart


class Keep(Arguments):
    """What another task has returned."""

    note: NoteSent


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    with in_memory() as tasks:
        yield tasks


def does(monkeypatch: pytest.MonkeyPatch, task: Any, work: Any, part: Any = None) -> None:
    monkeypatch.setitem(registry._implementations, task.name, Implementation(task, work, part))


def test_members_links_and_callbacks_are_drained(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, catalogue.send_note, lambda args, run: NoteSent(notification_id=args.text))
    note = catalogue.send_note.s
    together = group([note(**{**NOTE, "text": text}) for text in "ab"]).delay()
    last = chain(note(**{**NOTE, "text": "c"}), note(**{**NOTE, "text": "d"})).delay()
    after = chord([note(**{**NOTE, "text": "e"})], note(**{**NOTE, "text": "f"})).delay()

    tasks.drain()

    assert [handle.status for handle in (together, last, after)] == ["SUCCESS"] * 3
    assert sorted(one.args["text"] for one in tasks.sent) == list("abcdef")


def test_a_result_that_a_chain_passes_on_is_among_the_arguments_at_any_size(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, size = catalogue.send_note, 300_000
    does(monkeypatch, note, lambda args, run: NoteSent(notification_id="n" * size))
    keep = Task(
        name="keep_note", queue="default", arguments=Keep, result=NoteSent, summary="Keeps a note.", module="kept"
    )
    monkeypatch.setitem(registry._declared, keep.name, (keep, "test"))
    does(monkeypatch, keep, lambda args, run: NoteSent())
    chain(note.s(**NOTE), then(keep, note=result_of(note))).delay()

    tasks.drain()

    assert len(tasks.assert_sent(keep).args["note"].notification_id) == size


def test_a_link_that_does_not_take_the_result_is_no_task_sent(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, catalogue.send_note, lambda args, run: NoteSent())
    link: Any = {**NOTE, "text": result_of(catalogue.send_note)}
    chain(catalogue.send_note.s(**NOTE), then(catalogue.send_note, **link)).delay()

    with pytest.raises(AssertionError, match="after 0 attempts: InvalidMessage: send_note: text"):
        tasks.drain()

    assert len(tasks.sent) == 1


def test_a_fan_out_is_one_task_sent(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(args: Any, run: Run) -> Continuation:
        return run.fan_out([ReportPart(day="2026-01-01")] * 3)

    does(monkeypatch, catalogue.make_report, plan, lambda args, run: Counted(rows_read=2))
    catalogue.make_report.delay(day="2026-01-01")
    assert tasks.drain() == 4
    sent = tasks.assert_sent(catalogue.make_report, day="2026-01-01")
    assert tasks.sent == [sent]
    assert sent.handle.result == Counted(rows_read=6)


def test_a_message_that_the_queue_gives_up_is_reported(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, catalogue.send_note, lambda args, run: NoteSent())
    chain(catalogue.send_note.s(**NOTE), catalogue.send_note.s(**NOTE)).delay()
    with (
        tasks.sends_failing("no permission"),
        pytest.raises(AssertionError, match=r'a message of send_note was received 20 times.*"left for later"'),
    ):
        tasks.drain()


def test_an_expired_run_does_not_run(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, catalogue.send_note, lambda args, run: NoteSent())
    handle = catalogue.send_note.apply_async(NOTE, countdown=10, expires=5)
    tasks.drain()
    assert handle.status == "REVOKED"


def test_a_revoked_run_does_not_run(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, catalogue.send_note, lambda args, run: NoteSent())
    handle = catalogue.send_note.apply_async(NOTE, eta=tasks.now + timedelta(days=1))
    handle.revoke()
    tasks.advance(timedelta(days=2))
    assert handle.status == "REVOKED"


def test_a_retry_after_a_day_runs_a_day_later(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def work(args: Any, run: Run) -> NoteSent:
        tried.append(clock.now())
        if len(tried) == 1:
            raise Retry("tomorrow", after=86_400)
        return NoteSent()

    does(monkeypatch, catalogue.send_note, work)
    handle = catalogue.send_note.apply_async(NOTE, retry=RetryPolicy(max_retries=1))
    tasks.advance(timedelta(hours=23))
    assert handle.status == "RETRY"
    tasks.advance(timedelta(hours=2))
    assert handle.status == "SUCCESS"
    assert tried[1] - tried[0] == pytest.approx(86_400, abs=1)


def test_sleeping_advances_the_tests_clock_without_waiting(tasks: Tasks) -> None:
    before = tasks.now
    clock.sleep(3600)
    assert tasks.now - before == timedelta(hours=1)
    with pytest.raises(ValueError, match="needs a time zone"):
        tasks.freeze(before.replace(tzinfo=None))


def test_a_task_that_sleeps_moves_the_time(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []

    def work(args: Any, run: Run) -> NoteSent:
        clock.sleep(45)
        left.append(run.remaining)
        return NoteSent()

    does(monkeypatch, catalogue.send_note, work)
    before = tasks.now
    catalogue.send_note.delay(**NOTE)
    tasks.drain()

    assert tasks.now - before == timedelta(seconds=45)
    assert left == [catalogue.send_note.time_limit - 45]


def test_runs_wait_for_their_rate(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[float] = []

    def work(args: Any, run: Run) -> NoteSent:
        began.append(clock.now())
        return NoteSent()

    slow = replace(catalogue.send_note, rate_limit=RateLimit(2.0))
    monkeypatch.setitem(registry._declared, slow.name, (slow, "test"))
    does(monkeypatch, slow, work)
    handles = [slow.apply_async(NOTE, expires=1.2) for _ in range(4)]
    tasks.drain()

    assert [when - began[0] for when in began] == pytest.approx([0.0, 0.5, 1.0], abs=0.01)
    assert [handle.status for handle in handles] == ["SUCCESS"] * 3 + ["REVOKED"]


@pytest.mark.parametrize("expression", ["cron(0 9 * * * *)", "rate(1 day", "every day", "at(tomorrow)"])
def test_a_periodic_task_that_scheduler_would_not_accept_is_refused(expression: str) -> None:
    note = catalogue.send_note.s(**NOTE)
    with in_memory():
        with pytest.raises(periodic.PeriodicTaskError, match="Invalid Schedule Expression"):
            periodic.create("daily", note, expression)
        periodic.create("daily", note, "cron(0 9 * * ?)")  # without a year
        with pytest.raises(periodic.PeriodicTaskError, match="Invalid Schedule Expression"):
            periodic.update("daily", expression=expression)
        assert [task.expression for task in periodic.every()] == ["cron(0 9 * * ?)"]


def test_periodic_tasks_fire_in_their_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, catalogue.send_note, lambda args, run: NoteSent(notification_id=args.text))
    with in_memory(at=datetime(2027, 3, 26, 12, tzinfo=UTC)) as tasks:  # a Friday; on Sunday Berlin's clocks skip 02:30
        for name, expression in (("nine", "cron(0 9 * * ? *)"), ("skipped", "cron(30 2 28 * ? *)")):
            note = catalogue.send_note.s(**{**NOTE, "text": name})
            periodic.create(name, note, expression, timezone="Europe/Berlin")
        periodic.create("once", catalogue.send_note.s(**NOTE), "at(2027-03-27T10:00:00)")
        periodic.create("paused", catalogue.send_note.s(**NOTE), "rate(1 minute)", paused=True)

        tasks.advance(timedelta(days=3), schedules=True)

        assert [f"{one.due:%d %H:%M} {one.args['text']}" for one in tasks.sent] == [
            "27 08:00 nine", "27 10:00 hello", "28 07:00 nine", "29 07:00 nine"
        ]  # fmt: skip
        assert {one.handle.status for one in tasks.sent} == {"SUCCESS"}
        assert periodic.update("nine", paused=True).paused
        assert [task.name for task in periodic.every()] == ["nine", "once", "paused", "skipped"]
        assert periodic.delete("nine")
        assert not periodic.delete("nine")
        with pytest.raises(periodic.PeriodicTaskError, match="already"):
            periodic.create("once", catalogue.send_note.s(**NOTE), "rate(1 minute)")


def test_an_upload_starts_the_one_task_that_uploads_start(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setattr(registry, "tasks", dict)
        with pytest.raises(ValueError, match="an upload starts no task"):
            tasks.upload("a.jpg", b"bytes")
    tasks.upload("a.jpg", b"bytes")
    tasks.upload("a.jpg", b"other bytes")
    assert len({sent.message.id for sent in tasks.transport.sent}) == 2
