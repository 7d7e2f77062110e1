"""update_post_engagement_scores: engagement_score and feed_rank of the posts whose counters changed.

engagement_score = likes x 3 + comments x 5 + shares x 7 + views x 1
feed_rank = log10(max(1, engagement_score)) + seconds since 2024-01-01T00:00Z / 45,000, rounded to six decimals

Both formulas are in `social.data.posts`. The rank includes age, so a post changes its place in the feed only when its
counters change. The code that changes them puts the post into the sparse index `moved` (social.application.count),
which is all this job reads. Each write is conditional on the counters that were read, and also removes the post from
the index: after a like in between the post stays there for the next pass.
"""

from nexus import clock
from nexus.aws.rows import BadRow
from nexus.worker import Continuation, Run, handler_for, implements, implements_part
from social import catalogue
from social.catalogue import SweepReport, UpdatePostEngagementScores
from social.data import posts
from social.parts import ScoreShard
from social.sweep import Tally

THREADS = 4


@implements(catalogue.update_post_engagement_scores)
def update_post_engagement_scores(_args: UpdatePostEngagementScores, run: Run) -> SweepReport | Continuation:
    """Plans one segment for each shard of the index."""
    return run.fan_out([ScoreShard(shard=shard) for shard in range(posts.MOVED_SHARDS)])


@implements_part(catalogue.update_post_engagement_scores)
def score(args: ScoreShard, run: Run) -> SweepReport | Continuation:
    """Scores one shard, page by page. An unreadable row stays in the index and appears in each report."""
    tally = Tally.resumed(run)
    for page in posts.moved(args.shard, start=(run.cursor or {}).get("start"), meter=tally.meter):
        post_ids = [item["post_id"]["S"] for item in page.items]
        tally.rows_read += len(post_ids)
        refused = _score_page(post_ids, tally, consistent=False)
        if refused:  # changed meanwhile, or a stale read: retry with a consistent read
            refused = _score_page(refused, tally, consistent=True)
            tally.skipped += len(refused)
        if run.short_of_time and page.next_key is not None:
            return run.continue_from(tally.cursor(start=page.next_key))
    return tally.report()


def _score_page(post_ids: list[str], tally: Tally, *, consistent: bool) -> list[str]:
    """Writes the scores. Returns the posts whose counters changed meanwhile."""
    changes = []
    now = int(clock.now())
    for item in posts.for_scoring(post_ids, consistent=consistent, meter=tally.meter, threads=THREADS):
        try:
            changes.append(posts.scored(item, now))
        except BadRow as bad:
            tally.bad(bad)
    made = posts.TABLE.update_many(changes, meter=tally.meter, threads=THREADS)
    tally.changed += sum(made)
    return [str(change.key) for change, done in zip(changes, made, strict=True) if not done]


handler = handler_for(update_post_engagement_scores)
