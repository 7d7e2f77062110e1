"""A result as its record stores it: JSON in the item, or an object in S3 if the item would grow too large.

In the second case, the message of the next step carries the pointer, and the step reads the object.
"""

import json
import os
from dataclasses import dataclass
from typing import Any

from nexus.aws.sdk import client, is_no_object
from nexus.backend import backend
from nexus.backend.store import Item
from nexus.errors import NexusError
from nexus.settings import settings
from nexus.values import compact

INLINE_BYTES = 200 * 1024
"""Leaves room for the rest of the record in a 400 KB item; each kilobyte costs a write unit."""

ITEM_BYTES = 350 * 1024
"""Limit for a result plus what follows the run: the rest of DynamoDB's 400 KiB is for an error and small attributes."""

_POINTER = "s3:"
_FOLDER = "results/"


class ResultExpired(NexusError):
    """The result, or the argument, was stored in S3 and has expired there."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """Replaces a value that is stored in S3."""

    where: str


def dump(run_id: str, value: Any, *, inline: int = INLINE_BYTES) -> str:
    """The text for the record: the JSON itself up to `inline` bytes, else a pointer to an object in the archive bucket.

    The key is results/<queue>/<id>.json, of the queue that this function serves: its role may write only there, and
    read all. A `value` that is text is already JSON. In memory the store keeps the objects too.
    """
    text = value if isinstance(value, str) else compact(value)
    data = text.encode()
    if len(data) <= inline:
        return text
    key = f"{_FOLDER}{os.environ.get('NEXUS_QUEUE', 'none')}/{run_id}.json"
    if (objects := _in_memory()) is not None:
        objects[key] = text
    else:
        client("s3").put_object(Bucket=settings().bucket("archive"), Key=key, Body=data, ContentType="application/json")
    return _POINTER + key


def room(item: Item) -> int:
    """How many bytes of result a record has room for next to what follows the run."""
    return min(INLINE_BYTES, ITEM_BYTES - sum(len(str(item.get(name, "")).encode()) for name in ("then", "on_error")))


def load(text: str) -> Any:
    """The value passed to `dump`, parsed. Raises ResultExpired."""
    return json.loads(load_text(text))


def taken(text: str) -> Any:
    """The value passed to `dump`, or its Pointer."""
    return Pointer(text) if text.startswith(_POINTER) else json.loads(text)


def load_text(text: str) -> str:
    """The text passed to `dump`. Raises ResultExpired."""
    if not text.startswith(_POINTER):
        return text
    key = text.removeprefix(_POINTER)
    if not key.startswith(_FOLDER):  # otherwise a writer of records could choose what its reader fetches
        raise ResultExpired(f"{key} is not a result")
    objects = _in_memory()
    kept = _from_s3(key) if objects is None else objects.get(key)
    if kept is None:
        raise ResultExpired(f"{key} has been deleted, or may not be read: results are kept as long as run records")
    return kept


def _in_memory() -> dict[str, str] | None:
    """The objects of a store in memory; None if they are in S3."""
    from nexus.backend.memory import MemoryStore  # imported here: a function never has this store

    store = backend().store
    return store.objects if isinstance(store, MemoryStore) else None


def _from_s3(key: str) -> str | None:
    s3 = client("s3")
    from botocore.exceptions import ResponseStreamingError
    from urllib3.exceptions import HTTPError

    try:
        response = s3.get_object(Bucket=settings().bucket("archive"), Key=key)
    except s3.exceptions.ClientError as error:
        if not is_no_object(error):
            raise
        return None
    try:
        return response["Body"].read().decode()
    except HTTPError as error:  # botocore translates only some of them, and not those of TLS
        raise ResponseStreamingError(error=error) from error
