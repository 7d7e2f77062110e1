"""When a schedule fires next: EventBridge's own examples, and a slow walk over every minute as the second opinion."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus import cron
from ops.cron_words import in_words
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
def test_an_expressions_next_two_times(expression: str, expected: list[str]) -> None:
    assert [f"{time:%Y-%m-%d %H:%M}" for time in cron.next_times(expression, 2, NOW)] == expected


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("0 9 * * *", "is not of the form cron"),
        ("cron(0 9 * * *)", "5 fields"),
        ("cron(0 9 * * * *)", "exactly one"),
        ("cron(0 9 ? * ? *)", "exactly one"),
        ("cron(60 9 * * ? *)", "minutes: '60'"),
        ("cron(0 9 32 * ? *)", "day-of-month: '32'"),
        ("cron(0 9 ? * FOO *)", "day-of-week: 'FOO'"),
        ("rate(1 hours)", "requires 1 hour"),
        ("rate(5 minute)", "5 minutes"),
        ("rate(0 minutes)", "1 or more"),
        ("cron(1-2-3 9 * * ? *)", "minutes: '2-3'"),
        ("cron(0/0 9 * * ? *)", "minutes: '0'"),
        ("cron(0/60 9 * * ? *)", "minutes: '60'"),
        ("cron(0 9 0W * ? *)", "day-of-month: '0'"),
        ("cron(0 9 32W * ? *)", "day-of-month: '32'"),
        ("cron(0 9 ? * 0 *)", "day-of-week: '0'"),
        ("cron(0 9 ? * 8 *)", "day-of-week: '8'"),
        ("cron(0 9 ? * 0L *)", "day-of-week: '0'"),
        ("cron(0 9 ? * 8L *)", "day-of-week: '8'"),
        ("cron(0 9 ? * 0#1 *)", "day-of-week: '0'"),
        ("cron(0 9 ? * 8#1 *)", "day-of-week: '8'"),
        ("cron(0 9 ? * 1#0 *)", "#: '0'"),
        ("cron(0 9 ? * 1#6 *)", "#: '6'"),
    ],
)
def test_an_expression_that_eventbridge_refuses_is_refused_with_its_reason(expression: str, fault: str) -> None:
    with pytest.raises(cron.BadSchedule, match=fault.replace("(", r"\(")):
        cron.parse(expression)


@pytest.mark.parametrize(
    ("field", "year", "month", "days"),
    [
        ("1W", 2026, 8, [3]),  # a Saturday: the nearest weekday would be in July
        ("1W", 2026, 11, [2]),  # a Sunday
        ("2W", 2026, 5, [1]),  # a Saturday
        ("15W", 2026, 8, [14]),  # a Saturday
        ("15W", 2026, 11, [16]),  # a Sunday
        ("15W", 2026, 7, [15]),
        ("30W", 2026, 8, [31]),  # a Sunday
        ("31W", 2026, 10, [30]),  # a Saturday
        ("31W", 2026, 5, [29]),  # a Sunday: the nearest weekday would be in June
        ("28W", 2026, 2, [27]),
        ("29W", 2026, 2, []),
        ("LW", 2026, 5, [29]),
        ("LW", 2026, 11, [30]),
    ],
)
def test_the_nearest_weekday_is_of_the_same_month(field: str, year: int, month: int, days: list[int]) -> None:
    schedule = cron.parse(f"cron(0 0 {field} * ? *)")
    assert isinstance(schedule, cron.Cron)
    assert sorted(schedule.days(year, month)) == days


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("1", [1, 8, 15, 22, 29]),
        ("2", [2, 9, 16, 23, 30]),
        ("7", [7, 14, 21, 28]),
        ("1L", [29]),
        ("2L", [30]),
        ("7L", [28]),
        ("1#1", [1]),
        ("2#5", [30]),
        ("7#4", [28]),
        ("7#5", []),
    ],
)
def test_days_of_the_week_from_the_first_to_the_last_day_of_a_month(field: str, days: list[int]) -> None:
    schedule = cron.parse(f"cron(0 0 ? * {field} *)")
    assert isinstance(schedule, cron.Cron)
    assert sorted(schedule.days(2026, 11)) == days


def test_a_step_may_be_one_or_the_largest_value() -> None:
    for step, count in ((1, 60), (59, 2)):
        schedule = cron.parse(f"cron(0/{step} * * * ? *)")
        assert isinstance(schedule, cron.Cron)
        assert len(schedule.minutes) == count


@pytest.mark.parametrize("seconds", [0.0, 0.5, 20.0, 59.9])
def test_the_next_minute_is_the_first_that_begins_after_the_moment(seconds: float) -> None:
    moment = NOW.replace(second=0) + timedelta(seconds=seconds)
    assert [time.minute for time in cron.next_times("cron(* * * * ? *)", 2, moment)] == [31, 32]


def test_times_include_the_end_of_the_span() -> None:
    assert [time.hour for time in cron.times("rate(1 hour)", NOW, NOW + timedelta(hours=3))] == [16, 17, 18]


def test_the_last_time_is_looked_for_in_400_days() -> None:
    schedule, fired = cron.parse("cron(0 0 1 1 ? 2025)"), datetime(2025, 1, 1, tzinfo=UTC)
    assert isinstance(schedule, cron.Cron)
    assert schedule.before(fired) == fired
    assert schedule.before(fired - timedelta(minutes=1)) is None
    assert schedule.before(fired + timedelta(days=400, minutes=-1)) == fired
    assert schedule.before(fired + timedelta(days=400)) is None


_fields = st.tuples(
    st.sampled_from(["0", "*/20", "5,35", "10-12"]),
    st.sampled_from(["0", "*/7", "9-11", "23"]),
    st.sampled_from(["*", "1", "L", "15W", "28-31"]),
    st.sampled_from(["*", "2", "NOV-FEB", "*/5"]),
)


@settings(max_examples=25)
@given(_fields, st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)))  # noqa: DTZ001 - hypothesis wants them naive
def test_no_matching_minute_is_skipped(fields: tuple[str, ...], moment: datetime) -> None:
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


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("cron(0 3 * * ? *)", "Every day at 03:00"),
        ("cron(0 9 ? * MON *)", "Monday at 09:00"),
        ("cron(30 4 ? * MON-FRI *)", "Monday to Friday at 04:30"),
        ("rate(5 minutes)", "Every 5 minutes"),
        ("rate(1 day)", "Every day"),
        ("rate(36 hours)", "Every 36 hours"),
        ("cron(0 * * * ? *)", "Every hour"),
        ("cron(15 * * * ? *)", "Every hour, 15 minutes past"),
        ("cron(0,20 * * * ? *)", "Every hour, 0 and 20 minutes past"),
        ("cron(0/10 * * * ? *)", "Every 10 minutes"),
        ("cron(* * * * ? *)", "Every minute"),
        ("cron(*/5 8-17 ? * 2-6 *)", "Every 5 minutes from 08:00 to 17:59, Monday to Friday"),
        ("cron(0,20 9,17 * * ? *)", "Every day 0 and 20 minutes past from 09:00 to 09:59 and 17:00 to 17:59"),
        ("cron(0 0/6 * * ? *)", "Every day at 00:00, 06:00, 12:00 and 18:00"),
        ("cron(0 0/2 * * ? *)", "Every 2 hours"),
        ("cron(0 0 1 * ? *)", "On day 1 of the month at 00:00"),
        ("cron(0 0 1/15 * ? *)", "On days 1, 16 and 31 of the month at 00:00"),
        ("cron(0 0 L * ? *)", "On the last day of the month at 00:00"),
        ("cron(0 0 LW * ? *)", "On the last weekday of the month at 00:00"),
        ("cron(0 0 15W JAN,JUL ? *)", "On the weekday nearest to day 15 of the month at 00:00, in January and July"),
        ("cron(0 10 ? * 6L 2030)", "On the last Friday of the month at 10:00, in 2030"),
        ("cron(0 10 ? * 6#3 *)", "On the third Friday of the month at 10:00"),
        ("cron(0 0 ? * 2/2 *)", "Monday, Wednesday and Friday at 00:00"),
        ("cron(0 0 ? * L *)", "Saturday at 00:00"),
        ("cron(0 0 ? * * *)", "Every day at 00:00"),
        ("cron(0 0 * * ? *)", "Every day at 00:00"),
    ],
)
def test_an_expression_is_described_in_words(expression: str, words: str) -> None:
    assert in_words(expression) == words
