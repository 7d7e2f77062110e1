"""Runs a program on its own terminal, for tests of what a person sees and types."""

import os
import pty
import re
import select
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.patience import PATIENCE


class Terminal:
    """`shown` is what the program has written, with its control sequences."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], folder: Path | None = None) -> None:
        self.shown = ""
        self._since = 0
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            if folder:
                os.chdir(folder)
            os.execve(command[0], list(command), {**os.environ, **variables})

    def press(self, keys: str) -> None:
        """Types."""
        self._since = len(self.shown)
        os.write(self._terminal, keys.encode())

    def until(self, words: str) -> None:
        """Reads until the words have been drawn since the last keys were pressed."""
        self.read(words, lambda: words in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown[self._since :]))

    def read(self, words: str, enough: Callable[[], bool]) -> None:
        """Reads until `enough`. On failure, `words` say what is missing."""
        deadline = time.monotonic() + PATIENCE
        while not enough():
            assert time.monotonic() < deadline, f"no {words!r} in {self.shown[-4000:]!r}"
            if select.select([self._terminal], [], [], 1)[0]:
                self._take()

    def wait(self) -> int:
        """The exit code, once every process has closed the terminal."""
        while select.select([self._terminal], [], [], PATIENCE)[0]:
            try:
                self._take()
            except OSError:
                break
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _take(self) -> None:
        self.shown += os.read(self._terminal, 65_536).decode(errors="replace")
