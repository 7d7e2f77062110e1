"""The runtime on real SQS and DynamoDB semantics: batched claims, dead letters, revocation, schedules, fan-out."""

import json
import uuid
from typing import Any

import boto3
import pytest

from nexus.aws.dynamodb import Condition, equals
from nexus.backend import transport
from nexus.backend.store import Applied, DynamoStore, Refused, Write
from nexus.builtin import ping
from nexus.client import AsyncResult, Signature, chain, group, read_records, send_many
from nexus.errors import TaskFailed
from nexus.ids import derived_id, new_id
from nexus.settings import settings
from social.catalogue import QUEUES
from tests.support.patience import PATIENCE, eventually
from tests.support.stack import dead_letters, take


def test_each_conditional_write_of_one_request_has_its_own_outcome() -> None:
    store, absent, existing = DynamoStore(), new_id(), new_id()
    store.apply(Write(existing, set={"status": "SUCCESS", "attempts": 2}, insert=True))

    updated, refused, missing, inserted, duplicate = store.apply_all(
        [
            Write(
                existing,
                set={"seen": 1.5},
                remove=("attempts",),
                when=(equals("status", "SUCCESS"), equals("no", None)),
            ),
            Write(existing + "x", set={"seen": 1}, when=(equals("status", "PENDING"),)),
            Write(absent, set={"seen": 1}, when=(equals("status", "PENDING"),)),
            Write(absent + "y", set={"status": "STARTED"}, insert=True),
            Write(absent + "z", set={"status": "STARTED"}, insert=True),
        ]
    )
    assert updated == Applied({"id": existing, "status": "SUCCESS", "seen": 1.5})
    assert refused == missing == Refused(None)
    assert isinstance(inserted, Applied)
    assert isinstance(duplicate, Applied)

    again = [
        Write(absent + "y", set={"status": "PENDING"}, insert=True),
        Write(existing, set={"a": 1}, when=(equals("status", "X"),)),
    ]
    taken, other = store.apply_all(again)
    assert isinstance(taken, Refused)
    assert isinstance(other, Refused)
    assert other.item is not None
    assert other.item["status"] == "SUCCESS"


def test_number_sets_count_a_member_once() -> None:
    store, key = DynamoStore(), new_id()
    store.apply(Write(key, set={"size": 2}, insert=True))
    lacks = (Condition("size", "exists"), Condition("done", "lacks", 7))

    first = store.apply(Write(key, add={"done": frozenset({7})}, when=lacks))
    second = store.apply(Write(key, add={"done": frozenset({7})}, when=lacks))

    assert isinstance(first, Applied)
    assert isinstance(second, Refused)
    assert first.item["done"] == frozenset({7})


def test_every_queues_function_answers_ping_through_its_queue() -> None:

    handles = {queue: ping.apply_async({"text": "hi"}, queue=queue) for queue in QUEUES}
    for queue, handle in handles.items():
        pong = handle.get(timeout=PATIENCE)
        assert pong is not None
        assert (pong.text, pong.queue) == ("hi", queue)


def test_a_batch_is_run_and_each_message_settled() -> None:
    handles = send_many([ping.s(text=str(n)) for n in range(30)])

    eventually(lambda: all(record.status == "SUCCESS" for record in read_records(handles)))
    assert {handle.record().attempts for handle in handles} == {1}


def test_an_invalid_envelope_becomes_a_dead_letter_with_its_reason(outputs: dict[str, str]) -> None:
    mark = uuid.uuid4().hex
    body = f"not json {mark}"
    boto3.client("sqs").send_message(QueueUrl=outputs["DefaultQueueUrl"], MessageBody=body, MessageGroupId="g")

    (letter,) = eventually(lambda: take(outputs["DefaultDeadLetterQueueUrl"], lambda letter: mark in letter["Body"]))
    assert letter["MessageAttributes"]["ErrorType"]["StringValue"] == "InvalidMessage"


def test_bad_arguments_are_a_dead_letter_that_names_the_field(outputs: dict[str, str]) -> None:
    run_id = new_id()
    body = json.dumps({"v": 1, "id": run_id, "task": "ping", "args": {"text": 7}, "sent_at": "2026-01-01T00:00:00Z"})
    boto3.client("sqs").send_message(QueueUrl=outputs["DefaultQueueUrl"], MessageBody=body, MessageGroupId="g")

    handle: AsyncResult[Any] = AsyncResult(run_id)
    eventually(lambda: handle.status == "FAILURE")
    (letter,) = eventually(lambda: dead_letters(outputs["DefaultDeadLetterQueueUrl"], run_id))
    assert "text: " in letter["MessageAttributes"]["ErrorMessage"]["StringValue"]


def test_a_delayed_task_can_be_revoked_and_never_runs() -> None:
    seconds = 3
    handle = ping.apply_async({"text": "late"}, countdown=seconds)
    while handle.revoke() != "REVOKED":  # it was due already, on a slow machine
        seconds *= 4
        handle = ping.apply_async({"text": "late"}, countdown=seconds)
    other = ping.apply_async({"text": "later"}, countdown=seconds + 1)
    other.get(timeout=PATIENCE)
    assert handle.status == "REVOKED"
    assert handle.attempts == 0


def test_a_rules_envelope_runs_without_a_record_and_twice_is_one_run(outputs: dict[str, str]) -> None:
    event_id = str(uuid.uuid4())
    body = json.dumps({"v": 1, "id": event_id, "task": "ping", "args": {}, "sent_at": "2026-01-01T00:00:00Z"})
    for _ in range(2):
        boto3.client("sqs").send_message(QueueUrl=outputs["DefaultQueueUrl"], MessageBody=body, MessageGroupId="ping")

    handle: AsyncResult[Any] = AsyncResult(event_id)
    assert handle.get(timeout=PATIENCE) is not None
    assert handle.attempts == 1


def test_a_group_and_a_chain_over_real_queues() -> None:
    together = group([ping.s(text=str(n)) for n in range(12)]).delay()
    last = chain(ping.s(text="first"), ping.s(text="second")).delay()

    assert [pong["text"] for pong in together.get(timeout=PATIENCE) or []] == [str(n) for n in range(12)]
    pong = last.get(timeout=PATIENCE)
    assert pong is not None
    assert pong.text == "second"


def test_canvases_within_each_other_over_real_queues() -> None:
    def say(text: str) -> Any:
        return ping.s(text=text)

    nested = group(say("a"), say("b") | say("c")) | say("d") | group(say("e"), group(say("f")) | say("g"))
    handle = nested.apply_async(countdown=1, expires=300, group="tenant-7")

    assert handle.status == "PENDING"
    assert [pong["text"] for pong in handle.get(timeout=PATIENCE) or []] == ["e", "g"]
    assert [member.status for member in handle.results] == ["SUCCESS", "SUCCESS"]


def test_an_error_callback_comes_through_the_failing_tasks_own_function(outputs: dict[str, str]) -> None:
    task_id = new_id()
    bad = Signature(ping, {"text": "x" * 201})  # refused where it runs

    handle = chain(ping.s(), bad, ping.s()).on_error(ping.s(text="oops")).apply_async(task_id=task_id)

    with pytest.raises(TaskFailed, match=r"UpstreamFailed: ping .* is FAILURE: InvalidMessage"):
        handle.get(PATIENCE)
    callback: AsyncResult[Any] = AsyncResult(derived_id(task_id, "error"))
    assert callback.get(PATIENCE).text == "oops"
    failed = handle.record().parent
    assert failed is not None
    assert eventually(lambda: dead_letters(outputs["DefaultDeadLetterQueueUrl"], failed))


def test_a_direct_invocation_answers_with_the_settled_run(outputs: dict[str, str]) -> None:
    payload = json.dumps({"task": "ping", "args": {"text": "straight"}})
    answer = boto3.client("lambda").invoke(FunctionName=outputs["UsersFunctionName"], Payload=payload)
    run = json.load(answer["Payload"])
    assert run["status"] == "SUCCESS"
    assert run["result"]["text"] == "straight"


def test_an_eta_beyond_fifteen_minutes_is_a_one_off_schedule() -> None:
    handle = ping.apply_async({"text": "tomorrow"}, countdown=86_400)

    schedule = boto3.client("scheduler").get_schedule(Name=handle.id, GroupName=settings().stack)
    assert schedule["ActionAfterCompletion"] == "DELETE"
    assert json.loads(schedule["Target"]["Input"])["id"] == handle.id
    assert handle.revoke() == "REVOKED"


def test_queue_urls_are_found_by_name() -> None:
    assert transport.queue_url(settings().queue_name("media")).endswith(f"/{settings().stack}-media")
