"""What a newer version stored and sent can be read after it was rolled back: an unknown field is ignored."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nexus.client import steps
from nexus.client.steps import GroupStep, TaskStep
from nexus.definitions import RetryPolicy
from nexus.envelope import Envelope, Segment, decode, fired_id
from nexus.ids import new_id
from nexus.periodic import PeriodicTask
from nexus.runs.record import RunError, RunRecord, error_text
from nexus.runs.spent import Spent
from nexus.worker import fanout
from nexus.worker.delivery import Readable
from tests.support.own_catalogue import NoteSent

pytestmark = pytest.mark.usefixtures("environment")

RUN, PARENT = new_id(), new_id()
SEGMENT = Segment(index=1, total=3)
SENT = Envelope(id=RUN, task="send_note", args={"user_id": "7"}, parent=PARENT, segment=SEGMENT)
FAILED = RunError("OSError", "no space", "builtins.OSError", "line 1")
USED = Spent(*(float(n) for n in range(1, len(Spent._fields) + 1)))
POLICY = RetryPolicy(2, 5.0, 60.0, frozenset({"OSError"}))
STEP = TaskStep(id=RUN, task="send_note", queue="notes", parent=PARENT, segment=SEGMENT)
FOLLOWING = (GroupStep(id=PARENT, members=((STEP,),), on_error=(STEP,)), STEP)
FIRED_AT = "2030-01-31T09:00:00Z"


def newer(stored: Any) -> Any:
    """The stored object with one more field, and so each object in it but the arguments, which are the task's own."""
    match stored:
        case dict():
            fields = {name: value if name == "args" else newer(value) for name, value in stored.items()}
            return {**fields, "newer": {"of": [1]}}
        case list():
            return [newer(value) for value in stored]
    return stored


def newer_text(stored: str) -> str:
    return json.dumps(newer(json.loads(stored)))


def longer_text(stored: str) -> str:
    """The same for an array whose places are the fields."""
    return json.dumps([*json.loads(stored), 12.5])


def schedule(body: dict[str, Any]) -> PeriodicTask:
    target = {"Arn": "arn:aws:sqs:eu-west-1:1:nexus-test-notes", "Input": json.dumps(body), "Newer": 1}
    return PeriodicTask.of({"Target": target, "ScheduleExpression": "rate(1 day)", "Newer": 1})


def waiting(member: str) -> Segment | None:
    envelope = fanout._waits_for({"id": RUN, "task": "send_note", "parent": PARENT, "member": member})
    return None if envelope is None else envelope.segment


PERIODIC = {"fired": ["daily", FIRED_AT], "task": "send_note", "args": {"user_id": "7"}}

READ: dict[str, tuple[Callable[[], Any], Any]] = {
    "envelope.decode": (lambda: decode(newer_text(SENT.encode())), SENT),
    "envelope._parsed": (lambda: decode(json.dumps(newer(PERIODIC))).id, fired_id("daily", FIRED_AT)),
    "periodic.of": (lambda: schedule(newer(PERIODIC)).args, {"user_id": "7"}),
    "record._json": (lambda: RunRecord.of({"id": RUN, "error": newer_text(error_text(FAILED))}).error, FAILED),
    "spent.of": (lambda: Spent.of({"id": RUN, "spent": longer_text(USED.text())}), USED),
    "delivery.policy": (
        lambda: Readable.policy(
            cast(Any, SimpleNamespace()), {"id": RUN, "retry": longer_text(json.dumps([2, 5.0, 60.0, ["OSError"]]))}
        ),
        POLICY,
    ),
    "steps.load": (lambda: steps.load(newer_text(steps.dump(FOLLOWING)), RUN), FOLLOWING),
    "fanout._waits_for": (lambda: waiting(newer_text(SEGMENT.model_dump_json())), SEGMENT),
    "fanout._shortfall": (
        lambda: NoteSent.model_validate_json('{"notification_id": "1", "newer": 1}'),
        NoteSent(notification_id="1"),
    ),
}
"""How each function that parses what is stored or sent reads a newer version's, and what it must get."""

NO_FIELDS = {
    "payloads.load": "arguments and results of tasks, which their own models parse",
    "payloads.taken": "a task's result, which the next task's own arguments take",
    "events._received": "an event of S3 or Lambda, by the names that it needs",
    "run.continue_from": "the task's own cursor",
    "outbox._signature": "a task's arguments; its row has columns",
}


@pytest.mark.parametrize("reader", READ)
def test_a_field_that_a_newer_version_added_is_ignored(reader: str) -> None:
    read, expected = READ[reader]

    assert read() == expected


def test_every_function_that_parses_json_is_listed_here() -> None:
    package = Path(fanout.__file__).parents[1]
    found = {
        f"{path.stem}.{function.name}"
        for path in package.rglob("*.py")
        if path.parent.name != "aws" and path.stem != "testing"  # AWS's own responses, and what a test looks at
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        and getattr(call.func, "attr", getattr(call.func, "id", ""))
        in ("loads", "model_validate_json", "validate_json")
    }

    assert found == READ.keys() | NO_FIELDS.keys()
