"""Enters runs into the index of live runs once they have taken a while, so a short run costs no index writes.

A thread looks once a second at the invocation in progress. Its writes are conditional on the invocation's claim, so
they may come at any time: a run that has been settled, or that another sandbox holds, is not changed.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from nexus import clock
from nexus.backend import backend
from nexus.backend.store import Applied, DynamoStore
from nexus.runs import transitions
from nexus.runs.record import RunError
from nexus.worker import observe
from nexus.worker.delivery import Claimed

LISTED_AFTER = 2.0
"""Seconds that a run takes before it is listed, together with the runs that wait behind it in its batch."""

EVERY = 1.0
"""Seconds between two checks by the thread."""


class Listing:
    """The runs that an invocation has claimed and not ended."""

    def __init__(self, queue: str, token: str) -> None:
        self._queue, self._token = queue, token
        self._held: dict[str, float] = {}
        self._listed: set[str] = set()
        self._began: float | None = None

    def hold(self, claimed: Claimed) -> None:
        """Adds a claimed run."""
        self._held[claimed.envelope.id] = claimed.record.started_at or clock.moment()
        if "live" in claimed.item:
            self._listed.add(claimed.envelope.id)

    @contextmanager
    def at_work_on(self, run_id: str) -> Iterator[None]:
        """Marks the run as in progress within the block. Afterwards the thread no longer lists it."""
        self._began = clock.monotonic()
        try:
            yield
        finally:
            self._began = None
            self._held.pop(run_id, None)

    def has(self, run_id: str) -> bool:
        """Whether the index has the run."""
        return run_id in self._listed

    def check(self) -> None:
        """Lists the claimed runs if the one in progress has taken long enough. Raises the store's errors."""
        began = self._began
        if began is None or clock.monotonic() - began < LISTED_AFTER:
            return
        held = {run_id: since for run_id, since in self._held.copy().items() if run_id not in self._listed}
        if not held:
            return
        writes = [transitions.listed(run_id, self._token, self._queue, since) for run_id, since in held.items()]
        for run_id, outcome in zip(held, backend().store.apply_all(writes), strict=True):
            if isinstance(outcome, Applied):
                self._listed.add(run_id)
            else:
                self._held.pop(run_id, None)


def attend(listing: Listing) -> None:
    """Calls `check` and logs a failure; the next call tries again."""
    try:
        listing.check()
    except Exception as error:  # noqa: BLE001 - the runs themselves are not affected
        observe.not_listed(RunError.of(error))


def watch(listing: Listing) -> None:
    """Has the thread attend to this invocation from now on. Tests with their own clock call `attend`."""
    if clock.is_machines() and isinstance(backend().store, DynamoStore):
        _watched[:] = [listing]
        _thread()


_watched: list[Listing] = []
"""The invocation in progress: a sandbox has one at a time."""


_ended = threading.Event()
"""Ends the thread. Only tests set it; they also replace `time.sleep`, without which the thread would never rest."""


@cache
def _thread() -> threading.Thread:
    thread = threading.Thread(target=_attend_until_ended, name="nexus-listing", daemon=True)
    thread.start()
    return thread


def _attend_until_ended() -> None:
    while not _ended.wait(EVERY):
        for listing in _watched[:]:
            attend(listing)
