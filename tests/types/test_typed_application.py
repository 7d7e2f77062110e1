"""What type checkers report for a user's application: each wrong line is an error, and no other line is."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from nexus.definitions import TaskDefinition

ROOT = Path(__file__).parents[2]
APPLICATION = ROOT / "tests/support/typed_application.txt"
PYRIGHT = ROOT / ".local/pyright/node_modules/pyright/index.js"


def mypy(project: Path) -> set[int]:
    return _mypy(project, "")


def mypy_with_pydantics_plugin(project: Path) -> set[int]:
    return _mypy(project, "plugins = pydantic.mypy\n[pydantic-mypy]\ninit_typed = true\n")


def _mypy(project: Path, more: str) -> set[int]:
    (project / "mypy.ini").write_text(f"[mypy]\nstrict = true\nmypy_path = {ROOT / 'shared'}\n{more}")
    command = (sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(project / "cache"), "web.py")
    run = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    found = re.findall(r"^(.*):(\d+): error", run.stdout, re.MULTILINE)
    assert {file for file, _ in found} == {"web.py"}
    return {int(line) for _, line in found}


def pyright(project: Path) -> set[int]:
    config = {
        "include": ["web.py"],
        "extraPaths": [str(ROOT / "shared")],
        "venvPath": str(ROOT),
        "venv": ".venv",
        "typeCheckingMode": "strict",
        "reportUnusedExpression": "none",
    }
    (project / "pyrightconfig.json").write_text(json.dumps(config))
    command = ("node", str(PYRIGHT), "--outputjson", "-p", ".")
    run = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    found = json.loads(run.stdout)["generalDiagnostics"]
    assert {Path(each["file"]).name for each in found} == {"web.py"}
    return {each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"}


def test_a_checker_knows_every_field_of_a_task() -> None:
    """Task's constructor is written out only for checkers, so nothing at run time would miss a field."""
    tree = ast.parse((ROOT / "shared/nexus/tasks.py").read_text())
    written = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    (constructor,) = written
    assert {each.arg for each in constructor.args.kwonlyargs} == {each.name for each in fields(TaskDefinition)}


@pytest.mark.parametrize("checker", [mypy, mypy_with_pydantics_plugin, pyright], ids=lambda check: check.__name__)
def test_wrong_lines_are_errors_and_right_ones_are_not(tmp_path: Path, checker: Callable[[Path], set[int]]) -> None:
    text = APPLICATION.read_text()
    (tmp_path / "web.py").write_text(text)
    wrong = {number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# wrong")}

    assert checker(tmp_path) == wrong
