"""Types of arguments that several tasks take: an ISO week, a UTC day."""

from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from nexus import clock
from social.weeks import monday_of


def _in_the_calendar(week: str) -> str:
    monday_of(week)
    return week


Week = Annotated[str, Field(pattern=r"^\d{4}-W\d{2}$"), AfterValidator(_in_the_calendar)]
"""An ISO week, as 2026-W47."""


def _has_begun(day: str) -> str:
    if date.fromisoformat(day) > datetime.fromtimestamp(clock.now(), UTC).date():
        raise ValueError("the day has not begun, in UTC")
    return day


Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_has_begun)]
"""A UTC day up to today, as 2026-11-22."""
