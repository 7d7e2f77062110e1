"""The benchmark's extrapolation to sizes that it cannot measure."""

from dataclasses import replace

import pytest

from bench.jobs.__main__ import Measured
from bench.jobs.paper import PAGE_UNITS, on_paper
from nexus.runs.tallies import LIMIT
from social import sweep

pytestmark = pytest.mark.usefixtures("environment")

ROWS = {
    "edge scanned": 2.0,
    "post in the index": 1.0,
    "user row scanned": 2.0,
    "user row merged, one in four written": 6.0,
}


def measured(job: str, users: int, **given: object) -> Measured:
    """A run of a job in which every figure is a small number per user."""
    tables = {"follows": 750, "posts/by-author": 150, "users": 210, "tokens": 120, "sessions": 60}
    plain = Measured(
        job=job,
        users=users,
        past=1.0,
        rows=10 * users,
        changed=users // 4,
        requests=users // 10,
        read_units=0.5 * users,
        write_units=0.25 * users,
        objects=20,
        puts=10,
        cpu=1e-5 * users,
        peak_mb=50.0,
        read_from={"users": 0.5 * users},
        posts=2 * users,
        parts=ROWS,
        sizes={name: each * users for name, each in tables.items()},
        sampled_units=0.0,
        sampled_deletes=0,
    )
    return replace(plain, **given)  # type: ignore[arg-type]


def test_a_figure_is_extrapolated_along_the_line_through_two_sizes() -> None:
    job = "generate_content_analytics"
    smaller = measured(job, 1_000, requests=130, write_units=7.0)
    work = on_paper(smaller, measured(job, 10_000, requests=1_030, write_units=7.0), 1_000_000)
    assert (work.requests, work.write_units) == (100_030, 7.0)
    assert work.read_units == 500_000
    assert work.phases == (4 + 1,)


def test_a_sample_of_each_segment_does_not_grow_with_a_table_of_one_segment() -> None:
    job = "cleanup_expired_tokens"
    smaller, larger = (
        measured(job, users, sampled_units=0.1 * users, sampled_deletes=users // 20, write_units=0.06 * users)
        for users in (1_000, 10_000)
    )
    work = on_paper(smaller, larger, 1_000_000)
    sampled = 2 * PAGE_UNITS
    assert work.read_units == pytest.approx(0.4 * 1_000_000 + sampled)
    assert work.write_units == pytest.approx(0.01 * 1_000_000 + sampled * 0.5)


def test_the_count_of_ten_times_the_users_is_estimated_at_most_ten_times_the_s3_requests() -> None:
    job = "update_user_statistics"
    reads = {"follows": 0.09, "posts/by-author": 0.02, "users": 0.026}
    smaller, larger = (
        measured(job, users, read_from={name: each * users for name, each in reads.items()})
        for users in (1_000, 10_000)
    )
    ten, hundred, many = (on_paper(smaller, larger, users) for users in (10_000_000, 100_000_000, 250_000_000))
    assert hundred.puts + hundred.gets <= 10 * (ten.puts + ten.gets)
    assert hundred.read_units == pytest.approx(10 * ten.read_units)
    assert len(ten.phases) == 2, "merged straight from the scans"
    assert len(hundred.phases) == 3
    assert max(many.phases) <= LIMIT
    assert hundred.phases[0] > sweep.MAX_SEGMENTS, "of three tables"
