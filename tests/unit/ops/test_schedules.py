"""The rules of a stack's schedules: switched and changed in moto, and named when they are missing."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import boto3
import pytest

from nexus.backend import backend
from nexus.envelope import Envelope
from nexus.ids import derived_id, new_id
from nexus.settings import settings
from nexus.testing import memory_backend
from ops import control, logs, schedules
from ops.health import RuleState
from ops.problems import REPAIR, Problem
from social import catalogue

pytestmark = pytest.mark.usefixtures("cloud")

TASK = "cleanup_old_posts"

EVENTS = [
    f"{start}-9a5c-5f0c51b2b9c1"
    for start in (
        "f04bcde6-2961-8b24",
        "853f5359-b500-b392",
        "a3441b5a-dc44-2028",
        "28433b70-41cb-18df",
        "7c289f9d-0d83-e481",
        "0d4a3544-ea7e-1478",
        "60b2a65a-a2b7-58a9",
        "bdab8054-fda8-3d4f",
        "93ea9825-264f-90fd",
    )
]
"""Ids that begin as those of "Scheduled Event" events of EventBridge."""


def test_a_schedules_firings_are_the_runs_that_a_rule_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given the log lines of nine firings, of a manual run with an id of each kind, and of another task's firing
    lines = [*((run_id, TASK, "rule") for run_id in EVENTS), (new_id(), TASK, None), (derived_id(1), TASK, None)]
    lines.append(("60b2a65a-a2b7-48a9-9a5c-5f0c51b2b9c1", f"{TASK}_too", "rule"))

    def read(queue: str, phrases: Sequence[str], *_: Any, **__: Any) -> Iterator[logs.Line]:
        for at, (run_id, task, origin) in enumerate(lines if "run started" in phrases else lines[:1]):
            fields = {"run_id": run_id, "task": task} | ({"origin": origin} if origin else {})
            yield logs.Line(str(at), float(at), queue, "run started", fields=fields)

    monkeypatch.setattr(logs, "read", read)
    assert schedules.history(catalogue.cleanup_old_posts, 1.0) == [
        (run_id, float(n)) for n, run_id in enumerate(EVENTS)
    ]


@pytest.mark.parametrize("digit", "0123456789abcdef")
def test_a_purged_firing_is_recorded_as_revoked_whatever_version_its_id_seems_to_have(digit: str) -> None:
    firing = Envelope(id=f"f04bcde6-2961-{digit}b24-8015-1a2b3c4d5e6f", task=TASK, origin="rule")
    with memory_backend():
        assert control._revoke([firing], "maintenance") == (1, set())
        record = backend().store.get([firing.id])[firing.id]
    assert (record["status"], record["task"], record["origin"]) == ("REVOKED", TASK, "rule")


@pytest.mark.parametrize(
    "act",
    [
        lambda: schedules.switch(TASK, on=True),
        lambda: schedules.switch(TASK, on=False),
        lambda: schedules.expression(TASK),
        lambda: schedules.change(TASK, "rate(1 day)"),
    ],
)
def test_a_rule_that_was_deleted_is_named_with_its_remedy(act: Callable[[], object]) -> None:
    with pytest.raises(Problem, match=f"{TASK} has no rule in {settings().stack}") as raised:
        act()
    assert raised.value.do == REPAIR


def test_a_change_leaves_the_rest_of_the_rule_as_it_was() -> None:
    events, name = boto3.client("events"), f"{settings().stack}-{TASK}"
    events.put_rule(Name=name, ScheduleExpression="rate(1 hour)", Description="Weekly", State="ENABLED")
    schedules.switch(TASK, on=False)

    schedules.change(TASK, "rate(2 hours)")

    rule = events.describe_rule(Name=name)
    assert (rule["State"], rule["Description"]) == ("DISABLED", "Weekly")
    assert schedules.expression(TASK) == "rate(2 hours)"
    schedules.switch(TASK, on=True)
    assert events.describe_rule(Name=name)["State"] == "ENABLED"


def test_a_rule_whose_expression_is_not_understood_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone may have set it in the console."""
    rules = [
        RuleState(TASK, "cron(0 0 15,L * ? *)", on=True),
        RuleState("update_trending_hashtags", "rate(1 hour)", on=True),
    ]
    monkeypatch.setattr(schedules, "rule_states", lambda: rules)
    monkeypatch.setattr("ops.catalogue.tasks", lambda: {rule.task: getattr(catalogue, rule.task) for rule in rules})
    found = {row.task: row for row in schedules.listed(None)}
    assert found[TASK].next_at is None
    assert found[TASK].meaning == "cron(0 0 15,L * ? *)"
    assert set(found) == {TASK, "update_trending_hashtags"}
