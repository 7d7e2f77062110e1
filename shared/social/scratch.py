"""A task's temporary files, which do not outlive its process even if that is killed.

Lambda keeps /tmp when it restarts a sandbox after a crash or a timeout (AWS Lambda Developer Guide, "Understanding the
Lambda execution environment lifecycle", on failures during the invoke phase). So the files of a few killed uploads
would fill it.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

PREFIX = "nexus-scratch-"


def folder() -> tempfile.TemporaryDirectory[str]:
    """A new temporary folder. The first call of a process removes those of processes that have ended."""
    return tempfile.TemporaryDirectory(dir=_own())


@lru_cache(maxsize=1)
def _own() -> Path:
    """This process's folder, locked until the process ends. A folder that nobody has locked is a leftover."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if (lock := _lock(left)) is not None:
            shutil.rmtree(left)
            os.close(lock)
    while True:
        made = Path(tempfile.mkdtemp(prefix=PREFIX))
        if _lock(made) is not None and made.exists():
            atexit.register(shutil.rmtree, made, ignore_errors=True)  # the next process tries again
            return made
        # Another process took it for a leftover before it was locked.


def _lock(path: Path) -> int | None:
    """Locks a folder until the descriptor is closed or the process ends. None if it is locked, gone or not ours."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
