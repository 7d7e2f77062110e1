"""Follows: one item per edge, under the follower; the index `followers` has the same edges under the followed user.

The item has only its key and the time, because the nightly count reads every edge.
"""

from collections.abc import Iterator, Sequence

from nexus.aws.dynamodb import Row, Value
from nexus.aws.table import Meter, Page, Table

FOLLOWERS = "followers"
TABLE = Table("follows", ("follower_id", "followed_id"), {FOLLOWERS: ("followed_id", "follower_id")})


def followed_by(user_id: str, *, limit: int | None = None, meter: Meter | None = None) -> list[str]:
    """The ids of the users whom the user follows, at most `limit`."""
    found: list[str] = []
    for page in TABLE.query(user_id, attributes=("followed_id",), limit=limit, meter=meter):
        found += [item["followed_id"]["S"] for item in page.items]
        if limit is not None and len(found) >= limit:
            return found[:limit]
    return found


def add(follower_id: str, followed_id: str, at: int, *, meter: Meter | None = None) -> bool:
    """Follows; False if the user followed already."""
    values: dict[str, Value] = {"follower_id": follower_id, "followed_id": followed_id, "created_at": at}
    return TABLE.insert(values, meter=meter) is None


def remove(follower_id: str, followed_id: str, *, meter: Meter | None = None) -> None:
    """Unfollows."""
    TABLE.delete({"follower_id": follower_id, "followed_id": followed_id}, meter=meter)


def put_many(edges: Sequence[tuple[str, str, int]], *, meter: Meter | None = None, threads: int = 1) -> int:
    """Writes edges (follower, followed, seconds since 1970): for imports and demo data."""
    return TABLE.put_many(
        ({"follower_id": a, "followed_id": b, "created_at": at} for a, b, at in edges), meter=meter, threads=threads
    )


def of_both_sides(user_id: str, *, meter: Meter | None = None) -> Iterator[Page]:
    """The keys of the edges from the user, and of those to them."""
    yield from TABLE.query(user_id, attributes=TABLE.key, consistent=True, meter=meter)
    yield from TABLE.query(user_id, index=FOLLOWERS, attributes=TABLE.key, meter=meter)


def edges(*, segment: int = 0, total: int = 1, start: Row | None = None, meter: Meter | None = None) -> Iterator[Page]:
    """Every edge of one segment of a parallel scan; a follower's edges are consecutive in one segment."""
    yield from TABLE.scan(segment=segment, total=total, attributes=TABLE.key, start=start, meter=meter)


def count_followed(user_id: str, *, start: Row | None = None, meter: Meter | None = None) -> Iterator[Page]:
    """Pages whose `scanned` add up to the number of users that the user follows."""
    yield from TABLE.query(user_id, counted=True, start=start, meter=meter)


def count_followers(user_id: str, *, start: Row | None = None, meter: Meter | None = None) -> Iterator[Page]:
    """Pages whose `scanned` add up to the number of the user's followers."""
    yield from TABLE.query(user_id, index=FOLLOWERS, counted=True, start=start, meter=meter)
