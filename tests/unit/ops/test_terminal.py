"""Data is printed to a terminal, a pipe or a program without control characters."""

import io
import json
import re
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from rich.cells import cell_len

from ops import logs
from ops.cli import common, output
from ops.cli.commands import stack
from ops.health import Finding
from ops.logs import Event, Line
from ops.main import main
from ops.problems import Problem
from ops.validation import Check
from tests.unit.ops.conftest import Tty

HOSTILE = "".join(
    chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp", "Cs")
)
"""Every control, format (the bidirectional ones among them) and separating character, and every lone surrogate."""

OBEYED = set(HOSTILE) - {"\n", "\t"}


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
def test_no_control_sequence_is_printed(
    show: Callable[[str], None], terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, err = (Tty() if terminal else io.StringIO() for _ in range(2))
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


def test_json_output_parses_to_the_same_data() -> None:
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
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert output.safe(text) == shown
    assert "\n" not in output.safe(text, lines=False)


def test_the_live_view_escapes_markup_in_data() -> None:
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


# --- lines ---

RUN = "01a203f2-0000-7000-8000-000000000001"
FORGED = "no luck\nstatus  SUCCESS\nwrong: users: pay here"


@pytest.mark.parametrize(
    "show",
    [
        lambda: output.pairs({"status": "FAILURE", "error": FORGED}),
        lambda: stack.print_findings((Finding("failed", "users", FORGED, "Do it."),)),
        lambda: stack.print_check(Check("a check", (Finding("failed", "users", FORGED, "Do it."),))),
        lambda: output.line(Line("i", 0.0, "q", FORGED, "ERROR", fields={"reason": FORGED, "exception": FORGED}).text),
    ],
)
def test_a_text_of_several_lines_forges_none(show: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    show()
    printed = capsys.readouterr().out
    assert "no luck" in printed
    assert "\nstatus  SUCCESS" not in printed
    assert "\nwrong: users: pay here" not in printed


def test_an_event_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    event = Event(1.0, "users", "ping", RUN, "failure", 1, 0.1, FORGED)
    monkeypatch.setattr(common, "connect", lambda: None)
    monkeypatch.setattr(common, "the_queues", lambda _: ["users"])
    monkeypatch.setattr(logs, "stream", lambda *_, **__: iter([event]))
    assert main(["events", "--no-follow"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


# --- widths ---


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
@pytest.mark.parametrize("error", ["short", "word " * 14, "例外" * 30])
def test_an_id_and_a_name_are_in_one_piece_in_a_terminal_of_any_width(
    columns: int, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Tty()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("NO_COLOR", raising=False)
    output.table([{"id": RUN, "task": "send_content_digest_email", "ago": 7, "error": error.strip()}], right=("ago",))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    first = shown.splitlines()[2]
    assert f"{RUN}  send_content_digest_email" in first
    assert "…" not in shown
    # What folds is the error, if the terminal has room for a part of it.
    lines = shown.splitlines()[2:]
    fits = columns >= 36 + 25 + 3 + 24 + 3 * 2
    assert all(cell_len(line) <= columns for line in lines) or not fits
    assert len(lines) == 1 or fits
    assert "".join(line[68:].strip() for line in lines).replace(" ", "") == error.replace(" ", "")


@pytest.mark.parametrize(("columns", "narrow"), [(80, True), (120, False)])
def test_a_terminal_under_the_minimum_width_is_narrow(
    columns: int, narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Tty())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    assert output.is_narrow() == narrow
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not output.is_narrow()
