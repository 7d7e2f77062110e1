"""Posts: one item per post, with its counters, its scores, and the results of media processing.

Five indexes, each with only the posts that its readers need:
    by-day      every post under its day's bucket: yesterday's posts, the last hour's hashtags, year-old posts
    by-author   every post under its author, only the keys: a profile page, and how many posts they have
    feed        public posts by feed_rank, in FEED_SHARDS shards: the feed, and the top posts of any period
    moved       only posts whose counters changed since they were scored
    review      only posts that became quiet again after their yearly review
"""

import heapq
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from nexus.aws.dynamodb import Condition, Row, Value, Write, from_attribute, to_attribute, unchanged
from nexus.aws.rows import BadRow, key_of, read_count, read_text, read_texts
from nexus.aws.table import Meter, Page, Table
from social.data import days

BY_DAY, BY_AUTHOR, FEED, MOVED, REVIEW = "by-day", "by-author", "feed", "moved", "review"
TABLE = Table(
    "posts",
    ("post_id",),
    {
        BY_DAY: ("bucket", "created_at"),
        BY_AUTHOR: ("author_id", "created_at"),
        FEED: ("feed", "feed_rank"),
        MOVED: ("moved", "post_id"),
        REVIEW: ("review", "post_id"),
    },
)

FEED_SHARDS = 8
MOVED_SHARDS = 16
REVIEW_SHARDS = 4
QUIET_VIEWS = 10
FEED_EPOCH = days.start_of(days.FIRST_DAY)
FEED_SECONDS = 45_000

type Visibility = Literal["public", "followers", "private"]

ERASED = "erased"
"""The `archived_as` of a post that is being erased, in place of an archive object: it can no longer be seen or changed.
"""

# --- media -----------------------------------------------------------------------------------------------------------


class Rendition(BaseModel):
    """One file produced from an upload: its key in the media bucket, pixels, bytes and type."""

    model_config = ConfigDict(frozen=True)

    key: str
    width: int
    height: int
    bytes: int
    content_type: str


class Media(BaseModel):
    """The post's attribute `media`. When rejected (with `reason`), only a status.

    While processing, it has what is known so far: kind and size, a picture's placeholder and colour, and for a clip the
    `progress` in percent. A post whose upload has not been noticed yet has no `media`.

    `code` is one of social.refusals.Code, which has the sentence of `reason` in other languages; `limit` belongs to it.
    `width` and `height` are the upright original's in pixels, `duration` is in seconds, `placeholder` is a blurhash,
    `colour` the dominant colour as #rrggbb, `source` and `version` the upload's key and version.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    status: Literal["processing", "ready", "rejected"]
    reason: str | None = None
    code: str | None = None
    limit: int | None = None
    kind: Literal["image", "animation", "video"] | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    progress: int | None = None
    placeholder: str | None = None
    colour: str | None = None
    source: str | None = None
    version: str | None = None
    renditions: Mapping[str, Rendition] = Field(default_factory=dict)


class MediaOutcome(StrEnum):
    """The outcome of `set_media`."""

    WRITTEN = "written"
    STALE = "stale"  # a later event has already written
    NO_POST = "no post"  # also for a post being archived, which would lose the change


def set_media(post_id: str, media: Media, order: str, *, meter: Meter | None = None) -> MediaOutcome:
    """Sets the post's `media`, unless an upload with a higher order has done so; the same order may write again."""
    order = padded(order)
    values: dict[str, Value] = {"media": media.model_dump(mode="json", exclude_none=True), "media_order": order}
    when = (Condition("media_order", "missing or <=", order), Condition("archived_as", "missing"))
    if TABLE.update(Write(post_id, set=values, when=when), meter=meter):
        return MediaOutcome.WRITTEN
    post = TABLE.get({"post_id": post_id}, attributes=("post_id", "archived_as"), consistent=True, meter=meter)
    return MediaOutcome.NO_POST if post is None or "archived_as" in post else MediaOutcome.STALE


def upload_order(uploaded_at: float, sequencer: str = "") -> str:
    """The order of an upload among those to its post: by S3's time of the object, within a second by S3's sequencer.

    The time is S3's, of the object that was read. The sequencer comes from the message.
    """
    return f"{int(uploaded_at):010X}{padded(sequencer)}"


def uploaded_at(order: str) -> int:
    """S3's time of the upload with this order. Raises ValueError if it is not an order."""
    return int(order[:10], 16)


def padded(order: str) -> str:
    """Pads an order so that orders compare as text: a shorter one gets zeros on its right.

    This makes sequencers of different lengths comparable (Amazon S3 User Guide, "Event message structure").
    """
    return order.upper().ljust(64, "0")


def media_order(post_id: str) -> str:
    """The order of the upload that last wrote `media`, empty if none has."""
    item = TABLE.get({"post_id": post_id}, attributes=("media_order",), consistent=True)
    return read_text(item, "media_order", post_id, "") if item else ""


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """What an upload needs to know about its post. `media_order` is empty if nothing was uploaded yet."""

    author_id: str
    media: Media | None
    media_order: str


def upload_target(post_id: str) -> UploadTarget | None:
    """None if the post does not exist, or is being archived. Raises BadRow."""
    attributes = ("author_id", "media", "media_order", "archived_as")
    item = TABLE.get({"post_id": post_id}, attributes=attributes, consistent=True)
    if item is None or "archived_as" in item:
        return None
    media = item.get("media")
    return UploadTarget(
        author_id=read_text(item, "author_id", post_id),
        media=Media.model_validate(from_attribute(media)) if media else None,
        media_order=read_text(item, "media_order", post_id, ""),
    )


# --- posts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counters:
    """Readers' reactions to a post."""

    likes: int = 0
    comments: int = 0
    shares: int = 0
    views: int = 0

    @property
    def values(self) -> tuple[int, int, int, int]:
        """In the order of COUNTERS."""
        return self.likes, self.comments, self.shares, self.views

    @property
    def quiet(self) -> bool:
        """No one liked, commented or shared, and fewer than QUIET_VIEWS viewed."""
        return not (self.likes or self.comments or self.shares) and self.views < QUIET_VIEWS


COUNTERS = ("likes_count", "comments_count", "shares_count", "views_count")


@dataclass(frozen=True, slots=True)
class Post:
    """A post. `created_at` is seconds since 1970; `hashtags` are normalised, without the #."""

    post_id: str
    author_id: str
    created_at: int
    text: str = ""
    visibility: Visibility = "public"
    hashtags: tuple[str, ...] = ()
    counters: Counters = Counters()
    engagement_score: int = 0
    feed_rank: float = 0.0
    media: Media | None = None

    @property
    def day(self) -> str:
        return days.day_of(self.created_at)


def get(post_id: str, *, consistent: bool = False, meter: Meter | None = None) -> Post | None:
    """The post, or None. Raises BadRow if the item cannot be read."""
    item = TABLE.get({"post_id": post_id}, consistent=consistent, meter=meter)
    return None if item is None or is_erased(item) else read(item)


def is_new(post_id: str, *, meter: Meter | None = None) -> bool:
    """Whether the post exists, unless it is being erased, or was brought back from the archive."""
    attributes = ("post_id", "archived_as", "restored_at")
    item = TABLE.get({"post_id": post_id}, attributes=attributes, consistent=True, meter=meter)
    return item is not None and not is_erased(item) and "restored_at" not in item


def get_many(post_ids: Sequence[str], *, meter: Meter | None = None, threads: int = 1) -> Iterator[Post | BadRow]:
    """The existing posts among these, in no particular order; a row that cannot be read becomes its BadRow."""
    keys = [{"post_id": post_id} for post_id in dict.fromkeys(post_ids)]
    for item in TABLE.get_many(keys, meter=meter, threads=threads):
        if is_erased(item):
            continue
        try:
            yield read(item)
        except BadRow as bad:
            yield bad


def create(post: Post, *, now: int, meter: Meter | None = None) -> bool:
    """Writes a new post; False if the id is taken."""
    return TABLE.insert(to_values(post, now=now), meter=meter) is None


def put_many(posts: Sequence[Post], *, now: int, meter: Meter | None = None, threads: int = 1) -> int:
    """Writes posts unconditionally: for imports and demo data. Those with counters are marked for scoring."""
    return TABLE.put_many([to_values(post, now=now) for post in posts], meter=meter, threads=threads)


def counted(post_id: str, by: Counters) -> Write:
    """The write that adds to a post's counters and marks it for scoring, if none of them falls below zero."""
    amounts = dict(zip(COUNTERS, by.values, strict=True))
    added = {name: amount for name, amount in amounts.items() if amount}
    enough = tuple(Condition(name, ">", -amount - 1) for name, amount in added.items() if amount < 0)
    once = secrets.token_hex(6)  # a repeat of the same request must not add again
    return Write(
        post_id,
        set={"moved": moved_of(post_id), "counted_by": once},
        add=added,
        when=(STAYS, Condition("counted_by", "missing or <>", once), *enough),
    )


def hide(post_id: str, *, meter: Meter | None = None) -> bool:
    """Hides a post that is to be erased and removes it from every count; one write. False if it does not exist."""
    change = Write(post_id, set={"archived_as": ERASED, "visibility": "private"}, remove=("feed", "moved", "review"))
    return TABLE.update(change, meter=meter)


def edit(post_id: str, text: str, tags: Sequence[str], at: int, *, meter: Meter | None = None) -> bool:
    """Sets a post's text and hashtags; one write. False if it does not exist, or is being archived."""
    values: dict[str, Value] = {"text": text, "hashtags": list(tags), "edited_at": at}
    return TABLE.update(Write(post_id, set=values, when=(STAYS,)), meter=meter)


def show_to(post_id: str, visibility: Visibility, *, meter: Meter | None = None) -> bool:
    """Sets who may see a post, and its place in the feed; one write. False as for `edit`."""
    public = visibility == "public"
    values: dict[str, Value] = {"visibility": visibility, **({"feed": feed_of(post_id)} if public else {})}
    return TABLE.update(Write(post_id, set=values, remove=() if public else ("feed",), when=(STAYS,)), meter=meter)


def set_counters(post_id: str, counters: Mapping[str, int], *, meter: Meter | None = None) -> bool:
    """Sets counters (of COUNTERS) that are counted elsewhere, and marks the post for scoring; one write.

    False as for `edit`.
    """
    change = Write(post_id, set={**counters, "moved": moved_of(post_id)}, when=(STAYS,))
    return TABLE.update(change, meter=meter)


class Ranked(NamedTuple):
    """A public post as in the feed index. `feed_rank` minus the age's part is log10 of its engagement score."""

    post_id: str
    author_id: str
    created_at: int
    feed_rank: float

    @property
    def log_engagement(self) -> float:
        """log10(max(1, engagement_score)), to the six decimals of the rank."""
        return self.feed_rank - age_rank(self.created_at)


class RankedPage(NamedTuple):
    """Posts of one page of the feed index; `next_key` continues after it, None at the shard's end."""

    posts: Sequence[Ranked]
    next_key: Row | None


def ranked(
    shard: int, since: int, until: int, *, start: Row | None = None, meter: Meter | None = None
) -> Iterator[RankedPage]:
    """One shard's public posts created from `since` to before `until` (seconds since 1970), by ascending feed_rank.

    A post's rank is its age's part plus at most MAX_LOG_ENGAGEMENT, so these posts are between two ranks; older posts
    with much engagement are read too, and left out. 85 bytes per post: a week of half a million posts is 5,400 read
    units, under a tenth of a cent. Rows that lack an attribute are left out.

    Ranks mostly rise, so the order is upwards: a post whose rank rises while this reads is on a later page as well, or
    only there. One whose rank falls (likes taken back) past the place read last is on no page.
    """
    pages = TABLE.query(
        feed_shard(shard),
        index=FEED,
        between=(age_rank(since), age_rank(until) + MAX_LOG_ENGAGEMENT),
        attributes=("post_id", "author_id", "created_at", "feed_rank"),
        start=start,
        meter=meter,
    )
    for page in pages:
        yield RankedPage([one for one in _readable(page.items) if since <= one.created_at < until], page.next_key)


def _readable(items: Sequence[Row]) -> Iterator[Ranked]:
    for item in items:
        try:
            created_at, rank = int(item["created_at"]["N"]), float(item["feed_rank"]["N"])
            yield Ranked(item["post_id"]["S"], item["author_id"]["S"], created_at, rank)
        except (KeyError, ValueError):
            continue


def feed(limit: int, *, meter: Meter | None = None) -> list[Ranked]:
    """The first page of the public feed: the highest feed_rank of all shards. Left out are rows as in `ranked`."""
    found: list[Ranked] = []
    for shard in range(FEED_SHARDS):
        pages = TABLE.query(feed_shard(shard), index=FEED, newest_first=True, limit=limit, meter=meter)
        found += _readable(next(pages).items)
    return heapq.nlargest(limit, found, key=lambda post: (post.feed_rank, post.post_id))


def made_on(
    bucket: str,
    since: int | None = None,
    until: int | None = None,
    *,
    start: Row | None = None,
    meter: Meter | None = None,
) -> Iterator[Page]:
    """The posts of one day's bucket as in the by-day index, created from `since` to before `until` if given.

    Attributes: post_id, author_id, created_at, visibility, hashtags.
    """
    between = None if since is None or until is None else (since, until - 1)
    yield from TABLE.query(bucket, index=BY_DAY, between=between, start=start, meter=meter)


def buckets(*, meter: Meter | None = None) -> Iterator[Page]:
    """The bucket of every post: a scan of the by-day index, for when that is smaller than querying every day."""
    yield from TABLE.scan(index=BY_DAY, attributes=("bucket",), meter=meter)


def moved(shard: int, *, start: Row | None = None, meter: Meter | None = None) -> Iterator[Page]:
    """The ids of one shard's posts whose counters changed since they were scored."""
    yield from TABLE.query(moved_shard(shard), index=MOVED, attributes=("post_id",), start=start, meter=meter)


_FOR_SCORE = ("post_id", "created_at", "restored_at", "visibility", "archived_as", *COUNTERS)
SCORED = (*_FOR_SCORE, "engagement_score", "feed_rank", "feed", "review")


def for_scoring(
    post_ids: Sequence[str], *, consistent: bool = False, meter: Meter | None = None, threads: int = 1
) -> Iterator[Row]:
    """The attributes that a score is computed from, as items of the existing posts."""
    keys = [{"post_id": post_id} for post_id in post_ids]
    yield from TABLE.get_many(keys, attributes=SCORED, consistent=consistent, meter=meter, threads=threads)


def scored(item: Row, now: int) -> Write:
    """The write that scores a post from what was read of it, if its counters have not changed since.

    It removes the post from the `moved` index; if a like since then refuses it, the post stays there. A post that is
    old and quiet (again) is marked for review. The feed key is corrected if it does not match the visibility; a post
    that is being archived has none. Raises BadRow.
    """
    key = key_of(item, "post_id")
    counters, created_at = read_counters(item, key), read_count(item, "created_at", key)
    public = read_text(item, "visibility", key) == "public" and "archived_as" not in item
    score = engagement_score(counters)
    rank = feed_rank(score, created_at)
    values: dict[str, Value] = {}
    remove = ["moved"]
    when = unchanged(item, *COUNTERS)
    if item.get("engagement_score") != to_attribute(score):
        values["engagement_score"] = score
    if "feed_rank" not in item or float(item["feed_rank"].get("N", "nan")) != rank:
        values["feed_rank"] = rank
    if public != ("feed" in item):
        when += unchanged(item, "visibility", "archived_as")
        if public:
            values["feed"] = feed_of(key)
        else:
            remove.append("feed")
    if "review" not in item and is_eligible(item, days.day_of(now)):
        values["review"] = review_of(key)
    return Write(key, set=values, remove=tuple(remove), when=when)


REVIEWED = ("post_id", "created_at", "restored_at", "archived_as", *COUNTERS)


def for_review(
    post_ids: Sequence[str], *, consistent: bool = False, meter: Meter | None = None, threads: int = 1
) -> Iterator[Row]:
    """The attributes that a review examines, as items of the existing posts."""
    keys = [{"post_id": post_id} for post_id in post_ids]
    yield from TABLE.get_many(keys, attributes=REVIEWED, consistent=consistent, meter=meter, threads=threads)


def in_full(post_ids: Sequence[str], *, meter: Meter | None = None, threads: int = 1) -> Iterator[Row]:
    """The whole items as stored, read consistently: for the archive."""
    keys = [{"post_id": post_id} for post_id in post_ids]
    yield from TABLE.get_many(keys, consistent=True, meter=meter, threads=threads)


def put_up_for_review(shard: int, *, start: Row | None = None, meter: Meter | None = None) -> Iterator[Page]:
    """The ids of one shard's posts to be reviewed out of turn."""
    yield from TABLE.query(review_shard(shard), index=REVIEW, attributes=("post_id",), start=start, meter=meter)


def as_read(item: Row) -> tuple[Condition, ...]:
    """Conditions that a post's counters, text, visibility and media are still as read, and no archiving has begun."""
    return unchanged(item, *COUNTERS, "text", "edited_at", "visibility", "media_order", "archived_as")


STAYS = Condition("archived_as", "missing")
"""The post is neither being archived nor being erased."""


def is_erased(item: Row) -> bool:
    """Whether a post is being erased."""
    return item.get("archived_as") == {"S": ERASED}


def written_by(author_id: str, *, meter: Meter | None = None) -> Iterator[Page]:
    """The ids of an author's posts, the oldest first."""
    yield from TABLE.query(author_id, index=BY_AUTHOR, attributes=("post_id",), meter=meter)


def authors(
    *, segment: int = 0, total: int = 1, start: Row | None = None, meter: Meter | None = None
) -> Iterator[Page]:
    """The author of every post in one segment of a parallel scan of the by-author index."""
    yield from TABLE.scan(
        index=BY_AUTHOR, segment=segment, total=total, attributes=("author_id",), start=start, meter=meter
    )


def count_by(author_id: str, *, start: Row | None = None, meter: Meter | None = None) -> Iterator[Page]:
    """Pages whose `scanned` add up to the number of an author's posts."""
    yield from TABLE.query(author_id, index=BY_AUTHOR, counted=True, start=start, meter=meter)


# --- rules -----------------------------------------------------------------------------------------------------------


def engagement_score(counters: Counters) -> int:
    """likes x 3 + comments x 5 + shares x 7 + views x 1."""
    return counters.likes * 3 + counters.comments * 5 + counters.shares * 7 + counters.views


def feed_rank(score: int, created_at: int) -> float:
    """log10(max(1, score)) + seconds since 2024-01-01T00:00Z / 45,000, rounded half-even to six decimals.

    Reddit's form: 12.5 hours weigh as much as ten times the engagement, and no post is rewritten as it ages.
    """
    return round(math.log10(max(1, score)) + (created_at - FEED_EPOCH) / FEED_SECONDS, 6)


def age_rank(created_at: int) -> float:
    """The age's part of the rank, which is the whole rank of a post with no engagement."""
    return round((created_at - FEED_EPOCH) / FEED_SECONDS, 6)


MAX_LOG_ENGAGEMENT = 12.0  # a million million


def feed_shard(shard: int) -> str:
    """The partition key of one shard of the feed."""
    return f"public#{shard}"


def moved_shard(shard: int) -> str:
    """The partition key of one shard of the posts to be scored."""
    return f"moved#{shard:02}"


def review_shard(shard: int) -> str:
    """The partition key of one shard of the posts to be reviewed again."""
    return f"review#{shard}"


def old_day(today: str) -> str:
    """The last day of which every post is older than a year: its anniversary has passed.

    A calendar year, 365 or 366 days. The anniversary of 29 February is the 28th.
    """
    return days.add_days(days.year_before(today), -1)


def is_eligible(item: Row, today: str) -> bool:
    """Whether a post is quiet and older than a year, since it was created or restored. Raises BadRow."""
    key = key_of(item, "post_id")
    since = max(read_count(item, "created_at", key), read_count(item, "restored_at", key, default=0))
    return read_counters(item, key).quiet and days.day_of(since) <= old_day(today)


def read_visibility(item: Row, key: str) -> Visibility:
    """Who may see the post. Raises BadRow."""
    match read_text(item, "visibility", key):
        case ("public" | "followers" | "private") as visibility:
            return visibility
        case _:
            raise BadRow(key, "visibility is not public, followers or private")


def read_counters(item: Row, key: str) -> Counters:
    """The counters in an item; absent ones are 0. Raises BadRow if one is not a count."""
    likes, comments, shares, views = (read_count(item, name, key, default=0) for name in COUNTERS)
    return Counters(likes, comments, shares, views)


def read(item: Row) -> Post:
    """Parses the post in an item. Raises BadRow."""
    key = key_of(item, "post_id")
    media = item.get("media")
    rank = item.get("feed_rank")
    try:
        return Post(
            post_id=read_text(item, "post_id", key),
            author_id=read_text(item, "author_id", key),
            created_at=read_count(item, "created_at", key),
            text=read_text(item, "text", key, default=""),
            visibility=read_visibility(item, key),
            hashtags=read_texts(item, "hashtags", key),
            counters=read_counters(item, key),
            engagement_score=read_count(item, "engagement_score", key, default=0),
            feed_rank=float(rank["N"]) if rank else 0.0,
            media=Media.model_validate(from_attribute(media)) if media else None,
        )
    except (KeyError, ValueError) as error:
        raise BadRow(key, f"feed_rank or media is malformed: {error}") from None


def to_values(post: Post, *, now: int) -> dict[str, Value]:
    """The post's item: its buckets and shards follow from its id, its time and its contents."""
    values: dict[str, Value] = {
        "post_id": post.post_id,
        "author_id": post.author_id,
        "created_at": post.created_at,
        "bucket": days.bucket_of(post.post_id, post.created_at),
        "text": post.text,
        "visibility": post.visibility,
        "hashtags": list(post.hashtags),
        "likes_count": post.counters.likes,
        "comments_count": post.counters.comments,
        "shares_count": post.counters.shares,
        "views_count": post.counters.views,
        "engagement_score": post.engagement_score,
        "feed_rank": feed_rank(post.engagement_score, post.created_at),
    }
    if post.visibility == "public":
        values["feed"] = feed_of(post.post_id)
    if post.engagement_score != engagement_score(post.counters):
        values["moved"] = moved_of(post.post_id)
    if post.counters.quiet and post.day <= old_day(days.day_of(now)):
        values["review"] = review_of(post.post_id)  # its day has already been reviewed without it
    if post.media is not None:
        values["media"] = post.media.model_dump(mode="json", exclude_none=True)
    return values


def feed_of(post_id: str) -> str:
    """The feed shard of a post."""
    return feed_shard(days.shard_of(post_id, FEED_SHARDS))


def moved_of(post_id: str) -> str:
    """The scoring shard of a post."""
    return moved_shard(days.shard_of(post_id, MOVED_SHARDS))


def review_of(post_id: str) -> str:
    """The review shard of a post."""
    return review_shard(days.shard_of(post_id, REVIEW_SHARDS))
