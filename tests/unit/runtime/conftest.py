"""The runtime's unit tests: what is sent stays in memory until a test runs it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from nexus import clock
from nexus.clock import FrozenClock
from nexus.registry import Implementation, registry
from nexus.testing import SentTasks, memory_backend
from nexus.worker import Run, execution
from tests.support import own_catalogue as catalogue

MORNING = 1_795_770_000.0
"""2026-11-27 09:00 UTC: midnight is further away than SQS can hide a message."""


@pytest.fixture
def tasks() -> Iterator[SentTasks]:
    """The tasks that the test sends."""
    with memory_backend() as sent:
        yield sent


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrozenClock]:
    """The time, MORNING at first, in a sandbox that has run nothing yet."""
    monkeypatch.setattr(execution, "_purses", {})
    monkeypatch.setattr(execution, "_limiters", {})
    frozen = FrozenClock(MORNING)
    with clock.use(frozen):
        yield frozen


def does(monkeypatch: pytest.MonkeyPatch, work: Callable[[Any, Run], Any], **options: Any) -> None:
    """send_note does this work, and has these options."""
    task = replace(catalogue.send_note, **options)
    monkeypatch.setitem(registry._declared, task.name, (task, "test"))
    implemented = Implementation(task, work, reduce=lambda notes: notes[0])
    monkeypatch.setitem(registry._implementations, task.name, implemented)
