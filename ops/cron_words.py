"""A schedule's expression in words, for people who do not read cron: `cron(0 9 ? * MON *)` is Monday at 09:00."""

from typing import Final

from nexus import cron

_DAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_SHORT: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_ORDER: Final = ("first", "second", "third", "fourth", "fifth")
_UNITS: Final = ((86_400, "day"), (3600, "hour"), (60, "minute"))
FEW: Final = 4


def in_words(expression: str) -> str:
    """When an expression fires, in UTC. Raises cron.BadSchedule if it is invalid."""
    parsed = cron.parse(expression)
    if isinstance(parsed, cron.Rate):
        size, unit = next((size, unit) for size, unit in _UNITS if parsed.seconds % size == 0)
        return _every(parsed.seconds // size, unit).capitalize()
    days = _day(parsed)
    times = _times(parsed)
    often = times.startswith("every")
    day = days if days != "every day" else ("" if often else "every day")
    text = f"{times}, {day}" if often and day else f"{day} {times}".strip()
    if len(parsed.months) < 12:
        text += f", in {_listed([_MONTHS[n - 1] for n in sorted(parsed.months)])}"
    if len(parsed.years) < len(cron.YEARS):
        text += f", in {_listed([str(year) for year in sorted(parsed.years)])}"
    return text[0].upper() + text[1:]


def _times(schedule: cron.Cron) -> str:
    minutes, hours = sorted(schedule.minutes), sorted(schedule.hours)
    if len(hours) == 24:
        if len(minutes) == 1:
            return "every hour" if minutes == [0] else f"every hour, {minutes[0]} minutes past"
        step = _step(minutes, 60)
        return _every(step, "minute") if step else f"every hour, {_listed([str(n) for n in minutes])} minutes past"
    if len(minutes) == 1:
        step = _step(hours, 24)
        if step and step > 1 and minutes == [0] and len(hours) > FEW:
            return _every(step, "hour")
        return "at " + _listed([f"{hour:02}:{minutes[0]:02}" for hour in hours])
    step = _step(minutes, 60)
    often = _every(step, "minute") if step else f"{_listed([str(n) for n in minutes])} minutes past"
    return f"{often} from {_ranges(hours)}"


def _ranges(hours: list[int]) -> str:
    """The hours of the day; consecutive ones are joined: 09:00 to 16:59."""
    runs: list[list[int]] = []
    for hour in hours:
        if runs and hour == runs[-1][-1] + 1:
            runs[-1].append(hour)
        else:
            runs.append([hour])
    return _listed([f"{run[0]:02}:00 to {run[-1]:02}:59" for run in runs])


def _step(values: list[int], size: int) -> int | None:
    """n if the values are every nth from 0, else None."""
    step = values[1] - values[0] if len(values) > 1 else size
    return step if values == list(range(0, size, step)) and size % step == 0 else None


def _day(schedule: cron.Cron) -> str:
    if schedule.day_of_month != "?":
        match schedule.day_of_month:
            case "*":
                return "every day"
            case "L":
                return "on the last day of the month"
            case "LW":
                return "on the last weekday of the month"
            case text if text.endswith("W"):
                return f"on the weekday nearest to day {text[:-1]} of the month"
        days = sorted(schedule.days(2024, 1))
        return f"on day{'s' if len(days) > 1 else ''} {_listed([str(day) for day in days])} of the month"
    if schedule.day_of_week == "*":
        return "every day"
    if "/" in schedule.day_of_week:
        # January 2024 began on a Monday: its first week is days 1 to 7.
        return _listed([_DAYS[day % 7] for day in sorted(schedule.days(2024, 1)) if day <= 7])
    return _listed([_weekday(part) for part in schedule.day_of_week.split(",")])


def _weekday(part: str) -> str:
    if "#" in part:
        day, _, number = part.partition("#")
        return f"on the {_ORDER[int(number) - 1]} {_name(day)} of the month"
    if part != "L" and part.endswith("L"):
        return f"on the last {_name(part[:-1])} of the month"
    return " to ".join(_name(day) for day in part.split("-"))


def _name(day: str) -> str:
    if day == "L":
        return "Saturday"
    return _DAYS[int(day) - 1] if day.isdecimal() else _DAYS[_SHORT.index(day)]


def _every(number: int, unit: str) -> str:
    return f"every {unit}" if number == 1 else f"every {number} {unit}s"


def _listed(names: list[str]) -> str:
    """a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
