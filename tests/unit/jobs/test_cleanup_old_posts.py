"""cleanup_old_posts: which posts are eligible, that they are archived before anything is deleted, and restoring."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cleanup_old_posts as job
from nexus.aws.dynamodb import Write, to_item
from nexus.testing import run_task
from nexus.worker import Run
from ops.social.seed import Network, generate, write
from social import application
from social.data import analytics, archive, comments, objects, posts
from social.data.archive import ArchivedPost
from social.data.comments import Comment
from social.data.days import DAY_SECONDS, add_days, bucket_of, day_of, start_of
from social.data.posts import Counters, Media, Post, Rendition
from tests.support.sandboxes import Queue, requests, small_pages, throttled
from tests.unit.jobs.conftest import NOW, jobs, seeds

TODAY = day_of(NOW)
YEAR_AGO = start_of(TODAY) - 365 * DAY_SECONDS  # no 29 February in between
SINCE = {"since": day_of(YEAR_AGO - 12 * DAY_SECONDS)}


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    monkeypatch.setattr(job, "FIRST_DAY", SINCE["since"])


def eligible(network: Network) -> set[str]:
    """Applies the rule to each post; a deleted comment does not count."""
    return {
        post.post_id
        for post in network.posts
        if post.created_at < YEAR_AGO
        and (post.counters.likes, post.counters.comments, post.counters.shares) == (0, 0, 0)
        and post.counters.views < 10
    }


def table(source: Any) -> dict[tuple[str, ...], Any]:
    rows = (item for page in source.scan() for item in page.items)
    return {tuple(item[name]["S"] for name in source.key): item for item in rows}


def everything() -> tuple[Any, Any, set[str]]:
    return table(posts.TABLE), table(comments.TABLE), set(objects.keys("media", ""))


def without_trace(rows: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
    hidden = ("restored_at", "review")
    return {key: {n: v for n, v in item.items() if n not in hidden} for key, item in rows.items()}


def fill(seed: int, people: int) -> Network:
    """A network in which some of the old posts have renditions and deleted comments, all within twelve days."""
    network = generate(people, seed, NOW)
    old = [place for place, post in enumerate(network.posts) if post.created_at < YEAR_AGO]
    for count, place in enumerate(old):
        post = network.posts[place]
        post = replace(post, created_at=YEAR_AGO - (YEAR_AGO - post.created_at) // 30 - 1)
        if count % 3 == 0:
            key = f"media/{post.post_id}/abc/w320.webp"
            rendition = Rendition(key=key, width=320, height=200, bytes=7, content_type="image/webp")
            media = Media(status="ready", kind="image", width=320, height=200, renditions={"w320": rendition})
            post = replace(post, media=media)
            objects.put("media", key, f"picture {count}".encode())
        if count % 4 == 0:
            network.comments.append(Comment(post.post_id, "gone", "x", post.created_at + 1, deleted=True))
        network.posts[place] = post
    write(network, NOW)
    return network


def comes_again(day: date) -> date:
    """docs/data-model.md's date on which a day is a year old."""
    return date(day.year + 1, 2, 28) if (day.month, day.day) == (2, 29) else day.replace(year=day.year + 1)


def test_a_year_is_a_calendar_year_across_29_february_too() -> None:
    days = [date(2023, 1, 1) + timedelta(days=number) for number in range(2300)]
    found = [posts.old_day(today.isoformat()) for today in days[370:]]
    for place, today in enumerate(days[370:]):
        assert found[place] == max(day for day in days[place : place + 10] if comes_again(day) < today).isoformat()
    assert found == sorted(found), "a day that is old stays old"


@pytest.mark.parametrize(
    ("made", "first_old"),
    [
        ("2023-02-28", "2024-02-29"),
        ("2023-03-01", "2024-03-02"),  # 366 days and the rest of the day
        ("2024-02-28", "2025-03-01"),
        ("2024-02-29", "2025-03-01"),
        ("2024-03-01", "2025-03-02"),
        ("2026-01-14", "2027-01-15"),
    ],
)
def test_a_post_is_eligible_from_the_day_after_its_anniversary(made: str, first_old: str) -> None:
    for second in (start_of(made), start_of(made) + DAY_SECONDS - 1):
        item = to_item(posts.to_values(Post("p", "a", second), now=second))
        assert posts.is_eligible(item, first_old)
        assert not posts.is_eligible(item, add_days(first_old, -1))


@settings(jobs, max_examples=4)
@given(seeds, st.integers(3, 25))
def test_a_review_counts_and_touches_nothing(empty: Callable[[], None], seed: int, people: int) -> None:
    empty()
    network = fill(seed, people)
    before = everything()
    report = run_task(job.cleanup_old_posts)
    assert report.eligible == len(eligible(network))
    assert set(report.examples) <= eligible(network)
    assert (report.changed, report.archived) == (0, 0)
    assert everything() == before


@settings(jobs, max_examples=4)
@given(seeds, st.integers(5, 10))
def test_archiving_takes_the_eligible_alone_and_restoring_brings_all_of_it_back(
    empty: Callable[[], None], seed: int, people: int
) -> None:
    empty()
    network = fill(seed, people)
    before = everything()
    report = run_task(job.cleanup_old_posts, {"mode": "archive"})
    gone = eligible(network)
    assert report.archived == len(gone)
    left_posts, left_comments, left_files = everything()
    assert {key[0] for key in left_posts} == {post.post_id for post in network.posts} - gone
    assert not {key[0] for key in left_comments} & gone
    assert not {file.split("/")[1] for file in left_files} & gone
    back = run_task(job.cleanup_old_posts, {"mode": "restore", "post_ids": sorted(gone)})
    assert back.restored == len(gone)
    after = everything()
    assert without_trace(after[0]) == without_trace(before[0])
    assert after[1:] == before[1:]
    again = run_task(job.cleanup_old_posts, {"mode": "archive", **SINCE})
    assert again.archived == 0, "who has been brought back stays for a year"


@pytest.mark.simulation
@settings(jobs, max_examples=4)
@given(seeds)
def test_sandboxes_that_die_lose_nothing(empty: Callable[[], None], seed: int) -> None:
    empty()
    network = fill(seed, 6)
    before = everything()
    queue = Queue.unreliable(seed, one_in=9)
    with small_pages(2):
        queue.run(job.cleanup_old_posts, {"mode": "archive"})
    gone = eligible(network)
    assert {key[0] for key in table(posts.TABLE)} == {post.post_id for post in network.posts} - gone
    held = archive.find(gone)
    assert set(held) == gone
    Queue.unreliable(seed + 1, one_in=9).run(job.cleanup_old_posts, {"mode": "restore", "post_ids": sorted(gone)})
    after = everything()
    assert without_trace(after[0]) == without_trace(before[0])
    assert after[1:] == before[1:]


def old_post(**also: Any) -> Post:
    return Post("p", "a", YEAR_AGO - 10 * DAY_SECONDS, "hello", **also)


@pytest.mark.simulation
@pytest.mark.usefixtures("_one_day")
def test_a_sandbox_may_die_at_any_request(empty: Callable[[], None]) -> None:
    """One post with a rendition and a deleted comment, which takes the most steps."""
    for fatal in range(100):
        empty()
        rendition = Rendition(key="media/p/h/w320.webp", width=1, height=1, bytes=1, content_type="image/webp")
        media = Media(status="ready", renditions={"w320": rendition})
        posts.put_many([old_post(media=media)], now=NOW)
        posts.TABLE.update(Write({"post_id": "p"}, remove=("review",)))
        comments.put_many([Comment("p", "c", "x", NOW, deleted=True)])
        objects.put("media", rendition.key, b"picture")
        before = everything()
        queue = Queue.dying_at(fatal)
        queue.run(job.cleanup_old_posts, {"mode": "archive", "since": old_post().day})
        assert everything() == ({}, {}, set()), fatal
        held = archive.read(archive.find(["p"])["p"])["p"]
        assert (held.post, held.comments) == (before[0]["p",], (before[1]["p", "c"],))
        assert objects.get("archive", rendition.key) == b"picture"
        if not queue.deaths:
            assert fatal > 15
            return
    pytest.fail("a hundred requests for one post")


@pytest.fixture
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "FIRST_DAY", day_of(YEAR_AGO - 10 * DAY_SECONDS))


@pytest.mark.simulation
@pytest.mark.usefixtures("_one_day")
@pytest.mark.parametrize("moment", range(0, 60, 3))
def test_a_like_at_any_moment_saves_the_post_or_comes_too_late(empty: Callable[[], None], moment: int) -> None:
    posts.put_many([old_post()], now=NOW)
    posts.TABLE.update(Write({"post_id": "p"}, remove=("review",)))
    seen, liked = [0], [False]

    def like(_: str) -> None:
        seen[0] += 1
        if seen[0] == moment + 1:
            liked[0] = application.count("p", likes=1)

    with requests(like):
        run_task(job.cleanup_old_posts, {"mode": "archive"})
    post = posts.get("p")
    assert (post is not None) == liked[0], "a like that was taken is never lost with its post"
    if post is not None:
        assert post.counters.likes == 1


@pytest.mark.usefixtures("_one_day")
def test_no_post_is_removed_if_the_archive_does_not_read_back_as_written(
    empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    posts.put_many([old_post()], now=NOW)
    before = table(posts.TABLE)
    monkeypatch.setattr(archive, "read", lambda key: {})
    with pytest.raises(archive.ArchiveError):
        run_task(job.cleanup_old_posts, {"mode": "archive"})
    assert table(posts.TABLE) == before
    assert analytics.watermark(job.JOB) is None


@pytest.mark.usefixtures("_one_day")
def test_a_post_with_an_existing_comment_is_kept_whatever_its_counter_says(empty: Callable[[], None]) -> None:
    posts.put_many([old_post()], now=NOW)
    comments.put_many([Comment("p", "c", "x", NOW)])
    report = run_task(job.cleanup_old_posts, {"mode": "archive"})
    assert (report.archived, report.skipped) == (0, 1)
    assert posts.get("p") is not None


def test_the_next_run_continues_after_the_last_day_done(
    empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = posts.old_day(TODAY)
    run_task(job.cleanup_old_posts, {"mode": "archive"})
    assert analytics.watermark(job.JOB) == last
    week_later = NOW + 7 * DAY_SECONDS
    posts.put_many([Post("new", "a", start_of(last) + DAY_SECONDS + 5)], now=NOW)
    monkeypatch.setattr("time.time", lambda: week_later)
    report = run_task(job.cleanup_old_posts, {"mode": "archive"})
    assert report.archived == 1
    assert report.requests <= 7 * 4 + posts.REVIEW_SHARDS + 10, "a week of buckets, not two years of them"
    assert analytics.watermark(job.JOB) == add_days(last, 7)


@pytest.mark.parametrize("pages_of", [1000, 1])
def test_the_first_run_finds_its_days_by_the_cheaper_of_two_ways(
    empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch, pages_of: int
) -> None:
    monkeypatch.setattr(job, "FIRST_DAY", add_days(posts.old_day(TODAY), -299))
    made = [Post(f"p{n}", "a", YEAR_AGO - n * 30 * DAY_SECONDS - 1) for n in range(8)]
    posts.put_many([*made, Post("new", "a", NOW)], now=0)
    with small_pages(pages_of):
        report = run_task(job.cleanup_old_posts)
    assert report.eligible == 8
    assert (report.requests < 100) == (pages_of == 1000), "a small index is read; of a large one every day is asked for"


def test_a_run_that_starts_late_does_not_move_the_watermark(empty: Callable[[], None]) -> None:
    run_task(job.cleanup_old_posts, {"mode": "archive", "since": add_days(posts.old_day(TODAY), -3)})
    assert analytics.watermark(job.JOB) is None


def test_a_post_that_fell_quiet_after_its_review_is_found_through_the_index(empty: Callable[[], None]) -> None:
    analytics.raise_watermark(job.JOB, posts.old_day(TODAY))
    posts.put_many([old_post(), Post("liked", "a", YEAR_AGO - DAY_SECONDS * 10, counters=Counters(likes=1))], now=NOW)
    posts.TABLE.update(Write({"post_id": "liked"}, set={"review": "review#0"}))
    report = run_task(job.cleanup_old_posts, {"mode": "archive"})
    assert report.archived == 1
    item = posts.TABLE.get({"post_id": "liked"})
    assert item is not None
    assert "review" not in item


@pytest.mark.usefixtures("_one_day")
def test_a_page_is_archived_in_batches_and_continued_in_the_middle(
    empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of the index has thousands of posts, and moving one with pictures takes most of a second."""
    monkeypatch.setattr(job, "AT_ONCE", 2)
    by_day = [Post(f"p{n}", "a", YEAR_AGO - 10 * DAY_SECONDS + n) for n in range(20)]
    by_review = [Post(f"r{n}", "a", YEAR_AGO - 40 * DAY_SECONDS) for n in range(20)]
    posts.put_many([*by_day, *by_review], now=NOW)
    queue = Queue(short=lambda: True)
    report = queue.run(job.cleanup_old_posts, {"mode": "archive"})
    assert (report.archived, table(posts.TABLE)) == (40, {})
    full = sum(max(0, -(-number // 2) - 1) for number in Counter(sources(by_day, by_review)).values())
    assert queue.continued >= full, "after every two posts of a source but its last"


def sources(by_day: list[Post], by_review: list[Post]) -> list[str]:
    return [bucket_of(post.post_id, post.created_at) for post in by_day] + [
        posts.review_of(p.post_id) for p in by_review
    ]


@pytest.mark.usefixtures("_one_day")
def test_bad_rows_are_counted_and_skipped(empty: Callable[[], None]) -> None:
    posts.put_many([old_post(), Post("bad", "a", YEAR_AGO - 10 * DAY_SECONDS)], now=NOW)
    posts.TABLE.update(Write({"post_id": "bad"}, set={"views_count": -1}))
    report = run_task(job.cleanup_old_posts, {"mode": "archive"})
    assert (report.archived, report.failed) == (1, 1)
    assert set(table(posts.TABLE)) == {("bad",)}


def test_throttling_slows_the_job_and_loses_nothing(empty: Callable[[], None]) -> None:
    network = fill(3, 20)
    with throttled(one_in=4, seed=6) as refused:
        run_task(job.cleanup_old_posts, {"mode": "archive"})
    assert refused["requests"] > 5
    assert {key[0] for key in table(posts.TABLE)} == {post.post_id for post in network.posts} - eligible(network)


def test_a_restoring_that_runs_short_of_time_continues(
    empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"p{number}" for number in range(4)]
    posts.put_many([Post(post_id, "a", YEAR_AGO - DAY_SECONDS, "old") for post_id in ids], now=NOW)
    assert run_task(job.cleanup_old_posts, {"mode": "archive", **SINCE}).archived == 4
    at_the_stop: list[list[str]] = []

    def short(_run: Run) -> bool:
        there = [post_id for post_id in ids if posts.get(post_id)]
        stops = len(there) == 2 and not at_the_stop
        at_the_stop.extend([there] * stops)
        return stops

    monkeypatch.setattr(Run, "short_of_time", property(short))
    report = run_task(job.cleanup_old_posts, {"mode": "restore", "post_ids": ids})
    assert [len(there) for there in at_the_stop] == [2]
    assert all(posts.get(post_id) for post_id in ids)
    assert (report.restored, report.changed, report.skipped) == (4, 4, 0)


def test_a_post_that_was_archived_again_is_restored_as_it_was_last(empty: Callable[[], None]) -> None:
    """Its first copy is in an older object, which is read for another post."""
    made = YEAR_AGO - DAY_SECONDS
    once, first, last = (
        ArchivedPost(to_item(posts.to_values(Post(post_id, "a", made, text), now=NOW)))
        for post_id, text in (("once", "old"), ("again", "first"), ("again", "last"))
    )
    archive.write("2020-01-01", [once, first], NOW)
    archive.write("2020-01-02", [last], NOW + 1)  # the objects are read in the order of their names
    assert run_task(job.cleanup_old_posts, {"mode": "restore", "post_ids": ["once", "again"]}).restored == 2
    restored = posts.get("again")
    assert restored is not None
    assert restored.text == "last"


def test_a_post_that_is_being_erased_is_not_restored(empty: Callable[[], None]) -> None:
    """As one that a dead sandbox left on its way to the archive."""
    posts.put_many([Post("p", "a", YEAR_AGO - DAY_SECONDS, "old")], now=NOW)
    item = posts.TABLE.get({"post_id": "p"})
    assert item is not None
    run_task(job.cleanup_old_posts, {"mode": "archive", **SINCE})
    posts.TABLE.put_item(item)
    posts.hide("p")
    assert run_task(job.cleanup_old_posts, {"mode": "restore", "post_ids": ["p"]}).restored == 0
    assert posts.get("p") is None


def test_asking_for_posts_that_are_not_archived_restores_nothing(empty: Callable[[], None]) -> None:
    posts.put_many([Post("here", "a", NOW)], now=NOW)
    report = run_task(job.cleanup_old_posts, {"mode": "restore", "post_ids": ["here", "never"]})
    assert (report.restored, report.skipped) == (0, 2)
