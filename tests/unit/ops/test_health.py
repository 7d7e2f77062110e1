"""What `nexus status` finds wrong with a stack, a queue and its function, and the remedy that it names."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from nexus.settings import settings
from ops import aws, catalogue, deployment, diagnosis, health, versions
from ops.deployment import Choice, Deployment
from ops.health import Finding, QueueState
from ops.main import main
from ops.problems import REPAIR, ExitCode, Problem

QUEUE = {"UsersQueueUrl": "https://sqs/1/nexus-x-users"}
STACK = Deployment("nexus-x", "UPDATE_COMPLETE", "eu-west-1", "1" * 12, {"Stage": "dev"}, outputs=QUEUE)
LOCAL = replace(STACK, parameters={"Stage": "local"})
USERS = QueueState("users", 7, 0, 0, 0, None, 0, "Enabled", 7, "Active", None)


@pytest.mark.parametrize(
    ("stack", "status", "severity", "remedy"),
    [
        (STACK, "UPDATE_IN_PROGRESS", "warning", "Wait for the deployment"),
        (STACK, "REVIEW_IN_PROGRESS", "failed", "Deploy it"),
        (STACK, "UPDATE_ROLLBACK_COMPLETE", "warning", "The previous version is running."),
        (STACK, "UPDATE_FAILED", "failed", "`nexus repair` returns to the previous deployment."),
        (replace(STACK, outputs={}), "UPDATE_FAILED", "failed", "a first deployment continues where it stopped"),
        (STACK, "UPDATE_ROLLBACK_FAILED", "failed", "continue-update-rollback --stack-name nexus-x"),
        (STACK, "CREATE_FAILED", "failed", "Fix the cause and deploy again"),
        (STACK, "ROLLBACK_COMPLETE", "failed", "`sam delete --stack-name nexus-x`, then deploy"),
        (LOCAL, "ROLLBACK_COMPLETE", "failed", "`nexus down --yes` deletes it"),
    ],
)
def test_a_stack_that_a_deployment_left_halfway_is_a_finding(
    stack: Deployment, status: str, severity: str, remedy: str
) -> None:
    (found,) = health.of_stack(replace(stack, status=status, status_reason="a quota"))
    assert (found.severity, found.where) == (severity, "nexus-x")
    assert remedy in found.do
    assert ("(a quota)" in found.what) == (not status.endswith("_IN_PROGRESS"))


@pytest.mark.parametrize("status", ["CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"])
def test_a_complete_stack_has_no_finding(status: str) -> None:
    assert health.of_stack(replace(STACK, status=status)) == []


@pytest.fixture
def without_queues(cloud: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes a stack of this status, without outputs, the one that commands connect to."""

    def asked(params: Any, **_: Any) -> None:
        assert params["MetricDataQueries"], "AWS refuses an empty list"

    def made(status: str) -> None:
        def connect(_: Choice) -> Deployment:
            monkeypatch.setattr(catalogue, "_queues", ())
            monkeypatch.setenv("NEXUS_CATALOGUE", "")
            settings.cache_clear()
            return replace(STACK, status=status, status_reason="No more roles", outputs={})

        monkeypatch.setattr(deployment, "connect", connect)

    cloudwatch = aws.client("cloudwatch")
    cloudwatch.meta.events.register("before-parameter-build.cloudwatch.GetMetricData", asked)
    yield made
    cloudwatch.meta.events.unregister("before-parameter-build.cloudwatch.GetMetricData", asked)


def test_a_failed_first_deployment_is_reported_with_its_reason(
    without_queues: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    without_queues("CREATE_FAILED")
    assert main(["status"]) == ExitCode.WRONG
    assert "wrong: nexus-x: the stack is CREATE_FAILED (No more roles). Fix the cause" in capsys.readouterr().out


def test_the_worst_findings_come_first(
    without_queues: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_queues("CREATE_FAILED")
    mixed = [Finding(severity, "x", "y", "z") for severity in ("note", "warning", "unchecked", "failed")]
    monkeypatch.setattr(health, "_of_parts", lambda _: mixed)
    assert main(["status", "--json"]) == ExitCode.WRONG
    severities = [one["severity"] for one in json.loads(capsys.readouterr().out)["findings"]]
    assert severities == sorted(severities, key=health.SEVERITIES.index)
    assert set(severities) == set(health.SEVERITIES)


@pytest.mark.parametrize(
    "command", ["dlq list", "dlq retry --all", "inspect active", "events --no-follow", "monitor --once"]
)
def test_another_applications_stack_is_not_reported_as_without_dead_letters(
    without_queues: Callable[[str], None], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    without_queues("CREATE_COMPLETE")
    assert main(command.split()) == ExitCode.UNREACHABLE
    assert "has no queues" in capsys.readouterr().err
    assert main(["status"]) == ExitCode.WRONG
    assert "none of the stack's outputs names a queue. Is another --stack meant?" in capsys.readouterr().out


def alarm(name: str, dimension: str, watched: str) -> None:
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName=name,
        Namespace="AWS",
        MetricName="m",
        Dimensions=[{"Name": dimension, "Value": watched}],
        Statistic="Sum",
        Period=300,
        EvaluationPeriods=1,
        ComparisonOperator="GreaterThanThreshold",
        Threshold=0,
    )


@pytest.mark.usefixtures("cloud", "environment")
def test_a_stack_whose_name_begins_with_this_ones_is_another() -> None:
    for stack in ("nexus-test", "nexus-test-ada"):
        rule = f"{stack}-cleanup_old_posts"
        aws.client("events").put_rule(Name=rule, ScheduleExpression="rate(1 day)", State="DISABLED")
        alarm(f"{stack}-users-dead", "QueueName", f"{stack}-users-dead")
        alarm(f"{stack}-media-errors", "FunctionName", f"{stack}-media")
        alarm(f"{stack}-schedules-dropped", "ScheduleGroup", stack)
    alarm("nexus-test-users-age", "QueueName", "nexus-test-gone")  # this stack's, though what it watches is gone
    assert [rule.task for rule in health.rule_states()] == ["cleanup_old_posts"]
    assert {one.name for one in health._alarms(("users", "media"))} == {
        "nexus-test-users-dead",
        "nexus-test-media-errors",
        "nexus-test-schedules-dropped",
        "nexus-test-users-age",
    }


@pytest.mark.parametrize(
    ("state", "what", "do"),
    [
        (replace(USERS, present=False), "the queue is missing", REPAIR),
        (replace(USERS, dead_present=False), "its dead-letter queue is missing", REPAIR),
        (replace(USERS, function="missing"), "the function is missing", REPAIR),
        (
            replace(USERS, function="Failed: no image"),
            "the function is Failed: no image",
            "`nexus logs --queue users`.",
        ),
        (replace(USERS, source="missing"), "no event source feeds the function", REPAIR),
        (replace(USERS, source="Disabled"), "the queue is paused", "`nexus resume users`"),
        (replace(USERS, source="Disabled", waiting=3), "the queue is paused, 3 waiting", "`nexus resume users`"),
        (replace(USERS, reserved=0), "the function's reserved concurrency is 0", "`nexus resume users`"),
        (replace(USERS, dead=1), "1 dead letter", "`nexus dlq list users`"),
    ],
)
def test_a_fault_of_a_queue_is_named_with_its_remedy(state: QueueState, what: str, do: str) -> None:
    (found,) = health._of_queue(state)
    assert found.where == "users"
    assert what in found.what
    assert do in found.do


def test_a_working_queue_has_no_finding() -> None:
    assert health._of_queue(replace(USERS, function="Inactive", reserved=2)) == []


@pytest.fixture
def lambda_(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The configuration of the function, to be filled by a test."""
    configuration: dict[str, Any] = {}

    class Lambda:
        def get_function_concurrency(self, **_: Any) -> dict[str, int]:
            return {"ReservedConcurrentExecutions": 4}

        exceptions = type("exceptions", (), {"ResourceNotFoundException": KeyError})

    monkeypatch.setattr(health, "client", lambda _: Lambda())
    monkeypatch.setattr(versions, "configuration", lambda _: configuration)
    return configuration


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("configuration", "state"),
    [
        ({"State": "Active"}, "Active"),
        ({"State": "Active", "LastUpdateStatus": "Failed"}, "Failed: its last update"),
        ({"LastUpdateStatus": "Failed", "LastUpdateStatusReason": "no layer"}, "Failed: no layer"),
        ({"State": "Pending", "StateReason": "being created"}, "Pending: being created"),
        ({"State": "Pending"}, "Pending"),
    ],
)
def test_the_state_of_a_function_says_why(lambda_: dict[str, Any], configuration: dict[str, str], state: str) -> None:
    lambda_ |= configuration | {"LastModified": "1970-01-01T00:01:00+00:00", "Version": "7"}
    assert health._function("users") == (state, 4, 60.0, "7")
    assert (health.reserved_concurrency("users"), health.live_version("users")) == (4, (60.0, "7"))


@pytest.mark.usefixtures("environment")
def test_a_function_that_was_deleted_has_no_event_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: Any) -> None:
        raise KeyError

    class Lambda:
        list_event_source_mappings = staticmethod(missing)
        exceptions = type("exceptions", (), {"ResourceNotFoundException": KeyError})

    monkeypatch.setattr(health, "client", lambda _: Lambda())
    monkeypatch.setattr(versions, "configuration", missing)
    assert health.event_source("users") is None


def test_a_queue_that_may_not_be_read_is_not_reported_as_missing(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert health.queue_counts("no-such-queue") is None

    def denied(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetQueueAttributes")

    class Sqs:
        get_queue_attributes = staticmethod(denied)

    monkeypatch.setattr("nexus.aws.sdk.client", lambda _: Sqs())
    with pytest.raises(ClientError):
        health.queue_counts(settings().queue_name("users"))


@pytest.mark.parametrize(
    ("kind", "code", "severity", "what"),
    [
        ("Table", "ResourceNotFoundException", "failed", "the table is missing"),
        ("Bucket", "404", "failed", "the bucket is missing"),
        ("ScheduleGroup", "ResourceNotFoundException", "failed", "the schedule group is missing"),
        ("Bucket", "403", "warning", "it cannot be checked whether the bucket exists: 403"),
    ],
)
def test_a_part_that_may_not_be_read_is_not_reported_as_missing(
    kind: str, code: str, severity: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**_: Any) -> None:
        raise ClientError({"Error": {"Code": code}}, "Describe")

    class Client:
        describe_table = head_bucket = get_schedule_group = staticmethod(fails)

    monkeypatch.setattr("nexus.aws.sdk.client", lambda _: Client())
    (found,) = health._of_parts(replace(STACK, outputs={f"Posts{kind}Name": "posts", "Version": "1"}))
    assert (found.severity, found.where, found.what) == (severity, "posts", what)


@pytest.mark.parametrize(
    ("one", "what"),
    [
        (
            diagnosis.Dying("users", 0.0, 1, "no module"),
            "died before it starts a run once, at 00:00:00",
        ),
        (
            diagnosis.Dying("users", 60.0, 3, "", in_a_run=True),
            "in the middle of a run 3 times since 00:01:00 UTC: its",
        ),
    ],
)
def test_a_function_that_dies_is_a_finding(one: diagnosis.Dying, what: str) -> None:
    assert what in health._of_dying(one, USERS).what


def test_a_dying_functions_finding_counts_the_messages_that_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "unclaimed", lambda _queue, in_flight: in_flight - 1)
    one = diagnosis.Dying("users", 0.0, 1, "no module")
    found = health._of_dying(one, replace(USERS, in_flight=2))
    assert found.what.endswith("no module. 1 message in flight that no run has claimed")


def test_schedules_of_an_unknown_catalogue_are_reported_as_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Problem("The catalogue shop.tasks cannot be imported", "No module named 'shop'", "Install it.")
    monkeypatch.setattr(catalogue, "missing", lambda: missing)
    (unchecked, off) = health._of_rules([health.RuleState("tidy", "rate(1 day)", on=False)], STACK)
    assert unchecked.severity == "warning"
    assert "shop.tasks cannot be imported (No module named 'shop')" in unchecked.what
    assert (off.where, off.what) == ("tidy", "its rule is off")
