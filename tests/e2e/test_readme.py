"""The README's commands, unchanged, against the deployed stack."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from samples.make import make

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
LINES = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
ENDLESS = ("nexus monitor", "nexus web", "nexus dev")
COMMANDS = [line for line in LINES if line.startswith("nexus ") and line not in ENDLESS]


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_works(command: str) -> None:
    """`nexus status` may find something wrong with a stack that other tests have used: that is exit code 1."""
    make()
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        shlex.split(command), cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout
    assert "Traceback" not in done.stderr
