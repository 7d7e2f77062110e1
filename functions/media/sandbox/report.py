"""The child's one way to say something: JSON lines in a pipe, and files that were open before it began."""

import json
import math
import os
from io import FileIO
from typing import Any

from social.refusals import Rejected


class Report:
    """{"known": {...}} and {"progress": 0.4} any number of times, then how it ended.

    That is {"made": {...}} or {"rejected": {"code", "detail", "limit"}}.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._percent = 0

    def progress(self, fraction: float) -> None:
        """Says every whole percent that is new: the work itself is the clock."""
        percent = min(100, math.floor(100 * fraction))
        if percent > self._percent:
            self._percent = percent
            self._say({"progress": percent / 100})

    def known(self, fields: dict[str, Any]) -> None:
        """What is known before anything is made, as the work describes it."""
        self._say({"known": fields})

    def made(self, fields: dict[str, Any]) -> None:
        """What was made, as the work describes it."""
        self._say({"made": fields})

    def refuse(self, refusal: Rejected) -> None:
        """Why the bytes are refused."""
        self._say({"rejected": {"code": refusal.code, "detail": refusal.detail, "limit": refusal.limit}})

    def _say(self, message: dict[str, Any]) -> None:
        os.write(self._pipe, json.dumps(message).encode() + b"\n")


def write_all(file: FileIO, data: bytes) -> int:
    """Writes all of `data`: a file near its limit takes a part, and the next write says that it is too large."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    return len(data)
