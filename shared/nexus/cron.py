"""When an EventBridge rule fires next: `cron(...)` and `rate(...)`, as the EventBridge user guide defines them, in UTC.

`scheduler_times` does the same for EventBridge Scheduler, which adds time zones, starts and ends, and `at(...)`.

    cron(minutes hours day-of-month month day-of-week year)

Each field takes * , - /, names (JAN, MON), and ? in one of the two day fields; day-of-month also L and 15W,
day-of-week (1 is SUN) also L, 6L (the last Friday) and 6#3 (the third Friday).
"""

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count, islice, takewhile
from typing import Final
from zoneinfo import ZoneInfo

_MONTHS: Final = {
    name: n
    for n, name in enumerate(["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1)
}
_DAYS: Final = {name: n for n, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"], 1)}
_UNITS: Final = {"minute": 60, "hour": 3600, "day": 86_400}
_ANY_MONTH: Final = (2024, 1)
YEARS: Final = range(1970, 2200)


class BadSchedule(ValueError):
    """EventBridge does not accept the expression; the message names the field and the reason."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`rate(6 hours)`: fires at that interval, counted from when the rule was created or last changed."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed cron expression. The two day fields stay text, because their meaning depends on the month."""

    minutes: frozenset[int]
    hours: frozenset[int]
    day_of_month: str
    months: frozenset[int]
    day_of_week: str
    years: frozenset[int]

    def after(self, moment: datetime) -> Iterator[datetime]:
        """The times after `moment` (aware), in order; ends with the last year of the expression."""
        start = moment.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        for year in sorted(year for year in self.years if year >= start.year):
            for month in sorted(self.months):
                if (year, month) >= (start.year, start.month):
                    yield from self._in_month(year, month, start)

    def before(self, moment: datetime) -> datetime | None:
        """The last time at or before `moment`, searched in the 400 days before it."""
        for days in (1, 8, 40, 400):
            recent = takewhile(lambda time: time <= moment, self.after(moment - timedelta(days=days)))
            if found := max(recent, default=None):
                return found
        return None

    def _in_month(self, year: int, month: int, start: datetime) -> Iterator[datetime]:
        for day in sorted(self.days(year, month)):
            if date(year, month, day) < start.date():
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    time = datetime(year, month, day, hour, minute, tzinfo=UTC)
                    if time >= start:
                        yield time

    def days(self, year: int, month: int) -> set[int]:
        """The days of a month on which it fires, if it fires in that month."""
        if self.day_of_month != "?":
            return _days_of_month(self.day_of_month, year, month)
        return _days_of_week(self.day_of_week, year, month)


def parse(expression: str) -> Cron | Rate:
    """The schedule in an expression. Raises BadSchedule."""
    text = expression.strip()
    if found := re.fullmatch(r"rate\(\s*(\d+)\s+(minute|hour|day)(s?)\s*\)", text):
        return _rate(int(found[1]), found[2], plural=bool(found[3]))
    if not (found := re.fullmatch(r"cron\((.*)\)", text)):
        raise BadSchedule(
            f"{expression!r} is not of the form cron(minutes hours day month weekday year) or rate(5 minutes)"
        )
    fields = found[1].upper().split()
    if len(fields) != 6:
        raise BadSchedule(
            f"{expression!r} has {len(fields)} fields instead of six: minutes hours day month weekday year"
        )
    minutes, hours, day_of_month, months, day_of_week, years = fields
    if (day_of_month == "?") == (day_of_week == "?"):
        raise BadSchedule(f"{expression!r}: exactly one of day-of-month and day-of-week is ?")
    cron = Cron(
        minutes=_values("minutes", minutes, range(60)),
        hours=_values("hours", hours, range(24)),
        day_of_month=day_of_month,
        months=_values("month", months, range(1, 13), _MONTHS),
        day_of_week=day_of_week,
        years=_values("year", years, YEARS),
    )
    # Parsing the day fields once, for any month, finds their faults now instead of at the first firing.
    _days_of_month(day_of_month, *_ANY_MONTH)
    _days_of_week(day_of_week, *_ANY_MONTH)
    return cron


def times(expression: str, after: datetime, until: datetime) -> Iterator[datetime]:
    """Every time after one moment, up to and including another; a rate is counted from `after`."""
    schedule = parse(expression)
    if isinstance(schedule, Rate):
        step = timedelta(seconds=schedule.seconds)
        found: Iterator[datetime] = (after + step * n for n in count(1))
    else:
        found = schedule.after(after)
    return takewhile(lambda time: time <= until, found)


def next_times(expression: str, number: int, after: datetime) -> list[datetime]:
    """The next `number` times; a rate is counted from `after`. Fewer, or none, when the years run out."""
    return list(islice(times(expression, after, datetime.max.replace(tzinfo=UTC)), number))


MARGIN: Final = timedelta(days=2)
"""The largest clock change ever: Samoa skipped a day in 2011."""


def scheduler_times(
    expression: str,
    zone: ZoneInfo,
    after: datetime,
    until: datetime,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Iterator[datetime]:
    """When a schedule of EventBridge Scheduler fires after one moment, up to and including another. Raises BadSchedule.

    Follows its user guide (Schedule types): `cron` goes by the zone's clocks. A time that they skip does not fire, a
    time that they repeat fires once, the first time. `rate` counts elapsed time from `start` (or `after`); a day is 24
    hours. `start` and `end` bound both, but not `at`, which fires once.
    """
    text = expression.strip()
    if once := re.fullmatch(r"at\((.*)\)", text):
        start = end = None
        found = _instants(iter((_moment(once[1]),)), zone)
    else:
        schedule, began = parse(_as_rules_have_it(text)), start or after
        from_then = max(after, began)
        if isinstance(schedule, Rate):
            step = timedelta(seconds=schedule.seconds)
            found = (began + step * n for n in count((from_then - began) // step))
        else:
            found = _instants(schedule.after(_on_the_wall(from_then, zone) - MARGIN), zone)
    last = until if end is None else min(until, end)
    for time in takewhile(lambda time: time <= last, found):
        if time > after and (start is None or time >= start):
            yield time


def _as_rules_have_it(expression: str) -> str:
    """Scheduler allows a cron without a year, and `rate(1 days)`."""
    if re.fullmatch(r"cron\(\s*\S+(\s+\S+){4}\s*\)", expression):
        return f"{expression.removesuffix(')')} *)"
    return re.sub(r"^(rate\(\s*1\s+\w+?)s(\s*\))$", r"\1\2", expression)


def _instants(walls: Iterator[datetime], zone: ZoneInfo) -> Iterator[datetime]:
    """When the clocks of a zone first show these times; times that they never show are left out."""
    for wall in walls:
        when = wall.replace(tzinfo=zone).astimezone(UTC)
        if _on_the_wall(when, zone) == wall:
            yield when


def _on_the_wall(moment: datetime, zone: ZoneInfo) -> datetime:
    """What the clocks of a zone show, labelled as UTC."""
    return moment.astimezone(zone).replace(tzinfo=UTC)


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise BadSchedule(f"at({text}): write the time as in at(2030-01-31T09:00:00)") from None


def _rate(value: int, unit: str, *, plural: bool) -> Rate:
    if value < 1:
        raise BadSchedule("rate: the value must be 1 or more")
    if (value == 1) == plural:
        raise BadSchedule(f"rate: EventBridge requires {value} {unit}{'' if value == 1 else 's'}")
    return Rate(value * _UNITS[unit])


def _values(field: str, text: str, allowed: range, names: dict[str, int] | None = None) -> frozenset[int]:
    """The numbers in a field of values, ranges and steps."""
    found: set[int] = set()
    for part in text.split(","):
        body, _, step_text = part.partition("/")
        step = _number(field, step_text, range(1, allowed.stop), {}) if "/" in part else 1
        if body == "*":
            first, last = allowed[0], allowed[-1]
        elif "-" in body:
            first, last = (_number(field, end, allowed, names or {}) for end in body.split("-", 1))
        else:
            first = _number(field, body, allowed, names or {})
            last = allowed[-1] if "/" in part else first
        if first > last:
            # FRI-MON wraps over the week's end, NOV-FEB over the year's.
            found |= set(range(first, allowed.stop, step)) | set(range(allowed.start, last + 1, step))
        found |= set(range(first, last + 1, step))
    return frozenset(found)


def _number(field: str, text: str, allowed: range, names: dict[str, int]) -> int:
    if text in names:
        return names[text]
    if not text.isdecimal() or int(text) not in allowed:
        raise BadSchedule(f"{field}: {text!r} is not in {allowed[0]}-{allowed[-1]}")
    return int(text)


def _days_of_month(text: str, year: int, month: int) -> set[int]:
    last = calendar.monthrange(year, month)[1]
    if text == "?":
        return set()
    if text == "L":
        return {last}
    if text == "LW":
        return {_nearest_weekday(year, month, last, last)}
    if found := re.fullmatch(r"(\d+)W", text):
        day = _number("day-of-month", found[1], range(1, 32), {})
        return {_nearest_weekday(year, month, day, last)} if day <= last else set()
    return {day for day in _values("day-of-month", text, range(1, 32)) if day <= last}


def _nearest_weekday(year: int, month: int, day: int, last: int) -> int:
    """The weekday nearest to a day, within the same month."""
    match date(year, month, day).isoweekday():
        case 6:
            return day - 1 if day > 1 else day + 2
        case 7:
            return day + 1 if day < last else day - 2
    return day


def _days_of_week(text: str, year: int, month: int) -> set[int]:
    last = calendar.monthrange(year, month)[1]
    if text == "?":
        return set()
    if text == "L":
        text = "7"
    if found := re.fullmatch(r"(\w+?)L", text):
        wanted = _number("day-of-week", found[1], range(1, 8), _DAYS)
        return {max(day for day in range(1, last + 1) if _weekday(year, month, day) == wanted)}
    if found := re.fullmatch(r"(\w+)#(\d)", text):
        wanted, nth = _number("day-of-week", found[1], range(1, 8), _DAYS), _number("#", found[2], range(1, 6), {})
        days = [day for day in range(1, last + 1) if _weekday(year, month, day) == wanted]
        return set(days[nth - 1 : nth])
    wanted_days = _values("day-of-week", text, range(1, 8), _DAYS)
    return {day for day in range(1, last + 1) if _weekday(year, month, day) in wanted_days}


def _weekday(year: int, month: int, day: int) -> int:
    """1 is Sunday, 7 Saturday."""
    return date(year, month, day).isoweekday() % 7 + 1
