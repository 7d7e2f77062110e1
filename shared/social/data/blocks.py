"""Blocks: one item per blocked person and blocker."""

from collections.abc import Iterator, Sequence

from nexus.aws.table import Meter, Page, Table

BLOCKED = "blocked"
TABLE = Table("blocks", ("user_id", "blocked_id"), {BLOCKED: ("blocked_id", "user_id")})


def has_blocked(user_id: str, other_id: str, *, meter: Meter | None = None) -> bool:
    """Whether the user has blocked the other."""
    return TABLE.get({"user_id": user_id, "blocked_id": other_id}, attributes=("user_id",), meter=meter) is not None


def blocked_by(user_id: str, *, meter: Meter | None = None) -> frozenset[str]:
    """The ids of the users whom the user has blocked."""
    pages = TABLE.query(user_id, attributes=("blocked_id",), meter=meter)
    return frozenset(item["blocked_id"]["S"] for page in pages for item in page.items)


def add(user_id: str, blocked_id: str, at: int, *, meter: Meter | None = None) -> None:
    """Blocks; repeating it only changes the time."""
    TABLE.put({"user_id": user_id, "blocked_id": blocked_id, "created_at": at}, meter=meter)


def remove(user_id: str, blocked_id: str, *, meter: Meter | None = None) -> None:
    """Unblocks."""
    TABLE.delete({"user_id": user_id, "blocked_id": blocked_id}, meter=meter)


def of_both_sides(user_id: str, *, meter: Meter | None = None) -> Iterator[Page]:
    """The keys of the blocks that the user made, and of those that others made against them."""
    yield from TABLE.query(user_id, attributes=TABLE.key, consistent=True, meter=meter)
    yield from TABLE.query(user_id, index=BLOCKED, attributes=TABLE.key, meter=meter)


def put_many(blocks: Sequence[tuple[str, str, int]], *, meter: Meter | None = None, threads: int = 1) -> int:
    """Writes blocks (user, blocked, seconds since 1970): for imports and demo data."""
    return TABLE.put_many(
        ({"user_id": a, "blocked_id": b, "created_at": at} for a, b, at in blocks), meter=meter, threads=threads
    )
