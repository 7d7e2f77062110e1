"""A mirror for each kind of row: its fields, and what it writes to the network."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar

from django.db.models import Count
from pydantic import Field

from nexus import clock
from nexus.errors import Retry
from social import application, backfill
from social.backfill import Id, Moment, PostRow, Row, UserRow, seconds_of
from social.data import blocks, comments, posts, sessions, users
from social.data.comments import Comment
from social.data.days import day_of
from social.data.sessions import Session, Token
from social.django import conf
from social.django.mirror import Key, Mirror, Source, counted

THREADS = 8


class Users(Mirror[UserRow]):
    """Users. Omitted fields stay as the network has them; a deleted user is erased."""

    kind, row, key = "users", UserRow, ("user_id",)
    usual: ClassVar[Mapping[str, Source]] = {"user_id": "pk"}

    def write(self, key: Key, wanted: UserRow | None) -> None:
        if wanted is None:
            application.delete_user(*key)
            return
        there = users.get(wanted.user_id, consistent=True)
        if there is None:
            if not users.create(backfill.user_of(wanted)):
                raise Retry(f"user {wanted.user_id} was created at the same time", after=1.0)
            return
        # A name or locale that has become NULL is the default again; a NULL `digest` leaves the reader's choice.
        mapped = {"name", "locale"} & self.fields.keys() | {"digest"} & wanted.model_fields_set
        given = wanted.model_dump(include=mapped)
        given["email"] = users.normal_email(wanted.email)
        if changed := {name: value for name, value in given.items() if getattr(there, name) != value}:
            application.change_user(wanted.user_id, **changed)
        if wanted.last_active_at is not None:
            users.record_activity(wanted.user_id, day_of(seconds_of(wanted.last_active_at)))
        if wanted.suppressed:
            users.suppress(wanted.user_id, wanted.suppressed)
        elif "suppressed" in self.fields and there.suppressed and there.suppressed not in users.SUPPRESSED_BY_FEEDBACK:
            users.end_suppression(wanted.user_id, there.suppressed)

    def put(self, rows: Sequence[UserRow]) -> None:
        backfill.users(row.model_dump(exclude_unset=True) for row in rows)


class Posts(Mirror[PostRow]):
    """Posts. Given counters are the database's; the others are the network's.

    The author is sent with the key: a deleted post that is in the archive is found only through them.
    """

    kind, row, key, owner = "posts", PostRow, ("post_id",), "author_id"
    usual: ClassVar[Mapping[str, Source]] = {"post_id": "pk"}

    def row_of(self, values: Mapping[str, Any]) -> PostRow:
        """The row; a NULL `visibility` is private."""
        row = super().row_of(values)
        if "visibility" in self.fields and values["of_visibility"] is None:
            return row.model_copy(update={"visibility": "private"})
        return row

    def write(self, key: Key, wanted: PostRow | None) -> None:
        if wanted is None:
            application.delete_post(key[0], author_id=key[1] if len(key) > 1 else None)
            return
        there = posts.get(wanted.post_id, consistent=True)
        if there is None:
            made = backfill.post_of(self.with_counts([wanted])[0])
            self._done(wanted, posts.create(made, now=int(clock.now())))
            return
        tags = application.hashtags_of(wanted.text, wanted.hashtags)
        if (there.text, there.hashtags) != (wanted.text, tags):
            self._done(wanted, application.edit_post(wanted.post_id, wanted.text, tags=wanted.hashtags))
        if there.visibility != wanted.visibility and "visibility" in wanted.model_fields_set:
            self._done(wanted, application.set_visibility(wanted.post_id, wanted.visibility))
        names = [name.removesuffix("_count") for name in posts.COUNTERS if name in wanted.model_fields_set]
        if names:
            counted(wanted.post_id, **{name: getattr(wanted, f"{name}_count") for name in names})

    def _done(self, row: PostRow, done: bool) -> None:
        if not done:
            raise Retry(f"post {row.post_id} is being archived or erased", after=60.0)

    def put(self, rows: Sequence[PostRow]) -> None:
        backfill.posts(row.model_dump(exclude_unset=True) for row in self.with_counts(rows))

    def with_counts(self, rows: Sequence[PostRow]) -> Sequence[PostRow]:
        """The rows with the database's number of likes and comments, if those are mirrored."""
        ids = [row.post_id for row in rows]
        for kind, mirror in conf.mirrors().items():
            if isinstance(mirror, OfPost) and (counter := f"{kind}_count") not in self.fields:
                found = mirror.count(ids)
                rows = [row.model_copy(update={counter: found.get(row.post_id, 0)}) for row in rows]
        return rows


class OfPost[R: Row](Mirror[R]):
    """Rows of a post that a counter of the post counts."""

    def count(self, post_ids: Sequence[str]) -> dict[str, int]:
        """How many rows each of the posts has; posts without rows are left out. One query."""
        post = self._attribute(self.fields["post_id"])
        found = self.model._base_manager.using(self.database).filter(self.where, **{f"{post}__in": post_ids}).order_by()
        return {str(row[post]): row["n"] for row in found.values(post).annotate(n=Count("*"))}

    def bring_post(self, post_id: str) -> bool:
        """Mirrors the post, which may arrive later than its rows or be archived; False if it does not exist.

        Raises Retry while the post cannot be created.
        """
        mirror = conf.mirrors().get("posts")
        if mirror is None or mirror.read((post_id,)) is None:
            return False
        mirror.sync((post_id,))
        return True


class CommentRow(Row):
    """A comment."""

    comment_id: Id
    post_id: Id
    author_id: Id
    created_at: Moment
    text: str = Field(default="", max_length=100_000)


class Comments(OfPost[CommentRow]):
    """Comments: each is an item, and the post has their number."""

    kind, row, key = "comments", CommentRow, ("post_id", "comment_id")
    usual: ClassVar[Mapping[str, Source]] = {"comment_id": "pk"}

    def read(self, key: Key) -> tuple[CommentRow | None, int]:
        """The comment, and the number of its post's comments."""
        return super().read(key), self.count([key[0]]).get(key[0], 0)

    def write(self, key: Key, wanted: tuple[CommentRow | None, int]) -> None:
        (post_id, comment_id), (row, number) = key, wanted
        if row is None:  # before counting: otherwise a concurrent erasure of the comment would subtract it again
            comments.hide(post_id, comment_id, int(clock.now()))
            counted(post_id, comments=number)
        elif self._written(row) or (self.bring_post(post_id) and self._written(row)):
            counted(post_id, comments=number)

    def _written(self, row: CommentRow) -> bool:
        """Whether the network now has the comment; False without its post."""
        at = seconds_of(row.created_at)
        made = application.comment(row.post_id, row.author_id, row.text, comment_id=row.comment_id, at=at)
        if made is not None:
            return True
        item = comments.TABLE.get({"post_id": row.post_id, "comment_id": row.comment_id}, consistent=True)
        if item is not None and ("deleted_at" in item or item.get("text") != {"S": row.text}):
            comments.show(_comment(row))
        return item is not None

    def put(self, rows: Sequence[CommentRow]) -> None:
        comments.put_many([_comment(row) for row in rows], threads=THREADS)


class LikeRow(Row):
    """A like; the network stores only the number of likes."""

    post_id: Id


class Likes(OfPost[LikeRow]):
    """Likes, or anything else counted as one: the post has their number."""

    kind, row, key = "likes", LikeRow, ("post_id",)

    def read(self, key: Key) -> int:
        """The number of the post's likes."""
        return self.count(key).get(key[0], 0)

    def write(self, key: Key, wanted: int) -> None:
        if not counted(*key, likes=wanted) and self.bring_post(*key):
            counted(*key, likes=wanted)

    def put(self, rows: Sequence[LikeRow]) -> None:
        for post_id in {row.post_id for row in rows}:
            self.sync((post_id,))


class FollowRow(Row):
    """An edge."""

    follower_id: Id
    followed_id: Id
    created_at: Moment | None = None


class Follows(Mirror[FollowRow]):
    """Follows between users. A user's follow of themselves is not written."""

    kind, row, key = "follows", FollowRow, ("follower_id", "followed_id")

    def write(self, key: Key, wanted: FollowRow | None) -> None:
        if wanted is None:
            application.unfollow(*key)
        else:
            application.follow(*key, at=_at(wanted.created_at))

    def put(self, rows: Sequence[FollowRow]) -> None:
        backfill.follows({**row.model_dump(), "created_at": _at(row.created_at)} for row in rows)


class BlockRow(Row):
    """Which user blocks which."""

    user_id: Id
    blocked_id: Id
    created_at: Moment | None = None


class Blocks(Mirror[BlockRow]):
    """Blocks. The database deletes the follows of a block itself, as `social.application.block` does."""

    kind, row, key = "blocks", BlockRow, ("user_id", "blocked_id")

    def write(self, key: Key, wanted: BlockRow | None) -> None:
        if wanted is None:
            application.unblock(*key)
        else:
            self.put([wanted])

    def put(self, rows: Sequence[BlockRow]) -> None:
        for row in rows:
            blocks.add(row.user_id, row.blocked_id, _at(row.created_at))


class SessionRow(Row):
    """A signed-in device. `session_id` is not a secret: a primary key or a hash, not the cookie's value."""

    user_id: Id
    session_id: Id
    created_at: datetime
    last_seen_at: datetime | None = None
    expires_at: datetime


class Sessions(Mirror[SessionRow]):
    """Sessions. Ending one removes its refresh tokens."""

    kind, row, key = "sessions", SessionRow, ("user_id", "session_id")
    usual: ClassVar[Mapping[str, Source]] = {"session_id": "pk"}

    def write(self, key: Key, wanted: SessionRow | None) -> None:
        if wanted is None:
            application.sign_out(*key)
        else:
            self.put([wanted])

    def put(self, rows: Sequence[SessionRow]) -> None:
        sessions.put_sessions([_session(row) for row in rows], threads=THREADS)


class TokenRow(Row):
    """A refresh token, identified by its id (a JWT's `jti`), never its text."""

    user_id: Id
    token_id: Id
    issued_at: datetime
    expires_at: datetime
    session_id: Annotated[str, Field(max_length=64)] = ""


class Tokens(Mirror[TokenRow]):
    """Refresh tokens."""

    kind, row, key = "tokens", TokenRow, ("user_id", "token_id")

    def write(self, key: Key, wanted: TokenRow | None) -> None:
        if wanted is None:
            sessions.TOKENS.delete_many([dict(zip(self.key, key, strict=True))])
        else:
            self.put([wanted])

    def put(self, rows: Sequence[TokenRow]) -> None:
        moments: Any = ({"issued_at": seconds_of(r.issued_at), "expires_at": seconds_of(r.expires_at)} for r in rows)
        sessions.put_tokens(
            [Token(r.user_id, r.token_id, session_id=r.session_id, **at) for r, at in zip(rows, moments, strict=True)],
            threads=THREADS,
        )


def _comment(row: CommentRow) -> Comment:
    return Comment(row.post_id, row.comment_id, row.author_id, seconds_of(row.created_at), row.text)


def _session(row: SessionRow) -> Session:
    created, expires = seconds_of(row.created_at), seconds_of(row.expires_at)
    seen = created if row.last_seen_at is None else seconds_of(row.last_seen_at)
    return Session(row.user_id, row.session_id, created_at=created, last_seen_at=seen, expires_at=expires)


def _at(moment: datetime | None) -> int:
    return int(clock.now()) if moment is None else seconds_of(moment)
