"""The worker's promises, one test each, on the in-memory backend: the same rules, no AWS."""

import json
from dataclasses import replace
from math import inf
from typing import Any, Literal

import pytest

from nexus import clock
from nexus.backend.memory import MemoryTransport
from nexus.backend.transport import Message
from nexus.builtin import Pong, ping
from nexus.client import AsyncResult
from nexus.clock import FrozenClock
from nexus.eager import run_next
from nexus.envelope import Envelope
from nexus.errors import Reject, Retry
from nexus.ids import made_at, new_id
from nexus.registry import Implementation, registry
from nexus.runs.transitions import send_again
from nexus.testing import SentTasks
from nexus.worker import Run
from tests.support import own_catalogue as catalogue
from tests.unit.runtime.conftest import MORNING

pytestmark = pytest.mark.usefixtures("environment")


class Work:
    """The work of send_note in a test: an exception to raise for each attempt, then success."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.attempts: list[int] = []

    def __call__(self, args: catalogue.SendNote, run: Run) -> catalogue.NoteSent:
        self.attempts.append(run.attempt)
        if self.faults:
            raise self.faults.pop(0)
        return catalogue.NoteSent(notification_id=f"n-{args.user_id}")


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work()
    joined = Implementation(catalogue.send_note, work)
    monkeypatch.setitem(registry._implementations, "send_note", joined)
    return work


def notify() -> AsyncResult[catalogue.NoteSent]:
    return catalogue.send_note.delay(user_id="u-1", kind="like", text="A likes your post")


def test_a_sent_task_is_pending_then_runs_once_and_has_its_result(tasks: SentTasks, work: Work) -> None:
    handle = notify()
    assert handle.status == "PENDING"
    assert tasks.calls == [("send_note", {"user_id": "u-1", "kind": "like", "text": "A likes your post"})]

    tasks.run()

    assert handle.status == "SUCCESS"
    assert handle.result == catalogue.NoteSent(notification_id="n-u-1")
    assert work.attempts == [1]


def test_an_id_never_sent_is_unknown_and_not_pending(tasks: SentTasks) -> None:
    assert AsyncResult("00000000-0000-7000-8000-000000000000").status == "UNKNOWN"


def test_a_message_delivered_twice_runs_once(tasks: SentTasks, work: Work) -> None:
    notify()
    tasks.transport.sent *= 2

    tasks.run()

    assert work.attempts == [1]


def test_a_failing_attempt_is_retried_until_the_policy_gives_up_and_then_is_a_dead_letter_with_its_reason(
    tasks: SentTasks, work: Work
) -> None:
    work.faults = [OSError(f"no {n}") for n in range(1, 10)]
    handle = notify()

    tasks.run()

    assert work.attempts == [1, 2, 3, 4]
    assert handle.status == "FAILURE"
    assert handle.error is not None
    assert (handle.error.type, handle.error.message) == ("OSError", "no 4")
    ((queue, letter),) = tasks.dead_letters
    assert queue == "default"
    assert letter.attributes["ErrorType"] == "OSError"
    assert letter.attributes["Attempts"] == "4"
    assert json.loads(letter.body)["args"]["user_id"] == "u-1"


@pytest.mark.parametrize(
    ("secret", "shown"), [((), "user_id: Input should be a valid string (got '4711')"), (("user_id",), "valid string")]
)
def test_no_record_and_no_dead_letter_quotes_a_secret_argument_that_is_invalid(
    tasks: SentTasks, work: Work, monkeypatch: pytest.MonkeyPatch, secret: tuple[str, ...], shown: str
) -> None:
    task = replace(catalogue.send_note, searchable=(), secret=secret)
    monkeypatch.setitem(registry._declared, task.name, (task, "test"))
    envelope = Envelope(id=new_id(), task=task.name, args={**catalogue.NOTE, "user_id": 4711})
    tasks.transport.send("default", [Message.of(envelope)])

    tasks.run()

    error = AsyncResult[Any](envelope.id).error
    ((_, letter),) = tasks.dead_letters
    assert error is not None
    assert error.message.endswith(shown)
    assert letter.attributes["ErrorMessage"] == error.message
    assert ("4711" in error.message) is not bool(secret)


def test_a_rejected_run_is_never_retried(tasks: SentTasks, work: Work) -> None:
    work.faults = [Reject("no such user")]
    handle = notify()

    tasks.run()

    assert work.attempts == [1]
    assert handle.status == "FAILURE"
    assert len(tasks.dead_letters) == 1


def test_a_dead_letter_sent_again_gets_all_its_attempts_again(tasks: SentTasks, work: Work) -> None:
    work.faults = [Reject("the mail server is gone")]
    handle = notify()
    message = tasks.transport.sent[0]
    tasks.run()
    assert handle.status == "FAILURE"

    tasks.transport.sent.append(message)  # a mere duplicate
    tasks.run()
    assert handle.status == "FAILURE"

    tasks.store.apply(send_again(handle.id))
    tasks.transport.sent.append(message)
    tasks.run()

    assert handle.status == "SUCCESS"
    assert handle.error is None


def test_every_attempt_knows_when_the_run_was_first_sent(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def fails_twice(_args: object, run: Run) -> catalogue.NoteSent:
        seen.append(run.sent_at)
        if len(seen) < 3:
            raise OSError("not yet")
        return catalogue.NoteSent(notification_id="n")

    monkeypatch.setitem(registry._implementations, "send_note", Implementation(catalogue.send_note, fails_twice))
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0 + 600 * len(seen))
    handle = notify()
    tasks.run()
    assert handle.status == "SUCCESS"
    assert seen == [1_800_000_000.0] * 3


def test_a_task_that_raises_retry_is_retried(tasks: SentTasks, work: Work) -> None:
    work.faults = [Retry("not yet", after=5)]
    handle = notify()

    tasks.run()

    assert handle.status == "SUCCESS"
    assert work.attempts == [1, 2]


def test_a_revoked_task_is_acknowledged_without_running(tasks: SentTasks, work: Work) -> None:
    handle = notify()

    assert handle.revoke("changed my mind") == "REVOKED"
    tasks.run()

    assert work.attempts == []
    assert handle.status == "REVOKED"


def test_an_expired_task_does_not_start(tasks: SentTasks, work: Work) -> None:
    handle = catalogue.send_note.apply_async({"user_id": "u", "kind": "k", "text": "t"}, expires=-1)

    tasks.run()

    assert work.attempts == []
    assert handle.status == "REVOKED"


EXPIRY = MORNING + 100


def test_a_retry_after_the_expiry_does_not_start_and_the_reason_names_the_attempt(
    tasks: SentTasks, work: Work, now: FrozenClock
) -> None:
    """As in Celery, whose worker checks `expires` at each delivery, and whose retries keep it."""
    work.faults = [Retry("not yet", after=60), Retry("not yet", after=60), OSError("it ran")]
    handle = catalogue.send_note.apply_async({"user_id": "u", "kind": "k", "text": "t"}, expires=100)

    tasks.run()

    assert work.attempts == [1, 2]
    assert handle.status == "REVOKED"
    assert handle.error is not None
    assert handle.error.message == "expired at 2026-11-27T09:01:40Z, before attempt 3 started"


def test_a_run_that_has_begun_and_continues_does_not_expire(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    def begins(args: catalogue.SendNote, run: Run) -> Any:
        now.sleep(60)
        pages = run.cursor["pages"] if run.cursor else 0
        return run.continue_from({"pages": pages + 1}) if pages < 3 else catalogue.NoteSent(notification_id="n")

    monkeypatch.setitem(registry._implementations, "send_note", Implementation(catalogue.send_note, begins))
    handle = catalogue.send_note.apply_async({"user_id": "u", "kind": "k", "text": "t"}, expires=100)

    tasks.run()

    assert (handle.status, handle.attempts) == ("SUCCESS", 1)
    assert now.moment == EXPIRY + 140


def test_a_plan_that_was_begun_before_the_expiry_is_sent_after_it(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    def plan(args: catalogue.MakeReport, run: Run) -> Any:
        return run.fan_out([catalogue.ReportPart(day="2026-01-01")] * 2)

    joined = Implementation(catalogue.make_report, plan, lambda args, run: catalogue.Counted(rows_read=1))
    monkeypatch.setitem(registry._implementations, "make_report", joined)
    handle = catalogue.make_report.apply_async({}, expires=100)
    with monkeypatch.context() as meanwhile:
        refused = {"any": "refused"}
        meanwhile.setattr(MemoryTransport, "send", lambda *_: refused)
        run_next(tasks.transport)
    assert handle.status == "RETRY"
    now.sleep(200)

    tasks.run()

    assert handle.result == catalogue.Counted(rows_read=2)


def test_every_queue_answers_ping(tasks: SentTasks) -> None:
    handle = ping.apply_async({"text": "hello"}, queue="uploads")

    tasks.run()

    assert handle.get(timeout=1) == Pong(text="hello", queue="uploads", function="this process")


@pytest.mark.parametrize("origin", ["rule", None])
@pytest.mark.parametrize("digit", "0123456789abcdef")
def test_a_rules_message_runs_once_whatever_version_its_id_seems_to_have(
    tasks: SentTasks, work: Work, digit: str, origin: Literal["rule"] | None
) -> None:
    # Given a message with an EventBridge event's id; a template deployed earlier does not name the origin
    event_id = f"f04bcde6-2961-{digit}b24-8015-1a2b3c4d5e6f"
    args = {"user_id": "u-1", "kind": "like", "text": "A likes your post"}
    firing = Message.of(Envelope(id=event_id, task="send_note", args=args, origin=origin))
    tasks.transport.send("default", [firing, firing])

    tasks.run()

    assert work.attempts == [1]
    record = AsyncResult(event_id).record()
    assert (record.status, record.task, record.queue, record.args) == ("SUCCESS", "send_note", "default", args)
    assert record.origin == origin
    assert tasks.dead_letters == []


def test_an_events_id_is_not_read_as_a_time() -> None:
    """Its first twelve digits can be a year that no `datetime` holds."""
    assert made_at("f04bcde6-2961-7b24-8015-1a2b3c4d5e6f") is None
    assert made_at("f04bcde6-2961-4b24-8015-1a2b3c4d5e6f") is None
    assert (made_at(new_id()) or inf) == pytest.approx(clock.now(), abs=60)
