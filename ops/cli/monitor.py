"""The live view: queues with their backlog and rates, what runs now, what ended and what failed lately."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nexus.settings import settings
from ops import catalogue, diagnosis, live, logs
from ops.aws import in_parallel
from ops.cli import output
from ops.health import Counts, changed_at, event_source, queue_counts

if TYPE_CHECKING:
    from nexus.runs.record import RunRecord
    from ops.deployment import Deployment

WINDOW = 300.0
"""Seconds of ended attempts that rates and lists are made of."""

SPARK = 30
"""Columns of a queue's history: ten seconds each."""

_BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class QueueLine:
    """A queue as the view shows it: attempts a minute over the window, and in `history` those of each ten seconds."""

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


@dataclass(frozen=True, slots=True)
class View:
    """One look."""

    at: float
    queues: tuple[QueueLine, ...]
    running: tuple[live.LiveRun, ...]
    jobs: tuple[tuple[str, str, int, int], ...]
    ended: tuple[logs.Event, ...]
    failures: tuple[logs.Event, ...]
    wrong: tuple[str, ...] = ()
    """Functions that die before they start a run, for each its last words."""


@dataclass(slots=True)
class Monitor:
    """Looks again and again, and keeps the events of the window between looks."""

    _events: deque[logs.Event] = field(default_factory=deque)
    _seen: set[tuple[str, int, str]] = field(default_factory=set)
    _read_until: float = 0.0

    def look(self) -> View:
        """Everything anew. Errors of AWS are botocore's."""
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
        """What is known of functions that hold messages which no run has claimed."""
        suspects = [
            name
            for name, count in zip(names, counts, strict=True)
            if count and count.in_flight > sum(run.queue == name for run in running)
        ]
        dying = in_parallel(lambda name: diagnosis.dying(name, now, changed_at(name)), suspects)
        return tuple(f"{one.queue}: the function dies: {one.error}" for one in dying if one is not None)

    def _read(self, names: list[str], now: float) -> None:
        start = max(now - WINDOW, self._read_until - logs.OVERLAP)
        for event in logs.events(names, start):
            key = (event.run_id, event.attempt, event.outcome)
            if key not in self._seen:
                self._seen.add(key)
                self._events.append(event)
        self._read_until = now
        while self._events and self._events[0].at < now - WINDOW:
            old = self._events.popleft()
            self._seen.discard((old.run_id, old.attempt, old.outcome))

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
        )


def show_once(deployment: "Deployment") -> None:
    """One look, as plain text or drawn."""
    from rich.console import Console

    from ops.cli.output import fancy

    console = Console(width=None if fancy() else 140, no_color=not fancy(), highlight=False)
    console.print(draw(deployment, Monitor().look(), height=60))


def run(deployment: "Deployment", every: float) -> None:
    """Draws until Ctrl-C. A look that fails is told in the view, and tried again: a monitor outlives a short outage."""
    from rich.console import Console
    from rich.live import Live

    from ops.problems import explained

    console = Console()
    monitor, view = Monitor(), None
    with Live(console=console, screen=True, auto_refresh=False) as drawing:
        drawing.update(f"Looking at {deployment.stack} ...", refresh=True)
        while True:
            began = time.monotonic()
            error = None
            try:
                view = monitor.look()
            except Exception as failure:
                problem = explained(failure)
                if problem is None or view is None:
                    raise
                error = f"{problem.what}: {problem.why}"
            drawn = draw(deployment, view, height=console.size.height, error=error, hint="Ctrl-C ends it")
            drawing.update(drawn, refresh=True)
            time.sleep(max(0.1, every - (time.monotonic() - began)))


def draw(deployment: "Deployment", view: View, *, height: int, error: str | None = None, hint: str = "") -> Any:
    """The view as rich draws it, in `height` lines; `hint` and `error` stand in the first."""
    from rich.console import Group
    from rich.text import Text

    room = max(4, height - 15 - len(view.jobs) - len(view.wrong))
    running = max(3, min(len(view.running) + 1, room // 2))
    lists = max(3, room - running - 2)
    age = time.time() - view.at
    head = Text.assemble(
        (f" {deployment.stack} ", "bold reverse"),
        f"  {deployment.stage}  {deployment.endpoint or deployment.region}  ",
        (f"{time.strftime('%H:%M:%S', time.gmtime(view.at))} UTC  {hint}", "dim"),
    )
    if error:
        head.append(f"  {output.safe(error)} (the view is {output.age(age)} old)", style="bold red")
    parts: list[Any] = [head, Text(), _queues(view), Text()]
    parts += [Text(output.safe(text, lines=False), style="bold red") for text in view.wrong]
    parts += [_running(view, running)]
    if view.failures:
        parts += [Text(), _events("failures and retries, 5 minutes", view.failures, lists // 2 + 1)]
        lists -= lists // 2 + 1
    parts += [Text(), _events("ended", view.ended, max(2, lists - 2))]
    return Group(*parts)


def _queues(view: View) -> Any:
    numbers = ("waiting", "in flight", "delayed", "running", "dead", "per min", "failed")
    table = _table(("queue", "", *numbers), right=numbers, rest="last 5 minutes")
    top = max((max(queue.history) for queue in view.queues), default=0) or 1
    for queue in view.queues:
        spark = "".join(_BLOCKS[-(-count * 8 // top)] for count in queue.history)
        table.add_row(
            queue.name,
            "[green]on[/]" if queue.on else "[yellow]paused[/]",
            _count(queue.waiting, "bold"),
            _count(queue.in_flight, "cyan"),
            _count(queue.delayed, "blue"),
            _count(queue.running, "cyan"),
            _count(queue.dead, "bold red"),
            f"{queue.per_minute:.1f}" if queue.per_minute else "[dim]0[/]",
            f"[red]{queue.failed_per_minute:.1f}[/]" if queue.failed_per_minute else "[dim]0[/]",
            f"[green]{spark}[/]",
        )
    return table


def _count(number: int, style: str) -> str:
    return f"[{style}]{number}[/]" if number else "[dim]0[/]"


def _running(view: View, room: int) -> Any:
    from rich.text import Text

    if not view.running and not view.jobs:
        return Text("Nothing runs.", style="dim")
    table = _table(("running", "id", "queue", "attempt", "for"), right=("attempt", "for"), rest="progress")
    now = view.at
    for run_id, task, done, total in view.jobs:
        table.add_row(f"[bold]{_shown(task)}[/]", run_id, "", "", "", _bar(done, total))
    for run in view.running[: room - 1]:
        progress = ""
        if run.progress:
            progress = _bar(run.progress[0], run.progress[1])
        elif run.segment is not None:
            progress = f"segment {run.segment}"
        lost = " [red]lost[/]" if run.lost else ""
        table.add_row(
            _shown(run.task) + lost, _shown(run.id), run.queue, str(run.attempts), output.age(now - run.since), progress
        )
    if len(view.running) > room - 1:
        table.add_row(f"[dim]and {len(view.running) - room + 1} more[/]", "", "", "", "", "")
    return table


def _shown(text: str) -> str:
    """Data in a cell: nothing that the terminal obeys, and none of rich's markup."""
    from rich.markup import escape

    return escape(output.safe(text, lines=False))


def _bar(done: int, total: int) -> str:
    width = 10
    filled = width * done // total if total else 0
    return f"[green]{'━' * filled}[/][dim]{'━' * (width - filled)}[/] {done}/{total}"


def _events(title: str, events: tuple[logs.Event, ...], room: int) -> Any:
    table = _table((title, "outcome", "task", "took"), right=("took",), rest="reason")
    for event in events[:room]:
        style = output.STYLES.get(logs.SETTLED.get(event.outcome, ""), "")
        outcome = f"[{style}]{_shown(event.outcome)}[/]" if style else _shown(event.outcome)
        table.add_row(
            f"{output.time_of(event.at)[11:]}  {_shown(event.run_id)}",
            outcome,
            _shown(event.task),
            f"{event.seconds:.2f}s",
            _shown(event.reason or ""),
        )
    return table


def _table(columns: Sequence[str], *, right: Sequence[str], rest: str) -> Any:
    """A table as wide as the terminal; its last column, `rest`, gets what the others leave, and is cut to that."""
    from rich.table import Table

    table = Table(box=None, expand=True, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    table.add_column(rest, no_wrap=True, overflow="ellipsis", ratio=1)
    return table
