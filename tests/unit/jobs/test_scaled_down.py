"""The nightly count of a hundred million users at a ten-thousandth of the scale, on the benchmarks' stand-in.

Users, segments, pages, ranges and objects are a ten-thousandth of those deployed, so the job takes every step that it
takes there: objects that fill up, sums regrouped by range, invocations that run out of time in every phase.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import update_user_statistics as job
import user_sums
from bench.jobs import stand_in
from bench.jobs.stand_in import StandIn, Table
from nexus.aws import sdk
from nexus.testing import memory_backend
from social import sweep
from social.data import users
from tests.support.sandboxes import Queue

pytestmark = [pytest.mark.simulation, pytest.mark.usefixtures("environment")]

FOLLOWS = 5
"""Edges a user: enough to fill a few objects a segment."""

SCALED = {
    (sweep, "SEGMENT_BYTES"),
    (stand_in, "PAGE_BYTES"),
    (job, "USERS_PER_RANGE"),
    (job, "USERS_HELD"),
    (job, "REGROUPED_BYTES"),
    (user_sums, "OBJECT_BYTES"),
    (user_sums, "BYTES_AT_ONCE"),
}


@pytest.fixture(autouse=True)
def _scaled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module, name in SCALED:
        monkeypatch.setattr(module, name, getattr(module, name) // 10_000)
    # At that scale a page would be one edge, and most of the test would be paging.
    monkeypatch.setattr(stand_in, "PAGE_BYTES", 10 * 1024)
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")  # else the stand-in would store chunks
    sdk.reset()
    yield
    sdk.reset()


@dataclass(frozen=True)
class Counted:
    """The result of a nightly count, and its requests."""

    right: bool
    objects: int
    ranges: tuple[int, int]
    continued: int


def count(people: int) -> Counted:
    """Counts a network of this many users; one invocation in ten runs out of time after its first page or batch."""
    tables = stand_in.tables()
    expected = fill(tables, people)
    invocations = iter(range(10**9))
    queue = Queue(short=lambda: next(invocations) % 10 == 5)
    cloud = StandIn(tables.values())
    with cloud.installed(), memory_backend():
        queue.run(job.update_user_statistics)
    stored = {
        item["user_id"]["S"]: tuple(int(item[name]["N"]) for name in users.COUNTS)
        for item in tables["users"].items.values()
    }
    spent = cloud.spent
    return Counted(stored == expected, spent.objects_put + spent.objects_got, job.layout(people), queue.continued)


def fill(tables: dict[str, Table], people: int) -> dict[str, tuple[int, int, int]]:
    """Users, and a post for every third. One stored count in twenty is wrong; returns the right ones."""
    chance = random.Random(people)
    ids = [f"{chance.getrandbits(64):016x}-{number}" for number in range(people)]
    edges = {(a, ids[int(people * chance.random() ** 3)]) for a in ids for _ in range(FOLLOWS)}
    authors = {f"p{number}": ids[int(people * chance.random() ** 2)] for number in range(people // 3)}
    tables["follows"].load({"follower_id": {"S": a}, "followed_id": {"S": b}} for a, b in edges)
    tables["posts"].load(
        {"post_id": {"S": post_id}, "author_id": {"S": author}, "created_at": {"N": "1"}}
        for post_id, author in authors.items()
    )
    followers, following = Counter(b for _, b in edges), Counter(a for a, _ in edges)
    posted = Counter(authors.values())
    right = {user_id: (followers[user_id], following[user_id], posted[user_id]) for user_id in ids}
    tables["users"].load(
        {"user_id": {"S": user_id}, "counted_at": {"N": "0"}}
        | {name: {"N": str(number + (place % 20 == 0))} for name, number in zip(users.COUNTS, numbers, strict=True)}
        for place, (user_id, numbers) in enumerate(right.items())
    )
    return right


def test_counting_ten_times_the_users_makes_at_most_ten_times_the_s3_requests() -> None:
    ten, hundred = count(1_000), count(10_000)
    assert (ten.right, hundred.right) == (True, True), "what counting one by one gives"
    assert ten.ranges[1] == 1, "merged straight from the scans"
    assert min(hundred.ranges) > 10, "in two steps"
    assert hundred.continued > 10
    assert hundred.objects <= 10 * ten.objects, f"S3 requests: {ten}, {hundred}"
