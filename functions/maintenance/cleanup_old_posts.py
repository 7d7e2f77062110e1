"""cleanup_old_posts: posts older than a year that are quiet (both defined in docs/data-model.md).

Modes: `review` (the default) counts and names them; `archive` moves them to the archive bucket; `restore` brings posts
back. A post is checked once, when its day is a year old, through the index by day: it is quiet if no one has engaged
with it. If a post becomes quiet later (its only like is withdrawn), scoring puts it into the sparse index `review`, and
it is checked from there. So a run's cost depends only on the days since the last archiving.

Archiving follows this order, so that a crash at any point loses nothing:

1. the posts and their comments are read in full and consistently; a post with a live comment is kept;
2. an object with all of it is written, read back and compared (social.data.archive);
3. their renditions are copied to the archive bucket and compared;
4. a post is deleted on condition that it still equals what was archived; one with comments or renditions is first
   marked `archived_as` on that condition (the application then accepts no likes for it), then those and it are deleted.

A later run finishes a marked post that a dead sandbox left behind. The watermark moves when all days are done.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import Any

from nexus import clock
from nexus.aws.dynamodb import Condition, Row, Write
from nexus.aws.rows import BadRow, key_of, read_count
from nexus.aws.table import in_threads
from nexus.worker import Continuation, Run, handler_for, implements, implements_part
from social import catalogue
from social.catalogue import CleanupOldPosts, OldPostsReport
from social.data import analytics, archive, comments, objects, posts
from social.data.archive import ArchivedPost
from social.data.days import DAY_SHARDS, FIRST_DAY, add_days, buckets_of, day_of, days_from
from social.parts import RaiseWatermark, ReviewDays, ReviewShard
from social.sweep import Tally

JOB = "cleanup_old_posts"
MOST_SEGMENTS = 100
EXAMPLES = 20
PAGE_UNITS = 128
"""Read units of a page of 1 MB, eventually consistent."""

AT_ONCE = 500
"""Posts checked, and archived as one object, between two checks of the time: a page has thousands."""

SECONDS_AT_ONCE = 60.0
"""The seconds that moving that many may take if each has six renditions to copy and delete."""

THREADS = 8


def merge(parts: Sequence[OldPostsReport]) -> OldPostsReport:
    """Sums the numbers and collects up to twenty examples."""
    total = parts[0]
    for part in parts[1:]:
        total = OldPostsReport.model_validate(total.add(part).model_dump())
    examples = [post_id for part in parts for post_id in part.examples]
    written = [key for part in parts for key in part.objects]
    return total.model_copy(update={"examples": tuple(examples[:EXAMPLES]), "objects": tuple(written[:EXAMPLES])})


@implements(catalogue.cleanup_old_posts, reduce=merge)
def cleanup_old_posts(args: CleanupOldPosts, run: Run) -> OldPostsReport | Continuation:
    """Restores posts, or plans the review and then, when archiving, the watermark."""
    if args.mode == "restore":
        return restore(args.post_ids, run)
    today = day_of(clock.now())
    first = args.since or _first_day()
    plan: dict[str, Any] = {"mode": args.mode, "today": today, "since": first}
    old = _days_with_posts(days_from(first, posts.old_day(today)), Tally(run))
    buckets = [bucket for day in old for bucket in buckets_of(day)]
    size = max(1, -(-len(buckets) // MOST_SEGMENTS))
    shares: list[ReviewDays | ReviewShard] = [
        ReviewDays(**plan, buckets=some) for some in batched(buckets, size, strict=False)
    ]
    shares += [ReviewShard(**plan, shard=shard) for shard in range(posts.REVIEW_SHARDS)]
    return run.fan_out(shares, then=RaiseWatermark(**plan) if args.mode == "archive" else None)


@implements_part(catalogue.cleanup_old_posts)
def part(args: ReviewDays | ReviewShard | RaiseWatermark, run: Run) -> OldPostsReport | Continuation:
    """Reviews some days or one shard, or raises the watermark after all of them."""
    if not isinstance(args, RaiseWatermark):
        return look_through(args, run)
    if args.since <= _first_day():  # a later start would skip days
        analytics.raise_watermark(JOB, posts.old_day(args.today))
    return OldPostsReport()


def _first_day() -> str:
    """The first day that has not been archived."""
    done = analytics.watermark(JOB)
    return add_days(done, 1) if done else FIRST_DAY


def _days_with_posts(days: Sequence[str], tally: Tally) -> Sequence[str]:
    """The days that have posts, found by one scan if that is cheaper than a query per day; all days if not.

    Helps the first run on a young or small network: two years of empty days are 1,400 read units and seconds.
    """
    pages = len(days) * DAY_SHARDS * 0.5 // PAGE_UNITS
    if pages < 1:
        return days
    filled: set[str] = set()
    for number, page in enumerate(posts.buckets(meter=tally.meter), 1):
        if number == pages and page.next_key is not None:
            return days
        filled.update(item["bucket"]["S"].split("#")[0] for item in page.items)
    return [day for day in days if day in filled]


# --- reviewing -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Found:
    """What has been found and done, in a form that fits into a cursor."""

    eligible: int = 0
    archived: int = 0
    examples: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)

    def values(self) -> dict[str, int | list[str]]:
        return {
            "eligible": self.eligible,
            "archived": self.archived,
            "examples": self.examples[:EXAMPLES],
            "objects": self.objects[:EXAMPLES],
        }


def look_through(args: ReviewDays | ReviewShard, run: Run) -> OldPostsReport | Continuation:
    """One segment: the buckets of some days, or one shard of the review index."""
    tally, cursor = Tally.resumed(run), run.cursor or {}
    found = Found(**cursor.get("found", {}))
    sources = args.buckets if isinstance(args, ReviewDays) else (posts.review_shard(args.shard),)
    for place in range(cursor.get("place", 0), len(sources)):
        start = cursor.get("start") if place == cursor.get("place") else None
        for post_ids, next_key in _some(args, sources[place], start, tally):
            _review(post_ids, args, tally, found)
            if run.remaining < SECONDS_AT_ONCE and next_key is not None:
                return run.continue_from(tally.cursor(place=place, start=next_key, found=found.values()))
        if run.remaining < SECONDS_AT_ONCE and place + 1 < len(sources):
            return run.continue_from(tally.cursor(place=place + 1, start=None, found=found.values()))
    return OldPostsReport(**tally.numbers(), **found.values())


def _some(
    args: ReviewDays | ReviewShard, source: str, start: Row | None, tally: Tally
) -> Iterator[tuple[Sequence[str], Row | None]]:
    """Yields up to AT_ONCE post ids of a source, and the key to continue from; None at its end."""
    if isinstance(args, ReviewDays):
        key: tuple[str, ...] = ("bucket", "created_at", "post_id")
        pages = posts.made_on(source, start=start, meter=tally.meter)
    else:
        key = ("review", "post_id")
        pages = posts.put_up_for_review(args.shard, start=start, meter=tally.meter)
    for page in pages:
        for some in batched(page.items, AT_ONCE, strict=False):
            last = {key[0]: {"S": source}, **some[-1]}
            within = {name: last[name] for name in key}
            yield [item["post_id"]["S"] for item in some], page.next_key if some[-1] is page.items[-1] else within


def _review(post_ids: Sequence[str], args: ReviewDays | ReviewShard, tally: Tally, found: Found) -> None:
    """Finds the eligible posts among these, and in mode `archive` moves them."""
    eligible: list[str] = []
    left_behind: list[Row] = []
    tally.rows_read += len(post_ids)
    for item in posts.for_review(post_ids, meter=tally.meter, threads=THREADS):
        key = key_of(item, "post_id")
        try:
            if isinstance(args, ReviewShard) and _in_days(item, args):
                continue  # the day's segment finds it
            if posts.is_erased(item):
                continue  # being erased: erase_user_data removes it
            if "archived_as" in item:
                left_behind.append(item)
            elif posts.is_eligible(item, args.today):
                eligible.append(key)
            elif isinstance(args, ReviewShard) and args.mode == "archive":
                posts.TABLE.update(Write(key, remove=("review",)), meter=tally.meter)
        except BadRow as bad:
            tally.bad(bad)
    found.eligible += len(eligible) + len(left_behind)
    found.examples = [*found.examples, *sorted(eligible)][:EXAMPLES]
    if args.mode == "archive":
        archived = finish_removal(left_behind, tally)
        if eligible:
            archived += move(sorted(eligible), args.today, tally, found)
        found.archived += archived
        tally.changed += archived
        tally.skipped += len(eligible) + len(left_behind) - archived


def _in_days(item: Row, args: ReviewShard) -> bool:
    day = day_of(read_count(item, "created_at", key_of(item, "post_id")))
    return args.since <= day <= posts.old_day(args.today)


# --- archiving -------------------------------------------------------------------------------------------------------


def move(post_ids: Sequence[str], today: str, tally: Tally, found: Found) -> int:
    """Archives and deletes these posts; returns how many were deleted. Raises ArchiveError if a copy differs."""
    items = [item for item in posts.in_full(post_ids, meter=tally.meter, threads=THREADS) if _still(item, today)]
    comment_lists = in_threads(
        lambda item: comments.items_of_post(item["post_id"]["S"], meter=tally.meter), items, THREADS
    )
    movable = [
        ArchivedPost(item, tuple(its_comments))
        for item, its_comments in zip(items, comment_lists, strict=True)
        if all("deleted_at" in comment for comment in its_comments)
    ]
    if not movable:
        return 0
    day = day_of(min(int(one.post["created_at"]["N"]) for one in movable))
    key = archive.write(day, movable, int(clock.now()), meter=tally.meter)
    found.objects.append(key)
    bare: list[ArchivedPost] = []
    compound: list[ArchivedPost] = []
    for one in movable:
        (compound if one.comments or "media" in one.post else bare).append(one)
    removals = [Write(one.post_id, delete=True, when=posts.as_read(one.post)) for one in bare]
    removed = posts.TABLE.update_many(removals, meter=tally.meter)
    removed += in_threads(lambda one: _move_with_all(one, key, tally), compound, THREADS)
    _forget_erased([one for one, gone in zip([*bare, *compound], removed, strict=True) if not gone], tally)
    return sum(removed)


def _forget_erased(stayed: Sequence[ArchivedPost], tally: Tally) -> None:
    """Deletes the archive copy of a post that is being erased.

    A post that no longer exists may have been archived by another delivery: the second pass of its erasure handles
    that.
    """
    there = posts.for_review([one.post_id for one in stayed], consistent=True, meter=tally.meter)
    erased = {item["post_id"]["S"] for item in there if posts.is_erased(item)}
    for one in stayed:
        if one.post_id in erased:
            list(archive.erase(one.post["author_id"]["S"], one.post_id, last=False, meter=tally.meter))
            objects.erase("archive", f"media/{one.post_id}/")


def _still(item: Row, today: str) -> bool:
    """Whether a post is still eligible after a consistent read, which may be newer than the first."""
    try:
        return "archived_as" not in item and posts.is_eligible(item, today)
    except BadRow:
        return False


def _move_with_all(one: ArchivedPost, key: str, tally: Tally) -> bool:
    """Moves a post that has comments or renditions. Returns False if it was kept."""
    if not _copy(_renditions("media", one.post_id), "media", "archive"):
        tally.run.logger.warning("a rendition could not be copied: post kept", post_id=one.post_id)
        return False
    mark = Write(one.post_id, set={"archived_as": key}, remove=("feed",), when=posts.as_read(one.post))
    if not posts.TABLE.update(mark, meter=tally.meter):
        return False
    return _remove_marked(one, key, tally)


def finish_removal(marked: Iterable[Row], tally: Tally) -> int:
    """Finishes removals that a dead sandbox began; returns how many posts were deleted."""
    gone = 0
    for item in marked:
        key, post_id = item["archived_as"]["S"], item["post_id"]["S"]
        gone += _remove_marked(_archived(post_id, key, tally), key, tally)
    return gone


def _archived(post_id: str, key: str, tally: Tally) -> ArchivedPost:
    """An archived post from its object, or from the object that replaced it. Raises LookupError if it is in neither."""
    where = key if archive.exists(key) else archive.find([post_id], meter=tally.meter)[post_id]
    return archive.read(where)[post_id]


def _remove_marked(one: ArchivedPost, key: str, tally: Tally) -> bool:
    """Deletes a marked post's comments and renditions, then the post: the archive has everything."""
    comments.delete_many([(one.post_id, comment["comment_id"]["S"]) for comment in one.comments], meter=tally.meter)
    for rendition in list(_renditions("media", one.post_id)):
        objects.delete("media", rendition)
    when = (Condition("archived_as", "=", key),)
    return posts.TABLE.delete({"post_id": one.post_id}, when=when, meter=tally.meter)


def _renditions(bucket: objects.Bucket, post_id: str) -> Iterator[str]:
    return objects.keys(bucket, f"media/{post_id}/")


def _copy(keys: Iterable[str], source: objects.Bucket, target: objects.Bucket) -> bool:
    return all(objects.copy(source, target, key) for key in list(keys))


# --- restoring -------------------------------------------------------------------------------------------------------


def restore(post_ids: Sequence[str], run: Run) -> OldPostsReport | Continuation:
    """Restores posts with their comments and renditions; existing rows stay unchanged.

    A continuation finds what was restored before, and counts it.

    The review treats a restored post as new: it is not checked for another year.
    """
    tally = Tally.resumed(run)
    restored: list[str] = []
    held = archive.find(post_ids, meter=tally.meter)
    now = int(clock.now())
    opened, inside = "", dict[str, ArchivedPost]()
    for place, (key, post_id) in enumerate(sorted((key, post_id) for post_id, key in held.items()), 1):
        if key != opened:
            opened, inside = key, archive.read(key)
        if _bring_back(inside[post_id], now, tally):
            restored.append(post_id)
        run.progress(place, len(held), "posts restored")
        if run.short_of_time and place < len(held):
            return run.continue_from(tally.cursor())
    tally.rows_read += len(post_ids)
    tally.changed += len(restored)
    tally.skipped += len(set(post_ids)) - len(restored)
    return OldPostsReport(**tally.numbers(), restored=len(restored), examples=tuple(restored[:EXAMPLES]))


def _bring_back(one: ArchivedPost, now: int, tally: Tally) -> bool:
    """Restores comments and renditions, then the post, which makes them visible.

    False if the post was not deleted, or if it is being erased.
    """
    existing = posts.TABLE.get({"post_id": one.post_id}, consistent=True, meter=tally.meter)
    if existing is not None and posts.is_erased(existing):
        return False
    if existing is not None and "archived_as" not in existing:
        return "restored_at" in existing
    comments.TABLE.put_items(one.comments, meter=tally.meter)
    if not _copy(_renditions("archive", one.post_id), "archive", "media"):
        raise archive.ArchiveError(f"a rendition of {one.post_id} could not be copied back")
    item = {name: value for name, value in one.post.items() if name not in ("review", "archived_as")}
    posts.TABLE.put_item({**item, "restored_at": {"N": str(now)}}, meter=tally.meter)
    return True


handler = handler_for(cleanup_old_posts)
