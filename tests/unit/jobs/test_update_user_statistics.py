"""update_user_statistics against a brute-force count, on good days and on the worst."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import update_user_statistics as job
import user_sums
from nexus.aws.dynamodb import Write
from nexus.errors import Reject
from nexus.testing import run_task
from nexus.worker import Run
from ops.social.seed import Network, generate, write
from social.data import follows, posts, users
from social.data.users import Counts
from social.parts import MergeRange, PlanRanges
from tests.support.sandboxes import Queue, small_pages, throttled
from tests.unit.jobs.conftest import NOW, Filled, jobs, seeds


def expected(network: Network) -> dict[str, tuple[int, int, int]]:
    """Every user's (followers, following, posts), counted one by one."""
    followers = Counter(followed for _, followed, _ in network.follows)
    following = Counter(follower for follower, _, _ in network.follows)
    posted = Counter(post.author_id for post in network.posts)
    return {
        user.user_id: (followers[user.user_id], following[user.user_id], posted[user.user_id]) for user in network.users
    }


def stored() -> dict[str, tuple[int, int, int]]:
    rows = [users.read(item) for page in users.TABLE.scan() for item in page.items]
    return {user.user_id: (user.followers_count, user.following_count, user.posts_count) for user in rows}


def wrong(network: Network) -> int:
    """How many users' stored counts are not what they should be."""
    right = expected(network)
    return sum(
        (user.followers_count, user.following_count, user.posts_count) != right[user.user_id] for user in network.users
    )


@pytest.fixture(params=["merged at once", "regrouped first"])
def cut_small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes so small that a few users have many ranges, objects and batches: merged at once, or regrouped before."""
    monkeypatch.setattr(job, "USERS_PER_RANGE", 2)
    monkeypatch.setattr(job, "MOST_RANGES", 1_000 if request.param == "merged at once" else 1)
    monkeypatch.setattr(job, "USERS_HELD", 5)
    monkeypatch.setattr(job, "REGROUPED_BYTES", 400)
    monkeypatch.setattr(job, "WRITES_AT_ONCE", 1)
    monkeypatch.setattr(user_sums, "OBJECT_BYTES", 300)
    monkeypatch.setattr(user_sums, "BYTES_AT_ONCE", 250)


@jobs
@given(seeds, st.integers(1, 25))
@pytest.mark.usefixtures("cut_small")
def test_every_count_is_what_counting_one_by_one_gives(filled: Filled, seed: int, people: int) -> None:
    network = filled(people, seed)
    report = run_task(job.update_user_statistics)
    assert stored() == expected(network)
    assert report.changed == wrong(network), "writes those who differ and no other"
    assert report.rows_read == len(network.users) + len(network.follows) + len(network.posts)
    assert (report.skipped, report.failed) == (0, 0)


@pytest.mark.simulation
@settings(jobs, max_examples=4)
@given(seeds)
@pytest.mark.usefixtures("cut_small")
def test_sandboxes_that_die_and_messages_that_come_twice_change_nothing(filled: Filled, seed: int) -> None:
    network = filled(7, seed)
    queue = Queue.unreliable(seed)
    with small_pages(7):
        queue.run(job.update_user_statistics)
    assert stored() == expected(network)


@pytest.mark.simulation
@pytest.mark.usefixtures("cut_small")
def test_a_sandbox_may_die_at_any_request(empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("social.sweep.SEGMENT_BYTES", 10**6)
    monkeypatch.setattr(user_sums, "READS_AT_ONCE", 1)  # the nth request is the same one in every round
    network = generate(4, 7, NOW)
    died = 0
    for fatal in range(200):
        empty()
        write(network, NOW)
        queue = Queue.dying_at(fatal)
        queue.run(job.update_user_statistics)
        assert stored() == expected(network)
        died += queue.deaths
        if not queue.deaths:
            break
    else:
        pytest.fail("200 requests for four users")
    assert died > 15


@pytest.mark.simulation
@pytest.mark.usefixtures("cut_small")
def test_a_job_whose_every_invocation_is_short_of_time_still_ends(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_with: dict[str, set[str]] = {"count": set(), "regroup": set(), "merge": set()}

    def noted(name: str) -> Callable[[Any, Run], Any]:
        work: Callable[[Any, Run], Any] = getattr(job, name)

        def call(args: Any, run: Run) -> Any:
            began_with[name] |= {place for place, value in (run.cursor or {}).items() if value}
            return work(args, run)

        return call

    for name in began_with:
        monkeypatch.setattr(job, name, noted(name))
    monkeypatch.setattr(user_sums, "BYTES_AT_ONCE", 1)
    network = filled(20, 4)
    with small_pages(4):
        report = Queue(short=lambda: True).run(job.update_user_statistics)
    assert stored() == expected(network)
    assert report.rows_read == len(network.users) + len(network.follows) + len(network.posts)
    assert report.changed == wrong(network), "a user who was written is not written again"
    assert began_with["count"] == {"start", "written", "report"}
    assert began_with["merge"] == {"read", "done", "kept", "report"}
    assert began_with["regroup"] == ({"read", "written", "report"} if job.MOST_RANGES == 1 else set())


@given(st.integers(0, 220_000_000))
def test_no_object_is_read_in_more_than_64_pieces_for_any_number_of_users(people: int) -> None:
    bands, ranges = job.layout(people)
    assert bands * ranges * job.USERS_PER_RANGE > people
    assert bands + (ranges if ranges > 1 else 0) <= 2 * 32
    if people < job.MOST_RANGES * job.USERS_PER_RANGE:
        assert ranges == 1, "one step less"
    places = {(hashed % bands, hashed // bands % ranges) for hashed in map(user_sums.hash_of, map(str, range(2_000)))}
    assert all(band < bands and place < ranges for band, place in places)


def test_throttling_slows_the_job_and_loses_nothing(filled: Filled) -> None:
    network = filled(20, 3)
    with throttled(one_in=3, seed=1) as refused:
        run_task(job.update_user_statistics)
    assert refused["requests"] > 5
    assert stored() == expected(network)


def test_a_user_who_has_lost_all_followers_is_reset_to_zero(empty: Callable[[], None]) -> None:
    alone = generate(1, 5, NOW)
    alone.users[0] = users.User("u", "u@example.com", "U", NOW, "2026-01-01", followers_count=1_000_000, posts_count=7)
    users.put_many(alone.users[:1])
    run_task(job.update_user_statistics)
    assert stored() == {"u": (0, 0, 0)}


def test_a_later_refresh_of_one_user_is_not_overwritten(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a user refreshed after the nightly count began, when the count writes, then the refreshed numbers stay."""
    network = filled(6, 11)
    star = network.users[0].user_id
    monkeypatch.setattr("time.time", lambda: NOW)
    users.set_counts([Counts(star, 99, 98, 97, counted_at=NOW + 60)])
    report = run_task(job.update_user_statistics)
    assert stored()[star] == (99, 98, 97)
    assert {user: counts for user, counts in stored().items() if user != star} == {
        user: counts for user, counts in expected(network).items() if user != star
    }
    assert report.skipped == 1


def test_unreadable_rows_are_repaired_or_skipped_and_never_stop_it(filled: Filled) -> None:
    network = filled(5, 2)
    broken, negative = network.users[0].user_id, network.users[1].user_id
    users.TABLE.update(Write({"user_id": broken}, set={"followers_count": "many"}))
    users.TABLE.update(Write({"user_id": negative}, set={"posts_count": -3}))
    posts.TABLE.put({"post_id": "orphan", "text": "no author, no date"})
    follows.put_many([("ghost", "phantom", NOW)])
    report = run_task(job.update_user_statistics)
    assert report.failed == 2
    assert stored() == expected(network), "an invalid stored count is replaced; strangers get none"


def test_a_row_from_before_counted_at_existed_is_counted_too(empty: Callable[[], None]) -> None:
    users.put_many([users.User("old", "o@example.com", "O", NOW, "2026-01-01", followers_count=5)])
    users.TABLE.update(Write({"user_id": "old"}, remove=("counted_at",)))
    run_task(job.update_user_statistics)
    assert stored() == {"old": (0, 0, 0)}


PLAN: dict[str, Any] = {"work": "work/run", "started_at": NOW, "bands": 1, "ranges": 1}


@pytest.mark.parametrize(
    "phase",
    [
        PlanRanges(**PLAN, parts={"follows": 1}),
        MergeRange(**PLAN, gathered="work/run/gathered/g", column=0, first=0, end=1),
    ],
    ids=lambda phase: type(phase).__name__,
)
def test_a_phase_whose_partial_sums_have_expired_says_what_to_do(
    empty: Callable[[], None], phase: PlanRanges | MergeRange
) -> None:
    """As when its dead letter is sent again after days: trying again cannot help."""
    with pytest.raises(Reject, match=r"expired \(archive: no object work/run/.*\): send the task again"):
        run_task(job.update_user_statistics, phase)


def test_a_second_run_without_changes_only_scans(filled: Filled) -> None:
    filled(60, 1)
    run_task(job.update_user_statistics)
    again = run_task(job.update_user_statistics)
    assert again.changed == 0
    assert again.requests < 60, "a second run scans, and writes nothing"
