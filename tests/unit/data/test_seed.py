"""The demo data: believable, repeatable, and with something in it for every job."""

from collections import Counter

from ops.social.seed import BURST_TAG, generate, seed
from social.data import users
from social.data.days import DAY_SECONDS, day_of

NOW = 1_800_000_000


def test_a_seed_gives_the_same_network_and_another_gives_another() -> None:
    assert generate(200, 7, NOW) == generate(200, 7, NOW)
    assert generate(200, 7, NOW) != generate(200, 8, NOW)
    later = generate(200, 7, NOW + DAY_SECONDS)
    assert [user.user_id for user in later.users] == [user.user_id for user in generate(200, 7, NOW).users]


def test_the_demo_data_has_work_for_every_job() -> None:
    network = generate(2000, 1, NOW)
    followers = sorted(Counter(target for _, target, _ in network.follows).values(), reverse=True)
    assert sum(followers[:20]) > sum(followers) / 5, "one in a hundred has a fifth of the followers"
    assert len({user.user_id for user in network.users}) == 2000
    dormant = sum(user.last_active_day < day_of(NOW - 31 * DAY_SECONDS) for user in network.users)
    assert 400 < dormant < 1200
    assert any(token.is_valid(NOW) for token in network.tokens)
    assert any(not token.is_valid(NOW) for token in network.tokens)
    old = [post for post in network.posts if post.created_at < NOW - 366 * DAY_SECONDS]
    assert any(post.counters.quiet for post in old)
    assert any(not post.counters.quiet for post in old)
    burst = [post for post in network.posts if BURST_TAG in post.hashtags]
    assert burst
    assert min(post.created_at for post in burst) > NOW - DAY_SECONDS
    assert {post.visibility for post in network.posts} == {"public", "followers", "private"}
    reported = Counter(comment.post_id for comment in network.comments)
    assert all(reported[post.post_id] == post.counters.comments for post in network.posts), "counters tell the truth"


def test_seeding_reports_progress_and_is_idempotent(database: None) -> None:
    reported: list[tuple[int, int, str]] = []
    report = seed(20, 3, lambda *progress: reported.append(progress), now=NOW)
    assert reported[-1][0] == reported[-1][1] == report.total
    again = seed(20, 3, now=NOW)
    assert again.rows == report.rows
    assert sum(len(page.items) for page in users.TABLE.scan()) == 20
