"""The soft time limit: raises an exception inside the task while there is still time to settle."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nexus.errors import TimeLimitExceeded

_armed = False


def put_off(seconds: float) -> None:
    """Extends the limit for code that enforces it itself: the alarm is only a fallback."""
    if _armed and threading.current_thread() is threading.main_thread():
        signal.setitimer(signal.ITIMER_REAL, signal.getitimer(signal.ITIMER_REAL)[0] + seconds)


@contextmanager
def time_limit(seconds: float, message: str) -> Iterator[None]:
    """Raises TimeLimitExceeded in the block after `seconds`.

    Uses SIGALRM, so it works only in the main thread, where Lambda calls its handler, and only if no alarm is set.
    Elsewhere the block runs to its end: in a caller's thread in eager mode, under an alarm of the application's own,
    and within the run of another task that sends this one eagerly.
    """
    alarm_is_set = signal.getitimer(signal.ITIMER_REAL)[0] > 0
    if alarm_is_set or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise TimeLimitExceeded(message)

    global _armed  # noqa: PLW0603 - the process has one alarm
    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    _armed = True
    try:
        yield
    finally:
        _armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
