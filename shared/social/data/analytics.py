"""The jobs' data about days: each day's figures, the network's totals, and the last day that a job has finished."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from nexus.aws.dynamodb import Condition, Row, Write, from_item
from nexus.aws.table import Meter, Table

TABLE = Table("analytics", ("kind", "period"))
_CONTENT, _TOTALS, _WATERMARK = "content", "totals", "watermark"
_NETWORK = "network"


@dataclass(frozen=True, slots=True)
class PopularPost:
    """One of a day's most popular public posts, scored when the day was counted.

    `author` is the author's name at that time; empty if they were deleted, or the day was counted before names were
    stored.
    """

    post_id: str
    author_id: str
    engagement_score: int
    text: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True)
class ContentDay:
    """One UTC day of the network: its events, and the size of the network when it was counted.

    Of the day, for what still exists: `posts` by visibility, `comments` not deleted, `active_users`, and `new_users`
    who registered. Of the network: `total_users` at `counted_at`, `total_posts` and `total_follows` at `totals_at`: all
    rows in the tables, of any day and any current or former user. docs/data-model.md has the full definition.
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
    totals_at: int = 0

    @property
    def total_of_posts(self) -> int:
        """The day's posts, of every visibility."""
        return sum(self.posts.values())


def put_day(content: ContentDay, *, meter: Meter | None = None) -> bool:
    """Writes the day's figures unless a later count of it exists. Idempotent for the same count."""
    figures = {name: value for name, value in asdict(content).items() if name != "day"}
    not_newer = Condition("counted_at", "missing or <=", content.counted_at)
    change = Write({"kind": _CONTENT, "period": content.day}, set=figures, when=(not_newer,))
    return TABLE.update(change, create=True, meter=meter)


def content_days(first: str, last: str, *, meter: Meter | None = None) -> list[ContentDay]:
    """The counted days from `first` to `last`, both included, in order."""
    return [
        _read_day(item) for page in TABLE.query(_CONTENT, between=(first, last), meter=meter) for item in page.items
    ]


def content_day(day: str, *, meter: Meter | None = None) -> ContentDay | None:
    """One day's figures, or None if it has not been counted."""
    item = TABLE.get({"kind": _CONTENT, "period": day}, meter=meter)
    return None if item is None else _read_day(item)


def all_days(*, meter: Meter | None = None) -> Iterator[ContentDay]:
    """Every counted day, in order: a thousand of them are 300 read units."""
    for page in TABLE.query(_CONTENT, consistent=True, meter=meter):
        yield from map(_read_day, page.items)


def set_popular(before: ContentDay, popular: Sequence[PopularPost], *, meter: Meter | None = None) -> bool:
    """Replaces a day's popular posts; False if they, or the count, have changed since they were read."""
    key = {"kind": _CONTENT, "period": before.day}
    item = TABLE.get(key, consistent=True, meter=meter)
    if item is None or _read_day(item).popular != before.popular:
        return False
    stored = from_item(item)["popular"]  # an older day's posts have no author, which was read as ""
    as_read = (Condition("counted_at", "=", before.counted_at), Condition("popular", "=", stored))
    return TABLE.update(Write(key, set={"popular": [asdict(post) for post in popular]}, when=as_read), meter=meter)


ReportFormat = Literal["html", "json", "csv", "popular"]
"""A day's report: the HTML page, everything as JSON, and the month's figures and the popular posts as CSV."""

REPORTS = "reports/content/"
_ENDINGS: Mapping[ReportFormat, str] = {"html": ".html", "json": ".json", "csv": ".csv", "popular": "-popular.csv"}


def report_key(day: str, form: ReportFormat = "html") -> str:
    """Where a day's report is in the archive bucket."""
    return f"{REPORTS}{day}{_ENDINGS[form]}"


@dataclass(frozen=True, slots=True)
class Totals:
    """How many posts and follows the tables had when a full count began, at `counted_at`."""

    posts: int
    follows: int
    counted_at: int


def put_totals(totals: Totals, *, meter: Meter | None = None) -> bool:
    """Stores the totals unless a later count exists."""
    not_newer = Condition("counted_at", "missing or <=", totals.counted_at)
    change = Write({"kind": _TOTALS, "period": _NETWORK}, set=asdict(totals), when=(not_newer,))
    return TABLE.update(change, create=True, meter=meter)


def totals(*, meter: Meter | None = None) -> Totals | None:
    """The totals of the last count, or None if there was none."""
    item = TABLE.get({"kind": _TOTALS, "period": _NETWORK}, meter=meter)
    if item is None:
        return None
    values = from_item(item)
    return Totals(values["posts"], values["follows"], values["counted_at"])


def watermark(job: str, *, meter: Meter | None = None) -> str | None:
    """The last day that a job has completed, or None."""
    item = TABLE.get({"kind": _WATERMARK, "period": job}, consistent=True, meter=meter)
    return item["day"]["S"] if item else None


def raise_watermark(job: str, day: str, *, meter: Meter | None = None) -> bool:
    """Moves a job's watermark forward; False if it is already there or further."""
    behind = Condition("day", "missing or <", day)
    change = Write({"kind": _WATERMARK, "period": job}, set={"day": day}, when=(behind,))
    return TABLE.update(change, create=True, meter=meter)


def _read_day(item: Row) -> ContentDay:
    values = from_item(item)
    popular = tuple(PopularPost(**_known(PopularPost, post)) for post in values.pop("popular", ()))
    return ContentDay(day=values["period"], popular=popular, **_known(ContentDay, values))


def _known(kind: type[ContentDay | PopularPost], values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what a newer version has added, which stays in the table after a rollback."""
    return {name.name: values[name.name] for name in fields(kind) if name.name in values}
