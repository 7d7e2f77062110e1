"""cleanup_expired_tokens: expired refresh tokens, and the sessions and tokens of users inactive for 30 days or more.

A user is inactive if not seen on any of the last 30 UTC days. One scan of the users finds them: once their sessions and
tokens are deleted they are marked as signed out, until the next login removes the mark. Every deletion is conditional
(last seen, or issued, before those 30 days), so a user who logs in meanwhile keeps the new ones.

DynamoDB's TTL removes expired rows (free, but up to days late; readers compare expires_at themselves). The job reads
the first page of each segment of tokens and sessions and deletes what has expired there; if that shows rows that TTL
should have removed long ago, or if asked to (`sweep`), it reads the whole segment.
"""

from collections.abc import Iterable, Sequence

from nexus import clock
from nexus.aws.dynamodb import Row
from nexus.aws.rows import BadRow, key_of, read_count, read_text
from nexus.aws.table import Table, in_threads
from nexus.worker import Continuation, Run, handler_for, implements, implements_part
from social import catalogue
from social.catalogue import CleanupExpiredTokens, TokensReport
from social.data import sessions, users
from social.data.days import DAY_SECONDS, add_days, day_of, start_of
from social.parts import CleanUp, ScanPart
from social.sweep import Tally, segments

INACTIVE_DAYS = 30
TTL_LAG = 2 * DAY_SECONDS
"""TTL deletes "within a few days" (Amazon DynamoDB Developer Guide, "Using time to live")."""

THREADS = 8
TABLES: dict[str, Table] = {"tokens": sessions.TOKENS, "sessions": sessions.SESSIONS}


@implements(catalogue.cleanup_expired_tokens)
def cleanup_expired_tokens(args: CleanupExpiredTokens, run: Run) -> TokensReport | Continuation:
    """Plans the scans."""
    now = int(clock.now())
    scans = [
        ScanPart(table=table.entity, segment=number, total=total)
        for table in (users.TABLE, *TABLES.values())
        for total in [segments(table)]
        for number in range(total)
    ]
    return run.fan_out([CleanUp(sweep=args.sweep, now=now, part=scan) for scan in scans])


@implements_part(catalogue.cleanup_expired_tokens)
def clean_up(args: CleanUp, run: Run) -> TokensReport | Continuation:
    """One segment of one table's scan."""
    if args.part.table == users.TABLE.entity:
        return sign_out_inactive(args.part, args.now, run)
    return delete_expired(args.part, args.now, args.sweep, run)


# --- inactive users --------------------------------------------------------------------------------------------------


def inactive_before(now: float) -> str:
    """The first of the last 30 days: a user last active before it is inactive."""
    return add_days(day_of(now), -INACTIVE_DAYS)


def sign_out_inactive(part: ScanPart, now: int, run: Run) -> TokensReport | Continuation:
    """Deletes the sessions and tokens of one segment's inactive users."""
    tally, cursor = Tally.resumed(run), run.cursor or {}
    done = _Deleted(cursor.get("deleted"))
    first_day = inactive_before(now)
    pages = users.scan(
        ("user_id", "last_active_day", "signed_out_at"),
        segment=part.segment,
        total=part.total,
        start=cursor.get("start"),
        meter=tally.meter,
    )
    for page in pages:
        tally.rows_read += page.scanned
        _sign_out(list(_inactive(page.items, first_day, tally)), first_day, now, tally, done)
        if run.short_of_time and page.next_key is not None:
            return run.continue_from(tally.cursor(start=page.next_key, deleted=done.numbers))
    return TokensReport(**tally.numbers(), **done.numbers)


class _Deleted:
    """The numbers of deleted tokens and sessions and of users signed out, with the run's earlier invocations."""

    def __init__(self, numbers: dict[str, int] | None) -> None:
        self.numbers = {"tokens": 0, "sessions": 0, "signed_out": 0} | (numbers or {})

    def add(self, kind: str, number: int) -> None:
        self.numbers[kind] += number


def _inactive(items: Iterable[Row], first_day: str, tally: Tally) -> Iterable[tuple[str, str]]:
    """(id, last_active_day) of inactive users who are not signed out yet."""
    for item in items:
        if "signed_out_at" in item:
            continue
        key = key_of(item, "user_id")
        try:
            last = read_text(item, "last_active_day", key)
            start_of(last)
        except BadRow as bad:
            tally.bad(bad)
        except ValueError:
            tally.bad(BadRow(key, "last_active_day is not a day"))
        else:
            if last < first_day:
                yield key, last


def _sign_out(inactive: Sequence[tuple[str, str]], first_day: str, now: int, tally: Tally, done: _Deleted) -> None:
    """Deletes, then marks: after a crash in between the user is found again."""
    before = start_of(first_day)
    ids = [user_id for user_id, _ in inactive]
    held = in_threads(lambda user_id: _held(user_id, tally), ids, THREADS)
    session_keys, token_keys = [], []
    for user_id, (session_ids, token_ids) in zip(ids, held, strict=True):
        session_keys += [(user_id, session_id) for session_id in session_ids]
        token_keys += [(user_id, token_id) for token_id in token_ids]
    ended = sessions.end_sessions(session_keys, seen_before=before, meter=tally.meter)
    revoked = sessions.revoke_tokens(token_keys, issued_before=before, meter=tally.meter)
    tally.written([*ended, *revoked])
    done.add("sessions", sum(ended))
    done.add("tokens", sum(revoked))
    keys, outcomes = [*session_keys, *token_keys], [*ended, *revoked]
    kept = {user_id for (user_id, _), gone in zip(keys, outcomes, strict=True) if not gone}
    marked = users.mark_signed_out([one for one in inactive if one[0] not in kept], at=now, meter=tally.meter)
    done.add("signed_out", sum(marked))


def _held(user_id: str, tally: Tally) -> tuple[list[str], list[str]]:
    return sessions.sessions_of(user_id, meter=tally.meter), sessions.tokens_of(user_id, meter=tally.meter)


# --- expired rows ----------------------------------------------------------------------------------------------------


def delete_expired(part: ScanPart, now: int, sweep: bool, run: Run) -> TokensReport | Continuation:
    """Deletes expired rows in the first page of a segment; in all of it if TTL is behind."""
    tally, cursor = Tally.resumed(run), run.cursor or {}
    table = TABLES[part.table]
    done = _Deleted(cursor.get("deleted"))
    behind = sweep or bool(cursor)
    pages = sessions.expiries(
        table, segment=part.segment, total=part.total, start=cursor.get("start"), meter=tally.meter
    )
    for page in pages:
        tally.rows_read += page.scanned
        expired, overdue = _expired(table, page.items, now, tally)
        deleted = sessions.delete_expired(table, expired, now=now, meter=tally.meter)
        tally.written(deleted)
        done.add(part.table, sum(deleted))
        if overdue and not behind:
            run.logger.warning("TTL is behind: sweeping", table=part.table, overdue=overdue)
        behind = behind or overdue > 0
        if not behind:
            break
        if run.short_of_time and page.next_key is not None:
            return run.continue_from(tally.cursor(start=page.next_key, deleted=done.numbers))
    return TokensReport(**tally.numbers(), **done.numbers)


def _expired(table: Table, items: Iterable[Row], now: int, tally: Tally) -> tuple[list[dict[str, str]], int]:
    """The keys of expired rows, and the number that TTL should have removed by now."""
    keys: list[dict[str, str]] = []
    overdue = 0
    for item in items:
        key = key_of(item, *table.key)
        try:
            expires_at = read_count(item, "expires_at", key)
        except BadRow as bad:
            tally.bad(bad)
            continue
        if expires_at <= now:
            keys.append({name: item[name]["S"] for name in table.key})
            overdue += expires_at <= now - TTL_LAG
    return keys, overdue


handler = handler_for(cleanup_expired_tokens)
