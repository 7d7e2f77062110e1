"""The week's edition: everything that any reader's digest can draw on, made once a run and shared by its segments.

A SQLite file, compressed, in the archive bucket: each author's best posts of the week with what a mail shows of them,
the overall top, and who blocked whom. A segment fetches it once and looks a reader's authors up by index, so a reader
costs one query (whom he follows) and no post is read from DynamoDB twice.

What it costs to make, for half a million posts: one pass over the week in the feed index (85 bytes a post), the best
KEPT_POSTS in full, their authors, and one scan of the blocks.
"""

import gzip
import json
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any

from digest_ranking import POSTS_OF_ONE_AUTHOR, Candidate, Reader, rank
from mail_rendering import Picture, Story, choose_picture, excerpt, safe_name
from nexus.data import blocks, objects, posts, users
from nexus.data.dynamodb import Meter
from nexus.data.posts import Post, Ranked
from nexus.data.users import User

FOLDER = "digest"
KEPT_OF_ONE_AUTHOR = POSTS_OF_ONE_AUTHOR + 1
"""One more than a digest shows, for a reader who has been sent one already."""

KEPT_POSTS = 300_000
"""The most posts in an edition, those with the highest engagement; 100 MB of file."""

TOP_POSTS = 200
READ_AT_ONCE = 1_000
THREADS = 8

_SCHEMA = """
CREATE TABLE ranked (post_id TEXT, author_id TEXT, created_at INTEGER, engagement REAL);
CREATE TABLE posts (author_id TEXT, post_id TEXT, created_at INTEGER, engagement INTEGER, story TEXT,
                    PRIMARY KEY (author_id, post_id)) WITHOUT ROWID;
CREATE TABLE authors (author_id TEXT PRIMARY KEY, name TEXT) WITHOUT ROWID;
CREATE TABLE blocks (user_id TEXT, blocked_id TEXT, PRIMARY KEY (user_id, blocked_id)) WITHOUT ROWID;
CREATE TABLE top (post_id TEXT, author_id TEXT, created_at INTEGER, engagement INTEGER);
"""


@dataclass(frozen=True, slots=True)
class Edition:
    """An open edition. Not to be used from two threads."""

    database: sqlite3.Connection
    top: Sequence[Candidate]

    def stories_for(self, user_id: str, follows: Sequence[str], already_sent: frozenset[str]) -> Sequence[Story]:
        """The reader's digest, best first; empty when there is nothing new for him."""
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
            picture=Picture(**picture) if picture else None,
            **shown,
        )


def build(path: Path, since: int, until: int, *, meter: Meter | None = None) -> int:
    """Makes the edition of the public posts from `since` to before `until` (seconds since 1970); how many it holds."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA)
        database.execute("BEGIN")
        _rank_week(database, posts.ranked(since, until, meter=meter))
        _fill_posts(database, meter)
        _fill_authors(database, meter)
        _fill_blocks(database, meter)
        database.execute("DROP TABLE ranked")
        database.execute(
            "INSERT INTO top SELECT post_id, author_id, created_at, engagement FROM posts"
            " ORDER BY engagement DESC, created_at DESC, post_id LIMIT ?",
            (TOP_POSTS,),
        )
        (held,) = database.execute("SELECT count(*) FROM posts").fetchone()
        database.execute("COMMIT")
        return int(held)


def publish(path: Path, key: str) -> None:
    """Puts the edition where the segments find it."""
    packed = path.with_suffix(".gz")
    with path.open("rb") as plain, gzip.open(packed, "wb", compresslevel=1) as out:
        shutil.copyfileobj(plain, out)
    objects.put("archive", key, packed.read_bytes(), "application/gzip")
    packed.unlink()


def fetch(key: str, path: Path) -> None:
    """Fetches an edition. Raises LookupError when it has expired, or never was."""
    path.unlink(missing_ok=True)
    path.write_bytes(gzip.decompress(objects.get("archive", key)))


def open_edition(path: Path) -> Edition:
    """Opens a fetched edition for reading."""
    database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    rows = database.execute("SELECT post_id, author_id, created_at, engagement FROM top")
    return Edition(database, [_candidate(row) for row in rows])


def _candidate(row: tuple[str, str, int, int]) -> Candidate:
    post_id, author_id, created_at, engagement = row
    return Candidate(post_id, author_id, "public", engagement, created_at)


def _rank_week(database: sqlite3.Connection, week: Iterable[Ranked]) -> None:
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


def _fill_posts(database: sqlite3.Connection, meter: Meter | None) -> None:
    for some in batched(database.execute("SELECT post_id FROM kept").fetchall(), READ_AT_ONCE, strict=False):
        read = posts.get_many([post_id for (post_id,) in some], meter=meter, threads=THREADS)
        # The index lags behind the post, so what is public is asked of the post itself.
        rows = [_row(post) for post in read if isinstance(post, Post) and post.visibility == "public"]
        database.executemany("INSERT OR IGNORE INTO posts VALUES (?, ?, ?, ?, ?)", rows)
    database.execute("DROP TABLE kept")


def _row(post: Post) -> tuple[str, str, int, int, str]:
    picture = choose_picture(post.media)
    shown: dict[str, Any] = {
        "text": excerpt(post.text),
        "likes": post.counters.likes,
        "comments": post.counters.comments,
        "shares": post.counters.shares,
    }
    if picture:
        shown["picture"] = {name: getattr(picture, name) for name in Picture.__slots__}
    text = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
    # The score as it is now: the stored one is as old as the last scoring.
    return post.author_id, post.post_id, post.created_at, posts.engagement_score(post.counters), text


def _fill_authors(database: sqlite3.Connection, meter: Meter | None) -> None:
    author_ids = [author_id for (author_id,) in database.execute("SELECT DISTINCT author_id FROM posts")]
    for some in batched(author_ids, READ_AT_ONCE, strict=False):
        found = users.get_many(some, meter=meter, threads=THREADS)
        names = [(user.user_id, safe_name(user.name)) for user in found if isinstance(user, User)]
        database.executemany("INSERT INTO authors VALUES (?, ?)", [row for row in names if row[1]])
    # A post whose author is gone, or has no name that may be shown, is not told of.
    database.execute("DELETE FROM posts WHERE author_id NOT IN (SELECT author_id FROM authors)")


def _fill_blocks(database: sqlite3.Connection, meter: Meter | None) -> None:
    for page in blocks.TABLE.scan(attributes=blocks.TABLE.key, meter=meter):
        rows = [(item["user_id"]["S"], item["blocked_id"]["S"]) for item in page.items]
        database.executemany("INSERT OR IGNORE INTO blocks VALUES (?, ?)", rows)
