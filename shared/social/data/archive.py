"""The archive of posts: which object of the archive bucket contains an archived post.

An object is gzip-compressed JSON lines, one per post with its comments, in DynamoDB JSON: posts/<day>/<SHA-256 of the
lines>.jsonl.gz. The same posts produce the same object, so repeating the write is idempotent. One analytics item per
object lists its posts: a list of 1,000 is 20 write units, whereas an item for each post would be 1,000. Restoring a
post, which is rare, reads the lists: 2,500 read units per million posts.

One item per person and object (kind archived-by#<user>) says which objects contain a person's posts and comments, so
that a person can be erased without reading the archive, and has the ids of the person's own posts. It is written before
the object and removed after it, so that every object with a person's data is listed there, even after a crash. An entry
may name an object that does not exist.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from nexus.aws.dynamodb import Row, Value
from nexus.aws.rows import read_count, read_texts
from nexus.aws.table import Meter
from social.data import analytics, objects

LISTS = analytics.TABLE
_KIND = "archived"
THREADS = 8


@dataclass(frozen=True, slots=True)
class ArchivedPost:
    """A post's item and its comments' items, as they were stored."""

    post: Row
    comments: Sequence[Row] = ()

    @property
    def people(self) -> set[str]:
        """The authors of the post and of its comments."""
        return {row["author_id"]["S"] for row in (self.post, *self.comments) if "author_id" in row}

    @property
    def post_id(self) -> str:
        post_id: str = self.post["post_id"]["S"]
        return post_id


class ArchiveError(Exception):
    """The archive returned something other than what was written; nothing has been removed."""


class OtherAuthor(Exception):
    """The post to erase is another user's."""

    def __init__(self, post_id: str, user_id: str) -> None:
        super().__init__(f"post {post_id} does not belong to user {user_id}")


def write(day: str, archived: Sequence[ArchivedPost], now: int, *, meter: Meter | None = None) -> str:
    """Writes an object, reads it back, and lists the posts in it. Returns its key. Raises ArchiveError."""
    ordered = sorted(archived, key=lambda one: one.post_id)
    text = b"".join(_line(one) for one in ordered)
    key = f"posts/{day}/{hashlib.sha256(text).hexdigest()}.jsonl.gz"
    entries = [{"kind": _by(person), "period": key, "posts": own} for person, own in _by_person(ordered).items()]
    LISTS.put_many(entries, meter=meter, threads=THREADS)
    objects.put("archive", key, gzip.compress(text, mtime=0), "application/gzip")
    if read(key) != {one.post_id: one for one in ordered}:
        raise ArchiveError(f"{key}: what was read back differs from what was written")
    listed: Sequence[Value] = [one.post_id for one in ordered]
    LISTS.put({"kind": _KIND, "period": key, "posts": listed, "written_at": now}, meter=meter)
    return key


def exists(key: str) -> bool:
    """Whether the object exists. Uses a listing: a role that may not list the whole bucket gets 403 if absent."""
    return key in objects.keys("archive", key)


def read(key: str) -> dict[str, ArchivedPost]:
    """The posts in an object, by id. Raises LookupError if the object does not exist."""
    lines = gzip.decompress(objects.get("archive", key)).splitlines()
    parsed = (json.loads(line) for line in lines)
    found = (ArchivedPost(one["post"], tuple(one["comments"])) for one in parsed)
    return {one.post_id: one for one in found}


def find(post_ids: Iterable[str], *, meter: Meter | None = None) -> dict[str, str]:
    """The latest object that contains each of the posts ever archived."""
    wanted = set(post_ids)
    found: dict[str, tuple[int, str]] = {}
    for page in LISTS.query(_KIND, consistent=True, meter=meter):
        for item in page.items:
            key = item["period"]["S"]
            for post_id in wanted.intersection(read_texts(item, "posts", key)):
                found[post_id] = max(found.get(post_id, (0, "")), (read_count(item, "written_at", key, default=0), key))
    return {post_id: key for post_id, (_, key) in found.items()}


def may_hold(user_id: str, post_id: str, *, meter: Meter | None = None) -> bool:
    """Whether an object may contain this post of the user's. One query.

    For entries that were written before entries had the ids of posts, the objects' lists are read, a hundred a request.
    """
    older = set[str]()
    for item in _entries(user_id, meter):
        key = item["period"]["S"]
        if "posts" not in item:
            older.add(key)
        elif post_id in read_texts(item, "posts", key):
            return True
    return bool(_may_list(older, post_id, meter))


def erase(user_id: str, post_id: str | None = None, *, last: bool, meter: Meter | None = None) -> Iterator[str]:
    """Erases a user's posts and comments, or one of the posts, from every object. Yields each key that it replaces.

    A caller may stop after any key: the next erasure continues with the objects that are left. For one post, only the
    objects are read whose lists have it. One request reads a hundred lists.

    Each object is replaced by one without them. Two erasures may replace the same object concurrently, each keeping
    what the other has erased; then the replacement is found under the user's entries, at the latest by the `last`
    erasure, a sandbox's lifetime after the first. That one also removes entries of objects that do not exist.

    Raises OtherAuthor if the one post is not the user's; nothing has been erased from the archive.
    """
    seen = set[str]()
    while keys := {item["period"]["S"] for item in _entries(user_id, meter)} - seen:
        seen |= keys
        for key in sorted(keys if post_id is None else _may_list(keys, post_id, meter)):
            if _rewrite(key, user_id, post_id, last, meter):
                yield key


def _may_list(keys: set[str], post_id: str, meter: Meter | None) -> set[str]:
    """The objects whose lists have the post, or that have no list, as while an object is written or replaced."""
    lists = [{"kind": _KIND, "period": key} for key in sorted(keys)]
    others = set[str]()
    for item in LISTS.get_many(lists, consistent=True, meter=meter):
        key = item["period"]["S"]
        if post_id not in read_texts(item, "posts", key):
            others.add(key)
    return keys - others


def _rewrite(key: str, user_id: str, post_id: str | None, last: bool, meter: Meter | None) -> bool:
    if not exists(key):  # its writer died or has not written it yet, or it has been replaced
        if last:
            LISTS.delete({"kind": _by(user_id), "period": key}, meter=meter)
        return False
    inside = read(key)
    if post_id is not None and post_id in inside and inside[post_id].post.get("author_id") != {"S": user_id}:
        raise OtherAuthor(post_id, user_id)
    held = list(inside.values())
    kept = [left for one in held if (left := _without(one, user_id, post_id)) is not None]
    if kept == held:
        return False
    for gone in {one.post_id for one in held} - {one.post_id for one in kept}:
        objects.erase("archive", f"media/{gone}/")
    if kept:
        listed = LISTS.get({"kind": _KIND, "period": key}, consistent=True, meter=meter) or {}
        write(key.split("/")[1], kept, read_count(listed, "written_at", key, default=0), meter=meter)
    LISTS.delete({"kind": _KIND, "period": key}, meter=meter)
    objects.erase("archive", key)
    entries = [{"kind": _by(person), "period": key} for person in _by_person(held)]
    LISTS.delete_many(entries, meter=meter, threads=THREADS)
    return True


def _without(one: ArchivedPost, user_id: str, post_id: str | None) -> ArchivedPost | None:
    """The rest of a post without what a user wrote, or without that one post; None if nothing is left."""
    if one.post.get("author_id") == {"S": user_id} and post_id in (None, one.post_id):
        return None
    if post_id is not None:
        return one
    return replace(one, comments=tuple(row for row in one.comments if row.get("author_id") != {"S": user_id}))


def _entries(user_id: str, meter: Meter | None) -> Iterable[Row]:
    for page in LISTS.query(_by(user_id), consistent=True, meter=meter):
        yield from page.items


def _by_person(archived: Sequence[ArchivedPost]) -> dict[str, list[str]]:
    """Everyone with a post or a comment among these, and the ids of their own posts."""
    own: dict[str, list[str]] = {person: [] for person in sorted(set[str]().union(*(one.people for one in archived)))}
    for one in archived:
        if "author_id" in one.post:
            own[one.post["author_id"]["S"]].append(one.post_id)
    return own


def _by(user_id: str) -> str:
    return f"archived-by#{user_id}"


def _line(one: ArchivedPost) -> bytes:
    value = {"post": one.post, "comments": list(one.comments)}
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode() + b"\n"
