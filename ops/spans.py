"""Parses durations, times and arguments as people type them."""

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ops.problems import Problem, usage

type At = float
"""A time in seconds since 1970. As a dataclass's field it is RFC 3339 in JSON, in UTC (`ops.cli.output.plain`)."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds(text: str) -> float:
    """A duration: 90, 90s, 15m, 2h, 1h30m, 3d. Raises Problem if it is invalid."""
    if re.fullmatch(r"\d{1,10}(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d{1,10})([smhdw])", text)
    if not parts or "".join(n + unit for n, unit in parts) != text:
        raise usage(f"{text!r} is not a duration", "Such as 90s, 15m, 2h, 1h30m or 3d.")
    return float(sum(int(n) * _UNITS[unit] for n, unit in parts))


def moment(text: str) -> datetime:
    """A time: 2026-11-23T09:00, with Z or +01:00; UTC if it has no zone. Raises Problem if it is invalid."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise usage(f"{text!r} is not a time", "Such as 2026-11-23T09:00, in UTC, or 2026-11-23T09:00+01:00.") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def since(text: str) -> float:
    """A time, or how long ago, in seconds since 1970. Raises Problem if it is neither."""
    return moment(text).timestamp() if "-" in text else time.time() - seconds(text)


def timing(given: Mapping[str, Any]) -> dict[str, Any]:
    """`countdown`, `eta` and `expires` as `apply_async` takes them, from texts or a program's numbers. Leaves out
    those without a value (None or ""). Raises Problem, naming the field and its fault.
    """
    from nexus.client import options

    found: dict[str, Any] = {}
    for name in ("countdown", "eta", "expires"):
        value = given.get(name)
        if value in (None, ""):
            continue
        try:
            if isinstance(value, str):
                is_time = name == "eta" or (name == "expires" and "-" in value)
                value = moment(value) if is_time else seconds(value)
            (options.moment if name == "eta" or isinstance(value, datetime) else options.seconds)(name, value)
        except Problem as problem:
            raise usage(f"{name}: {problem.what}", problem.why) from None
        except ValueError as error:
            raise usage(str(error)) from None
        found[name] = value
    if {"countdown", "eta"} <= found.keys():
        raise usage("countdown and eta cannot be combined", do="Give one.")
    return found


def argument(name: str, text: str) -> Any:
    """A task's argument: JSON if it is a list, an object, a quoted text or null, else the text itself. Raises Problem
    if it only begins like JSON.
    """
    if text[:1] not in ("[", "{", '"') and text != "null":
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise usage(f"{name}= looks like JSON but is not valid", str(error)) from None


def at(seconds_since_1970: At | None) -> datetime | None:
    """A record's timestamp as a datetime."""
    return None if seconds_since_1970 is None else datetime.fromtimestamp(seconds_since_1970, UTC)


def of_day(at: float) -> str:
    """The time of day (UTC) of seconds since 1970; after its date, unless that is today's."""
    moment = datetime.fromtimestamp(at, UTC)
    is_today = moment.date() == datetime.fromtimestamp(time.time(), UTC).date()
    return f"{moment:%H:%M:%S}" if is_today else f"{moment:%Y-%m-%d %H:%M:%S}"
