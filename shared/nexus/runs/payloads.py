"""A result as its record keeps it: JSON in the item, or an object in S3 when the item would grow too large.

What follows the run then takes it from there too: a message carries the pointer.
"""

import json
import os
from typing import Any

from nexus.aws.sdk import client
from nexus.errors import NexusError
from nexus.settings import settings

INLINE_BYTES = 200 * 1024
"""Below DynamoDB's 400 KB item with the rest of the record; a kilobyte costs a write unit, so large ones are dear."""

_POINTER = "s3:"


class ResultExpired(NexusError):
    """The result, or the argument, was kept in S3 and its time there is over."""


def dump(run_id: str, value: Any, *, inline: int = INLINE_BYTES) -> str:
    """The text for the record: the JSON itself up to `inline` bytes, else a pointer to an object of the archive bucket.

    results/<queue>/<id>.json, of the queue that this function serves: its role may write there alone, and read all. A
    `value` that is a text is JSON already.
    """
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    data = text.encode()
    if len(data) <= inline or is_pointer(text):
        return text
    key = f"results/{os.environ.get('NEXUS_QUEUE', 'none')}/{run_id}.json"
    client("s3").put_object(Bucket=settings().bucket("archive"), Key=key, Body=data, ContentType="application/json")
    return _POINTER + key


def is_pointer(text: str) -> bool:
    """Whether the value is kept in S3: no JSON begins so."""
    return text.startswith(_POINTER)


def load(text: str) -> Any:
    """The value that `dump` was given, parsed. Raises ResultExpired."""
    return json.loads(load_text(text))


def load_text(text: str) -> str:
    """The text that `dump` was given. Raises ResultExpired."""
    if not is_pointer(text):
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
