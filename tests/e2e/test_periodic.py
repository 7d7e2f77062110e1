"""A periodic task made at run time fires on the deployed stack: Scheduler sends it, and its run has the firing's id."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from nexus import periodic
from nexus.builtin import ping
from nexus.client import AsyncResult
from nexus.settings import Settings
from tests.support.stack import eventually


def test_a_firing_runs_under_the_id_that_follows_from_its_time(stack: Settings) -> None:
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    at = (datetime.now(UTC) + timedelta(seconds=5)).replace(microsecond=0)
    signature = ping.s(text="fired").set(queue="default")
    task = periodic.create(name, signature, f"at({at:%Y-%m-%dT%H:%M:%S})", description="Once, soon")
    try:
        assert [found for found in periodic.every() if found.name == name] == [task]
        handle: AsyncResult[Any] = AsyncResult(task.run_id(at))
        eventually(lambda: handle.status == "SUCCESS")
        assert handle.record().args == {"text": "fired"}
        assert handle.attempts == 1
    finally:
        assert periodic.delete(name)


def test_a_paused_one_does_not_fire(stack: Settings) -> None:
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    at = (datetime.now(UTC) + timedelta(seconds=2)).replace(microsecond=0)
    later = at + timedelta(seconds=4)
    signature = ping.s(text="fired").set(queue="default")
    task = periodic.create(name, signature, f"at({at:%Y-%m-%dT%H:%M:%S})", paused=True)
    try:
        other = periodic.create(f"{name}-after", signature, f"at({later:%Y-%m-%dT%H:%M:%S})")
        eventually(lambda: AsyncResult[Any](other.run_id(later)).status == "SUCCESS")
        assert AsyncResult[Any](task.run_id(at)).status == "UNKNOWN"
    finally:
        periodic.delete(name)
        periodic.delete(f"{name}-after")
