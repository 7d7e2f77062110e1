"""In-app notifications: one item each, under its user, the newest last; TTL removes them after KEEP_DAYS."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from nexus.aws.rows import key_of, read_count, read_text
from nexus.aws.table import Meter, Page, Table
from social.data.days import DAY_SECONDS

BY_ACTOR = "by-actor"
TABLE = Table("notifications", ("user_id", "notification_id"), {BY_ACTOR: ("actor_id", "notification_id")})
KEEP_DAYS = 90


@dataclass(frozen=True, slots=True)
class Notification:
    """An in-app notification to a user. `kind` is like, comment, follow, ...; `created_at` is seconds since 1970."""

    user_id: str
    notification_id: str
    kind: str
    text: str
    created_at: int
    link: str | None = None
    actor_id: str | None = None


def add(notification: Notification, *, meter: Meter | None = None) -> bool:
    """Writes it; False if the id exists already."""
    values = {name: value for name, value in asdict(notification).items() if value is not None}
    values["expires_at"] = notification.created_at + KEEP_DAYS * DAY_SECONDS
    return TABLE.insert(values, meter=meter) is None


def latest(user_id: str, limit: int = 50, *, meter: Meter | None = None) -> list[Notification]:
    """The user's latest notifications, the newest first."""
    page = next(TABLE.query(user_id, newest_first=True, limit=limit, meter=meter))
    found = []
    for item in page.items:
        key = key_of(item, *TABLE.key)
        found.append(
            Notification(
                user_id=read_text(item, "user_id", key),
                notification_id=read_text(item, "notification_id", key),
                kind=read_text(item, "kind", key),
                text=read_text(item, "text", key),
                created_at=read_count(item, "created_at", key),
                link=read_text(item, "link", key, default="") or None,
                actor_id=read_text(item, "actor_id", key, default="") or None,
            )
        )
    return found


def about(user_id: str, *, meter: Meter | None = None) -> Iterator[Page]:
    """The keys of the notifications to the user, and of those to others about the user's actions (`actor_id`)."""
    yield from TABLE.query(user_id, attributes=TABLE.key, consistent=True, meter=meter)
    yield from TABLE.query(user_id, index=BY_ACTOR, attributes=TABLE.key, meter=meter)
