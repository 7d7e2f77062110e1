"""Message moves, schedules that fire, and SES's events through their rule: on localemu, since ministack lacks them.

`make second` installs it apart and runs these. What SES itself sends when a mail bounces, no emulator does.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from nexus.backend.transport import Message, SqsTransport
from nexus.envelope import Envelope, decode
from nexus.ids import new_id
from nexus.settings import settings
from ops import dead_letters
from tests.support import moto_cloud
from tests.support.patience import eventually
from tests.support.template import STACK, resolved, resources

QUEUE = "emails"
LETTERS = 12


@pytest.fixture
def queues(emulator: str) -> Iterator[dict[str, str]]:
    """The queue and its dead letters as template.yaml has them, and the stack's group of schedules."""
    with moto_cloud.environment() as patch:
        patch.setenv("AWS_ENDPOINT_URL", emulator)
        patch.setenv("NEXUS_ACCOUNT_ID", boto3.client("sts").get_caller_identity()["Account"])
        settings.cache_clear()
        sqs, scheduler = boto3.client("sqs"), boto3.client("scheduler")
        names = {"queue": settings().queue_name(QUEUE), "dead": settings().dead_letter_queue_name(QUEUE)}
        urls = {kind: sqs.create_queue(QueueName=name)["QueueUrl"] for kind, name in names.items()}
        described = sqs.get_queue_attributes(QueueUrl=urls["dead"], AttributeNames=["QueueArn"])
        redrive = {"deadLetterTargetArn": described["Attributes"]["QueueArn"], "maxReceiveCount": 20}
        sqs.set_queue_attributes(QueueUrl=urls["queue"], Attributes={"RedrivePolicy": json.dumps(redrive)})
        scheduler.create_schedule_group(Name=STACK)
        yield urls
        scheduler.delete_schedule_group(Name=STACK)
        for url in urls.values():
            sqs.delete_queue(QueueUrl=url)


def envelope() -> Envelope:
    return Envelope.of(id=new_id(), task="ping", args={})


def received(url: str) -> list[str]:
    answer = boto3.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
    return [message["Body"] for message in answer.get("Messages", [])]


def test_sqs_moves_every_dead_letter_back_and_says_how_many(queues: dict[str, str]) -> None:
    sent = {envelope().encode() for _ in range(LETTERS)}
    for body in sent:
        boto3.client("sqs").send_message(QueueUrl=queues["dead"], MessageBody=body)

    assert dead_letters.move_all(QUEUE) == LETTERS

    back: set[str] = set()

    def all_back() -> bool:
        back.update(received(queues["queue"]))
        return back == sent

    eventually(all_back)
    assert received(queues["dead"]) == []


def test_a_schedule_sends_the_envelope_to_the_queue_and_is_gone(queues: dict[str, str]) -> None:
    late = envelope()
    SqsTransport().send_at(QUEUE, Message.of(late), datetime.now(UTC) + timedelta(seconds=3))

    (body,) = eventually(lambda: received(queues["queue"]))

    assert decode(body) == late
    scheduler = boto3.client("scheduler")
    eventually(lambda: not scheduler.list_schedules(GroupName=STACK)["Schedules"])


def test_a_schedule_that_was_revoked_sends_nothing(queues: dict[str, str]) -> None:
    revoked, other = envelope(), envelope()
    soon = datetime.now(UTC) + timedelta(seconds=4)
    for one in (revoked, other):
        SqsTransport().send_at(QUEUE, Message.of(one), soon)
    SqsTransport().cancel(revoked.id)

    (body,) = eventually(lambda: received(queues["queue"]))

    assert decode(body) == other


def test_an_event_of_ses_becomes_a_run_of_record_mail_feedback_and_another_stacks_does_not(
    queues: dict[str, str],
) -> None:
    """The template's rule, pattern and transformer; what SES would have sent is put on the bus."""
    rule: dict[str, Any] = resolved(resources("AWS::Events::Rule")["MailFeedbackRule"]["Properties"])
    events, sqs = boto3.client("events"), boto3.client("sqs")
    events.put_rule(Name=rule["Name"], EventPattern=json.dumps(rule["EventPattern"]))
    arn = sqs.get_queue_attributes(QueueUrl=queues["queue"], AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    (target,) = rule["Targets"]
    transformer = target["InputTransformer"]
    taken = events.put_targets(
        Rule=rule["Name"], Targets=[{"Id": "queue", "Arn": arn, "InputTransformer": transformer}]
    )
    assert taken["FailedEntryCount"] == 0

    for stack in ("another", STACK):
        mail = {"messageId": stack, "tags": {"ses:configuration-set": [f"{stack}-mail"]}}
        detail = {"eventType": "Bounce", "mail": mail, "bounce": {"bounceType": "Permanent"}}
        entry: Any = {"Source": "aws.ses", "DetailType": "Email Bounced", "Detail": json.dumps(detail)}
        assert events.put_events(Entries=[entry])["FailedEntryCount"] == 0

    (body,) = eventually(lambda: received(queues["queue"]))
    run = decode(body)
    assert run.task == "record_mail_feedback"
    assert run.args["notification"]["mail"]["messageId"] == STACK
    events.remove_targets(Rule=rule["Name"], Ids=["queue"])
    events.delete_rule(Name=rule["Name"])
