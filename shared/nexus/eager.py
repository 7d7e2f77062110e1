"""Runs tasks in this process, with a store and a transport in memory: for NEXUS_BACKEND=nexus.eager and for tests.

The same worker applies the same rules, but does not wait for delays and backoffs. Without NEXUS_STACK the tables,
buckets and mail that the tasks use are in memory too (`nexus.aws.memory`).
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from nexus import clock
from nexus.backend import Backend
from nexus.backend.memory import MemoryStore, MemoryTransport
from nexus.backend.transport import MAX_RECEIVES, DeadLetter, Message
from nexus.envelope import decode
from nexus.errors import ConfigurationError, InvalidMessage
from nexus.registry import registry
from nexus.settings import settings
from nexus.worker.entry import serve

INVOCATION_SECONDS = 900.0


@dataclass(slots=True)
class Context:
    """The part of Lambda's context that the worker reads."""

    seconds: float = INVOCATION_SECONDS
    aws_request_id: str = "memory"
    log_group_name: str = ""
    log_stream_name: str = ""

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


class EagerTransport(MemoryTransport):
    """Runs each message before send() returns, retries included, without waiting, like Celery's task_always_eager."""

    runs_by_itself: ClassVar[bool] = True

    def send(self, queue: str, messages: Sequence[Message]) -> Mapping[str, str]:
        # super() does not work in a dataclass with slots.
        MemoryTransport.send(self, queue, messages)
        run_all(self)
        return {}

    def send_at(self, queue: str, message: Message, when: datetime) -> None:
        MemoryTransport.send_at(self, queue, message, when)
        run_all(self)


def run_next(transport: MemoryTransport, place: int = 0) -> bool:
    """Runs the first message of the list (or another) through the worker, due or not. False if there is none.

    Raises ConfigurationError if the task's code or a package that it needs is missing.
    """
    try:
        sent = transport.sent.pop(place)
    except IndexError:  # another thread of a development server may have taken it
        return False
    sent.receives += 1
    if name := task_in(sent.message):
        registry.implementation(name)
    record: dict[str, Any] = {
        "messageId": sent.message.id,
        "receiptHandle": sent.message.id,
        "body": sent.message.body,
        "attributes": {"ApproximateReceiveCount": str(sent.receives)},
        "eventSource": "aws:sqs",
    }
    with clock.not_before(sent.due):
        response = serve(sent.queue, registry.served_by(sent.queue), {"Records": [record]}, Context())
        if response["batchItemFailures"]:
            sent.due = transport.hidden.pop(sent.message.id, clock.now())
            if sent.receives < MAX_RECEIVES:
                transport.sent.append(sent)
            else:
                transport.dead_letter(sent.queue, DeadLetter(sent.message.body, {}, sent.message.group))
    return True


def task_in(message: Message) -> str | None:
    """The message's task, if an application implements it; None for an upload's event and a built-in task."""
    try:
        task = registry.known(decode(message.body).task)
    except InvalidMessage:
        return None
    return task.name if task is not None and not task.everywhere else None


def run_all(transport: MemoryTransport) -> int:
    """Runs messages until none is left, including those sent meanwhile. Returns the number of deliveries."""
    count = 0
    while run_next(transport):
        count += 1
    return count


def make_backend() -> Backend:
    """The backend for NEXUS_BACKEND=nexus.eager. NEXUS_FUNCTIONS is the path of functions/, with the tasks' code."""
    find_functions()
    return Backend(MemoryStore(), EagerTransport())


def find_functions() -> None:
    """Adds the folder that NEXUS_FUNCTIONS names to the import path of the tasks' code. Raises ConfigurationError."""
    folder = settings().functions
    if not folder:
        return
    queues = sorted(str(path) for path in Path(folder).glob("*") if path.is_dir())
    if not queues:
        raise ConfigurationError(f"NEXUS_FUNCTIONS is {folder!r}: it contains no queue's folder")
    if new := [path for path in queues if path not in sys.path]:
        sys.path += new
        importlib.invalidate_caches()
