"""Counts and durations of attempts by task, from the log lines at their ends."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ops import logs
from ops.problems import Problem

SPANS: Final = (86_400.0, 3_600.0, 600.0, 60.0, 10.0)
MOST: Final = 20_000
"""The most lines of a queue's log to read for them: some ten requests."""


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """A task's ended attempts: outcomes, and durations in seconds.

    `shortfalls` counts successes that fell short of their purpose by reason, most common first.
    """

    task: str
    queue: str
    success: int
    failure: int
    retry: int
    other: int
    median: float
    p95: float
    p99: float
    longest: float
    shortfalls: Mapping[str, int]

    @property
    def total(self) -> int:
        return self.success + self.failure + self.retry + self.other


def by_task(queues: Sequence[str], start: float) -> list[TaskFigures]:
    """Figures since `start` (seconds since 1970), the busiest task first."""
    events = defaultdict[tuple[str, str], list[logs.Event]](list)
    for event in logs.events(queues, start):
        events[event.task, event.queue].append(event)
    found = [of_events(task, queue, ended) for (task, queue), ended in events.items()]
    return sorted(found, key=lambda row: -row.total)


def lately(queues: Sequence[str]) -> tuple[float, dict[str, TaskFigures]]:
    """Figures by task, of all its queues, and how many seconds back they go: a day, or less where a queue's log has too
    many lines. Each attempt is one, so those of a busy day would take hours to read, and gigabytes of memory.
    """
    for back in SPANS:
        with suppress(logs.TooMany):
            return back, _by_task(logs.events(queues, time.time() - back, most=MOST))
    raise Problem(
        "There are too many attempts to read", f"A queue's log has over {MOST:,} lines of the last ten seconds."
    )


def _by_task(events: Sequence[logs.Event]) -> dict[str, TaskFigures]:
    ended = defaultdict[str, list[logs.Event]](list)
    for event in events:
        ended[event.task].append(event)
    return {task: of_events(task, of[0].queue, of) for task, of in ended.items()}


def of_events(task: str, queue: str, events: Sequence[logs.Event]) -> TaskFigures:
    """The figures of one task's events. There must be at least one."""
    outcomes = [event.outcome for event in events]
    counted = {name: outcomes.count(name) for name in ("success", "failure", "retry")}
    durations = sorted(event.seconds for event in events)
    return TaskFigures(
        task=task,
        queue=queue,
        **counted,
        other=len(outcomes) - sum(counted.values()),
        median=percentile(durations, 50) or 0.0,
        p95=percentile(durations, 95) or 0.0,
        p99=percentile(durations, 99) or 0.0,
        longest=durations[-1],
        shortfalls=shortfalls(events),
    )


def percentile(ordered: Sequence[float], percent: int) -> float | None:
    """The value at a percentile of sorted values; None if there are no values."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else None


def shortfalls(events: Iterable[logs.Event]) -> dict[str, int]:
    """The number of successes that fell short of their purpose, by reason, most common first."""
    return dict(Counter(e.reason for e in events if e.outcome == "success" and e.reason is not None).most_common())


def in_words(counted: Mapping[str, int], most: int = 3) -> str:
    """The most common reasons: no such user (4), suppressed: bounce (1)."""
    named = [f"{reason} ({count})" for reason, count in list(counted.items())[:most]]
    return ", ".join([*named, *(["..."] if len(counted) > most else [])])
