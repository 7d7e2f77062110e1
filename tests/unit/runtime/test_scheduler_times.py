"""When EventBridge Scheduler fires on the days on which clocks are set: zones and dates, by its user guide's rules.

A `cron` whose time the clocks skip does not fire; one whose time they repeat fires once, the first time. A `rate`
counts elapsed time, a day being 24 hours. (Its User Guide, "Schedule types", in November 2026.)
"""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus import cron


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fired(expression: str, zone: str, after: str, until: str, **bounds: datetime) -> list[str]:
    times = cron.scheduler_times(expression, ZoneInfo(zone), utc(after), utc(until), **bounds)
    return [f"{time:%m-%dT%H:%M}" for time in times]


@pytest.mark.parametrize(
    ("zone", "at", "after", "until", "expected"),
    [
        # The user guide's own example: 02:30 in Los Angeles.
        ("America/Los_Angeles", "30 2", "2027-03-13T00", "2027-03-16T00", "03-13T10:30 03-15T09:30"),
        ("America/Los_Angeles", "30 2", "2027-11-06T00", "2027-11-09T00", "11-06T09:30 11-07T10:30 11-08T10:30"),
        # Europe: an hour skipped on 28 March, and repeated on 31 October.
        ("Europe/Berlin", "30 2", "2027-03-27T00", "2027-03-30T00", "03-27T01:30 03-29T00:30"),
        ("Europe/Berlin", "0 2", "2027-03-28T00", "2027-03-28T20", ""),
        ("Europe/Berlin", "59 1", "2027-03-28T00", "2027-03-28T20", "03-28T00:59"),
        ("Europe/Berlin", "0 3", "2027-03-28T00", "2027-03-29T00", "03-28T01:00"),
        ("Europe/Berlin", "0 9", "2027-03-27T00", "2027-03-29T00", "03-27T08:00 03-28T07:00"),
        ("Europe/Berlin", "30 2", "2027-10-30T00", "2027-11-02T00", "10-30T00:30 10-31T00:30 11-01T01:30"),
        ("Europe/Berlin", "0 3", "2027-10-31T00", "2027-11-01T00", "10-31T02:00"),
        ("Europe/London", "30 1", "2027-03-27T12", "2027-03-29T12", "03-29T00:30"),
        ("Europe/London", "30 1", "2027-10-31T00", "2027-11-01T12", "10-31T00:30 11-01T01:30"),
        # The southern hemisphere skips in October and repeats in April.
        ("Australia/Sydney", "30 2", "2027-10-01T16", "2027-10-04T16", "10-01T16:30 10-03T15:30 10-04T15:30"),
        ("Australia/Sydney", "30 2", "2027-04-02T15", "2027-04-04T17", "04-02T15:30 04-03T15:30 04-04T16:30"),
        ("America/Santiago", "30 0", "2027-09-04T00", "2027-09-06T12", "09-04T04:30 09-06T03:30"),
        ("Pacific/Auckland", "30 2", "2027-09-24T12", "2027-09-26T14", "09-24T14:30 09-26T13:30"),
        # Lord Howe Island sets its clocks by half an hour: 02:00 to 02:29 are skipped, 01:30 to 01:59 are repeated.
        ("Australia/Lord_Howe", "15 2", "2027-10-01T12", "2027-10-04T12", "10-01T15:45 10-03T15:15"),
        ("Australia/Lord_Howe", "30 2", "2027-10-02T12", "2027-10-03T12", "10-02T15:30"),
        ("Australia/Lord_Howe", "45 1", "2027-04-02T12", "2027-04-04T16", "04-02T14:45 04-03T14:45 04-04T15:15"),
        ("Australia/Lord_Howe", "0 2", "2027-04-03T12", "2027-04-04T12", "04-03T15:30"),
        # Half-hours and quarters without summer time, and no zone at all.
        ("Asia/Kolkata", "30 2", "2027-03-27T00", "2027-03-29T00", "03-27T21:00 03-28T21:00"),
        ("Asia/Kathmandu", "0 9", "2027-06-01T00", "2027-06-02T00", "06-01T03:15"),
        ("America/Phoenix", "30 2", "2027-03-13T12", "2027-03-15T12", "03-14T09:30 03-15T09:30"),
        ("UTC", "30 2", "2027-03-27T12", "2027-03-29T12", "03-28T02:30 03-29T02:30"),
        # A zone that is a day away from UTC's, and one that once left out a day.
        ("Pacific/Kiritimati", "0 0", "2027-12-31T00", "2028-01-01T12", "12-31T10:00 01-01T10:00"),
        ("Pacific/Apia", "0 9", "2011-12-29T00", "2011-12-31T12", "12-29T19:00 12-30T19:00"),
        # Casablanca's clocks go back for Ramadan and forward after it.
        ("Africa/Casablanca", "30 2", "2027-03-13T00", "2027-03-15T12", "03-13T02:30 03-15T01:30"),
    ],
)  # fmt: skip
def test_a_cron_fires_by_its_time_zone_when_clocks_change(
    zone: str, at: str, after: str, until: str, expected: str
) -> None:
    assert fired(f"cron({at} * * ? *)", zone, after, until) == expected.split()


@pytest.mark.parametrize(
    ("zone", "expression", "after", "until", "expected"),
    [
        ("Europe/Berlin", "cron(0 0 1 1 ? *)", "2027-12-30T00", "2029-01-02T00", "12-31T23:00 12-31T23:00"),
        ("America/New_York", "cron(30 23 L 12 ? *)", "2027-12-30T00", "2028-01-02T00", "01-01T04:30"),
        ("Asia/Tokyo", "cron(0 8 ? JAN SAT#1 *)", "2027-12-30T00", "2028-01-02T00", "12-31T23:00"),
        ("Europe/Berlin", "cron(0 12 29 2 ? *)", "2027-01-01T00", "2029-01-01T00", "02-29T11:00"),
        ("Europe/Berlin", "cron(30 23 31 12 ? 2027)", "2027-12-31T22", "2029-01-01T00", "12-31T22:30"),
        ("Europe/Berlin", "cron(0 9 * * ?)", "2027-06-01T00", "2027-06-01T12", "06-01T07:00"),
        # Every hour, as the guide has it: no firing repeats in the hour that comes twice, so two hours pass.
        ("Europe/Berlin", "cron(0 * * * ? *)", "2027-10-30T23", "2027-10-31T03", "10-31T00:00 10-31T02:00 10-31T03:00"),
        ("Europe/Berlin", "cron(0 * * * ? *)", "2027-03-27T23:30", "2027-03-28T01", "03-28T00:00 03-28T01:00"),
        ("Europe/Berlin", "rate(30 minutes)", "2027-10-31T00", "2027-10-31T01", "10-31T00:30 10-31T01:00"),
        ("Europe/Berlin", "rate(1 hour)", "2027-03-27T23:15", "2027-03-28T01:15", "03-28T00:15 03-28T01:15"),
        ("Europe/Berlin", "rate(1 days)", "2027-03-27T08", "2027-03-29T08", "03-28T08:00 03-29T08:00"),
        ("Europe/Berlin", "at(2027-10-31T02:30:00)", "2027-10-30T00", "2027-11-02T00", "10-31T00:30"),
        ("Europe/Berlin", "at(2027-07-01T09:00:00)", "2027-06-30T00", "2027-07-02T00", "07-01T07:00"),
        ("Europe/Berlin", "at(2027-07-01T09:00:00)", "2027-07-01T07", "2027-07-02T00", ""),
    ],
)  # fmt: skip
def test_crons_at_years_end_rates_and_single_times_fire_when_due(
    zone: str, expression: str, after: str, until: str, expected: str
) -> None:
    assert fired(expression, zone, after, until) == expected.split()


def test_start_and_end_bound_crons_and_rates_and_not_a_single_time() -> None:
    bounds: dict[str, Any] = {"start": utc("2027-06-02T07:00"), "end": utc("2027-06-04T07:00")}
    long = ("2027-06-01T00:00", "2027-07-01T00:00")
    assert fired("cron(0 9 * * ? *)", "Europe/Berlin", *long, **bounds) == ["06-02T07:00", "06-03T07:00", "06-04T07:00"]
    assert fired("rate(1 day)", "Europe/Berlin", *long, **bounds) == ["06-02T07:00", "06-03T07:00", "06-04T07:00"]
    assert fired("rate(2 days)", "UTC", "2027-06-03T08:00", "2027-07-01T00:00", **bounds) == ["06-04T07:00"]
    assert fired("at(2027-06-20T09:00:00)", "UTC", *long, **bounds) == ["06-20T09:00"]


@pytest.mark.parametrize(
    "expression", ["at(soon)", "at(2027-06-20)", "cron(0 9 * *)", "rate(0 days)", "rate(2 day)", "x"]
)
def test_an_expression_that_scheduler_does_not_accept_is_refused(expression: str) -> None:
    with pytest.raises(cron.BadSchedule):
        fired(expression, "UTC", "2027-01-01", "2028-01-01")


ZONES = ("Europe/Berlin", "Australia/Lord_Howe", "America/New_York", "America/Santiago", "Asia/Kolkata")


@settings(max_examples=60)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(["cron(*/20 * * * ? *)", "cron(15 0-3 * * ? *)", "rate(25 minutes)"]),
    st.sampled_from(["2027-03-14", "2027-03-28", "2027-04-03", "2027-09-05", "2027-10-02", "2027-10-31", "2027-11-07"]),
    st.lists(st.integers(1, 600), min_size=1, max_size=20),
)
def test_a_span_cut_into_slices_has_the_same_firings(zone: str, expression: str, day: str, minutes: list[int]) -> None:
    start = utc(day) - timedelta(hours=12)
    cuts = list(itertools.accumulate(minutes, lambda moment, n: moment + timedelta(minutes=n), initial=start))

    def times(after: datetime, until: datetime) -> Iterator[datetime]:
        return cron.scheduler_times(expression, ZoneInfo(zone), after, until, start=start)

    whole = list(times(start, cuts[-1]))
    assert whole == [time for after, until in itertools.pairwise(cuts) for time in times(after, until)]
    assert whole == sorted(set(whole))


@pytest.mark.parametrize("expression", ["rate(1 minute)", "cron(* * * * ? *)"])
def test_a_schedule_whose_end_has_passed_is_not_searched_to_the_end_of_time(expression: str) -> None:
    now = utc("2026-03-01 00:00")
    times = cron.scheduler_times(
        expression, ZoneInfo("UTC"), now, datetime.max.replace(tzinfo=UTC), start=now - timedelta(days=2), end=now
    )
    assert list(times) == []
