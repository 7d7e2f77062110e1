"""docs/add-a-task.md: its example works. The code runs, its test passes, and its lines fit into template.yaml."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from nexus.registry import registry
from nexus.tasks import Task
from social import catalogue
from social.catalogue import QUEUES
from tests.support.pages import DOCS, Block, blocks, tasks_of_the_readme
from tests.support.template import template

PAGE = "add-a-task.md"
NAME = "measure_media_storage"


def block(language: str, *words: str) -> Block:
    (found,) = [b for b in blocks(PAGE) if b.language == language and b.words == words]
    return found


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Iterator[Task[Any, Any]]:
    """The page's task, in the catalogue and with its code, for one test."""
    names = dict(vars(catalogue))
    exec(block("python", "catalogue").compiled(PAGE), names)
    made: Task[Any, Any] = names[NAME]
    for name, value in names.items():
        if name not in vars(catalogue):
            monkeypatch.setattr(catalogue, name, value, raising=False)
    registry.register(catalogue.__name__)
    module = ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, module)
    exec(block("python", "task").compiled(PAGE), vars(module))
    yield made
    registry._implementations.pop(NAME, None)
    registry._declared.pop(NAME)


@pytest.mark.programs
@pytest.mark.parametrize(
    "name",
    [
        "test_objects_and_bytes_under_the_prefix_are_counted",
        "test_a_run_short_of_time_continues_where_it_stopped",
    ],
)
def test_the_pages_own_tests_pass(task: Task[Any, Any], cloud: None, name: str) -> None:
    names: dict[str, Any] = {}
    exec(block("python", "test").compiled(PAGE), names)

    names[name](None)


def test_the_pages_code_ends_as_a_tasks_file_does(task: Task[Any, Any]) -> None:
    assert block("python", "task").text.splitlines()[-1] == f"handler = handler_for({NAME})"
    assert sys.modules[NAME].handler


def test_the_pages_rule_has_the_form_of_the_existing_rules(task: Task[Any, Any]) -> None:
    plain = block("yaml", "Resources").text.replace("!Sub ", "").replace("!Ref ", "").replace("!GetAtt ", "")
    ((logical, rule),) = yaml.safe_load(plain).items()
    there = template()["Resources"]["UpdateUserStatisticsRule"]
    assert logical == "MeasureMediaStorageRule"
    assert rule["Properties"].keys() == there["Properties"].keys()
    envelope = rule["Properties"]["Targets"][0]["InputTransformer"]["InputTemplate"]
    existing = there["Properties"]["Targets"][0]["InputTransformer"]["InputTemplate"]
    assert json.loads(envelope) == {**json.loads(existing), "task": NAME}
    ((parameter, body),) = yaml.safe_load(block("yaml", "Parameters").text).items()
    assert rule["Properties"]["ScheduleExpression"] == parameter
    assert task.schedule is not None
    assert (body["Default"], rule["Properties"]["Description"]) == (task.schedule.expression, task.schedule.meaning)


def test_the_pages_sample_event_is_one_that_the_task_takes(task: Task[Any, Any]) -> None:
    sample = json.loads(block("json").text)
    assert sample["task"] == NAME
    task.check(sample["args"])


def test_the_pages_row_for_the_readme_passes_the_readmes_test(task: Task[Any, Any]) -> None:
    readme = (DOCS.parent / "README.md").read_text()
    last = next(line for line in readme.splitlines() if "`update_post_engagement_scores`" in line)

    rows = tasks_of_the_readme(readme.replace(last, f"{last}\n{block('text', 'README').text}"))

    assert task.schedule is not None
    assert rows[NAME] == (task.queue, task.schedule.meaning)


def test_the_step_that_adds_a_parameter_links_to_the_table_of_parameters() -> None:
    step = (DOCS / PAGE).read_text().split("\n## ")[4]
    assert step.startswith("4. ")
    assert "(deploy.md#4-parameters)" in step


def test_the_catalogue_has_a_heading_that_names_each_queue() -> None:
    headings = re.findall(r"^# --- (.*?) ---+$", Path(catalogue.__file__).read_text(), re.MULTILINE)
    for queue in QUEUES:
        assert [queue in re.findall(r"\w+", heading) for heading in headings].count(True) == 1, queue


def test_the_tests_that_the_page_names_exist() -> None:
    tests = "\n".join(path.read_text() for path in (DOCS.parent / "tests" / "unit").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", (DOCS / PAGE).read_text()):
        assert f"def {name}(" in tests, name


def test_the_page_says_of_each_queue_what_the_template_says() -> None:
    functions = {
        body["Properties"]["Environment"]["Variables"]["NEXUS_QUEUE"]: body["Properties"]
        for body in template()["Resources"].values()
        if body["Type"] == "AWS::Serverless::Function" and "NEXUS_QUEUE" in str(body["Properties"].get("Environment"))
    }
    rows = [line.strip("| ").split(" | ") for line in (DOCS / PAGE).read_text().splitlines() if line.startswith("| ")]
    said = {row[0]: row[2:] for row in rows if row[0] in functions and len(row) == 5}
    assert said.keys() == functions.keys()
    for queue, (time_out, batch, at_once) in said.items():
        source = functions[queue]["Events"]["Messages"]["Properties"]
        assert time_out == f"{functions[queue]['Timeout']} s"
        assert (batch, at_once) == (str(source["BatchSize"]), str(source["ScalingConfig"]["MaximumConcurrency"]))
