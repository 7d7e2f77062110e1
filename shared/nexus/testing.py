"""For an application's own tests: what was sent, and running it, with no AWS and no emulator.

with memory_backend() as tasks:
    register(user)
    assert tasks.calls == [("send_welcome_email", {"user_id": user.id})]
    tasks.run()
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nexus import backend as backends
from nexus.backend import Backend
from nexus.backend.memory import MemoryStore, MemoryTransport
from nexus.backend.transport import DeadLetter
from nexus.definitions import Arguments
from nexus.eager import run_all
from nexus.envelope import Segment
from nexus.registry import registry
from nexus.worker.run import Continued, FannedOut, Run


@dataclass(frozen=True, slots=True)
class SentTasks:
    """What was sent within `memory_backend()`, and the means to run it."""

    store: MemoryStore
    transport: MemoryTransport

    @property
    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        """(task's name, arguments) of each message not yet run, in the order they were sent."""
        envelopes = [json.loads(sent.message.body) for sent in self.transport.sent]
        return [(envelope["task"], envelope["args"]) for envelope in envelopes]

    @property
    def dead_letters(self) -> Sequence[tuple[str, DeadLetter]]:
        return self.transport.dead

    def run(self) -> int:
        """Runs everything, retries and segments included and unwaited; answers with the number of deliveries."""
        return run_all(self.transport)


@contextmanager
def memory_backend() -> Iterator[SentTasks]:
    """Tasks sent within the block are kept in memory and run only by `run()`."""
    tasks = SentTasks(MemoryStore(), MemoryTransport())
    with backends.use(Backend(tasks.store, tasks.transport)):
        yield tasks


def run_task(function: Callable[..., Any], args: Any = None, *, seconds: float = 900.0, **overrides: Any) -> Any:
    """Calls a task's function as the worker would, without messages, and gives its result.

    Segments of a fan-out run one after another, continuations and a second phase too, and their results are reduced.
    Whatever the task raises comes out. `args` is a mapping, an argument model, or a model of the task's `part`;
    `overrides` replace fields of the Run.
    """
    task = registry.task_of(function)
    arguments = args if isinstance(args, Arguments) else task.check(args or {})
    return _run(task.name, arguments, seconds, None, overrides, part=not isinstance(arguments, task.arguments))


def _run(
    name: str, args: Any, seconds: float, segment: Segment | None, overrides: Mapping[str, Any], *, part: bool
) -> Any:
    joined = registry.implementation(name)
    cursor: Mapping[str, Any] | None = None
    while True:
        fields: dict[str, Any] = {
            "id": "00000000-0000-7000-8000-000000000000",
            "task": name,
            "attempt": 1,
            "deadline": time.monotonic() + seconds,
            "limit": seconds,
            "token": "test",
            "segment": segment,
            "cursor": cursor,
        }
        answer = joined.function_for(part=part)(args, Run(**fields | dict(overrides)))
        match answer:
            case Continued(cursor):
                continue
            case FannedOut(segments, then):
                total = len(segments)
                parts = [
                    _run(name, each, seconds, Segment(index=i, total=total), overrides, part=True)
                    for i, each in enumerate(segments)
                ]
                result = joined.reduced(parts)
                if then is None:
                    return result
                return joined.reduced([result, _run(name, then, seconds, None, overrides, part=True)])
        return answer
