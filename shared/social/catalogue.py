"""The table of contents: each task's name, queue, arguments, result, limits and schedule, once.

A producer imports a task from here and sends it:

    from social.catalogue import send_welcome_email
    send_welcome_email.delay(user_id="u-1")

The work itself is in functions/<queue>/<task>.py; template.yaml has the queue, the function and the rule of the
same names, and tests/unit/test_template.py keeps them consistent. All schedules are UTC.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field

from nexus.registry import register
from nexus.tasks import Arguments, Budget, Result, RetryPolicy, Schedule, Task, Unique
from social import parts
from social.types import Day, Link, Past, Week

QUEUES = {"media": 9, "emails": 8, "users": 7, "analytics": 5, "maintenance": 3, "default": 2}
"""The priority queues and their weights: the event source's MaximumConcurrency, and the order in every list."""


class Summed(Result):
    """A result that is summed over the segments of a fan-out."""

    def add(self, *others: Self) -> Self:
        """The sum of this and the others: of every number, and of every count by reason."""
        sums: dict[str, Any] = {}
        for name in type(self).model_fields:
            first, *more = (getattr(part, name) for part in (self, *others))
            if isinstance(first, int | float):
                total = sum(more, first)
                sums[name] = round(total, 6) if isinstance(total, float) else total
            elif isinstance(first, Mapping):
                sums[name] = dict(sum(map(Counter, more), Counter(first)))
        return self.model_copy(update=sums)


# --- media -----------------------------------------------------------------------------------------------------


class ProcessMediaUpload(Arguments):
    """One uploaded object. `event_order` is S3's sequencer, which orders uploads of the same second."""

    bucket: str = Field(min_length=3, max_length=63)
    key: str = Field(min_length=1, max_length=1024)
    version_id: str | None = None
    event_order: str = Field(default="", max_length=64, pattern=r"^[0-9A-Fa-f]*$")


class MediaReport(Result):
    """The outcome of an upload: `status` is ready, rejected (with its reason) or stale (a newer upload has won)."""

    post_id: str
    status: str
    reason: str | None = None
    renditions: int = 0
    bytes_out: int = 0
    seconds: float = 0.0

    @property
    def shortfall(self) -> str | None:
        kind = (self.reason or "").partition(":")[0]  # for a refusal its code, without the details
        return None if self.status == "ready" else f"{self.status}: {kind}"


process_media_upload = Task(
    name="process_media_upload",
    queue="media",
    arguments=ProcessMediaUpload,
    result=MediaReport,
    summary="Turns an uploaded image or video into renditions, thumbnails and a compressed version.",
    on_upload=True,
    time_limit=280,
    retry=RetryPolicy(max_retries=3, base=20, cap=300),
)

# --- emails ----------------------------------------------------------------------------------------------------


class SendWelcomeEmail(Arguments):
    """The user to welcome."""

    user_id: str = Field(min_length=1, max_length=128)


class WelcomeReport(Result):
    """`outcome` is sent, skipped or unknown, with the reason unless sent."""

    user_id: str
    outcome: str
    reason: str | None = None
    message_id: str | None = None

    @property
    def shortfall(self) -> str | None:
        return None if self.outcome == "sent" else self.reason or self.outcome


send_welcome_email = Task(
    name="send_welcome_email",
    queue="emails",
    arguments=SendWelcomeEmail,
    result=WelcomeReport,
    summary="Sends a personal welcome mail to a newly registered user.",
    time_limit=30,
)


class SendContentDigestEmail(Arguments):
    """`week` is the digest's week, by default that in which the run was first sent or its schedule fired; the current
    one if that was more than three days ago.

    Its posts are those of the seven days before the run, or before the week's end if that is past.
    """

    week: Week | None = None


class DigestReport(Summed):
    """The outcome for each reader considered: sent, skipped or failed (by reason), or unknown (`nexus mail unknown`).

    `left_out` counts the week's public posts that no digest could show, by reason. Requests and units are DynamoDB's,
    `seconds` are of work, over all segments.
    """

    week: str = ""
    considered: int = 0
    sent: int = 0
    skipped: Mapping[str, int] = Field(default_factory=dict)
    unknown: int = 0
    failed: Mapping[str, int] = Field(default_factory=dict)
    left_out: Mapping[str, int] = Field(default_factory=dict)
    throttled: int = 0
    requests: int = 0
    read_units: float = 0.0
    write_units: float = 0.0
    seconds: float = 0.0

    @property
    def shortfall(self) -> str | None:
        reasons = Counter(self.skipped) + Counter(self.failed)
        if self.sent or not reasons:
            return None
        return f"sent to no one: {reasons.most_common(1)[0][0]}"


send_content_digest_email = Task(
    name="send_content_digest_email",
    queue="emails",
    arguments=SendContentDigestEmail,
    part=parts.DigestShard | parts.DigestEdition | parts.DigestSegment,
    result=DigestReport,
    summary="Mails the week's top posts, personalised, to each user active in the last 7 days who wants them.",
    time_limit=100,
    retry=RetryPolicy(max_retries=6, base=60, cap=900),
    budget=Budget(dollars=100.0),  # a million mails; a Monday of a network of a million users takes half of it
    schedule=Schedule("cron(0 9 ? * MON *)", "Monday 09:00"),
    unique=Unique(key=("week",)),
)


class RecordMailFeedback(Arguments):
    """`notification` is the detail of SES's event: eventType, bounce or complaint, and mail."""

    notification: Mapping[str, Any]


class FeedbackReport(Result):
    """How many of the notification's users are suppressed, and why; `reason` also if none was suppressed."""

    suppressed: int
    reason: str

    @property
    def shortfall(self) -> str | None:
        return None if self.suppressed else self.reason


record_mail_feedback = Task(
    name="record_mail_feedback",
    queue="emails",
    arguments=RecordMailFeedback,
    result=FeedbackReport,
    summary="Suppresses an address after a bounce or a complaint, so that it gets no more mail.",
    time_limit=20,
)

# --- jobs over the data: users, analytics, maintenance -----------------------------------------------------------


class SweepReport(Summed):
    """A data job's result: counts, DynamoDB requests, request units and seconds of work."""

    rows_read: int = 0
    changed: int = 0
    skipped: int = 0
    failed: int = 0
    requests: int = 0
    read_units: float = 0.0
    write_units: float = 0.0
    seconds: float = 0.0


class RefreshUserStatistics(Arguments):
    """The user whose counts to return."""

    user_id: str = Field(min_length=1, max_length=128)


class UserStatistics(Result):
    """The current counts."""

    user_id: str
    followers_count: int
    following_count: int
    posts_count: int


refresh_user_statistics = Task(
    name="refresh_user_statistics",
    queue="users",
    arguments=RefreshUserStatistics,
    result=UserStatistics,
    summary="Recomputes one user's counts now.",
    time_limit=50,
)


class RevokeUserTokens(Arguments):
    """Whose tokens and sessions: those from before `issued_before` (seconds since 1970; default: the task's start).

    Set it if a retry must not affect a login after the revocation was requested.
    """

    user_id: str = Field(min_length=1, max_length=128)
    issued_before: Past | None = None


class RevokedTokens(Result):
    """How many were deleted."""

    user_id: str
    tokens: int
    sessions: int


revoke_user_tokens = Task(
    name="revoke_user_tokens",
    queue="users",
    arguments=RevokeUserTokens,
    result=RevokedTokens,
    summary="Deletes every token and session of one user now.",
    time_limit=50,
)


class UpdateUserStatistics(Arguments):
    """No arguments."""


update_user_statistics = Task(
    name="update_user_statistics",
    queue="analytics",
    arguments=UpdateUserStatistics,
    part=parts.CountScan | parts.PlanRanges | parts.RegroupBand | parts.PlanMerges | parts.MergeRange,
    result=SweepReport,
    summary="Recomputes followers_count, following_count and posts_count of every user.",
    time_limit=840,
    schedule=Schedule("cron(0 3 * * ? *)", "daily 03:00"),
    unique=Unique(),
)


class UpdateTrendingHashtags(Arguments):
    """`top` tags trend. `at` is the time to use as now (seconds since 1970), by default the current time.

    It is not in the future, whose hours would be stored as final.
    """

    top: int = Field(default=10, ge=1, le=100)
    at: Past | None = None


class TrendingReport(SweepReport):
    """The sweep, and the hashtags that trend now, the highest first."""

    trending: tuple[str, ...] = ()


update_trending_hashtags = Task(
    name="update_trending_hashtags",
    queue="analytics",
    arguments=UpdateTrendingHashtags,
    part=parts.CountHours | parts.Rank,
    result=TrendingReport,
    summary="Counts hashtag use over 7 days; sets and clears is_trending and the trending score.",
    time_limit=840,
    schedule=Schedule("cron(0 * * * ? *)", "hourly"),
    unique=Unique(),
)


class GenerateContentAnalytics(Arguments):
    """`day` defaults to the day before the one on which the task was sent, however late it runs."""

    day: Day | None = None


class AnalyticsReport(SweepReport):
    """The sweep, its day, and the HTML report's key in the archive bucket."""

    day: str = ""
    report_key: str | None = None


generate_content_analytics = Task(
    name="generate_content_analytics",
    queue="analytics",
    arguments=GenerateContentAnalytics,
    part=parts.CountBucket | parts.CountUsers | parts.CountRows | parts.PublishDay,
    result=AnalyticsReport,
    summary="A day's posts, comments, active users, totals and most popular posts, kept per day.",
    time_limit=840,
    schedule=Schedule("cron(0 4 * * ? *)", "daily 04:00"),  # not unique: two firings that were held up count two days
)


class UpdatePostEngagementScores(Arguments):
    """No arguments."""


update_post_engagement_scores = Task(
    name="update_post_engagement_scores",
    queue="analytics",
    arguments=UpdatePostEngagementScores,
    part=parts.ScoreShard,
    result=SweepReport,
    summary="Recomputes engagement_score and feed_rank of the posts whose counters moved.",
    time_limit=840,
    schedule=Schedule("cron(0 5 * * ? *)", "daily 05:00"),
    unique=Unique(),
)


class CleanupExpiredTokens(Arguments):
    """`sweep` reads every token and session to find expired ones; without it TTL is trusted, unless a sample shows that
    it is behind."""

    sweep: bool = False


class TokensReport(SweepReport):
    """The sweep: tokens and sessions deleted, and the inactive users whose last ones were deleted."""

    tokens: int = 0
    sessions: int = 0
    signed_out: int = 0


cleanup_expired_tokens = Task(
    name="cleanup_expired_tokens",
    queue="maintenance",
    arguments=CleanupExpiredTokens,
    part=parts.CleanUp,
    result=TokensReport,
    summary="Deletes expired refresh tokens, and the sessions and tokens of users inactive for 30 days.",
    time_limit=840,
    schedule=Schedule("cron(0 2 * * ? *)", "daily 02:00"),
    unique=Unique(),
)


class CleanupOldPosts(Arguments):
    """`mode` is review (count and list only), archive (move to S3) or restore (bring `post_ids` back).

    `since` is the first day to examine; by default where the last archiving stopped.
    """

    mode: Literal["review", "archive", "restore"] = "review"
    post_ids: tuple[str, ...] = Field(default=(), max_length=1000)
    since: Day | None = None


class OldPostsReport(SweepReport):
    """The sweep: `eligible` posts were old and quiet; `archived` and `restored` count what was done with them.

    `examples` are up to twenty eligible posts; `objects` up to twenty archive objects that were written.
    """

    eligible: int = 0
    archived: int = 0
    restored: int = 0
    examples: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()


cleanup_old_posts = Task(
    name="cleanup_old_posts",
    queue="maintenance",
    arguments=CleanupOldPosts,
    part=parts.ReviewDays | parts.ReviewShard | parts.RaiseWatermark,
    result=OldPostsReport,
    summary="Reviews posts older than a year without engagement; archives them on request.",
    time_limit=840,
    schedule=Schedule("cron(0 1 ? * SUN *)", "Sunday 01:00"),
    unique=Unique(),
)


NO_SLASH = "^[^/]+$"
"""Ids are folders of the buckets: one with a slash would be a place in another user's or post's."""


class EraseUserData(Arguments):
    """The user whose data to erase; with `post_id`, only that post of theirs.

    `again` sends the task again after 15 minutes, with `again` false, when work in progress at the deletion has ended.
    That second pass leaves a user or post that exists alone: it was made again under the same id. With `remains`, the
    first pass does so too.
    """

    user_id: str = Field(min_length=1, max_length=128, pattern=NO_SLASH)
    post_id: str | None = Field(default=None, min_length=1, max_length=128, pattern=NO_SLASH)
    again: bool = True
    remains: bool = False


KEPT_AFTER_ERASURE = (
    "counters: likes, shares, views and the days' figures are numbers that identify no one",
    "hashtags: votes name no user and expire after 14 days; a tag that has trended stays in its table",
    "run records, queues, dead letters: expire (RunRetentionDays, 4 days, 14 days) and show what was done",
    "logs: expire (LogRetentionDays; S3's access logs: their bucket's rules), and have ids but no mail address or text",
    "partial sums of jobs: ids and numbers, which expire after 2 and 3 days",
    "editions of the digest: expire 17 days after their week",
    "the mail ledger and notifications of others: name deleted posts, and expire after 90 days",
    "SES's suppression list: addresses that bounced or complained, so that they get no more mail",
    "backups: point-in-time recovery keeps 35 days; after a restore, erase again",
)
"""What erase_user_data keeps, and why."""


class ErasureReport(SweepReport):
    """`erased` counts rows and objects (each version separately) by kind; `kept` lists what remains, and why.

    `reason` says why nothing was erased.
    """

    erased: Mapping[str, int] = Field(default_factory=dict)
    kept: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def shortfall(self) -> str | None:
        return self.reason


erase_user_data = Task(
    name="erase_user_data",
    queue="maintenance",
    arguments=EraseUserData,
    part=parts.EraseShare | parts.LookAgain,
    result=ErasureReport,
    summary="Erases a user, or one post, from every table, bucket and archive.",
    time_limit=840,
)

# --- default ---------------------------------------------------------------------------------------------------


class SendNotification(Arguments):
    """The recipient and the event; `kind` is the application's, `link` the page to open, `actor_id` who caused it.

    An `actor_id` must be a user. Nothing is written if either user is missing on the first attempt and a minute later.
    """

    user_id: str = Field(min_length=1, max_length=128)
    kind: str = Field(min_length=1, max_length=40)
    text: str = Field(min_length=1, max_length=1000)
    link: Link | None = None
    actor_id: str | None = Field(default=None, min_length=1, max_length=128)


class NotificationSent(Result):
    """The id of the notification, or the reason why there is none."""

    notification_id: str | None = None
    reason: str | None = None

    @property
    def shortfall(self) -> str | None:
        return self.reason


send_notification = Task(
    name="send_notification",
    queue="default",
    arguments=SendNotification,
    result=NotificationSent,
    summary="Creates an in-app notification for one user.",
    time_limit=20,
)

register(__name__)
