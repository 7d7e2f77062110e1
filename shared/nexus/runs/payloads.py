"""A result as its record keeps it: JSON in the item, or an object in S3 when the item would grow too large."""

import json
import os
from typing import Any

from nexus.aws.sdk import client
from nexus.backend import backend
from nexus.backend.memory import MemoryStore
from nexus.errors import NexusError
from nexus.settings import settings

INLINE_BYTES = 200 * 1024
"""Below DynamoDB's 400 KB item with the rest of the record; a kilobyte costs a write unit, so large ones are dear."""

_POINTER = "s3:"


class ResultExpired(NexusError):
    """The result was kept in S3 and its time there is over."""


def dump(run_id: str, value: Any) -> str:
    """The text for the record's `result`: the JSON itself, or a pointer to an object of the archive bucket.

    results/<queue>/<id>.json, of the queue that this function serves: its role may write there alone. In memory an item
    has no limit, and there is no bucket.
    """
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    data = text.encode()
    if len(data) <= INLINE_BYTES or isinstance(backend().store, MemoryStore):
        return text
    key = f"results/{os.environ.get('NEXUS_QUEUE', 'none')}/{run_id}.json"
    client("s3").put_object(Bucket=settings().bucket("archive"), Key=key, Body=data, ContentType="application/json")
    return _POINTER + key


def load(text: str) -> Any:
    """The value that `dump` was given, parsed. Raises ResultExpired."""
    return json.loads(load_text(text))


def load_text(text: str) -> str:
    """The text that `dump` was given. Raises ResultExpired."""
    if not text.startswith(_POINTER):
        return text
    s3 = client("s3")
    try:
        answer = s3.get_object(Bucket=settings().bucket("archive"), Key=text.removeprefix(_POINTER))
    except s3.exceptions.ClientError as error:
        # To whoever may not list the bucket S3 says that a missing object is forbidden: nobody lists others' results.
        if error.response["Error"]["Code"] not in ("NoSuchKey", "AccessDenied"):
            raise
        key = text.removeprefix(_POINTER)
        raise ResultExpired(f"{key} is gone, or may not be read: results are kept as long as run records") from None
    return answer["Body"].read().decode()
