"""What `nexus validate` and `nexus doctor` report and what they do not; and that every task has a trial."""

import itertools
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ops import catalogue, configuration, doctor, health, validation, versions
from ops import template as templates
from ops.configuration import QueueConfiguration
from ops.deployment import Deployment
from ops.health import Counts, Finding, RuleState
from ops.problems import REPAIR, Problem
from ops.social import trial
from social.catalogue import QUEUES
from tests.support import network
from tests.support.template import PATH


@pytest.fixture(scope="module")
def template() -> Any:
    return templates.load(PATH.read_text())


def test_sams_packaging_is_not_reported_as_a_difference(template: Any) -> None:
    deployed = deepcopy(template)
    deployed["Resources"]["MediaFunction"]["Properties"]["CodeUri"] = "s3://bucket/key"
    deployed["Resources"]["NexusLayer"]["Metadata"] = {"SamResourceId": "NexusLayer"}
    assert list(templates.differences(template, deployed)) == []


def test_long_and_short_forms_are_the_same(template: Any) -> None:
    deployed = deepcopy(template)
    deployed["Resources"]["MediaQueue"]["Properties"]["RedrivePolicy"]["deadLetterTargetArn"] = {
        "Fn::GetAtt": ["MediaDeadLetterQueue", "Arn"]
    }
    seconds = template["Resources"]["MediaQueue"]["Properties"]["VisibilityTimeout"]
    deployed["Resources"]["MediaQueue"]["Properties"]["VisibilityTimeout"] = str(seconds)
    assert list(templates.differences(template, deployed)) == []


def test_changed_missing_and_foreign_parts_are_named(template: Any) -> None:
    deployed = deepcopy(template)
    deployed["Resources"]["MediaQueue"]["Properties"]["VisibilityTimeout"] = 30
    del deployed["Resources"]["EmailsQueue"]
    deployed["Resources"]["Extra"] = {"Type": "AWS::SQS::Queue"}
    found = list(templates.differences(template, deployed))
    assert found == ["EmailsQueue (not deployed)", "Extra (only deployed)", "MediaQueue"]


def test_the_template_gives_each_queues_concurrency(template: Any) -> None:
    assert {queue: templates.concurrency(template, queue) for queue in QUEUES} == QUEUES


def test_resources_that_drift_detection_leaves_out_are_counted_by_type() -> None:
    types = ["AWS::CloudWatch::Alarm", "AWS::SQS::QueuePolicy", "AWS::CloudWatch::Alarm", "AWS::SQS::Queue"]
    resources = [
        {"ResourceType": kind, "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"}} for kind in types[:3]
    ]
    resources.append({"ResourceType": types[3], "DriftInformation": {"StackResourceDriftStatus": "IN_SYNC"}})
    assert validation.not_checked(resources) == "2 CloudWatch::Alarm, 1 SQS::QueuePolicy"
    assert validation.not_checked(resources[3:]) == ""


@pytest.mark.usefixtures("environment")
def test_every_task_has_safe_arguments_for_its_trial() -> None:
    stage = trial.Stage("nexus-test-u", "nexus-test-p", "uploads/nexus-test-u/nexus-test-p/test.png")
    for name in network.tasks():
        network.tasks()[name].check(trial.arguments(name, stage))


def test_the_trials_arguments_change_no_lasting_data() -> None:
    stage = trial.Stage("u", "p", "k")
    assert trial.arguments("cleanup_old_posts", stage) == {"mode": "review"}
    assert trial.arguments("send_content_digest_email", stage) == {"week": "2015-W01"}
    assert trial.ADDRESS.endswith("@simulator.amazonses.com")


# --- what it finds in a stack ---

STACK = Deployment(
    "nexus-test",
    "UPDATE_COMPLETE",
    "eu-west-1",
    "1" * 12,
    {"Stage": "dev", "SenderAddress": "no-reply@real.example"},
    outputs={"UsersQueueUrl": "https://sqs/1/nexus-test-users", "Catalogue": "social.catalogue"},
)
PROD = replace(STACK, parameters={**STACK.parameters, "Stage": "prod"})
LOCAL = replace(STACK, parameters={**STACK.parameters, "Stage": "local"})

type Aws = Callable[..., Any]


@pytest.fixture
def aws(environment: None, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """Replaces every client by one with the given methods, each of which returns its value, or calls it, and returns
    that client.
    """

    def answer(value: Any) -> Callable[..., Any]:
        return lambda **given: value(**given) if callable(value) else value

    def replace_clients(**methods: Any) -> Any:
        made = SimpleNamespace(
            **{name: answer(value) for name, value in methods.items()},
            exceptions=SimpleNamespace(ResourceNotFoundException=KeyError, NotFoundException=KeyError),
        )
        for module in (validation, doctor, health):
            monkeypatch.setattr(module, "client", lambda _: made)
        monkeypatch.setattr(validation, "runtime_client", lambda _: made)
        monkeypatch.setattr("nexus.aws.sdk.client", lambda _: made)
        return made

    return replace_clients


def missing(**_: Any) -> Any:
    raise KeyError


def texts(findings: Any) -> list[str]:
    return [f"{one.severity} {one.where}: {one.what}" for one in findings]


@pytest.mark.parametrize(
    ("error", "severity", "what"),
    [
        (ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "DescribeX"), "warning", "was denied (no)"),
        (ClientError({"Error": {"Code": "InternalFailure"}}, "DescribeX"), "failed", "DescribeX failed"),
        (Problem("There is no catalogue"), "warning", "There is no catalogue"),
    ],
)
def test_a_check_that_cannot_be_made_is_a_finding(error: Exception, severity: str, what: str) -> None:
    def finder(_: Deployment) -> Any:
        raise error

    (found,) = validation.checked("rights", partial(finder, STACK)).findings
    assert (found.severity, found.where) == (severity, "rights")
    assert found.what.startswith("could not be checked: ")
    assert what in found.what


def test_a_template_that_differs_is_named_part_by_part(
    aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = {"Catalogue": {"Value": "social.catalogue"}}
    parts = {f"Part{n}": {"Type": "AWS::SNS::Topic"} for n in range(9)}
    (tmp_path / "template.yaml").write_text(json.dumps({"Globals": {"Timeout": 1}, "Outputs": outputs}))
    aws(get_template={"TemplateBody": json.dumps({"Outputs": outputs, "Resources": parts})})

    (found,) = validation._template(STACK)

    assert found.severity == "warning"
    assert "Globals, Part0 (only deployed)" in found.what
    assert found.what.endswith("and 2 more")


@pytest.mark.parametrize(
    "resources",
    [
        {},
        {"UsersFunction": {"Properties": {}}},
        {"UsersFunction": {"Properties": {"Events": {"Q": {"Type": "SQS", "Properties": {}}}}}},
        {
            "UsersFunction": {
                "Properties": {
                    "Events": {
                        "Q": {"Type": "SQS", "Properties": {"ScalingConfig": {"MaximumConcurrency": {"Ref": "N"}}}}
                    }
                }
            }
        },
    ],
)
def test_a_queue_that_this_template_does_not_describe_has_no_concurrency_to_compare(resources: Any) -> None:
    """The checkout is older than the stack, or names its functions in another way."""
    assert templates.concurrency({"Resources": resources}, "users") is None


def test_nothing_is_compared_without_a_template(aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(validation, "ROOT", tmp_path)
    aws(get_template={"TemplateBody": {}})
    (found,) = validation._template(STACK)
    assert (found.severity, found.do) == ("unchecked", "Run it in the checkout that was deployed.")


def test_a_template_of_another_application_is_not_compared(
    aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "template.yaml").write_text("Outputs: {Catalogue: {Value: shop.tasks}}")
    aws(get_template={"TemplateBody": {}})
    (found,) = validation._template(STACK)
    assert (found.severity, found.do) == ("unchecked", "Run it in the checkout that was deployed.")


def test_short_forms_of_lists_and_mappings_are_read() -> None:
    loaded = templates.load("A: !If [X, !Ref B, !Transform {Name: AWS::Include}]")
    assert loaded == {"A": {"Fn::If": ["X", {"Ref": "B"}, {"Fn::Transform": {"Name": "AWS::Include"}}]}}


def drift(monkeypatch: pytest.MonkeyPatch, *states: str) -> dict[str, Any]:
    """CloudFormation's drift detection, which goes through these states; a look takes a third of the patience."""
    clock, seen = itertools.count(0.0, validation.DRIFT_PATIENCE / 3), itertools.chain(states, itertools.repeat(""))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("time.sleep", lambda _: None)
    drifted = [
        {"LogicalResourceId": "UsersQueue", "StackResourceDriftStatus": "DELETED"},
        {
            "LogicalResourceId": "MediaQueue",
            "StackResourceDriftStatus": "MODIFIED",
            "PropertyDifferences": [{"PropertyPath": "/Tags", "ActualValue": "x" * 90, "ExpectedValue": "y"}],
        },
    ]
    return {
        "detect_stack_drift": {"StackDriftDetectionId": "1"},
        "describe_stack_drift_detection_status": lambda **_: {"DetectionStatus": next(seen)},
        "describe_stack_resource_drifts": lambda **given: (
            {"StackResourceDrifts": drifted[1:]}
            if given.get("NextToken") == "t"
            else {"StackResourceDrifts": drifted[:1], "NextToken": "t"}
        ),
    }


def test_a_drift_detection_that_does_not_end_is_given_up(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    aws(**drift(monkeypatch, *["DETECTION_IN_PROGRESS"] * 9))
    (found,) = validation._drift(STACK)
    assert "takes too long" in found.what


def test_parts_changed_or_deleted_by_hand_are_named(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    client = aws(**drift(monkeypatch, "DETECTION_IN_PROGRESS", "DETECTION_FAILED"))
    listing = SimpleNamespace(paginate=lambda **_: [{"StackResourceSummaries": []}])
    client.get_paginator = lambda _: listing
    failed, deleted, changed = validation._drift(STACK)
    assert "drift detection failed for a part (no reason given)" in failed.what
    assert (deleted.where, deleted.what, deleted.do) == ("UsersQueue", "it was deleted by hand", REPAIR)
    assert changed.what == f"it was changed by hand: Tags is {'x' * 80}... and not y"


USERS = QueueConfiguration(
    queue="users",
    concurrency=7,
    batch_size=1,
    partial_failures=True,
    timeout=60,
    memory=256,
    visibility_timeout=100,
    retention=1,
    max_receives=3,
    dead_letters_to="arn:aws:sqs:eu-west-1:111111111111:nexus-test-users-dead",
    time_limit=50.0,
    architecture="arm64",
    layers=(),
    environment={"NEXUS_QUEUE": "users", "NEXUS_STACK": "nexus-test"},
)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, []),
        (
            {"visibility_timeout": 60},
            ["warning users: visibility timeout 60 s is not longer than the function's 60 s"],
        ),
        ({"time_limit": 61.5}, ["failed users: a task's limit is 61.5 s, but the function's timeout is 60 s"]),
        ({"dead_letters_to": None}, ["failed users: it does not redrive to nexus-test-users-dead"]),
        ({"dead_letters_to": "arn:x:other"}, ["failed users: it does not redrive to nexus-test-users-dead"]),
        (
            {"environment": {"NEXUS_QUEUE": "media", "NEXUS_STACK": "nexus-test"}},
            ["failed users: the function's NEXUS_QUEUE is 'media' and not 'users'"],
        ),
        (
            {"environment": {"NEXUS_QUEUE": "users"}},
            ["failed users: the function's NEXUS_STACK is None and not 'nexus-test'"],
        ),
    ],
)
def test_settings_of_a_queue_and_its_function_that_do_not_fit_are_reported(
    changed: dict[str, Any], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "of_queues", lambda _: [replace(USERS, **changed)])
    assert texts(validation._queues(STACK)) == found


SOURCE = {
    "State": "Enabled",
    "FunctionResponseTypes": ["ReportBatchItemFailures"],
    "ScalingConfig": {"MaximumConcurrency": QUEUES["users"]},
}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (SOURCE, []),
        (None, ["failed users: no event source feeds the function"]),
        (SOURCE | {"State": "Disabled"}, ["failed users: the event source is Disabled"]),
        (SOURCE | {"FunctionResponseTypes": []}, ["failed users: the event source does not report partial failures"]),
        (
            SOURCE | {"FilterCriteria": {"Filters": [{"Pattern": "{}"}]}},
            ["failed users: the event source has a filter: messages that do not match are deleted"],
        ),
        (SOURCE | {"ScalingConfig": {}}, [f"warning users: no limit at once, template.yaml says {QUEUES['users']}"]),
    ],
)
def test_a_changed_event_source_is_reported(
    source: Any, found: list[str], template: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "event_source", lambda _: source)
    monkeypatch.setattr(validation, "_template_here", lambda _: template)
    assert texts(validation._sources(STACK)) == found


TASK = "update_trending_hashtags"
TARGET = {
    "Arn": "arn:aws:sqs:eu-west-1:1:nexus-test-analytics",
    "InputTransformer": {"InputTemplate": f'{{"task": "{TASK}"}}'},
}


@pytest.fixture
def scheduled(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One task with a schedule."""
    task = network.tasks()[TASK]
    monkeypatch.setattr(catalogue, "tasks", lambda: {TASK: task})


@pytest.mark.usefixtures("scheduled")
@pytest.mark.parametrize(
    ("rules", "targets", "found"),
    [
        ([RuleState(TASK, "rate(1 hour)", on=True)], [TARGET], []),
        ([], [TARGET], [f"failed {TASK}: its rule is missing"]),
        ([RuleState(TASK, "rate(1 hour)", on=False)], [TARGET], [f"warning {TASK}: its schedule is off"]),
        (
            [RuleState(TASK, "rate(2 hours)", on=True)],
            [TARGET],
            [f"warning {TASK}: its schedule is rate(2 hours), but rate(1 hour) was deployed"],
        ),
        (
            [RuleState(TASK, "rate(1 hour)", on=True)],
            [TARGET | {"Arn": "arn:x:other"}],
            [f"failed {TASK}: its rule does not send to nexus-test-analytics"],
        ),
        (
            [RuleState(TASK, "rate(1 hour)", on=True)],
            [TARGET | {"InputTransformer": {}}],
            [f"failed {TASK}: its rule does not send this task"],
        ),
        (
            [RuleState(TASK, "rate(1 hour)", on=True), RuleState("an_old_task", "rate(1 hour)", on=True)],
            [TARGET],
            ["failed an_old_task: a rule sends a task that the catalogue does not have"],
        ),
    ],
)
def test_a_changed_schedule_is_reported(
    aws: Aws, rules: list[RuleState], targets: list[Any], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ops.schedules import parameter

    monkeypatch.setattr(health, "rule_states", lambda: rules)
    aws(list_targets_by_rule={"Targets": targets})
    deployed = replace(STACK, parameters={parameter(TASK): "rate(1 hour)"})
    assert texts(validation._schedules(deployed)) == found


@pytest.mark.usefixtures("scheduled")
def test_an_invalid_expression_is_reported(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "rule_states", lambda: [RuleState(TASK, "cron(nonsense)", on=True)])
    aws(list_targets_by_rule={"Targets": [TARGET]})
    (found,) = validation._schedules(STACK)
    assert (found.severity, found.do) == ("failed", f"`nexus schedule set {TASK} 'cron(...)'`")


@pytest.mark.usefixtures("scheduled")
@pytest.mark.parametrize(("effect", "said"), [("Allow", []), ("Deny", ["does not let its rule send"])])
def test_a_queue_that_does_not_accept_its_rules_messages_is_reported(
    aws: Aws, effect: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = {"Effect": effect, "Condition": {"ArnLike": f"arn:aws:events:eu-west-1:1:rule/nexus-test-{TASK}"}}
    monkeypatch.setattr("nexus.backend.transport.queue_url", lambda name: f"https://sqs/1/{name}")
    aws(get_queue_attributes={"Attributes": {"Policy": json.dumps({"Statement": [statement]})}})
    found = list(validation._rules_may_send(STACK))
    assert [words in one.what for one, words in zip(found, said, strict=True)] == [True] * len(said)


def test_a_right_that_a_role_lacks_is_named(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    def simulate(**given: Any) -> Any:
        denied = "sqs:DeleteMessage"
        return {
            "EvaluationResults": [
                {"EvalActionName": name, "EvalDecision": "implicitDeny" if name == denied else "allowed"}
                for name in given["ActionNames"]
            ]
        }

    client = aws(simulate_principal_policy=simulate)
    client.meta = SimpleNamespace(partition="aws")
    monkeypatch.setattr(versions, "configuration", lambda _: {"Role": "arn:aws:iam::1:role/users"})
    (found,) = validation._rights(STACK, "users")
    assert found.what == f"its role may not sqs:DeleteMessage on arn:aws:sqs:eu-west-1:{'1' * 12}:nexus-test-users"


NOTIFIES = {"LambdaFunctionConfigurations": [{"LambdaFunctionArn": "arn:aws:lambda:eu-west-1:1:nexus-test-media:live"}]}
MAY = {"Policy": '{"Principal": "s3.amazonaws.com"}'}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, []),
        ({"get_bucket_notification_configuration": {}}, ["its uploads do not invoke nexus-test-media:live"]),
        ({"get_policy": missing}, ["S3 may not invoke it"]),
        ({"get_policy": {"Policy": "{}"}}, ["S3 may not invoke it"]),
        (
            {"get_function_concurrency": {"ReservedConcurrentExecutions": 0}},
            ["its reserved concurrency is 0: uploads go to the queue and wait there"],
        ),
    ],
)
def test_uploads_that_start_no_run_are_reported(
    aws: Aws, changed: dict[str, Any], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    well = {
        "get_bucket_notification_configuration": NOTIFIES,
        "get_policy": MAY,
        "get_function_concurrency": {"ReservedConcurrentExecutions": 5},
    }
    monkeypatch.setattr(catalogue, "upload_queue", lambda: "media")
    aws(**(well | changed))
    assert [one.what for one in validation._uploads(STACK)] == found


def test_a_stack_without_uploads_and_without_mail_has_nothing_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "upload_queue", lambda: None)
    assert list(validation._uploads(STACK)) == []
    assert list(validation._sender(replace(STACK, parameters={}))) == []


@pytest.mark.parametrize(
    ("stack", "described", "found"),
    [
        (STACK, {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}, []),
        (STACK, {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}, ["failed"]),
        (STACK, {"TimeToLiveStatus": "DISABLED"}, ["failed"]),
        (LOCAL, {}, ["unchecked"]),
    ],
)
def test_records_that_are_never_deleted_are_reported(
    aws: Aws, stack: Deployment, described: Any, found: list[str]
) -> None:
    aws(describe_time_to_live={"TimeToLiveDescription": described})
    assert [one.severity for one in validation._expiry(stack)] == found


VERIFIED = {"VerifiedForSendingStatus": True}


@pytest.mark.parametrize(
    ("stack", "identity", "account", "found"),
    [
        (STACK, VERIFIED, {}, []),
        (
            STACK,
            missing,
            {},
            [f"failed emails: SES has not verified the sender {name}@real.example" for name in ("no-reply", "digest")],
        ),
        (
            LOCAL,
            {},
            {},
            [
                f"unchecked emails: SES has not verified the sender {name}@real.example"
                for name in ("no-reply", "digest")
            ],
        ),
        (STACK, VERIFIED, {"ProductionAccessEnabled": False}, []),
        (
            PROD,
            VERIFIED,
            {"ProductionAccessEnabled": False},
            ["failed emails: SES is in the sandbox: mail reaches only verified addresses"],
        ),
        (STACK, VERIFIED, {"SendingEnabled": False}, ["failed emails: SES has stopped sending for this account"]),
    ],
)
def test_mail_that_may_not_be_sent_is_reported(
    aws: Aws, stack: Deployment, identity: Any, account: Any, found: list[str]
) -> None:
    aws(get_email_identity=identity, get_account=account)
    assert texts(validation._sender(stack)) == found


@pytest.mark.parametrize(
    ("verified", "sender", "digest", "refused"),
    [
        ("real.example", "no-reply@real.example", "", []),
        ("real.example", "no-reply@mail.eu.real.example", "", []),
        ("mail.real.example", "no-reply@real.example", "", ["no-reply@real.example", "digest@real.example"]),
        ("no-reply@real.example", "no-reply@real.example", "", ["digest@real.example"]),
        ("no-reply@real.example", "no-reply@real.example", "no-reply@real.example", []),
        ("real.example", "no-reply@real.example", "week@other.example", ["week@other.example"]),
        ("example", "no-reply@real.example", "digest@real.example", ["no-reply@real.example", "digest@real.example"]),
    ],
)
def test_a_sender_needs_one_identity_its_own_or_that_of_a_domain_above(
    aws: Aws, verified: str, sender: str, digest: str, refused: list[str]
) -> None:
    def identity(EmailIdentity: str) -> Any:  # noqa: N803 - boto3's name
        return VERIFIED if EmailIdentity == verified else missing()

    aws(get_email_identity=identity, get_account={})
    stack = replace(STACK, parameters={"SenderAddress": sender, "DigestSenderAddress": digest})
    found = [f"SES has not verified the sender {one}" for one in refused]
    assert [one.what for one in validation._sender(stack)] == found


# --- what the doctor finds ---


@pytest.mark.parametrize(
    ("stack", "alarm", "found"),
    [
        (STACK, {}, []),
        (STACK, {"AlarmActions": []}, ["warning a: it notifies no one: its actions are off"]),
        (STACK, {"ActionsEnabled": False}, ["warning a: it notifies no one: its actions are off"]),
        (STACK, {"watched": "another"}, ["failed a: it watches another, which is not a queue of the stack"]),
        (STACK, {"watched": "nexus-test-users"}, []),
        (STACK, {"watched": "nexus-test-users-dead"}, ["warning a: 6 dead letters, but it is not in ALARM"]),
        (LOCAL, {"watched": "nexus-test-users-dead"}, ["unchecked a: 6 dead letters, but it is not in ALARM"]),
        (STACK, {"watched": "nexus-test-users-dead", "StateValue": "ALARM"}, []),
    ],
)
def test_an_alarm_that_would_notify_no_one_is_reported(
    aws: Aws, stack: Deployment, alarm: dict[str, Any], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dimensions = [{"Name": "QueueName", "Value": alarm["watched"]}] if "watched" in alarm else []
    whole = {"AlarmName": "a", "StateValue": "OK", "AlarmActions": ["topic"], "Dimensions": dimensions, **alarm}
    pages = SimpleNamespace(paginate=lambda **_: [{"MetricAlarms": [whole]}])
    aws().get_paginator = lambda _: pages
    monkeypatch.setattr(health, "queue_counts", lambda _: Counts(1, 2, 3))
    assert texts(doctor.alarms(stack)) == found


def test_a_dead_letter_queue_that_is_missing_has_no_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "queue_counts", lambda _: None)
    assert doctor._dead("users") == 0


@pytest.mark.parametrize(
    ("limits", "quota", "found"),
    [
        ({"UnreservedConcurrentExecutions": 7}, {"Max24HourSend": 100.0, "SentLast24Hours": 79.0}, []),
        ({"ConcurrentExecutions": 7}, {"Max24HourSend": -1.0, "SentLast24Hours": 1e9}, []),
        (
            {"UnreservedConcurrentExecutions": 6, "ConcurrentExecutions": 1000},
            {},
            [
                (
                    "warning nexus-test: the queues may use 7 sandboxes at once, "
                    "the account has 6 for functions without a reserve"
                )
            ],
        ),
        (
            {"ConcurrentExecutions": 1000},
            {"Max24HourSend": 1000.0, "SentLast24Hours": 800.0},
            ["warning emails: SES has sent 800 of 1,000 mails of the day"],
        ),
    ],
)
def test_a_quota_that_is_nearly_used_is_reported(
    aws: Aws, limits: Any, quota: Any, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    aws(get_account_settings={"AccountLimit": limits}, get_account={"SendQuota": quota})
    monkeypatch.setattr(health, "event_source", lambda _: {"ScalingConfig": {"MaximumConcurrency": 7}})
    assert texts(doctor.quotas(STACK)) == found


def test_an_answer_without_a_date_leaves_the_clock_unchecked(aws: Aws) -> None:
    aws(describe_stacks={"ResponseMetadata": {"HTTPHeaders": {}}})
    assert [one.severity for one in doctor.clock(STACK)] == ["unchecked"]


def test_a_check_that_aws_refuses_is_a_finding_without_details() -> None:
    def walk(_: float) -> tuple[str, list[Finding]]:
        raise Problem("No queue")

    examined = doctor._walk("each queue responds to a ping", walk, 1.0)
    assert examined.detail == ""
    assert [one.what for one in examined.findings] == ["could not be checked: No queue"]
