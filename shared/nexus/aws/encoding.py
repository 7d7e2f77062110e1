"""JSON as AWS takes it, by orjson where it is installed."""

import json
from typing import Any

try:
    from orjson import dumps as _dumps
    from orjson import loads
except ImportError:  # a web application has boto3 and pydantic alone
    from json import loads  # type: ignore[assignment]

    def _dumps(value: Any, /) -> bytes:  # type: ignore[misc]
        """As orjson's."""
        return json.dumps(value, separators=(",", ":")).encode()


__all__ = ("dumps", "loads")


def dumps(value: Any) -> bytes:
    """JSON of what holds no bytes and no dates. What is no Unicode is escaped, for AWS to refuse."""
    try:
        return _dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()
