"""What an attempt does if its run changes meanwhile: by another sandbox, by a revocation, or because its lease expired.

Only one outcome may count, no message may be lost, and only a run that has failed may be a dead letter.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from nexus.aws import table
from nexus.backend.memory import MemoryTransport
from nexus.backend.store import Outcome, Refused, Write
from nexus.backend.transport import DeadLetter, Message
from nexus.client import AsyncResult, chain
from nexus.clock import FrozenClock
from nexus.definitions import TaskDefinition
from nexus.eager import INVOCATION_SECONDS, Context, run_next
from nexus.envelope import Envelope
from nexus.errors import Reject, Revoked, SendFailed, TimeLimitExceeded
from nexus.ids import new_id
from nexus.registry import registry
from nexus.runs import locks, transitions
from nexus.tasks import Budget, RateLimit, RetryPolicy, Unique
from nexus.testing import SandboxDied, SentTasks
from nexus.worker import Run, messages
from nexus.worker.entry import serve
from tests.support import own_catalogue as catalogue
from tests.support.own_catalogue import Counted
from tests.unit.runtime.conftest import MORNING, Job, before_write, does, invoke, raises

pytestmark = pytest.mark.usefixtures("environment", "now")

LEASE = INVOCATION_SECONDS
"""A lease ends with its invocation."""

SENT = catalogue.NoteSent(notification_id="n")
AGAIN = {"batchItemFailures": [{"itemIdentifier": "m0"}]}
ACKNOWLEDGED: dict[str, Any] = {"batchItemFailures": []}


def send() -> AsyncResult[catalogue.NoteSent]:
    return catalogue.send_note.delay(**catalogue.NOTE)


def deliver(tasks: SentTasks, served: Mapping[str, TaskDefinition[Any, Any]] | None = None) -> Any:
    """One invocation with all messages, which stay in the queue."""
    return invoke([sent.message.body for sent in tasks.transport.sent], served=served)


def redrive(letter: DeadLetter, served: Mapping[str, TaskDefinition[Any, Any]] | None = None) -> Any:
    """One invocation with a message that SQS has moved back from the dead-letter queue."""
    return invoke([letter.body], served=served, messageAttributes={"ErrorType": {"stringValue": "Reject"}})


# --- an attempt that outlives its lease ---


@pytest.mark.parametrize(
    "end",
    [
        lambda run: SENT,
        lambda run: raises(Reject("no such user")),
        lambda run: raises(OSError("no network")),
        lambda run: raises(Revoked()),
        lambda run: run.continue_from({"page": 2}),
    ],
    ids=["succeeds", "is rejected", "fails", "is revoked", "continues"],
)
def test_the_outcome_of_an_attempt_is_dropped_after_another_sandbox_has_run_it(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock, end: Callable[[Run], Any]
) -> None:
    answers = []

    def work(args: Any, run: Run) -> Any:
        if run.attempt == 2:
            return catalogue.NoteSent(notification_id="the other's")
        now.sleep(LEASE + 1)
        answers.append(deliver(tasks))
        return end(run)

    does(monkeypatch, work)
    handle = send()

    assert deliver(tasks) == AGAIN
    assert answers == [ACKNOWLEDGED]
    assert tasks.transport.hidden == {"m0": now.now() + 1}
    assert (handle.status, handle.attempts) == ("SUCCESS", 2)
    assert handle.result == catalogue.NoteSent(notification_id="the other's")
    assert tasks.dead_letters == []


def test_a_sandbox_that_was_frozen_after_its_claim_does_not_run(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    does(monkeypatch, lambda args, run: raises(AssertionError("it ran")), unique=Unique())
    handle = send()
    place = locks.place(registry.served_by("default")["send_note"], catalogue.SendNote(**catalogue.NOTE))
    before_write(monkeypatch, tasks, str(place), {"holder": handle.id}, lambda: now.sleep(LEASE))

    assert deliver(tasks) == AGAIN
    assert (handle.status, handle.attempts) == ("RETRY", 0)


@pytest.mark.parametrize("messages", [1, 2])
def test_a_claim_whose_response_was_lost_holds_although_the_record_was_changed_since(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, messages: int
) -> None:
    does(monkeypatch, lambda args, run: SENT, retry=RetryPolicy(max_retries=0))
    handles = [send() for _ in range(messages)]
    apply = tasks.store.apply
    refused: list[Write] = []

    def repeated(write: Write) -> Outcome:
        outcome = apply(write)
        if write.set.get("status") == "STARTED" and len(refused) < messages:
            refused.append(write)
            outcome = apply(transitions.kept(str(write.key), 2_000_000_000))  # a duplicate waits for tomorrow's budget
            return Refused(outcome.item)
        return outcome

    monkeypatch.setattr(tasks.store, "apply", repeated)

    assert deliver(tasks) == ACKNOWLEDGED
    assert [(handle.status, handle.attempts) for handle in handles] == [("SUCCESS", 1)] * messages


# --- a revocation while it runs ---


@pytest.mark.parametrize(
    "end",
    [
        lambda run: raises(OSError("no network")),
        lambda run: run.continue_from({"page": 2}),
        lambda run: run.fan_out([catalogue.SendNote(**catalogue.NOTE)] * 2),
    ],
    ids=["fails", "continues", "fans out"],
)
def test_an_attempt_during_which_its_run_was_revoked_is_the_last(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, end: Callable[[Run], Any]
) -> None:
    asked = []

    def work(args: Any, run: Run) -> Any:
        asked.append(AsyncResult[Any](run.id).revoke())
        return end(run)

    does(monkeypatch, work)
    handle = send()

    assert deliver(tasks) == ACKNOWLEDGED
    assert asked == ["STARTED"]
    assert handle.status == "REVOKED"
    assert tasks.dead_letters == []
    assert len(tasks.transport.sent) == 1, "no segment"


# --- two sandboxes with the same message ---


def test_only_one_of_two_sandboxes_claims_a_due_retry(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    attempts = []

    def work(args: Any, run: Run) -> Any:
        attempts.append(run.attempt)
        return raises(OSError("no network")) if run.attempt == 1 else SENT

    does(monkeypatch, work)
    handle = send()
    assert deliver(tasks) == AGAIN
    now.sleep(60)
    answers = []
    before_write(
        monkeypatch, tasks, handle.id, {"status": "STARTED", "attempts": 2}, lambda: answers.append(deliver(tasks))
    )

    assert deliver(tasks) == ACKNOWLEDGED
    assert answers == [ACKNOWLEDGED]
    assert attempts == [1, 2]
    assert handle.status == "SUCCESS"


def test_a_success_written_after_the_last_lease_is_not_overwritten_by_giving_up(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    does(monkeypatch, lambda args, run: raises(SandboxDied("killed")), retry=RetryPolicy(max_retries=0))
    handle = send()
    with pytest.raises(SandboxDied):
        deliver(tasks)
    now.sleep(LEASE + 1)
    token = str(tasks.store.items[handle.id]["claim"])
    settled = transitions.succeed(handle.id, token, '{"notification_id":"late"}', now.now())
    before_write(monkeypatch, tasks, handle.id, {"status": "FAILURE"}, lambda: tasks.store.apply(settled))

    assert deliver(tasks) == ACKNOWLEDGED
    assert handle.result == catalogue.NoteSent(notification_id="late")


# --- a function version that lacks the task ---


def test_a_function_without_the_task_leaves_a_run_to_the_sandbox_that_runs_it(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []

    def work(args: Any, run: Run) -> Any:
        answers.append(deliver(tasks, served={}))
        return SENT

    does(monkeypatch, work)
    handle = send()

    assert deliver(tasks) == ACKNOWLEDGED
    assert answers == [AGAIN]
    assert tasks.transport.hidden == {"m0": MORNING + LEASE + messages.LEASE_GRACE}
    assert handle.status == "SUCCESS"
    assert tasks.dead_letters == []


def test_a_function_without_the_task_does_not_fail_a_run_that_has_just_succeeded(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, lambda args, run: SENT)
    handle = send()
    before_write(monkeypatch, tasks, handle.id, {"status": "FAILURE"}, lambda: deliver(tasks))

    assert deliver(tasks, served={}) == AGAIN
    assert handle.status == "SUCCESS"
    assert deliver(tasks, served={}) == ACKNOWLEDGED
    assert handle.status == "SUCCESS"


def test_a_function_without_the_task_leaves_a_fan_out_to_its_segments(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, lambda args, run: SENT if run.segment else run.fan_out([args] * 2))
    handle = send()
    (planning,) = tasks.transport.sent
    assert deliver(tasks) == ACKNOWLEDGED

    assert invoke([planning.message.body], served={}) == ACKNOWLEDGED

    assert handle.status == "STARTED"
    assert tasks.dead_letters == []


def test_a_dead_letter_moved_back_to_a_function_without_the_task_returns_to_the_dead_letters(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, lambda args, run: raises(Reject("no such user")))
    handle = send()
    deliver(tasks)
    ((_, letter),) = tasks.dead_letters
    assert deliver(tasks, served={}) == ACKNOWLEDGED
    assert len(tasks.dead_letters) == 1, "a mere duplicate"

    assert redrive(letter, served={}) == ACKNOWLEDGED
    _, (_, returned) = tasks.dead_letters
    assert returned.body == letter.body
    assert (returned.attributes["ErrorType"], returned.attributes["Attempts"]) == ("UnknownTask", "1")
    assert handle.status == "FAILURE"


# --- a dead letter that SQS moves back before the attempt that gave it up is settled ---


def test_a_dead_letter_beyond_the_budget_keeps_its_mark_until_its_last_attempt_is_settled(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    does(monkeypatch, lambda args, run: raises(Reject("not yet")), budget=Budget(runs=1))
    keep, answers = MemoryTransport.dead_letter, []

    def moved_back_at_once(transport: MemoryTransport, queue: str, letter: DeadLetter) -> None:
        keep(transport, queue, letter)
        answers.append(redrive(letter))

    monkeypatch.setattr(MemoryTransport, "dead_letter", moved_back_at_once)
    handle = send()
    assert deliver(tasks) == ACKNOWLEDGED
    tasks.transport.sent.clear()

    assert answers == [AGAIN]
    assert tasks.transport.hidden == {"m0": MORNING + LEASE + messages.LEASE_GRACE}
    assert handle.status == "FAILURE"
    ((_, letter),) = tasks.dead_letters
    assert redrive(letter) == ACKNOWLEDGED
    assert handle.status == "PENDING"
    assert [sent.due > MORNING + 12 * 3600 for sent in tasks.transport.sent] == [True]


# --- waiting, and running out of time ---


def test_a_run_waits_in_its_sandbox_for_a_start_that_is_near(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    started = []

    def work(args: Any, run: Run) -> Any:
        started.append(now.now())
        return SENT

    does(monkeypatch, work, rate_limit=RateLimit(per_second=0.5))
    handles = [send(), send(), send()]

    assert deliver(tasks) == ACKNOWLEDGED
    assert [later - MORNING for later in started] == [0.0, 2.0, 4.0]
    assert {handle.status for handle in handles} == {"SUCCESS"}


def test_a_run_that_expires_while_it_waits_for_its_start_does_not_start(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, lambda args, run: SENT, rate_limit=RateLimit(per_second=0.5))
    handles = [catalogue.send_note.apply_async(catalogue.NOTE, expires=3) for _ in range(3)]

    assert deliver(tasks) == ACKNOWLEDGED

    assert [handle.status for handle in handles] == ["SUCCESS", "SUCCESS", "REVOKED"]
    assert str(handles[2].error) == "Revoked: expired at 2026-11-27T09:00:03Z, before attempt 1 started"


def test_a_start_that_is_due_is_not_put_off_for_lack_of_time(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run of an invocation gets whatever time there is, and another invocation would have no more."""
    does(monkeypatch, lambda args, run: SENT, rate_limit=RateLimit(per_second=0.5), time_limit=LEASE)
    handle = send()

    assert deliver(tasks) == ACKNOWLEDGED
    assert handle.status == "SUCCESS"


def test_a_time_limit_reached_while_dynamodb_throttled_names_the_table(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    def work(args: Any, run: Run) -> Any:
        monkeypatch.setattr(table, "_throttled", (now.monotonic(), "the table posts"))
        raise TimeLimitExceeded("send_note has used its 20 s")

    does(monkeypatch, work)
    handle = send()

    assert deliver(tasks) == AGAIN
    assert str(handle.error) == ("TimeLimitExceeded: send_note has used its 20 s; DynamoDB throttled the table posts")
    assert "in work" in str(handle.traceback), "it says where in the task"


# --- SQS refuses what a run sends ---


def refuse(_: Any, __: str, messages: Sequence[Message]) -> dict[str, str]:
    return {message.id: "refused" for message in messages}


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes SQS refuse every message from now on."""

    return lambda: monkeypatch.setattr(MemoryTransport, "send", refuse)


def test_a_direct_invocation_whose_retry_cannot_be_queued_fails(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, refused: Callable[[], None]
) -> None:
    does(monkeypatch, lambda args, run: run.continue_from({"page": 2}))
    event = {"task": "send_note", "args": dict(catalogue.NOTE)}
    response = serve("default", registry.served_by("default"), event, Context())
    assert response["status"] == "RETRY"
    (sent,) = tasks.transport.sent
    assert sent.message.id == response["id"]

    refused()
    with pytest.raises(SendFailed, match="refused"):
        serve("default", registry.served_by("default"), event, Context())


def test_a_plan_whose_segments_sqs_refuses_is_sent_again_with_its_message(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, job: Job, refused: Callable[[], None]
) -> None:
    handle = catalogue.make_report.delay()
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(MemoryTransport, "send", refuse)
        run_next(tasks.transport)
    assert handle.status == "RETRY"

    tasks.run()

    assert handle.result == Counted(rows_read=6)


def test_a_second_phase_that_sqs_refuses_is_sent_when_the_last_segments_message_comes_back(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, job: Job
) -> None:
    job.phases = 2
    handle = catalogue.make_report.delay()
    for _ in range(3):
        run_next(tasks.transport)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(MemoryTransport, "send", refuse)
        run_next(tasks.transport)
    assert handle.status == "STARTED"
    (last,) = tasks.transport.sent
    assert last.receives == 1

    tasks.run()

    assert handle.result == Counted(rows_read=6, changed=1)


# --- records that have expired ---


@pytest.mark.parametrize("left", ["its tally", "nothing"])
def test_a_segment_of_a_run_whose_records_have_expired_is_acknowledged(tasks: SentTasks, job: Job, left: str) -> None:
    job.segments = 1
    handle = catalogue.make_report.delay()
    run_next(tasks.transport)
    (segment,) = tasks.transport.sent
    for key in list(tasks.store.items):
        if key == handle.id or left == "nothing":
            del tasks.store.items[key]

    run_next(tasks.transport)

    assert AsyncResult[Any](segment.message.id).status == "SUCCESS"
    assert handle.status == "UNKNOWN"
    assert (tasks.transport.sent, tasks.dead_letters) == ([], [])


# --- one run waits for the place of another ---


def test_a_run_that_waits_is_woken_by_a_holder_that_leaves_while_it_begins_to_wait(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, lambda args, run: SENT, unique=Unique(key=("user_id",), on_conflict="coalesce"))
    holder, waiter = send(), send()
    place = str(locks.place(registry.served_by("default")["send_note"], catalogue.SendNote(**catalogue.NOTE)))
    unique = registry.served_by("default")["send_note"].unique
    assert unique is not None
    locks.acquire(place, unique, Envelope(id=holder.id, task="send_note"), MORNING)
    tasks.store.apply(Write(holder.id, {"started_at": MORNING}))
    tasks.transport.cancel(holder.id)
    before_write(monkeypatch, tasks, waiter.id, {"status": "RETRY"}, lambda: locks.release(place, holder.id, MORNING))

    assert deliver(tasks) == AGAIN
    assert waiter.status == "RETRY"
    _, again = tasks.transport.sent
    assert (again.message.id, again.due) == (waiter.id, MORNING)
    tasks.transport.sent = [again]
    assert deliver(tasks) == ACKNOWLEDGED
    assert waiter.status == "SUCCESS"


def test_a_waiting_run_that_comes_back_early_still_waits_for_the_same_holder(tasks: SentTasks) -> None:
    unique = Unique(on_conflict="coalesce")
    holder, waiter = (Envelope.of(id=new_id(), task="count_rows") for _ in range(2))
    assert locks.acquire("unique/all", unique, holder, MORNING) is None
    waits = locks.acquire("unique/all", unique, waiter, MORNING)
    assert waits == locks.Held(holder.id, wait=True, until=MORNING + unique.lease)
    assert locks.acquire("unique/all", unique, waiter, MORNING) == waits


def test_a_waiting_run_that_cannot_be_woken_is_an_error_of_the_holder(
    tasks: SentTasks, refused: Callable[[], None]
) -> None:
    unique = Unique(on_conflict="coalesce")
    holder, waiter = (Envelope.of(id=new_id(), task="count_rows") for _ in range(2))
    locks.acquire("unique/all", unique, holder, MORNING)
    locks.acquire("unique/all", unique, waiter, MORNING)
    tasks.store.apply(Write(waiter.id, {"status": "RETRY", "queue": "analytics"}))
    refused()
    with pytest.raises(SendFailed, match="refused"):
        locks.release("unique/all", holder.id, MORNING)


def test_a_waiting_run_is_woken_by_the_holders_message_if_its_sandbox_died_before(tasks: SentTasks) -> None:
    unique = Unique(on_conflict="coalesce")
    holder, waiter = (Envelope.of(id=new_id(), task="count_rows") for _ in range(2))
    locks.acquire("unique/all", unique, holder, MORNING)
    locks.acquire("unique/all", unique, waiter, MORNING)
    tasks.store.apply(Write(waiter.id, {"status": "RETRY", "queue": "analytics", "eta": MORNING + unique.lease}))
    tasks.store.apply(Write("unique/all", remove=("holder", "lease_until", "started_at")))  # and then it died

    locks.release("unique/all", holder.id, MORNING)

    (again,) = tasks.transport.sent
    assert (again.message.id, again.due) == (waiter.id, MORNING)


# --- revoked before it starts ---


@pytest.mark.parametrize("rate", [None, RateLimit(per_second=0.5)], ids=["behind another run", "for its rate"])
def test_a_run_that_is_revoked_while_it_waits_in_its_batch_does_not_begin(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock, rate: RateLimit | None
) -> None:
    ran = []

    def work(args: Any, run: Run) -> Any:
        ran.append(run.id)
        assert second.revoke() == "STARTED"
        now.sleep(1.5)
        return SENT

    does(monkeypatch, work, rate_limit=rate)
    first, second = send(), send()

    assert deliver(tasks) == ACKNOWLEDGED

    assert ran == [first.id]
    assert (first.status, second.status) == ("SUCCESS", "REVOKED")
    assert str(second.error) == "Revoked: revoked before it began"


def test_a_chain_ends_where_a_later_run_was_revoked_before_it_was_sent(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def work(args: Any, run: Run) -> Any:
        ran.append(run.id)
        return SENT

    does(monkeypatch, work)
    last = chain([catalogue.send_note.s(**catalogue.NOTE)] * 3).delay()
    second = last.parent
    assert second is not None
    assert second.parent is not None
    assert second.revoke() == "REVOKED"

    tasks.run()

    assert ran == [second.parent.id]
    assert last.status == "FAILURE"
    assert str(last.error) == f"UpstreamFailed: send_note {second.id} is REVOKED"


def test_a_revocation_that_is_overtaken_ten_times_returns_the_status(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = send()
    tried = []

    def overtaken(write: Write) -> Outcome:
        tried.append(write)
        return Refused(tasks.store.items[handle.id])

    monkeypatch.setattr(tasks.store, "apply", overtaken)
    assert handle.revoke() == "PENDING"
    assert len(tried) == 10
