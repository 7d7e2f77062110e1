"""What session, server and workers share: the signals, and the pipe that shows that the session is alive."""

import select
import signal
from typing import Final

RERUN: Final = signal.SIGUSR1
"""Tells the server to replace the workers and run the last message again, and a worker to end after its message."""

RELOAD: Final = signal.SIGUSR2
"""Tells the server to replace the workers."""

SIGNALS: Final = (RERUN, RELOAD, signal.SIGTERM, signal.SIGCHLD)
"""The signals that the server waits for, and blocks until then; its workers unblock them."""


def ended(lifeline: int) -> bool:
    """Whether the session has closed its end of the pipe, or died."""
    return bool(select.select([lifeline], [], [], 0)[0])
