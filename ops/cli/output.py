"""Output of commands: tables and lines for people, plain text in a pipe, JSON for programs.

Arguments, errors, names and log lines are untrusted. All output goes through here, where `safe` and `json_text` escape
characters that would move the cursor, rename the window or reverse the text direction.
"""

import dataclasses
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal, get_args

from ops.problems import Problem
from ops.spans import At

STYLES = {
    "SUCCESS": "green",
    "ok": "green",
    "on": "green",
    "FAILURE": "red",
    "failed": "red",
    "ready": "green",
    "rejected": "red",
    "off": "yellow",
    "note": "yellow",
    "REVOKED": "yellow",
    "RETRY": "yellow",
    "STARTED": "cyan",
    "PENDING": "blue",
    "UNKNOWN": "magenta",
    "warning": "yellow",
    "partly": "yellow",
    "ALARM": "red",
}


def safe(text: str, *, lines: bool = True) -> str:
    """The text without terminal control: control, format and bidirectional characters (Unicode's Cc, Cf, Zl and Zp) and
    lone surrogates, escaped as \\x1b or \\u202e. `lines` keeps line feeds and tabs.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept or _is_space(c) else _written_out(c) for c in text)


def _is_space(character: str) -> bool:
    return unicodedata.category(character) == "Zs"


def _written_out(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON, with the same characters escaped as JSON escapes them."""
    text = json.dumps(plain(value), indent=indent, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" or _is_space(c) else json.dumps(c)[1:-1] for c in text)


def fancy(stream: Any = None) -> bool:
    """Whether colours, boxes and bars may be used: the stream is a terminal, and NO_COLOR is not set."""
    stream = stream or sys.stdout
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def line(text: str = "", style: str | None = None) -> None:
    """Prints a line on stdout; `style` applies only on a terminal."""
    text = safe(text)
    if style and fancy():
        _console().print(text, style=style, markup=False, highlight=False, soft_wrap=True)
    else:
        print(text, flush=True)


def note(text: str) -> None:
    """Prints a line on stderr, for anything that is not the result: progress, hints."""
    print(safe(text), file=sys.stderr, flush=True)


type Bar = Callable[[int, int | None, str], None]
"""What moves a progress bar: (done, total, the words before it). The total is None while it is not known."""


@contextmanager
def bar(*, shown: bool) -> Iterator[Bar]:
    """A progress bar on stderr for the time of the block, if that is a terminal."""
    if not shown or not fancy(sys.stderr):
        yield lambda _done, _total, _words: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    words = TextColumn("{task.description}", markup=False)
    columns = (words, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total, words: progress.update(
            task, completed=done, total=total, description=safe(words, lines=False)
        )


def table(rows: Iterable[Mapping[str, Any]], *, right: Sequence[str] = ()) -> None:
    """Prints rows with the same columns as a table, or in a pipe as uncut plain text. Prints nothing without rows.

    `right` names the columns to align right.
    """
    shown = [{name: "" if cell is None else safe(str(cell), lines=False) for name, cell in row.items()} for row in rows]
    if not shown:
        return
    if fancy():
        _draw(shown, right)
        return
    headings = {name: name for name in shown[0]}
    widths = {name: max(len(row[name]) for row in (headings, *shown)) for name in headings}
    for row in (headings, *shown):
        cells = (cell.rjust(widths[name]) if name in right else cell.ljust(widths[name]) for name, cell in row.items())
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


FREE_TEXT = ("error", "arguments", "summary", "about", "outcome", "who", "subject")
"""The columns that may continue on the next line; of an id or a name, a half could not be copied."""


def _draw(rows: Sequence[Mapping[str, str]], right: Sequence[str]) -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    console = _console()
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold", show_edge=False)
    widths = {name: max(cell_len(text) for text in (name, *(row[name] for row in rows))) for name in rows[0]}
    least = {name: min(width, 24) if name in FREE_TEXT else width for name, width in widths.items()}
    gaps = 2 * (len(widths) - 1)
    if sum(least.values()) + gaps > console.width:
        # A terminal that is too narrow breaks lines, and loses nothing.
        least, console.width = widths, sum(widths.values()) + gaps
    for name, width in least.items():
        justify: Literal["left", "right"] = "right" if name in right else "left"
        drawn.add_column(name, justify=justify, overflow="fold", no_wrap=width == widths[name], min_width=width)
    for row in rows:
        drawn.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row.values()))
    console.print(drawn)


def is_narrow() -> bool:
    """Whether the output is a terminal of less than a hundred columns."""
    return fancy() and _console().width < 100


def pairs(values: Mapping[str, Any]) -> None:
    """Prints names and values, one pair a line; omits None and empty values."""
    given = {name: value for name, value in values.items() if value not in (None, "")}
    width = max((len(name) for name in given), default=0)
    for name, value in given.items():
        # A further line of a value does not look like another name with its value.
        text = safe(str(value)).replace("\n", "\n" + " " * (width + 2))
        if fancy():
            from rich.text import Text

            console = _console()
            console.print(Text(name.ljust(width) + "  ", style="bold"), end="")
            console.print(text, style=STYLES.get(text, ""), markup=False, highlight=False, soft_wrap=True)
        else:
            print(f"{name.ljust(width)}  {text}")
    sys.stdout.flush()


def emit(value: Any) -> None:
    """Prints the result as one JSON document."""
    print(json_text(value, indent=2), flush=True)


def emit_line(value: Any) -> None:
    """Prints one JSON document per line, for streamed results."""
    print(json_text(value), flush=True)


def plain(value: Any) -> Any:
    """Converts a value to JSON types: dataclasses become objects, times become RFC 3339 in UTC with milliseconds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {field.name: plain(moment(inner) if _is_time(field.type) else inner) for field, inner in values}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value


def _is_time(hint: Any) -> bool:
    """Whether a field is annotated as a time, or as one or None."""
    return hint is At or At in get_args(hint)


def rounded(value: Any) -> Any:
    """A JSON value for people: floats have six decimals at most."""
    match value:
        case float():
            return round(value, 6)
        case dict():
            return {name: rounded(inner) for name, inner in value.items()}
        case list():
            return [rounded(inner) for inner in value]
    return value


def report(problem: Problem, *, as_json: bool) -> None:
    """Prints a Problem on stderr."""
    if as_json:
        error = {"what": problem.what, "why": problem.why, "do": problem.do, "exit_code": int(problem.code)}
        print(json_text({"error": error}), file=sys.stderr)
        return
    first = safe(f"nexus: {problem.what}")
    if fancy(sys.stderr):
        first = f"\033[31m{first}\033[0m"
    print(first, file=sys.stderr)
    for text in (problem.why, problem.do):
        if text:
            print(safe(f"  {text}"), file=sys.stderr)


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


def age(seconds: float | None) -> str:
    """A span of time in its two largest units: 45s, 3m 20s, 2h 5m, 4d 1h."""
    if seconds is None:
        return "-"
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{unit}")
            left %= size
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)


def moment(at: float | datetime | None) -> datetime | None:
    """A time as datetime; a number is seconds since 1970."""
    return datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else at


def time_of(at: float | datetime | None) -> str:
    """A time for people, in UTC: 2026-11-22 15:30:20."""
    found = moment(at)
    return "" if found is None else f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def flat(text: str) -> str:
    """The text on one line."""
    return " ".join(text.split())


def arguments(args: Mapping[str, Any] | None) -> str:
    """A task's arguments on one line: `user_id=u-1 limit=10 tags=["a"]`."""
    shown = ((name, v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)) for name, v in (args or {}).items())
    return " ".join(f"{name}={value}" for name, value in shown)


def cut(text: str, width: int) -> str:
    """Cuts one line to `width` characters; in a pipe nothing is cut."""
    text = flat(text)
    return text if len(text) <= width or not fancy() else text[: width - 1] + "…"
