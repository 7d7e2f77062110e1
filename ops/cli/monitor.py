"""What the live views show: queues with their backlog and rates, current runs, and recent ends and failures."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nexus.settings import settings
from ops import catalogue, diagnosis, live, logs
from ops.aws import in_parallel
from ops.health import Counts, event_source, live_version, queue_counts
from ops.problems import REPAIR
from ops.spans import At

if TYPE_CHECKING:
    from nexus.runs.record import RunRecord

WINDOW = 300.0
"""The window of ended attempts, in seconds, for rates and lists."""

AGAIN = 30.0
"""Seconds until the log is asked again whether a function dies."""

SPARK = 30
"""Columns of a queue's history, ten seconds each."""


@dataclass(frozen=True, slots=True)
class QueueLine:
    """A queue in the view: attempts per minute over the window; `history` has the count of each ten seconds.

    `present` is whether the queue exists.
    """

    name: str
    priority: int | None
    on: bool
    waiting: int
    in_flight: int
    delayed: int
    dead: int
    running: int
    per_minute: float
    failed_per_minute: float
    history: tuple[int, ...]
    present: bool = True


@dataclass(frozen=True, slots=True)
class View:
    """One snapshot of the deployment."""

    at: At
    queues: tuple[QueueLine, ...]
    running: tuple[live.LiveRun, ...]
    jobs: tuple[tuple[str, str, int, int], ...]
    ended: tuple[logs.Event, ...]
    failures: tuple[logs.Event, ...]
    wrong: tuple[str, ...] = ()
    """Queues that are missing, and functions that die before they start a run, each with its last log line."""


@dataclass(slots=True)
class Monitor:
    """Polls the deployment and keeps the window's events between polls."""

    _events: deque[logs.Event] = field(default_factory=deque)
    _ended: logs.Ended = field(default_factory=lambda: logs.Ended(0.0))
    _checked: dict[str, tuple[float, diagnosis.Dying | None]] = field(default_factory=dict)

    @property
    def events(self) -> tuple[logs.Event, ...]:
        """The attempts that ended within the window, latest first."""
        return tuple(reversed(self._events))

    def poll(self) -> View:
        """Takes a new snapshot. Raises botocore's errors."""
        from nexus.runs import tallies

        now = time.time()
        names = list(catalogue.queues())
        jobs: list[Any] = [
            lambda: in_parallel(lambda q: queue_counts(settings().queue_name(q)), names),
            lambda: in_parallel(lambda q: queue_counts(settings().dead_letter_queue_name(q)), names),
            lambda: in_parallel(event_source, names),
            lambda: live.runs(names, "STARTED", limit=50),
            lambda: self._read(names, now),
        ]
        counts, dead, sources, running, _ = in_parallel(lambda job: job(), jobs)
        waiting: list[RunRecord] = live.parents(running.runs)
        return View(
            at=now,
            queues=tuple(
                self._queue(name, (counts[n], dead[n]), sources[n], running.runs, now) for n, name in enumerate(names)
            ),
            running=running.runs,
            jobs=tuple((job.id, job.task, *tallies.progress(job)) for job in waiting),
            ended=tuple(self._events)[:-13:-1],
            wrong=self._wrong(names, counts, running.runs, now),
            failures=tuple(e for e in reversed(self._events) if e.outcome in ("failure", "retry"))[:12],
        )

    def _wrong(
        self, names: Sequence[str], counts: Sequence[Counts | None], running: Sequence[live.LiveRun], now: float
    ) -> tuple[str, ...]:
        """Checks the functions that hold messages which no run has claimed: on a busy queue, nearly always. So it asks
        the log about each only now and then, for its requests are few and shared (`logs.A_SECOND`).
        """
        suspects = [
            name
            for name, count in zip(names, counts, strict=True)
            if count and count.in_flight > sum(run.queue == name for run in running)
        ]
        old = [name for name in suspects if name not in self._checked or now - self._checked[name][0] >= AGAIN]
        found = in_parallel(lambda name: diagnosis.dying(name, now, *live_version(name)), old)
        self._checked |= {name: (now, one) for name, one in zip(old, found, strict=True)}
        dying = [self._checked[name][1] for name in suspects]
        return (
            *(
                f"{name}: the queue is missing. {REPAIR}"
                for name, count in zip(names, counts, strict=True)
                if count is None
            ),
            *(f"{one.queue}: the function dies: {one.error}" for one in dying if one is not None),
        )

    def _read(self, names: list[str], now: float) -> None:
        self._events.extend(self._ended.read(names, since=now - WINDOW))
        while self._events and self._events[0].at < now - WINDOW:
            self._events.popleft()

    def _queue(
        self,
        name: str,
        counted: tuple[Counts | None, Counts | None],
        source: Any,
        running: tuple[live.LiveRun, ...],
        now: float,
    ) -> QueueLine:
        none = Counts(0, 0, 0)
        counts, dead = counted[0] or none, counted[1] or none
        ended = [event for event in self._events if event.queue == name]
        history = [0] * SPARK
        for event in ended:
            history[min(SPARK - 1, max(0, SPARK - 1 - int((now - event.at) / WINDOW * SPARK)))] += 1
        return QueueLine(
            name=name,
            priority=catalogue.priority(name),
            on=bool(source) and source.get("State") in ("Enabled", "Enabling", "Updating", "Creating"),
            waiting=counts.waiting,
            in_flight=counts.in_flight,
            delayed=counts.delayed,
            dead=dead.total,
            running=sum(run.queue == name for run in running),
            per_minute=len(ended) * 60 / WINDOW,
            failed_per_minute=sum(event.outcome == "failure" for event in ended) * 60 / WINDOW,
            history=tuple(history),
            present=counted[0] is not None,
        )
