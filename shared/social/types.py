"""Types of the tasks' arguments: an ISO week, a UTC day, a second that has passed, a link."""

import re
from datetime import UTC, date, datetime
from typing import Annotated
from urllib.parse import urlsplit

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


CLOCKS_DIFFER = 300
"""The most seconds by which the sender's clock may be ahead of the worker's. AWS refuses most requests
whose time differs by more."""


def _has_passed(second: int) -> int:
    if second > clock.now() + CLOCKS_DIFFER:
        raise ValueError("it is in the future: give seconds since 1970, not milliseconds")
    return second


Past = Annotated[int, Field(ge=0), AfterValidator(_has_passed)]
"""A time up to now, in seconds since 1970."""


def _leads_to_a_page(link: str) -> str:
    if not link.isprintable() or re.search(r"[\s\\<>\"]", link):
        raise ValueError("it contains a space, a backslash, a quotation mark or an unprintable character")
    if link.startswith("/") and not link.startswith("//"):
        return link
    found = urlsplit(link)
    if found.scheme not in ("https", "http") or not link[len(found.scheme) :].startswith("://") or not found.hostname:
        raise ValueError("it must be a path of the application (/posts/1) or an http address")
    if found.username is not None:
        raise ValueError("it contains a user name, which makes it look like another address")
    return link


Link = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_leads_to_a_page)]
"""A link's target: a path of the application itself, or an https or http address; no other scheme."""
