"""A rate limit across all sandboxes: one item is a timetable, in which each sandbox books stretches of time.

Everything before `next_at` is booked. A booking of n starts advances it by n/rate seconds. A sandbox books as many as
it will use in about a second, going by how fast it has used the last ones: so it makes a request per second instead of
one per message, and no other waits for starts that nobody uses.
"""

import math
import uuid
from dataclasses import dataclass

from nexus import clock
from nexus.aws.dynamodb import equals
from nexus.backend import backend
from nexus.backend.store import Applied, Store, Value, Write, number

STRETCH = 1.0
"""Seconds for which a booking lasts, and the most of the rate that it takes: what a sandbox that dies can waste.

A burst can make up for at most one second of unused rate: an idle sandbox does not accumulate starts.
"""


LATEST = 5.0
"""Seconds by which a run may miss the start that it has booked; after that it books another."""


@dataclass(slots=True)
class RateLimiter:
    """At most `per_second` acquisitions a second under this name, across everything that uses the same run table."""

    name: str
    per_second: float
    _next: float = 0.0
    _left: int = 0
    _used: int = 0
    """Starts used since the last booking."""

    _booked_at: float = -math.inf
    _store: Store | None = None
    """The backend where the stretch was booked: it is invalid in the next test's run table."""

    def acquire(self, patience: float | None = None) -> bool:
        """Waits for the next start. False if it is more than `patience` seconds away: see `wait`; it stays booked."""
        self._have_one()
        wait = self.wait
        if patience is not None and wait > patience:
            return False
        if wait > 0:
            clock.sleep(wait)
        self._use()
        return True

    def take(self) -> float:
        """Books the next start for the caller only. Returns its time (seconds since 1970)."""
        self._have_one()
        start = self._next
        self._use()
        return start

    def _have_one(self) -> None:
        if self._store is not backend().store:
            self._store, self._left, self._used = backend().store, 0, 0
        late = int((clock.now() - STRETCH - self._next) * self.per_second)
        if late > 0:
            self._left = max(0, self._left - late)
            self._next += late / self.per_second
        if self._left <= 0:  # below 0 if two threads of a development server used the last one
            self._book()

    def _use(self) -> None:
        self._left -= 1
        self._used += 1
        self._next += 1 / self.per_second

    @property
    def wait(self) -> float:
        """Seconds until the next start booked here."""
        return max(0.0, self._next - clock.now())

    def _book(self) -> None:
        now = clock.now()
        pace = self._used / max(now - self._booked_at, 1 / self.per_second)
        starts = max(1, int(min(pace, self.per_second) * STRETCH))
        length = starts / self.per_second
        key, store = f"rate/{self.name}", backend().store
        known = None
        while True:
            now = clock.now()
            begin = max(now, known or now)
            # Two sandboxes that read the same time try to book the same stretch: the token decides which one has it.
            booked: dict[str, Value] = {"next_at": round(begin + length, 6), "by": uuid.uuid4().hex}
            booked["expires"] = int(begin + length) + 86_400
            outcome = store.apply(Write(key, booked, when=(equals("next_at", known),)))
            if isinstance(outcome, Applied):
                self._next, self._left = begin, starts
                self._used, self._booked_at = 0, now
                return
            known = number(outcome.item or {}, "next_at")
