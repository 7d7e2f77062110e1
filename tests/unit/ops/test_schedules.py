"""The rules of a stack's schedules: switched and changed in moto, and named when they are missing."""

from collections.abc import Callable

import boto3
import pytest

from nexus.settings import settings
from ops import schedules
from ops.problems import REPAIR, Problem

pytestmark = pytest.mark.usefixtures("cloud")

TASK = "cleanup_old_posts"


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
