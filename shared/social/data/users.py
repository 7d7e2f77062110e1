"""Users: one item per person, with the profile, the counts that the nightly job writes, and the days of activity.

Activity is stored by day: `last_active_day`, and `active_days`, a number whose bit i says "active i days before that".
It is written once per user and day, fits in eleven digits, and shows exactly who was active on each of the last
ACTIVITY_DAYS days, even after later visits. Scanning all users costs a fiftieth of keeping an index by day.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nexus.aws.dynamodb import Condition, Row, Value, Write, unchanged
from nexus.aws.rows import BadRow, key_of, read_count, read_flag, read_text
from nexus.aws.table import Meter, Page, Table
from social.data import days

BY_EMAIL = "by-email"
TABLE = Table("users", ("user_id",), {BY_EMAIL: ("email",)})
ACTIVITY_DAYS = 36
SUPPRESSED_BY_FEEDBACK = ("bounce", "complaint")
"""The reasons that record_mail_feedback gives."""

NEVER_COUNTED = 0
LATE = 60.0
"""Seconds after which a task looks an unknown user up again: a mirrored row may arrive after a message about it."""


@dataclass(frozen=True, slots=True)
class User:
    """A user as the jobs see them.

    `digest` is whether the user wants the weekly digest; `suppressed` the reason why they may get no more mail
    ("bounce", "complaint", ...), None if there is none; `locale` a BCP 47 tag such as fr or en-GB. `last_active_day` is
    the UTC day of the latest activity; `created_at` seconds since 1970.
    """

    user_id: str
    email: str
    name: str
    created_at: int
    last_active_day: str
    locale: str = "en"
    digest: bool = True
    suppressed: str | None = None
    active_days: int = 1
    followers_count: int = 0
    following_count: int = 0
    posts_count: int = 0

    def active_since(self, day: str) -> bool:
        """Whether the user was active on that day or later."""
        return self.last_active_day >= day


PROFILE = ("user_id", "email", "name", "locale", "digest", "suppressed", "created_at", "last_active_day", "active_days")
COUNTS = ("followers_count", "following_count", "posts_count")


def get(user_id: str, *, consistent: bool = False, meter: Meter | None = None) -> User | None:
    """The user, or None. Raises BadRow if the item cannot be read."""
    item = TABLE.get({"user_id": user_id}, attributes=(*PROFILE, *COUNTS), consistent=consistent, meter=meter)
    return None if item is None else read(item)


def exists(user_id: str, *, meter: Meter | None = None) -> bool:
    """Whether the user exists, read consistently."""
    return TABLE.get({"user_id": user_id}, attributes=("user_id",), consistent=True, meter=meter) is not None


def get_many(user_ids: Sequence[str], *, meter: Meter | None = None, threads: int = 1) -> Iterator[User | BadRow]:
    """The existing users among these, in no particular order; a row that cannot be read becomes its BadRow."""
    keys = [{"user_id": user_id} for user_id in dict.fromkeys(user_ids)]
    for item in TABLE.get_many(keys, attributes=(*PROFILE, *COUNTS), meter=meter, threads=threads):
        yield _read_or_bad(item)


def by_email(email: str, *, meter: Meter | None = None) -> list[str]:
    """The ids of the users with this address, case-insensitively; more than one only if the application allowed it."""
    pages = TABLE.query(normal_email(email), index=BY_EMAIL, attributes=("user_id",), meter=meter)
    return [item["user_id"]["S"] for page in pages for item in page.items]


@dataclass(frozen=True, slots=True)
class Sweep:
    """One page of a sweep over the users, in order, with rows that cannot be read; and where to continue."""

    users: Sequence[User | BadRow]
    next_key: Row | None


def sweep_active(
    since: str, *, segment: int = 0, total: int = 1, start: Row | None = None, meter: Meter | None = None
) -> Iterator[Sweep]:
    """The users active on the day `since` or later, of one segment of a parallel scan, a page (1 MB of items) at a
    time.

    A million users of 210 bytes are 26,000 read units, a third of a cent. `start` is a `next_key` from an earlier page.
    """
    attributes = (*PROFILE, *COUNTS)
    for page in TABLE.scan(segment=segment, total=total, attributes=attributes, start=start, meter=meter):
        rows = map(_read_or_bad, page.items)
        yield Sweep([row for row in rows if isinstance(row, BadRow) or row.active_since(since)], page.next_key)


def scan(
    attributes: Sequence[str],
    *,
    segment: int = 0,
    total: int = 1,
    start: Row | None = None,
    meter: Meter | None = None,
) -> Iterator[Page]:
    """One segment of a scan over all users, as raw items of only the named attributes."""
    yield from TABLE.scan(segment=segment, total=total, attributes=attributes, start=start, meter=meter)


def create(user: User, *, meter: Meter | None = None) -> bool:
    """Writes a new user; False if the id is taken."""
    return TABLE.insert(to_values(user), meter=meter) is None


def put_many(users: Sequence[User], *, meter: Meter | None = None, threads: int = 1) -> int:
    """Writes users unconditionally: for imports and demo data."""
    return TABLE.put_many([to_values(user) for user in users], meter=meter, threads=threads)


def suppress(user_id: str, reason: str, *, meter: Meter | None = None) -> bool:
    """Stops all mail to the user, for this reason (the first one is kept). False if the user does not exist."""
    change = Write(user_id, set={"suppressed": reason}, when=(Condition("suppressed", "missing"),))
    return TABLE.update(change, meter=meter) or exists(user_id, meter=meter)


def end_suppression(user_id: str, reason: str, *, meter: Meter | None = None) -> bool:
    """Allows mail to the user again, if it was stopped for this reason."""
    change = Write(user_id, remove=("suppressed",), when=(Condition("suppressed", "=", reason),))
    return TABLE.update(change, meter=meter)


def set_digest(user_id: str, wanted: bool, *, meter: Meter | None = None) -> bool:
    """Turns the weekly digest on or off; False if the user does not exist."""
    return TABLE.update(Write(user_id, set={"digest": wanted}), meter=meter)


def change(user_id: str, profile: Mapping[str, Value], *, meter: Meter | None = None) -> bool:
    """Sets attributes of the profile; one write, or two if the given address is the current one.

    A new address may receive mail even if the old one was suppressed. False if the user does not exist.
    """
    if "email" in profile:
        email = normal_email(str(profile["email"]))
        another = Condition("email", "missing or <>", email)
        moved = Write(user_id, set={**profile, "email": email}, remove=("suppressed",), when=(another,))
        if TABLE.update(moved, meter=meter):
            return True
    others = {name: value for name, value in profile.items() if name != "email"}
    return TABLE.update(Write(user_id, set=others), meter=meter) if others else exists(user_id, meter=meter)


def record_activity(user_id: str, day: str, *, meter: Meter | None = None) -> bool:
    """Records that the user was active on `day`; one read, and a write if it is the first activity of the day.

    A user who returns after a cleanup counts as signed in again. False if the user does not exist.
    """
    for _ in range(8):
        attributes = ("last_active_day", "active_days", "signed_out_at")
        item = TABLE.get({"user_id": user_id}, attributes=attributes, consistent=True, meter=meter)
        if item is None:
            return False
        seen = read_text(item, "last_active_day", user_id, default="")
        bits = read_count(item, "active_days", user_id, default=1)
        latest, merged = with_activity(seen, bits, day)
        if (latest, merged) == (seen, bits) and "signed_out_at" not in item:
            return True
        change = Write(
            {"user_id": user_id},
            set={"last_active_day": latest, "active_days": merged},
            remove=("signed_out_at",),
            when=unchanged(item, "last_active_day", "active_days"),
        )
        if TABLE.update(change, meter=meter):
            return True
    raise RuntimeError(f"user {user_id}: eight concurrent writers of one user's activity")


def refuse_tokens_before(user_id: str, second: int, *, meter: Meter | None = None) -> bool:
    """Voids access tokens issued before that second (`tokens_valid_from`). False if the user does not exist."""
    behind = Condition("tokens_valid_from", "missing or <", second)
    change = Write(user_id, set={"tokens_valid_from": second}, when=(behind,))
    return TABLE.update(change, meter=meter) or exists(user_id, meter=meter)


def accepts_tokens_of(second: int) -> tuple[Condition, ...]:
    """The conditions on a user that a token issued in that second has not been revoked."""
    return (Condition("tokens_valid_from", "missing or <=", second),)


def tokens_valid_from(user_id: str, *, meter: Meter | None = None) -> int | None:
    """The second before which the user's sessions and tokens are void, 0 for none; None if the user does not exist."""
    item = TABLE.get({"user_id": user_id}, attributes=("user_id", "tokens_valid_from"), consistent=True, meter=meter)
    return None if item is None else read_count(item, "tokens_valid_from", user_id, default=0)


def mark_signed_out(seen: Sequence[tuple[str, str]], *, at: int, meter: Meter | None = None) -> list[bool]:
    """Marks each user, seen as (id, last_active_day), as having no sessions or tokens left.

    False for a user who has been active since then, or has been deleted.
    """
    changes = [
        Write(
            {"user_id": user_id}, set={"signed_out_at": at}, when=(Condition("last_active_day", "=", last_active_day),)
        )
        for user_id, last_active_day in seen
    ]
    return TABLE.update_many(changes, meter=meter)


@dataclass(frozen=True, slots=True)
class Counts:
    """The nightly count's results, and the second at which the counting began."""

    user_id: str
    followers_count: int
    following_count: int
    posts_count: int
    counted_at: int


def set_counts(counts: Sequence[Counts], *, meter: Meter | None = None, threads: int = 1) -> list[bool]:
    """Writes each user's counts unless a count that began later has written; True where written."""
    written = TABLE.update_many(
        [_counted(one, Condition("counted_at", "<=", one.counted_at)) for one in counts], meter=meter, threads=threads
    )
    refused = [place for place, done in enumerate(written) if not done]
    if refused:  # a row from before the first count may lack counted_at, and the emulators' PartiQL has no OR
        never = [_counted(counts[place], Condition("counted_at", "missing")) for place in refused]
        for place, done in zip(refused, TABLE.update_many(never, meter=meter, threads=threads), strict=True):
            written[place] = done
    return written


def _counted(counts: Counts, unless_newer: Condition) -> Write:
    return Write(
        {"user_id": counts.user_id},
        set={
            "followers_count": counts.followers_count,
            "following_count": counts.following_count,
            "posts_count": counts.posts_count,
            "counted_at": counts.counted_at,
        },
        when=(unless_newer,),
    )


# --- rules -----------------------------------------------------------------------------------------------------------


def was_active(last_active_day: str, active_days: int, day: str) -> bool:
    """Whether bit `last_active_day - day` of the activity is set."""
    age = days.days_between(day, last_active_day)
    return 0 <= age < ACTIVITY_DAYS and bool(active_days >> age & 1)


def with_activity(last_active_day: str, active_days: int, day: str) -> tuple[str, int]:
    """The two activity attributes after activity on `day`, which may be before the latest day."""
    mask = (1 << ACTIVITY_DAYS) - 1
    if not last_active_day:
        return day, 1
    age = days.days_between(last_active_day, day)
    if age > 0:
        kept = active_days << age & mask if age < ACTIVITY_DAYS else 0
        return day, kept | 1
    return last_active_day, (active_days | (1 << -age)) & mask if -age < ACTIVITY_DAYS else active_days


def normal_email(email: str) -> str:
    """Normalises an address for storage and lookup."""
    return email.strip().lower()


def read(item: Row) -> User:
    """Parses the user in an item. Raises BadRow."""
    key = key_of(item, "user_id")
    last_active_day = read_text(item, "last_active_day", key)
    if len(last_active_day) != len("2024-01-01"):
        raise BadRow(key, "last_active_day is not a day")
    return User(
        user_id=read_text(item, "user_id", key),
        email=read_text(item, "email", key),
        name=read_text(item, "name", key, default=""),
        locale=read_text(item, "locale", key, default="en"),
        digest=read_flag(item, "digest", key, default=True),
        suppressed=read_text(item, "suppressed", key, default="") or None,
        created_at=read_count(item, "created_at", key),
        last_active_day=last_active_day,
        active_days=read_count(item, "active_days", key, default=1),
        followers_count=read_count(item, "followers_count", key, default=0),
        following_count=read_count(item, "following_count", key, default=0),
        posts_count=read_count(item, "posts_count", key, default=0),
    )


def to_values(user: User) -> Mapping[str, Value]:
    """The user's item. `counted_at` is 0 until the first count, so that the count's condition always has a number."""
    values: dict[str, Value] = {
        "user_id": user.user_id,
        "email": normal_email(user.email),
        "name": user.name,
        "locale": user.locale,
        "digest": user.digest,
        "created_at": user.created_at,
        "last_active_day": user.last_active_day,
        "active_days": user.active_days,
        "followers_count": user.followers_count,
        "following_count": user.following_count,
        "posts_count": user.posts_count,
        "counted_at": NEVER_COUNTED,
    }
    if user.suppressed:
        values["suppressed"] = user.suppressed
    return values


def _read_or_bad(item: Row) -> User | BadRow:
    try:
        return read(item)
    except BadRow as bad:
        return bad
