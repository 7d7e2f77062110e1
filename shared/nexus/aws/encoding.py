"""JSON through orjson where it is installed: for AWS requests and for log lines."""

import json
from collections.abc import Callable
from typing import Any

try:
    from orjson import dumps as _dumps
    from orjson import loads
except ImportError:  # a web application does without it
    from json import loads  # type: ignore[assignment]

    def _dumps(value: Any, /, default: Callable[[Any], Any] | None = None) -> bytes:  # type: ignore[misc]
        """Same signature as orjson's."""
        return json.dumps(value, default=default, separators=(",", ":")).encode()


__all__ = ("dumps", "line", "loads")


def dumps(value: Any) -> bytes:
    """JSON of values without bytes or dates. Invalid Unicode is escaped, for AWS to refuse."""
    try:
        return _dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


def line(value: Any) -> str:
    """JSON on one line. Values that JSON cannot represent become their text."""
    try:
        return _dumps(value, default=str).decode()
    except TypeError:  # text that is not valid Unicode, a number of more than 64 bits
        return json.dumps(value, default=str, separators=(",", ":"))
