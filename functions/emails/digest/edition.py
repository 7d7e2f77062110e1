"""The week's edition: the posts for every reader's digest, made once per run and shared by its segments.

A SQLite file in the archive bucket: each author's best posts of the week with the fields a mail shows,
the overall top, and who blocked whom. A segment fetches it once and looks a reader's authors up by index, so a reader
costs one query (whom they follow) and no post is read from DynamoDB twice. If the network has more than KEPT_BLOCKS, a
reader costs a second query (whom they have blocked) instead.

The cost of making it, for half a million posts: one pass over the week in the feed index (85 bytes a post), the best
KEPT_POSTS in full, their authors, and one scan of the blocks. Only that pass grows with the network beyond these
limits, so each shard of the index is ranked on its own (`rank_shard`), and `build` starts from the files. Both can be
interrupted after any page, and are resumed from their file.

The file is not compressed: half a core compresses 900 MB in longer than S3 takes to store what that saves.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from digest.ranking import POSTS_OF_ONE_AUTHOR, Candidate, Reader, rank
from mail.rendering import Image, Picture, Story, choose_picture
from mail.words import person_name
from nexus.aws.table import Meter
from nexus.errors import Reject
from social.data import blocks, objects, posts, users
from social.data.posts import Post
from social.data.users import User
from social.text import one_line, shortened

FOLDER = "digest"
KEPT_OF_ONE_AUTHOR = POSTS_OF_ONE_AUTHOR + 1
"""One more than a digest shows, for a reader who was already sent one."""

KEPT_POSTS = 300_000
"""The most posts in an edition, those with the highest engagement; 150 MB of file, 570 MB if every text is long."""

KEPT_BLOCKS = 3_000_000
"""The most blocks in an edition, 300 MB of file: those of a network of 1.5 million users, at two a user."""

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
CREATE TABLE left_out (reason TEXT PRIMARY KEY, posts INTEGER);
CREATE TABLE ranked (post_id TEXT PRIMARY KEY, author_id TEXT, engagement REAL, created_at INTEGER);
CREATE TABLE read_to (stage TEXT PRIMARY KEY, place TEXT);
"""

BETTER_ONES, TOO_MANY = "their author has better ones", "over the edition's size"


@dataclass(frozen=True, slots=True)
class Edition:
    """An open edition. Not thread-safe.

    `left_out` counts the week's public posts that are not in it, by reason. `has_blocks`: it contains all blocks.
    """

    database: sqlite3.Connection
    top: Sequence[Candidate]
    left_out: Mapping[str, int]
    has_blocks: bool

    def stories_for(
        self, user_id: str, follows: Sequence[str], already_sent: frozenset[str], *, meter: Meter | None = None
    ) -> Sequence[Story]:
        """The reader's digest, best first; empty if there is nothing new."""
        reader = Reader(user_id, frozenset(follows), self._blocked_by(user_id, meter), already_sent)
        chosen = rank([*self._by_authors(follows), *self.top], reader)
        return [self._story(candidate, candidate.author_id in reader.follows) for candidate in chosen]

    def _blocked_by(self, user_id: str, meter: Meter | None) -> frozenset[str]:
        if not self.has_blocks:
            return blocks.blocked_by(user_id, meter=meter)
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


def rank_shard(
    path: Path,
    shard: int,
    since: int,
    until: int,
    *,
    stop: Callable[[], bool] = lambda: False,
    meter: Meter | None = None,
) -> bool:
    """Adds one shard's public posts from `since` to before `until` (seconds since 1970) that may be in the edition.

    Calls `stop` after each page. If it is true, returns False, and the next call resumes from the file. Returns True
    when the shard is complete.

    The file never holds more than twice KEPT_POSTS, and a page: a post that has KEPT_POSTS better ones, at most
    KEPT_OF_ONE_AUTHOR by one author, has them at the end too.
    """
    with _open(path) as database:
        start, ended, least = _read_to(database, f"shard {shard}") or (None, False, (-1.0, 0))
        if ended:
            return True
        least = tuple(least)
        for page in posts.ranked(shard, since, until, start=start, meter=meter):
            good = [one for one in page.posts if (one.log_engagement, one.created_at) >= least]
            rows = [(one.post_id, one.author_id, one.log_engagement, one.created_at) for one in good]
            with _written(database):
                # A post whose rank changes while the index is read may be on two pages; the later one counts. If it was
                # left out at the first, it stays counted there.
                database.executemany("INSERT OR REPLACE INTO ranked VALUES (?, ?, ?, ?)", rows)
                _leave_out(database, TOO_MANY, len(page.posts) - len(good))
                if _count(database, "ranked") > 2 * KEPT_POSTS:
                    _keep_the_best(database)
                    if _count(database, "ranked") == KEPT_POSTS:
                        (least,) = database.execute(
                            "SELECT engagement, created_at FROM ranked ORDER BY engagement, created_at LIMIT 1"
                        )
                _has_read_to(database, f"shard {shard}", (page.next_key, page.next_key is None, least))
            if page.next_key is not None and stop():
                return False
        with _written(database):
            _keep_the_best(database)
        return True


def build(
    path: Path, shards: Sequence[str], *, stop: Callable[[], bool] = lambda: False, meter: Meter | None = None
) -> bool:
    """Makes the edition of the ranked posts in the published files `shards`, and of those that `path` has already.

    `stop` as for `rank_shard`; True when the edition is complete.
    """
    with _open(path) as database:
        stages: Sequence[_Stage] = (
            partial(_gather, path, shards),
            _fill_posts,
            _fill_authors,
            _fill_blocks,
            _choose_top,
        )
        for stage, step in enumerate(stages, start=1):
            if database.execute("PRAGMA user_version").fetchone()[0] >= stage:
                continue
            for _ in step(database, meter):
                if stop():
                    return False
            database.execute(f"PRAGMA user_version = {stage}")
            if stage < len(stages) and stop():
                return False
        return True


def held(path: Path) -> int:
    """The number of posts in an edition."""
    with _open(path) as database:
        return _count(database, "posts")


def left_out(path: Path) -> Mapping[str, int]:
    """The week's public posts that are not in an edition, by reason."""
    with _open(path) as database:
        return _left_out(database)


def publish(path: Path, key: str) -> None:
    """Uploads the edition for the segments."""
    objects.upload("archive", key, path, "application/vnd.sqlite3")


def fetch(key: str, path: Path) -> None:
    """Downloads an edition, or a part of one. Raises Reject if it has expired: trying again cannot help."""
    path.unlink(missing_ok=True)
    try:
        objects.download("archive", key, path)
    except LookupError as error:
        raise Reject(f"the week's posts have expired: {error}") from error


def open_edition(path: Path) -> Edition:
    """Opens a fetched edition for reading."""
    database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    rows = database.execute("SELECT post_id, author_id, created_at, engagement FROM top")
    return Edition(database, [_candidate(row) for row in rows], _left_out(database), "blocks" in _tables(database))


def _left_out(database: sqlite3.Connection) -> Mapping[str, int]:
    return dict(database.execute("SELECT reason, posts FROM left_out WHERE posts > 0"))


def _count(database: sqlite3.Connection, table: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - a literal


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


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
type _Stage = Callable[[sqlite3.Connection, Meter | None], _Steps]


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """The file being made, with its tables."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        # Larger pages: a row over a quarter of its page takes further pages of its own.
        database.executescript("PRAGMA page_size = 16384; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        if not _tables(database):
            database.executescript(_SCHEMA)
        yield database


@contextmanager
def _written(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN")
    yield
    database.execute("COMMIT")


def _read_to(database: sqlite3.Connection, stage: str) -> Any:
    """Where an interrupted stage continues; None at its beginning."""
    found = database.execute("SELECT place FROM read_to WHERE stage = ?", (stage,)).fetchone()
    return json.loads(found[0]) if found else None


def _has_read_to(database: sqlite3.Connection, stage: str, place: Any) -> None:
    database.execute("INSERT OR REPLACE INTO read_to VALUES (?, ?)", (stage, json.dumps(place)))


def _gather(path: Path, shards: Sequence[str], database: sqlite3.Connection, _meter: Meter | None) -> _Steps:
    """Stores the ids of the week's best posts, from those of each shard."""
    for number in range(_read_to(database, "shards") or 0, len(shards)):
        one = path.with_suffix(".shard")
        fetch(shards[number], one)
        database.execute("ATTACH ? AS shard", (str(one),))
        with _written(database):
            database.execute("INSERT OR REPLACE INTO ranked SELECT * FROM shard.ranked")
            for reason, count in database.execute("SELECT reason, posts FROM shard.left_out").fetchall():
                _leave_out(database, reason, count)
            _keep_the_best(database)
            _has_read_to(database, "shards", number + 1)
        database.execute("DETACH shard")
        one.unlink()
        yield
    with _written(database):
        database.execute(
            "CREATE TABLE kept AS SELECT post_id FROM ranked ORDER BY engagement DESC, created_at DESC, post_id"
        )
        database.execute("DROP TABLE ranked")


def _keep_the_best(database: sqlite3.Connection) -> None:
    """Removes the ranked posts that cannot be in the edition."""
    better_ones = database.execute(
        """
        DELETE FROM ranked WHERE rowid IN (SELECT id FROM (
            SELECT rowid AS id, row_number() OVER (
                PARTITION BY author_id ORDER BY engagement DESC, created_at DESC, post_id) AS place FROM ranked)
        WHERE place > ?)
        """,
        (KEPT_OF_ONE_AUTHOR,),
    ).rowcount
    too_many = database.execute(
        """
        DELETE FROM ranked WHERE rowid IN (
            SELECT rowid FROM ranked ORDER BY engagement DESC, created_at DESC, post_id LIMIT -1 OFFSET ?)
        """,
        (KEPT_POSTS,),
    ).rowcount
    _leave_out(database, BETTER_ONES, better_ones)
    _leave_out(database, TOO_MANY, too_many)


def _fill_posts(database: sqlite3.Connection, meter: Meter | None) -> _Steps:
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


def _fill_authors(database: sqlite3.Connection, meter: Meter | None) -> _Steps:
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


def _fill_blocks(database: sqlite3.Connection, meter: Meter | None) -> _Steps:
    """Reads all blocks, unless there are more than KEPT_BLOCKS: then the edition has none."""
    start = _read_to(database, "blocks")
    # Blocks that are dropped later leave their space in the file.
    if start is None and blocks.TABLE.size(meter=meter)[0] > KEPT_BLOCKS:
        database.execute("DROP TABLE blocks")
        return
    held = _count(database, "blocks")
    for page in blocks.TABLE.scan(attributes=blocks.TABLE.key, start=start, meter=meter):
        held += len(page.items)
        if held > KEPT_BLOCKS:
            database.execute("DROP TABLE blocks")
            return
        rows = [(item["user_id"]["S"], item["blocked_id"]["S"]) for item in page.items]
        with _written(database):
            database.executemany("INSERT OR IGNORE INTO blocks VALUES (?, ?)", rows)
            _has_read_to(database, "blocks", page.next_key)
        if page.next_key is not None:
            yield


def _choose_top(database: sqlite3.Connection, _meter: Meter | None) -> _Steps:
    """Marks the week's best posts overall."""
    with _written(database):
        database.execute("DELETE FROM top")
        database.execute(
            "INSERT INTO top SELECT post_id, author_id, created_at, engagement FROM posts"
            " ORDER BY engagement DESC, created_at DESC, post_id LIMIT ?",
            (TOP_POSTS,),
        )
    return iter(())
