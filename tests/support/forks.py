"""Forks this process as a pre-forking web server does."""

import os
import signal
from collections.abc import Callable


def in_a_child(work: Callable[[], object]) -> int:
    """Runs `work` in a forked child. Returns its exit status: 0 if nothing was raised and it ended in half a minute."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(30)  # kills a child that waits for a lock of its parent's threads
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]
