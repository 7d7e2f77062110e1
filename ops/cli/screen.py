"""The live view's state: what it draws and how keys change it. It knows neither the terminal nor AWS."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ops import logs
from ops.cli import output
from ops.cli.monitor import SPARK, QueueLine, View
from ops.cli.rows import SECTIONS, Row, Section
from ops.lookup import short

if TYPE_CHECKING:
    from rich.text import Text

    from ops.deployment import Deployment

type Action = Literal["open", "retry", "revoke"]

WIDE: Final = 110
"""Columns needed to show a run's queue, attempt and time, and the full names of the figures."""

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
    ("Escape", "clears the filter"),
    ("Tab", "the next list: all, running, failed, ended"),
    ("r", "send a failed run again; of a job, its failed segments"),
    ("x", "revoke a run: a run in progress is not killed, and not retried"),
    ("q", "close the open run; quit"),
    ("", ""),
    ("id", "the last eight characters, which every command takes"),
    ("segments", "are folded into their job"),
)

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Order:
    """An action that a key requests for a run."""

    action: Action
    row: Row


@dataclass(slots=True)
class Screen:
    """What is on the screen, and how the keys have changed it."""

    deployment: "Deployment"
    view: View | None = None
    all_rows: list[Row] = field(default_factory=list)
    tab: int = 0
    filter_text: str = ""
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
        """Shows a new snapshot. The selected run stays selected wherever it moves."""
        self.view, self.all_rows, self.error = view, found, None

    @property
    def listed(self) -> list[Row]:
        """The rows of the current list that match the filter."""
        wanted = SECTIONS if self.tab == 0 else (SECTIONS[self.tab - 1],)
        return [row for row in self.all_rows if row.section in wanted and row.has(self.filter_text)]

    @property
    def shown(self) -> list[Row]:
        """The rows that fit on the screen. In the list of all runs, each section gets its share."""
        listed = self.listed
        if self.tab != 0:
            return listed
        share = shares({name: sum(row.section == name for row in listed) for name in SECTIONS}, self._room)
        return [row for name in SECTIONS for row in [row for row in listed if row.section == name][: share[name]]]

    @property
    def selected(self) -> Row | None:
        """The row that the keys act on: the chosen run's, else the row now in its place; initially the first."""
        shown = self.shown
        found = next((n for n, row in enumerate(shown) if row.id == self._selected), self._index)
        self._index = max(0, min(found, len(shown) - 1))
        return shown[self._index] if shown else None

    # --- keys ---

    def press(self, key: str) -> Order | Literal["quit"] | None:
        """Handles a key; returns what it requests. Most keys only change the screen."""
        if self.asked is not None:
            return self._take_answer(key)
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
        if self.opened is None:
            return self._press_list(key)
        self._press_open(key)
        return None

    def _press_list(self, key: str) -> Order | Literal["quit"] | None:
        match key:
            case "q":
                return "quit"
            case "enter" if (row := self.selected) is not None:
                self.opened, self.details, self._top = row, None, 0
                return Order("open", row)
            case "/":
                self.typing = True
            case "escape":
                self.filter_text = ""
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

    def _press_open(self, key: str) -> None:
        if key in ("q", "escape", "enter"):
            self.opened = self.details = None
        elif key == "?":
            self.helping = True
        else:
            self._top = max(0, self._moved(key, self._top, 10_000))

    def _moved(self, key: str, at: int, of: int) -> int:
        steps = {"j": 1, "down": 1, "k": -1, "up": -1, "page down": self._room, "page up": -self._room}
        ends = {"g": 0, "home": 0, "G": of - 1, "end": of - 1}
        return ends[key] if key in ends else min(of - 1, at + steps.get(key, 0))

    def _type(self, key: str) -> None:
        match key:
            case "enter":
                self.typing = False
            case "escape":
                self.typing, self.filter_text = False, ""
            case "backspace":
                self.filter_text = self.filter_text[:-1]
            case _ if len(key) == 1:
                self.filter_text += key

    def _ask(self, action: Action) -> None:
        row = self.opened or self.selected
        if row is None:
            return
        if action == "retry" and row.state != "failure" and row.progress is None:
            waits = "it retries automatically" if row.state == "retry" else "its failed runs can be sent again"
            self.message = f"{short(row.id)} is {row.state}: {waits}."
        elif action == "revoke" and (row.section == "ended" or row.state == "failure"):
            self.message = f"{short(row.id)} has ended."
        else:
            self.asked, self.typed = Order(action, row), ""

    def _take_answer(self, key: str) -> Order | None:
        """Handles the answer to a question: y or another key. In prod, irreversible actions need the stack's name."""
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
        """The question being asked; empty if there is none."""
        if self.asked is None:
            return ""
        row = self.asked.row
        prompt = f"{self.asked.action.capitalize()} {row.task} {short(row.id)}?"
        if self.deployment.is_prod:
            return f"{prompt} This is prod: type {self.deployment.stack} and Enter: {self.typed}"
        return f"{prompt} y/N"

    # --- drawing ---

    def draw(self, width: int, height: int, *, keys: bool = True) -> Any:
        """The screen as rich draws it; without `keys` it has all rows, whole ids where they fit, and no key hints."""
        from rich.console import Group

        if self.view is None:
            return Group(_line([(f" {self.deployment.stack} ", "bold reverse"), ("  looking ...", "dim")], width))
        above = [self._head(width)]
        if self.opened is None and not self.helping:
            above += _queues(self.view.queues, width)
            above += [_line([(text, "bold red")], width) for text in self.view.wrong]
        self._room = max(3, height - len(above) - 3) if keys else len(self.all_rows)
        if self.helping:
            body = [_line([("", ""), (name.ljust(14), "bold"), (meaning, "")], width) for name, meaning in HELP]
        elif self.opened is not None:
            body = self._details(width)
        else:
            body = self._list(width, keys=keys)
        # The footer stays in place.
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
            nothing = (
                "No run matches the filter."
                if self.filter_text
                else "No run is active, and none has ended in the last 5 minutes."
            )
            return [*lines, _line([(nothing, "dim")], width)]
        room = max(1, self._room - 1)
        first = 0 if not keys else min(max(0, self._index - room + 1), max(0, len(shown) - room))
        columns = _columns(shown, width, whole=not keys and width >= WIDE)
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
        if self.filter_text or self.typing:
            parts.append((f"  / {self.filter_text}", "bold yellow"))
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
            # Traceback lines keep their indentation and get the full width.
            margin = indent if name else 0
            wrapped = Text(output.safe(value), style=output.STYLES.get(value, "")).wrap(console, width - margin)
            for n, line in enumerate(wrapped):
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
        return _line(
            [part for key, label in hints for part in ((f" {key}", "bold cyan"), (f" {label} ", "dim"))], width
        )


def shares(wanted: Mapping[Section, int], room: int) -> dict[Section, int]:
    """How many lines each section gets: running rows get at least half and each other section a quarter, if they need
    that many; the rest is given out in order."""
    part = {"running": 2, "failed": 1, "ended": 1}
    given = {name: min(wanted[name], max(1, room * part[name] // 4)) for name in SECTIONS}
    for name in SECTIONS:
        given[name] += max(0, min(wanted[name] - given[name], room - sum(given.values())))
    return given


# --- lines ---


def _line(parts: Sequence[tuple[str, str]], width: int) -> "Text":
    """One line of styled parts, cut at the width. Untrusted text cannot move the cursor and is not markup."""
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
    texts = [
        [_count(q.waiting), _count(q.in_flight), _count(q.delayed), _count(q.running), _count(q.dead)]
        + [f"{rate:.1f}" if rate else "0" for rate in (q.per_minute, q.failed_per_minute)]
        for q in queues
    ]
    widths = [max(len(heading), *(len(cells[n]) for cells in texts)) for n, heading in enumerate(headings)]
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
    for queue, cells in zip(queues, texts, strict=True):
        spark = "".join(_BLOCKS[-(-count * 8 // top)] for count in _fitted(queue.history, rest)) if rest > 0 else ""
        last = _cell(spark, "green", max(0, rest))
        if not queue.present:
            last = _cell("missing", "bold red", max(0, rest))
        elif not queue.on:
            last = _cell("paused", "bold yellow", max(0, rest))
        numbers = [
            _cell(text, "dim" if text == "0" else style, size, right=True)
            for text, style, size in zip(cells, styles, widths, strict=True)
        ]
        lines.append(Text("  ").join([_cell(queue.name, "" if queue.on else "yellow", first), *numbers, last]))
    for line in lines:
        line.rstrip()
    return lines


def _count(number: int) -> str:
    """A number in at most seven characters."""
    return str(number) if number < 100_000 else f"{number // 1000}k"


def _fitted(history: Sequence[int], room: int) -> list[int]:
    """A history in at most `room` columns; merges neighbours if it does not fit."""
    each = -(-SPARK // max(1, min(room, SPARK)))
    return [sum(history[n : n + each]) for n in range(0, len(history), each)]


def _columns(shown: Sequence[Row], width: int, *, whole: bool) -> dict[str, int]:
    """The widths of the columns that fit, two spaces apart; the last one gets the rest."""
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
    filled = 6 * done // total
    return f"{'━' * filled}{'╌' * (6 - filled)} {done}/{total}"
