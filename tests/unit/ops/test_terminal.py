"""Data is printed to a terminal, a pipe or a program without control characters."""

import io
import json
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest

from ops.cli import output
from ops.logs import Event, Line
from ops.problems import Problem

HOSTILE = "".join(
    chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp", "Cs")
)
"""Every control, format (the bidirectional ones among them) and separating character, and every lone surrogate."""

OBEYED = set(HOSTILE) - {"\n", "\t"}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def rows(text: str) -> None:
    output.table([{"id": text, "error": text}])


PRINTS: list[Callable[[str], None]] = [
    output.line,
    lambda text: output.line(text, "red"),
    output.note,
    rows,
    lambda text: output.pairs({"error": text}),
    output.emit,
    output.emit_line,
    lambda text: output.emit({"args": {text: [text]}}),
    lambda text: output.report(Problem(text, text, text), as_json=False),
    lambda text: output.report(Problem(text, text, text), as_json=True),
    lambda text: output.line(Line("i", 0.0, "q", text, "ERROR", fields={"reason": text, "exception": text}).text),
]


@pytest.mark.parametrize("show", PRINTS)
@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_that_a_terminal_obeys_is_printed(
    show: Callable[[str], None], terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, err = (_Terminal() if terminal else io.StringIO() for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    show(f"before{HOSTILE}after")
    printed = out.getvalue() + err.getvalue()
    assert "before" in printed
    assert "after" in printed
    # The colours are the command's own.
    for own in ("\x1b[31m", "\x1b[1m", "\x1b[0m"):
        printed = printed.replace(own, "")
    assert not set(printed) & OBEYED


def test_json_says_the_same_as_the_data() -> None:
    # Two surrogates side by side are a character of their own once JSON is read: one alone is left here.
    text = "".join(c for c in HOSTILE if unicodedata.category(c) != "Cs") + "\ud800"
    reported = {"name": text, "word": "Grüße 日本 👩"}
    assert json.loads(output.json_text(reported)) == reported
    assert json.loads(output.json_text(reported, indent=2)) == reported


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Grüße 日本 👩 a\u00a0b", "plain, Grüße 日本 👩 a\u00a0b"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\u202eb", r"a\u202eb"),
        ("tag \U000e0041", r"tag \U000e0041"),
        ("two\nlines\tof", "two\nlines\tof"),
    ],
)
def test_what_is_written_out(text: str, shown: str) -> None:
    assert output.safe(text) == shown
    assert "\n" not in output.safe(text, lines=False)


def test_the_live_view_shows_data_as_text_and_obeys_none_of_its_markup() -> None:
    from rich.console import Console

    from ops.cli import rows, screen
    from ops.cli.monitor import View

    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    event = Event(0.0, "users", "[red]task[/]\x1b[2J", "id\u202e", "failure", 1, 0.1, "[link=x]why[/link]\x07")
    where: Any = None
    shown = screen.Screen(where)
    shown.show(View(0.0, (), (), (), (), ()), rows.rows(View(0.0, (), (), (), (), ()), [event], {}))
    for line in shown._list(200, keys=True):
        console.print(line)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]task[/]" in printed
    assert "[link=x]why" in printed
    assert not set(printed) & OBEYED
