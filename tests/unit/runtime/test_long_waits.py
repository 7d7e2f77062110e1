"""Runs that wait for long or are retried often: no limit of AWS or of the run table ends one without a reason."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from nexus import backend as backends
from nexus import clock
from nexus.aws import sdk
from nexus.backend import Backend
from nexus.backend.memory import MemoryStore, MemoryTransport, Sent
from nexus.backend.store import Outcome, Write
from nexus.backend.transport import (
    MAX_DELAY,
    MAX_RECEIVES,
    MAX_VISIBILITY,
    RETENTION,
    Message,
    SqsTransport,
    schedule_name,
)
from nexus.builtin import Pong, ping
from nexus.client import AsyncResult, group
from nexus.clock import FrozenClock
from nexus.eager import Context, EagerTransport
from nexus.envelope import FIRED_AT, Envelope, decode
from nexus.errors import Retry
from nexus.ids import new_id
from nexus.periodic import PeriodicTask
from nexus.registry import registry
from nexus.runs import transitions
from nexus.settings import settings
from nexus.tasks import Budget, RateLimit, RetryPolicy
from nexus.testing import SandboxDied, SentTasks
from nexus.worker import Run, observe
from nexus.worker.entry import serve
from tests.support import own_catalogue as catalogue
from tests.unit.runtime.conftest import MORNING, does, invoke, raises

pytestmark = pytest.mark.usefixtures("environment", "now")

DAY = 86_400.0
DELIVERIES = 200
TOMORROW = 1_795_824_001.0
SENT = catalogue.NoteSent(notification_id="n")
AGAIN = {"batchItemFailures": [{"itemIdentifier": "m0"}]}
ACKNOWLEDGED: dict[str, Any] = {"batchItemFailures": []}


def deliver(tasks: SentTasks, *, receives: int = 1, age: float = 0.0, **more: Any) -> Any:
    """One invocation with the next message, which was received so often and is so old."""
    sent_at = str(round((clock.now() - age) * 1000))
    attributes = {"ApproximateReceiveCount": str(receives), "SentTimestamp": sent_at}
    return invoke([tasks.transport.sent.pop(0).message.body], **{"attributes": attributes, **more})


def send(**options: Any) -> AsyncResult[catalogue.NoteSent]:
    return catalogue.send_note.apply_async(catalogue.NOTE, **options)


def forget_expired(tasks: SentTasks) -> None:
    """DynamoDB deletes the records whose time has come."""
    for key, item in list(tasks.store.items.items()):
        if float(str(item["expires"])) <= clock.now():
            del tasks.store.items[key]


# --- the record outlives the wait ---


def run_days(tasks: SentTasks, now: FrozenClock) -> None:
    """Delivers each message when it is due, as SQS does; DynamoDB deletes the records that expire meanwhile."""
    messages: dict[int, tuple[Sent, float]] = {}
    for _ in range(DELIVERIES):
        if not tasks.transport.sent:
            return
        for sent in tasks.transport.sent:
            soon = sent.due <= now.moment + MAX_DELAY
            messages.setdefault(id(sent), (sent, now.moment if soon else sent.due))
        sent = min(tasks.transport.sent, key=lambda sent: sent.due)
        now.moment = max(now.moment, sent.due)
        forget_expired(tasks)
        _, sent_at = messages[id(sent)]
        sent.receives += 1
        assert sent.receives <= MAX_RECEIVES, "SQS gives it up"
        assert now.moment < sent_at + RETENTION, "SQS has deleted it"
        tasks.transport.sent.remove(sent)
        tasks.transport.sent.insert(0, sent)
        if deliver(tasks, receives=sent.receives, age=now.moment - sent_at) == AGAIN:
            sent.due = min(tasks.transport.hidden.pop("m0"), now.moment + MAX_VISIBILITY)
            tasks.transport.sent.append(sent)
    pytest.fail(f"after {DELIVERIES} deliveries there is still a message")


def test_a_backlog_of_more_days_than_records_are_kept_loses_nothing_that_follows_its_runs(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    monkeypatch.setenv("NEXUS_RUN_DAYS", "2")
    does(monkeypatch, lambda args, run: SENT, budget=Budget(runs=1))
    handles = [(catalogue.send_note.s(**catalogue.NOTE) | ping.s(text=f"{n}")).delay() for n in range(5)]

    run_days(tasks, now)

    assert now.moment > MORNING + 3.5 * DAY
    assert handles[-1].result == Pong(text="4", queue="default", function="this process")


def test_a_group_outlives_a_backlog_of_more_days_than_records_are_kept(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    monkeypatch.setenv("NEXUS_RUN_DAYS", "1")
    does(monkeypatch, lambda args, run: SENT, budget=Budget(runs=1))
    handle = group([catalogue.send_note.s(**catalogue.NOTE)] * 5).delay()

    run_days(tasks, now)

    assert now.moment > MORNING + 3.5 * DAY
    assert handle.get() == [SENT.model_dump()] * 5


def test_a_run_that_was_revoked_while_it_waited_for_a_budget_is_acknowledged_and_never_runs(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    monkeypatch.setenv("NEXUS_RUN_DAYS", "2")
    ran: list[str] = []

    def work(args: Any, run: Run) -> Any:
        ran.append(run.id)
        return SENT

    does(monkeypatch, work, budget=Budget(runs=1))
    handles = [send() for _ in range(5)]
    for _ in handles:
        deliver(tasks)
    assert handles[-1].revoke() == "REVOKED"

    run_days(tasks, now)

    assert ran == [handle.id for handle in handles[:-1]]


def test_a_revoked_run_does_not_wait_for_a_budget_again(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    does(monkeypatch, lambda args, run: SENT, budget=Budget(runs=0))
    handle = send()
    assert deliver(tasks) == ACKNOWLEDGED
    assert [sent.due for sent in tasks.transport.sent] == [TOMORROW]
    handle.revoke()
    now.moment = TOMORROW

    assert deliver(tasks) == ACKNOWLEDGED
    assert tasks.transport.sent == []


def test_a_batch_that_waits_for_tomorrow_is_kept_in_one_request_and_no_record_is_kept_for_less(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, lambda args, run: SENT, budget=Budget(runs=0))
    handles = [send() for _ in range(3)]
    for handle, expires in zip(handles, (5, int(MORNING + 90 * DAY), None), strict=True):
        if expires is None:
            del tasks.store.items[handle.id]  # as of a rule, whose run has no record before it is claimed
        else:
            tasks.store.apply(Write(handle.id, {"expires": expires}))
    requests: list[int] = []
    apply_all = tasks.store.apply_all

    def counted(writes: Sequence[Write]) -> list[Outcome]:
        requests.append(len(writes))
        return apply_all(writes)

    monkeypatch.setattr(tasks.store, "apply_all", counted)
    records = [
        {"messageId": f"m{n}", "receiptHandle": f"m{n}", "body": sent.message.body, "eventSource": "aws:sqs"}
        for n, sent in enumerate(tasks.transport.sent)
    ]

    assert serve("default", registry.served_by("default"), {"Records": records}, Context()) == ACKNOWLEDGED

    assert requests == [3, 0], "nothing is left to claim"
    kept = [tasks.store.items.get(handle.id, {}).get("expires") for handle in handles]
    assert kept == [transitions.keep_until(TOMORROW), MORNING + 90 * DAY, None]


def test_a_start_booked_beyond_the_retention_keeps_its_record(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    monkeypatch.setenv("NEXUS_RUN_DAYS", "2")
    does(monkeypatch, lambda args, run: SENT, rate_limit=RateLimit(per_second=1 / (3 * DAY)))
    handles = [(catalogue.send_note.s(**catalogue.NOTE) | ping.s(text=f"{n}")).delay() for n in range(2)]

    run_days(tasks, now)

    assert now.moment >= MORNING + 3 * DAY
    assert handles[-1].result == Pong(text="1", queue="default", function="this process")


# --- schedules ---


class Scheduler(MemoryTransport):
    """Has at most one schedule of each name, and deletes none."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def send_at(self, queue: str, message: Message, when: datetime) -> None:
        if message.id not in self.names:
            MemoryTransport.send_at(self, queue, message, when)
        self.names.append(message.id)


@pytest.fixture
def scheduled() -> Iterator[SentTasks]:
    """The tasks that the test sends, whose schedules are still there after they have fired."""
    tasks = SentTasks(MemoryStore(), Scheduler())
    with backends.use(Backend(tasks.store, tasks.transport)):
        yield tasks


def test_a_long_wait_right_after_another_has_its_own_schedule(
    scheduled: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    does(monkeypatch, lambda args, run: SENT if run.attempt == 4 else raises(Retry(after=DAY)))
    handle = send(countdown=3600)

    run_days(scheduled, now)

    assert handle.status == "SUCCESS"
    names = scheduled.transport.names  # type: ignore[attr-defined]
    first = int(MORNING) + 3600
    assert names == [handle.id] + [f"{handle.id}_{first + days * int(DAY)}" for days in (1, 2, 3)]


def test_two_deliveries_that_wait_for_the_same_moment_share_a_schedule(
    scheduled: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, lambda args, run: raises(Retry(after=DAY)))
    send()
    scheduled.transport.sent *= 2

    assert [deliver(scheduled), deliver(scheduled)] == [ACKNOWLEDGED, ACKNOWLEDGED]

    assert len(scheduled.transport.sent) == 1
    assert len(scheduled.transport.names) == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [{"countdown": DAY}, {}], ids=["before it starts", "before a retry"])
def test_revoking_a_run_that_waits_deletes_its_schedule(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    does(monkeypatch, lambda args, run: raises(Retry(after=DAY)))
    handle = send(**options)
    if not options:
        deliver(tasks)
    assert [sent.due for sent in tasks.transport.sent] == [MORNING + DAY]

    assert handle.revoke() == "REVOKED"

    assert tasks.transport.sent == []


@pytest.mark.usefixtures("cloud")
def test_a_schedules_name_and_input_are_valid_and_contain_no_keyword() -> None:
    """Names: 1 to 64 of `[0-9a-zA-Z-_.]` (CreateSchedule in the API reference). Keywords are replaced anywhere in the
    input ("Adding context attributes" in the user guide).
    """
    scheduler, group = sdk.client("scheduler"), settings().stack
    scheduler.create_schedule_group(Name=group)
    text = r"<aws.scheduler.execution-id> \<aws.scheduler.schedule-arn> <aws.scheduler <b>"
    envelope = Envelope.of(id=new_id(), task="send_note", args={**catalogue.NOTE, "text": text})
    name = schedule_name(envelope.id, MORNING + 0.7, delivered=True)
    message = replace(Message.of(envelope), id=name)
    transport = SqsTransport()
    for _ in range(2):
        transport.send_at("default", message, datetime(2090, 1, 1, tzinfo=UTC))

    (listed,) = scheduler.list_schedules(GroupName=group)["Schedules"]
    assert re.fullmatch(r"[0-9a-zA-Z_.-]{1,64}", listed["Name"])
    assert listed["Name"] == name == f"{envelope.id}_1795770000"
    body = scheduler.get_schedule(Name=listed["Name"], GroupName=group)["Target"]["Input"]
    assert "<aws.scheduler." not in body
    assert decode(body) == envelope

    transport.cancel(message.id)
    transport.cancel(message.id)
    assert scheduler.list_schedules(GroupName=group)["Schedules"] == []


def test_a_periodic_tasks_arguments_keep_what_looks_like_schedulers_keywords() -> None:
    note = {**catalogue.NOTE, "text": f"at {FIRED_AT}", "link": "<aws.scheduler.attempt-number>"}
    task = PeriodicTask(name="w", task="send_note", queue="default", args=note, expression="rate(1 day)")
    body = task.request()["Target"]["Input"]

    assert re.findall("<aws.scheduler.[a-z-]+>", body) == [FIRED_AT]
    assert decode(body.replace(FIRED_AT, "2026-11-30T09:00:00Z")).args == note


# --- what SQS counts: receives, and a message's age ---


def test_a_run_with_more_retries_than_sqs_has_receives_ends_by_its_policy(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, lambda args, run: raises(OSError("no network")), retry=RetryPolicy(max_retries=45))
    handle = send()

    tasks.run()

    assert (handle.status, handle.attempts) == ("FAILURE", 46)
    ((_, letter),) = tasks.dead_letters
    assert (letter.attributes["ErrorType"], letter.attributes["Attempts"]) == ("OSError", "46")


@pytest.mark.parametrize("after", [0.0, 7.5, 5000.0, 30 * DAY])
@pytest.mark.parametrize(
    ("receives", "age"),
    [(MAX_RECEIVES - 1, 0.0), (MAX_RECEIVES, 0.0), (2, 3.9 * DAY), (2, RETENTION - 60.0)],
    ids=["received 19 times", "received 20 times", "3.9 days old", "a minute before it is deleted"],
)
def test_a_message_that_sqs_would_soon_give_up_or_delete_is_replaced_by_another(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock, *, receives: int, age: float, after: float
) -> None:
    does(monkeypatch, lambda args, run: SENT if run.attempt == 2 else raises(Retry(after=after)))
    handle = send()

    assert deliver(tasks, receives=receives, age=age) == ACKNOWLEDGED

    (another,) = tasks.transport.sent
    if after <= MAX_DELAY:
        assert another.message.delay == another.due - MORNING >= after
    assert handle.status == "RETRY"
    run_days(tasks, now)
    assert (handle.status, handle.attempts) == ("SUCCESS", 2)
    assert now.moment >= MORNING + after


@pytest.mark.parametrize(
    ("receives", "age", "after", "worn"),
    [
        (1, 0.0, 10 * 3600.0, False),
        (9, 0.0, 0.0, False),
        (10, 0.0, 0.0, True),
        (1, 3.4 * DAY, 0.0, False),
        (1, 3.4 * DAY, 5 * 3600.0, True),
        (1, 3.6 * DAY, 0.0, True),
    ],
)
def test_a_message_is_replaced_while_half_of_its_receives_and_half_a_day_are_left(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, *, receives: int, age: float, after: float, worn: bool
) -> None:
    does(monkeypatch, lambda args, run: raises(Retry(after=after)))
    send()

    assert deliver(tasks, receives=receives, age=age) == (ACKNOWLEDGED if worn else AGAIN)
    assert len(tasks.transport.sent) == worn


def test_a_message_beyond_the_budget_that_is_as_old_as_sqs_keeps_it_is_not_hidden_until_it_is_deleted(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    does(monkeypatch, lambda args, run: SENT, budget=Budget(runs=0))
    now.sleep(6 * 3600)
    send()

    assert deliver(tasks, age=3.8 * DAY) == ACKNOWLEDGED
    assert [sent.due for sent in tasks.transport.sent] == [TOMORROW]


def test_a_message_whose_age_is_not_known_is_kept(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, lambda args, run: raises(Retry(after=1)))
    send()
    assert deliver(tasks, attributes={}) == AGAIN


@pytest.mark.parametrize("fault", ["refused", "unreachable"])
def test_a_run_keeps_its_message_if_sqs_does_not_accept_a_new_one(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def send_nothing(_: Any, __: str, messages: Any) -> dict[str, str]:
        if fault == "unreachable":
            raise OSError("no network")
        return {message.id: "refused" for message in messages}

    does(monkeypatch, lambda args, run: raises(Retry(after=5)))
    handle = send()
    monkeypatch.setattr(MemoryTransport, "send", send_nothing)

    assert deliver(tasks, receives=MAX_RECEIVES - 1) == AGAIN
    assert tasks.transport.hidden == {"m0": MORNING + 5}
    assert handle.status == "RETRY"


def test_a_wait_of_days_without_the_right_to_schedules_passes_in_several_messages(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    does(monkeypatch, lambda args, run: SENT if run.attempt == 2 else raises(Retry(after=9 * DAY)))
    monkeypatch.setattr(MemoryTransport, "send_at", lambda *_: raises(OSError("no right")))
    handle = send()

    run_days(tasks, now)

    assert handle.status == "SUCCESS"
    assert MORNING + 9 * DAY <= now.moment < MORNING + 9 * DAY + 60


def test_a_message_that_kills_its_sandbox_is_given_up_by_sqs(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    does(monkeypatch, lambda args, run: raises(SandboxDied("killed")), retry=RetryPolicy(max_retries=30))
    handle = send()
    (sent,) = tasks.transport.sent

    for receives in range(1, MAX_RECEIVES + 1):
        tasks.transport.sent = [sent]
        with pytest.raises(SandboxDied):
            deliver(tasks, receives=receives)
        assert tasks.transport.sent == []
        now.sleep(1000)

    assert handle.attempts == MAX_RECEIVES


def test_a_redriven_message_waits_for_a_lease_itself_because_another_would_lack_its_mark(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = []
    mark = {"ErrorType": {"stringValue": "Reject"}}

    def work(args: Any, run: Run) -> Any:
        tasks.transport.sent.append(sent)
        answers.append(deliver(tasks, receives=MAX_RECEIVES - 1, messageAttributes=mark))
        return SENT

    does(monkeypatch, work)
    send()
    (sent,) = tasks.transport.sent

    assert deliver(tasks) == ACKNOWLEDGED
    assert answers == [AGAIN]


def test_an_eager_task_with_a_long_wait_sends_no_second_message(monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, lambda args, run: SENT if run.attempt == 2 else raises(Retry(after=30 * DAY)))
    refused: list[str] = []
    monkeypatch.setattr(observe, "not_sent_again", lambda run_id, reason: refused.append(str(reason)))
    transport = EagerTransport()
    with backends.use(Backend(MemoryStore(), transport)):
        handle = send()
        assert handle.status == "SUCCESS"
    assert transport.sent == []
    assert refused == []
