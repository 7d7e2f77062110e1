"""A task's view of its own run, and the results by which it asks for more than one invocation."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nexus import clock
from nexus.backend import backend
from nexus.backend.store import Item
from nexus.definitions import Arguments
from nexus.envelope import Segment
from nexus.errors import Reject
from nexus.runs import transitions
from nexus.runs.tallies import LIMIT
from nexus.values import compact
from nexus.worker import observe

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

CURSOR_BYTES = 64 * 1024
"""Limit of a cursor: a record may also hold 256 KiB of what follows the run (`nexus.client.steps`), and an error."""


@dataclass(frozen=True, slots=True)
class FannedOut:
    """A task's result: these segments do the work."""

    segments: Sequence[Arguments]
    then: Arguments | None


@dataclass(frozen=True, slots=True)
class Continued:
    """A task's result: the next invocation continues from this cursor."""

    cursor: Mapping[str, Any]


type Continuation = FannedOut | Continued


@dataclass(slots=True)
class Run:
    """A task's view of its own run."""

    id: str
    task: str
    attempt: int
    deadline: float
    """On clock.monotonic()'s clock: the task's time limit, or the invocation's end minus the settling margin."""

    limit: float
    """Seconds that the run was given."""

    token: str
    sent_at: float
    """Seconds since 1970: when it was first sent, or its schedule fired. The same for every attempt."""

    parent: str | None = None
    segment: Segment | None = None
    cursor: Mapping[str, Any] | None = None
    last_attempt: bool = False
    """Whether its policy has no retries left, so that a failure is final. A caller that invoked the function directly
    can always try again."""

    _shown: float = field(default=-math.inf, repr=False)
    _asked: float = field(default=-math.inf, repr=False)
    _complete: bool = field(default=False, repr=False)
    """Whether the progress that was written last is complete."""

    _revoked: bool = field(default=False, repr=False)

    @property
    def remaining(self) -> float:
        """Seconds until TimeLimitExceeded is raised."""
        return self.deadline - clock.monotonic()

    @property
    def short_of_time(self) -> bool:
        """Whether it is time to continue in another invocation or to end: a tenth of the limit is left, or 15 s of a
        long one.
        """
        return self.remaining < min(15.0, self.limit / 10)

    @property
    def logger(self) -> "Logger":
        """A structured logger: every line has task, run_id, attempt and queue."""
        return observe.logger()

    def progress(self, done: int = 0, total: int = 0, note: str = "", *, info: Any = None) -> None:
        """Reports the run's progress. Written at most once a second, so it may be called for every row; and at once
        when all is done.

        `info` is anything else that the handle's `info` shows: JSON, at most 8 KiB. Raises ValueError beyond that.
        """
        now = clock.monotonic()
        complete = 0 < total <= done
        if now - self._shown >= 1.0 or (complete and not self._complete):
            write = transitions.progress(self.id, self.token, done, total, note, info=info)
            self._shown = self._asked = now
            self._complete = complete
            self._note(backend().store.apply(write).item)

    @property
    def revoked(self) -> bool:
        """Whether the run has been revoked since it began: end early, by `raise Revoked()` or with a result.

        Each write of `progress` updates it. Otherwise it is one read, at most once a second.
        """
        now = clock.monotonic()
        if not self._revoked and now - self._asked >= 1.0:
            self._asked = now
            self._note(backend().store.get([self.id]).get(self.id))
        return self._revoked

    def _note(self, item: Item | None) -> None:
        self._revoked = self._revoked or bool((item or {}).get("revoke"))

    def fan_out(self, segments: Sequence[Arguments], *, then: Arguments | None = None) -> FannedOut:
        """Splits the run: `return run.fan_out([...])`. Each segment runs as the same task, with `run.segment` set.

        The run waits, its progress is done/total, and the last segment ends it with the reduced results. With `then`
        the run continues, after all segments have succeeded, with one more run of the same task and those arguments;
        that may fan out again. 1 to 10,000 segments.
        """
        if not 1 <= len(segments) <= LIMIT:
            raise Reject(f"a fan-out of {len(segments)} segments: 1 to {LIMIT} are allowed")
        return FannedOut(segments, then)

    def continue_from(self, cursor: Mapping[str, Any]) -> Continued:
        """Stops here: `return run.continue_from({...})`. The same message comes again at once, with `run.cursor` set.

        The cursor is JSON, at most 64 KiB, and carries the partial result. No attempt is spent. At most ten times per
        run, because each counts as a receive of the same message. Raises Reject for a larger cursor.
        """
        text = compact(cursor)
        if (size := len(text.encode())) > CURSOR_BYTES:
            raise Reject(f"cursor: {size:,} bytes, over the limit of {CURSOR_BYTES:,}: store the data and pass its key")
        return Continued(json.loads(text))
