"""The rights of every queue's role and of the application, each used: what the runtime asks for, whatever the task.

Every other unit test puts its requests to the roles as well (tests/support/rights.py), and `make rights` lists what is
left.
"""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import boto3
import pytest

from nexus import backend, periodic
from nexus.aws import sdk
from nexus.backend import Backend
from nexus.backend.memory import MemoryTransport
from nexus.backend.store import DynamoStore
from nexus.builtin import ping
from nexus.client import AsyncResult, chain, group, read_records, send_many
from nexus.eager import Context, run_all
from nexus.envelope import Envelope
from nexus.errors import Reject, Retry, SendFailed, StillRunning
from nexus.ids import new_id
from nexus.registry import Implementation, registry
from nexus.runs import tallies
from nexus.settings import settings
from nexus.tasks import Arguments, Result, Task
from nexus.worker import FannedOut, Run
from nexus.worker.entry import serve
from social import catalogue
from social.uploads import presigned_post
from tests.support import iam, rights
from tests.support.iam import Request
from tests.support.rights import Rights, requests
from tests.support.template import ACCOUNT, PATH, REGION, STACK


class Probe(Arguments):
    """What the probe does: succeeds, fans out, has a large result, is to be tried again, or fails."""

    does: str


class Answer(Result):
    """What it found."""

    text: str


def probe_of(queue: str) -> Task[Probe, Answer]:
    return Task(name="probe", queue=queue, arguments=Probe, result=Answer, summary="For the tests.", time_limit=5)


def work(args: Probe, run: Run) -> Answer | FannedOut:
    if args.does == "again":
        raise Retry("later")
    if args.does == "fan out":
        return run.fan_out([Probe(does="succeed"), Probe(does="succeed")])
    if args.does == "fail":
        raise Reject("never")
    return Answer(text="x" * (300_000 if args.does == "large" else 1))


def record(url: str, body: str) -> dict[str, Any]:
    """What Lambda makes of a message, which it has received."""
    sqs = boto3.client("sqs")
    sqs.send_message(QueueUrl=url, MessageBody=body)
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": {"ApproximateReceiveCount": "1"},
        "eventSource": "aws:sqs",
    }


@pytest.mark.parametrize("queue", catalogue.QUEUES)
def test_a_queues_function_may_do_all_that_a_worker_does(
    cloud: None, monkeypatch: pytest.MonkeyPatch, queue: str
) -> None:
    """One succeeds, one fans out, one has a large result, one is tried again, one fails, and one message is none."""
    task = probe_of(queue)
    monkeypatch.setenv("NEXUS_QUEUE", queue)
    settings.cache_clear()
    monkeypatch.setitem(registry._declared, task.name, (task, __name__))
    monkeypatch.setitem(registry._implementations, task.name, Implementation(task, work, reduce=list))
    url = boto3.client("sqs").get_queue_url(QueueName=settings().queue_name(queue))["QueueUrl"]
    bodies = [
        Envelope.of(id=new_id(), task=task.name, args={"does": what}).encode()
        for what in ("succeed", "fan out", "large", "again", "fail")
    ]
    event = {"Records": [record(url, body) for body in (*bodies, "no envelope")]}

    answer = serve(queue, {task.name: task}, event, Context())

    assert len(answer["batchItemFailures"]) == 1, "the one that is to be tried again"
    dead = boto3.client("sqs").get_queue_url(QueueName=settings().dead_letter_queue_name(queue))["QueueUrl"]
    letters = boto3.client("sqs").receive_message(QueueUrl=dead, MaxNumberOfMessages=10)["Messages"]
    assert len(letters) == 2, "the one that fails, and the invalid message"

    run = serve(queue, {task.name: task}, {"task": task.name, "args": {"does": "large"}}, Context())
    assert len(run["result"]["text"]) == 300_000


@pytest.mark.parametrize("queue", catalogue.QUEUES)
def test_an_application_may_send_to_every_queue_and_later_and_read_what_came_of_it(cloud: None, queue: str) -> None:
    boto3.client("scheduler").create_schedule_group(Name=STACK)
    handle = ping.apply_async({"text": "now"}, queue=queue)
    assert handle.status == "PENDING"

    late = ping.apply_async({"text": "tomorrow"}, queue=queue, countdown=86_400)
    assert late.revoke() == "REVOKED"


def test_an_application_may_send_many_at_once_read_them_and_revoke_a_group(cloud: None) -> None:
    both = send_many([ping.s(text="one"), ping.s(text="two")])
    assert [record.status for record in read_records(both)] == ["PENDING", "PENDING"]
    assert group([ping.s(text="one"), ping.s(text="two")]).apply_async().revoke() == "REVOKED"


VERBS = {
    name: getattr(AsyncResult, name)
    for name in vars(AsyncResult)
    if not name.startswith("_") and not inspect.iscoroutinefunction(getattr(AsyncResult, name))
}
"""What a handle does, properties included. Each form for a coroutine calls one of these in a thread."""

CHANGING = {"forget", "revoke"}
GIVEN: dict[str, dict[str, Any]] = {name: {"timeout": 0, "propagate": False} for name in ("get", "join")}

CANVASES: dict[str, Callable[[], AsyncResult[Any]]] = {
    "a task": ping.delay,
    "an untracked task": lambda: ping.apply_async({}, track=False),
    "a group": lambda: group([ping.s(text="one"), ping.s(text="two")]).delay(),
    "a group of chains": lambda: group([chain(ping.s(), ping.s()), ping.s()]).delay(),
    "a chord in a chain": lambda: chain(ping.s(), group([ping.s(), ping.s()]), ping.s()).delay(),
}


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "not ended"])
@pytest.mark.parametrize("send", CANVASES.values(), ids=CANVASES)
def test_an_application_may_do_all_that_a_handle_does(
    cloud: None, monkeypatch: pytest.MonkeyPatch, send: Callable[[], AsyncResult[Any]], ended: bool
) -> None:
    monkeypatch.setattr(tallies, "CHUNK", 1)  # so that a group of two has several tallies, like one of a thousand
    transport = MemoryTransport()
    with backend.use(Backend(DynamoStore(), transport)):
        handle = send()
        if ended:
            run_all(transport)
        for one in (handle, *handle.children[:2]):
            for name in (*(VERBS.keys() - CHANGING), "forget", "revoke", "forget"):
                with suppress(StillRunning):
                    verb = VERBS[name]
                    _ = getattr(one, name) if isinstance(verb, property) else verb(one, **GIVEN.get(name, {}))
        assert handle.status == ("SUCCESS" if ended else "REVOKED")


def test_an_application_may_fail_runs_that_could_not_be_sent(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**request: Any) -> Any:
        entries = request["Entries"]
        return {"Failed": [{"Id": entry["Id"], "Code": "no", "SenderFault": True} for entry in entries]}

    monkeypatch.setattr(sdk.client("sqs"), "send_message_batch", refuse)
    with pytest.raises(SendFailed) as refused:
        send_many([ping.s(), ping.s()])
    assert [AsyncResult(run_id).status for run_id in refused.value.failures] == ["FAILURE"] * 2


def test_an_application_may_keep_periodic_tasks(cloud: None) -> None:
    boto3.client("scheduler").create_schedule_group(Name=STACK)
    periodic.create("weekly", ping.s(text="now"), "rate(7 days)")
    assert periodic.update("weekly", paused=True).paused
    assert [task.name for task in periodic.every()] == ["weekly"]
    assert periodic.delete("weekly")


ON = "arn:aws:dynamodb:eu-west-1:123456789012:table/nexus-test-posts"


@pytest.mark.parametrize(
    ("service", "operation", "asked", "error", "wanted"),
    [
        ("sqs", "SendMessageBatch", {"QueueUrl": "https://sqs/1/q"}, "", ["sqs:SendMessage"]),
        ("dynamodb", "BatchWriteItem", {"RequestItems": {"t": []}}, "", ["dynamodb:BatchWriteItem"]),
        (
            "dynamodb",
            "BatchExecuteStatement",
            {"Statements": [{"Statement": 'INSERT INTO "t" VALUE {}'}, {"Statement": 'DELETE FROM "t" WHERE "k" = ?'}]},
            "",
            ["dynamodb:PartiQLInsert", "dynamodb:PartiQLDelete"],
        ),
        (
            "dynamodb",
            "TransactWriteItems",
            {"TransactItems": [{"Put": {"TableName": "t"}}, {"ConditionCheck": {"TableName": "t"}}]},
            "",
            ["dynamodb:PutItem", "dynamodb:ConditionCheckItem"],
        ),
        ("s3", "HeadObject", {"Bucket": "b", "Key": "k"}, "404", ["s3:GetObject"]),
        ("s3", "GetObject", {"Bucket": "b", "Key": "k", "VersionId": "v"}, "", ["s3:GetObjectVersion"]),
        (
            "s3",
            "CopyObject",
            {"Bucket": "b", "Key": "k", "CopySource": {"Bucket": "a", "Key": "k"}},
            "",
            ["s3:GetObject", "s3:PutObject"],
        ),
    ],
)
def test_a_request_takes_the_rights_that_aws_asks_for(
    service: str, operation: str, asked: dict[str, Any], error: str, wanted: Sequence[str]
) -> None:
    assert [request.action for request in requests(service, operation, asked, error)] == wanted


def test_a_denied_request_is_known_and_so_is_the_right_that_allows_one() -> None:
    asked = Rights()
    asked.note("media", Request("dynamodb:GetItem", ON))
    asked.note("media", Request("dynamodb:Scan", ON))

    assert asked.denied == [f"media may not dynamodb:Scan on {ON}"]
    assert {right[2:] for right in asked.used} == {("dynamodb:GetItem", ON)}


def test_the_digest_may_be_sent_from_its_given_or_default_sender() -> None:
    for parameters, digest in (
        ({}, "digest@nexus.example"),
        ({"DigestSenderAddress": "news@nexus.example"}, "news@nexus.example"),
    ):
        template = iam.Templates(PATH.read_text(), {"SenderAddress": iam.SENDER, **parameters})
        for sender, may in ((iam.SENDER, True), (digest, True), ("somebody@nexus.example", False)):
            identity = f"arn:aws:ses:{REGION}:{ACCOUNT}:identity/nexus.example"
            request = Request("ses:SendEmail", identity, {"ses:FromAddress": sender})
            assert iam.allowed(template.of_role("EmailsRole"), request) is may, sender


def test_a_request_is_attributed_to_the_code_that_makes_it(cloud: None) -> None:
    """A test's own requests belong to no role; those of code that an application imports are the application's."""
    asked = Rights()
    with rights.watched(asked) as note:
        note("s3", "GetObject", {"Bucket": "nowhere", "Key": "k"})
        assert (asked.used, asked.denied) == (set(), [])
        presigned_post("u-1", "p-1", "a.jpg", content_type="image/jpeg")
    assert {right[:3] for right in asked.used} == {("application", "LetBrowsersUpload", "s3:PutObject")}


def test_the_django_examples_function_and_its_web_server_may_send_a_task_for_tomorrow() -> None:
    template = iam.Templates((PATH.parent / "examples" / "django" / "template.yaml").read_text(), {"AWS::StackId": "*"})
    role = template.body["Resources"]["DefaultRole"]["Properties"]
    function = template.statements(policy["PolicyDocument"] for policy in role["Policies"])
    target = {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/{STACK}-scheduler"}
    asked = {"GroupName": STACK, "Name": "a-runs-id", "Target": target}
    for holder in (function, template.of_policy("WebServerPolicy")):
        for operation in ("CreateSchedule", "DeleteSchedule"):
            for request in requests("scheduler", operation, asked):
                assert iam.allowed(holder, request), request
