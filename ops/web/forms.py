"""Reads what a page or program sends, a form or JSON, as names and values."""

import json
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request

from ops.problems import usage

LIMIT = 4_000_000
"""Bytes. A message has up to a megabyte, and a form writes three for some of them."""


async def read(request: Request) -> dict[str, Any]:
    """Reads a request's body. A repeated name becomes a list. Raises Problem if the body is invalid."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LIMIT:
            raise usage("The body is too long")
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            found = json.loads(body or b"{}")
        except ValueError as error:
            raise usage("The body is not JSON", str(error)) from None
        if not isinstance(found, dict):
            raise usage("An action's body must be a JSON object")
        return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in found.items()}
    values = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: given[0] if len(given) == 1 else given for name, given in values.items()}
