"""Counters of ended attempts for a scraper: they start with this process and only increase."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ops import logs

BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
"""The upper bounds of the histogram's buckets, in seconds. The last bucket is unbounded."""


@dataclass(slots=True)
class Counted:
    """One task's attempts, by outcome and by duration bucket."""

    outcomes: Counter[str] = field(default_factory=Counter)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def add(self, event: logs.Event) -> None:
        self.outcomes[event.outcome] += 1
        self.buckets[bisect_left(BOUNDS, event.seconds)] += 1
        self.seconds += event.seconds

    @property
    def cumulative(self) -> list[int]:
        """The cumulative count at each bound, then the total."""
        return [sum(self.buckets[: n + 1]) for n in range(len(self.buckets))]


class Attempts:
    """Counts the attempts that ended since `start`, each once, from the functions' logs."""

    def __init__(self, start: float) -> None:
        self.start = start
        self._ended = logs.Ended(start)
        self._counted: dict[tuple[str, str], Counted] = {}
        self._lock = threading.Lock()

    def update(self, queues: Sequence[str]) -> Mapping[tuple[str, str], Counted]:
        """Counts by (task, queue). Raises botocore's errors; the next call reads what this one missed."""
        with self._lock:
            for event in self._ended.read(queues):
                self._counted.setdefault((event.task, event.queue), Counted()).add(event)
            return dict(self._counted)
