"""Hashtags: one item for each tag that trends or has trended; the index `trending` has those that trend now.

`social.tags` defines what a hashtag is.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from nexus.aws.dynamodb import Condition, Write
from nexus.aws.rows import read_count, read_text
from nexus.aws.table import Meter, Table
from social.data.days import HOUR_SECONDS

TRENDING = "trending"
TABLE = Table("hashtags", ("tag",), {TRENDING: ("trending", "trending_score")})
WINDOW = 168
"""Hours whose votes count: seven days, including the current one."""

HOURS, DAYS = "hashtags/hour/", "hashtags/day/"
"""Where the archive bucket stores the votes of each hour and day."""

_NOW = "now"


@dataclass(frozen=True, slots=True)
class Trend:
    """A trending tag: how often it was used in the last seven days, and its score (see update_trending_hashtags)."""

    tag: str
    uses: int
    score: int


def trending(*, meter: Meter | None = None) -> list[Trend]:
    """The tags that trend now, the highest score first, ties by name."""
    pages = TABLE.query(_NOW, index=TRENDING, newest_first=True, meter=meter)
    trends = [
        Trend(
            tag=read_text(item, "tag", "?"),
            uses=read_count(item, "uses", "?", default=0),
            score=read_count(item, "trending_score", "?"),
        )
        for page in pages
        for item in page.items
    ]
    return sorted(trends, key=lambda trend: (-trend.score, trend.tag))


def set_trending(trend: Trend, at: int, *, meter: Meter | None = None) -> bool:
    """Marks a tag as trending, as counted at that second; False if a later count has written it."""
    change = Write(
        {"tag": trend.tag},
        set={
            "is_trending": True,
            "trending": _NOW,
            "trending_score": trend.score,
            "uses": trend.uses,
            "counted_at": at,
        },
        when=(_not_newer(at),),
    )
    return TABLE.update(change, create=True, meter=meter)


def clear_trending(tag: str, at: int, *, meter: Meter | None = None) -> bool:
    """Marks a tag as no longer trending, as counted at that second; False if a later count has written it."""
    change = Write(
        {"tag": tag},
        set={"is_trending": False, "trending_score": 0, "counted_at": at},
        remove=("trending",),
        when=(_not_newer(at),),
    )
    return TABLE.update(change, create=True, meter=meter)


def hour_name(hour: int) -> str:
    """The name of an hour, numbered from 1970: 2026-11-22T07."""
    return datetime.fromtimestamp(hour * HOUR_SECONDS, UTC).strftime("%Y-%m-%dT%H")


def _not_newer(at: int) -> Condition:
    return Condition("counted_at", "missing or <=", at)
