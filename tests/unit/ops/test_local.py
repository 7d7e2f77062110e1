"""`nexus up` and `nexus down`: the local cloud of this checkout, with make replaced."""

import fcntl
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ops import checkout
from ops.checkout import Cloud
from ops.main import main
from ops.problems import ExitCode
from tests.unit.ops.conftest import Tty


class _Make:
    """A stand-in for make: records how it was called, and starts the cloud unless it is to fail."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.calls: list[list[str]] = []
        self.cloud: Cloud | None = None

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if not self.code:
            self.cloud = Cloud(7, 4999) if command[-1] == "up" else None
        return subprocess.CompletedProcess(command, self.code)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> _Make:
    made = _Make()
    monkeypatch.setattr("subprocess.run", made)
    monkeypatch.setattr(checkout, "running", lambda: made.cloud)
    return made


def test_up_starts_and_deploys_and_says_where(make: _Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--json"]) == 0
    assert make.calls == [["make", "-C", str(checkout.ROOT), "up"]]
    assert json.loads(capsys.readouterr().out)["endpoint"] == "http://127.0.0.1:4999"


def test_up_that_fails_says_where_to_look(make: _Make, capsys: pytest.CaptureFixture[str]) -> None:
    make.code = 2
    assert main(["up"]) == ExitCode.WRONG
    assert ".local/log" in capsys.readouterr().err


def test_down_asks_for_the_data_go_with_it(make: _Make, capsys: pytest.CaptureFixture[str]) -> None:
    main(["up"])
    assert main(["down"]) == ExitCode.NOT_CONFIRMED
    assert checkout.running() is not None
    assert main(["down", "--yes"]) == 0
    assert checkout.running() is None
    assert "has stopped" in capsys.readouterr().out


def test_down_without_a_cloud_succeeds(make: _Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0
    assert capsys.readouterr().out == "No local cloud was running.\n"


@pytest.mark.parametrize(("typed", "code"), [("y\n", ExitCode.DONE), ("\n", ExitCode.NOT_CONFIRMED)])
def test_down_asks_a_person(
    make: _Make, typed: str, code: ExitCode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["up"])
    monkeypatch.setattr("sys.stdin", Tty(typed))
    assert main(["down"]) == code
    assert "Stop the local cloud at http://127.0.0.1:4999 and delete its data?" in capsys.readouterr().err
    assert (checkout.running() is None) == (code == ExitCode.DONE)


def test_a_cloud_that_does_not_stop_is_reported_and_one_that_did_in_json(
    make: _Make, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["up"])
    make.code = 2
    assert main(["down", "--yes"]) == ExitCode.WRONG
    assert "The local cloud did not stop" in capsys.readouterr().err
    make.code = 0
    assert main(["down", "--yes", "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out) == {"stopped": True}


def test_a_lock_file_that_no_process_holds_is_not_a_running_cloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "lock_file", lambda: tmp_path / "cloud.json")
    assert checkout.running() is None
    (tmp_path / "cloud.json").write_text('{"pid": 7, "port": 4999}')
    assert checkout.running() is None
    with (tmp_path / "cloud.json").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert checkout.running() is None, "two processes that ask at once are not a running cloud"
    with (tmp_path / "cloud.json").open("r+") as held:
        assert checkout.take_lock(held.fileno())
        assert checkout.running() == Cloud(7, 4999)
