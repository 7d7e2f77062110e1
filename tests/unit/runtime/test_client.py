"""What a producer may rely on: sending in every form, groups and chains, unique tasks, revocation, eager mode."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError
from botocore.httpsession import URLLib3Session

from nexus import backend as backends
from nexus import client
from nexus.aws import sdk
from nexus.backend.store import Write
from nexus.backend.transport import queue_url
from nexus.builtin import Ping, Pong, ping
from nexus.client import AsyncResult, chain, chord, group, result_of, send_many, then
from nexus.clock import FrozenClock
from nexus.eager import run_next
from nexus.envelope import Envelope
from nexus.errors import (
    ConfigurationError,
    InvalidMessage,
    Reject,
    SendFailed,
    StillRunning,
    TaskFailed,
    TimeLimitExceeded,
    UnknownTask,
)
from nexus.ids import derived_id
from nexus.registry import Implementation, registry
from nexus.runs import locks, payloads, transitions
from nexus.runs.locks import Held
from nexus.runs.sender import Sender, current
from nexus.settings import settings
from nexus.tasks import Arguments, RetryPolicy, Task, Unique
from nexus.testing import SentTasks, memory_backend
from nexus.worker import Run, observe
from tests.support import own_catalogue as catalogue
from tests.support import sandboxes
from tests.unit.runtime.conftest import MORNING

NOTE: dict[str, Any] = {"user_id": "u-1", "kind": "like", "text": "hello"}
WHO = {"user_id": "u-1"}


@pytest.fixture
def tasks(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[SentTasks]:
    def work(args: catalogue.SendNote, run: Run) -> catalogue.NoteSent:
        if args.kind == "bad":
            raise Reject("as asked")
        return catalogue.NoteSent(notification_id=args.text)

    joined = Implementation(catalogue.send_note, work)
    monkeypatch.setitem(registry._implementations, "send_note", joined)
    with memory_backend() as sent:
        yield sent


# --- sending ---


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"kind": "k", "text": "t"}, "user_id: Field required"),
        ({**NOTE, "text": ""}, "text: "),
        ({**NOTE, "colour": "red"}, "colour: "),
        ({**NOTE, "user_id": 7}, "user_id: "),
    ],
)
def test_bad_arguments_are_refused_by_name_before_anything_is_sent(
    tasks: SentTasks, arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidMessage, match="send_note") as refused:
        catalogue.send_note.delay(**arguments)
    assert named in str(refused.value)
    assert tasks.calls == []
    assert tasks.store.items == {}


@pytest.mark.parametrize(
    ("send", "fault"),
    [
        (lambda task: task.delay("u-1"), "got positional arguments"),
        (lambda task: task.s("u-1"), "got positional arguments"),
        (lambda task: task.apply_async(("u-1",)), "got a tuple"),
        (lambda task: task.apply_async(args=["u-1"]), "got a list"),
        (lambda task: task.apply_async(kwargs={"user_id": "u-1"}), r"apply_async\(\) has no kwargs"),
        (lambda task: task.apply_async(user_id="u-1"), r"apply_async\(\) has no user_id"),
    ],
)
def test_celery_style_calls_get_an_error_that_says_what_to_write(
    tasks: SentTasks, send: Callable[[Any], object], fault: str
) -> None:
    by_name = r'pass arguments by name: delay\(user_id=...\) or apply_async\(\{"user_id": ...\}'
    with pytest.raises(TypeError, match=f"^welcome: {fault}; {by_name}"):
        send(catalogue.welcome)
    assert tasks.store.items == {}


def test_a_message_over_sqs_limit_is_refused_and_leaves_no_record(tasks: SentTasks) -> None:
    with pytest.raises(InvalidMessage, match="pass a key, not the data"):
        client.send(client.Signature(ping, {"text": "x" * 1_100_000}))
    assert tasks.store.items == {}


def test_a_task_id_makes_sending_twice_one_run(tasks: SentTasks) -> None:
    run_id = "0189d6b0-0000-7000-8000-000000000001"
    catalogue.send_note.apply_async(NOTE, task_id=run_id)
    handle = catalogue.send_note.apply_async(NOTE, task_id=run_id)

    tasks.run()

    assert handle.id == run_id
    assert handle.attempts == 1


def test_a_task_id_that_no_reader_would_take_is_refused(tasks: SentTasks) -> None:
    with pytest.raises(InvalidMessage, match="id: "):
        catalogue.send_note.apply_async(NOTE, task_id="mine")
    assert tasks.calls == []


@pytest.mark.parametrize("queue", ["emails", "nowhere"])
def test_a_queue_that_does_not_serve_the_task_is_refused(tasks: SentTasks, queue: str) -> None:
    with pytest.raises(UnknownTask, match=queue):
        catalogue.send_note.apply_async(NOTE, queue=queue)


def test_an_untracked_task_writes_nothing_until_it_runs(tasks: SentTasks) -> None:
    handle = catalogue.send_note.apply_async(NOTE, track=False)
    assert handle.status == "UNKNOWN"

    tasks.run()

    assert handle.status == "SUCCESS"


def test_a_countdown_becomes_the_messages_delay_and_the_record_says_when(tasks: SentTasks, now: FrozenClock) -> None:
    handle = catalogue.send_note.apply_async(NOTE, countdown=90)

    (sent,) = tasks.transport.sent
    assert sent.message.delay == 90
    record = handle.record()
    assert (record.sent_at, record.eta) == (MORNING, MORNING + 90)
    assert tasks.store.items[handle.id]["live"] == transitions.live_key("default", handle.id)


def test_a_task_with_a_name_that_is_not_ascii_is_refused(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message's group, by default its task's name, is ASCII in SQS."""
    named = replace(catalogue.send_note, name="grüße")
    monkeypatch.setitem(registry._declared, named.name, (named, "test"))
    with pytest.raises(InvalidMessage, match="task: String should match pattern"):
        named.delay(**NOTE)


@pytest.mark.parametrize(
    ("option", "value", "fault"),
    [
        ("countdown", "60", "a number of seconds"),
        ("countdown", timedelta(minutes=1), "a number of seconds"),
        ("countdown", float("nan"), "a number of seconds"),
        ("expires", "2030-01-01", "a number of seconds"),
        ("expires", datetime.max.replace(tzinfo=UTC), "in at most a hundred years"),
        ("eta", datetime(2030, 1, 1), "a datetime with a time zone"),  # noqa: DTZ001
        ("eta", "2030-01-01T00:00:00Z", "a datetime with a time zone"),
        ("eta", datetime.max.replace(tzinfo=UTC), "in at most a hundred years"),
        ("retry", True, "a RetryPolicy"),
        ("task_id", "", "not a UUID"),
    ],
)
def test_an_option_with_a_wrong_value_is_refused_by_its_name(
    tasks: SentTasks, option: str, value: Any, fault: str
) -> None:
    given: Any = {option: value}
    with pytest.raises((ValueError, TypeError, InvalidMessage), match=f"^{option}.*: (it must be )?{fault}"):
        catalogue.send_note.apply_async(NOTE, **given)
    assert not tasks.transport.sent


def test_a_retry_policy_of_one_send_holds_for_that_run(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def work(args: Any, run: Run) -> catalogue.NoteSent:
        attempts.append(run.attempt)
        raise OSError("again")

    joined = Implementation(catalogue.send_note, work)
    monkeypatch.setitem(registry._implementations, "send_note", joined)
    catalogue.send_note.apply_async(NOTE, retry=RetryPolicy(max_retries=1))

    tasks.run()

    assert attempts == [1, 2]


def test_sent_through_sqs_and_recorded_in_dynamodb(cloud: None) -> None:
    handle = catalogue.send_note.delay(**NOTE)

    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName="nexus-test-default")["QueueUrl"]
    (message,) = sqs.receive_message(QueueUrl=url, MessageSystemAttributeNames=["All"])["Messages"]
    envelope = json.loads(message["Body"])
    assert (envelope["id"], envelope["task"], envelope["args"]) == (handle.id, "send_note", NOTE)
    assert message["Attributes"]["MessageGroupId"] == "send_note"
    assert handle.status == "PENDING"


def test_a_task_due_beyond_fifteen_minutes_is_a_schedule_until_it_fires_or_is_revoked(cloud: None) -> None:
    scheduler = boto3.client("scheduler")
    scheduler.create_schedule_group(Name=settings().stack)
    eta = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=3)

    handle = catalogue.send_note.apply_async(NOTE, eta=eta)

    schedule = scheduler.get_schedule(Name=handle.id, GroupName=settings().stack)
    assert schedule["ActionAfterCompletion"] == "DELETE"
    assert schedule["ScheduleExpression"] == f"at({eta:%Y-%m-%dT%H:%M:%S})"
    target = schedule["Target"]
    assert json.loads(target["Input"])["id"] == handle.id
    assert "SqsParameters" not in target, "Scheduler documents a message group only for FIFO queues"
    assert target["DeadLetterConfig"]["Arn"].endswith(f":{settings().dead_letter_queue_name('default')}")
    assert handle.revoke() == "REVOKED"
    assert scheduler.list_schedules(GroupName=settings().stack)["Schedules"] == []


def test_the_same_id_scheduled_twice_is_one_run(cloud: None) -> None:
    scheduler = boto3.client("scheduler")
    scheduler.create_schedule_group(Name=settings().stack)
    run_id = "0189d6b0-0000-7000-8000-000000000001"

    for _ in range(2):
        handle = catalogue.send_note.apply_async(NOTE, countdown=7200, task_id=run_id)
        assert handle.id == run_id

    assert len(scheduler.list_schedules(GroupName=settings().stack)["Schedules"]) == 1


def test_many_are_sent_in_batches(cloud: None) -> None:
    handles = send_many([catalogue.send_note.s(**NOTE) for _ in range(23)])

    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName="nexus-test-default")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    assert attributes["ApproximateNumberOfMessages"] == "23"
    assert {record.status for record in client.read_records(handles)} == {"PENDING"}


def test_runs_that_sqs_refuses_are_named_and_not_left_pending(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_the_second(queue: str, messages: Any) -> dict[str, str]:
        return {messages[1].id: "InternalError"}

    monkeypatch.setattr(type(tasks.transport), "send", lambda self, queue, messages: refuse_the_second(queue, messages))
    with pytest.raises(SendFailed) as refused:
        send_many([catalogue.send_note.s(**NOTE) for _ in range(3)])

    ((run_id, reason),) = refused.value.failures.items()
    assert reason == "InternalError"
    record = AsyncResult(run_id).record()
    assert (record.status, str(record.error)) == ("FAILURE", "SendFailed: not sent: InternalError")


def test_the_record_of_a_run_that_was_not_sent_has_the_reason_of_aws(
    cloud: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs, sent, pending = sdk.client("sqs"), list[str](), transitions.pending
    message = "u-web is not authorized to perform sqs:SendMessage"

    def noted(envelope: Envelope, *args: Any, **also: Any) -> Write:
        sent.append(envelope.id)
        return pending(envelope, *args, **also)

    monkeypatch.setattr(transitions, "pending", noted)

    def deny(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "SendMessage")

    canvas = chain(catalogue.send_note.s(**NOTE), ping.s())
    with monkeypatch.context() as refusing:
        refusing.setattr(sqs, "send_message", deny)
        with pytest.raises(SendFailed):
            canvas.delay()
    reported = [AsyncResult(run_id).record() for run_id in sent]
    assert [record.status for record in reported] == ["FAILURE", "FAILURE"]  # the second step as well
    for record in reported:
        assert record.error is not None
        assert record.error.type == "SendFailed"
        assert "(AccessDenied)" in record.error.message
        assert message in record.error.message

    # And where the queue is gone, which is a fault of the deployment for the caller
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName="nexus-test-default")["QueueUrl"])
    queue_url.cache_clear()
    with pytest.raises(ConfigurationError, match="missing or incomplete"):
        catalogue.send_note.delay(**NOTE)
    error = AsyncResult(sent[-1]).record().error
    assert error is not None
    assert "NonExistentQueue" in error.message or "QueueDoesNotExist" in error.message


SENDERS: list[Callable[[], object]] = [
    lambda: catalogue.send_note.delay(**NOTE),
    lambda: catalogue.send_note.apply_async(NOTE, track=False),
    lambda: send_many([catalogue.send_note.s(**NOTE)] * 2),
    lambda: group([catalogue.send_note.s(**NOTE)] * 2).delay(),
    lambda: chain(catalogue.send_note.s(**NOTE), ping.s()).delay(),
]
EACH_WAY = pytest.mark.parametrize("send", SENDERS, ids=["delay", "untracked", "send_many", "group", "chain"])


@EACH_WAY
def test_a_send_fails_if_aws_is_unreachable(
    environment: None, monkeypatch: pytest.MonkeyPatch, send: Callable[[], object]
) -> None:
    def unreachable(session: URLLib3Session, request: Any) -> None:
        raise EndpointConnectionError(endpoint_url=request.url)

    monkeypatch.setattr(URLLib3Session, "send", unreachable)
    sandboxes.no_sleep(monkeypatch)
    with pytest.raises(SendFailed, match="Could not connect"):
        send()


@EACH_WAY
def test_missing_credentials_are_a_configuration_error(
    environment: None, monkeypatch: pytest.MonkeyPatch, send: Callable[[], object]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(ConfigurationError, match="Unable to locate credentials"):
        send()


@EACH_WAY
def test_a_missing_region_is_a_configuration_error(
    environment: None, monkeypatch: pytest.MonkeyPatch, send: Callable[[], object]
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    sdk.reset()
    with pytest.raises(ConfigurationError, match="region"):
        send()


@EACH_WAY
def test_a_stack_that_is_not_there_is_named(
    cloud: None, monkeypatch: pytest.MonkeyPatch, send: Callable[[], object]
) -> None:
    monkeypatch.setenv("NEXUS_STACK", "nexus-prdo")
    settings.cache_clear()
    with pytest.raises(ConfigurationError, match="the stack nexus-prdo is missing or incomplete in eu-west-1"):
        send()


def refuses(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "not now"}}, "CreateSchedule")


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize(
    "error", [refuses("ThrottlingException"), refuses("AccessDeniedException"), BotoCoreError()], ids=repr
)
def test_schedules_from_the_first_failure_on_are_named_and_their_runs_not_left_pending(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, error: Exception, track: bool
) -> None:
    schedule, asked = type(tasks.transport).send_at, list[str]()

    def third_fails(transport: Any, queue: str, message: Any, when: datetime) -> None:
        asked.append(message.id)
        if len(asked) == 3:
            raise error
        schedule(transport, queue, message, when)

    monkeypatch.setattr(type(tasks.transport), "send_at", third_fails)
    with pytest.raises(SendFailed) as refused:
        send_many([catalogue.send_note.s(**NOTE) for _ in range(5)], countdown=3600, track=track)

    scheduled = [sent.message.id for sent in tasks.transport.sent]
    assert asked[:2] == scheduled
    assert len(asked) == 3, "the rest would fail too"
    assert refused.value.away == sdk.is_outage(error)
    assert list(refused.value.failures.values()) == [str(error)] * 3
    assert not refused.value.failures.keys() & set(scheduled)
    if track:
        assert [AsyncResult(run_id).status for run_id in scheduled] == ["PENDING"] * 2
        assert [AsyncResult(run_id).status for run_id in refused.value.failures] == ["FAILURE"] * 3


def test_a_tasks_children_are_only_the_runs_that_were_accepted(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = type(tasks.transport).send

    def refuse_the_second(transport: Any, queue: str, messages: Any) -> Any:
        return {messages[1].id: "no", **send(transport, queue, [messages[0]])} if len(messages) == 2 else {}

    def work(args: catalogue.SendNote, run: Run) -> catalogue.NoteSent:
        with pytest.raises(SendFailed):
            send_many([ping.s(text="one"), ping.s(text="two")])
        return catalogue.NoteSent()

    monkeypatch.setitem(registry._implementations, "send_note", Implementation(catalogue.send_note, work))
    handle = catalogue.send_note.delay(**NOTE)
    monkeypatch.setattr(type(tasks.transport), "send", refuse_the_second)
    run_next(tasks.transport)

    assert [child.id for child in handle.children] == [sent.message.id for sent in tasks.transport.sent]


@pytest.mark.parametrize(
    "send",
    [
        lambda: send_many([catalogue.send_note.s(**NOTE), catalogue.send_note.s(**NOTE), catalogue.welcome.s(**WHO)]),
        lambda: catalogue.welcome.delay(**WHO),
        lambda: chain(catalogue.welcome.s(**WHO), catalogue.welcome.s(**WHO)).delay(),
    ],
    ids=["many, in two queues", "one", "a chain"],
)
def test_messages_that_sqs_accepted_before_the_senders_time_limit_are_run(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, send: Callable[[], object]
) -> None:
    accept = type(tasks.transport).send

    def too_late(transport: Any, queue: str, messages: Any) -> Any:
        refused = accept(transport, queue, messages)
        if queue == "welcomes":
            raise TimeLimitExceeded("its time is over")
        return refused

    def work(args: Any, run: Run) -> catalogue.NoteSent:
        return catalogue.NoteSent(notification_id="n")

    monkeypatch.setitem(registry._implementations, "welcome", Implementation(catalogue.welcome, work))
    sender = Sender("0189d6b0-0000-7000-8000-000000000001")
    entered = current.set(sender)
    with monkeypatch.context() as late:
        late.setattr(type(tasks.transport), "send", too_late)
        with pytest.raises(TimeLimitExceeded):
            send()
    current.reset(entered)

    handles = [AsyncResult[Any](run_id) for run_id in tasks.store.items]
    assert {handle.status for handle in handles} == {"PENDING"}
    assert sender.children == [], "which were accepted is not known"
    tasks.run()
    assert {handle.status for handle in handles} == {"SUCCESS"}


def test_a_stack_without_schedules_is_incomplete_unless_something_could_be_sent(
    cloud: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_group(**_: Any) -> None:
        raise refuses("ResourceNotFoundException")

    monkeypatch.setattr(sdk.client("scheduler"), "create_schedule", no_group)
    now, later = catalogue.send_note.s(**NOTE), catalogue.send_note.s(**NOTE).set(countdown=3600)
    with pytest.raises(ConfigurationError, match="missing or incomplete"):
        send_many([later, later])

    with pytest.raises(SendFailed) as refused:
        send_many([now, later, now])

    assert len(refused.value.failures) == 1
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName="nexus-test-default")["QueueUrl"]
    received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    ids = [json.loads(message["Body"])["id"] for message in received]
    assert [AsyncResult(run_id).status for run_id in ids] == ["PENDING"] * 2
    assert [AsyncResult(run_id).status for run_id in refused.value.failures] == ["FAILURE"]


def test_records_of_many_that_were_written_before_a_failure_are_not_left_pending(
    cloud: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    dynamodb = sdk.client("dynamodb")
    execute, inserts = dynamodb.batch_execute_statement, []

    def second_fails(**request: Any) -> Any:
        if request["Statements"][0]["Statement"].startswith("INSERT"):
            inserts.append(request)
            if len(inserts) == 2:
                raise EndpointConnectionError(endpoint_url="https://dynamodb")
        return execute(**request)

    monkeypatch.setattr(dynamodb, "batch_execute_statement", second_fails)
    monkeypatch.setattr("nexus.backend.store.threads", lambda: 1)  # one page after the other
    with pytest.raises(SendFailed) as refused:
        send_many([catalogue.send_note.s(**NOTE) for _ in range(30)])

    assert refused.value.away
    statuses = [AsyncResult(run_id).status for run_id in refused.value.failures]
    assert statuses == ["FAILURE"] * 25 + ["UNKNOWN"] * 5


def test_only_batches_before_sqs_became_unreachable_are_sent(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sqs = sdk.client("sqs")
    answer, requests = sqs.send_message_batch, []

    def once(**request: Any) -> Any:
        requests.append(request)
        if len(requests) > 1:
            raise EndpointConnectionError(endpoint_url="https://sqs")
        return answer(**request)

    monkeypatch.setattr(sqs, "send_message_batch", once)
    monkeypatch.setattr("nexus.backend.transport.threads", lambda: 1)  # one page after the other
    with pytest.raises(SendFailed) as refused:
        send_many([catalogue.send_note.s(**NOTE) for _ in range(35)])

    assert len(requests) == 2
    assert len(refused.value.failures) == 25
    assert {AsyncResult(run_id).status for run_id in refused.value.failures} == {"FAILURE"}


# --- results ---


def test_get_waits_returns_and_raises_as_celerys_does(tasks: SentTasks) -> None:
    good = catalogue.send_note.delay(**NOTE)
    bad = catalogue.send_note.delay(**{**NOTE, "kind": "bad"})
    with pytest.raises(StillRunning):
        good.get(timeout=0.01)

    tasks.run()

    assert good.get() == catalogue.NoteSent(notification_id="hello")
    with pytest.raises(TaskFailed, match="Reject: as asked"):
        bad.get()
    assert bad.get(propagate=False) is None


def test_a_result_over_the_item_limit_is_stored_in_s3(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:

    text = payloads.dump("0189d6b0-0000-7000-8000-000000000001", {"text": "x" * 300_000})

    assert len(text) < 100
    assert payloads.load(text) == {"text": "x" * 300_000}


# --- groups, chains, chords ---


def test_a_groups_result_is_its_members_results_in_order(tasks: SentTasks) -> None:
    handle = group([catalogue.send_note.s(**{**NOTE, "text": str(n)}) for n in range(5)]).delay()
    assert handle.progress == (0, 5)

    tasks.run()

    assert [result["notification_id"] for result in handle.result or []] == [str(n) for n in range(5)]


def test_a_group_with_a_failed_member_fails(tasks: SentTasks) -> None:
    handle = group([catalogue.send_note.s(**{**NOTE, "kind": kind}) for kind in ("good", "bad")]).delay()

    tasks.run()

    assert handle.status == "FAILURE"


def test_a_chain_hands_each_result_to_the_next_and_its_handle_is_the_last(tasks: SentTasks) -> None:
    handle = chain(
        ping.s(text="1"),
        catalogue.send_note.s(**NOTE),
        ping.s(text="3"),
    ).delay()
    assert handle.status == "PENDING"

    tasks.run()

    assert handle.result == Pong(text="3", queue="default", function="this process")


def test_a_chain_stops_where_a_link_fails(tasks: SentTasks) -> None:
    handle = chain(catalogue.send_note.s(**{**NOTE, "kind": "bad"}), ping.s(text="never")).delay()

    tasks.run()

    assert handle.status == "FAILURE"
    assert handle.error is not None
    assert handle.error.type == "UpstreamFailed"


def test_a_chain_too_long_for_lambdas_loop_detection_is_refused(tasks: SentTasks) -> None:
    with pytest.raises(ValueError, match="1 to 12"):
        chain(*[ping.s()] * 13).delay()


def test_a_chord_sends_its_callback_once_with_all_results(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def tell(args: Ping, run: Run) -> Pong:
        seen.append(args.text)
        return Pong(text="reported", queue="", function="")

    def note(args: catalogue.SendNote, run: Run) -> catalogue.NoteSent:
        return catalogue.NoteSent(notification_id=args.text)

    monkeypatch.setitem(registry._implementations, "send_note", Implementation(catalogue.send_note, note))
    handle = chord(
        [catalogue.send_note.s(**{**NOTE, "text": str(n)}) for n in range(3)],
        ping.s(text="all done"),
    ).delay()

    tasks.run()

    assert handle.status == "SUCCESS"


def test_a_link_that_takes_the_result_names_an_argument_that_exists() -> None:
    wrong: Any = {"colour": result_of(ping)}
    with pytest.raises(InvalidMessage, match="colour: no such argument"):
        then(ping, **wrong)


def test_a_link_says_which_argument_takes_the_result() -> None:
    by_position: Any = ("text",)
    with pytest.raises(TypeError, match="write then"):
        then(ping, text="hello")
    with pytest.raises(TypeError, match="write then"):
        then(ping, *by_position)
    link: Any = {**NOTE, "text": result_of(ping)}
    assert then(catalogue.send_note, **link).result_as == "text"


# --- unique tasks ---


def test_a_second_run_of_a_unique_task_is_skipped_while_one_is_live_and_names_it(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = catalogue.count_rows

    def job(args: Any, run: Run) -> Any:
        return catalogue.Counted() if run.segment else run.fan_out([args])

    monkeypatch.setitem(registry._implementations, task.name, Implementation(task, job))
    first, second = task.delay(), task.delay()
    run_next(tasks.transport)  # the first fans out, and is live until its segment has ended
    run_next(tasks.transport)

    assert second.status == "REVOKED"
    assert second.error is not None
    assert first.id in second.error.message
    tasks.run()
    assert first.status == "SUCCESS"

    third = task.delay()
    tasks.run()
    assert third.status == "SUCCESS"


def test_an_explicit_default_has_the_same_unique_key() -> None:
    task = Task(
        name="job",
        queue="analytics",
        arguments=catalogue.ReportPart,
        result=catalogue.Counted,
        summary="",
        unique=Unique(key=("day", "last")),
    )

    def place(**args: Any) -> str | None:
        return locks.place(task, task.check(args))

    assert place(day="2026-01-01", last=False) == place(day="2026-01-01") != place(day="2026-01-01", last=True)


def test_none_has_another_unique_key_than_the_default() -> None:
    class Greeting(Arguments):
        language: str | None = "en"

    task = Task(
        name="greet",
        queue="default",
        arguments=Greeting,
        result=catalogue.Counted,
        summary="",
        unique=Unique(key=("language",)),
    )

    assert locks.place(task, Greeting()) != locks.place(task, Greeting(language=None))


@pytest.mark.parametrize("fields", [{"unique": Unique(key=("user",))}, {"secret": ("user",)}])
def test_a_secret_or_unique_name_that_is_no_argument_cannot_be_declared(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="send_note: user is secret or unique, but not one of the arguments"):
        replace(catalogue.send_note, **fields)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_limit_that_is_not_positive_cannot_be_declared(seconds: float) -> None:
    with pytest.raises(ValueError, match=f"send_note: the time limit is {seconds}: it must be over 0"):
        replace(catalogue.send_note, time_limit=seconds)


def test_more_retries_than_lambda_lets_a_run_have_cannot_be_declared() -> None:
    assert RetryPolicy(max_retries=100).max_retries == 100
    with pytest.raises(ValueError, match="max_retries at most 100"):
        RetryPolicy(max_retries=101)


def test_a_stored_retry_policy_over_lambdas_limit_is_capped(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(args: Any, run: Run) -> Any:
        raise OSError("forever")

    monkeypatch.setitem(registry._implementations, "send_note", Implementation(catalogue.send_note, work))
    handle = catalogue.send_note.apply_async(NOTE, retry=RetryPolicy(max_retries=1, base=0))
    tasks.store.apply(Write(handle.id, {"retry": "[500,0,0,[]]"}))

    tasks.run()

    assert (handle.status, handle.attempts) == ("FAILURE", 101)


def test_a_unique_task_without_a_lease_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="the lease must be over 0"):
        Unique(lease=0)


def test_a_revoked_run_that_waited_for_its_retry_gives_its_place_up(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = catalogue.count_rows

    def job(args: Any, run: Run) -> Any:
        raise OSError("for now")

    monkeypatch.setitem(registry._implementations, task.name, Implementation(task, job))
    first = task.delay()
    run_next(tasks.transport)
    assert first.status == "RETRY"

    first.revoke()
    tasks.run()

    monkeypatch.setitem(
        registry._implementations, task.name, Implementation(task, lambda args, run: catalogue.Counted())
    )
    second = task.delay()
    tasks.run()
    assert second.status == "SUCCESS"


def at_place(run_id: str, started_at: float = 1.0) -> tuple[str, Unique, Envelope, float]:
    unique = Unique(on_conflict="coalesce")
    return "unique/count_rows/all", unique, Envelope(id=derived_id(run_id), task="count_rows"), started_at


def test_one_run_may_wait_for_the_live_one_and_the_rest_are_skipped(tasks: SentTasks) -> None:
    first, second, third = (derived_id(name) for name in ("first", "second", "third"))
    assert locks.acquire(*at_place("first")) is None
    held = locks.acquire(*at_place("second"))
    assert held is not None
    assert (held.holder, held.wait) == (first, True)
    assert locks.acquire(*at_place("third")) == Held(second, wait=False)

    locks.release("unique/count_rows/all", first, 1.0)

    assert locks.acquire(*at_place("second")) is None
    assert third


def test_the_lock_of_an_ended_run_is_taken_over(tasks: SentTasks) -> None:
    ended = derived_id("ended")
    assert locks.acquire(*at_place("ended")) is None
    tasks.store.apply(Write(ended, set={"status": "FAILURE"}))

    assert locks.acquire(*at_place("next")) is None


def test_a_late_attempt_leaves_the_lock_to_its_successor(tasks: SentTasks) -> None:
    run_id = derived_id("again")
    assert locks.acquire(*at_place("again", started_at=1.0)) is None
    assert locks.acquire(*at_place("again", started_at=2.0)) is None

    locks.release("unique/count_rows/all", run_id, 1.0)
    assert isinstance(locks.acquire(*at_place("other")), Held)

    locks.release("unique/count_rows/all", run_id, 2.0)
    assert locks.acquire(*at_place("other")) is None


def test_a_lock_whose_lease_has_expired_is_taken_over(tasks: SentTasks) -> None:
    assert locks.acquire(*at_place("gone")) is None
    (key,) = [key for key in tasks.store.items if key.startswith("unique/")]
    tasks.store.apply(Write(key, set={"lease_until": 1.0}))

    assert locks.acquire(*at_place("next")) is None


def test_the_run_that_waits_is_woken_when_the_place_is_given_up(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(catalogue.count_rows, unique=Unique(on_conflict="coalesce"))
    monkeypatch.setitem(registry._declared, task.name, (task, "test"))
    starts: list[str] = []

    def job(args: Any, run: Run) -> Any:
        starts.append(run.id)
        return catalogue.Counted() if run.segment else run.fan_out([args])

    monkeypatch.setitem(registry._implementations, task.name, Implementation(task, job))
    first, second = task.delay(), task.delay()
    run_next(tasks.transport)  # the first fans out, and is live until its segment has ended
    run_next(tasks.transport)
    assert second.status == "RETRY"
    waited = [sent.due for sent in tasks.transport.sent if sent.message.id == second.id]
    assert waited[0] > time.time() + 3600

    run_next(tasks.transport)  # the segment, and with it the first

    assert first.status == "SUCCESS"
    (again,) = [sent for sent in tasks.transport.sent if sent.message.id == second.id and sent.due < time.time() + 60]
    assert again.receives == 0
    tasks.run()
    assert second.status == "SUCCESS"


# --- eager mode, the client alone ---


def test_eager_mode_runs_the_task_in_the_callers_process(tmp_path: Path) -> None:
    folder = tmp_path / "functions" / "default"
    folder.mkdir(parents=True)
    (folder / "send_note.py").write_text(
        "from tests.support import own_catalogue as catalogue\n"
        "from nexus.worker import implements\n"
        "@implements(catalogue.send_note)\n"
        "def work(args, run):\n"
        "    return catalogue.NoteSent(notification_id=args.text)\n"
    )
    program = (
        "from tests.support.own_catalogue import send_note\n"
        "handle = send_note.delay(user_id='u', kind='k', text='eagerly')\n"
        "print(handle.status, handle.result.notification_id)"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "NEXUS_"))},
        "PYTHONPATH": f"{Path(client.__file__).parents[2]}:{Path(__file__).parents[3]}",
        "NEXUS_BACKEND": "nexus.eager",
        "NEXUS_FUNCTIONS": str(tmp_path / "functions"),
        "POWERTOOLS_LOG_LEVEL": "CRITICAL",
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "SUCCESS eagerly\n"


@pytest.fixture
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "NEXUS_"))]:
        monkeypatch.delenv(name)
    settings.cache_clear()


@pytest.mark.usefixtures("_no_variables")
def test_tasks_in_memory_need_no_environment_variable() -> None:
    with memory_backend() as tasks:
        handles = [ping.delay(text="hi"), group([ping.s(), ping.s()]).delay()]
        tasks.run()
        assert [handle.status for handle in handles] == ["SUCCESS", "SUCCESS"]


@pytest.mark.usefixtures("_no_variables")
def test_without_the_workers_packages_sent_tasks_are_listed_and_running_them_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    observe.logger.cache_clear()
    monkeypatch.setitem(sys.modules, "aws_lambda_powertools", None)
    with memory_backend() as tasks:
        ping.delay(text="hi")
        assert tasks.calls == [("ping", {"text": "hi"})]
        with pytest.raises(ConfigurationError, match=r'pip install "./shared\[worker\]"'):
            tasks.run()


@pytest.mark.parametrize("name", ["nexus.eagr", "nexus.errors"])
def test_an_invalid_backend_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_BACKEND", name)
    backends.reset()
    with pytest.raises(ConfigurationError, match=f"NEXUS_BACKEND is '{name}'"):
        ping.delay()
    backends.reset()


def test_the_client_needs_only_boto3_and_pydantic() -> None:
    program = (
        "import sys; import nexus.client, nexus.tasks, nexus.registry;"
        "print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'aws_lambda_powertools', 'PIL', 'av', 'jinja2', 'typer', 'rich'}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(client.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_chain_that_a_functions_role_could_not_continue_is_refused_when_it_is_sent(tasks: SentTasks) -> None:
    """The function that ends a link sends the next one."""
    welcome = catalogue.send_note.s(**NOTE)
    elsewhere = replace(welcome, task=replace(welcome.task, name="elsewhere", queue="emails"))
    with pytest.raises(InvalidMessage, match=r"may not send to emails\. Add that to the task's sends_to"):
        chain(welcome, elsewhere).delay()
    with pytest.raises(InvalidMessage, match="elsewhere cannot follow it"):
        chord([welcome], elsewhere).delay()
    allowed = replace(welcome, task=replace(welcome.task, sends_to=("emails",)))
    chain(allowed, elsewhere).delay()
