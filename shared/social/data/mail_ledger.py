"""The mail ledger: one item per mail to a user, written before it is sent, so that no mail is sent twice.

An item begins as `unknown`: the mail is about to be passed to SES, which may or may not accept it. SES's response makes
it `sent`, or removes it if SES has certainly not accepted the mail. After a crash it stays `unknown`, and a person
decides.

The key is the mailing, its period and a shard of the users, so one week's mails are read without others and a
million of them spread over SHARDS partitions: welcome#-#07, digest#2026-W47#03.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from nexus.aws.dynamodb import Condition, Row, Value, Write, to_item
from nexus.aws.rows import key_of, read_count, read_text, read_texts
from nexus.aws.table import Meter, Page, Table
from social.data import days
from social.weeks import monday_of, week_of

TABLE = Table("mail-ledger", ("mailing", "user_id"))
SHARDS = 16
KEPT_DAYS = 90

type Status = Literal["unknown", "sent"]


@dataclass(frozen=True, slots=True)
class Mailing:
    """A mailing sent at most once to a user: a kind of mail and its period (an ISO week, or `-` for a mail sent once
    per user).
    """

    kind: Literal["welcome", "digest"]
    period: str = "-"
    forever: bool = False

    def partition(self, user_id: str) -> str:
        return self.shard(days.shard_of(user_id, SHARDS))

    def shard(self, number: int) -> str:
        return f"{self.kind}#{self.period}#{number:02}"


WELCOME = Mailing("welcome", forever=True)


def digest(week: str) -> Mailing:
    """The digest of an ISO week such as 2026-W47."""
    return Mailing("digest", week)


@dataclass(frozen=True, slots=True)
class Entry:
    """One mail: `run_id` is the run that claimed it, `posts` those that it shows, times are seconds since 1970."""

    kind: str
    period: str
    user_id: str
    status: Status
    run_id: str
    token: str
    claimed_at: int
    sent_at: int | None = None
    message_id: str | None = None
    posts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to send one mail, once. Ended by `sent` or `released`; otherwise the mail stays unknown."""

    mailing: Mailing
    user_id: str
    token: str

    def sent(self, message_id: str, now: int, *, meter: Meter | None = None) -> bool:
        """SES has accepted the mail. False if a person has decided otherwise meanwhile."""
        values: dict[str, Value] = {"status": "sent", "sent_at": now, "message_id": message_id}
        if not self.mailing.forever:
            values["expires_at"] = now + KEPT_DAYS * days.DAY_SECONDS
        return TABLE.update(
            Write(_key(self.mailing, self.user_id), set=values, when=(Condition("token", "=", self.token),)),
            meter=meter,
        )

    def released(self, *, meter: Meter | None = None) -> bool:
        """SES has certainly not accepted the mail: it may be claimed again."""
        return TABLE.delete(_key(self.mailing, self.user_id), when=(Condition("token", "=", self.token),), meter=meter)


def claim(
    mailing: Mailing, user_id: str, run_id: str, now: int, posts: Sequence[str] = (), *, meter: Meter | None = None
) -> Claim | Entry:
    """Claims a mail before it is sent. Returns the Claim, or the existing Entry that prevents it."""
    token = uuid.uuid4().hex
    values: dict[str, Value] = {
        **_key(mailing, user_id),
        "status": "unknown",
        "run_id": run_id,
        "token": token,
        "claimed_at": now,
        "posts": list(posts),
    }
    existing = TABLE.insert(values, meter=meter)
    return Claim(mailing, user_id, token) if existing is None else read(to_item(existing))


def get(mailing: Mailing, user_id: str, *, meter: Meter | None = None) -> Entry | None:
    """The entry of a mail, read consistently, or None."""
    item = TABLE.get(_key(mailing, user_id), consistent=True, meter=meter)
    return None if item is None else read(item)


def get_many(mailing: Mailing, user_ids: Sequence[str], *, meter: Meter | None = None) -> Mapping[str, Entry]:
    """The entries of a mailing's mails to these users, by user."""
    keys = [_key(mailing, user_id) for user_id in user_ids]
    return {entry.user_id: entry for entry in map(read, TABLE.get_many(keys, meter=meter))}


def unknown(mailing: Mailing, shard: int, *, start: Row | None = None) -> Page:
    """The page of a shard's unknown mails that begins at `start`. DynamoDB reads the others too: 4,000 mails a page."""
    return next(TABLE.query(mailing.shard(shard), having=("status", "unknown"), start=start))


def decide(mailing: Mailing, user_id: str, was_sent: bool, now: int) -> bool:
    """A person's decision on an unknown mail: it was sent, or it was not and may be. False if it is not unknown."""
    entry = get(mailing, user_id)
    if entry is None or entry.status != "unknown":
        return False
    held = Claim(mailing, user_id, entry.token)
    return held.sent("decided by a person", now) if was_sent else held.released()


def erase(user_id: str, now: float, *, meter: Meter | None = None) -> int:
    """Removes all entries of mails to a user. Returns the number of mailings covered.

    These are the welcome and every week's digest since FIRST_DAY, with or without an entry: 52 write units a year.
    """
    first, last = monday_of(week_of(days.start_of(days.FIRST_DAY))), monday_of(week_of(now))
    weeks = [f"{first + timedelta(weeks=n):%G-W%V}" for n in range((last - first).days // 7 + 1)]
    keys = [_key(mailing, user_id) for mailing in (WELCOME, *map(digest, weeks))]
    return TABLE.delete_many(keys, meter=meter)


def forget(mailing: Mailing, user_id: str) -> None:
    """Removes the entry, as if the mail had never been sent: for a user who is removed."""
    TABLE.delete(_key(mailing, user_id))


def read(item: Row) -> Entry:
    """Parses the entry in an item. Raises BadRow."""
    key = key_of(item, "mailing", "user_id")
    kind, period, _ = read_text(item, "mailing", key).split("#")
    return Entry(
        kind=kind,
        period=period,
        user_id=read_text(item, "user_id", key),
        status="sent" if read_text(item, "status", key) == "sent" else "unknown",
        run_id=read_text(item, "run_id", key),
        token=read_text(item, "token", key),
        claimed_at=read_count(item, "claimed_at", key),
        sent_at=read_count(item, "sent_at", key) if "sent_at" in item else None,
        message_id=read_text(item, "message_id", key, default="") or None,
        posts=read_texts(item, "posts", key),
    )


def _key(mailing: Mailing, user_id: str) -> dict[str, str]:
    return {"mailing": mailing.partition(user_id), "user_id": user_id}
