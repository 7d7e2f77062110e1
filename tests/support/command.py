"""The `nexus` command as a test runs it: in this process, or in a fresh one."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from ops.checkout import ROOT
from ops.main import main
from tests.support.patience import PATIENCE

SCRIPT = [sys.executable, "-c", "import sys; from ops.main import main; sys.exit(main())"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Nexus:
    """Calls the command in this process, as its script does."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *words: str) -> Answer:
        self._capture.readouterr()
        code = main(words)
        captured = self._capture.readouterr()
        assert "Traceback" not in captured.err
        return Answer(int(code), captured.out, captured.err)


@pytest.fixture
def nexus(capsys: pytest.CaptureFixture[str]) -> Nexus:
    return Nexus(capsys)


def fresh(*words: str, **variables: str | None) -> Answer:
    """Runs the command in its own process, in a pipe; a variable of None is removed."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}", **variables}
    done = subprocess.run(
        [*SCRIPT, *words],
        env={name: value for name, value in environment.items() if value is not None},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)
