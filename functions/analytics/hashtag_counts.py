"""Uses of each hashtag by hour and by day: counted from posts once and stored in S3.

hashtags/hour/<2026-11-22T07>.json   {tag: votes}                    one vote a user, tag and hour
hashtags/day/<2026-11-22>.json       {tag: [votes, moment]}          moment: the sum of votes x the hour's number

An hour is stored once it is over and GRACE has passed, so that the index by day has caught up; until then every run
counts it again. Hours are numbered from 1970. Stored counts expire after 14 days.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from nexus.aws.dynamodb import Row
from nexus.aws.rows import BadRow, key_of, read_texts
from nexus.aws.table import Meter
from social.data import objects, posts
from social.data.days import HOUR_SECONDS, buckets_of
from social.data.hashtags import DAYS, HOURS, hour_name
from social.tags import normalise

GRACE = 900
TOGETHER = 6
"""Hours read at once: two million posts at a hundred million users."""


def hours_of(day: str) -> range:
    """The 24 hours of a UTC day."""
    first = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) // HOUR_SECONDS
    return range(first, first + 24)


def is_final(hour: int, now: float) -> bool:
    """Whether an hour's count is final."""
    return now >= (hour + 1) * HOUR_SECONDS + GRACE


def stretches(hours: Iterable[int]) -> list[tuple[int, ...]]:
    """Sorts hours into groups for one query per bucket: consecutive, within one day, at most TOGETHER."""
    found: list[tuple[int, ...]] = []
    for hour in sorted(hours):
        last = found[-1] if found else ()
        if last and hour == last[-1] + 1 and len(last) < TOGETHER and hour_name(hour)[:10] == hour_name(last[-1])[:10]:
            found[-1] = (*last, hour)
        else:
            found.append((hour,))
    return found


def count(hours: Sequence[int], bad: Callable[[BadRow], None], meter: Meter) -> tuple[dict[int, Counter[str]], int]:
    """Returns the votes of each hour of a stretch, and the number of posts read.

    Only public posts vote. Calls `bad` for an unusable tag or row.
    """
    voted: set[tuple[int, str, str]] = set()
    read = 0
    since, until = hours[0] * HOUR_SECONDS, (hours[-1] + 1) * HOUR_SECONDS
    for bucket in buckets_of(hour_name(hours[0])[:10]):
        for page in posts.made_on(bucket, since, until, meter=meter):
            read += len(page.items)
            for item in page.items:
                hour = int(item["created_at"]["N"]) // HOUR_SECONDS
                voted.update((hour, author, tag) for author, tag in _votes(item, bad))
    votes: dict[int, Counter[str]] = {hour: Counter() for hour in hours}
    for hour, _, tag in voted:
        votes[hour][tag] += 1
    return votes, read


def _votes(item: Row, bad: Callable[[BadRow], None]) -> Iterable[tuple[str, str]]:
    key = key_of(item, "post_id")
    try:
        if item.get("visibility", {}).get("S") != "public":
            return
        tags = read_texts(item, "hashtags", key)
    except BadRow as row:
        bad(row)
        return
    author = item["author_id"]["S"] if "author_id" in item else key
    for text in tags:
        try:
            yield author, normalise(text)
        except ValueError as fault:
            bad(BadRow(key, str(fault)))


def keep_hour(hour: int, votes: Mapping[str, int]) -> None:
    """Stores an hour's votes. Idempotent."""
    _write(f"{HOURS}{hour_name(hour)}.json", votes)


def kept() -> tuple[set[str], set[str]]:
    """The names of the stored hours and days."""
    hours, days = (
        {key.removeprefix(prefix).removesuffix(".json") for key in objects.keys("archive", prefix)}
        for prefix in (HOURS, DAYS)
    )
    return hours, days


def read_hour(hour: int) -> dict[str, int]:
    """A stored hour's votes."""
    votes: dict[str, int] = json.loads(objects.get("archive", f"{HOURS}{hour_name(hour)}.json"))
    return votes


def read_day(day: str) -> dict[str, tuple[int, int]]:
    """A stored day's votes and moments."""
    sums = json.loads(objects.get("archive", f"{DAYS}{day}.json"))
    return {tag: (votes, moment) for tag, (votes, moment) in sums.items()}


def keep_day(day: str) -> dict[str, tuple[int, int]]:
    """Adds up a day's stored hours and stores the sum."""
    total: dict[str, tuple[int, int]] = {}
    for hour in hours_of(day):
        for tag, votes in read_hour(hour).items():
            before = total.get(tag, (0, 0))
            total[tag] = (before[0] + votes, before[1] + votes * hour)
    _write(f"{DAYS}{day}.json", total)
    return total


def _write(key: str, value: object) -> None:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    objects.put("archive", key, text.encode(), "application/json")
