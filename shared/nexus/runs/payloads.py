"""A result as its record keeps it: JSON in the item, or an object in S3 when the item would grow too large.

What follows the run then takes it from there too: a message carries the pointer.
"""

import json
import os
from dataclasses import dataclass
from typing import Any

from nexus.aws.sdk import client
from nexus.backend import backend
from nexus.backend.memory import MemoryStore
from nexus.backend.store import Item
from nexus.errors import NexusError
from nexus.settings import settings
from nexus.values import compact

INLINE_BYTES = 200 * 1024
"""Below DynamoDB's 400 KB item with the rest of the record; a kilobyte costs a write unit, so large ones are dear."""

ITEM_BYTES = 350 * 1024
"""Of a result and of what is to follow the run: the rest of DynamoDB's 400 KiB is for an error and the small things."""

_POINTER = "s3:"


class ResultExpired(NexusError):
    """The result, or the argument, was kept in S3 and its time there is over."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A value that is kept in S3, in the place of the value."""

    where: str


def dump(run_id: str, value: Any, *, inline: int = INLINE_BYTES) -> str:
    """The text for the record: the JSON itself up to `inline` bytes, else a pointer to an object of the archive bucket.

    results/<queue>/<id>.json, of the queue that this function serves: its role may write there alone, and read all. A
    `value` that is a text is JSON already. In memory the store keeps the objects too.
    """
    text = value if isinstance(value, str) else compact(value)
    data = text.encode()
    if len(data) <= inline:
        return text
    key = f"results/{os.environ.get('NEXUS_QUEUE', 'none')}/{run_id}.json"
    store = backend().store
    if isinstance(store, MemoryStore):
        store.objects[key] = text
    else:
        client("s3").put_object(Bucket=settings().bucket("archive"), Key=key, Body=data, ContentType="application/json")
    return _POINTER + key


def room(item: Item) -> int:
    """How many bytes of result a record has room for beside what is to follow the run."""
    return min(INLINE_BYTES, ITEM_BYTES - sum(len(str(item.get(name, "")).encode()) for name in ("then", "on_error")))


def load(text: str) -> Any:
    """The value that `dump` was given, parsed. Raises ResultExpired."""
    return json.loads(load_text(text))


def taken(text: str) -> Any:
    """The value that `dump` was given, or its Pointer."""
    return Pointer(text) if text.startswith(_POINTER) else json.loads(text)


def load_text(text: str) -> str:
    """The text that `dump` was given. Raises ResultExpired."""
    if not text.startswith(_POINTER):
        return text
    key, store = text.removeprefix(_POINTER), backend().store
    kept = store.objects.get(key) if isinstance(store, MemoryStore) else _from_s3(key)
    if kept is None:
        raise ResultExpired(f"{key} is gone, or may not be read: results are kept as long as run records")
    return kept


def _from_s3(key: str) -> str | None:
    s3 = client("s3")
    try:
        answer = s3.get_object(Bucket=settings().bucket("archive"), Key=key)
    except s3.exceptions.ClientError as error:
        # To whoever may not list the bucket S3 says that a missing object is forbidden: nobody lists others' results.
        if error.response["Error"]["Code"] not in ("NoSuchKey", "AccessDenied"):
            raise
        return None
    return answer["Body"].read().decode()
