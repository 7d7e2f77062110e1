"""What the jobs keep about days: each day's figures, and the last day that a job has done for good."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from nexus.aws.dynamodb import Condition, Row, Write, from_item
from nexus.aws.table import Meter, Table

TABLE = Table("analytics", ("kind", "period"))
_CONTENT, _WATERMARK = "content", "watermark"


@dataclass(frozen=True, slots=True)
class PopularPost:
    """One of a day's most popular public posts, as scored when the day was counted.

    `author` is the author's name then; empty when they were gone, or for a day counted before names were kept.
    """

    post_id: str
    author_id: str
    engagement_score: int
    text: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True)
class ContentDay:
    """One UTC day of the network. Totals are as of the moment of counting, the rest of the day itself.

    `active_users` were active on the day, `new_users` registered; `posts` by visibility.
    """

    day: str
    counted_at: int
    posts: Mapping[str, int] = field(default_factory=dict)
    comments: int = 0
    active_users: int = 0
    new_users: int = 0
    total_users: int = 0
    total_posts: int = 0
    total_follows: int = 0
    popular: tuple[PopularPost, ...] = ()

    @property
    def total_of_posts(self) -> int:
        """The day's posts of every visibility."""
        return sum(self.posts.values())


def put_day(content: ContentDay, *, meter: Meter | None = None) -> bool:
    """Writes the day's figures unless a later count of it stands there; the same count writes the same again."""
    figures = {name: value for name, value in asdict(content).items() if name != "day"}
    not_newer = Condition("counted_at", "missing or <=", content.counted_at)
    change = Write({"kind": _CONTENT, "period": content.day}, set=figures, when=(not_newer,))
    return TABLE.update(change, create=True, meter=meter)


def content_days(first: str, last: str, *, meter: Meter | None = None) -> list[ContentDay]:
    """The days from `first` to `last`, both included, that have been counted, in order."""
    return [
        _read_day(item) for page in TABLE.query(_CONTENT, between=(first, last), meter=meter) for item in page.items
    ]


def content_day(day: str, *, meter: Meter | None = None) -> ContentDay | None:
    """One day's figures, or None when it has not been counted."""
    item = TABLE.get({"kind": _CONTENT, "period": day}, meter=meter)
    return None if item is None else _read_day(item)


def all_days(*, meter: Meter | None = None) -> Iterator[ContentDay]:
    """Every day that has been counted, in order: a thousand of them are 300 read units."""
    for page in TABLE.query(_CONTENT, consistent=True, meter=meter):
        yield from map(_read_day, page.items)


def set_popular(before: ContentDay, popular: Sequence[PopularPost], *, meter: Meter | None = None) -> bool:
    """Replaces a day's popular posts; False when they, or the count, are no longer what was read."""
    as_read = (
        Condition("counted_at", "=", before.counted_at),
        Condition("popular", "=", [asdict(post) for post in before.popular]),
    )
    change = Write(
        {"kind": _CONTENT, "period": before.day}, set={"popular": [asdict(post) for post in popular]}, when=as_read
    )
    return TABLE.update(change, meter=meter)


ReportFormat = Literal["html", "json", "csv", "popular"]
"""A day's report: the page, all of it for programs, the month's figures and the popular posts as tables."""

REPORTS = "reports/content/"
_ENDINGS: Mapping[ReportFormat, str] = {"html": ".html", "json": ".json", "csv": ".csv", "popular": "-popular.csv"}


def report_key(day: str, form: ReportFormat = "html") -> str:
    """Where a day's report is in the archive bucket."""
    return f"{REPORTS}{day}{_ENDINGS[form]}"


def watermark(job: str, *, meter: Meter | None = None) -> str | None:
    """The last day that a job has done for good, or None."""
    item = TABLE.get({"kind": _WATERMARK, "period": job}, consistent=True, meter=meter)
    return item["day"]["S"] if item else None


def raise_watermark(job: str, day: str, *, meter: Meter | None = None) -> bool:
    """Moves a job's watermark forward; False when it is there or further."""
    behind = Condition("day", "missing or <", day)
    change = Write({"kind": _WATERMARK, "period": job}, set={"day": day}, when=(behind,))
    return TABLE.update(change, create=True, meter=meter)


def _read_day(item: Row) -> ContentDay:
    values = from_item(item)
    del values["kind"]
    popular = tuple(PopularPost(**post) for post in values.pop("popular", ()))
    return ContentDay(day=values.pop("period"), popular=popular, **values)
