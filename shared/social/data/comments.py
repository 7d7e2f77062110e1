"""Comments: one item per comment, under its post.

The index `by-day` finds a day's comments without reading others, `by-author` those of a user to be erased.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nexus.aws.dynamodb import Condition, Row, Value, Write
from nexus.aws.table import Meter, Page, Table
from social.data import days

BY_DAY, BY_AUTHOR = "by-day", "by-author"
TABLE = Table(
    "comments",
    ("post_id", "comment_id"),
    {BY_DAY: ("bucket", "created_at"), BY_AUTHOR: ("author_id", "created_at")},
)


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment. `created_at` is seconds since 1970; a `deleted` one keeps its place in a thread but is not counted."""

    post_id: str
    comment_id: str
    author_id: str
    created_at: int
    text: str = ""
    deleted: bool = False


def items_of_post(post_id: str, *, meter: Meter | None = None) -> list[Row]:
    """The comments of a post as stored, read consistently: for the archive."""
    return [item for page in TABLE.query(post_id, consistent=True, meter=meter) for item in page.items]


def written_by(author_id: str, *, meter: Meter | None = None) -> Iterator[Page]:
    """The keys of an author's comments, including deleted ones."""
    yield from TABLE.query(author_id, index=BY_AUTHOR, attributes=TABLE.key, meter=meter)


def put_many(comments: Sequence[Comment], *, meter: Meter | None = None, threads: int = 1) -> int:
    """Writes comments unconditionally: for imports, restores and demo data."""
    return TABLE.put_many([to_values(comment) for comment in comments], meter=meter, threads=threads)


def hidden(post_id: str, comment_id: str, at: int) -> Write:
    """The write that hides a comment, keeping its place in the thread, unless it is hidden already."""
    return Write(
        {"post_id": post_id, "comment_id": comment_id},
        set={"deleted_at": at, "text": ""},
        remove=("bucket",),
        when=(Condition("deleted_at", "missing"),),
    )


def hide(post_id: str, comment_id: str, at: int, *, meter: Meter | None = None) -> bool:
    """Hides a comment without changing its post's count; False if it was hidden already."""
    return TABLE.update(hidden(post_id, comment_id, at), meter=meter)


def show(comment: Comment, *, meter: Meter | None = None) -> bool:
    """Sets a comment's text, and ends its hiding, without changing its post's count; False if it does not exist."""
    values = to_values(comment)
    key = {name: str(values[name]) for name in TABLE.key}
    change = Write(key, set={"text": values["text"], "bucket": values["bucket"]}, remove=("deleted_at",))
    return TABLE.update(change, meter=meter)


def delete_many(keys: Sequence[tuple[str, str]], *, meter: Meter | None = None) -> int:
    """Deletes comments by (post, comment)."""
    return TABLE.delete_many([{"post_id": post, "comment_id": comment} for post, comment in keys], meter=meter)


def made_on(bucket: str, *, start: Row | None = None, meter: Meter | None = None) -> Iterator[Page]:
    """The keys of one bucket's comments and the time of each: post_id, comment_id, created_at."""
    yield from TABLE.query(bucket, index=BY_DAY, start=start, meter=meter)


def to_values(comment: Comment) -> Mapping[str, Value]:
    """The comment's item."""
    values: dict[str, Value] = {
        "post_id": comment.post_id,
        "comment_id": comment.comment_id,
        "author_id": comment.author_id,
        "created_at": comment.created_at,
        "bucket": days.bucket_of(comment.comment_id, comment.created_at),
        "text": comment.text,
    }
    if comment.deleted:
        values["deleted_at"] = comment.created_at
        del values["bucket"]
    return values
