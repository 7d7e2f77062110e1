"""The week's edition: what it keeps, and that its build can be interrupted and resumed anywhere."""

import random
from datetime import datetime
from pathlib import Path

import pytest

import digest.edition
import send_content_digest_email as digest_task
from digest.edition import Edition, build, days_named, fetch, held, open_edition, publish
from mail.rendering import Image
from nexus.aws.dynamodb import Write
from nexus.testing import run_task
from send_content_digest_email import send_content_digest_email
from social.data import blocks, objects, posts, users
from social.data.posts import Counters, Media, Post, Rendition
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
    made = [
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
    posts.put_many(made, now=NOW)
    return made


def content(path: Path) -> object:
    edition = open_edition(path)
    try:
        return [
            sorted(edition.database.execute(f"SELECT * FROM {table}").fetchall())
            for table in ("posts", "authors", "blocks", "top", "left_out")
        ]
    finally:
        edition.database.close()


def opened(path: Path) -> Edition:
    return open_edition(path)


def test_it_keeps_the_best_of_each_author_with_all_that_a_mail_shows(week: list[Post], tmp_path: Path) -> None:
    path = tmp_path / "edition.sqlite"
    assert build(path, SINCE, NOW)
    assert held(path) == 6 * digest.edition.KEPT_OF_ONE_AUTHOR

    edition = opened(path)
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
    build(path, SINCE, NOW)
    edition = opened(path)
    edition.database.close()
    scores = [candidate.engagement for candidate in edition.top]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0


def test_broken_off_after_every_step_it_comes_out_the_same(week: list[Post], tmp_path: Path) -> None:
    whole, pieces = tmp_path / "whole.sqlite", tmp_path / "pieces.sqlite"
    assert build(whole, SINCE, NOW)
    tries = 1
    while not build(pieces, SINCE, NOW, stop=lambda: True):
        tries += 1
        assert tries < 100
        publish(pieces, "digest/w/1-x.gz")
        pieces.unlink()
        fetch("digest/w/1-x.gz", pieces)
    assert tries > 5
    assert content(pieces) == content(whole)


def test_a_plan_that_is_short_of_time_hands_on_and_sends_all_the_same(
    week: list[Post], ses: Ses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_task, "TIME_TO_PUBLISH", 1_000.0)  # at every step there is too little left
    report = run_task(send_content_digest_email, {}, seconds=100, id="run")
    assert report.sent == 6
    assert len(ses.sent) == 6
    assert list(objects.keys("archive", "digest/")) == [f"digest/2026-W48/{NOW}-run.gz"]


def test_a_week_without_posts_is_an_edition_too(ses: Ses, tmp_path: Path) -> None:
    path = tmp_path / "edition.sqlite"
    assert build(path, SINCE, NOW)
    edition = opened(path)
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
    build(path, SINCE, NOW)
    edition = opened(path)
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
    build(path, SINCE, NOW)
    edition = opened(path)
    edition.database.close()
    assert held(path) + sum(edition.left_out.values()) == len(week)
    assert edition.left_out["over the edition's size"] == 6 * digest.edition.KEPT_OF_ONE_AUTHOR - 11


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
def test_a_digest_names_seven_days(until: str, named: tuple[str, str]) -> None:
    first, last = days_named(int(datetime.fromisoformat(until).timestamp()))
    assert (first.isoformat(), last.isoformat()) == named
    assert (last - first).days == 6
