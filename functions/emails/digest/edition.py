"""The week's edition: the posts for every reader's digest, made once per run and shared by its segments.

A SQLite file, compressed, in the archive bucket: each author's best posts of the week with the fields a mail shows,
the overall top, and who blocked whom. A segment fetches it once and looks a reader's authors up by index, so a reader
costs one query (whom they follow) and no post is read from DynamoDB twice.

The cost of making it, for half a million posts: one pass over the week in the feed index (85 bytes a post), the best
KEPT_POSTS in full, their authors, and one scan of the blocks.
"""

import gzip
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from digest.ranking import POSTS_OF_ONE_AUTHOR, Candidate, Reader, rank
from mail.rendering import Image, Picture, Story, choose_picture
from mail.words import person_name
from nexus.aws.table import Meter
from social.data import blocks, objects, posts, users
from social.data.posts import Post
from social.data.users import User
from social.text import one_line, shortened

FOLDER = "digest"
KEPT_OF_ONE_AUTHOR = POSTS_OF_ONE_AUTHOR + 1
"""One more than a digest shows, for a reader who was already sent one."""

KEPT_POSTS = 300_000
"""The most posts in an edition, those with the highest engagement; 100 MB of file."""

TOP_POSTS = 200
TEXT_KEPT = 400
"""Characters kept of a post: more than an excerpt shows, since links are removed when it is made."""

READ_AT_ONCE = 1_000
THREADS = 8

_SCHEMA = """
CREATE TABLE posts (author_id TEXT, post_id TEXT, created_at INTEGER, engagement INTEGER, story TEXT,
                    PRIMARY KEY (author_id, post_id)) WITHOUT ROWID;
CREATE TABLE authors (author_id TEXT PRIMARY KEY, name TEXT) WITHOUT ROWID;
CREATE TABLE blocks (user_id TEXT, blocked_id TEXT, PRIMARY KEY (user_id, blocked_id)) WITHOUT ROWID;
CREATE TABLE top (post_id TEXT, author_id TEXT, created_at INTEGER, engagement INTEGER);
CREATE TABLE blocks_read_to (next_key TEXT);
CREATE TABLE left_out (reason TEXT PRIMARY KEY, posts INTEGER);
"""


@dataclass(frozen=True, slots=True)
class Edition:
    """An open edition. Not thread-safe.

    `left_out` counts the week's public posts that are not in it, by reason.
    """

    database: sqlite3.Connection
    top: Sequence[Candidate]
    left_out: Mapping[str, int]

    def stories_for(self, user_id: str, follows: Sequence[str], already_sent: frozenset[str]) -> Sequence[Story]:
        """The reader's digest, best first; empty if there is nothing new."""
        reader = Reader(user_id, frozenset(follows), self._blocked_by(user_id), already_sent)
        chosen = rank([*self._by_authors(follows), *self.top], reader)
        return [self._story(candidate, candidate.author_id in reader.follows) for candidate in chosen]

    def _blocked_by(self, user_id: str) -> frozenset[str]:
        rows = self.database.execute("SELECT blocked_id FROM blocks WHERE user_id = ?", (user_id,))
        return frozenset(blocked_id for (blocked_id,) in rows)

    def _by_authors(self, author_ids: Sequence[str]) -> Iterator[Candidate]:
        rows = self.database.execute(
            "SELECT post_id, author_id, created_at, engagement FROM posts"
            " WHERE author_id IN (SELECT value FROM json_each(?))",
            (json.dumps(author_ids),),
        )
        yield from map(_candidate, rows)

    def _story(self, candidate: Candidate, followed: bool) -> Story:
        ((text, name),) = self.database.execute(
            "SELECT story, name FROM posts JOIN authors USING (author_id) WHERE author_id = ? AND post_id = ?",
            (candidate.author_id, candidate.post_id),
        )
        shown = json.loads(text)
        picture = shown.pop("picture", None)
        return Story(
            post_id=candidate.post_id,
            author=name,
            followed=followed,
            picture=picture and Picture(Image(*picture["lead"]), Image(*picture["thumb"]), picture["is_video"]),
            **shown,
        )


def build(
    path: Path, since: int, until: int, *, stop: Callable[[], bool] = lambda: False, meter: Meter | None = None
) -> bool:
    """Makes the edition of the public posts from `since` to before `until` (seconds since 1970).

    Calls `stop` after each thousand posts. If it is true, returns False, and the next call resumes from the file.
    Returns True when the edition is complete.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        for stage, step in enumerate(_STAGES, start=1):
            if database.execute("PRAGMA user_version").fetchone()[0] >= stage:
                continue
            for _ in step(database, since, until, meter):
                if stop():
                    return False
            database.execute(f"PRAGMA user_version = {stage}")
            if stage < len(_STAGES) and stop():
                return False
        return True


def held(path: Path) -> int:
    """The number of posts in an edition."""
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM posts").fetchone()[0])


def publish(path: Path, key: str) -> None:
    """Uploads the edition for the segments."""
    packed = path.with_suffix(".gz")
    with path.open("rb") as plain, gzip.open(packed, "wb", compresslevel=1) as out:
        shutil.copyfileobj(plain, out)
    objects.put("archive", key, packed.read_bytes(), "application/gzip")
    packed.unlink()


def fetch(key: str, path: Path) -> None:
    """Downloads an edition. Raises LookupError if it has expired or never existed."""
    packed = BytesIO(objects.get("archive", key))
    path.unlink(missing_ok=True)
    with gzip.open(packed, "rb") as content, path.open("wb") as plain:
        shutil.copyfileobj(content, plain)


def open_edition(path: Path) -> Edition:
    """Opens a fetched edition for reading."""
    database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    rows = database.execute("SELECT post_id, author_id, created_at, engagement FROM top")
    left_out = dict(database.execute("SELECT reason, posts FROM left_out WHERE posts > 0"))
    return Edition(database, [_candidate(row) for row in rows], left_out)


def _candidate(row: tuple[str, str, int, int]) -> Candidate:
    post_id, author_id, created_at, engagement = row
    return Candidate(post_id, author_id, engagement=engagement, created_at=created_at)


def days_named(until: int) -> tuple[date, date]:
    """(first, last) of the seven days that a mail names for posts before `until`: the last is the day before it.

    The posts of seven days up to 09:00 on a Monday fall on eight calendar days; the week is Monday to Sunday.
    """
    last = datetime.fromtimestamp(until, UTC).date() - timedelta(days=1)
    return last - timedelta(days=6), last


type _Steps = Iterator[None]
"""A stage of the build, resumed from the file; it yields where it may be interrupted."""


@contextmanager
def _written(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN")
    yield
    database.execute("COMMIT")


def _rank_week(database: sqlite3.Connection, since: int, until: int, meter: Meter | None) -> _Steps:
    """Stores the ids of each author's best posts, from the feed index."""
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (name,) in tables:
        database.execute(f'DROP TABLE "{name}"')  # of an interrupted attempt
    database.executescript(_SCHEMA)
    with _written(database):
        database.execute("CREATE TABLE ranked (post_id TEXT, author_id TEXT, created_at INTEGER, engagement REAL)")
        week = posts.ranked(since, until, meter=meter)
        rows = ((one.post_id, one.author_id, one.created_at, one.log_engagement) for one in week)
        database.executemany("INSERT INTO ranked VALUES (?, ?, ?, ?)", rows)
        database.execute(
            """
            CREATE TABLE kept AS SELECT post_id FROM (
                SELECT post_id, engagement, created_at, row_number() OVER (
                    PARTITION BY author_id ORDER BY engagement DESC, created_at DESC, post_id) AS place FROM ranked)
            WHERE place <= ? ORDER BY engagement DESC, created_at DESC, post_id LIMIT ?
            """,
            (KEPT_OF_ONE_AUTHOR, KEPT_POSTS),
        )
        ((ranked,),) = database.execute("SELECT count(*) FROM ranked")
        ((of_authors,),) = database.execute(
            "SELECT sum(min(posts, ?)) FROM (SELECT count(*) AS posts FROM ranked GROUP BY author_id)",
            (KEPT_OF_ONE_AUTHOR,),
        )
        ((kept,),) = database.execute("SELECT count(*) FROM kept")
        _leave_out(database, "their author has better ones", ranked - (of_authors or 0))
        _leave_out(database, "over the edition's size", (of_authors or 0) - kept)
        database.execute("DROP TABLE ranked")
    return iter(())


def _fill_posts(database: sqlite3.Connection, _since: int, _until: int, meter: Meter | None) -> _Steps:
    """Reads the stored posts in full."""
    while some := database.execute(
        "SELECT rowid, post_id FROM kept ORDER BY rowid LIMIT ?", (READ_AT_ONCE,)
    ).fetchall():
        found = list(posts.get_many([post_id for _, post_id in some], meter=meter, threads=THREADS))
        readable = [post for post in found if isinstance(post, Post)]
        # The index lags behind the post, so visibility is checked on the post itself.
        rows = [_row(post) for post in readable if post.visibility == "public"]
        with _written(database):
            database.executemany("INSERT OR IGNORE INTO posts VALUES (?, ?, ?, ?, ?)", rows)
            _leave_out(database, "deleted", len(some) - len(found))
            _leave_out(database, "unreadable", len(found) - len(readable))
            _leave_out(database, "no longer public", len(readable) - len(rows))
            database.execute("DELETE FROM kept WHERE rowid <= ?", (some[-1][0],))
        yield
    database.execute("DROP TABLE kept")
    database.execute("CREATE TABLE wanted AS SELECT DISTINCT author_id FROM posts")


def _leave_out(database: sqlite3.Connection, reason: str, count: int) -> None:
    database.execute(
        "INSERT INTO left_out VALUES (?, ?) ON CONFLICT (reason) DO UPDATE SET posts = posts + excluded.posts",
        (reason, count),
    )


def _row(post: Post) -> tuple[str, str, int, int, str]:
    picture = choose_picture(post.media)
    shown: dict[str, Any] = {
        "text": shortened(one_line(post.text), TEXT_KEPT),
        "likes": post.counters.likes,
        "comments": post.counters.comments,
        "shares": post.counters.shares,
    }
    if picture:
        lead, thumb = picture.lead, picture.thumb
        shown["picture"] = {
            "lead": (lead.key, lead.width, lead.height),
            "thumb": (thumb.key, thumb.width, thumb.height),
            "is_video": picture.is_video,
        }
    text = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
    # The current score: the stored one is as old as the last scoring.
    return post.author_id, post.post_id, post.created_at, posts.engagement_score(post.counters), text


def _fill_authors(database: sqlite3.Connection, _since: int, _until: int, meter: Meter | None) -> _Steps:
    """Reads the names of the authors."""
    while some := database.execute(
        "SELECT rowid, author_id FROM wanted ORDER BY rowid LIMIT ?", (READ_AT_ONCE,)
    ).fetchall():
        found = users.get_many([author_id for _, author_id in some], meter=meter, threads=THREADS)
        # An author without a usable name or readable row gets the neutral name (empty here).
        names = [(user.user_id, person_name(user.name)) if isinstance(user, User) else (user.key, "") for user in found]
        with _written(database):
            database.executemany("INSERT OR IGNORE INTO authors VALUES (?, ?)", names)
            database.execute("DELETE FROM wanted WHERE rowid <= ?", (some[-1][0],))
        yield
    with _written(database):
        gone = database.execute("DELETE FROM posts WHERE author_id NOT IN (SELECT author_id FROM authors)").rowcount
        _leave_out(database, "their author was deleted", gone)


def _fill_blocks(database: sqlite3.Connection, _since: int, _until: int, meter: Meter | None) -> _Steps:
    """Reads all blocks."""
    read_to = database.execute("SELECT next_key FROM blocks_read_to").fetchone()
    start = json.loads(read_to[0]) if read_to else None
    for page in blocks.TABLE.scan(attributes=blocks.TABLE.key, start=start, meter=meter):
        rows = [(item["user_id"]["S"], item["blocked_id"]["S"]) for item in page.items]
        with _written(database):
            database.executemany("INSERT OR IGNORE INTO blocks VALUES (?, ?)", rows)
            database.execute("DELETE FROM blocks_read_to")
            database.execute("INSERT INTO blocks_read_to VALUES (?)", (json.dumps(page.next_key),))
        if page.next_key is not None:
            yield


def _choose_top(database: sqlite3.Connection, _since: int, _until: int, _meter: Meter | None) -> _Steps:
    """Marks the week's best posts overall."""
    with _written(database):
        database.execute("DELETE FROM top")
        database.execute(
            "INSERT INTO top SELECT post_id, author_id, created_at, engagement FROM posts"
            " ORDER BY engagement DESC, created_at DESC, post_id LIMIT ?",
            (TOP_POSTS,),
        )
    return iter(())


_STAGES = (_rank_week, _fill_posts, _fill_authors, _fill_blocks, _choose_top)
