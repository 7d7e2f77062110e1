"""What the documents show exists: make targets, tasks and their schedules, code that runs."""

import re
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from nexus.testing import in_memory
from tests.support import network
from tests.support.pages import tasks_of_the_readme

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
INTERNAL = {"ping", "record_mail_feedback"}


def fenced(text: str, language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    patterns = re.findall(r"^([a-z-]+)%:", makefile, re.MULTILINE)
    text = page.read_text()
    shown = re.findall(r"(?<![\w-])make ([a-z][a-z0-9-]*)", re.sub("#.*", "", fenced(text, "sh")))
    shown += re.findall(r"`make ([a-z][a-z0-9-]*)", text)
    for target in shown:
        known = target in targets or any(target.startswith(prefix) for prefix in patterns)
        assert known, f"{page.name} shows `make {target}`"


@pytest.mark.parametrize("name", sorted(network.tasks().keys() - INTERNAL))
def test_the_readme_lists_a_task_with_its_queue_and_schedule(name: str) -> None:
    task = network.tasks()[name]
    row = tasks_of_the_readme((ROOT / "README.md").read_text()).get(name)
    when = task.schedule.meaning if task.schedule else row[1] if row else "on demand"
    listed = row == (task.queue, when)
    assert listed, f'README.md, "The tasks": among those of {task.queue} it needs the row | | `{name}` | {when} |'


def test_the_readme_lists_no_other_tasks() -> None:
    others = tasks_of_the_readme((ROOT / "README.md").read_text()).keys() - (network.tasks().keys() - INTERNAL)
    assert not others, f'README.md, "The tasks": take out {", ".join(others)}'


def test_the_readmes_code_runs() -> None:
    with in_memory() as tasks:
        exec(fenced((ROOT / "README.md").read_text(), "python"), {})
        assert len(tasks.sent) == 999
        tasks.advance(timedelta(0))
        assert [mail.to for mail in tasks.mails] == [("ada@example.com",)]


def test_make_help_lists_every_measurement() -> None:
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    (line,) = [line for line in listed.splitlines() if "bench-%" in line]
    measured = re.findall(r"`make bench-(\w+)`", (ROOT / "docs" / "benchmarks.md").read_text())
    assert line.split(": ")[1].split(", ") == measured
    programs = [path for path in (ROOT / "bench").glob("*.py") if "__main__" in path.read_text()]
    folders = [path.parent for path in (ROOT / "bench").glob("*/__main__.py")]
    assert sorted(measured) == sorted(path.stem for path in (*programs, *folders))


def test_each_decision_has_a_date() -> None:
    entries = [entry for entry in (ROOT / "docs/decisions.md").read_text().split("\n\n") if entry.startswith("**")]
    undated = [entry.splitlines()[0] for entry in entries if not re.search(r"\(\d{4}-\d\d-\d\d\)\s*$", entry)]
    assert entries
    assert not undated, f"docs/decisions.md: end each entry with its date: {undated}"
