"""update_user_statistics: recomputes followers_count, following_count and posts_count of every user.

A user's followers are spread over the whole follows table, so counting has phases, as in MapReduce:

1. Scans of three sources (follows for the edges, the posts' by-author index, users for what is stored now), cut into
   segments by size. Each segment counts by user and stores its sums in S3, sorted into bands of users.
2. Only for more than 10 million users, when a band is too large for one sandbox: segments that sort the sums of a band
   into ranges of users. Without this step each merge would read a piece of every segment's sums, and the requests would
   grow with the square of the users; with it, an object is read in 43 pieces at a hundred million users.
3. One segment for each range adds up the sums for its users, compares them with the stored counts, and writes the users
   whose counts differ, unless a later count (refresh_user_statistics) is there.

A segment's sums are in uniquely named objects, and it writes the list of them last. So a segment that dies, is
continued or runs twice leaves exactly one complete list, and nothing is counted twice. Between two phases the lists are
gathered into one object, which does not change any more. Every edge is read once; only changed users are written. The
total number of posts and follows is stored after the first phase, for the day's report.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import batched, groupby, islice
from typing import Any

import user_sums
from nexus import clock
from nexus.aws.dynamodb import Row
from nexus.aws.rows import BadRow, read_count
from nexus.aws.table import Meter, Page
from nexus.worker import Continuation, Run, handler_for, implements, implements_part
from social import catalogue
from social.catalogue import SweepReport, UpdateUserStatistics
from social.data import analytics, follows, posts, users
from social.data.analytics import Totals
from social.data.users import Counts
from social.parts import CountScan, MergeRange, PlanMerges, PlanRanges, RegroupBand, ScanPart
from social.sweep import Tally, segments
from user_sums import Stored, Sums

SCANS = {"follows": (follows.TABLE, None), "posts": (posts.TABLE, posts.BY_AUTHOR), "users": (users.TABLE, None)}
USERS_PER_RANGE = 220_000
MOST_RANGES = 48
"""The most ranges that are merged straight from the scans' sums: more are regrouped first."""

REGROUPED_BYTES = 1024 * 1024 * 1024
"""What one segment regroups."""

USERS_HELD = 500_000
"""Users that a segment sums up in memory before it turns the sums into text: about 100 MB."""

WRITES_AT_ONCE = 500
THREADS = 4


@implements(catalogue.update_user_statistics)
def update_user_statistics(_args: UpdateUserStatistics, run: Run) -> SweepReport | Continuation:
    """Plans the scans, and then the merges."""
    bands, ranges = layout(users.TABLE.size()[0])
    plan = PlanRanges(
        work=f"work/{run.id}",
        started_at=int(clock.now()),
        bands=bands,
        ranges=ranges,
        parts={name: segments(table, index) for name, (table, index) in SCANS.items()},
    )
    scans = [ScanPart(table=name, segment=n, total=total) for name, total in plan.parts.items() for n in range(total)]
    return run.fan_out([CountScan(**dict(plan), part=part) for part in scans], then=plan)


def layout(people: int) -> tuple[int, int]:
    """(bands, ranges per band) for this many users: no band has more ranges than there are bands."""
    ranges = people // USERS_PER_RANGE + 1
    if ranges <= MOST_RANGES:
        return ranges, 1
    bands = math.isqrt(ranges - 1) + 1
    return bands, -(-ranges // bands)


@implements_part(catalogue.update_user_statistics)
def part(args: CountScan | PlanRanges | RegroupBand | PlanMerges | MergeRange, run: Run) -> SweepReport | Continuation:
    """Counts one segment of a scan, regroups sums, merges one range of users, or plans the next phase."""
    match args:
        case CountScan():
            return count(args, run)
        case RegroupBand():
            return regroup(args, run)
        case MergeRange():
            return merge(args, run)
        case PlanMerges():
            return plan_merges(args, run)
        case _:
            return plan_ranges(args, run)


# --- phase 1: count --------------------------------------------------------------------------------------------------


def count(args: CountScan, run: Run) -> SweepReport | Continuation:
    """Sums up one segment of one scan, by user."""
    part, tally, cursor = args.part, Tally.resumed(run), run.cursor or {}
    folder = f"{args.work}/{part.table}-{part.segment}"
    writer = user_sums.Writer(folder, args.bands, lambda hashed: hashed % args.bands, cursor.get("written", ()))
    sums: Sums = {}
    for page in _pages(part, cursor.get("start"), tally.meter):
        tally.rows_read += page.scanned
        _add(part.table, page.items, sums, tally)
        stop = run.short_of_time and page.next_key is not None
        if stop or user_sums.held(sums) > USERS_HELD:
            writer.add(sums)
            sums = {}
        if stop:
            return run.continue_from(tally.cursor(start=page.next_key, written=writer.flush()))
    writer.add(sums)
    report = tally.report()
    writer.complete(report.rows_read)
    return report


def _pages(part: ScanPart, start: Row | None, meter: Meter) -> Iterator[Page]:
    match part.table:
        case "follows":
            return follows.edges(segment=part.segment, total=part.total, start=start, meter=meter)
        case "posts":
            return posts.authors(segment=part.segment, total=part.total, start=start, meter=meter)
        case _:
            attributes = ("user_id", *users.COUNTS)
            return users.scan(attributes, segment=part.segment, total=part.total, start=start, meter=meter)


def _add(table: str, items: Sequence[Row], sums: Sums, tally: Tally) -> None:
    """Adds a page to the sums. Keys are strings by the table's definition, so an edge cannot be a bad row."""
    match table:
        case "follows":
            _counter(sums, "followers").update([item["followed_id"]["S"] for item in items])
            following = _counter(sums, "following")
            for follower, edges in groupby([item["follower_id"]["S"] for item in items]):  # they are consecutive
                following[follower] += len(list(edges))
        case "posts":
            _counter(sums, "posts").update([item["author_id"]["S"] for item in items])
        case _:
            stored = sums.setdefault("stored", {})
            for item in items:
                stored[item["user_id"]["S"]] = _stored(item, tally)


def _counter(sums: Sums, kind: str) -> Counter[str]:
    counter = sums.setdefault(kind, Counter())
    assert isinstance(counter, Counter)
    return counter


def _stored(item: Row, tally: Tally) -> list[int] | None:
    """The three stored counts; None if one of them is not a count: then all are rewritten."""
    try:
        counts = [int(item[name]["N"]) for name in users.COUNTS]
        if min(counts) >= 0:
            return counts
    except (KeyError, ValueError):
        pass  # absent, or not an integer: the slow path finds out which
    key = item["user_id"]["S"]
    try:
        return [read_count(item, name, key, default=0) for name in users.COUNTS]
    except BadRow as bad:
        tally.bad(bad)
        return None


# --- phase 2: regroup ------------------------------------------------------------------------------------------------


def plan_ranges(args: PlanRanges, run: Run) -> Continuation:
    """Stores the totals, and plans the merges, or the step before them."""
    folders = [f"{args.work}/{scan}-{number}" for scan, total in args.parts.items() for number in range(total)]
    gathered = user_sums.gather(args.work, folders)
    _keep_totals(args, gathered.rows)
    shared = args.model_dump(exclude={"parts"})
    if args.ranges == 1:
        merges = ((band, 0, len(folders)) for band in range(args.bands))
        return _fan_out_merges(shared, gathered.key, merges, run)
    groups = _groups(gathered.bytes, REGROUPED_BYTES * args.bands)
    bands = [
        RegroupBand(**shared, gathered=gathered.key, band=band, group=group, first=first, end=end)
        for band in range(args.bands)
        for group, (first, end) in enumerate(groups)
    ]
    return run.fan_out(bands, then=PlanMerges(**shared, groups=len(groups)))


def _keep_totals(args: PlanRanges, rows: Sequence[int]) -> None:
    left = iter(rows)
    counted = {scan: sum(islice(left, total)) for scan, total in args.parts.items()}
    analytics.put_totals(Totals(counted["posts"], counted["follows"], args.started_at))


def _groups(sizes: Sequence[int], enough: int) -> list[tuple[int, int]]:
    """(first, end) of groups of consecutive folders that have `enough` bytes; the last one may have less."""
    groups, first, size = [], 0, 0
    for place, bytes_ in enumerate(sizes):
        size += bytes_
        if size >= enough or place + 1 == len(sizes):
            groups.append((first, place + 1))
            first, size = place + 1, 0
    return groups


def regroup(args: RegroupBand, run: Run) -> SweepReport | Continuation:
    """Adds up one band's sums in some folders, and stores them by range."""
    tally, cursor = Tally.resumed(run), run.cursor or {}
    writer = user_sums.Writer(
        _folder_of(args, args.band, args.group),
        args.ranges,
        lambda hashed: hashed // args.bands % args.ranges,
        cursor.get("written", ()),
    )
    chunks = user_sums.chunks(args.gathered, args.first, args.end, args.band)
    read = cursor.get("read", 0)
    sums: Sums = {}
    for batch in user_sums.batches(chunks[read:]):
        for part in user_sums.fetch(batch):
            user_sums.add(sums, part)
            if user_sums.held(sums) > USERS_HELD:
                writer.add(sums)
                sums = {}
        read += len(batch)
        if run.short_of_time and read < len(chunks):
            writer.add(sums)
            return run.continue_from(tally.cursor(read=read, written=writer.flush()))
    writer.add(sums)
    writer.complete()
    return tally.report()


def _folder_of(args: RegroupBand | PlanMerges, band: int, group: int) -> str:
    return f"{args.work}/band-{band}-{group}"


# --- phase 3: merge --------------------------------------------------------------------------------------------------


def plan_merges(args: PlanMerges, run: Run) -> Continuation:
    """Plans the merges of regrouped sums."""
    folders = [_folder_of(args, band, group) for band in range(args.bands) for group in range(args.groups)]
    gathered = user_sums.gather(args.work, folders)
    merges = (
        (column, band * args.groups, (band + 1) * args.groups)
        for band in range(args.bands)
        for column in range(args.ranges)
    )
    return _fan_out_merges(args.model_dump(exclude={"groups"}), gathered.key, merges, run)


def _fan_out_merges(
    shared: Mapping[str, Any], gathered: str, merges: Iterable[tuple[int, int, int]], run: Run
) -> Continuation:
    return run.fan_out(
        [MergeRange(**shared, gathered=gathered, column=column, first=first, end=end) for column, first, end in merges]
    )


def merge(args: MergeRange, run: Run) -> SweepReport | Continuation:
    """Adds up one range of users and writes what differs.

    An invocation that is short of time stores its sums, and the next one begins with them. They keep their order, so
    that the users already written come first.
    """
    tally, cursor = Tally.resumed(run), run.cursor or {}
    chunks = user_sums.chunks(args.gathered, args.first, args.end, args.column)
    read, done = cursor.get("read", 0), cursor.get("done", 0)
    sums: Sums = {}

    def later() -> Continuation:
        kept = user_sums.Writer(f"{args.work}/kept", 1, lambda _: 0)
        kept.add(sums)
        return run.continue_from(tally.cursor(read=read, done=done, kept=kept.flush()))

    for batch in user_sums.batches([Stored.of(values).chunk(0) for values in cursor.get("kept", ())]):
        for part in user_sums.fetch(batch):
            user_sums.add(sums, part)
    for batch in user_sums.batches(chunks[read:]):
        for part in user_sums.fetch(batch):
            user_sums.add(sums, part)
        read += len(batch)
        if run.short_of_time and read < len(chunks):
            return later()
    changed = list(_differences(sums, args.started_at))
    for some in batched(changed[done:], WRITES_AT_ONCE, strict=False):
        tally.written(users.set_counts(some, meter=tally.meter, threads=THREADS))
        done += len(some)
        run.progress(done, len(changed), "users written")
        if run.short_of_time and done < len(changed):
            return later()
    return tally.report()


def _differences(sums: Sums, counted_at: int) -> Iterator[Counts]:
    """The users whose stored counts differ from the counted ones. Ignores edges of deleted users."""
    followers, following, posted = (sums.get(kind, {}) for kind in ("followers", "following", "posts"))
    for user_id, stored in sums.get("stored", {}).items():
        counted = [followers.get(user_id, 0), following.get(user_id, 0), posted.get(user_id, 0)]
        if stored != counted:
            followers_count, following_count, posts_count = counted
            yield Counts(user_id, followers_count, following_count, posts_count, counted_at)


handler = handler_for(update_user_statistics)
