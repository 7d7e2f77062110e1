"""Messages that the jobs over all users or posts send to themselves: arguments of their segments and second phase.

Other senders cannot use these: a message that contains one runs only as a part of the job's own run. If a job has
several, their required fields distinguish them.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from nexus.definitions import Arguments
from social.types import Day, Past, Week


class ScanPart(Arguments):
    """One segment of a parallel scan over `table`."""

    table: str
    segment: int = Field(ge=0)
    total: int = Field(ge=1)


# --- send_content_digest_email -----------------------------------------------------------------------------------


class _Edition(Arguments):
    """`edition` (a key in the archive bucket) has the posts from `since` to before `until`.

    `per_second` is SES's rate.
    """

    edition: str
    since: int
    until: int
    per_second: float = Field(gt=0)


class DigestEdition(_Edition):
    """The second phase: makes the edition, and splits the users into segments. `planned_at`: when the run began."""

    week: Week
    planned_at: int


class DigestShard(DigestEdition):
    """A segment of the first phase: ranks one shard of the feed."""

    shard: int = Field(ge=0)


class DigestPart(_Edition):
    """One segment of the users. `overlaps`: the weeks, separated by spaces, whose mails may have the same posts."""

    overlaps: str | None = None
    segment: int = Field(ge=0)
    total: int = Field(ge=1)


class DigestSegment(Arguments):
    """A segment of the week's digest."""

    week: Week
    part: DigestPart


# --- update_user_statistics --------------------------------------------------------------------------------------


class _Count(Arguments):
    """`work` is the folder of the sums, `started_at` (seconds) when counting began.

    A hash divides the users into `bands`, and each band into `ranges`. With one range a band, bands are merged; with
    more, the sums of each band are first regrouped by range.
    """

    work: str
    started_at: int
    bands: int = Field(ge=1)
    ranges: int = Field(ge=1)


class PlanRanges(_Count):
    """The second phase: regroups or merges the sums. `parts` is the number of segments of each scan."""

    parts: Mapping[str, int]


class CountScan(PlanRanges):
    """A segment of the first phase: counts one segment of one scan."""

    part: ScanPart


class RegroupBand(_Count):
    """A segment of the second phase: sorts one band's sums in the folders from `first` to before `end` by range.

    `gathered` is the object that lists the folders, `group` the number of this group of them.
    """

    gathered: str
    band: int = Field(ge=0)
    group: int = Field(ge=0)
    first: int = Field(ge=0)
    end: int = Field(ge=0)


class PlanMerges(_Count):
    """The third phase, after regrouping: merges the sums. `groups` is the number of folders of each band."""

    groups: int = Field(ge=1)


class MergeRange(_Count):
    """A segment of the last phase: adds up one column of the folders from `first` to before `end`, one range of users.

    `gathered` is the object that lists the folders.
    """

    gathered: str
    column: int = Field(ge=0)
    first: int = Field(ge=0)
    end: int = Field(ge=0)


# --- update_trending_hashtags ------------------------------------------------------------------------------------


class Rank(Arguments):
    """The second phase: ranks the counted hours. `at` is the time to use as now (seconds)."""

    top: int = Field(default=10, ge=1, le=100)
    at: Past


class CountHours(Rank):
    """A segment: counts some hours that have not been counted yet."""

    hours: tuple[int, ...]


# --- generate_content_analytics ----------------------------------------------------------------------------------


class PublishDay(Arguments):
    """The second phase: adds up the partial sums and publishes the day.

    `work` names the sums, `parts` is how many there are, `counted_at` (seconds) when counting began. `totals` are the
    numbers of all posts and follows, and when those were counted; None if segments count them (`CountRows`).
    """

    day: Day
    work: str
    parts: int = Field(ge=1)
    counted_at: int
    totals: tuple[int, int, int] | None = None


class CountBucket(PublishDay):
    """A segment: counts the posts and comments of one bucket of the day."""

    bucket: str


class CountUsers(PublishDay):
    """A segment: counts one segment of the users."""

    users: ScanPart


class CountRows(PublishDay):
    """A segment: counts the rows of one segment of the posts or the follows."""

    rows: ScanPart


# --- update_post_engagement_scores, cleanup_expired_tokens -------------------------------------------------------


class ScoreShard(Arguments):
    """A segment: one shard of the index of posts whose counters changed."""

    shard: int = Field(ge=0)


class CleanUp(Arguments):
    """A segment of one table's scan. `now` (seconds) is the time to use as now; `sweep` is the job's own."""

    sweep: bool = False
    now: int
    part: ScanPart


# --- erase_user_data ---------------------------------------------------------------------------------------------


class EraseShare(Arguments):
    """A segment: one kind of a user's data (`store`); for posts, some of them."""

    user_id: str
    store: str
    post_ids: tuple[str, ...] = ()
    again: bool


class LookAgain(Arguments):
    """The second phase: sends the task again."""

    user_id: str
    look_again: Literal[True] = True


# --- cleanup_old_posts -------------------------------------------------------------------------------------------


class _OldPosts(Arguments):
    """`today` is the day of the run, `since` the first day to examine, `mode` the job's own."""

    mode: Literal["review", "archive"] = "review"
    today: Day
    since: Day


class ReviewDays(_OldPosts):
    """A segment: the posts in some buckets of the days."""

    buckets: tuple[str, ...]


class ReviewShard(_OldPosts):
    """A segment: one shard of the review index."""

    shard: int = Field(ge=0)


class RaiseWatermark(_OldPosts):
    """The second phase of archiving: the examined days need not be examined again."""

    finish: Literal[True] = True
