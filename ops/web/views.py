"""The data of each page, from the modules of `ops`. The API returns the same as JSON.

Results of AWS requests are cached briefly, so that five open pages make no more requests than one.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Any

from nexus import cron
from nexus.client import AsyncResult, read_records
from nexus.runs.record import RunRecord
from nexus.values import compact
from ops import (
    catalogue,
    cost,
    counting,
    dead_letters,
    deployment,
    figures,
    functions,
    health,
    history,
    logs,
    lookup,
    runs,
    schedules,
    timeline,
)
from ops.cli.monitor import Monitor, View
from ops.dead_letters import Filter, Group, Letter
from ops.deployment import Choice, Deployment
from ops.problems import Problem
from ops.spans import At

COST_SAMPLE = 500
COSTS_KEPT = 120.0
COSTS_REST = 100.0
"""How many times as long as it took to read them the costs are kept: a week of many runs is many requests."""

NEXT = 5
WEEK = 7 * 86_400.0
PAGE = 50
NEWEST_SHOWN = 300.0
"""Seconds for which the previous newest runs are shown while they are refreshed."""

LETTERS_KEPT = 30.0
"""Seconds for which dead letters are cached: reading hides them from everyone else for a moment."""


@dataclass(frozen=True, slots=True)
class _Answer[T]:
    """A value, when it was received, until when it is kept, and the mark of the last `forget` before."""

    value: T
    at: float
    until: float
    mark: object


class Kept[T]:
    """A cached value that is refreshed when older than `seconds`; one thread refreshes, the others wait.

    A value that takes long to refresh is kept for at least `rest` times as long as that took. A failed refresh fails
    for every thread that waited for it: if each tried again, the last would wait for all the others' timeouts.
    """

    def __init__(self, ask: Callable[[], T], seconds: float, rest: float = 0.0) -> None:
        self._ask, self._seconds, self._rest = ask, seconds, rest
        self._lock = threading.Lock()
        self._answer: _Answer[T] | None = None
        self._failure: tuple[Exception, float] | None = None
        self._mark = object()

    def get(self) -> T:
        wanted_at = time.monotonic()
        with self._lock:
            answer, mark = self._answer, self._mark
            if answer is not None and answer.mark is mark and time.monotonic() <= answer.until:
                return answer.value
            if self._failure is not None and self._failure[1] > wanted_at:
                raise self._failure[0]
            return self._refreshed(mark).value

    def _refreshed(self, mark: object) -> _Answer[T]:
        began = time.monotonic()
        try:
            value = self._ask()
        except Exception as error:
            self._failure = error, time.monotonic()
            raise
        now = time.monotonic()
        self._failure = None
        self._answer = _Answer(value, now, now + max(self._seconds, self._rest * (now - began)), mark)
        return self._answer

    def last(self, *, within: float = inf) -> T | None:
        """The cached value without a refresh, if it is at most `within` seconds old."""
        answer = self._answer
        if answer is None or answer.mark is not self._mark or time.monotonic() - answer.at >= within:
            return None
        return answer.value

    def forget(self) -> None:
        """Invalidates the value after a change, and what is being read meanwhile. Waits for nothing."""
        self._mark = object()


@dataclass(frozen=True, slots=True)
class Firing:
    """A firing of a schedule."""

    id: str
    at: At
    status: str
    took: float | None


@dataclass(slots=True)
class Site:
    """A deployment as the pages show it. `read_only` rejects every action."""

    choice: Choice
    read_only: bool = False
    connect: Callable[[Choice], Deployment] | None = None
    most_letters: int | None = None
    """The most letters of a queue to read."""
    log_patience: float = inf
    """Seconds after which no further page of a log is requested."""
    attempts: counting.Attempts = field(default_factory=lambda: counting.Attempts(time.time()), init=False)
    _counts: Mapping[str, int] = field(default_factory=dict, init=False)
    _deployment: "Kept[Deployment]" = field(init=False)
    _health: "Kept[health.Health]" = field(init=False)
    _view: "Kept[View]" = field(init=False)
    _letters: "Kept[tuple[Letter, ...]]" = field(init=False)
    _figures: "Kept[tuple[float, Mapping[str, figures.TaskFigures]]]" = field(init=False)
    _functions: "Kept[Sequence[functions.Function]]" = field(init=False)
    _costs: "Kept[tuple[float, Sequence[cost.Slice]]]" = field(init=False)
    _idle: "Kept[Sequence[cost.Idle]]" = field(init=False)
    _newest: "Kept[history.Found]" = field(init=False)

    def __post_init__(self) -> None:
        monitor = Monitor()
        self._deployment = Kept(lambda: (self.connect or deployment.connect)(self.choice), 60.0)
        self._health = Kept(lambda: health.check(self._deployment.get()), 5.0)
        self._view = Kept(monitor.poll, 2.5)
        self._letters = Kept(lambda: _all_letters(self.most_letters), LETTERS_KEPT)
        self._figures = Kept(lambda: figures.lately(catalogue.queues()), 60.0)
        self._newest = Kept(lambda: history.find(history.Query(), PAGE), 0.0)
        self._functions = Kept(lambda: functions.read_all(catalogue.queues()), 30.0)
        self._costs = Kept(
            lambda: (time.time(), cost.read_slices(time.time() - cost.WEEK, sample=COST_SAMPLE)), COSTS_KEPT, COSTS_REST
        )
        self._idle = Kept(cost.idle, COSTS_KEPT)

    def forget(self) -> None:
        """Invalidates the caches after an action."""
        for kept in (self._health, self._view, self._letters, self._functions, self._newest):
            kept.forget()

    @property
    def deployment(self) -> Deployment:
        """The deployment, described within the last minute. Raises like `deployment.connect`."""
        return self._deployment.get()

    @property
    def known_deployment(self) -> Deployment:
        """The deployment as last described, however long ago: a page's frame needs no request to AWS."""
        return self._deployment.last() or self.deployment

    def health(self) -> health.Health:
        return self._health.get()

    def monitor(self) -> View:
        return self._view.get()

    def figures(self) -> tuple[float, Mapping[str, figures.TaskFigures]]:
        """How many seconds the figures go back, a day at most, and the figures by task."""
        return self._figures.get()

    def functions(self) -> Sequence[functions.Function]:
        return self._functions.get()

    def costs(self) -> Sequence[cost.Slice]:
        """Costs of the runs of the last seven days. Raises Problem if no run history is kept."""
        return self._costs.get()[1]

    def costs_read_at(self) -> float:
        """When these were read, perhaps hours ago, in seconds since 1970."""
        return self._costs.get()[0]

    def idle(self) -> Sequence[cost.Idle]:
        """Costs without any runs."""
        return self._idle.get()

    def warm(self) -> None:
        """Loads what most pages show before one is opened. Pages retry what fails here, and show the error."""
        for ask in (self.health, self.monitor, self.newest):
            try:
                ask()
            except Exception as error:  # noqa: BLE001 - the page that needs it shows the error
                logging.getLogger("nexus.web").info("could not be loaded at the start: %r", error)

    # --- runs ---

    def runs(self, text: str, limit: int, after: str | None) -> history.Found:
        """A page of the history for a typed query. Raises Problem if it is invalid."""
        return history.find(lookup.whole(history.parse(text)), limit, after)

    def newest(self) -> history.Found:
        """The first page of all runs, which queries every partition of the history."""
        return self._newest.get()

    def newest_of_late(self) -> history.Found | None:
        """The same from the cache, if it was loaded within the last minutes; else None."""
        return self._newest.last(within=NEWEST_SHOWN)

    def run(self, run_id: str) -> RunRecord:
        """A run's record, by its id or a part of it. Raises Problem if there is no such run."""
        record = AsyncResult[Any](lookup.run_id(run_id)).record()
        if record.status == "UNKNOWN":
            raise Problem(f"{run_id} is unknown", "No run has this id: never sent, or its record has expired.")
        return record

    def log(self, run_id: str) -> list[logs.Line]:
        """A run's log, by its id or a part of it, as far as it can be read within `log_patience`. Raises Problem."""
        return list(logs.of_run(lookup.run_id(run_id), None, follow=False, patience=self.log_patience))

    def time_line(self, run_id: str) -> timeline.TimeLine:
        """A run's timeline. Raises Problem if there is no such run."""
        return timeline.of(self.run(run_id), self.log(run_id))

    def members(self, run_id: str) -> list[timeline.Member]:
        """The members of a fan-out or group. Raises Problem if there is no such run."""
        record = self.run(run_id)
        return timeline.of_members(record) if record.fanned_out else []

    # --- dead letters ---

    def _read_letters(self) -> tuple[Letter, ...]:
        """All dead letters, read again if their number has changed."""
        counts = dead_letters.counts(catalogue.queues())
        if counts != self._counts:
            self._counts = counts
            self._letters.forget()
        return self._letters.get()

    def letters(self, task: str | None = None, error: str | None = None, queue: str | None = None) -> list[Letter]:
        """Dead letters, latest first."""
        return [
            letter
            for letter in self._read_letters()
            if task in (None, letter.task) and error in (None, letter.error) and queue in (None, letter.queue)
        ]

    def groups(self) -> list[Group]:
        """Dead letters by task and error, largest group first."""
        return dead_letters.grouped(self._read_letters())

    # --- schedules, tasks ---

    def schedules(self, since: float | None = None) -> list[schedules.Scheduled]:
        """The periodic tasks, with their firings since then."""
        return schedules.listed(since)

    def firings(self, task: str) -> list[Firing]:
        """A schedule's firings of the last days, oldest first."""
        fired = schedules.history(catalogue.tasks()[task], time.time() - WEEK, self.log_patience)
        records = read_records([AsyncResult(run_id) for run_id, _ in fired])
        return [
            Firing(run_id, at, record.status, runs.took(record))
            for (run_id, at), record in zip(fired, records, strict=True)
        ]

    def next_times(self, expression: str) -> list[datetime]:
        """When an expression fires next. Raises Problem if it is invalid."""
        try:
            return cron.next_times(expression, NEXT, datetime.now(UTC))
        except cron.BadSchedule as error:
            do = "Fields: minutes hours day-of-month month day-of-week year, as in cron(0 3 * * ? *)."
            raise Problem("EventBridge rejects this", str(error), do) from None

    def task(self, name: str) -> Any:
        """A task of the catalogue. Raises Problem if there is none of that name."""
        known = catalogue.tasks()
        if name not in known:
            raise Problem(f"There is no task {name!r}")
        return known[name]


def _all_letters(limit: int | None) -> tuple[Letter, ...]:
    queues = catalogue.queues()
    full = [queue for queue, count in dead_letters.counts(queues).items() if count]
    found = [letter for queue in full for letter in dead_letters.read(queue, Filter(), limit)]
    return tuple(sorted(found, key=lambda letter: -letter.failed_at))


def fields(task: Any) -> list[dict[str, Any]]:
    """A task's arguments for a form: name, whether required, default, kind."""
    found = []
    schema = task.arguments.model_json_schema()
    for name, field_ in task.arguments.model_fields.items():
        about = schema["properties"].get(name, {})
        default = "" if field_.is_required() else field_.get_default(call_default_factory=True)
        found.append(
            {
                "name": name,
                "required": field_.is_required(),
                "default": default if isinstance(default, str) else compact(default),
                "choices": about.get("enum", []),
                "kind": about.get("type", "any"),
                "about": about.get("description", ""),
                "secret": name in task.secret,
            }
        )
    return found
