"""`nexus new task` writes a task that passes the linters, the type checks and its own test."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ops import checkout
from ops.main import main
from ops.problems import ExitCode
from social.catalogue import QUEUES

ROOT = Path(__file__).resolve().parents[3]
WRITTEN = ("README.md", "shared/social/catalogue.py", "functions", "events", "tests/unit/jobs")
"""The files that the command reads and writes."""

LINKED = ("ops", "dev", "samples", "bench", "examples", "docs", "Makefile")
"""Other files that the checks of the whole checkout read; a linter does not follow links."""


def copied(names: Iterable[str], to: Path) -> None:
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, to / name)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of those files, in which the command runs."""
    copied(WRITTEN, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkout_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the checkout, in which the command is run."""
    copied(("README.md", "pyproject.toml", "template.yaml", "functions", "shared", "events", "tests"), tmp_path)
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(checkout_copy: Path) -> Callable[..., None]:
    """Runs a tool in the copy."""

    def run_there(*command: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=checkout_copy,
            env={
                "PYTHONPATH": f"{checkout_copy}:{checkout_copy / 'shared'}",
                "PATH": "/usr/bin:/bin",
                "HOME": str(checkout_copy),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run_there


def tree(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for name in WRITTEN
        for path in [folder / name, *(folder / name).rglob("*")]
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.programs
def test_a_generated_task_of_each_queue_passes_every_check(run: Callable[..., None]) -> None:
    names = {queue: f"look_after_{queue}" for queue in QUEUES}

    for queue, name in names.items():
        assert main(["new", "task", name, "--queue", queue]) == 0

    code = [f"functions/{queue}/{name}.py" for queue, name in names.items()]
    tests = [f"tests/unit/jobs/test_{name}.py" for name in names.values()]
    run("ruff", "check", *code, *tests, "shared/social/catalogue.py")
    run("ruff", "format", "--check", *code, *tests, "shared/social/catalogue.py")
    run("mypy", "--follow-imports=silent", "--no-incremental", *code, *tests, "shared/social/catalogue.py")
    held = ["tests/unit/test_template.py", "tests/unit/test_sample_events.py", "tests/unit/docs/test_pages.py"]
    run("pytest", "-q", "-p", "no:cacheprovider", *tests, *held, "-k", "look_after or task or readme or function")


def test_the_output_lists_every_file_written(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(copy)

    assert main(["new", "task", "count_badges", "--queue", "users"]) == 0

    changed = {path for path, content in tree(copy).items() if before.get(path) != content}
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {copy / path for _, path in said} == changed
    assert {path for what, path in said if what == "created"} == {
        "functions/users/count_badges.py",
        "events/count_badges.json",
        "tests/unit/jobs/test_count_badges.py",
    }


def test_every_existing_line_is_kept(copy: Path) -> None:
    catalogue, readme = copy / "shared/social/catalogue.py", copy / "README.md"
    before = [catalogue.read_text().splitlines(), readme.read_text().splitlines()]

    main(["new", "task", "count_badges", "--queue", "maintenance"])

    for lines, path in zip(before, (catalogue, readme), strict=True):
        left = iter(path.read_text().splitlines())
        assert all(line in left for line in lines)  # in the same order


@pytest.mark.parametrize(
    ("name", "queue", "said"),
    [
        ("CountBadges", "users", "NAME: 'CountBadges' cannot be a task's name"),
        ("count-badges", "users", "NAME: 'count-badges' cannot be"),
        ("count__badges", "users", "NAME: 'count__badges' cannot be"),
        ("../badges", "users", "NAME: '../badges' cannot be"),
        ("c" * 61, "users", "at most 60 characters"),
        ("class", "users", "a Python keyword"),
        ("json", "users", "there is a module json already"),
        ("ping", "users", "already has ping"),
        ("send_notification", "users", "already has send_notification"),
        ("media_report", "users", "already has MediaReport"),
        ("day_sums", "users", "functions/analytics/day_sums.py exists already"),
        ("digest", "users", "functions/emails/digest exists already"),
        ("count_badges", "usres", "--queue: there is no queue 'usres'"),
    ],
)
def test_an_invalid_task_is_refused_by_field_and_nothing_is_written(
    copy: Path, capsys: pytest.CaptureFixture[str], name: str, queue: str, said: str
) -> None:
    before = tree(copy)

    assert main(["new", "task", name, "--queue", queue]) == ExitCode.USAGE

    assert said in capsys.readouterr().err
    assert tree(copy) == before


def test_a_queue_without_a_heading_or_a_row_is_named_and_nothing_is_written(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = copy / "README.md"
    readme.write_text(readme.read_text().replace("| users (7) |", "| others (7) |"))
    before = tree(copy)

    assert main(["new", "task", "count_badges", "--queue", "users"]) == ExitCode.WRONG

    assert 'no row for users under "The tasks"' in capsys.readouterr().err
    assert tree(copy) == before


def test_a_task_is_written_into_the_commands_own_checkout_from_any_folder(
    copy: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setattr(checkout, "ROOT", copy)

    assert main(["new", "task", "count_badges", "--queue", "users"]) == 0

    ast.parse((copy / "functions/users/count_badges.py").read_text())
