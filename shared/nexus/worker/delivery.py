"""A delivery: one envelope that passes through a worker. Each stage knows more about it.

Received -> Readable -> Claimed
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from nexus.backend.store import Item
from nexus.backend.transport import MAX_RECEIVES, RETENTION
from nexus.definitions import MOST_RETRIES, RetryPolicy, TaskDefinition
from nexus.envelope import Envelope
from nexus.errors import InvalidMessage
from nexus.runs import locks, payloads, tallies
from nexus.runs.record import RunRecord

RECEIVES_TO_SPARE = MAX_RECEIVES // 2
"""Receives of a message that are left to throttled invocations and dying sandboxes: the worker does not use them."""

TIME_TO_SPARE = 43_200.0
"""Seconds for which a message that has come back may wait in its queue before SQS deletes it."""


@dataclass(frozen=True, slots=True)
class SqsMessage:
    """The relevant parts of an SQS record."""

    id: str
    receipt: str
    body: str
    receives: int = 1
    redriven: bool = False
    """Whether it is a dead letter that SQS has redriven: it then still carries the reason why it was given up."""

    own: bool = True
    """Whether its body is an envelope, rather than the S3 event of a failed invocation."""

    sent_at: float = math.inf
    """When SQS accepted it: seconds since 1970. Infinite if not known."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        attributes = mapping(record.get("attributes"))
        receives, sent = (str(attributes.get(name, "")) for name in ("ApproximateReceiveCount", "SentTimestamp"))
        return cls(
            id=str(record["messageId"]),
            receipt=str(record.get("receiptHandle", "")),
            body=str(record.get("body", "")),
            receives=int(receives) if receives.isdecimal() else 1,
            redriven="ErrorType" in mapping(record.get("messageAttributes")),
            sent_at=int(sent) / 1000 if sent.isdecimal() else math.inf,
        )

    def wears_out(self, back: float) -> bool:
        """Whether SQS may give it up as received too often, or delete it as too old, if it comes back at this time."""
        return self.receives >= MAX_RECEIVES - RECEIVES_TO_SPARE or back + TIME_TO_SPARE > self.sent_at + RETENTION


type Source = Literal["sqs", "s3", "direct"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """An envelope, and how it arrived: in an SQS message, by S3's event, or from a waiting caller."""

    envelope: Envelope
    source: Source
    message: SqsMessage | None = None

    @property
    def body(self) -> str:
        """The message as received, for the dead-letter queue; for an S3 event, the run's own envelope."""
        if self.message is not None and self.message.own:
            return self.message.body
        return self.envelope.encode()

    @property
    def redriven(self) -> bool:
        return self.message is not None and self.message.redriven

    def readable(self, task: TaskDefinition[Any, Any]) -> "Readable":
        """The next stage, with the arguments complete and validated by their model. Raises InvalidMessage,
        ResultExpired.
        """
        envelope = self.envelope
        if envelope.segment is not None and envelope.parent is not None and not tallies.is_member(envelope):
            raise InvalidMessage(f"id: not that of member {envelope.segment.index} of {envelope.parent}")
        check = task.check_part if envelope.is_part else task.check
        refs = envelope.refs or {}
        given = {**envelope.args, **{name: payloads.load(where) for name, where in refs.items()}}
        args = check(given)
        return Readable(
            envelope=envelope,
            source=self.source,
            message=self.message,
            task=task,
            args=args,
            place=None if envelope.is_part else locks.place(task, args),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Readable(Received):
    """A task that this queue serves, and valid arguments."""

    task: TaskDefinition[Any, Any]
    args: Any
    place: str | None
    """The place that a unique task's run takes. A part takes no place: the run that it belongs to has it."""

    def claimed(self, item: Item) -> "Claimed":
        """The next stage, with the record as the claim left it."""
        return Claimed(
            envelope=self.envelope,
            source=self.source,
            message=self.message,
            task=self.task,
            args=self.args,
            place=self.place,
            item=item,
            record=RunRecord.of(item),
        )

    def policy(self, item: Item) -> RetryPolicy:
        """The retry policy: the sender's if the record has one, else the task's."""
        if "retry" in item:
            max_retries, base, cap, give_up_on, *_newer = json.loads(str(item["retry"]))
            return RetryPolicy(min(max_retries, MOST_RETRIES), base, cap, frozenset(give_up_on))
        return self.task.retry


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed(Readable):
    """A run that this invocation holds. `item` is its record as the claim left it."""

    item: Item
    record: RunRecord


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}
