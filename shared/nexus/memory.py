"""The runtime in this process's memory: for an application's own tests, and for eager mode.

The same worker runs the same rules; only the store and the transport are replaced.
"""

import importlib
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nexus.backend import Backend
from nexus.errors import ConfigurationError
from nexus.store import Applied, Condition, Item, Outcome, Refused, Value, Write, numbers
from nexus.transport import DeadLetter, Message

INVOCATION_SECONDS = 900.0


class MemoryStore:
    """Items in a dictionary, with DynamoDB's conditions."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Value]] = {}
        self._lock = threading.Lock()

    def get(self, keys: Sequence[str]) -> Mapping[str, Item]:
        with self._lock:
            return {key: dict(self.items[key]) for key in keys if key in self.items}

    def apply(self, write: Write) -> Outcome:
        with self._lock:
            standing = self.items.get(write.key)
            if (write.insert and standing is not None) or not all(_holds(c, standing or {}) for c in write.when):
                return Refused(None if standing is None else dict(standing))
            item: dict[str, Value] = {**(standing or {"id": write.key}), **write.set}
            for name in write.remove:
                item.pop(name, None)
            for name, member in write.add.items():
                item[name] = numbers(item, name) | {member}
            for name, member in write.discard.items():
                item[name] = numbers(item, name) - {member}
                if not item[name]:
                    del item[name]
            self.items[write.key] = item
            return Applied(dict(item))

    def apply_all(self, writes: Sequence[Write]) -> list[Outcome]:
        return [self.apply(write) for write in writes]


def _holds(condition: Condition, item: Item) -> bool:
    present = condition.attribute in item
    match condition.test:
        case "missing":
            return not present
        case "exists":
            return present
        case "lacks":
            return condition.value not in numbers(item, condition.attribute)
        case "=":
            return present and item[condition.attribute] == condition.value


@dataclass(slots=True)
class Sent:
    """A message that waits in a queue of memory; `due` on time.time()'s clock."""

    queue: str
    message: Message
    due: float = 0.0
    receives: int = 0


@dataclass(slots=True)
class MemoryTransport:
    """Queues as one list. Delays and backoffs are kept as `due` times, and not waited for."""

    sent: list[Sent] = field(default_factory=list)
    dead: list[tuple[str, DeadLetter]] = field(default_factory=list)

    def send(self, queue: str, messages: Sequence[Message]) -> Mapping[str, str]:
        self.sent += [Sent(queue, message, time.time() + message.delay) for message in messages]
        return {}

    def send_at(self, queue: str, message: Message, when: datetime) -> None:
        self.sent.append(Sent(queue, message, when.astimezone(UTC).timestamp()))

    def cancel(self, run_id: str) -> None:
        self.sent = [sent for sent in self.sent if sent.message.id != run_id]

    def dead_letter(self, queue: str, letter: DeadLetter) -> None:
        self.dead.append((queue, letter))

    def set_visibility(self, queue: str, receipt: str, seconds: float) -> None:
        """Nothing: what is to come again stays in the list, due when `run_next` meets it."""


@dataclass(slots=True)
class Context:
    """As much of Lambda's context as the worker reads."""

    seconds: float = INVOCATION_SECONDS
    aws_request_id: str = "memory"
    log_group_name: str = ""
    log_stream_name: str = ""

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


class EagerTransport(MemoryTransport):
    """Runs what is sent before send() returns, retries included and unwaited, as Celery's task_always_eager does."""

    def send(self, queue: str, messages: Sequence[Message]) -> Mapping[str, str]:
        # super() has no cell in a dataclass with slots.
        MemoryTransport.send(self, queue, messages)
        run_all(self)
        return {}

    def send_at(self, queue: str, message: Message, when: datetime) -> None:  # noqa: ARG002 - nothing waits here
        self.send(queue, [message])


def run_next(transport: MemoryTransport) -> bool:
    """Runs the first message of the list through the worker, whenever it is due. False when there is none."""
    from nexus import catalogue
    from nexus.worker import Worker

    if not transport.sent:
        return False
    sent = transport.sent.pop(0)
    sent.receives += 1
    record: dict[str, Any] = {
        "messageId": sent.message.id,
        "receiptHandle": sent.message.id,
        "body": sent.message.body,
        "attributes": {"ApproximateReceiveCount": str(sent.receives)},
        "eventSource": "aws:sqs",
    }
    answer = Worker(sent.queue, catalogue.served_by(sent.queue), Context()).messages([record])
    if answer["batchItemFailures"]:
        transport.sent.append(sent)
    return True


def run_all(transport: MemoryTransport) -> int:
    """Runs messages until none is left, those sent meanwhile included; answers with how many deliveries it took."""
    count = 0
    while run_next(transport):
        count += 1
    return count


def eager_backend() -> Backend:
    """For NEXUS_EAGER=1. The tasks' code is found through NEXUS_FUNCTIONS, the path of the folder functions/."""
    folder = os.environ.get("NEXUS_FUNCTIONS")
    if folder:
        queues = sorted(str(path) for path in Path(folder).iterdir() if path.is_dir())
        if not queues:
            raise ConfigurationError(f"NEXUS_FUNCTIONS is {folder!r}: no folder of a queue in it")
        sys.path += [path for path in queues if path not in sys.path]
        importlib.invalidate_caches()
    return Backend(MemoryStore(), EagerTransport())
