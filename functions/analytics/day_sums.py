"""The partial sums of a day's count: one analytics item for each segment of a run, which expires after two days.

A segment that runs twice overwrites its own item, so the total is exact.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nexus import clock
from nexus.aws.dynamodb import Value, from_item
from nexus.aws.table import Meter
from nexus.errors import Reject
from social.data.analytics import TABLE
from social.data.days import DAY_SECONDS

POPULAR = 10


@dataclass(slots=True)
class DaySums:
    """Posts by visibility, other numbers by name, and the POPULAR top (engagement score, post) pairs, best first."""

    posts: Counter[str] = field(default_factory=Counter)
    numbers: Counter[str] = field(default_factory=Counter)
    popular: list[tuple[int, str]] = field(default_factory=list)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "DaySums":
        popular = [(score, post_id) for score, post_id in values.get("popular", ())]
        return cls(Counter(values.get("posts", {})), Counter(values.get("numbers", {})), popular)

    def values(self) -> dict[str, Value]:
        """The sums as plain values, for an item or a cursor."""
        popular: list[Value] = [[score, post_id] for score, post_id in self.popular]
        return {"posts": dict(self.posts), "numbers": dict(self.numbers), "popular": popular}

    def offer(self, posts: Iterable[tuple[int, str]]) -> None:
        """Merges these into the best posts; ties go by id. A post offered twice is kept once."""
        best = {post_id: score for score, post_id in (*self.popular, *posts)}
        order = heapq.nsmallest(POPULAR, best.items(), key=lambda post: (-post[1], post[0]))
        self.popular = [(score, post_id) for post_id, score in order]

    def add(self, other: "DaySums") -> None:
        """Adds another segment's sums."""
        self.posts.update(other.posts)
        self.numbers.update(other.numbers)
        self.offer(other.popular)


def keep(work: str, part: str, sums: DaySums, *, meter: Meter | None = None) -> None:
    """Stores one segment's sums."""
    TABLE.put(
        {"kind": _kind(work), "period": part, "expires_at": int(clock.now()) + 2 * DAY_SECONDS, **sums.values()},
        meter=meter,
    )


def total(work: str, parts: int, *, meter: Meter | None = None) -> DaySums:
    """The sums of all segments. Raises Reject if one has expired, as when a dead letter was sent again late."""
    found = [item for page in TABLE.query(_kind(work), consistent=True, meter=meter) for item in page.items]
    if len(found) != parts:
        raise Reject(f"{parts - len(found)} of {parts} partial sums have expired: send the task again for this day")
    whole = DaySums()
    for item in found:
        whole.add(DaySums.of(from_item(item)))
    return whole


def _kind(work: str) -> str:
    return f"part#{work}"
