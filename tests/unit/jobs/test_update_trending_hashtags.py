"""update_trending_hashtags, compared with a count over all posts of seven days, hour by hour."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hashtag_counts
import update_trending_hashtags as job
from nexus.aws.dynamodb import Write, from_item
from nexus.errors import InvalidMessage
from nexus.settings import settings as deployed
from nexus.testing import run_task
from ops.social.seed import BURST_TAG, generate
from social.data import hashtags, posts
from social.data.hashtags import Trend
from social.data.posts import Post
from social.tags import normalise
from tests.support.sandboxes import Queue, requests, small_pages, throttled
from tests.unit.jobs.conftest import Filled, jobs, seeds

NOW = 1_800_000_000 + 1_000  # 16 minutes past an hour
HOUR = 3600


@pytest.fixture(autouse=True)
def _after_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW + 200 * HOUR)


def expected(made: Iterable[Post], now: int, top: int = 10) -> list[tuple[str, int, int]]:
    """(tag, uses, score), the best first, from every post at once."""
    present = now // HOUR
    votes = {
        (post.author_id, normalise(tag), post.created_at // HOUR)
        for post in made
        if post.visibility == "public" and present - 168 < post.created_at // HOUR <= present
        for tag in post.hashtags
    }
    uses = Counter(tag for _, tag, _ in votes)
    scores: Counter[str] = Counter()
    for _, tag, hour in votes:
        scores[tag] += 168 - (present - hour)
    return [(tag, uses[tag], scores[tag]) for tag in sorted(scores, key=lambda tag: (-scores[tag], tag))[:top]]


def tag(name: str) -> tuple[bool, int]:
    """(is_trending, trending_score)"""
    item = hashtags.TABLE.get({"tag": name})
    assert item is not None
    return from_item(item)["is_trending"], from_item(item)["trending_score"]


def stored() -> list[tuple[str, int, int]]:
    return [(trend.tag, trend.uses, trend.score) for trend in hashtags.trending()]


@pytest.mark.simulation
@settings(jobs, max_examples=4)
@given(seeds, st.integers(2, 12))
def test_the_trending_tags_are_those_of_a_count_over_everything(filled: Filled, seed: int, people: int) -> None:
    network = filled(people, seed, NOW)
    report = run_task(job.update_trending_hashtags, {"at": NOW})
    assert stored() == expected(network.posts, NOW)
    assert list(report.trending) == [tag for tag, _, _ in stored()]


def test_hourly_runs_give_the_right_trends_and_read_only_the_latest_posts(empty: Callable[[], None]) -> None:
    network = generate(60, 1, NOW)
    for hours in (30, 29, 28, 27, 3, 2, 1, 0):
        now = NOW - hours * HOUR
        known = [post for post in network.posts if post.created_at <= now]
        posts.put_many(known, now=now)
        report = run_task(job.update_trending_hashtags, {"at": now})
        assert stored() == expected(known, now)
        if hours not in (30, 3):
            recent = [post for post in known if post.created_at >= (now // HOUR - 2) * HOUR]
            assert report.rows_read <= len(recent), "older hours come from their sums"
    assert BURST_TAG in [tag for tag, _, _ in stored()]


@pytest.mark.simulation
@settings(jobs, max_examples=2)
@given(seeds)
def test_sandboxes_that_die_and_messages_that_come_twice_change_nothing(filled: Filled, seed: int) -> None:
    network = filled(6, seed, NOW)
    with small_pages(3):
        Queue.unreliable(seed, one_in=25).run(job.update_trending_hashtags, {"at": NOW})
    assert stored() == expected(network.posts, NOW)


def test_throttling_slows_the_job_and_loses_nothing(filled: Filled) -> None:
    network = filled(20, 3, NOW)
    with throttled(one_in=4, seed=3) as refused:
        run_task(job.update_trending_hashtags, {"at": NOW})
    assert refused["requests"] > 5
    assert stored() == expected(network.posts, NOW)


@pytest.mark.simulation
def test_counts_that_are_deleted_while_it_runs_are_counted_again(filled: Filled) -> None:
    """As by an operator. Before each request in turn; an attempt that misses one fails, and the next one counts it."""
    network = filled(6, 5, NOW)
    run_task(job.update_trending_hashtags, {"at": NOW})
    s3, bucket = boto3.client("s3"), deployed().bucket("archive")  # not the hooked client
    day = hashtags.hour_name(NOW // HOUR - 60)[:10]
    names = [f"{hashtags.DAYS}{day}.json"]
    names += [
        f"{hashtags.HOURS}{name}.json" for name in (f"{day}T03", f"{day}T20", hashtags.hour_name(NOW // HOUR - 3))
    ]
    for moment in range(0, 400, 2):
        seen = itertools.count()

        def emptied(_: str, seen: Iterator[int] = seen, moment: int = moment) -> None:
            if next(seen) == moment:
                for key in names:
                    s3.delete_object(Bucket=bucket, Key=key)

        with requests(emptied):
            try:
                run_task(job.update_trending_hashtags, {"at": NOW})
            except LookupError:
                run_task(job.update_trending_hashtags, {"at": NOW})
        assert stored() == expected(network.posts, NOW), moment
        if next(seen) <= moment:
            assert moment > 20
            return
    pytest.fail("400 requests for two hours")


def test_many_posts_of_one_account_are_no_trend(empty: Callable[[], None]) -> None:
    spam = [Post(f"s{n}", "spammer", NOW - 60, hashtags=("buy",)) for n in range(50)]
    real = [Post(f"r{n}", f"reader{n}", NOW - 60, hashtags=("book",)) for n in range(2)]
    posts.put_many([*spam, *real], now=NOW)
    run_task(job.update_trending_hashtags, {"at": NOW, "top": 1})
    assert stored() == [("book", 2, 2 * 168)]


def test_spellings_of_a_tag_are_counted_as_one_and_private_posts_not_at_all(empty: Callable[[], None]) -> None:
    ways = ["#Café", "cafe\u0301", "CAFÉ", "ｃａｆé"]
    made = [Post(f"p{n}", f"u{n}", NOW - 60, hashtags=(way,)) for n, way in enumerate(ways)]
    secret = Post("x", "y", NOW - 60, visibility="private", hashtags=("café",))
    posts.put_many([*made, secret], now=NOW)
    run_task(job.update_trending_hashtags, {"at": NOW})
    assert stored() == [("café", 4, 4 * 168)]


def test_a_moment_in_the_future_is_refused(empty: Callable[[], None]) -> None:
    """Its hours would be stored as final, without votes that are still to come."""
    with pytest.raises(InvalidMessage, match=r"at: .*in the future"):
        run_task(job.update_trending_hashtags, {"at": NOW + 202 * HOUR})
    assert hashtag_counts.kept() == (set(), set())


def test_a_tag_that_falls_out_is_cleared(empty: Callable[[], None]) -> None:
    posts.put_many([Post("p", "a", NOW - 100 * HOUR, hashtags=("old",))], now=NOW)
    run_task(job.update_trending_hashtags, {"at": NOW})
    assert tag("old") == (True, 168 - 100)
    report = run_task(job.update_trending_hashtags, {"at": NOW + 100 * HOUR})
    assert tag("old") == (False, 0)
    assert (stored(), report.trending) == ([], ())


def test_a_run_that_was_overtaken_by_a_later_one_changes_nothing(empty: Callable[[], None]) -> None:
    posts.put_many([Post("p", "a", NOW - HOUR, hashtags=("tea",))], now=NOW)
    run_task(job.update_trending_hashtags, {"at": NOW})
    late = run_task(job.update_trending_hashtags, {"at": NOW - HOUR})
    assert late.skipped == 1
    assert stored() == [("tea", 1, 167)]


def test_a_post_written_after_a_run_in_its_hour_still_counts(empty: Callable[[], None]) -> None:
    """Given a run five minutes past the hour, when a post of that hour's end appears after it, the next run has it."""
    hour = NOW // HOUR * HOUR
    run_task(job.update_trending_hashtags, {"at": hour + 300})
    posts.put_many([Post("late", "a", hour - 1, hashtags=("late",))], now=NOW)
    run_task(job.update_trending_hashtags, {"at": hour + HOUR + 300})
    assert stored() == [("late", 1, 166)]


def test_bad_rows_are_counted_and_skipped(empty: Callable[[], None]) -> None:
    posts.put_many(
        [
            Post("long", "a", NOW - 60, hashtags=("x" * 10_000, "fine")),
            Post("odd", "b", NOW - 60, hashtags=("fine", "two words", "")),
            Post("wrong", "c", NOW - 60),
        ],
        now=NOW,
    )
    posts.TABLE.update(Write({"post_id": "wrong"}, set={"hashtags": 7}))
    report = run_task(job.update_trending_hashtags, {"at": NOW})
    assert stored() == [("fine", 2, 2 * 168)]
    assert report.failed == 4


@pytest.mark.parametrize("hour", [0, 438_291, 500_000])
def test_an_hour_belongs_to_its_day(hour: int) -> None:
    day = hashtags.hour_name(hour)[:10]
    assert hour in hashtag_counts.hours_of(day)


def test_an_hour_is_final_once_it_is_over_and_the_index_has_caught_up() -> None:
    over = 438_292 * 3600
    assert not hashtag_counts.is_final(438_291, over + hashtag_counts.GRACE - 0.5)
    assert hashtag_counts.is_final(438_291, over + hashtag_counts.GRACE)


def test_the_most_used_tags_are_those_with_most_votes_and_then_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    votes = {"b": 2, "d": 1, "c": 3, "a": 2}
    monkeypatch.setattr(hashtag_counts, "KEPT_TAGS", 3)
    assert list(hashtag_counts.most_used(votes, lambda tag: votes[tag]).items()) == [("c", 3), ("a", 2), ("b", 2)]


def test_an_hour_and_a_day_keep_the_tags_with_most_votes(
    empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of many users has more tags in a week than a sandbox can hold."""
    monkeypatch.setattr(hashtag_counts, "KEPT_TAGS", 2)
    first = NOW // HOUR - 30
    day = hashtags.hour_name(first)[:10]
    hours = {first: {"a": 1, "b": 2, "c": 1}, first + 1: {"b": 1, "c": 2, "d": 3}}
    posts.put_many(
        [
            Post(f"{hour}-{tag}-{voter}", f"u{voter}", hour * HOUR + 60, hashtags=(tag,))
            for hour, votes in hours.items()
            for tag, number in votes.items()
            for voter in range(number)
        ],
        now=NOW,
    )
    report = run_task(job.update_trending_hashtags, {"at": NOW})
    assert hashtag_counts.read_hour(first) == {"b": 2, "a": 1}
    assert hashtag_counts.read_hour(first + 1) == {"d": 3, "c": 2}
    assert (
        hashtag_counts.keep_day(day)
        == hashtag_counts.read_day(day)
        == {
            "d": (3, 3 * (first + 1)),
            "b": (2, 2 * first),
        }
    )
    assert report.trending[0] == "d"


def test_a_rank_is_by_votes_and_their_age_and_then_by_name() -> None:
    """A vote weighs 168 less its age in hours; a stored day states the sum of votes x hour."""
    now = 438_300
    counted = [
        (now, "new", 2, 2 * now),  # 2 x 168
        (now - 168, "left", 5, 5 * (now - 168)),  # 5 x 0
        (now - 24, "burst", 1, now - 24),  # 144
        (now - 48, "burst", 2, (now - 24) + (now - 48)),  # 144 + 120
        (now - 167, "b", 3, 3 * (now - 167)),  # 3 x 1
        (now - 165, "a", 1, now - 165),  # 3
    ]
    expected = [Trend("burst", 3, 408), Trend("new", 2, 336), Trend("a", 1, 3), Trend("b", 3, 3), Trend("left", 5, 0)]
    assert job.rank(iter(counted), now, 5) == expected
    assert job.rank(iter(counted), now, 3) == expected[:3]


def test_a_day_has_its_hours_and_no_other() -> None:
    assert hashtag_counts.hours_of("2020-01-01") == range(438_288, 438_288 + 24)
