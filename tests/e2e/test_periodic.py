"""A periodic task made at run time fires on the deployed stack: Scheduler sends it, and its run has the firing's id."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nexus import periodic
from nexus.builtin import ping
from nexus.client import AsyncResult
from nexus.periodic import PeriodicTask
from nexus.settings import Settings
from tests.support.patience import eventually

SIGNATURE = ping.s(text="fired").set(queue="default")


def soon(**options: Any) -> tuple[PeriodicTask, datetime]:
    """A periodic task that fires once, and when: in a few seconds, or later if the machine takes longer to make it."""
    for seconds in (3, 10, 30, 100):
        name, at = (
            f"e2e-{uuid.uuid4().hex[:8]}",
            (datetime.now(UTC) + timedelta(seconds=seconds)).replace(microsecond=0),
        )
        task = periodic.create(name, SIGNATURE, f"at({at:%Y-%m-%dT%H:%M:%S})", **options)
        if datetime.now(UTC) < at:
            return task, at
        periodic.delete(name)
    pytest.fail("it took longer than 100 s to make it")


def test_a_firing_runs_under_the_id_that_follows_from_its_time(stack: Settings) -> None:
    task, at = soon(description="Once, soon")
    try:
        assert [found for found in periodic.every() if found.name == task.name] == [task]
        handle: AsyncResult[Any] = AsyncResult(task.run_id(at))
        eventually(lambda: handle.status == "SUCCESS")
        assert handle.record().args == {"text": "fired"}
        assert handle.attempts == 1
    finally:
        assert periodic.delete(task.name)


def test_a_paused_periodic_task_does_not_fire(stack: Settings) -> None:
    task, at = soon(paused=True)
    other, later = soon()
    try:
        assert later >= at
        eventually(lambda: AsyncResult[Any](other.run_id(later)).status == "SUCCESS")
        assert AsyncResult[Any](task.run_id(at)).status == "UNKNOWN"
    finally:
        periodic.delete(task.name)
        periodic.delete(other.name)
