"""A run table and a queue whose caller may die before any request. Messages come in any order, and some twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nexus.backend.memory import MemoryStore
from nexus.backend.store import Item, Outcome, Store, Write
from nexus.backend.transport import DeadLetter, Message
from nexus.eager import Context
from nexus.envelope import decode
from nexus.registry import registry
from nexus.testing import SandboxDied
from nexus.worker.entry import serve


@dataclass
class Fuse:
    """Dies at the n-th request; None: never."""

    left: int | None = None

    def burn(self) -> None:
        if self.left is not None:
            if self.left == 0:
                raise SandboxDied
            self.left -= 1


@dataclass
class MortalStore:
    """A store whose caller may die before any request, or (on an odd fuse) right after it."""

    inner: Store
    fuse: Fuse

    def get(self, keys: Sequence[str]) -> Mapping[str, Item]:
        self.fuse.burn()
        return self.inner.get(keys)

    def apply(self, write: Write) -> Outcome:
        self.fuse.burn()
        outcome = self.inner.apply(write)
        self.fuse.burn()
        return outcome

    def apply_all(self, writes: Sequence[Write]) -> list[Outcome]:
        self.fuse.burn()
        outcomes = self.inner.apply_all(writes)
        self.fuse.burn()
        return outcomes


@dataclass
class Queue:
    """SQS with one queue. A message is here until it is acknowledged."""

    fuse: Fuse
    messages: dict[str, Message] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
    count: int = 0
    moved: set[str] = field(default_factory=set)
    """The messages that SQS has moved back from the dead letters: they keep their attributes."""

    def put(self, message: Message) -> str:
        self.count += 1
        key = f"m{self.count}"
        self.messages[key] = message
        return key

    def send(self, queue: str, messages: Sequence[Message]) -> Mapping[str, str]:
        self.fuse.burn()
        for message in messages:
            self.put(message)
        return {}

    def send_at(self, queue: str, message: Message, when: Any) -> None:
        self.put(message)

    def cancel(self, message_id: str) -> None: ...

    def dead_letter(self, queue: str, letter: DeadLetter) -> None:
        self.fuse.burn()
        self.dead.append(letter)

    def set_visibility(self, queue: str, seconds: Mapping[str, float]) -> None:
        self.fuse.burn()

    def deliver(self, store: MemoryStore, pick: int = 0, dies: int | None = None, *, twice: bool = False) -> None:
        """Delivers a message, which stays if it is to come twice, to a sandbox that may die at its n-th request."""
        if not self.messages:
            return
        key = sorted(self.messages, key=lambda key: int(key[1:]))[pick % len(self.messages)]
        body = self.messages[key].body
        record = {"messageId": key, "receiptHandle": key, "body": body, "eventSource": "aws:sqs"}
        served = registry.task(decode(body).task).queue
        self.fuse.left = dies
        try:
            answer = serve(served, registry.served_by(served), {"Records": [record]}, Context())
        except SandboxDied:
            # Its lease expires, and an attempt is given back: no run is to be given up.
            for run_id, item in list(store.items.items()):
                if item.get("status") == "STARTED" and "lease_until" in item:
                    store.apply(Write(run_id, set={"lease_until": 1.0, "attempts": 0}))
            return
        finally:
            self.fuse.left = None
        if not answer["batchItemFailures"] and not twice:
            del self.messages[key]
