"""generate_content_analytics: one UTC day's posts, comments, active users, totals and most popular posts.

The day's posts and comments are counted from their buckets in the indexes by day, the users by one scan. Each segment
leaves its sums as an item of the run; a last step adds them up, keeps the day's figures (analytics table) and writes
the report of the day to the archive bucket: as a self-contained page with charts, as JSON and as CSV. The popular
posts are the public ones with the highest engagement score by their current counters: scoring runs later at night.

The scan counts all users. The totals of posts and follows come from update_user_statistics, which starts an hour
earlier; while it is still running, those of the night before are used. If there are none that recent, this job counts
them.

Active users are exact even if users return later: each user keeps a bit for each of the last 36 days. A day may be
counted again after late rows: the later count replaces the earlier one, except for the active users of a day that the
bits no longer cover.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import day_sums
from day_sums import DaySums
from nexus import clock
from nexus.aws.dynamodb import Row
from nexus.aws.rows import BadRow, key_of, read_count, read_text
from nexus.worker import Continuation, Run, handler_for, implements, implements_part
from social import catalogue, day_report
from social.catalogue import AnalyticsReport, GenerateContentAnalytics, SweepReport
from social.data import analytics, comments, follows, posts, users
from social.data.analytics import ContentDay, PopularPost, Totals
from social.data.days import DAY_SECONDS, add_days, buckets_of, day_of, days_between, start_of
from social.data.posts import Post
from social.data.users import User
from social.parts import CountBucket, CountRows, CountUsers, PublishDay, ScanPart
from social.sweep import Tally, segments

TOTALS_KEPT = 36 * 3_600
"""Seconds for which totals are used: those of the night before count while this night's count is still running."""

THREADS = 4
ROWS = {"posts": (posts.TABLE, posts.BY_AUTHOR), "follows": (follows.TABLE, None)}


def merge(parts: Sequence[AnalyticsReport]) -> AnalyticsReport:
    """The sums of all segments, and the last one's report."""
    total = SweepReport().add(*parts)
    return AnalyticsReport(**total.model_dump(), day=parts[-1].day, report_key=parts[-1].report_key)


@implements(catalogue.generate_content_analytics, reduce=merge)
def generate_content_analytics(args: GenerateContentAnalytics, run: Run) -> AnalyticsReport | Continuation:
    """Plans the counts, and then the publication."""
    total = segments(users.TABLE)
    now = int(clock.now())
    day = args.day or add_days(day_of(run.sent_at), -1)
    buckets = buckets_of(day)
    totals, rows = analytics.totals(), list[ScanPart]()
    if totals is None or totals.counted_at <= now - TOTALS_KEPT:
        totals, rows = None, [scan for table in ROWS for scan in _scans(table, segments(*ROWS[table]))]
    plan = PublishDay(
        day=day,
        work=run.id,
        parts=len(buckets) + total + len(rows),
        counted_at=now,
        totals=totals and (totals.posts, totals.follows, totals.counted_at),
    )
    shares: list[PublishDay] = [CountBucket(**dict(plan), bucket=bucket) for bucket in buckets]
    shares += [CountUsers(**dict(plan), users=scan) for scan in _scans("users", total)]
    shares += [CountRows(**dict(plan), rows=scan) for scan in rows]
    return run.fan_out(shares, then=plan)


def _scans(table: str, total: int) -> list[ScanPart]:
    return [ScanPart(table=table, segment=number, total=total) for number in range(total)]


@implements_part(catalogue.generate_content_analytics)
def part(args: CountBucket | CountUsers | CountRows | PublishDay, run: Run) -> AnalyticsReport | Continuation:
    """Counts one bucket of the day or one segment of the users, posts or follows, or publishes the day."""
    if isinstance(args, CountBucket | CountUsers | CountRows):
        return count(args, run)
    return publish(args, run)


# --- counting --------------------------------------------------------------------------------------------------------


def count(args: CountBucket | CountUsers | CountRows, run: Run) -> AnalyticsReport | Continuation:
    """Counts one bucket of the day, or one segment of the users, posts or follows, and stores the sums."""
    tally = Tally.resumed(run)
    match args:
        case CountBucket():
            name, counted = args.bucket, _count_bucket(args.bucket, run, tally)
        case CountUsers():
            name, counted = f"users#{args.users.segment}", _count_users(args, run, tally)
        case _:
            name, counted = f"{args.rows.table}#{args.rows.segment}", _count_rows(args.rows, run, tally)
    if not isinstance(counted, DaySums):
        return counted
    day_sums.keep(args.work, name, counted, meter=tally.meter)
    return AnalyticsReport(**tally.numbers(), day=args.day)


def _count_bucket(bucket: str, run: Run, tally: Tally) -> DaySums | Continuation:
    cursor = run.cursor or {}
    sums = DaySums.of(cursor.get("sums", {}))
    if cursor.get("doing") != "comments":
        for page in posts.made_on(bucket, start=cursor.get("start"), meter=tally.meter):
            tally.rows_read += len(page.items)
            sums.posts.update(_visibilities(page.items, tally))
            sums.offer(_scores(page.items, tally))
            if run.short_of_time and page.next_key is not None:
                return run.continue_from(tally.cursor(doing="posts", start=page.next_key, sums=sums.values()))
    start = cursor.get("start") if cursor.get("doing") == "comments" else None
    for page in comments.made_on(bucket, start=start, meter=tally.meter):
        tally.rows_read += len(page.items)
        sums.numbers["comments"] += len(page.items)
        if run.short_of_time and page.next_key is not None:
            return run.continue_from(tally.cursor(doing="comments", start=page.next_key, sums=sums.values()))
    return sums


def _visibilities(items: Sequence[Row], tally: Tally) -> Counter[str]:
    found: Counter[str] = Counter()
    for item in items:
        try:
            found[posts.read_visibility(item, key_of(item, "post_id"))] += 1
        except BadRow as bad:
            tally.bad(bad)
    return found


def _scores(items: Sequence[Row], tally: Tally) -> Iterator[tuple[int, str]]:
    """(engagement score, id) of the public ones, by their current counters."""
    public = [item["post_id"]["S"] for item in items if item.get("visibility") == {"S": "public"}]
    for item in posts.for_scoring(public, meter=tally.meter, threads=THREADS):
        key = key_of(item, "post_id")
        try:
            yield posts.engagement_score(posts.read_counters(item, key)), key
        except BadRow as bad:
            tally.bad(bad)


USER_ATTRIBUTES = ("user_id", "created_at", "last_active_day", "active_days")


def _count_users(args: CountUsers, run: Run, tally: Tally) -> DaySums | Continuation:
    cursor = run.cursor or {}
    sums = DaySums.of(cursor.get("sums", {}))
    part = args.users
    scan = users.scan(
        USER_ATTRIBUTES, segment=part.segment, total=part.total, start=cursor.get("start"), meter=tally.meter
    )
    for page in scan:
        tally.rows_read += page.scanned
        for item in page.items:
            try:
                _add_user(sums.numbers, item, args.day)
            except BadRow as bad:
                tally.bad(bad)
        if run.short_of_time and page.next_key is not None:
            return run.continue_from(tally.cursor(start=page.next_key, sums=sums.values()))
    return sums


def _add_user(numbers: Counter[str], item: Row, day: str) -> None:
    """Adds one user: to `total_users` even if they registered after the day, as docs/data-model.md defines it."""
    key = key_of(item, "user_id")
    created_at = read_count(item, "created_at", key)
    last, bits = read_text(item, "last_active_day", key), read_count(item, "active_days", key, default=1)
    try:
        active = last >= day and users.was_active(last, bits, day)
    except ValueError:
        raise BadRow(key, "last_active_day is not a day") from None
    start = start_of(day)
    numbers["total_users"] += 1
    numbers["new_users"] += start <= created_at < start + DAY_SECONDS
    numbers["active_users"] += active


def _count_rows(part: ScanPart, run: Run, tally: Tally) -> DaySums | Continuation:
    cursor = run.cursor or {}
    sums = DaySums.of(cursor.get("sums", {}))
    table, index = ROWS[part.table]
    start = cursor.get("start")
    scan = table.scan(index=index, segment=part.segment, total=part.total, counted=True, start=start, meter=tally.meter)
    for page in scan:
        tally.rows_read += page.scanned
        sums.numbers[f"total_{part.table}"] += page.scanned
        if run.short_of_time and page.next_key is not None:
            return run.continue_from(tally.cursor(start=page.next_key, sums=sums.values()))
    return sums


# --- publishing ------------------------------------------------------------------------------------------------------


def publish(args: PublishDay, run: Run) -> AnalyticsReport:
    """Adds up the segments' sums, stores the day's figures and writes its report."""
    tally = Tally.resumed(run)
    sums = day_sums.total(args.work, args.parts, meter=tally.meter)
    forgotten = days_between(args.day, day_of(args.counted_at)) >= users.ACTIVITY_DAYS
    if forgotten and (known := analytics.content_day(args.day, meter=tally.meter)):
        sums.numbers["active_users"] = known.active_users
    numbers = sums.numbers
    totals = Totals(*args.totals or (numbers["total_posts"], numbers["total_follows"], args.counted_at))
    content = _content_day(args.day, args.counted_at, sums, totals, tally)
    newest = analytics.put_day(content, meter=tally.meter)
    tally.written([newest])
    key = analytics.report_key(args.day)
    if newest:  # an older count must not overwrite the report
        day_report.publish(content, meter=tally.meter)
    return AnalyticsReport(**tally.numbers(), day=args.day, report_key=key)


def _content_day(day: str, counted_at: int, sums: DaySums, totals: Totals, tally: Tally) -> ContentDay:
    read = posts.get_many([post_id for _, post_id in sums.popular], meter=tally.meter)
    # The index lags behind the post, and counting takes minutes: visibility is checked on the post itself.
    popular = {post.post_id: post for post in read if isinstance(post, Post) and post.visibility == "public"}
    authors = users.get_many([post.author_id for post in popular.values()], meter=tally.meter)
    names = {author.user_id: author.name or "" for author in authors if isinstance(author, User)}
    return ContentDay(
        day=day,
        counted_at=counted_at,
        posts=dict(sums.posts),
        comments=sums.numbers["comments"],
        active_users=sums.numbers["active_users"],
        new_users=sums.numbers["new_users"],
        total_users=sums.numbers["total_users"],
        total_posts=totals.posts,
        total_follows=totals.follows,
        totals_at=totals.counted_at,
        popular=tuple(
            PopularPost(
                post_id,
                popular[post_id].author_id,
                score,
                day_report.excerpt(popular[post_id].text),
                names.get(popular[post_id].author_id, ""),
            )
            for score, post_id in sums.popular
            if post_id in popular
        ),
    )


handler = handler_for(generate_content_analytics)
