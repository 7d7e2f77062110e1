"""What session, server and workers agree on: the signals, and the pipe that shows that the session lives."""

import select
import signal
from typing import Final

AGAIN: Final = signal.SIGUSR1
"""For the server: new workers, and the last message again. For a worker: end after your message."""

AFRESH: Final = signal.SIGUSR2
"""For the server: new workers."""

SIGNALS: Final = (AGAIN, AFRESH, signal.SIGTERM, signal.SIGCHLD)
"""What the server waits for, and blocks until then; its workers unblock them."""


def ended(lifeline: int) -> bool:
    """Whether the session has closed its end of the pipe, or died."""
    return bool(select.select([lifeline], [], [], 0)[0])
