"""Reads the keys pressed on a terminal, by name: "j", "up", "enter". Ctrl-C still interrupts."""

import os
import re
import select
import sys
from typing import Any, Final, Self

NAMES: Final = {
    "\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down", "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home", "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end",
    "\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\b": "backspace", "\x1b": "escape",
}  # fmt: skip

_KEY: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|.", re.DOTALL)


def named(typed: str) -> list[str]:
    """The keys in the bytes a terminal sent; unknown sequences are dropped."""
    found = (NAMES.get(key, key) for key in _KEY.findall(typed))
    return [key for key in found if key.isprintable()]


class Keys:
    """Reads single keys from stdin, without echo, inside the `with` block. Reads none if stdin is not a terminal."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        import termios
        import tty

        if sys.stdin.isatty():
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *_: object) -> None:
        import termios

        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def read(self, seconds: float) -> list[str]:
        """The keys pressed. Waits up to `seconds` for one. A terminal that has gone away counts as q."""
        if self._before is None:
            select.select([], [], [], seconds)
            return []
        if not select.select([sys.stdin], [], [], seconds)[0]:
            return []
        # A key's bytes arrive together, so a lone ESC is the Esc key.
        typed = os.read(sys.stdin.fileno(), 4096)
        return named(typed.decode(errors="replace")) if typed else ["q"]
