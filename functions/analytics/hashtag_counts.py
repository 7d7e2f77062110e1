"""Uses of each hashtag by hour and by day: counted from posts once and stored in S3.

hashtags/hour/<2026-11-22T07>.json   {tag: votes}                    one vote a user, tag and hour
hashtags/day/<2026-11-22>.json       {tag: [votes, moment]}          moment: the sum of votes x the hour's number

An hour is stored once it is over and GRACE has passed, so that the index by day has caught up; until then every run
counts it again. Hours are numbered from 1970. Stored counts expire after 14 days. Of each hour and day, the KEPT_TAGS
most used tags count: a network with fewer tags loses none.
"""

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from nexus.aws.dynamodb import Row
from nexus.aws.rows import BadRow, key_of, read_texts
from nexus.aws.table import Meter
from social.data import objects, posts
from social.data.days import HOUR_SECONDS, buckets_of
from social.data.hashtags import DAYS, HOURS, hour_name
from social.tags import normalise

GRACE = 900
KEPT_TAGS = 20_000
"""The most tags kept of an hour or a day, those with most votes. A hundred million users use hundreds of thousands in
an hour, and a week of them all does not fit into a sandbox."""


def hours_of(day: str) -> range:
    """The 24 hours of a UTC day."""
    first = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) // HOUR_SECONDS
    return range(first, first + 24)


def is_final(hour: int, now: float) -> bool:
    """Whether an hour's count is final."""
    return now >= (hour + 1) * HOUR_SECONDS + GRACE


def count(hour: int, bad: Callable[[BadRow], None], meter: Meter) -> tuple[dict[str, int], int]:
    """Returns an hour's votes, and the number of posts read. Only public posts vote.

    Calls `bad` for an unusable tag or row.
    """
    voted: set[tuple[str, str]] = set()
    read, since = 0, hour * HOUR_SECONDS
    for bucket in buckets_of(hour_name(hour)[:10]):
        for page in posts.made_on(bucket, since, since + HOUR_SECONDS, meter=meter):
            read += len(page.items)
            for item in page.items:
                voted.update(_votes(item, bad))
    votes = Counter(tag for _, tag in voted)
    return most_used(votes, lambda tag: votes[tag]), read


def most_used[V](sums: Mapping[str, V], votes_of: Callable[[str], int]) -> dict[str, V]:
    """The sums of the KEPT_TAGS tags with most votes, those first; ties by name."""
    return {tag: sums[tag] for tag in heapq.nsmallest(KEPT_TAGS, sums, key=lambda tag: (-votes_of(tag), tag))}


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
    """Adds up a day's stored hours and stores the sums."""
    total: dict[str, tuple[int, int]] = {}
    for hour in hours_of(day):
        for tag, votes in read_hour(hour).items():
            before = total.get(tag, (0, 0))
            total[tag] = (before[0] + votes, before[1] + votes * hour)
    sums = most_used(total, lambda tag: total[tag][0])
    _write(f"{DAYS}{day}.json", sums)
    return sums


def _write(key: str, value: object) -> None:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    objects.put("archive", key, text.encode(), "application/json")
