"""Bounds every send to `Settings.send_timeout` seconds, whatever AWS, the network or the resolver does.

A send is up to three requests, each of which may be retried, and neither a name lookup nor fetching credentials has
its own timeout. So a thread makes the requests, and the caller waits for it for at most that time. After that the
thread starts no further request, and the one in flight ends by its own timeout.
"""

import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

from nexus import clock
from nexus.aws import sdk
from nexus.backend import backend
from nexus.backend.transport import SqsTransport
from nexus.errors import SendFailed
from nexus.settings import settings

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

THREADS = 64
"""Further concurrent sends wait their turn, which counts toward their time."""


@dataclass(slots=True)
class Wait(sdk.Wait):
    """A send that a caller waits for."""

    def given_up(self, seconds: float) -> SendFailed:
        """Ends the wait."""
        self.over = True
        reason = f"AWS has not answered within {seconds:g} s (NEXUS_SEND_TIMEOUT)"
        return SendFailed(dict.fromkeys(list(self.run_ids), reason), reason, away=True)


def bounded[**P, T](send: Callable[P, T]) -> Callable[P, T]:
    """Bounds a function that sends. Raises SendFailed if it does not finish in time."""

    @wraps(send)
    def in_time(*args: P.args, **kwargs: P.kwargs) -> T:
        seconds = _seconds()
        if not seconds:
            return send(*args, **kwargs)
        waiting, future = _start(partial(send, *args, **kwargs))
        try:
            return future.result(seconds)
        except TimeoutError:
            if future.cancel() or not future.done():
                raise waiting.given_up(seconds) from None
            return future.result()

    return in_time


def asynchronous[**P, T](work: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same as a coroutine function that never blocks its event loop, with the same bound."""

    @wraps(work)
    async def in_time(*args: P.args, **kwargs: P.kwargs) -> T:
        import asyncio  # here: the import takes a tenth of a function's start

        seconds = _seconds()
        if not seconds:
            return await in_thread(work, *args, **kwargs)
        waiting, future = _start(partial(work, *args, **kwargs))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError:
            if future.cancel() or not future.done():
                raise waiting.given_up(seconds) from None
            return future.result()

    return in_time


async def in_thread[**P, T](work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls a blocking function in the client's own thread pool: the event loop's threads belong to the application."""
    import asyncio

    return await asyncio.wrap_future(_submit(partial(work, *args, **kwargs)))


def note(*run_ids: str) -> None:
    """Reports to the waiting caller which runs are being sent."""
    waiting = sdk.wait.get()
    if waiting is not None:
        waiting.run_ids |= dict.fromkeys(run_ids)


def _seconds() -> float:
    """The time limit of a send that begins here; 0 (no limit) in a function, in memory, and within another send.

    It is also 0 under a test's clock, which real seconds do not move.
    """
    within = sdk.wait.get() is not None or not clock.is_machines()
    if within or not isinstance(backend().transport, SqsTransport):
        return 0.0
    return settings().send_timeout


def _start[T](work: Callable[[], T]) -> tuple[Wait, Future[T]]:
    waiting = Wait()

    def run() -> T:
        sdk.wait.set(waiting)
        return work()

    return waiting, _submit(run, work)


def _submit[T](work: Callable[[], T], here: Callable[[], T] | None = None) -> Future[T]:
    """Does `work` in a thread of the pool; `here` in this one if the interpreter is ending, when no pool takes work."""
    try:
        return _threads().submit(copy_context().run, work)
    except RuntimeError as error:
        if "shutdown" not in str(error):
            raise
        done = Future[T]()
        try:
            done.set_result((here or work)())
        except BaseException as fault:  # noqa: BLE001 - raised where the result is read
            done.set_exception(fault)
        return done


@cache
def _threads() -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor  # here: it cannot be imported while the interpreter is ending

    return ThreadPoolExecutor(THREADS, thread_name_prefix="nexus-send")


# The child of a pre-forking web server does not inherit its parent's threads.
os.register_at_fork(after_in_child=_threads.cache_clear)
