"""A delivery: one envelope on its way through a worker, with more known of it at each stage.

Received -> Readable -> Claimed
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from nexus.backend.store import Item
from nexus.definitions import RetryPolicy, TaskDefinition
from nexus.envelope import Envelope
from nexus.runs.record import RunRecord
from nexus.worker.events import SqsMessage

type Source = Literal["sqs", "s3", "direct"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """An envelope, and how it came: in an SQS message, by S3's event, or from a caller who waits."""

    envelope: Envelope
    source: Source
    message: SqsMessage | None = None

    def readable(self, task: TaskDefinition[Any, Any]) -> "Readable":
        """With its arguments checked by the model of what it is. Raises InvalidMessage."""
        check = task.check_part if self.envelope.is_part else task.check
        args = check(self.envelope.args)
        return Readable(envelope=self.envelope, source=self.source, message=self.message, task=task, args=args)


@dataclass(frozen=True, kw_only=True, slots=True)
class Readable(Received):
    """A task that this queue serves, and arguments that fit it."""

    task: TaskDefinition[Any, Any]
    args: Any

    def claimed(self, item: Item) -> "Claimed":
        """With the record as the claim left it."""
        return Claimed(
            envelope=self.envelope,
            source=self.source,
            message=self.message,
            task=self.task,
            args=self.args,
            item=item,
            record=RunRecord.of(item),
        )

    def policy(self, item: Item) -> RetryPolicy:
        """The retry policy: the sender's where the record has one, else the task's."""
        if "retry" in item:
            max_retries, base, cap, give_up_on = json.loads(str(item["retry"]))
            return RetryPolicy(max_retries, base, cap, frozenset(give_up_on))
        return self.task.retry

    @property
    def holds_place(self) -> bool:
        """Whether the run itself holds a unique task's place. A part does not: the run that it is part of does."""
        return self.task.unique is not None and not self.envelope.is_part


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed(Readable):
    """A run that this invocation holds. `item` is its record as the claim left it."""

    item: Item
    record: RunRecord
