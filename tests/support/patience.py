"""How long a test waits for what must come."""

import time
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 240.0
"""Seconds after which a wait for a condition fails: a guard against hangs, not a measure."""


def eventually[T](poll: Callable[[], T | None], *, within: float = PATIENCE, every: float = 0.2) -> T:
    """Calls `poll` until it returns something truthy. Fails after `within` seconds, a guard against hangs."""
    end = time.monotonic() + within
    while True:
        result = poll()
        if result:
            return result
        assert time.monotonic() < end, f"not within {within} s: {poll.__name__}"
        time.sleep(every)


def next_millisecond() -> float:
    """Waits until SQS, which has times in milliseconds, gives what is sent a later time than the one returned."""
    before = int(time.time() * 1000)
    while int(time.time() * 1000) <= before:
        time.sleep(0.0005)
    return before / 1000
