"""The runtime in this process's memory: for an application's own tests, and for eager mode.

The same worker applies the same rules; only the store and the transport are replaced.
"""

import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from nexus import clock
from nexus.aws.dynamodb import Condition
from nexus.backend.store import Applied, Item, Outcome, Refused, Value, Write, number, numbers
from nexus.backend.transport import DeadLetter, Message


class MemoryStore:
    """Items in a dictionary, with DynamoDB's conditions."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Value]] = {}
        self.objects: dict[str, str] = {}
        self._lock = threading.Lock()

    def get(self, keys: Sequence[str]) -> Mapping[str, Item]:
        with self._lock:
            return {key: dict(self.items[key]) for key in keys if key in self.items}

    def apply(self, write: Write) -> Outcome:
        key = str(write.key)
        with self._lock:
            existing = self.items.get(key)
            if (write.insert and existing is not None) or not all(_holds(c, existing or {}) for c in write.when):
                return Refused(None if existing is None else dict(existing))
            item: dict[str, Value] = {**(existing or {"id": key}), **write.set}
            for name in write.remove:
                item.pop(name, None)
            for name, added in write.add.items():
                if isinstance(added, frozenset):
                    item[name] = numbers(item, name) | added
                else:
                    item[name] = (number(item, name) or 0) + added
            for name, members in write.discard.items():
                item[name] = numbers(item, name) - members
                if not item[name]:
                    del item[name]
            self.items[key] = item
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
        case "missing or <" | "missing or <=" | "missing or <>" if not present:
            return True
        case compared:
            holds = _COMPARED[compared.removeprefix("missing or ")]
            return present and holds(item[condition.attribute], condition.value)


_COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    "<>": operator.ne,
}


@dataclass(slots=True)
class Sent:
    """A message that waits in a queue in memory; `due` is on clock.now()'s clock."""

    queue: str
    message: Message
    due: float = 0.0
    receives: int = 0


@dataclass(slots=True)
class MemoryTransport:
    """All queues as one list. Delays and backoffs are kept as `due` times and not waited for."""

    runs_by_itself: ClassVar[bool] = False
    """Whether a sent message runs without a further call."""

    sent: list[Sent] = field(default_factory=list)
    dead: list[tuple[str, DeadLetter]] = field(default_factory=list)
    hidden: dict[str, float] = field(default_factory=dict)
    """When received messages become visible again, by receipt."""

    def send(self, queue: str, messages: Sequence[Message]) -> Mapping[str, str]:
        self.sent += [Sent(queue, message, clock.now() + message.delay) for message in messages]
        return {}

    def send_at(self, queue: str, message: Message, when: datetime) -> None:
        self.sent.append(Sent(queue, message, when.astimezone(UTC).timestamp()))

    def cancel(self, message_id: str) -> None:
        self.sent = [sent for sent in self.sent if sent.message.id != message_id]

    def dead_letter(self, queue: str, letter: DeadLetter) -> None:
        self.dead.append((queue, letter))

    def set_visibility(self, queue: str, seconds: Mapping[str, float]) -> None:  # noqa: ARG002
        self.hidden |= {receipt: clock.now() + wait for receipt, wait in seconds.items()}
