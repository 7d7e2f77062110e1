"""How messages travel: by SQS at once, by EventBridge Scheduler later, and to the dead-letter queue when given up."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import batched, chain
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from nexus.aws import usage
from nexus.aws.sdk import accepted, client, is_misconfigured, is_missing, threads
from nexus.aws.table import in_threads
from nexus.envelope import Envelope, TooLarge
from nexus.settings import settings

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

MAX_DELAY = 900
MAX_SCHEDULED = 256_000
"""Bytes of a message that is due later than SQS can hold it: Scheduler's limit is 256 KB."""

MAX_VISIBILITY = 42_000
"""Seconds. SQS's limit is twelve hours from the receive; the rest is left for the invocation that received the message.
"""

MAX_RECEIVES = 20
RETENTION = 345_600
"""How often a queue lets a message be received before it gives it up, and for how many seconds it keeps one: what
template.yaml sets, as a test checks.
"""

MESSAGES_PER_REQUEST = 10
BYTES_PER_REQUEST = 1024 * 1024
SEND_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Message:
    """An envelope to send.

    `group` is SQS's MessageGroupId, by which fair queues share a queue between tasks or tenants; `trace` is an X-Ray
    trace header, which SQS passes to the function; `delay` is in seconds, at most MAX_DELAY.
    """

    id: str
    body: str
    group: str
    delay: int = 0
    trace: str | None = None

    @classmethod
    def of(cls, envelope: Envelope, delay: int = 0) -> Self:
        """The envelope's message. Raises InvalidMessage if it is too large."""
        return cls(envelope.id, envelope.encode(), envelope.group or envelope.task, delay, envelope.trace)

    def check_scheduled(self, task: str) -> None:
        """Raises TooLarge if Scheduler does not accept it."""
        size = len(verbatim(self.body).encode())
        if size > MAX_SCHEDULED:
            raise TooLarge(task, size, MAX_SCHEDULED, f"a message that is due in more than {MAX_DELAY} s")

    def entry(self) -> dict[str, Any]:
        """The entry for SendMessage and SendMessageBatch."""
        entry: dict[str, Any] = {"MessageBody": self.body, "MessageGroupId": self.group, "DelaySeconds": self.delay}
        if self.trace:
            entry["MessageSystemAttributes"] = {"AWSTraceHeader": {"DataType": "String", "StringValue": self.trace}}
        return entry


def schedule_name(run_id: str, due: float, *, delivered: bool) -> str:
    """The name of the schedule that sends a run's message at `due`, and that message's id.

    Scheduler deletes a schedule some time after it has fired, and until then creates none of the same name. So only the
    first is named after the run; once the run has been `delivered`, each has a name of its own.
    """
    return f"{run_id}_{int(due)}" if delivered else run_id


class DeadLetter(NamedTuple):
    """A message that is given up, with its reason as message attributes."""

    body: str
    attributes: Mapping[str, str]
    group: str


class Transport(Protocol):
    """The operations of the message system that the client and the worker need."""

    def send(self, queue: str, messages: Sequence[Message]) -> Mapping[str, Exception | str]:
        """Sends the messages; returns the reason for each message id that was not accepted: an error, or its text."""

    def send_at(self, queue: str, message: Message, when: datetime) -> None: ...

    def cancel(self, message_id: str) -> None:
        """Cancels a message that was to be sent later, if it has not been sent yet."""

    def dead_letter(self, queue: str, letter: DeadLetter) -> None: ...

    def set_visibility(self, queue: str, seconds: Mapping[str, float]) -> None:
        """Sets when received messages become visible again: seconds by receipt."""


@lru_cache(maxsize=32)
def queue_url(name: str) -> str:
    """The URL of a queue by its name, kept for the life of the process."""
    return client("sqs").get_queue_url(QueueName=name)["QueueUrl"]


class SqsTransport:
    """AWS errors (denial, throttling after the SDK's retries) are botocore's; `send` returns most of them instead."""

    @property
    def _sqs(self) -> "SQSClient":
        return client("sqs")

    def send(self, queue: str, messages: Sequence[Message]) -> Mapping[str, Exception | str]:
        """See Transport. Raises ClientError if the queue does not exist, BotoCoreError without credentials."""
        from botocore.exceptions import BotoCoreError, ClientError

        name = settings().queue_name(queue)
        failed: list[Exception] = []

        def send(page: Sequence[Message]) -> Mapping[str, Exception | str]:
            if not failed:  # otherwise the SDK has already retried: the remaining pages would only take as long to fail
                try:
                    refused = self._send_page(queue_url(name), page)
                except (BotoCoreError, ClientError) as error:
                    if is_missing(error) or is_misconfigured(error):
                        raise
                    failed.append(error)
                else:
                    accepted(message.id for message in page if message.id not in refused)
                    return refused
            return {message.id: failed[0] for message in page}

        return dict(chain.from_iterable(refused.items() for refused in in_threads(send, _pages(messages), threads())))

    def _send_page(self, url: str, page: Sequence[Message]) -> Mapping[str, str]:
        if len(page) == 1:
            usage.add("messages")
            self._sqs.send_message(QueueUrl=url, **page[0].entry())
            return {}
        waiting = {str(index): message for index, message in enumerate(page)}
        reasons: dict[str, str] = {}
        for _ in range(SEND_ATTEMPTS):
            entries: list[Any] = [{"Id": key, **message.entry()} for key, message in waiting.items()]
            usage.add("messages")
            failed = self._sqs.send_message_batch(QueueUrl=url, Entries=entries).get("Failed", [])
            reasons = {f["Id"]: f.get("Message") or f["Code"] for f in failed}
            waiting = {key: waiting[key] for key in reasons}
            if not waiting or all(f["SenderFault"] for f in failed):
                break
        return {waiting[key].id: reason for key, reason in reasons.items()}

    def send_at(self, queue: str, message: Message, when: datetime) -> None:
        # Scheduler fires within the minute named, and second precision would be lost: round up.
        at = when.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1 if when.microsecond else 0)
        scheduler = client("scheduler")
        usage.add("schedules")
        with suppress(scheduler.exceptions.ConflictException):  # already scheduled: the same id is the same message
            scheduler.create_schedule(
                Name=message.id,
                GroupName=settings().stack,
                ScheduleExpression=f"at({at:%Y-%m-%dT%H:%M:%S})",
                FlexibleTimeWindow={"Mode": "OFF"},
                ActionAfterCompletion="DELETE",
                Target=schedule_target(queue, verbatim(message.body)),
            )
        accepted([message.id])

    def cancel(self, message_id: str) -> None:
        scheduler = client("scheduler")
        try:
            scheduler.delete_schedule(Name=message_id, GroupName=settings().stack)
        except scheduler.exceptions.ResourceNotFoundException:
            return  # Already sent: the record's REVOKED stops it at the claim.

    def dead_letter(self, queue: str, letter: DeadLetter) -> None:
        usage.add("messages")
        self._sqs.send_message(
            QueueUrl=queue_url(settings().dead_letter_queue_name(queue)),
            MessageBody=letter.body,
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value} for name, value in letter.attributes.items() if value
            },
        )

    def set_visibility(self, queue: str, seconds: Mapping[str, float]) -> None:
        # A message that SQS refuses (its receipt has expired) is redelivered anyway, by the queue's own timeout.
        url = queue_url(settings().queue_name(queue))
        for page in batched(seconds.items(), MESSAGES_PER_REQUEST):
            entries: list[Any] = [
                {"Id": str(n), "ReceiptHandle": receipt, "VisibilityTimeout": max(0, min(MAX_VISIBILITY, ceil(wait)))}
                for n, (receipt, wait) in enumerate(page)
            ]
            usage.add("messages")
            self._sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)


def verbatim(text: str) -> str:
    """JSON that Scheduler sends unchanged.

    Scheduler replaces its keywords, such as `<aws.scheduler.execution-id>`, wherever they stand. In JSON their first
    character can be escaped.
    """
    return text.replace("<aws.scheduler.", r"\u003caws.scheduler.")


def schedule_target(queue: str, body: str) -> Any:
    """A queue as the target of a schedule. What Scheduler cannot send goes to the queue's dead letters."""
    where = settings()
    here = client("sqs").meta
    queues = f"arn:{here.partition}:sqs:{here.region_name}:{where.account_id}"
    return {
        # No SqsParameters: Scheduler documents a MessageGroupId for FIFO queues only.
        "Arn": f"{queues}:{where.queue_name(queue)}",
        "RoleArn": f"arn:{here.partition}:iam::{where.account_id}:role/{where.stack}-scheduler",
        "Input": body,
        "DeadLetterConfig": {"Arn": f"{queues}:{where.dead_letter_queue_name(queue)}"},
    }


def _pages(messages: Sequence[Message]) -> list[list[Message]]:
    """Pages of at most ten messages and 1 MiB each."""
    pages: list[list[Message]] = []
    room = 0
    for message in messages:
        size = len(message.body.encode())
        if not pages or len(pages[-1]) == MESSAGES_PER_REQUEST or size > room:
            pages.append([])
            room = BYTES_PER_REQUEST
        pages[-1].append(message)
        room -= size
    return pages
