"""update_trending_hashtags: which hashtags trend, from their use in the last seven days.

A vote is one user's use of a tag in one hour, however many posts use it, so no single account makes a trend.
Tags are compared normalised (social.tags); only public posts vote.

uses  = votes in the 168 hours up to and including the current one
score = the sum over those hours of votes x (168 - age), age in whole hours from 0

So a new vote weighs 168, one from yesterday 144, and a vote leaves the window with weight 0: a burst rises at once and
fades, without a jump at the window's edge. All arithmetic is in integers. The `top` tags by score trend, ties by name.

An hour's posts are read once it is over and its counts stored (hashtag_counts); a full day is stored as one. A run
reads the posts of the last hour or two, six days' sums and up to 47 hours' sums. It writes the tags that trend and
clears those that no longer do.

A stored hour keeps the votes of posts that are deleted later: counting it again for each deletion would cost large
networks the whole window every hour. hashtag_counts.count decides which posts vote. A change of that rule applies to
hours that are not stored yet, so the whole window follows it, or a deletion, after seven days; or at once if hashtags/
in the archive bucket is emptied.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import batched

import hashtag_counts
from nexus import clock
from nexus.worker import Continuation, Run, handler_for, implements, implements_part
from social import catalogue
from social.catalogue import SweepReport, TrendingReport, UpdateTrendingHashtags
from social.data import hashtags
from social.data.days import HOUR_SECONDS
from social.data.hashtags import WINDOW, Trend
from social.parts import CountHours, Rank
from social.sweep import Tally

HOURS_ALONE = 12
"""The most uncounted hours that one invocation counts itself; more become segments."""

HOURS_A_SEGMENT = 6


def merge(parts: Sequence[TrendingReport]) -> TrendingReport:
    """Merges the segments that count hours with the run that ranks."""
    return TrendingReport(**SweepReport().add(*parts).model_dump(), trending=parts[-1].trending)


@implements(catalogue.update_trending_hashtags, reduce=merge)
def update_trending_hashtags(args: UpdateTrendingHashtags, run: Run) -> TrendingReport | Continuation:
    """Counts the uncounted hours, then ranks."""
    return count_and_rank(Rank(top=args.top, at=int(clock.now() if args.at is None else args.at)), run)


@implements_part(catalogue.update_trending_hashtags)
def part(args: CountHours | Rank, run: Run) -> TrendingReport | Continuation:
    """Counts some hours, or ranks after they are counted."""
    if isinstance(args, CountHours):
        return count_hours(args.hours, run, Tally.resumed(run))
    return count_and_rank(args, run)


def count_and_rank(args: Rank, run: Run) -> TrendingReport | Continuation:
    """Counts missing hours, here if they are few, else in segments, and ranks."""
    tally, at = Tally.resumed(run), args.at
    present = at // HOUR_SECONDS
    hours, days = hashtag_counts.kept()
    window = range(present - WINDOW + 1, present + 1)
    final = [hour for hour in window if hashtag_counts.is_final(hour, at)]
    missing = [hour for hour in final if hashtags.hour_name(hour) not in hours]
    if len(missing) > HOURS_ALONE:
        shares = batched(missing, HOURS_A_SEGMENT, strict=False)
        return run.fan_out([CountHours(**dict(args), hours=share) for share in shares], then=args)
    outcome = count_hours(missing, run, tally)
    if not isinstance(outcome, TrendingReport):
        return outcome
    trends = rank(_counted(window, final, days, tally), present, args.top)
    write(trends, at, tally)
    return TrendingReport(**tally.numbers(), trending=tuple(trend.tag for trend in trends))


def count_hours(hours: Sequence[int], run: Run, tally: Tally) -> TrendingReport | Continuation:
    """Counts and stores hours that are over. Stored hours stay, so a continuation handles the rest."""
    done = set((run.cursor or {}).get("done", ()))
    left = [hour for hour in hours if hour not in done]
    for hour in left:
        hashtag_counts.keep_hour(hour, _count(hour, tally))
        done.add(hour)
        if run.short_of_time and hour != left[-1]:
            return run.continue_from(tally.cursor(done=sorted(done)))
    return TrendingReport(**tally.numbers())


def _count(hour: int, tally: Tally) -> dict[str, int]:
    votes, read = hashtag_counts.count(hour, tally.bad, tally.meter)
    tally.rows_read += read
    return votes


def _counted(window: range, final: Sequence[int], days: set[str], tally: Tally) -> Iterator[tuple[int, str, int, int]]:
    """(hour or first hour, tag, votes, moment) of every hour of the window; a stored day is one entry."""
    over = set(final)
    for day in dict.fromkeys(hashtags.hour_name(hour)[:10] for hour in window):
        hours = hashtag_counts.hours_of(day)
        if hours[0] in window and over.issuperset(hours):
            sums = hashtag_counts.read_day(day) if day in days else hashtag_counts.keep_day(day)
            for tag, (votes, moment) in sums.items():
                yield hours[0], tag, votes, moment
            continue
        for hour in hours:
            if hour not in window:
                continue
            hourly = hashtag_counts.read_hour(hour) if hour in over else _count(hour, tally)
            for tag, votes in hourly.items():
                yield hour, tag, votes, votes * hour


def rank(counted: Iterator[tuple[int, str, int, int]], present: int, top: int) -> list[Trend]:
    """The `top` tags by score. The sum of votes x (168 - (present - hour)) is (168 - present) x votes + moment."""
    uses: Counter[str] = Counter()
    scores: Counter[str] = Counter()
    for _, tag, votes, moment in counted:
        uses[tag] += votes
        scores[tag] += (WINDOW - present) * votes + moment
    best = sorted(scores, key=lambda tag: (-scores[tag], tag))[:top]
    return [Trend(tag, uses[tag], scores[tag]) for tag in best]


def write(trends: Sequence[Trend], at: int, tally: Tally) -> None:
    """Sets the trending tags and clears those that no longer trend; a later count stays."""
    before = {trend.tag: trend for trend in hashtags.trending(meter=tally.meter)}
    now = {trend.tag for trend in trends}
    outcomes = [
        hashtags.set_trending(trend, at, meter=tally.meter) for trend in trends if before.get(trend.tag) != trend
    ]
    outcomes += [hashtags.clear_trending(tag, at, meter=tally.meter) for tag in sorted(before.keys() - now)]
    tally.written(outcomes)


handler = handler_for(update_trending_hashtags)
