"""ISO weeks, as 2026-W47: from Monday to Sunday in UTC, numbered as ISO 8601 does."""

from datetime import UTC, date, datetime, timedelta


def week_of(at: float) -> str:
    """The week of a time in seconds since 1970."""
    year, week, _ = datetime.fromtimestamp(at, UTC).isocalendar()
    return f"{year}-W{week:02}"


def monday_of(week: str) -> date:
    """The first day of a week. Raises ValueError for a week that does not exist."""
    year, number = week.split("-W")
    return date.fromisocalendar(int(year), int(number), 1)


def weeks_before(week: str, count: int = 1) -> str:
    """The week this many weeks earlier."""
    year, number, _ = (monday_of(week) - timedelta(weeks=count)).isocalendar()
    return f"{year}-W{number:02}"
