"""Calling a Django task's function: an asynchronous one on an event loop, and cleanup after its time limit."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connections

from nexus import clock
from nexus.django.tasks import AnyTask
from nexus.errors import TimeLimitExceeded
from nexus.worker.run import Run
from nexus.worker.time_limit import put_off

BACKSTOP = 1.0
"""Seconds past an asynchronous task's limit until the alarm, which interrupts code that blocks the event loop."""


def called(task: AnyTask, run: Run, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Returns the task function's result. Raises what it raises, and TimeLimitExceeded at its limit.

    The limit cancels an asynchronous function, which may clean up; its ORM calls run in this thread, as in Django.
    """
    try:
        if iscoroutinefunction(task.func):
            return _asynchronously(task, run, args, kwargs)
        return task.func(*args, **kwargs)
    finally:
        # The limit may have interrupted a query, even if the task caught it: nothing will read the query's result.
        if clock.monotonic() >= run.deadline:
            for connection in connections.all(initialized_only=True):
                if not connection.in_atomic_block:
                    connection.close()


def _asynchronously(task: AnyTask, run: Run, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def limited() -> Any:
        current = asyncio.current_task()
        assert current is not None
        begun.append((asyncio.get_running_loop(), current))
        limit = asyncio.timeout(run.deadline - clock.monotonic())
        try:
            async with limit:
                return await task.func(*args, **kwargs)
        except TimeoutError:
            if limit.expired():
                raise TimeLimitExceeded(f"{task.module_path} has used its {run.limit:.0f} s") from None
            raise

    put_off(BACKSTOP)
    try:
        return async_to_sync(limited)()
    except TimeLimitExceeded:
        for loop, coroutine in begun:
            with suppress(RuntimeError):  # the loop is closed: the coroutine has ended
                loop.call_soon_threadsafe(coroutine.cancel)
        raise
