"""The live view on a terminal: what it draws, what its keys do, and the loop around both."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from ops import audit, logs
from ops.cli import output
from ops.cli.keys import Keys
from ops.cli.monitor import SPARK, Monitor, QueueLine, View
from ops.cli.rows import SECTIONS, Row, Section, rows
from ops.finding import short
from ops.problems import explained, usage

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rich.text import Text

    from nexus.runs.record import RunRecord
    from ops.deployment import Deployment

type Action = Literal["quit", "open", "retry", "revoke"]

WIDE: Final = 110
"""Columns from which there is room for a run's queue, attempt and time, and for the whole names of the figures."""

HINTS: Final[tuple[tuple[str, str], ...]] = (
    ("j k", "select"), ("Enter", "open"), ("/", "filter"), ("Tab", "list"),
    ("r", "retry"), ("x", "revoke"), ("?", "keys"), ("q", "quit"),
)  # fmt: skip

HINTS_OPEN: Final = (("Esc", "back"), ("j k", "scroll"), ("r", "retry"), ("x", "revoke"), ("?", "keys"))

HELP: Final = (
    ("j k, arrows", "select a run, or scroll what is open; also Page Up, Page Down"),
    ("g G", "the first, the last"),
    ("Enter", "open the run: arguments, times, error; Escape closes it"),
    ("/", "filter by words: of an id, a task, a queue, a state, a reason"),
    ("Escape", "takes the filter back"),
    ("Tab", "the next list: all, running, failed, ended"),
    ("r", "send a failed run again; of a job, its failed segments"),
    ("x", "revoke a run: what runs now is not killed, and not tried again"),
    ("q", "close what is open; quit"),
    ("", ""),
    ("id", "the last eight characters, which every command takes"),
    ("segments", "are folded into their job"),
)

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Order:
    """What a key asks for, of a run where it is about one."""

    action: Action
    row: Row | None = None


@dataclass(slots=True)
class Screen:
    """What is on the screen, and what the keys have made of it."""

    deployment: "Deployment"
    view: View | None = None
    all_rows: list[Row] = field(default_factory=list)
    tab: int = 0
    words: str = ""
    typing: bool = False
    asked: Order | None = None
    typed: str = ""
    opened: Row | None = None
    details: list[tuple[str, str]] | None = None
    helping: bool = False
    message: str = ""
    error: str | None = None
    _selected: str = ""
    _index: int = 0
    _top: int = 0
    _room: int = 10

    # --- what is known ---

    def show(self, view: View, found: list[Row]) -> None:
        """A new look. What was selected stays so, wherever it has moved."""
        self.view, self.all_rows, self.error = view, found, None

    @property
    def listed(self) -> list[Row]:
        """The rows of the present list that fit the filter."""
        wanted = SECTIONS if self.tab == 0 else (SECTIONS[self.tab - 1],)
        return [row for row in self.all_rows if row.section in wanted and row.has(self.words)]

    @property
    def shown(self) -> list[Row]:
        """Those of the rows that have room: in the list of all, each section has its share of it."""
        listed = self.listed
        if self.tab != 0:
            return listed
        share = shares({name: sum(row.section == name for row in listed) for name in SECTIONS}, self._room)
        return [row for name in SECTIONS for row in [row for row in listed if row.section == name][: share[name]]]

    @property
    def selected(self) -> Row | None:
        """The row that the keys act on: that of the chosen run, else the one in its place; the first at first."""
        shown = self.shown
        found = next((n for n, row in enumerate(shown) if row.id == self._selected), self._index)
        self._index = max(0, min(found, len(shown) - 1))
        return shown[self._index] if shown else None

    # --- keys ---

    def press(self, key: str) -> Order | None:
        """What a key asks for; most only change the screen."""
        if self.asked is not None:
            return self._answer(key)
        if self.typing:
            self._type(key)
            return None
        self.message = ""
        if self.helping:
            self.helping = False
            return None
        if key in ("r", "x"):
            self._ask("retry" if key == "r" else "revoke")
            return None
        return self._press_open(key) if self.opened is not None else self._press_list(key)

    def _press_list(self, key: str) -> Order | None:
        match key:
            case "q":
                return Order("quit")
            case "enter" if (row := self.selected) is not None:
                self.opened, self.details, self._top = row, None, 0
                return Order("open", row)
            case "/":
                self.typing = True
            case "escape":
                self.words = ""
            case "tab":
                self.tab = (self.tab + 1) % (len(SECTIONS) + 1)
            case "?":
                self.helping = True
            case _:
                shown, before = self.shown, self.selected
                self._index = max(0, self._moved(key, self._index, len(shown)))
                if before is not None:
                    self._selected = shown[self._index].id
        return None

    def _press_open(self, key: str) -> Order | None:
        if key in ("q", "escape", "enter"):
            self.opened = self.details = None
        elif key == "?":
            self.helping = True
        else:
            self._top = max(0, self._moved(key, self._top, 10_000))
        return None

    def _moved(self, key: str, at: int, of: int) -> int:
        steps = {"j": 1, "down": 1, "k": -1, "up": -1, "page down": self._room, "page up": -self._room}
        ends = {"g": 0, "home": 0, "G": of - 1, "end": of - 1}
        return ends[key] if key in ends else min(of - 1, at + steps.get(key, 0))

    def _type(self, key: str) -> None:
        match key:
            case "enter":
                self.typing = False
            case "escape":
                self.typing, self.words = False, ""
            case "backspace":
                self.words = self.words[:-1]
            case _ if len(key) == 1:
                self.words += key

    def _ask(self, action: Action) -> None:
        row = self.opened or self.selected
        if row is None:
            return
        if action == "retry" and row.state != "failure" and row.progress is None:
            waits = "it is tried again by itself" if row.state == "retry" else "what has failed is sent again"
            self.message = f"{short(row.id)} is {row.state}: {waits}."
        elif action == "revoke" and (row.section == "ended" or row.state == "failure"):
            self.message = f"{short(row.id)} has ended."
        else:
            self.asked, self.typed = Order(action, row), ""

    def _answer(self, key: str) -> Order | None:
        """To a question: y or another key; in prod, what lasts is confirmed by the stack's name."""
        order = self.asked
        if not self.deployment.is_prod:
            yes = key in ("y", "Y")
        elif key == "backspace":
            self.typed = self.typed[:-1]
            return None
        elif len(key) == 1:
            self.typed += key
            return None
        else:
            yes = key == "enter" and self.typed == self.deployment.stack
        self.asked = None
        self.message = "" if yes else "Nothing was changed."
        return order if yes else None

    @property
    def question(self) -> str:
        """What is asked; empty when nothing is."""
        if self.asked is None or self.asked.row is None:
            return ""
        row = self.asked.row
        word = f"{self.asked.action.capitalize()} {row.task} {short(row.id)}?"
        if self.deployment.is_prod:
            return f"{word} This is prod: type {self.deployment.stack} and Enter: {self.typed}"
        return f"{word} y/N"

    # --- drawing ---

    def draw(self, width: int, height: int, *, keys: bool = True) -> Any:
        """The screen as rich draws it; without `keys`, all there is, with whole ids and nothing about keys."""
        from rich.console import Group

        if self.view is None:
            return Group(_line([(f" {self.deployment.stack} ", "bold reverse"), ("  looking ...", "dim")], width))
        above = [self._head(width)]
        if self.opened is None and not self.helping:
            above += _queues(self.view.queues, width)
            above += [_line([(text, "bold red")], width) for text in self.view.wrong]
        self._room = max(3, height - len(above) - 3) if keys else len(self.all_rows)
        if self.helping:
            body = [_line([("", ""), (name.ljust(14), "bold"), (told, "")], width) for name, told in HELP]
        elif self.opened is not None:
            body = self._details(width)
        else:
            body = self._list(width, keys=keys)
        # The foot stays where it is.
        body += [_line([], width)] * (height - len(above) - len(body) - 2 if keys else 0)
        return Group(*above, _line([], width), *body, *([self._foot(width)] if keys else []))

    def _head(self, width: int) -> "Text":
        view, where = self.view, self.deployment
        assert view is not None
        parts = [
            (f" {where.stack} ", "bold reverse"),
            (f"  {where.stage}  {where.endpoint or where.region}  ", ""),
            (f"{time.strftime('%H:%M:%S', time.gmtime(view.at))} UTC", "dim"),
        ]
        if self.error:
            old = output.age(time.time() - view.at)
            parts.insert(1, (f"  {self.error} (the view is {old} old)", "bold red"))
        return _line(parts, width)

    def _list(self, width: int, *, keys: bool) -> "list[Text]":
        shown, selected = self.shown, self.selected
        lines = [self._tabs(width)]
        if not shown:
            nothing = "Nothing fits the filter." if self.words else "Nothing runs, and nothing has ended in 5 minutes."
            return [*lines, _line([(nothing, "dim")], width)]
        room = max(1, self._room - 1)
        first = 0 if not keys else min(max(0, self._index - room + 1), max(0, len(shown) - room))
        columns = _columns(shown, width, whole=not keys)
        return lines + [_row(row, columns, chosen=keys and row is selected) for row in shown[first : first + room + 1]]

    def _tabs(self, width: int) -> "Text":
        counts = {name: sum(row.section == name for row in self.all_rows) for name in SECTIONS}
        names = [("all", len(self.all_rows)), *((name, counts[name]) for name in SECTIONS)]
        parts = [
            (
                f" {name} {count} ",
                "bold reverse" if n == self.tab else "bold red" if name == "failed" and count else "dim",
            )
            for n, (name, count) in enumerate(names)
        ]
        if self.words or self.typing:
            parts.append((f"  / {self.words}", "bold yellow"))
            parts.append(("▏" if self.typing else f"  {len(self.listed)} of {len(self.all_rows)}", "yellow"))
        return _line(parts, width)

    def _details(self, width: int) -> "list[Text]":
        from rich.console import Console
        from rich.text import Text

        assert self.opened is not None
        if self.details is None:
            return [_line([(f"{self.opened.id}  ", "bold"), ("looking ...", "dim")], width)]
        console, lines = Console(width=width), []
        indent = max(len(name) for name, _ in self.details) + 2
        for name, value in self.details:
            # Lines of a traceback keep their indentation, and have the width to themselves.
            margin = indent if name else 0
            told = Text(output.safe(value), style=output.STYLES.get(value, "")).wrap(console, width - margin)
            for n, line in enumerate(told):
                lines.append(
                    Text.assemble((name.ljust(indent) if not n else " " * indent, "bold"), line) if name else line
                )
        self._top = min(self._top, max(0, len(lines) - self._room - 1))
        return lines[self._top : self._top + self._room + 1]

    def _foot(self, width: int) -> "Text":
        if question := self.question:
            return _line([(question, "bold yellow")], width)
        if self.message:
            return _line([(self.message, "bold")], width)
        hints = HINTS if self.opened is None else HINTS_OPEN
        return _line([part for key, told in hints for part in ((f" {key}", "bold cyan"), (f" {told} ", "dim"))], width)


def shares(wanted: Mapping[Section, int], room: int) -> dict[Section, int]:
    """How many lines each section gets of a room: half of it for what runs and a quarter for each of the others at
    least, if they want so many, and the rest in their order."""
    part = {"running": 2, "failed": 1, "ended": 1}
    given = {name: min(wanted[name], max(1, room * part[name] // 4)) for name in SECTIONS}
    for name in SECTIONS:
        given[name] += max(0, min(wanted[name] - given[name], room - sum(given.values())))
    return given


# --- lines ---


def _line(parts: Sequence[tuple[str, str]], width: int) -> "Text":
    """One line of styled parts, cut at the width; other people's text in it moves no cursor and is no markup."""
    from rich.text import Text

    made = Text.assemble(*((output.safe(text, lines=False), style) for text, style in parts), no_wrap=True)
    made.truncate(width, overflow="ellipsis")
    return made


def _cell(text: str, style: str, width: int, *, right: bool = False) -> "Text":
    from rich.text import Text

    made = Text(output.safe(text, lines=False), style=style)
    made.truncate(width, overflow="ellipsis")
    made.align("right" if right else "left", width)
    return made


def _queues(queues: Sequence[QueueLine], width: int) -> "list[Text]":
    from rich.text import Text

    wide = width >= WIDE
    names = ("waiting", "in flight", "delayed", "running", "dead", "per min", "failed")
    headings = names if wide else ("wait", "flight", "later", "run", "dead", "/min", "fail")
    styles = ("bold", "cyan", "blue", "cyan", "bold red", "", "red")
    told = [
        [_count(q.waiting), _count(q.in_flight), _count(q.delayed), _count(q.running), _count(q.dead)]
        + [f"{rate:.1f}" if rate else "0" for rate in (q.per_minute, q.failed_per_minute)]
        for q in queues
    ]
    widths = [max(len(heading), *(len(cells[n]) for cells in told)) for n, heading in enumerate(headings)]
    first = max((len(queue.name) for queue in queues), default=0)
    rest = width - first - sum(widths) - 2 * (len(widths) + 1)
    lines = [
        Text("  ").join(
            [_cell("queue", "bold dim", first)]
            + [_cell(text, "bold dim", size, right=True) for text, size in zip(headings, widths, strict=True)]
            + [_cell("last 5 minutes", "bold dim", max(0, rest))]
        )
    ]
    top = max((max(_fitted(queue.history, rest)) for queue in queues if rest > 0), default=0) or 1
    for queue, cells in zip(queues, told, strict=True):
        spark = "".join(_BLOCKS[-(-count * 8 // top)] for count in _fitted(queue.history, rest)) if rest > 0 else ""
        last = _cell(spark, "green", max(0, rest)) if queue.on else _cell("paused", "bold yellow", max(0, rest))
        numbers = [
            _cell(text, "dim" if text == "0" else style, size, right=True)
            for text, style, size in zip(cells, styles, widths, strict=True)
        ]
        lines.append(Text("  ").join([_cell(queue.name, "" if queue.on else "yellow", first), *numbers, last]))
    for line in lines:
        line.rstrip()
    return lines


def _count(number: int) -> str:
    """A number in seven characters at most."""
    return str(number) if number < 100_000 else f"{number // 1000}k"


def _fitted(history: Sequence[int], room: int) -> list[int]:
    """A history in so many columns at most, those that do not fit summed up."""
    each = -(-SPARK // max(1, min(room, SPARK)))
    return [sum(history[n : n + each]) for n in range(0, len(history), each)]


def _columns(shown: Sequence[Row], width: int, *, whole: bool) -> dict[str, int]:
    """The widths of the columns that there is room for, two apart; the last has the rest."""
    columns = {"id": 36 if whole else 8, "state": max(len(row.state) for row in shown)}
    columns["task"] = max(len(row.task) for row in shown)
    if width >= WIDE:
        columns |= {"queue": max(len(row.queue) for row in shown), "try": 3}
    columns["time"] = 7
    if width >= WIDE:
        columns["at"] = 8
    left = width - 2 - sum(columns.values()) - 2 * len(columns)
    if left < 18:
        columns["task"] = max(16, columns["task"] + left - 18)
    columns["about"] = max(0, width - 2 - sum(columns.values()) - 2 * len(columns))
    return columns


def _row(row: Row, columns: Mapping[str, int], *, chosen: bool) -> "Text":
    from rich.text import Text

    style = output.STYLES.get(logs.SETTLED.get(row.state, ""), "cyan" if row.section == "running" else "")
    about = f"{_bar(*row.progress)} {row.about}" if row.progress and row.progress[1] else row.about
    cells = {
        "id": _cell(row.id if columns["id"] > 8 else short(row.id), "", columns["id"]),
        "state": _cell(row.state, "bold red" if row.state == "lost" else style, columns["state"]),
        "task": _cell(row.task, "bold", columns["task"]),
        "queue": _cell(row.queue, "", columns.get("queue", 0)),
        "try": _cell(f"x{row.attempt}" if row.attempt > 1 else "", "yellow", 3, right=True),
        "time": _cell(_time(row), "", 7, right=True),
        "at": _cell("" if row.at is None else output.time_of(row.at)[11:], "dim", 8),
        "about": _cell(about, "green" if row.progress else "", columns["about"]),
    }
    made = Text("▸ " if chosen else "  ") + Text("  ").join(cells[name] for name in columns)
    if chosen:
        made.stylize("reverse")
    else:
        made.rstrip()
    return made


def _time(row: Row) -> str:
    if row.seconds is None:
        return ""
    return output.age(row.seconds) if row.section == "running" or row.seconds >= 1000 else f"{row.seconds:.2f}s"


def _bar(done: int, total: int) -> str:
    filled = 8 * done // total
    return f"{'━' * filled}{'╌' * (8 - filled)} {done}/{total}"


# --- what the keys do ---


def details(run_id: str) -> list[tuple[str, str]]:
    """A run's record as `nexus result` shows it. Raises Problem."""
    from nexus.client import AsyncResult
    from ops.cli.records import described
    from ops.problems import Problem

    record = AsyncResult[Any](run_id).record()
    if record.status == "UNKNOWN":
        raise Problem(f"{run_id} is unknown", "Its record has expired.")
    fields, below = described(record)
    told = [(name, str(value)) for name, value in fields.items() if value not in (None, "")]
    told += [("", ""), ("", below)] if below else []
    return [*told, ("", ""), ("", f"`nexus logs {short(run_id)}` shows what it wrote.")]


def retry(run_id: str) -> str:
    """Sends a failed run again; of a job, its failed members. Raises Problem."""
    from nexus.backend import backend
    from nexus.backend.store import numbers
    from nexus.client import AsyncResult
    from nexus.runs import tallies
    from ops import dead_letters

    record = AsyncResult[Any](run_id).record()
    failed = [run_id] if record.status == "FAILURE" else []
    if record.fanned_out:
        keys = [tallies.tally(run_id, record.phase, chunk) for chunk in range(tallies.chunks(record.total))]
        members = tallies.children(record)
        counted = backend().store.get(keys).values()
        failed = [members[n] for item in counted for n in sorted(numbers(item, "failed"))]
    if not failed:
        raise usage(f"{short(run_id)} is {record.status}", "What has failed for good is sent again.")
    outcome = dead_letters.retry(record.queue, dead_letters.Filter(ids=frozenset(failed)))
    gone = len(failed) - outcome.done
    return f"{outcome.done} sent again." + (f" {gone} had no dead letter any more." if gone else "")


def revoke(run_id: str) -> str:
    """Stops a run that has not ended."""
    from nexus.client import AsyncResult
    from ops.cli.records import meaning

    handle: AsyncResult[Any] = AsyncResult(run_id)
    before = handle.status
    after = "UNKNOWN" if before == "UNKNOWN" else handle.revoke("revoked by an operator")
    return f"{short(run_id)} is {after}: {meaning(before, after)}."


ACTIONS: Final[Mapping[str, Callable[[str], str]]] = {"retry": retry, "revoke": revoke}


def act(action: str, run_id: str) -> str:
    """Does what a key asked for, with its entry in the audit trail, and says what came of it. Raises Problem."""
    change = audit.Change(action, {"id": run_id})
    with audit.changing(change):
        change.outcome = ACTIONS[action](run_id)
    missing = f" The audit trail does not have it: {change.missing.what}." if change.missing else ""
    return change.outcome + missing


# --- the loop ---


class Looking:
    """Looks at the deployment, and knows which runs are segments of which jobs."""

    def __init__(self) -> None:
        self._monitor = Monitor()
        self._parents: dict[str, str] = {}

    def look(self) -> tuple[View, list[Row]]:
        """The view and its rows. Errors of AWS are botocore's."""
        view, events = self._monitor.look(), self._monitor.events
        # An id that is derived (UUIDv5) may be a segment's: its record says so, once. A segment may be a job itself.
        met = {event.run_id for event in events if _derived(event.run_id)}
        known: dict[str, str] = {}
        while met:
            unknown = sorted(met - set(self._parents))
            found = {one.id: one.parent for one in _records(unknown) if one.parent and one.segment is not None}
            known |= {run_id: self._parents.get(run_id) or found.get(run_id, run_id) for run_id in met}
            met = {parent for run_id in met if _derived(parent := known[run_id])} - set(known)
        self._parents = known
        view = replace(view, jobs=(*view.jobs, *_waiting(view, events)))
        return view, rows(view, events, known)


def _derived(run_id: str) -> bool:
    return run_id[14:15] == "5"


def _records(ids: Sequence[str]) -> "list[RunRecord]":
    from nexus.client import AsyncResult, read_records

    return read_records([AsyncResult(run_id) for run_id in ids]) if ids else []


def _waiting(view: View, events: Iterable[logs.Event]) -> list[tuple[str, str, int, int]]:
    """The jobs that have begun of late and of which no segment runs at this moment."""
    from nexus.runs import tallies

    begun = {event.run_id for event in events if event.outcome == "fanned_out"} - {job_id for job_id, *_ in view.jobs}
    return [
        (one.id, one.task, *tallies.progress(one)) for one in _records(sorted(begun)) if one.waits and not one.ended
    ]


def show_once(deployment: "Deployment") -> None:
    """One look, as plain text or drawn."""
    from rich.console import Console

    console = Console(width=None if output.fancy() else 140, no_color=not output.fancy(), highlight=False)
    screen = Screen(deployment)
    screen.show(*Looking().look())
    console.print(screen.draw(console.width, 0, keys=False))


def run(deployment: "Deployment", every: float) -> None:
    """Draws until q or Ctrl-C. A look that fails is told in the view, and tried again: a monitor outlives a short
    outage."""
    from rich.console import Console
    from rich.live import Live

    from ops.aws import Threads

    console, screen, looking = Console(), Screen(deployment), Looking()
    size, drawn = console.size, False
    # A look takes a while, and keys are answered at once.
    with Keys() as keys, Threads(2) as pool, Live(console=console, screen=True, auto_refresh=False) as live:
        look: Future[tuple[View, list[Row]]] | None = None
        doing: list[tuple[Order, Future[Any]]] = []
        due = 0.0
        while True:
            if look is None and time.monotonic() >= due:
                look, due = pool.submit(looking.look), time.monotonic() + every
            if look is not None and look.done():
                _take(screen, look)
                look, drawn = None, False
            for one in [one for one in doing if one[1].done()]:
                doing.remove(one)
                _finish(screen, *one)
                due, drawn = 0.0, False
            if not drawn or console.size != size:
                size, drawn = console.size, True
                live.update(screen.draw(size.width, size.height), refresh=True)
            for key in keys.read(0.1):
                drawn = False
                order = screen.press(key)
                if order is None:
                    continue
                if order.action == "quit":
                    return
                assert order.row is not None
                if order.action == "open":
                    doing.append((order, pool.submit(details, order.row.id)))
                else:
                    screen.message = f"{order.action} {short(order.row.id)} ..."
                    doing.append((order, pool.submit(act, order.action, order.row.id)))


def _take(screen: Screen, look: "Future[tuple[View, list[Row]]]") -> None:
    try:
        screen.show(*look.result())
    except Exception as failure:
        problem = explained(failure)
        if problem is None or screen.view is None:
            raise
        screen.error = f"{problem.what}: {problem.why}"


def _finish(screen: Screen, order: Order, done: "Future[Any]") -> None:
    try:
        outcome = done.result()
    except Exception as failure:
        problem = explained(failure)
        if problem is None:
            raise
        screen.message = f"{problem.what}. {problem.why}"
        return
    if order.action != "open":
        screen.message = outcome
    elif screen.opened is order.row:
        screen.details = outcome
