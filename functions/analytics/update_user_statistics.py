"""update_user_statistics: recomputes followers_count, following_count and posts_count of every user.

A user's followers are spread over the whole follows table, so counting has two phases, as in MapReduce:

1. Scans of three sources (follows for the edges, the posts' by-author index, users for what is stored now), cut into
   segments by size. Each segment counts by user and stores its sums in S3, sorted into ranges of users.
2. One segment for each range adds up the scans' sums for its users, compares them with the stored counts, and writes
   the users whose counts differ, unless a later count (refresh_user_statistics) is there.

A segment's sums are in uniquely named objects, and it writes the list of them last. So a segment that dies, is
continued or runs twice leaves exactly one complete list, and nothing is counted twice. Every edge is read once; only
changed users are written. The total number of posts and follows is stored between the phases, for the day's report.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import batched, groupby

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
from social.parts import CountScan, MergeRange, PlanRanges, ScanPart
from social.sweep import Tally, segments
from user_sums import Sums

SCANS = {"follows": (follows.TABLE, None), "posts": (posts.TABLE, posts.BY_AUTHOR), "users": (users.TABLE, None)}
USERS_PER_RANGE = 250_000
USERS_HELD = 500_000
"""Users that a segment sums up in memory before it writes the sums: about 100 MB."""

WRITES_AT_ONCE = 500
THREADS = 4


@implements(catalogue.update_user_statistics)
def update_user_statistics(_args: UpdateUserStatistics, run: Run) -> SweepReport | Continuation:
    """Plans the scans, and then the merges."""
    plan = PlanRanges(
        work=f"work/{run.id}",
        started_at=int(clock.now()),
        ranges=users.TABLE.size()[0] // USERS_PER_RANGE + 1,
        parts={name: segments(table, index) for name, (table, index) in SCANS.items()},
    )
    scans = [ScanPart(table=name, segment=n, total=total) for name, total in plan.parts.items() for n in range(total)]
    return run.fan_out([CountScan(**dict(plan), part=part) for part in scans], then=plan)


@implements_part(catalogue.update_user_statistics)
def part(args: CountScan | MergeRange | PlanRanges, run: Run) -> SweepReport | Continuation:
    """Counts one segment of a scan, merges one range of users, or plans the ranges."""
    match args:
        case CountScan():
            return count(args, run)
        case MergeRange():
            return merge(args, run)
        case _:
            _keep_totals(args)
            return run.fan_out([MergeRange(**dict(args), range=number) for number in range(args.ranges)])


# --- phase 1: count --------------------------------------------------------------------------------------------------


def count(args: CountScan, run: Run) -> SweepReport | Continuation:
    """Sums up one segment of one scan, by user."""
    part, tally, cursor = args.part, Tally.resumed(run), run.cursor or {}
    folder = f"{args.work}/{part.table}-{part.segment}"
    written: list[str] = list(cursor.get("written", ()))
    sums: Sums = {}
    for page in _pages(part, cursor.get("start"), tally.meter):
        tally.rows_read += page.scanned
        _add(part.table, page.items, sums, tally)
        stop = run.short_of_time and page.next_key is not None
        if stop or sum(map(len, sums.values())) > USERS_HELD:
            written.append(user_sums.write(folder, sums, args.ranges))
            sums = {}
        if stop:
            return run.continue_from(tally.cursor(start=page.next_key, written=written))
    written.append(user_sums.write(folder, sums, args.ranges))
    report = tally.report()
    user_sums.complete(folder, written, report.rows_read)
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
        pass  # absent, or not an integer: the slow path says which
    key = item["user_id"]["S"]
    try:
        return [read_count(item, name, key, default=0) for name in users.COUNTS]
    except BadRow as bad:
        tally.bad(bad)
        return None


def _folders(args: PlanRanges, scan: str) -> list[str]:
    return [f"{args.work}/{scan}-{number}" for number in range(args.parts[scan])]


def _keep_totals(args: PlanRanges) -> None:
    counted = {scan: user_sums.rows(_folders(args, scan), THREADS) for scan in ("posts", "follows")}
    analytics.put_totals(Totals(counted["posts"], counted["follows"], args.started_at))


# --- phase 2: merge --------------------------------------------------------------------------------------------------


def merge(args: MergeRange, run: Run) -> SweepReport:
    """Adds up one range of users and writes what differs. Thanks to USERS_PER_RANGE it needs no continuation."""
    tally = Tally.resumed(run)
    sums = user_sums.merged([folder for name in args.parts for folder in _folders(args, name)], args.range)
    changed = list(_differences(sums, args.started_at))
    done = 0
    for some in batched(changed, WRITES_AT_ONCE, strict=False):
        tally.written(users.set_counts(some, meter=tally.meter, threads=THREADS))
        done += len(some)
        run.progress(done, len(changed), "users written")
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
