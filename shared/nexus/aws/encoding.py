"""JSON by orjson where it is installed: as AWS takes it, and as a log line."""

import json
from collections.abc import Callable
from typing import Any

try:
    from orjson import dumps as _dumps
    from orjson import loads
except ImportError:  # a web application has boto3 and pydantic alone
    from json import loads  # type: ignore[assignment]

    def _dumps(value: Any, /, default: Callable[[Any], Any] | None = None) -> bytes:  # type: ignore[misc]
        """As orjson's."""
        return json.dumps(value, default=default, separators=(",", ":")).encode()


__all__ = ("dumps", "line", "loads")


def dumps(value: Any) -> bytes:
    """JSON of what holds no bytes and no dates. What is no Unicode is escaped, for AWS to refuse."""
    try:
        return _dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


def line(value: Any) -> str:
    """JSON on one line. What JSON does not know is its text."""
    try:
        return _dumps(value, default=str).decode()
    except TypeError:  # a text that is no Unicode, a number of more than 64 bits
        return json.dumps(value, default=str, separators=(",", ":"))
