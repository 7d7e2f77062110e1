"""What template.yaml wires together, seen from the outside: mappings, rules, destinations and roles."""

import json
import uuid
from collections.abc import Callable, Iterator
from time import time
from typing import Any

import boto3
import pytest

from nexus.client import AsyncResult
from nexus.settings import Settings
from ops.checkout import ACCOUNT_ID, STACK
from tests.support.patience import eventually
from tests.support.stack import take

NAMES = Settings(stack=STACK, account_id=ACCOUNT_ID)


def run_record(run_id: str) -> dict[str, Any] | None:
    key = {"id": {"S": run_id}}
    return boto3.client("dynamodb").get_item(TableName=NAMES.table("task-runs"), Key=key).get("Item")


def status_of(run_id: str) -> str | None:
    record = run_record(run_id)
    return record["status"]["S"] if record else None


def send(queue: str, *messages: dict[str, Any]) -> None:
    sqs = boto3.client("sqs")
    sqs.send_message_batch(
        QueueUrl=queue_url(NAMES.queue_name(queue)),
        Entries=[{"Id": str(number), "MessageBody": json.dumps(message)} for number, message in enumerate(messages)],
    )


def queue_url(name: str) -> str:
    return boto3.client("sqs").get_queue_url(QueueName=name)["QueueUrl"]


def envelope(task: str, **args: Any) -> dict[str, Any]:
    return {"v": 1, "id": str(uuid.uuid4()), "task": task, "args": args, "sent_at": "2026-11-22T12:00:00Z"}


@pytest.mark.parametrize("queue", ["media", "emails", "users", "analytics", "maintenance", "default"])
def test_a_batch_in_any_queue_is_run_by_its_function_with_its_role(queue: str) -> None:
    messages = [envelope("ping", text=queue) for _ in range(3)]
    send(queue, *messages)

    eventually(lambda: all(status_of(message["id"]) == "SUCCESS" for message in messages))

    result = json.loads((run_record(messages[0]["id"]) or {})["result"]["S"])
    assert result == {"text": queue, "queue": queue, "function": NAMES.function_name(queue)}


def test_a_message_that_cannot_be_run_is_a_dead_letter_and_its_neighbour_runs() -> None:
    good, bad = envelope("ping"), envelope("no_such_task")
    send("users", good, bad)

    eventually(lambda: (status_of(good["id"]), status_of(bad["id"])) == ("SUCCESS", "FAILURE"))

    dead = queue_url(NAMES.dead_letter_queue_name("users"))
    (letter,) = eventually(lambda: take(dead, lambda letter: bad["id"] in letter["Body"]))
    assert any("no_such_task" in value.get("StringValue", "") for value in letter["MessageAttributes"].values())


@pytest.fixture
def rule_on_demand() -> Iterator[Callable[[str], str]]:
    """Lets a rule of the deployment fire at once, on an event instead of the clock; its target stays as deployed."""
    events = boto3.client("events")
    changed: dict[str, str] = {}

    def fire(task: str) -> str:
        name = f"{STACK}-{task}"
        changed[name] = events.describe_rule(Name=name)["ScheduleExpression"]
        events.put_rule(Name=name, EventPattern=json.dumps({"source": ["nexus.test"], "detail-type": [task]}))
        answer = events.put_events(Entries=[{"Source": "nexus.test", "DetailType": task, "Detail": "{}"}])
        return answer["Entries"][0]["EventId"]

    yield fire
    for name, schedule in changed.items():
        events.put_rule(Name=name, ScheduleExpression=schedule)


def test_a_rule_sends_the_envelope_and_the_run_has_the_events_id(rule_on_demand: Callable[[str], str]) -> None:
    before = time()
    event_id = rule_on_demand("update_trending_hashtags")
    after = time()

    record = eventually(lambda: run_record(event_id))

    assert record["task"]["S"] == "update_trending_hashtags"
    assert before - 1 <= float(record["sent_at"]["N"]) <= after, "in whole seconds"


def test_an_upload_that_fails_at_first_is_retried_through_the_media_queue() -> None:
    """Given no such post, the S3 event's invocation fails; its on-failure destination, the queue, tries again."""
    post_id = f"late-{uuid.uuid4()}"
    key = f"uploads/somebody/{post_id}/note.txt"
    boto3.client("s3").put_object(Bucket=NAMES.bucket("uploads"), Key=key, Body=b"no picture")

    def tried_again() -> Any:
        pages = boto3.client("dynamodb").get_paginator("scan").paginate(TableName=NAMES.table("task-runs"))
        items = (item for page in pages for item in page["Items"])
        return [
            item for item in items if post_id in item.get("args", {}).get("S", "") and int(item["attempts"]["N"]) >= 2
        ]

    (record,) = eventually(tried_again)
    assert record["queue"]["S"] == "media"
    assert record["status"]["S"] != "FAILURE"
    AsyncResult[Any](record["id"]["S"]).revoke()


def test_a_function_may_do_only_what_its_role_allows() -> None:
    """Given the role of the default queue's function without the runtime's policy, its run record cannot be written."""
    iam, functions = boto3.client("iam"), boto3.client("lambda")
    role = functions.get_function_configuration(FunctionName=NAMES.function_name("default"))["Role"].rsplit("/", 1)[-1]
    attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    runtime = next(policy["PolicyArn"] for policy in attached if "RuntimePolicy" in policy["PolicyName"])

    def ping() -> str:
        answer = functions.invoke(FunctionName=NAMES.function_name("default"), Payload=json.dumps({"task": "ping"}))
        return answer["Payload"].read().decode()

    assert '"SUCCESS"' in ping()
    iam.detach_role_policy(RoleName=role, PolicyArn=runtime)
    try:
        assert "AccessDenied" in ping()
    finally:
        iam.attach_role_policy(RoleName=role, PolicyArn=runtime)
    assert '"SUCCESS"' in ping()
