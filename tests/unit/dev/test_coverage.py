"""The lines that tests execute: which processes record them, and the report about a package with too few."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dev import covered, measure

PROGRAM = """
import os, runpy, subprocess, sys
if child := os.fork():
    os.waitpid(child, 0)
else:
    runpy.run_path(sys.argv[2])
    os._exit(0)
program = "import runpy, sys; runpy.run_path(sys.argv[1])"
subprocess.run([sys.executable, "-c", program, sys.argv[3]], env={}, check=True)
print("NEXUS_COVERAGE" in os.environ, flush=True)
runpy.run_path(sys.argv[1])
os.execve(sys.executable, [sys.executable, "-c", program, sys.argv[4]], {})
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with four modules and a function."""
    for name in (
        "shared/nexus/here.py",
        "shared/nexus/forked.py",
        "ops/started.py",
        "ops/replaced.py",
        "functions/media/work.py",
    ):
        (file := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        file.write_text("if __name__ == 'never':\n    unreached = 1\nreached = 2\n")
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def execute(checkout: Path) -> str:
    names = ("shared/nexus/here.py", "shared/nexus/forked.py", "ops/started.py", "ops/replaced.py")
    files = [checkout / name for name in names]
    done = subprocess.run(
        ["env", f"{measure.VARIABLE}={checkout}", sys.executable, "-c", PROGRAM, *files],  # `make test` sets another
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return done.stdout.strip()


def test_a_process_its_forks_what_it_starts_and_what_replaces_it_note_their_lines(checkout: Path) -> None:
    sees_the_variable = execute(checkout)

    noted = covered.executed(checkout / measure.FOLDER)

    assert {name: sorted(lines) for name, lines in noted.items()} == {
        str(checkout / "shared/nexus/here.py"): [1, 3],
        str(checkout / "shared/nexus/forked.py"): [1, 3],
        str(checkout / "ops/started.py"): [1, 3],
        str(checkout / "ops/replaced.py"): [1, 3],
    }
    assert sees_the_variable == "False"


def test_a_sandbox_notes_lines_by_their_names_in_lambda(checkout: Path, tmp_path: Path) -> None:
    sandbox = tmp_path / "sandbox"
    for name in ("code/work.py", "layer_0/python/nexus/here.py", "layer_0/python/pydantic/other.py"):
        (file := sandbox / name).parent.mkdir(parents=True)
        file.write_text("reached = 1\n")
    program = "import runpy, sys; [runpy.run_path(path) for path in sys.argv[1:]]"
    files = [str(file) for file in sandbox.rglob("*.py")]
    variables = [f"LAMBDA_TASK_ROOT={sandbox}/code", f"_LAMBDA_LAYERS_DIRS={sandbox}/layer_0"]

    measured = ["env", f"{measure.VARIABLE}={checkout}", *variables, sys.executable, "-c", program, *files]
    subprocess.run(measured, check=True)

    (noted,) = (checkout / measure.FOLDER).glob("*.jsonl")
    assert json.loads(noted.read_text()) == {"/var/task/work.py": [1], "/opt/python/nexus/here.py": [1]}


def test_no_measuring_code_is_loaded_unless_measuring_is_on() -> None:
    code = "import sys; print('dev.measure' in sys.modules, sys.monitoring.get_tool(sys.monitoring.COVERAGE_ID))"
    plain = [sys.executable, "-c", code]

    done = subprocess.run(["env", "-u", measure.VARIABLE, *plain], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "None"]


def note(checkout: Path, lines: dict[str, list[int]], rest: str = "") -> None:
    (checkout / measure.FOLDER).mkdir(parents=True)
    (checkout / measure.FOLDER / "1.jsonl").write_text(f"{json.dumps(lines)}\n{rest}")


def test_lines_of_the_layer_and_the_functions_are_those_of_their_source(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(covered, "ROOT", checkout)
    cut = '{"/opt/python/nexus/here.py": [2'
    note(checkout, {"/opt/python/nexus/here.py": [1], "/var/task/work.py": [3], "/var/task/other.py": [1]}, cut)

    noted = covered.executed(checkout / measure.FOLDER)

    assert noted == {
        str(checkout / "shared/nexus/here.py"): {1},
        str(checkout / "functions/media/work.py"): {3},
    }


def test_a_package_under_its_floor_fails_with_its_missed_lines(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covered, "ROOT", checkout)
    monkeypatch.setattr(covered, "FLOORS", {"shared/nexus": 60, "functions": 60, "ops": 60})
    note(checkout, {f"{checkout}/shared/nexus/{name}.py": [1, 3] for name in ("here", "forked")})

    said = list(covered.report(checkout / measure.FOLDER))

    assert said == [
        ("  shared/nexus            66.7 % of 6 lines", False),
        ("  ops                      0.0 % of 6 lines, less than 60 %", True),
        ("    ops/replaced.py: 1-3", False),
        ("    ops/started.py: 1-3", False),
        ("  functions/media          0.0 % of 3 lines, less than 60 %", True),
        ("    functions/media/work.py: 1-3", False),
    ]


@pytest.mark.parametrize(("lines", "code"), [([1, 2, 3], 0), ([1], 1)])
def test_the_command_fails_if_a_package_is_under_its_floor(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, lines: list[int], code: int
) -> None:
    monkeypatch.setattr(covered, "ROOT", checkout)
    monkeypatch.setattr(covered, "NOTED", checkout / measure.FOLDER)
    monkeypatch.setattr(covered, "FLOORS", {"ops": 90})
    monkeypatch.setattr(covered, "packages", lambda: {"ops": 90})
    note(checkout, {f"{checkout}/ops/{name}.py": lines for name in ("started", "replaced")})

    assert covered.main([]) == code


def test_a_run_without_measuring_fails(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covered, "NOTED", checkout / measure.FOLDER)
    assert covered.main([]) == 2
