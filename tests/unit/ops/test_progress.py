"""What make shows of a command whose output goes to a log."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dev import progress


def test_a_command_that_succeeds_prints_nothing_and_its_log_has_all_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log" / "x.log"
    assert progress.run(log, [sys.executable, "-c", "print('made'); import sys; print('warned', file=sys.stderr)"]) == 0
    assert set(log.read_text().split()) == {"made", "warned"}
    assert capfd.readouterr().err == ""


def test_a_command_that_fails_shows_the_end_of_its_log_and_keeps_its_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = "for n in range(40): print('line', n)\nraise SystemExit(3)"
    assert progress.run(tmp_path / "x.log", [sys.executable, "-c", program]) == 3
    shown = capfd.readouterr().err
    assert "This failed. The end of" in shown
    assert "line 39" in shown
    assert "line 3\n" not in shown


def test_ctrl_c_ends_the_command_without_a_traceback(tmp_path: Path) -> None:
    # Both get the signal, as in a terminal; the command sends it, so it arrives once both are running.
    program = "import os, signal, time; os.killpg(0, signal.SIGINT); time.sleep(600)"
    ended = subprocess.run(
        [sys.executable, progress.__file__, tmp_path / "x.log", sys.executable, "-c", program],
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    assert (ended.returncode, ended.stderr) == (130, "")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("", ""),
        ("Uploading\n\n---------\n", "Uploading"),
        ("CREATE_COMPLETE   AWS::SQS::Queue   MediaQueue   -   \n", "CREATE_COMPLETE AWS::SQS::Queue MediaQueue -"),
        ("\x1b[32mdone\x1b[0m\r\n", "done"),
        ("x" * 300, "x" * progress.WIDTH),
    ],
)
def test_the_last_words_are_one_line_without_colours(written: str, shown: str, tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text(written)
    assert progress.last_words(log) == shown


def test_a_long_command_reports_its_progress(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.01)
    monkeypatch.setattr(progress, "EVERY_IN_A_PIPE", 0.0)
    # A command that ends once its progress was seen, however slow the machine is.
    gate = tmp_path / "gate"
    wait = f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)"
    program = f"import pathlib, time; print('at it', flush=True)\n{wait}"
    said = progress.last_words

    def last_words(log: Path) -> str:
        if found := said(log):
            gate.touch()
        return found

    monkeypatch.setattr(progress, "last_words", last_words)
    assert progress.run(tmp_path / "x.log", [sys.executable, "-c", program]) == 0
    assert "s  at it" in capfd.readouterr().err
