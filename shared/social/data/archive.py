"""The archive of posts: which object of the archive bucket holds an archived post.

An object is gzip-compressed JSON lines, one a post with its comments, as DynamoDB's JSON:
posts/<day>/<SHA-256 of the lines>.jsonl.gz. The same posts make the same object, so a repeat replaces it with itself.
One item of the analytics table an object lists the posts in it: a list of 1,000 is 20 write units, where an item for
each post would be 1,000. Bringing a post back, which is rare, reads the lists: 2,500 read units a million posts.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nexus.aws.dynamodb import Row, Value
from nexus.aws.rows import read_count, read_texts
from nexus.aws.table import Meter
from social.data import analytics, objects

LISTS = analytics.TABLE
_KIND = "archived"


@dataclass(frozen=True, slots=True)
class ArchivedPost:
    """A post's item and its comments' items, as they were stored."""

    post: Row
    comments: Sequence[Row] = ()

    @property
    def post_id(self) -> str:
        post_id: str = self.post["post_id"]["S"]
        return post_id


class ArchiveError(Exception):
    """What was read back from the archive is not what was written; nothing has been removed."""


def write(day: str, archived: Sequence[ArchivedPost], now: int, *, meter: Meter | None = None) -> str:
    """Writes an object, reads it back, and lists the posts in it; answers with its key. Raises ArchiveError."""
    ordered = sorted(archived, key=lambda one: one.post_id)
    text = b"".join(_line(one) for one in ordered)
    key = f"posts/{day}/{hashlib.sha256(text).hexdigest()}.jsonl.gz"
    objects.put("archive", key, gzip.compress(text, mtime=0), "application/gzip")
    if read(key) != {one.post_id: one for one in ordered}:
        raise ArchiveError(f"{key} reads back as something else")
    listed: Sequence[Value] = [one.post_id for one in ordered]
    LISTS.put({"kind": _KIND, "period": key, "posts": listed, "written_at": now}, meter=meter)
    return key


def read(key: str) -> dict[str, ArchivedPost]:
    """The posts in an object, by id. Raises LookupError when there is no such object."""
    lines = gzip.decompress(objects.get("archive", key)).splitlines()
    parsed = (json.loads(line) for line in lines)
    found = (ArchivedPost(one["post"], tuple(one["comments"])) for one in parsed)
    return {one.post_id: one for one in found}


def find(post_ids: Iterable[str], *, meter: Meter | None = None) -> dict[str, str]:
    """The latest object that holds each of the posts that were ever archived."""
    wanted = set(post_ids)
    found: dict[str, tuple[int, str]] = {}
    for page in LISTS.query(_KIND, consistent=True, meter=meter):
        for item in page.items:
            key = item["period"]["S"]
            for post_id in wanted.intersection(read_texts(item, "posts", key)):
                found[post_id] = max(found.get(post_id, (0, "")), (read_count(item, "written_at", key, default=0), key))
    return {post_id: key for post_id, (_, key) in found.items()}


def _line(one: ArchivedPost) -> bytes:
    value = {"post": one.post, "comments": list(one.comments)}
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode() + b"\n"
