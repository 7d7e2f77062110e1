"""Sessions and refresh tokens: a table each, both under their user, both with a TTL that removes expired ones.

DynamoDB's TTL is free but late, by up to days; so every reader of a token compares `expires_at` (`is_valid`),
and a late removal is never a security problem.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from nexus.aws.dynamodb import Condition, Row
from nexus.aws.rows import key_of, read_count, read_text
from nexus.aws.table import Meter, Page, Table

SESSIONS = Table("sessions", ("user_id", "session_id"))
TOKENS = Table("tokens", ("user_id", "token_id"))


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in device. `last_seen_at` changes at most once a day; all times are seconds since 1970."""

    user_id: str
    session_id: str
    created_at: int
    last_seen_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Token:
    """A refresh token, identified by its JWT id, never its text. Rotation replaces it with a new one."""

    user_id: str
    token_id: str
    issued_at: int
    expires_at: int
    session_id: str = ""

    def is_valid(self, now: float) -> bool:
        """Whether it may still be used: TTL may not have removed it yet."""
        return self.expires_at > now


def put_sessions(sessions: Sequence[Session], *, meter: Meter | None = None, threads: int = 1) -> int:
    """Writes sessions."""
    return SESSIONS.put_many(map(asdict, sessions), meter=meter, threads=threads)


def put_tokens(tokens: Sequence[Token], *, meter: Meter | None = None, threads: int = 1) -> int:
    """Writes tokens."""
    return TOKENS.put_many(map(asdict, tokens), meter=meter, threads=threads)


def token(user_id: str, token_id: str, now: float, *, meter: Meter | None = None) -> Token | None:
    """The token if it may be used now; None if it is unknown, revoked or expired."""
    item = TOKENS.get({"user_id": user_id, "token_id": token_id}, consistent=True, meter=meter)
    if item is None:
        return None
    found = read_token(item)
    return found if found.is_valid(now) else None


def session(user_id: str, session_id: str, now: float, *, meter: Meter | None = None) -> Session | None:
    """The session if it is valid now; None if it is unknown, ended or expired."""
    item = SESSIONS.get({"user_id": user_id, "session_id": session_id}, consistent=True, meter=meter)
    if item is None:
        return None
    found = read_session(item)
    return found if found.expires_at > now else None


def end_session(user_id: str, session_id: str, *, meter: Meter | None = None) -> None:
    """Removes a session and its refresh tokens."""
    SESSIONS.delete({"user_id": user_id, "session_id": session_id}, meter=meter)
    while its := _tokens_of_session(user_id, session_id, meter):  # until none was rotated in the meantime
        TOKENS.delete_many([{"user_id": user_id, "token_id": token_id} for token_id in its], meter=meter)


def _tokens_of_session(user_id: str, session_id: str, meter: Meter | None) -> list[str]:
    pages = TOKENS.query(user_id, attributes=("token_id", "session_id"), consistent=True, meter=meter)
    return [item["token_id"]["S"] for page in pages for item in page.items if _is_of(item, session_id)]


def _is_of(token: Row, session_id: str) -> bool:
    return token.get("session_id") == {"S": session_id}


def sessions_of(user_id: str, *, meter: Meter | None = None) -> list[str]:
    """The ids of a user's sessions."""
    pages = SESSIONS.query(user_id, attributes=("session_id",), consistent=True, meter=meter)
    return [item["session_id"]["S"] for page in pages for item in page.items]


def tokens_of(user_id: str, *, meter: Meter | None = None) -> list[str]:
    """The ids of a user's tokens."""
    pages = TOKENS.query(user_id, attributes=("token_id",), consistent=True, meter=meter)
    return [item["token_id"]["S"] for page in pages for item in page.items]


def end_sessions(keys: Sequence[tuple[str, str]], *, seen_before: int, meter: Meter | None = None) -> list[bool]:
    """Removes those of the sessions (user, session) last seen before that second; True where removed."""
    return SESSIONS.delete_each(
        [{"user_id": user, "session_id": session} for user, session in keys],
        when=(Condition("last_seen_at", "<", seen_before),),
        meter=meter,
    )


def revoke_tokens(keys: Sequence[tuple[str, str]], *, issued_before: int, meter: Meter | None = None) -> list[bool]:
    """Removes those of the tokens (user, token) issued before that second; True where removed."""
    return TOKENS.delete_each(
        [{"user_id": user, "token_id": token_id} for user, token_id in keys],
        when=(Condition("issued_at", "<", issued_before),),
        meter=meter,
    )


def end_all(user_id: str, before: int, *, meter: Meter | None = None) -> tuple[int, int]:
    """Removes a user's sessions and tokens created before that second. Returns how many (sessions, tokens)."""
    held = [{"user_id": user_id, "session_id": session_id} for session_id in sessions_of(user_id, meter=meter)]
    ended = SESSIONS.delete_each(held, when=(Condition("created_at", "<", before),), meter=meter)
    tokens = [(user_id, token_id) for token_id in tokens_of(user_id, meter=meter)]
    return sum(ended), sum(revoke_tokens(tokens, issued_before=before, meter=meter))


def held_by(table: Table, user_id: str, *, meter: Meter | None = None) -> Iterator[Page]:
    """The keys of a user's sessions or tokens, including expired ones."""
    yield from table.query(user_id, attributes=table.key, consistent=True, meter=meter)


def delete_expired(
    table: Table, keys: Sequence[Mapping[str, str]], *, now: int, meter: Meter | None = None
) -> list[bool]:
    """Removes those of the sessions or tokens that have expired; True where removed."""
    return table.delete_each(keys, when=(Condition("expires_at", "<=", now),), meter=meter)


def expiries(
    table: Table, *, segment: int = 0, total: int = 1, start: Row | None = None, meter: Meter | None = None
) -> Iterator[Page]:
    """The key and `expires_at` of every session or every token, of one segment of a parallel scan."""
    attributes = (*table.key, "expires_at")
    yield from table.scan(segment=segment, total=total, attributes=attributes, start=start, meter=meter)


def read_session(item: Row) -> Session:
    """Parses the session in an item. Raises BadRow."""
    key = key_of(item, *SESSIONS.key)
    return Session(
        user_id=read_text(item, "user_id", key),
        session_id=read_text(item, "session_id", key),
        created_at=read_count(item, "created_at", key),
        last_seen_at=read_count(item, "last_seen_at", key),
        expires_at=read_count(item, "expires_at", key),
    )


def read_token(item: Row) -> Token:
    """Parses the token in an item. Raises BadRow."""
    key = key_of(item, *TOKENS.key)
    return Token(
        user_id=read_text(item, "user_id", key),
        token_id=read_text(item, "token_id", key),
        issued_at=read_count(item, "issued_at", key),
        expires_at=read_count(item, "expires_at", key),
        session_id=read_text(item, "session_id", key, default=""),
    )
