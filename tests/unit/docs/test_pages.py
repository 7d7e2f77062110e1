"""What the documents show exists: make targets, tasks and their schedules, code that runs."""

import re
from pathlib import Path

import pytest

from nexus import catalogue
from nexus.testing import memory_backend

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


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


def test_the_readme_lists_every_task_with_its_queue_and_schedule() -> None:
    text = (ROOT / "README.md").read_text()
    queue = ""
    rows: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and "`" in cells[1]:
            queue = cells[0].split(" ")[0] or queue
            for name in re.findall(r"`(\w+)`", cells[1]):
                rows[name] = (queue, cells[2])
    internal = {"ping", "record_mail_feedback"}
    assert set(rows) == set(catalogue.TASKS) - internal
    for name, (queue, when) in rows.items():
        task = catalogue.TASKS[name]
        assert queue == task.queue
        assert task.schedule is None or task.schedule.meaning == when


@pytest.mark.usefixtures("environment")
def test_the_readmes_code_runs() -> None:
    with memory_backend() as tasks:
        exec(fenced((ROOT / "README.md").read_text(), "python"), {})
        assert len(tasks.calls) == 999
