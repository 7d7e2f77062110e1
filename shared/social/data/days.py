"""Days and hours in UTC, and the buckets by which posts and comments are found by creation day.

An index with the day as its partition key would put all of a day's writes on one partition, which takes 1,000 writes a
second; so a day has DAY_SHARDS buckets, and an item's id determines its bucket.
"""

import zlib
from datetime import UTC, date, datetime, timedelta

DAY_SECONDS = 86_400
HOUR_SECONDS = 3_600
DAY_SHARDS = 4
FIRST_DAY = "2024-01-01"  # the feed formula's epoch; the service has no older posts


def day_of(seconds: float) -> str:
    """The UTC day of a time in seconds since 1970, as 2026-11-22."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def start_of(day: str) -> int:
    """The start of a UTC day, in seconds since 1970."""
    return (date.fromisoformat(day).toordinal() - _EPOCH) * DAY_SECONDS


def add_days(day: str, days: int) -> str:
    """The day this many days later, or earlier if negative."""
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()


def year_before(day: str) -> str:
    """The same date of the previous year; for 29 February, which that year does not have, 1 March."""
    date_of = date.fromisoformat(day)
    try:
        return date_of.replace(year=date_of.year - 1).isoformat()
    except ValueError:
        return date(date_of.year - 1, 3, 1).isoformat()


def days_between(first: str, last: str) -> int:
    """The number of days from `first` to `last`."""
    return date.fromisoformat(last).toordinal() - date.fromisoformat(first).toordinal()


def days_from(first: str, last: str) -> list[str]:
    """Every day from the first to the last, both included; none if the last is before the first."""
    return [add_days(first, number) for number in range(days_between(first, last) + 1)]


def shard_of(key: str, shards: int) -> int:
    """The shard of a key: CRC-32, so that every program computes the same one."""
    return zlib.crc32(key.encode()) % shards


def bucket_of(key: str, seconds: float) -> str:
    """The bucket of an item by its id and creation time, as 2026-11-22#3."""
    return f"{day_of(seconds)}#{shard_of(key, DAY_SHARDS)}"


def buckets_of(day: str) -> list[str]:
    """Every bucket of a day."""
    return [f"{day}#{shard}" for shard in range(DAY_SHARDS)]


_EPOCH = date(1970, 1, 1).toordinal()
