"""SQS as the transport uses it, in moto, which counts a message's twelve hours as AWS does."""

import boto3
import pytest
from botocore.exceptions import ClientError

from nexus.backend.transport import MAX_VISIBILITY, SqsTransport
from nexus.settings import settings

DAY = 86_400


@pytest.fixture
def url(cloud: None) -> str:
    return boto3.client("sqs").get_queue_url(QueueName=settings().queue_name("default"))["QueueUrl"]


def received(url: str) -> str:
    """The receipt of a message that was just sent and received."""
    sqs = boto3.client("sqs")
    sqs.send_message(QueueUrl=url, MessageBody="x")
    (message,) = sqs.receive_message(QueueUrl=url, VisibilityTimeout=1)["Messages"]
    return message["ReceiptHandle"]


def test_a_wait_longer_than_sqs_allows_is_the_longest_that_it_does(url: str) -> None:
    """SQS refuses a timeout that ends more than twelve hours after the receive; the message would return at once."""
    receipt = received(url)
    asked: list[int] = []
    transport = SqsTransport()
    transport._sqs.meta.events.register(
        "before-parameter-build.sqs.ChangeMessageVisibilityBatch",
        lambda params, **_: asked.extend(entry["VisibilityTimeout"] for entry in params["Entries"]),
    )

    transport.set_visibility("default", {receipt: DAY})

    assert asked == [MAX_VISIBILITY]
    counts = boto3.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessagesNotVisible"] == "1"


def test_sqs_refuses_twelve_hours_after_any_elapsed_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the margin of MAX_VISIBILITY is for: the time that the invocation has taken counts."""
    receipt = received(url)
    monkeypatch.setattr("moto.sqs.models.unix_time_millis", _later)
    boto3.client("sqs").change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=MAX_VISIBILITY)
    with pytest.raises(ClientError, match="beyond the limit"):
        boto3.client("sqs").change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=43_200)


def _later() -> float:
    """A quarter of an hour from now, the longest invocation."""
    from moto.core.utils import unix_time_millis

    return unix_time_millis() + 900_000
