"""send_content_digest_email: the week's top posts, personalised for each user active in the last 7 days who wants them.

1. The run asks SES for its rate, and has each shard of the week's feed ranked. Then it makes the week's edition
   (digest.edition.py) once, and plans segments of the users.
2. A segment scans its users, and for each active one: reads whom they follow, ranks their edition, renders, waits
   for the common rate, claims the mail in the ledger, sends, settles. If time runs out, a new invocation continues.

Each user gets at most one mail per ISO week, even if runs are delivered twice, overlap or are redriven: the ledger's
conditional write comes before SES. Throttling slows a segment down, but no user is skipped.
"""

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING

import digest.edition
from mail import delivery, languages, rendering
from mail.address import BadAddress, checked_address
from mail.delivery import CannotSend, Outcome, Pace, SlowDown
from mail.rendering import Mail, Story, TemplateFault
from mail.settings import MailSettings, mail_settings
from nexus import clock
from nexus.aws.rows import BadRow
from nexus.aws.table import Meter
from nexus.errors import Reject, Retry
from nexus.worker import Continuation, Run, handler_for, implements, implements_part
from social import catalogue, scratch
from social.catalogue import DigestReport, SendContentDigestEmail
from social.data import days, follows, mail_ledger, objects, posts, users
from social.data.mail_ledger import Entry
from social.data.users import User
from social.parts import DigestEdition, DigestPart, DigestSegment, DigestShard
from social.weeks import monday_of, week_of, weeks_before

if TYPE_CHECKING:
    from digest.edition import Edition
    from nexus.aws.dynamodb import Row

DAYS = 7
FOLLOWS_READ = 2_000
"""The most follows read per reader: bounds the cost of a reader who follows everyone."""

THREADS = 8
SENDERS = 8
"""Concurrent segments: the emails queue's MaximumConcurrency (template.yaml)."""

SEGMENT_SECONDS = 400.0
"""A segment's planned duration: half of what its ten continuations allow."""

MAX_SEGMENTS = 2_000

TIME_TO_PUBLISH = 30.0
"""Seconds reserved in an invocation that makes the edition: its longest step takes 9, and uploading 900 MB takes 13
(bench/mail/largest.py)."""

READERS_AT_ONCE = 100
REFUSED_IN_A_ROW = 5 * THREADS
"""This many consecutive refusals end the invocation: SES accepts nothing at the moment."""

LONGEST_PAUSE = 8.0
"""The most seconds that one mail waits after a refusal."""

LOST_IN_A_ROW = 5
"""This many consecutive mails without a response count as an outage: the segment stops before it loses more."""

LATEST = 3 * 86_400
"""Seconds after its planning within which an edition is still made: a shard that is redriven later must not mail last
week's posts to everybody."""

OVERLAP = 3_600
"""Seconds of overlap between two weeks' digests that are ignored: schedules jitter."""


@implements(catalogue.send_content_digest_email)
def send_content_digest_email(args: SendContentDigestEmail, run: Run) -> DigestReport | Continuation:
    """Has each shard of the feed ranked, then the edition made. Raises Reject if nothing can be sent."""
    now = _now()
    late = now - run.sent_at > LATEST  # delayed by its sender, or a dead letter that was sent again
    week = args.week or week_of(now if late else run.sent_at)
    since, until = span(week, now)
    mail_settings()  # reports a misconfigured deployment once, not per segment
    try:
        per_second = delivery.send_rate()
    except CannotSend as error:
        raise Reject(str(error)) from error
    except SlowDown as error:
        raise Retry(str(error)) from error
    edition = f"{digest.edition.FOLDER}/{week}/{until}-{run.id}.sqlite"
    then = DigestEdition(week=week, edition=edition, since=since, until=until, per_second=per_second, planned_at=now)
    shards = [DigestShard(**dict(then), shard=shard) for shard in range(posts.FEED_SHARDS)]
    return run.fan_out(shards, then=then)


@implements_part(catalogue.send_content_digest_email)
def part(args: DigestShard | DigestEdition | DigestSegment, run: Run) -> DigestReport | Continuation:
    """Ranks one shard, makes the edition of all, or sends to one segment of the users."""
    match args:
        case DigestShard():
            return rank_shard(args, run)
        case DigestEdition():
            return make_edition(args, run)
        case DigestSegment():
            return Segment(args.week, args.part, run).send()


def rank_shard(args: DigestShard, run: Run) -> DigestReport | Continuation:
    """Publishes one shard's posts that may be in the edition. Raises Reject if that is too late."""
    _check_in_time(args)
    path, key = _in_progress(run), _shard(args.edition, args.shard)
    complete = digest.edition.rank_shard(path, args.shard, args.since, args.until, stop=_ends_soon(run))
    digest.edition.publish(path, key)
    return DigestReport(week=args.week) if complete else run.continue_from({"file": key})


def make_edition(args: DigestEdition, run: Run) -> DigestReport | Continuation:
    """Makes and publishes the edition, and splits the users into segments; without posts, no user is read.

    Raises Reject if that is too late.
    """
    _check_in_time(args)
    path, key = _in_progress(run), args.edition
    shards = [_shard(key, shard) for shard in range(posts.FEED_SHARDS)]
    complete = digest.edition.build(path, shards, stop=_ends_soon(run))
    digest.edition.publish(path, key)
    if not complete:
        return run.continue_from({"file": key})
    held = digest.edition.held(path)
    if not held:
        return DigestReport(week=args.week, left_out=digest.edition.left_out(path))
    total = segments(users.TABLE.size()[0], args.per_second)
    run.logger.info("digest planned", week=args.week, posts=held, segments=total, per_second=args.per_second)
    one = DigestPart(
        edition=key,
        since=args.since,
        until=args.until,
        overlaps=overlapping(args.week, args.since, args.until),
        segment=0,
        total=total,
        per_second=args.per_second,
    )
    parts = [one.model_copy(update={"segment": number}) for number in range(total)]
    return run.fan_out([DigestSegment(week=args.week, part=one) for one in parts])


def _check_in_time(args: DigestEdition) -> None:
    if _now() - args.planned_at > LATEST:
        planned = clock.date(args.planned_at).isoformat(timespec="minutes")
        raise Reject(f"planned on {planned}, too long ago: send the task again for {args.week}")


def _shard(edition: str, shard: int) -> str:
    return f"{edition.removesuffix('.sqlite')}.{shard}.sqlite"


def _ends_soon(run: Run) -> Callable[[], bool]:
    return lambda: run.remaining < TIME_TO_PUBLISH


def _in_progress(run: Run) -> Path:
    """The file as an earlier invocation left it; none at the beginning."""
    close_editions()
    path = _path()
    path.unlink(missing_ok=True)
    if run.cursor:
        digest.edition.fetch(run.cursor["file"], path)
    return path


def overlapping(week: str, since: int, until: int) -> str | None:
    """The weeks before and after, separated by spaces, that have an edition with some of the same days as this one.

    On the weekly schedule there is none, and no other mails need to be looked up.
    """
    weeks = [other for other in (weeks_before(week), weeks_before(week, -1)) if _shares_days(other, since, until)]
    return " ".join(weeks) or None


def _shares_days(week: str, since: int, until: int) -> bool:
    ends = [_until_of(key) for key in objects.keys("archive", f"{digest.edition.FOLDER}/{week}/")]
    return any(since + OVERLAP < end < until - OVERLAP + DAYS * days.DAY_SECONDS for end in ends)


def _until_of(key: str) -> int:
    return int(key.rpartition("/")[2].partition("-")[0])


def segments(people: int, per_second: float) -> int:
    """The number of segments for which each takes about SEGMENT_SECONDS at SES's rate."""
    one = per_second / SENDERS * SEGMENT_SECONDS
    return max(1, min(MAX_SEGMENTS, round(people / one + 0.5)))


def span(week: str, now: int) -> tuple[int, int]:
    """(since, until) of a week's posts: seven days, up to now, or to the week's end if that is past.

    Raises Reject for a week that has not begun.
    """
    monday = monday_of(week)
    if days.start_of(monday.isoformat()) > now:
        raise Reject(f"{week} has not begun")
    until = min(now, days.start_of((monday + timedelta(days=DAYS)).isoformat()))
    return until - DAYS * days.DAY_SECONDS, until


# --- a segment -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What a segment has done in this invocation; added to earlier ones' counts."""

    before: DigestReport
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    left_out: Mapping[str, int] = field(default_factory=dict)
    throttled: int = 0
    meter: Meter = field(default_factory=Meter)
    started: float = field(default_factory=time.monotonic)

    def count(self, outcome: Outcome) -> None:
        self.outcomes[outcome.outcome, outcome.reason or ""] += 1

    def report(self) -> DigestReport:
        def by_reason(wanted: str) -> Mapping[str, int]:
            return {reason: count for (outcome, reason), count in self.outcomes.items() if outcome == wanted}

        now = DigestReport(
            week=self.before.week,
            considered=self.outcomes.total(),
            sent=sum(by_reason("sent").values()),
            skipped=by_reason("skipped"),
            unknown=sum(by_reason("unknown").values()),
            failed=by_reason("failed"),
            left_out=self.left_out,
            throttled=self.throttled,
            requests=self.meter.requests,
            read_units=round(self.meter.read_units, 1),
            write_units=round(self.meter.write_units, 1),
            seconds=round(time.monotonic() - self.started, 3),
        )
        return self.before.add(now)


@dataclass(frozen=True, slots=True)
class Addressee:
    """An active user to mail, with an address that SES accepts, and their stories."""

    user: User
    address: str
    stories: Sequence[Story]


class Segment:
    """One segment of the users, in one invocation."""

    def __init__(self, week: str, part: DigestPart, run: Run) -> None:
        self._part, self._run = part, run
        self._mailing = mail_ledger.digest(week)
        # The ledger treats a fan-out's segments as one run: what an earlier attempt sent counts as sent.
        self._run_id = run.parent or run.id
        self._until = part.until
        cursor = run.cursor or {}
        before = cursor.get("report")
        self._start: Row | None = cursor.get("start")
        self._tally = Tally(DigestReport.model_validate(before) if before else DigestReport(week=week))
        self._settings: MailSettings = mail_settings()
        self._pace: Pace = delivery.pace(part.per_second)
        self._look_up = True
        self._refused = self._lost = 0  # in a row
        self._stop = False
        # SES's last refusal, unless it has accepted a mail since.
        self._trouble: SlowDown | None = None
        self._cannot: CannotSend | None = None
        self._lock = threading.Lock()

    def send(self) -> DigestReport | Continuation:
        """Sends to the segment's users, starting where the last invocation stopped."""
        edition = _edition(self._part.edition)
        if self._part.segment == 0 and not self._run.cursor:  # once a run
            self._tally.left_out = edition.left_out
        for page in self._pages():
            for some in batched(page.users, READERS_AT_ONCE, strict=False):
                stopped_at = self._send_to(some, edition)
                if stopped_at is not None:
                    return self._stopped(some, stopped_at)
                self._start = _place_of(some[-1])
            self._start = page.next_key
        return self._tally.report()

    def _pages(self) -> Iterator[users.Sweep]:
        part = self._part
        since = days.day_of(part.since)
        return users.sweep_active(
            since, segment=part.segment, total=part.total, start=self._start, meter=self._tally.meter
        )

    def _stopped(self, some: Sequence[User | BadRow], at: int) -> Continuation:
        """Continues from the first unhandled user, or backs off if there was no progress."""
        if at > 0:
            self._start = _place_of(some[at - 1])
        cursor = {"start": self._start, "report": self._tally.report().model_dump(mode="json")}
        if self._trouble is not None and (self._trouble.quota or self._tally.outcomes["sent", ""] == 0):
            # Continuations start at once and are limited. A retry counts what was sent as sent again.
            raise Retry(str(self._trouble), after=delivery.QUOTA_WAIT if self._trouble.quota else None)
        return self._run.continue_from(cursor)

    def _send_to(self, some: Sequence[User | BadRow], edition: "Edition") -> int | None:
        """Handles these users. Returns the index of the first unhandled one if time ran out or SES fails, else None.

        This thread reads the edition; THREADS others wait for claims and SES. Users handled after the first unhandled
        one come again; the ledger then says that they were handled, so they are counted once.
        """
        readers = [user.user_id for user in some if isinstance(user, User)]
        already, known = self._already_sent(readers), self._in_the_ledger(readers)
        outcomes: list[Outcome | None] = [None] * len(some)
        waiting: dict[Future[Outcome | None], int] = {}
        with ThreadPoolExecutor(THREADS) as pool:
            for place, user in enumerate(some):
                while len(waiting) >= 2 * THREADS:
                    _collect(waiting, outcomes, FIRST_COMPLETED)
                if self._must_stop():
                    break
                ready = self._prepare(user, edition, already, known)
                if isinstance(ready, Outcome):
                    outcomes[place] = ready
                else:
                    waiting[pool.submit(self._deliver, ready)] = place
            _collect(waiting, outcomes, ALL_COMPLETED)
        if self._cannot is not None:
            raise Reject(str(self._cannot)) from self._cannot
        for place, outcome in enumerate(outcomes):
            if outcome is None:
                return place
            self._tally.count(outcome)
        return None

    def _must_stop(self) -> bool:
        return self._run.short_of_time or self._stop or self._cannot is not None

    def _already_sent(self, readers: Sequence[str]) -> Mapping[str, frozenset[str]]:
        """The posts that overlapping weeks' mails showed them."""
        found: dict[str, frozenset[str]] = {}
        for week in (self._part.overlaps or "").split():
            mailing = mail_ledger.digest(week)
            for user_id, entry in mail_ledger.get_many(mailing, readers, meter=self._tally.meter).items():
                found[user_id] = found.get(user_id, frozenset()) | set(entry.posts)
        return found

    def _in_the_ledger(self, readers: Sequence[str]) -> Mapping[str, Entry]:
        """The mails of this week that an earlier attempt, or another run, has sent.

        Without this they would wait for SES's rate, and a segment that is sent again would get no further than before.
        Once there are none, the rest are looked up only if a claim finds one after all.
        """
        if not self._look_up:
            return {}
        known = mail_ledger.get_many(self._mailing, readers, meter=self._tally.meter)
        self._look_up = bool(known)
        return {user_id: entry for user_id, entry in known.items() if entry.status == "sent"}

    def _prepare(
        self,
        user: User | BadRow,
        edition: "Edition",
        already_sent: Mapping[str, frozenset[str]],
        known: Mapping[str, Entry],
    ) -> Addressee | Outcome:
        """The mail to send, or the reason not to."""
        if isinstance(user, BadRow):
            self._run.logger.warning("bad row skipped", key=user.key[:200], reason=user.reason[:200])
            return Outcome("failed", "unreadable user")
        if user.suppressed:
            return Outcome("skipped", f"suppressed: {user.suppressed}")
        if not user.digest:
            return Outcome("skipped", "does not want it")
        try:
            address = checked_address(user.email)
        except BadAddress:
            return Outcome("skipped", "the address cannot be mailed")
        if entry := known.get(user.user_id):
            return delivery.earlier_outcome(entry, self._run_id)
        followed = follows.followed_by(user.user_id, limit=FOLLOWS_READ, meter=self._tally.meter)
        seen = already_sent.get(user.user_id, frozenset())
        stories = edition.stories_for(user.user_id, followed, seen, meter=self._tally.meter)
        if not stories:
            return Outcome("skipped", "nothing new")
        return Addressee(user, address, stories)

    def _deliver(self, to: Addressee) -> Outcome | None:
        """Renders and sends one mail. Returns None if it was not sent and the next invocation must retry."""
        user = to.user
        link = delivery.unsubscribe_url(user.user_id, self._settings)
        try:
            mail = self._rendered(to, link)
        except TemplateFault as error:
            self._run.logger.warning("digest not rendered", user_id=user.user_id, reason=str(error)[:300])
            return Outcome("failed", "template")
        tried = 0
        while not self._must_stop() and self._pace.wait(self._run.remaining - delivery.LONGEST_SEND):
            try:
                outcome = delivery.deliver(
                    mail,
                    to.address,
                    user.user_id,
                    self._mailing,
                    self._settings,
                    run_id=self._run_id,
                    unsubscribe_url=link,
                    posts=[story.post_id for story in to.stories],
                    meter=self._tally.meter,
                )
            except CannotSend as error:
                self._cannot = error
                return None
            except SlowDown as error:
                self._slowed(error, tried)
                tried += 1
            else:
                self._note(outcome)
                return outcome
        return None

    def _rendered(self, to: Addressee, link: str) -> Mail:
        first, last = digest.edition.days_named(self._until)
        return rendering.digest(
            languages.choose(to.user.locale),
            self._settings,
            name=to.user.name,
            stories=to.stories,
            first_day=first,
            last_day=last,
            unsubscribe_url=link,
        )

    def _slowed(self, error: SlowDown, tried: int) -> None:
        """Waits within the invocation, longer each time. Ends it at the daily quota, or if SES accepts nothing."""
        with self._lock:
            self._tally.throttled += 1
            self._refused += 1
            if not self._stop:
                self._trouble = error
                self._stop = error.quota or self._refused >= REFUSED_IN_A_ROW
        if not self._stop:
            most = min(0.5 * 2.0**tried, LONGEST_PAUSE, max(0.0, self._run.remaining - delivery.LONGEST_SEND))
            _pause(random.uniform(0.0, most))  # noqa: S311 - jitter

    def _note(self, outcome: Outcome) -> None:
        with self._lock:
            self._look_up = self._look_up or outcome.earlier
            if outcome.lost:
                self._lost += 1
            elif outcome.outcome == "sent" and not outcome.earlier and not self._stop:
                self._refused, self._lost, self._trouble = 0, 0, None
            if self._lost >= LOST_IN_A_ROW and not self._stop:
                self._stop = True
                self._trouble = SlowDown(f"{self._lost} mails in a row without a response: {outcome.reason}")


def _place_of(user: User | BadRow) -> "Row":
    return {"user_id": {"S": user.user_id if isinstance(user, User) else user.key}}


def _collect(waiting: dict[Future[Outcome | None], int], outcomes: list[Outcome | None], until: str) -> None:
    """Waits for one of the futures, or all, and stores their outcomes. Raises what they raised."""
    for future in wait(waiting, return_when=until).done:
        outcomes[waiting.pop(future)] = future.result()


def _now() -> int:
    return int(clock.now())


def _pause(seconds: float) -> None:
    """Sleeps between two tries; tests replace it."""
    time.sleep(seconds)


@lru_cache(maxsize=1)
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return scratch.folder()


def _path() -> Path:
    """The file of this sandbox's only edition, being made or open."""
    return Path(_temporary().name) / "edition.sqlite"


_opened: dict[str, "Edition"] = {}


def _edition(key: str) -> "Edition":
    """The edition, downloaded once per sandbox; replaces the previous one."""
    if key not in _opened:
        close_editions()
        digest.edition.fetch(key, _path())
        _opened[key] = digest.edition.open_edition(_path())
    return _opened[key]


def close_editions() -> None:
    """Closes the open edition."""
    for edition in _opened.values():
        edition.database.close()
    _opened.clear()


handler = handler_for(send_content_digest_email)
