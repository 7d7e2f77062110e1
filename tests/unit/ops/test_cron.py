"""When a schedule fires next: EventBridge's own examples, and a slow walk over every minute as the second opinion."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus import cron
from tests.support import network

NOW = datetime(2026, 11, 22, 15, 30, 20, tzinfo=UTC)  # a Sunday


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("cron(0 10 * * ? *)", ["2026-11-23 10:00", "2026-11-24 10:00"]),
        ("cron(15 12 * * ? *)", ["2026-11-23 12:15", "2026-11-24 12:15"]),
        ("cron(0 18 ? * MON-FRI *)", ["2026-11-23 18:00", "2026-11-24 18:00"]),
        ("cron(0 8 1 * ? *)", ["2026-12-01 08:00", "2027-01-01 08:00"]),
        ("cron(0/15 * * * ? *)", ["2026-11-22 15:45", "2026-11-22 16:00"]),
        ("cron(0/10 * ? * MON-FRI *)", ["2026-11-23 00:00", "2026-11-23 00:10"]),
        ("cron(0 0 L * ? *)", ["2026-11-30 00:00", "2026-12-31 00:00"]),
        ("cron(0 0 ? * 6L *)", ["2026-11-27 00:00", "2026-12-25 00:00"]),
        ("cron(0 9 ? * 2#1 *)", ["2026-12-07 09:00", "2027-01-04 09:00"]),
        ("cron(0 9 1W * ? *)", ["2026-12-01 09:00", "2027-01-01 09:00"]),
        ("cron(0 9 ? * FRI-MON *)", ["2026-11-23 09:00", "2026-11-27 09:00"]),
        ("cron(0 0 29 2 ? *)", ["2028-02-29 00:00", "2032-02-29 00:00"]),
        ("cron(30 15 22 11 ? 2026)", []),
        ("rate(6 hours)", ["2026-11-22 21:30", "2026-11-23 03:30"]),
        ("rate(1 day)", ["2026-11-23 15:30", "2026-11-24 15:30"]),
    ],
)
def test_the_next_two_times(expression: str, expected: list[str]) -> None:
    assert [f"{time:%Y-%m-%d %H:%M}" for time in cron.next_times(expression, 2, NOW)] == expected


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("0 9 * * *", "neither cron"),
        ("cron(0 9 * * *)", "5 fields"),
        ("cron(0 9 * * * *)", "exactly one"),
        ("cron(0 9 ? * ? *)", "exactly one"),
        ("cron(60 9 * * ? *)", "minutes: '60'"),
        ("cron(0 9 32 * ? *)", "day-of-month: '32'"),
        ("cron(0 9 ? * FOO *)", "day-of-week: 'FOO'"),
        ("rate(1 hours)", "1 hour,"),
        ("rate(5 minute)", "5 minutes"),
        ("rate(0 minutes)", "1 or more"),
    ],
)
def test_what_eventbridge_refuses_is_refused_with_its_reason(expression: str, fault: str) -> None:
    with pytest.raises(cron.BadSchedule, match=fault.replace("(", r"\(")):
        cron.parse(expression)


_fields = st.tuples(
    st.sampled_from(["0", "*/20", "5,35", "10-12"]),
    st.sampled_from(["0", "*/7", "9-11", "23"]),
    st.sampled_from(["*", "1", "L", "15W", "28-31"]),
    st.sampled_from(["*", "2", "NOV-FEB", "*/5"]),
)


@settings(max_examples=25, deadline=None)
@given(_fields, st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)))  # noqa: DTZ001 - hypothesis wants them naive
def test_no_minute_between_is_one_that_the_expression_names(fields: tuple[str, ...], moment: datetime) -> None:
    start = moment.replace(tzinfo=UTC)
    schedule = cron.parse(f"cron({' '.join(fields)} ? *)")
    assert isinstance(schedule, cron.Cron)
    following = next(schedule.after(start))
    assert following > start
    assert schedule.before(following) == following
    step = start.replace(second=0, microsecond=0) + timedelta(minutes=1)
    walked = min(following, step + timedelta(days=3))
    while step < walked:
        assert not (
            step.minute in schedule.minutes
            and step.hour in schedule.hours
            and step.month in schedule.months
            and fields[2] == "*"
        ), step
        step += timedelta(minutes=1)


def test_every_schedule_of_the_catalogue_fires() -> None:
    for task in network.tasks().values():
        if task.schedule:
            assert len(cron.next_times(task.schedule.expression, 5, NOW)) == 5
