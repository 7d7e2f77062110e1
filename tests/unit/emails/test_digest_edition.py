"""The week's edition: what it keeps, and that its build can be interrupted and resumed anywhere."""

import io
import json
import random
import sqlite3
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from functools import partial
from itertools import batched
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

import digest.edition
import send_content_digest_email as digest_task
from digest.edition import build, days_named, fetch, held, open_edition, publish, rank_shard
from mail.rendering import Image
from nexus.aws import sdk, table
from nexus.aws.dynamodb import Write
from nexus.aws.table import Meter, Page, Table
from nexus.errors import Reject
from nexus.testing import run_task
from send_content_digest_email import send_content_digest_email
from social.data import blocks, objects, posts, users
from social.data.posts import Counters, Media, Post, Ranked, RankedPage, Rendition
from social.parts import DigestEdition, DigestShard
from tests.support.template import resources
from tests.unit.emails.conftest import NOW, Ses, person

SINCE = NOW - 7 * 86_400
JPEG = Rendition(key="media/p/w1080.jpg", width=1080, height=720, bytes=1, content_type="image/jpeg")


@pytest.fixture
def week(ses: Ses, monkeypatch: pytest.MonkeyPatch) -> list[Post]:
    """Thirty posts by six authors, read five at a time."""
    monkeypatch.setattr(digest.edition, "READ_AT_ONCE", 5)
    chance = random.Random(3)
    for number in range(6):
        person(f"a{number}")
        blocks.add(f"a{number}", "a0", NOW)
    found = [
        Post(
            post_id=f"p{number:02}",
            author_id=f"a{number % 6}",
            created_at=NOW - 3600 * (number + 1),
            text=f"  Post {number}\n",
            counters=Counters(likes=chance.randrange(50), shares=1),
            media=Media(status="ready", kind="image", renditions={"w1080_jpeg": JPEG}) if number % 2 else None,
        )
        for number in range(30)
    ]
    posts.put_many(found, now=NOW)
    return found


def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamoDB's pages have two items each."""

    def two(operation: str, parameters: dict[str, Any], *rest: Any) -> Iterator[Page]:
        return pages(operation, {**parameters, "Limit": 2}, *rest)

    pages = table._pages
    monkeypatch.setattr(table, "_pages", two)


def content(path: Path) -> object:
    edition = open_edition(path)
    try:
        return [
            sorted(edition.database.execute(f"SELECT * FROM {table}").fetchall())
            for table in ("posts", "authors", "top", "left_out", *(["blocks"] if edition.has_blocks else []))
        ]
    finally:
        edition.database.close()


def made(path: Path, stop: Callable[[], bool] = lambda: False) -> Path:
    """The edition of the week at this path, resumed after each interruption."""
    for shard in range(posts.FEED_SHARDS):
        while not rank_shard(path, shard, SINCE, NOW, stop=stop):
            pass
    while not build(path, (), stop=stop):
        pass
    return path


def test_an_edition_keeps_the_best_posts_of_each_author_with_all_that_a_mail_shows(
    week: list[Post], tmp_path: Path
) -> None:
    path = tmp_path / "edition.sqlite"
    made(path)
    assert held(path) == 6 * digest.edition.KEPT_OF_ONE_AUTHOR

    edition = open_edition(path)
    stories = edition.stories_for("reader", ["a1"], frozenset())
    edition.database.close()

    mine = [post for post in week if post.author_id == "a1"]
    scores = sorted((posts.engagement_score(post.counters) for post in mine), reverse=True)
    first = next(post for post in mine if post.post_id == stories[0].post_id)
    assert posts.engagement_score(first.counters) == scores[0]
    assert stories[0].text == first.text.strip()
    assert stories[0].author == "A1"
    assert stories[0].likes == first.counters.likes
    assert stories[0].picture is not None
    assert stories[0].picture.lead == Image(JPEG.key, 1080, 720)
    assert [story.followed for story in stories] == [True, True, False, False, False, False, False]


def test_a_posts_place_goes_by_its_counters_now_and_not_by_the_last_scoring(week: list[Post], tmp_path: Path) -> None:
    assert all(post.engagement_score == 0 for post in week), "none has been scored yet"
    path = tmp_path / "edition.sqlite"
    made(path)
    edition = open_edition(path)
    edition.database.close()
    scores = [candidate.engagement for candidate in edition.top]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0


@pytest.mark.parametrize(("kept", "blocks_kept"), [(300_000, 1_000), (4, 1_000), (4, 3)])
def test_an_edition_interrupted_after_every_page_is_the_same(
    week: list[Post], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, blocks_kept: int
) -> None:
    monkeypatch.setattr(digest.edition, "KEPT_POSTS", kept)
    monkeypatch.setattr(digest.edition, "KEPT_BLOCKS", blocks_kept)
    small_pages(monkeypatch)
    whole = made(tmp_path / "whole.sqlite")
    path, parts = tmp_path / "part.sqlite", [f"digest/w/1-x.{shard}.sqlite" for shard in range(posts.FEED_SHARDS)]
    stops: list[int] = []

    def in_pieces(key: str, work: Callable[[], bool]) -> None:
        path.unlink(missing_ok=True)
        while not work():
            with closing(sqlite3.connect(path)) as database:
                stops.extend(*database.execute("PRAGMA user_version"))
            assert len(stops) < 100
            publish(path, key)
            path.unlink()
            fetch(key, path)
        publish(path, key)

    for shard, key in enumerate(parts):
        in_pieces(key, partial(rank_shard, path, shard, SINCE, NOW, stop=lambda: True))
    ranking = len(stops)
    in_pieces("digest/w/1-x.sqlite", partial(build, path, parts, stop=lambda: True))
    assert content(path) == content(whole)
    assert ranking > len(week) / 2 - posts.FEED_SHARDS, "after each page of two posts but a shard's last"
    assert set(stops) == {0, 1, 2, 3, 4}, "within and after each stage"


@pytest.mark.parametrize("kept", [300_000, 4])
def test_a_shard_that_was_complete_when_its_sandbox_died_is_not_ranked_again(
    week: list[Post], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(digest.edition, "KEPT_POSTS", kept)
    path = made(tmp_path / "once.sqlite")
    for shard in range(posts.FEED_SHARDS):
        assert rank_shard(tmp_path / "twice.sqlite", shard, SINCE, NOW)
        assert rank_shard(tmp_path / "twice.sqlite", shard, SINCE, NOW, stop=lambda: True)
    assert content(made(tmp_path / "twice.sqlite")) == content(path)


RANKED = st.builds(
    Ranked,
    post_id=st.uuids().map(str),
    author_id=st.sampled_from("abcde"),
    created_at=st.integers(SINCE, NOW - 1),
    feed_rank=st.just(0.0),
)


@given(st.lists(st.tuples(RANKED, st.integers(0, 9)), max_size=60), st.integers(1, 12), st.integers(1, 7))
def test_an_edition_of_any_week_keeps_the_best_posts_and_never_holds_many_more(
    drawn: list[tuple[Ranked, int]], kept: int, page: int
) -> None:
    week = [one._replace(feed_rank=posts.feed_rank(10**engagement, one.created_at)) for one, engagement in drawn]
    scores = {one.post_id: (-round(one.log_engagement, 3), -one.created_at, one.post_id) for one in week}
    pages = [RankedPage(some, {"n": {"N": "1"}}) for some in batched(week, page, strict=False)]
    shards = [pages[number::8] for number in range(posts.FEED_SHARDS)]
    held: list[int] = []

    def of_shard(shard: int, *_: object, **__: object) -> Iterator[RankedPage]:
        for number, one in enumerate(shards[shard], start=1):
            yield one._replace(next_key=None) if number == len(shards[shard]) else one
            with closing(sqlite3.connect(path)) as database:
                held.extend(*database.execute("SELECT count(*) FROM ranked"))

    with TemporaryDirectory() as name, patch.object(digest.edition, "KEPT_POSTS", kept):
        path = Path(name) / "edition.sqlite"
        with patch.object(posts, "ranked", of_shard):
            for shard in range(posts.FEED_SHARDS):
                assert rank_shard(path, shard, SINCE, NOW)
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            assert list(digest.edition._gather(path, (), database, None)) == []
            found = [post_id for (post_id,) in database.execute("SELECT post_id FROM kept ORDER BY rowid")]
            left_out = dict(database.execute("SELECT reason, posts FROM left_out"))

    by_author: Counter[str] = Counter()
    best = []
    for one in sorted(week, key=lambda one: scores[one.post_id]):
        by_author[one.author_id] += 1
        if by_author[one.author_id] <= digest.edition.KEPT_OF_ONE_AUTHOR:
            best.append(one.post_id)
    assert found == best[:kept]
    assert len(found) + sum(left_out.values()) == len(week)
    assert max(held, default=0) <= 2 * kept


def test_a_post_whose_rank_falls_while_the_index_is_read_is_in_the_edition_once(
    week: list[Post], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = posts.ranked

    def falling(shard: int, *args: Any, **also: Any) -> Iterator[RankedPage]:
        for page in real(shard, *args, **also):
            yield page._replace(next_key={"post_id": {"S": "x"}})
            yield RankedPage([one._replace(feed_rank=one.feed_rank - 0.1) for one in page.posts], None)

    whole = made(tmp_path / "whole.sqlite")
    monkeypatch.setattr(posts, "ranked", falling)
    path = made(tmp_path / "edition.sqlite")
    assert content(path) == content(whole)


def test_a_post_whose_rank_rises_while_the_index_is_read_is_in_the_edition_once(
    week: list[Post], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror image, in the index itself: once its first page is read, each post of a shard rises by six places."""
    real = posts.ranked

    def rising(shard: int, *args: Any, **also: Any) -> Iterator[RankedPage]:
        there = [one for page in real(shard, *args) for one in page.posts]
        for page in real(shard, *args, **also):
            yield page
            while there:
                one = there.pop()
                posts.TABLE.update(Write({"post_id": one.post_id}, set={"feed_rank": one.feed_rank + 0.5}))

    small_pages(monkeypatch)
    monkeypatch.setattr(digest.edition, "KEPT_OF_ONE_AUTHOR", len(week))
    before = {one.post_id: one.feed_rank for shard in range(posts.FEED_SHARDS) for one in of_shard(shard)}
    with monkeypatch.context() as patched:
        patched.setattr(posts, "ranked", rising)
        path = made(tmp_path / "edition.sqlite")
    after = {one.post_id: one.feed_rank for shard in range(posts.FEED_SHARDS) for one in of_shard(shard)}
    assert all(after[post_id] == pytest.approx(rank + 0.5) for post_id, rank in before.items())
    with closing(sqlite3.connect(path)) as database:
        found = [post_id for (post_id,) in database.execute("SELECT post_id FROM posts ORDER BY post_id")]
    assert found == [post.post_id for post in week]


def of_shard(shard: int) -> list[Ranked]:
    return [one for page in posts.ranked(shard, SINCE, NOW) for one in page.posts]


def test_an_edition_of_the_most_and_largest_rows_fits_into_tmp(tmp_path: Path) -> None:
    """With a shard beside it, and what its statements sort; ids are UUIDs, and every text is in Japanese."""
    ids = [str(uuid4()) for _ in range(4_000)]
    text = {"text": "山" * digest.edition.TEXT_KEPT, "likes": 10**6, "comments": 10**5, "shares": 10**5}
    key = f"media/{ids[0]}/{'f' * 32}/w1080_jpeg.jpg"
    story = json.dumps({**text, "picture": {"lead": (key, 1080, 1350), "thumb": (key, 150, 150), "is_video": False}})
    story = json.dumps(json.loads(story), ensure_ascii=False)
    size = {}
    for name, most, row in (
        ("posts", digest.edition.KEPT_POSTS, lambda a, b: (a, b, NOW, 10**7, story)),
        ("authors", digest.edition.KEPT_POSTS, lambda a, b: (a, "山" * 24)),
        ("blocks", digest.edition.KEPT_BLOCKS, lambda a, b: (a, b)),
        ("ranked", 2 * digest.edition.KEPT_POSTS, lambda a, b: (a, b, 6.123456, NOW)),
    ):
        path = tmp_path / name
        with digest.edition._open(path) as database:
            empty = path.stat().st_size
            rows = [row(a, b) for a, b in zip(ids, reversed(ids), strict=True)]
            database.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        size[name] = (path.stat().st_size - empty) / len(ids) * most
    storage = resources("AWS::Serverless::Function")["EmailsFunction"]["Properties"]["EphemeralStorage"]["Size"]
    assert sum(size.values()) + 2 * size["ranked"] < storage << 20, size


def test_a_readers_blocks_are_read_if_the_edition_cannot_hold_all_blocks(
    week: list[Post], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks.add("reader", "a1", NOW)
    told = []
    for most in (1_000, 3):
        monkeypatch.setattr(digest.edition, "KEPT_BLOCKS", most)
        path = tmp_path / f"{most}.sqlite"
        made(path)
        edition, meter = open_edition(path), Meter()
        told.append([story.post_id for story in edition.stories_for("reader", ["a1"], frozenset(), meter=meter)])
        edition.database.close()
        assert (edition.has_blocks, meter.requests) == ((True, 0) if most > 3 else (False, 1))
    assert told[0] == told[1]
    assert not set(told[0]) & {post.post_id for post in week if post.author_id == "a1"}


@pytest.mark.parametrize("counted", [True, False], ids=["by DynamoDB's count", "which is out of date"])
def test_blocks_take_no_space_in_the_edition_if_dynamodb_counts_too_many(
    week: list[Post], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: bool
) -> None:
    blocks.put_many([(f"{number:0500}", f"{number:0500}", NOW) for number in range(600)])
    monkeypatch.setattr(digest.edition, "KEPT_BLOCKS", 500)
    size = blocks.TABLE.size()
    monkeypatch.setattr(Table, "size", lambda *_, **__: size if counted else (0, 0))
    small_pages(monkeypatch)
    path = made(tmp_path / "edition.sqlite")
    edition = open_edition(path)
    edition.database.close()
    assert not edition.has_blocks
    assert (path.stat().st_size < 300_000) is counted


def test_an_edition_travels_in_constant_memory(ses: Ses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, size, most = tmp_path / "edition.sqlite", 40 << 20, 0
    with path.open("wb") as file:
        file.truncate(size)

    class Zeros(io.RawIOBase):
        left = size

        def read(self, amount: int = -1) -> bytes:
            taken = self.left if amount < 0 else min(amount, self.left)
            self.left -= taken
            return bytes(taken)

    class S3:
        exceptions = sdk.client("s3").exceptions

        def put_object(self, Body: Any, **_: Any) -> None:  # noqa: N803
            while Body.read(1 << 16):
                pass

        def get_object(self, **_: Any) -> dict[str, Any]:
            return {"Body": Zeros()}

    monkeypatch.setattr(objects, "client", lambda _: S3())
    tracemalloc.start()
    try:
        publish(path, "digest/w/1-x.sqlite")
        fetch("digest/w/1-x.sqlite", path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size == size
    assert most < size / 8


def test_a_shard_or_a_file_that_has_expired_is_not_waited_for(week: list[Post], tmp_path: Path) -> None:
    with pytest.raises(Reject, match=r"expired: archive: no object digest/w/1-x\.3\.sqlite"):
        build(tmp_path / "edition.sqlite", ["digest/w/1-x.3.sqlite"])
    args = {"week": "2026-W48", "edition": "e", "since": SINCE, "until": NOW, "per_second": 1, "planned_at": NOW}
    for part in (DigestEdition(**args), DigestShard(**args, shard=0)):
        with pytest.raises(Reject, match="expired"):
            run_task(send_content_digest_email, part, cursor={"file": "digest/w/1-x.sqlite"})
    assert not list(tmp_path.glob("*.shard"))


def test_a_plan_that_runs_out_of_time_is_continued_and_sends_every_digest(
    week: list[Post], ses: Ses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_task, "TIME_TO_PUBLISH", 1_000.0)  # at every step there is too little left
    small_pages(monkeypatch)
    report = run_task(send_content_digest_email, {}, seconds=100, id="run", sent_at=NOW)
    assert report.sent == 6
    assert len(ses.sent) == 6
    shards = [f"digest/2026-W48/{NOW}-run.{shard}.sqlite" for shard in range(posts.FEED_SHARDS)]
    assert list(objects.keys("archive", "digest/")) == [*shards, f"digest/2026-W48/{NOW}-run.sqlite"]


def test_a_week_without_posts_is_an_edition_too(ses: Ses, tmp_path: Path) -> None:
    path = tmp_path / "edition.sqlite"
    made(path)
    edition = open_edition(path)
    assert edition.stories_for("reader", ["a"], frozenset()) == []
    edition.database.close()


def test_an_author_whose_name_cannot_be_shown_keeps_their_posts_and_omissions_are_counted(
    ses: Ses, tmp_path: Path
) -> None:
    person("spam", name="buy at evil.example")
    person("tolkien", name="J.R.R.Tolkien")
    person("busy")
    users.TABLE.put({"user_id": "broken", "email": "broken@example.com", "created_at": "x"})
    for author in ("spam", "gone", "tolkien", "broken"):
        posts.put_many([Post(post_id=f"by-{author}", author_id=author, created_at=NOW - 60)], now=NOW)
    for number in range(5):
        posts.put_many([Post(post_id=f"busy-{number}", author_id="busy", created_at=NOW - 60)], now=NOW)
    hidden = Post(post_id="hidden", author_id="tolkien", created_at=NOW - 60)
    posts.put_many([hidden], now=NOW)
    # Made private, and deleted, after the index had them.
    posts.TABLE.update(Write({"post_id": "hidden"}, set={"visibility": "private"}))
    path = tmp_path / "edition.sqlite"
    made(path)
    edition = open_edition(path)
    stories = edition.stories_for("reader", ["spam", "tolkien", "broken"], frozenset())
    edition.database.close()

    names = {story.post_id: story.author for story in stories}
    assert names.pop("by-spam") == ""
    assert names.pop("by-broken") == ""
    assert names.pop("by-tolkien") == "J.\u202fR.\u202fR.\u202fTolkien"
    assert set(names) < {f"busy-{number}" for number in range(5)}
    assert edition.left_out == {
        "their author has better ones": 5 - digest.edition.KEPT_OF_ONE_AUTHOR,
        "their author was deleted": 1,
        "no longer public": 1,
    }


def test_every_post_of_the_week_is_in_the_edition_or_counted(
    week: list[Post], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest.edition, "KEPT_POSTS", 11)
    path = tmp_path / "edition.sqlite"
    made(path)
    edition = open_edition(path)
    edition.database.close()
    assert held(path) + sum(edition.left_out.values()) == len(week)
    assert set(edition.left_out) == {"their author has better ones", "over the edition's size"}


@pytest.mark.parametrize(
    ("until", "named"),
    [
        ("2026-11-30T09:00:00+00:00", ("2026-11-23", "2026-11-29")),  # the schedule's Monday
        ("2026-11-30T00:00:00+00:00", ("2026-11-23", "2026-11-29")),  # a past week, sent later
        ("2026-11-25T15:00:00+00:00", ("2026-11-18", "2026-11-24")),
        ("2027-01-04T09:03:59+00:00", ("2026-12-28", "2027-01-03")),
        ("2028-03-06T09:00:00+00:00", ("2028-02-28", "2028-03-05")),
    ],
)
def test_a_digest_names_the_first_and_last_of_its_seven_days(until: str, named: tuple[str, str]) -> None:
    first, last = days_named(int(datetime.fromisoformat(until).timestamp()))
    assert (first.isoformat(), last.isoformat()) == named
    assert (last - first).days == 6
