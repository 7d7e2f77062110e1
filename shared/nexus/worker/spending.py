"""The usage of each run of an invocation, in the units that AWS bills: from the clock and the counted requests.

Usage shared by a batch (the invocation, the receive, the claim) is divided among the runs that it claimed. The
settling, which comes after a run's record is written, is estimated from the claim's usage. A sandbox that dies writes
nothing, so its attempts' usage is unknown.
"""

import os
import time
from collections.abc import Sequence

from nexus import clock
from nexus.aws import usage
from nexus.backend.store import Item, Write
from nexus.runs.spent import Spent
from nexus.worker.delivery import Claimed, Received

LINES = 825
"""Bytes of a run's start and end lines, including the 26 that CloudWatch Logs adds to each. Checked by a test."""

GIVEN_UP = 440
"""Additional bytes if the run is given up: the reason, and the line of its dead letter."""

INVOCATION_LINES = 500
"""Bytes of Lambda's own three lines."""

MEMORY = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"

_cold = True


class Tab:
    """The usage of one invocation."""

    def __init__(self) -> None:
        self._gigabytes = int(os.environ.get(MEMORY, "0")) / 1024
        self._at, self._seen = clock.monotonic(), usage.seen()
        self._share = Spent()
        self._claiming = 0.0

    def share_out(self, received: Sequence[Received], runs: int) -> None:
        """Divides the usage so far among this many runs."""
        messages = 2.0 if any(one.source == "sqs" for one in received) else 0.0  # Lambda's receive and delete
        batch = Spent(invocations=1.0, messages=messages, log_bytes=INVOCATION_LINES)
        claiming = self.lap()
        each = 1 / max(1, runs)
        self._claiming = claiming.seconds * each
        self._share = batch.plus(claiming, self._took(_starting())).times(each)

    def lap(self) -> Spent:
        """The usage since the last lap."""
        at, seen = clock.monotonic(), usage.seen()
        counted = {name: seen[name] - self._seen[name] for name in usage.NAMES}
        seconds, self._at, self._seen = at - self._at, at, seen
        return Spent(seconds, seconds * self._gigabytes, **counted)

    def of(self, claimed: Claimed, settling: Write, index_writes: int) -> Spent:
        """A run's usage by the end of an attempt, including earlier ones. `settling` writes the outcome."""
        writes = _kilobytes({**claimed.item, **settling.set}) + index_writes
        logged = LINES + (GIVEN_UP if settling.set.get("status") == "FAILURE" else 0)
        settled = Spent(self._claiming, self._claiming * self._gigabytes, writes=float(writes), log_bytes=logged)
        before = Spent.of(claimed.item)
        return self.lap().plus(self._share, settled, _sending(claimed) if before is None else before)

    def _took(self, seconds: float) -> Spent:
        return Spent(seconds, seconds * self._gigabytes)


def _starting() -> float:
    """Billed seconds of this sandbox's start, at its first invocation: its CPU time, because the time between the start
    and the first event is not billed."""
    global _cold
    first, _cold = _cold, False
    return time.process_time() if first and os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "on-demand" else 0.0


def _sending(claimed: Claimed) -> Spent:
    """The usage of sending a run whose sender is not a run: a run's own sends are counted where it makes them."""
    envelope, item = claimed.envelope, claimed.item
    if envelope.parent is not None:
        return Spent()
    writes = _kilobytes(item) + (2 if claimed.record.eta else 1) if envelope.recorded else 0
    together = item.get("sent_with", 1)
    assert isinstance(together, int)
    return Spent(writes=float(writes), messages=1 / together if claimed.source == "sqs" else 0.0)


def _kilobytes(item: Item) -> int:
    """Write units of an item: one per started kilobyte."""
    return -(-len("".join([*item, *map(str, item.values())])) // 1024)
