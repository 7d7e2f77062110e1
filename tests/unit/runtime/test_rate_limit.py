"""A rate's timetable, start by start, with a clock that moves only when it is moved."""

import heapq
from collections.abc import Iterator

import pytest

from nexus import clock
from nexus.clock import FrozenClock
from nexus.runs import rate_limit
from nexus.runs.rate_limit import RateLimiter
from nexus.testing import SentTasks, memory_backend


class CountingClock(FrozenClock):
    """A limiter that notes how long it was asked to wait."""

    def __init__(self, moment: float) -> None:
        super().__init__(moment)
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        super().sleep(seconds)


@pytest.fixture
def run_table() -> Iterator[SentTasks]:
    with memory_backend() as sent:
        yield sent


@pytest.fixture
def time() -> Iterator[CountingClock]:
    counting = CountingClock(1000.0)
    with clock.use(counting):
        yield counting


@pytest.mark.parametrize(
    ("per_second", "starts"),
    [
        (4, [1000.0, 1000.25, 1000.5, 1000.75, 1001.0, 1001.25]),
        (2.5, [1000.0, 1000.4, 1000.8, 1001.2, 1001.6]),
        (0.1, [1000.0, 1010.0, 1020.0]),
    ],
)
def test_starts_are_spaced_evenly_across_bookings(
    run_table: SentTasks, time: CountingClock, per_second: float, starts: list[float]
) -> None:
    limiter = RateLimiter("mail", per_second)
    assert [limiter.take() for _ in starts] == pytest.approx(starts)


def test_a_first_booking_takes_one_start_and_is_kept_for_a_day(run_table: SentTasks, time: CountingClock) -> None:
    time.moment = 1000.1234567
    RateLimiter("mail", 4).take()

    item = run_table.store.items["rate/mail"]

    assert item["next_at"] == 1000.373457
    assert item["expires"] == 1000 + 86_400


def test_a_booking_lasts_for_a_second_at_the_pace_of_the_sandbox(run_table: SentTasks, time: CountingClock) -> None:
    limiter = RateLimiter("mail", 100)
    bookings = []
    for _ in range(12):
        limiter.take()
        bookings.append(run_table.store.items["rate/mail"]["next_at"])
        time.moment += 0.125  # the work: eight runs a second
    assert bookings == pytest.approx([1000.01] + 8 * [1000.205] + 3 * [1001.205])


def test_a_booking_takes_at_most_a_second_of_the_timetable(run_table: SentTasks, time: CountingClock) -> None:
    limiter = RateLimiter("mail", 4)
    for _ in range(2):
        limiter.take()  # at once: as fast as the rate allows
    assert run_table.store.items["rate/mail"]["next_at"] == 1001.25


def test_sandboxes_share_one_timetable(run_table: SentTasks, time: CountingClock) -> None:
    first, second = RateLimiter("mail", 2), RateLimiter("mail", 2)
    assert [limiter.take() for limiter in (first, second, first, second, first)] == [1000, 1000.5, 1001, 1002, 1001.5]


@pytest.mark.parametrize(("per_second", "sandboxes", "seconds"), [(100, 10, 0.1), (200, 8, 0.06), (14, 8, 0.06)])
def test_sandboxes_together_reach_the_rate_if_they_are_fast_enough(
    run_table: SentTasks, time: CountingClock, per_second: float, sandboxes: int, seconds: float
) -> None:
    free = [(time.moment + n / 100, n, RateLimiter("mail", per_second)) for n in range(sandboxes)]
    starts = []
    while free[0][0] < 1020:
        time.moment, number, limiter = heapq.heappop(free)
        starts.append(max(time.moment, limiter.take()))
        heapq.heappush(free, (starts[-1] + seconds, number, limiter))

    in_time = sum(start < 1020 for start in starts)

    assert 0.9 <= in_time / 20 / min(per_second, sandboxes / seconds) <= 1.05


def test_below_one_a_second_a_sandbox_books_a_single_start(run_table: SentTasks, time: CountingClock) -> None:
    first, second = RateLimiter("mail", 0.1), RateLimiter("mail", 0.1)
    assert [limiter.take() for limiter in (first, second, first)] == [1000, 1010, 1020]


def test_a_longer_stretch_books_more_starts(
    run_table: SentTasks, time: CountingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "STRETCH", 2.0)
    limiter = RateLimiter("mail", 4)
    for _ in range(2):
        limiter.take()
    assert run_table.store.items["rate/mail"]["next_at"] == 1002.25


def test_starts_that_a_sandbox_missed_by_more_than_a_second_are_dropped(
    run_table: SentTasks, time: CountingClock
) -> None:
    few, many = RateLimiter("few", 4), RateLimiter("many", 4)
    for limiter in (few, few, many, many):
        limiter.take()
    time.moment = 1001.6  # 1000.5 is 1.1 s ago
    assert [few.take() for _ in range(4)] == [1000.5, 1000.75, 1001.0, 1001.6]
    time.moment = 1001.8  # 1000.5 is 1.3 s ago, 1000.75 is 1.05 s ago
    assert [many.take() for _ in range(3)] == [1000.75, 1001.0, 1001.8]


def test_a_sandbox_that_missed_its_whole_booking_books_another(run_table: SentTasks, time: CountingClock) -> None:
    limiter = RateLimiter("mail", 4)
    limiter.take()
    time.moment = 1060.0
    assert [limiter.take() for _ in range(2)] == [1060.0, 1060.25]


def test_acquiring_waits_until_the_start_and_not_at_all_if_it_is_due(run_table: SentTasks, time: CountingClock) -> None:
    limiter = RateLimiter("mail", 4)
    for _ in range(3):
        assert limiter.acquire()
    assert time.waits == [0.25, 0.25]

    time.moment += 0.5

    assert limiter.wait == 0.0
    assert limiter.acquire()
    assert time.waits == [0.25, 0.25]


def test_a_start_exactly_at_the_end_of_patience_is_waited_for(run_table: SentTasks, time: CountingClock) -> None:
    limiter = RateLimiter("mail", 0.5)
    limiter.take()
    assert not limiter.acquire(patience=1.9)
    assert limiter.wait == 2.0
    assert limiter.acquire(patience=2.0)
    assert time.moment == 1002.0


def test_a_booking_is_not_used_with_another_run_table(run_table: SentTasks, time: CountingClock) -> None:
    limiter = RateLimiter("mail", 4)
    assert [limiter.take() for _ in range(3)] == [1000.0, 1000.25, 1000.5]
    with memory_backend() as other:
        assert limiter.take() == 1000.0
        assert other.store.items["rate/mail"]["next_at"] == 1000.25
