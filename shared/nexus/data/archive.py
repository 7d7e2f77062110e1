"""The archive of posts: which object of the archive bucket holds an archived post.

An object is gzip-compressed JSON lines, one a post with its comments, as DynamoDB's JSON:
posts/<day>/<SHA-256 of the lines>.jsonl.gz. The same posts make the same object, so a repeat replaces it with itself.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nexus.data import objects
from nexus.data.dynamodb import Item, Meter, Table, Value

POINTERS = Table("analytics", ("kind", "period"))
_KIND = "archived"


@dataclass(frozen=True, slots=True)
class ArchivedPost:
    """A post's item and its comments' items, as they were stored."""

    post: Item
    comments: Sequence[Item] = ()

    @property
    def post_id(self) -> str:
        post_id: str = self.post["post_id"]["S"]
        return post_id


class ArchiveError(Exception):
    """What was read back from the archive is not what was written; nothing has been removed."""


def write(day: str, archived: Sequence[ArchivedPost], *, meter: Meter | None = None) -> str:
    """Writes an object, reads it back, and notes which posts it holds; answers with its key. Raises ArchiveError."""
    ordered = sorted(archived, key=lambda one: one.post_id)
    text = b"".join(_line(one) for one in ordered)
    key = f"posts/{day}/{hashlib.sha256(text).hexdigest()}.jsonl.gz"
    objects.put("archive", key, gzip.compress(text, mtime=0), "application/gzip")
    if read(key) != {one.post_id: one for one in ordered}:
        raise ArchiveError(f"{key} reads back as something else")
    pointers: list[Mapping[str, Value]] = [{"kind": _KIND, "period": one.post_id, "object": key} for one in ordered]
    POINTERS.put_many(pointers, meter=meter)
    return key


def read(key: str) -> dict[str, ArchivedPost]:
    """The posts in an object, by id. Raises LookupError when there is no such object."""
    lines = gzip.decompress(objects.get("archive", key)).splitlines()
    parsed = (json.loads(line) for line in lines)
    found = (ArchivedPost(one["post"], tuple(one["comments"])) for one in parsed)
    return {one.post_id: one for one in found}


def find(post_ids: Iterable[str], *, meter: Meter | None = None) -> dict[str, str]:
    """The object that holds each of the posts that are archived."""
    keys = [{"kind": _KIND, "period": post_id} for post_id in dict.fromkeys(post_ids)]
    return {item["period"]["S"]: item["object"]["S"] for item in POINTERS.get_many(keys, consistent=True, meter=meter)}


def forget(post_ids: Iterable[str], *, meter: Meter | None = None) -> None:
    """Takes restored posts out of the list; their objects stay."""
    POINTERS.delete_many([{"kind": _KIND, "period": post_id} for post_id in dict.fromkeys(post_ids)], meter=meter)


def _line(one: ArchivedPost) -> bytes:
    value = {"post": one.post, "comments": list(one.comments)}
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode() + b"\n"
