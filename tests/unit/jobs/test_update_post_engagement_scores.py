"""update_post_engagement_scores, compared with the two formulas, with likes that arrive while it runs."""

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import update_post_engagement_scores as job
from nexus.aws.dynamodb import Write, from_item
from nexus.testing import run_task
from ops.social.seed import Network
from social import application
from social.data import days, posts
from social.data.posts import Counters, Post
from tests.support.sandboxes import Queue, requests, small_pages, throttled
from tests.unit.jobs.conftest import NOW, Filled, jobs, seeds


def expected(network: Network) -> dict[str, tuple[int, float]]:
    result = {}
    for post in network.posts:
        c = post.counters
        score = 3 * c.likes + 5 * c.comments + 7 * c.shares + c.views
        result[post.post_id] = (score, round(math.log10(max(1, score)) + (post.created_at - 1_704_067_200) / 45_000, 6))
    return result


def stored() -> dict[str, tuple[int, float]]:
    rows = [from_item(item) for page in posts.TABLE.scan() for item in page.items]
    return {row["post_id"]: (row["engagement_score"], row["feed_rank"]) for row in rows}


def waiting() -> set[str]:
    shards = range(posts.MOVED_SHARDS)
    return {item["post_id"]["S"] for shard in shards for page in posts.moved(shard) for item in page.items}


@jobs
@given(seeds, st.integers(1, 20))
def test_every_score_and_rank_is_the_formulas(filled: Filled, seed: int, people: int) -> None:
    network = filled(people, seed)
    moved = waiting()
    report = run_task(job.update_post_engagement_scores)
    assert stored() == expected(network)
    assert waiting() == set()
    assert (report.rows_read, report.changed) == (len(moved), len(moved)), "the posts that moved, and no other"
    assert run_task(job.update_post_engagement_scores).rows_read == 0


@pytest.mark.simulation
@settings(jobs, max_examples=4)
@given(seeds)
def test_sandboxes_that_die_and_messages_that_come_twice_change_nothing(filled: Filled, seed: int) -> None:
    network = filled(10, seed)
    with small_pages(2):
        Queue.unreliable(seed).run(job.update_post_engagement_scores)
    assert stored() == expected(network)
    assert waiting() == set()


@pytest.mark.simulation
@settings(jobs, max_examples=4)
@given(st.integers(0, 40), st.sampled_from(["BatchGetItem", "BatchExecuteStatement", "Query"]))
def test_a_like_during_the_scoring_is_never_lost(filled: Filled, nth: int, operation: str) -> None:
    """Whenever a like comes, the score includes it, or the post waits for the next run, whose score does."""
    network = filled(6, nth)
    loved = network.posts[0].post_id
    seen = [0]

    def like(name: str) -> None:
        if name == operation:
            seen[0] += 1
            if seen[0] == nth % 20 + 1:
                application.count(loved, likes=1)

    with requests(like):
        run_task(job.update_post_engagement_scores)
    post = posts.get(loved)
    assert post is not None
    assert post.engagement_score == posts.engagement_score(post.counters) or loved in waiting()
    run_task(job.update_post_engagement_scores)
    post = posts.get(loved)
    assert post is not None
    assert post.engagement_score == posts.engagement_score(post.counters)


def test_throttling_slows_the_job_and_loses_nothing(filled: Filled) -> None:
    network = filled(20, 3)
    with throttled(one_in=3, seed=2) as refused:
        run_task(job.update_post_engagement_scores)
    assert refused["requests"] > 5
    assert stored() == expected(network)


def test_the_feed_holds_public_posts_alone_by_rank(filled: Filled) -> None:
    network = filled(30, 4)
    changed_mind = next(post for post in network.posts if post.visibility == "public")
    application.set_visibility(changed_mind.post_id, "private")
    leaked = next(post for post in network.posts if post.visibility == "private")
    posts.TABLE.update(Write({"post_id": leaked.post_id}, set={"feed": "public#0", "moved": "moved#00"}))
    run_task(job.update_post_engagement_scores)
    ranks = expected(network)
    public = {post.post_id for post in network.posts if post.visibility == "public"} - {changed_mind.post_id}
    best = sorted(public, key=lambda post_id: ranks[post_id][1], reverse=True)
    assert [post.post_id for post in posts.feed(len(network.posts))] == best


def test_a_post_that_a_dead_sandbox_left_on_its_way_to_the_archive_stays_out_of_the_feed(
    empty: Callable[[], None],
) -> None:
    posts.put_many([Post("p", "a", NOW, counters=Counters(views=1))], now=NOW)
    posts.TABLE.update(Write("p", set={"archived_as": "posts/2026-11-22/x.jsonl.gz"}, remove=("feed",)))
    report = run_task(job.update_post_engagement_scores)
    assert report.changed == 1
    assert posts.feed(10) == []


def test_a_post_whose_archiving_begins_while_it_is_scored_stays_out_of_the_feed(empty: Callable[[], None]) -> None:
    posts.put_many([Post("p", "a", NOW, counters=Counters(views=1))], now=NOW)
    posts.TABLE.update(Write("p", remove=("feed",)))
    (read,) = posts.for_scoring(["p"])
    posts.TABLE.update(Write("p", set={"archived_as": "posts/2026-11-22/x.jsonl.gz"}))
    assert not posts.TABLE.update(posts.scored(read, NOW))
    assert posts.feed(10) == []


def test_rows_that_cannot_be_read_stay_for_a_person_and_never_stop_it(filled: Filled) -> None:
    network = filled(10, 9)
    victims = sorted(waiting())[:3]
    posts.TABLE.update(Write({"post_id": victims[0]}, set={"likes_count": -5}))
    posts.TABLE.update(Write({"post_id": victims[1]}, set={"views_count": "lots"}))
    posts.TABLE.update(Write({"post_id": victims[2]}, remove=("created_at",)))
    report = run_task(job.update_post_engagement_scores)
    assert report.failed == 3
    assert waiting() == set(victims)
    good = {post_id: row for post_id, row in expected(network).items() if post_id not in victims}
    assert {post_id: row for post_id, row in _readable().items() if post_id not in victims} == good


def _readable() -> dict[str, tuple[int, float]]:
    rows = [from_item(item) for page in posts.TABLE.scan() for item in page.items]
    return {row["post_id"]: (row["engagement_score"], row["feed_rank"]) for row in rows if "feed_rank" in row}


def test_an_old_post_that_lost_its_only_like_is_put_up_for_review(empty: Callable[[], None]) -> None:
    old = NOW - 400 * 86_400
    posts.put_many([Post("p", "a", old, counters=Counters(likes=1), engagement_score=3)], now=NOW)
    assert application.count("p", likes=-1)
    run_task(job.update_post_engagement_scores)
    item = posts.TABLE.get({"post_id": "p"})
    assert item is not None
    assert "review" in item


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1_704_067_200, 2_000_000_000))
@example(0, 1, 1_704_067_200)
def test_the_rank_never_falls_with_engagement_and_grows_with_time(score: int, more: int, created_at: int) -> None:
    rank = posts.feed_rank(score, created_at)
    assert posts.feed_rank(score + more, created_at) >= rank
    assert posts.feed_rank(score, created_at + 45_000) == pytest.approx(rank + 1, abs=2e-6)
    exact = Fraction(created_at - 1_704_067_200, 45_000)
    assert abs(Fraction(rank) - exact - Fraction(math.log10(max(1, score)))) <= Fraction(1, 10**6)


def test_the_formulas_by_example() -> None:
    assert posts.engagement_score(Counters(likes=2, comments=10, shares=100, views=1000)) == 2 * 3 + 50 + 700 + 1000
    assert posts.feed_rank(1000, posts.FEED_EPOCH) == 3
    assert posts.feed_rank(2, posts.FEED_EPOCH) == 0.30103
    assert posts.feed_rank(1, posts.FEED_EPOCH + 45_000) == posts.feed_rank(10, posts.FEED_EPOCH) == 1
    assert posts.feed_rank(0, posts.FEED_EPOCH + 7) == posts.age_rank(posts.FEED_EPOCH + 7) == 0.000156


def test_a_formulas_year_ends_with_the_anniversary() -> None:
    assert posts.old_day("2026-11-28") == "2025-11-27"
    assert posts.old_day("2024-02-29") == "2023-02-28"

    def eligible(created: str, restored: str | None = None, views: int = 0) -> bool:
        row = {"post_id": {"S": "p"}, "created_at": {"N": str(days.start_of(created))}}
        row |= {name: {"N": "0"} for name in posts.COUNTERS} | {"views_count": {"N": str(views)}}
        if restored:
            row["restored_at"] = {"N": str(days.start_of(restored))}
        return posts.is_eligible(row, "2026-11-28")

    assert eligible("2025-11-27")
    assert not eligible("2025-11-28")
    assert not eligible("2024-11-27", restored="2026-01-01")
    assert not eligible("2025-11-27", views=posts.QUIET_VIEWS)
