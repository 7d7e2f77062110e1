"""The child's only output: JSON lines in a pipe, and files opened before it started."""

import json
import math
import os
from io import FileIO
from typing import Any

from social.refusals import Rejected

UNAVAILABLE = 71
"""The exit status of a child that failed without having begun the work, or for lack of disk. The status of any other
failure is 1."""


class Report:
    """{"known": {...}}, {"part": {...}} and {"progress": 0.4} any number of times, then the outcome.

    The outcome is {"made": {...}} or {"rejected": {"code", "detail", "limit"}}.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._percent = 0

    def progress(self, fraction: float) -> None:
        """Reports each new whole percent."""
        percent = min(100, math.floor(100 * fraction))
        if percent > self._percent:
            self._percent = percent
            self._say({"progress": percent / 100})

    def known(self, fields: dict[str, Any]) -> None:
        """Reports what is known before anything is made."""
        self._say({"known": fields})

    def part(self, fields: dict[str, Any]) -> None:
        """Reports a file that is finished while others are still being made."""
        self._say({"part": fields})

    def made(self, fields: dict[str, Any]) -> None:
        """Reports what was made."""
        self._say({"made": fields})

    def refuse(self, refusal: Rejected) -> None:
        """Reports why the bytes are refused."""
        self._say({"rejected": {"code": refusal.code, "detail": refusal.detail, "limit": refusal.limit}})

    def _say(self, message: dict[str, Any]) -> None:
        os.write(self._pipe, json.dumps(message).encode() + b"\n")


def write_all(file: FileIO, data: bytes) -> int:
    """Writes all of `data`. Near the size limit a write is partial, and the next one fails with EFBIG."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    return len(data)
