"""The deployment pipeline: its workflows, and what its roles may do (.github/workflows, ops/pipeline.yaml)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus.aws.table import Table
from nexus.backend.store import Applied, Write
from ops import audit, versions
from social.catalogue import QUEUES
from tests.support import iam, rights
from tests.support.iam import Request, Templates, allowed, applies
from tests.support.template import ACCOUNT, REGION, STACK, resources, template

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234"
PIPELINE = Templates(
    (ROOT / "ops" / "pipeline.yaml").read_text(),
    {
        "Stack": STACK,
        "Repository": "somebody/social",
        "Environment": "prod",
        "PackageBucket": "packages",
        "KmsKeyArn": KEY,
    },
)
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/{STACK}-boundary"


def loaded(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    return found


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = loaded(path)["jobs"]
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit_and_says_its_version(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text())
    assert used
    for one in used:
        assert re.fullmatch(r"\./\.github/workflows/[\w-]+\.yml|[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one), one
        if one.startswith("./"):
            assert (ROOT / one).is_file(), f"{path.name} calls {one}, which is missing"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_stored_key_few_rights_and_an_end(path: Path) -> None:
    assert "secrets." not in path.read_text()
    assert loaded(path)["permissions"] == {"contents": "read"}
    for name, job in jobs(path).items():
        assert "timeout-minutes" in job or "uses" in job, f"{path.name}: {name} may run for six hours"
        for step in job.get("steps", []):
            assert "${{" not in step.get("run", ""), "a value put into a script is run by the shell"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_makes_what_the_makefile_has(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = re.findall(r"run: make (\S+)", path.read_text())
    assert [target for target in asked if target not in targets] == []


def test_prod_comes_after_dev_and_dev_after_the_checks() -> None:
    found = jobs(ROOT / ".github" / "workflows" / "deploy.yml")
    assert (found["dev"]["needs"], found["prod"]["needs"]) == ("checks", "dev")
    assert {name: job["with"]["environment"] for name, job in found.items() if "with" in job} == {
        "dev": "dev",
        "prod": "prod",
    }
    one = jobs(ROOT / ".github" / "workflows" / "deploy-one.yml")["deploy"]
    assert one["environment"] == "${{ inputs.environment }}", "the environment is what asks for approval"


def test_a_run_that_waits_for_an_approval_holds_up_no_other_run() -> None:
    """A run that waits counts as in progress, and keeps its concurrency group for up to 30 days."""
    approved = ROOT / ".github" / "workflows" / "deploy-one.yml"
    assert jobs(approved)["deploy"]["concurrency"] == "deploy-${{ inputs.environment }}"
    assert [path.name for path in WORKFLOWS if "concurrency" in loaded(path)] == ["pages.yml"]


def test_pushes_are_deployed_in_their_order() -> None:
    """The checks of one push begin when those of the push before it have ended, and its deployment to dev is queued."""
    assert jobs(ROOT / ".github" / "workflows" / "deploy.yml")["checks"]["concurrency"] == "checks"


ON_A_RUNNER = {"chromium", "postgresql"}
"""Packages of the tests' programs that GitHub's image of Ubuntu 24.04 has."""


def test_a_workflow_installs_the_programs_that_make_would_only_install_as_root() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (needed,) = re.findall(r"^programs: (.*) ##", makefile, re.MULTILINE)
    rules = re.findall(r"^(\S+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    asked = {
        package
        for name, recipe in rules
        if name in needed.split()
        for package in re.findall(r"apt-get install -y --no-install-recommends (\S+?)\)", recipe)
    }
    assert asked > ON_A_RUNNER
    for path in WORKFLOWS:
        for name, job in jobs(path).items():
            script = "\n".join(step.get("run", "") for step in job.get("steps", []))
            if re.search(r"make (test|unit programs)\b", script):
                installed = re.findall(r"apt-get install -y --no-install-recommends (.+)", script)
                assert asked - ON_A_RUNNER <= set(" ".join(installed).split()), f"{path.name}: {name}"


@pytest.mark.parametrize("repository", ["somebody/social", "somebody@123456/social@456789"])
def test_only_the_repository_and_its_environment_may_be_the_deploy_role(repository: str) -> None:
    """With ids, if GitHub's tokens have them: in those of repositories made since July 2026."""
    pipeline = Templates((ROOT / "ops" / "pipeline.yaml").read_text(), {**PIPELINE.known, "Repository": repository})
    assert re.fullmatch(pipeline.body["Parameters"]["Repository"]["AllowedPattern"], repository)
    role = pipeline.body["Resources"]["DeployRole"]["Properties"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert pipeline.value(statement["Condition"]) == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": f"repo:{repository}:environment:prod",
        }
    }


def arn(service: str, rest: str, region: str = REGION, account: str = ACCOUNT) -> str:
    return f"arn:aws:{service}:{region}:{account}:{rest}"


@pytest.mark.parametrize(
    ("action", "resource", "context", "may"),
    [
        ("cloudformation:ExecuteChangeSet", arn("cloudformation", f"stack/{STACK}/1"), {}, True),
        ("cloudformation:ExecuteChangeSet", arn("cloudformation", "stack/another/1"), {}, False),
        ("cloudformation:UpdateTerminationProtection", arn("cloudformation", f"stack/{STACK}/1"), {}, True),
        ("cloudformation:DeleteStack", arn("cloudformation", f"stack/{STACK}/1"), {}, False),
        ("s3:PutObject", "arn:aws:s3:::packages/nexus-test/1", {}, True),
        ("s3:PutObject", "arn:aws:s3:::packages/nexus-prod/1", {}, False),
        ("lambda:DeleteFunction", arn("lambda", f"function:{STACK}-media:7"), {}, True),
        ("lambda:DeleteFunction", arn("lambda", f"function:{STACK}-media"), {}, False),
        ("lambda:UpdateFunctionCode", arn("lambda", f"function:{STACK}-media"), {}, False),
        (
            "iam:PassRole",
            arn("iam", f"role/{STACK}-cloudformation", ""),
            {"iam:PassedToService": "cloudformation.amazonaws.com"},
            True,
        ),
        (
            "iam:PassRole",
            arn("iam", f"role/{STACK}-cloudformation", ""),
            {"iam:PassedToService": "lambda.amazonaws.com"},
            False,
        ),
        ("dynamodb:GetItem", arn("dynamodb", f"table/{STACK}-users"), {}, False),
        (
            "dynamodb:UpdateItem",
            arn("dynamodb", f"table/{STACK}-task-runs"),
            {"dynamodb:LeadingKeys": ["audit/1"]},
            True,
        ),
        ("dynamodb:UpdateItem", arn("dynamodb", f"table/{STACK}-task-runs"), {"dynamodb:LeadingKeys": ["1"]}, False),
        ("kms:Decrypt", KEY, {"kms:ViaService": f"dynamodb.{REGION}.amazonaws.com"}, True),
        ("kms:Decrypt", KEY, {"kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com"}, False),
    ],
)
def test_the_deploy_role_may_only_hand_over_to_cloudformation(
    action: str, resource: str, context: dict[str, str], may: bool
) -> None:
    assert allowed(PIPELINE.of_role("DeployRole"), Request(action, resource, context)) is may


class Lambda:
    """Six versions of each function. Notes the rights that the requests need."""

    def __init__(self) -> None:
        self.needed: list[Request] = []

    def _note(self, action: str, function: str) -> None:
        self.needed.append(Request(f"lambda:{action}", arn("lambda", f"function:{function}")))

    def get_alias(self, FunctionName: str, Name: str) -> dict[str, str]:  # noqa: N803 - boto3's names
        self._note("GetAlias", f"{FunctionName}:{Name}")
        return {"FunctionVersion": "6"}

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_versions_by_function"
        return self

    def paginate(self, FunctionName: str) -> list[dict[str, Any]]:  # noqa: N803
        self._note("ListVersionsByFunction", FunctionName)
        changed = "2026-11-28T09:00:00.000+0000"
        return [{"Versions": [{"Version": str(number), "LastModified": changed} for number in range(1, 7)]}]

    def delete_function(self, FunctionName: str, Qualifier: str) -> None:  # noqa: N803
        audit.begin()  # as every client of the commands does before a request that changes something
        self._note("DeleteFunction", f"{FunctionName}:{Qualifier}")


@pytest.mark.usefixtures("environment")
def test_the_deploy_role_may_make_every_request_with_which_old_versions_are_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lambda_ = Lambda()
    written: list[Request] = []

    def asked(table: Table, operation: str, write: Write, request: Any, meter: Any) -> Applied:
        name = "".join(part.capitalize() for part in operation.split("_"))
        (needed,) = rights.requests("dynamodb", name, request)
        context = {**needed.context, "dynamodb:LeadingKeys": [write.key]}
        written.append(Request(needed.action, needed.resource, context))
        return Applied({})

    monkeypatch.setattr(versions, "client", lambda _: lambda_)
    monkeypatch.setattr(audit, "_who", lambda: "the pipeline")
    monkeypatch.setattr(Table, "_apply", asked)
    with audit.changing(audit.Change("versions", {"prune": True})):
        assert versions.prune(list(QUEUES), 5) == {queue: [1] for queue in QUEUES}

    assert len(lambda_.needed) == 3 * len(QUEUES)
    assert len(written) == 2, "the entry of the audit trail, and its end"
    deploy_role = PIPELINE.of_role("DeployRole")
    assert [str(one) for one in (*lambda_.needed, *written) if not allowed(deploy_role, one)] == []


MADE_BY = {
    "AWS::SQS::Queue": "sqs:CreateQueue",
    "AWS::DynamoDB::Table": "dynamodb:CreateTable",
    "AWS::S3::Bucket": "s3:CreateBucket",
}


@pytest.mark.parametrize("kind", MADE_BY)
def test_cloudformation_may_make_what_the_template_names_and_nothing_of_another_stack(kind: str) -> None:
    execution = PIPELINE.of_role("ExecutionRole")
    key, pattern = iam.ARNS[kind]
    names = [iam.stack().value(body["Properties"][key]) for body in resources(kind).values()]
    assert names
    for name in names:
        assert allowed(execution, Request(MADE_BY[kind], pattern.format(name))), name
        other = pattern.format(name.replace(STACK, "other"))
        assert not allowed(execution, Request(MADE_BY[kind], other)), other


@pytest.mark.parametrize("action", ["iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy"])
def test_cloudformation_makes_no_role_without_the_boundary(action: str) -> None:
    execution = PIPELINE.of_role("ExecutionRole")
    role = arn("iam", f"role/{STACK}-MediaRole-ABC", "")
    assert allowed(execution, Request(action, role, {"iam:PermissionsBoundary": BOUNDARY}))
    assert not allowed(execution, Request(action, role))
    assert not allowed(execution, Request(action, role, {"iam:PermissionsBoundary": "arn:aws:iam::aws:policy/X"}))
    for own in ("pipeline", "cloudformation"):
        request = Request(action, arn("iam", f"role/{STACK}-{own}", ""), {"iam:PermissionsBoundary": BOUNDARY})
        assert not allowed(execution, request), "a deployment would change what deploys"
    assert not allowed(execution, Request("iam:DeleteRolePermissionsBoundary", role))
    assert not allowed(execution, Request("iam:CreatePolicyVersion", BOUNDARY))


@pytest.mark.parametrize("role", [*(f"{queue.capitalize()}Role" for queue in QUEUES), "SchedulerRole"])
def test_the_boundary_allows_every_right_of_the_templates_roles(role: str) -> None:
    boundary = PIPELINE.of_policy("Boundary")
    for statement in iam.stack().of_role(role):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        named = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        for action in actions:
            for resource in named:
                context = {"iam:PassedToService": "scheduler.amazonaws.com"} if action == "iam:PassRole" else {}
                request = Request(action, resource, context)
                assert any(applies(one, request) for one in boundary), f"{role}: {request}"


OF_SAM: Mapping[str, tuple[str, ...]] = {
    "AWS::Serverless::Function": (
        "AWS::Lambda::Function",
        "AWS::Lambda::Version",
        "AWS::Lambda::Alias",
        "AWS::Lambda::EventSourceMapping",
        "AWS::Lambda::EventInvokeConfig",
        "AWS::Lambda::Permission",
    ),
    "AWS::Serverless::LayerVersion": ("AWS::Lambda::LayerVersion",),
}

FUNCTION = arn("lambda", f"function:{STACK}-media")
BUCKET = f"arn:aws:s3:::{STACK}-media-{ACCOUNT}"
QUEUE = arn("sqs", f"{STACK}-media")
TOPIC = arn("sns", f"{STACK}-alarms")
ROLE = arn("iam", f"role/{STACK}-MediaRole-ABC", "")
MAIL = arn("ses", f"configuration-set/{STACK}-mail")

NEEDED: Mapping[str, tuple[str, str]] = {
    "AWS::CloudWatch::Alarm": (
        arn("cloudwatch", f"alarm:{STACK}-media-dead"),
        "DescribeAlarms PutMetricAlarm ListTagsForResource TagResource UntagResource DeleteAlarms",
    ),
    "AWS::CloudWatch::Dashboard": (
        arn("cloudwatch", f"dashboard/{STACK}", ""),
        "GetDashboard PutDashboard ListTagsForResource TagResource UntagResource DeleteDashboards",
    ),
    "AWS::DynamoDB::Table": (
        arn("dynamodb", f"table/{STACK}-users"),
        (
            "CreateTable DescribeTable UpdateTable DeleteTable UpdateTimeToLive DescribeTimeToLive "
            "UpdateContinuousBackups DescribeContinuousBackups DescribeContributorInsights "
            "DescribeKinesisStreamingDestination GetResourcePolicy ListTagsOfResource TagResource UntagResource"
        ),
    ),
    "AWS::Events::Rule": (
        arn("events", f"rule/{STACK}-cleanup_old_posts"),
        (
            "DescribeRule PutRule PutTargets RemoveTargets ListTargetsByRule ListTagsForResource TagResource "
            "UntagResource DeleteRule"
        ),
    ),
    "AWS::IAM::ManagedPolicy": (
        arn("iam", f"policy/{STACK}-application", ""),
        (
            "CreatePolicy GetPolicy GetPolicyVersion ListEntitiesForPolicy ListPolicyVersions CreatePolicyVersion "
            "DeletePolicyVersion DeletePolicy"
        ),
    ),
    "AWS::IAM::Role": (
        ROLE,
        (
            "CreateRole GetRole GetRolePolicy PutRolePolicy AttachRolePolicy ListAttachedRolePolicies "
            "ListRolePolicies UpdateRole UpdateRoleDescription UpdateAssumeRolePolicy PutRolePermissionsBoundary "
            "DetachRolePolicy DeleteRolePolicy TagRole UntagRole DeleteRole"
        ),
    ),
    "AWS::Lambda::Alias": (
        FUNCTION,
        (
            "CreateAlias GetAlias UpdateAlias DeleteAlias GetProvisionedConcurrencyConfig "
            "PutProvisionedConcurrencyConfig DeleteProvisionedConcurrencyConfig"
        ),
    ),
    "AWS::Lambda::EventInvokeConfig": (
        f"{FUNCTION}:live",
        (
            "PutFunctionEventInvokeConfig GetFunctionEventInvokeConfig UpdateFunctionEventInvokeConfig "
            "DeleteFunctionEventInvokeConfig"
        ),
    ),
    "AWS::Lambda::EventSourceMapping": (
        arn("lambda", "event-source-mapping:f04bcde6-2961-8b24-8015-5f0c51b2b9c1"),
        (
            "CreateEventSourceMapping GetEventSourceMapping UpdateEventSourceMapping DeleteEventSourceMapping "
            "ListTags TagResource UntagResource"
        ),
    ),
    "AWS::Lambda::Function": (
        FUNCTION,
        (
            "CreateFunction GetFunction GetFunctionCodeSigningConfig GetFunctionRecursionConfig "
            "GetFunctionScalingConfig GetRuntimeManagementConfig PutFunctionConcurrency DeleteFunctionConcurrency "
            "PutFunctionRecursionConfig PutRuntimeManagementConfig UpdateFunctionCode UpdateFunctionConfiguration "
            "TagResource UntagResource DeleteFunction"
        ),
    ),
    "AWS::Lambda::LayerVersion": (
        arn("lambda", f"layer:{STACK}-nexus:3"),
        "PublishLayerVersion GetLayerVersion DeleteLayerVersion",
    ),
    "AWS::Lambda::Permission": (f"{FUNCTION}:live", "AddPermission GetPolicy RemovePermission"),
    "AWS::Lambda::Version": (
        f"{FUNCTION}:7",
        (
            "PublishVersion GetFunctionConfiguration GetFunctionScalingConfig GetProvisionedConcurrencyConfig "
            "GetRuntimeManagementConfig ListVersionsByFunction PutRuntimeManagementConfig DeleteFunction"
        ),
    ),
    "AWS::Logs::LogGroup": (
        arn("logs", f"log-group:/aws/lambda/{STACK}-media"),
        (
            "CreateLogGroup DescribeLogGroups DescribeIndexPolicies DescribeResourcePolicies "
            "GetDataProtectionPolicy PutRetentionPolicy DeleteRetentionPolicy AssociateKmsKey DisassociateKmsKey "
            "ListTagsForResource TagResource UntagResource DeleteLogGroup"
        ),
    ),
    "AWS::S3::Bucket": (
        BUCKET,
        (
            "CreateBucket ListBucket PutBucketCORS PutBucketLogging PutBucketNotification "
            "PutBucketOwnershipControls PutBucketPublicAccessBlock PutBucketTagging PutBucketVersioning "
            "PutEncryptionConfiguration PutLifecycleConfiguration GetAccelerateConfiguration "
            "GetAnalyticsConfiguration GetBucketCORS GetBucketLogging GetBucketNotification "
            "GetBucketObjectLockConfiguration GetBucketOwnershipControls GetBucketPublicAccessBlock "
            "GetBucketTagging GetBucketVersioning GetBucketWebsite GetEncryptionConfiguration "
            "GetIntelligentTieringConfiguration GetInventoryConfiguration GetLifecycleConfiguration "
            "GetMetricsConfiguration GetReplicationConfiguration ListTagsForResource TagResource UntagResource "
            "DeleteBucket"
        ),
    ),
    "AWS::S3::BucketPolicy": (BUCKET, "GetBucketPolicy PutBucketPolicy DeleteBucketPolicy"),
    "AWS::SES::ConfigurationSet": (
        MAIL,
        (
            "CreateConfigurationSet DescribeConfigurationSet GetConfigurationSet "
            "PutConfigurationSetDeliveryOptions PutConfigurationSetReputationOptions "
            "PutConfigurationSetSendingOptions PutConfigurationSetSuppressionOptions TagResource UntagResource "
            "DeleteConfigurationSet"
        ),
    ),
    "AWS::SES::ConfigurationSetEventDestination": (
        MAIL,
        (
            "CreateConfigurationSetEventDestination DescribeConfigurationSet GetConfigurationSetEventDestinations "
            "UpdateConfigurationSetEventDestination DeleteConfigurationSetEventDestination"
        ),
    ),
    "AWS::SNS::Subscription": (
        TOPIC,
        "Subscribe GetSubscriptionAttributes SetSubscriptionAttributes Unsubscribe",
    ),
    "AWS::SNS::Topic": (
        TOPIC,
        (
            "CreateTopic GetTopicAttributes SetTopicAttributes GetDataProtectionPolicy ListSubscriptionsByTopic "
            "ListTagsForResource TagResource UntagResource DeleteTopic"
        ),
    ),
    "AWS::SNS::TopicPolicy": (TOPIC, "SetTopicAttributes"),
    "AWS::SQS::Queue": (
        QUEUE,
        "CreateQueue GetQueueAttributes GetQueueUrl ListQueueTags SetQueueAttributes TagQueue UntagQueue DeleteQueue",
    ),
    "AWS::SQS::QueuePolicy": (QUEUE, "SetQueueAttributes"),
    "AWS::Scheduler::ScheduleGroup": (
        arn("scheduler", f"schedule-group/{STACK}"),
        "CreateScheduleGroup GetScheduleGroup ListTagsForResource TagResource UntagResource DeleteScheduleGroup",
    ),
    "AWS::SecretsManager::Secret": (
        arn("secretsmanager", f"secret:{STACK}-mail-signing-AbC123"),
        (
            "CreateSecret DescribeSecret GetRandomPassword GetSecretValue UpdateSecret TagResource UntagResource "
            "DeleteSecret"
        ),
    ),
}
"""What CloudFormation's handlers of each type call, and on which resource: the permissions in AWS's resource schemas
(August 2026), without those of properties that the template does not set."""

KNOW_NO_RESOURCE = {
    "lambda:CreateEventSourceMapping",
    "logs:DescribeLogGroups",
    "logs:DescribeIndexPolicies",
    "logs:DescribeResourcePolicies",
    "secretsmanager:GetRandomPassword",
    "ses:DescribeConfigurationSet",
    "sns:GetSubscriptionAttributes",
    "sns:SetSubscriptionAttributes",
    "sns:Unsubscribe",
}
"""Actions that only a statement about all resources allows (AWS's Service Authorization Reference)."""

CONTEXT = {"iam:PermissionsBoundary": BOUNDARY, "lambda:FunctionArn": FUNCTION}


def test_the_rights_that_cloudformation_needs_are_known_for_every_resource_type() -> None:
    kinds = {body["Type"] for body in template()["Resources"].values()}
    assert {one for kind in kinds for one in OF_SAM.get(kind, (kind,))} == NEEDED.keys()


@pytest.mark.parametrize("kind", NEEDED)
def test_cloudformation_may_make_every_request_of_its_resource_handlers(kind: str) -> None:
    resource, actions = NEEDED[kind]
    service = resource.split(":")[2]
    named = [f"{service}:{action}" for action in actions.split()]
    requests = [Request(one, "*" if one in KNOW_NO_RESOURCE else resource, CONTEXT) for one in named]
    execution = PIPELINE.of_role("ExecutionRole")
    assert [str(one) for one in requests if not allowed(execution, one)] == []


@pytest.mark.parametrize("service", ["dynamodb", "secretsmanager"])
def test_cloudformation_may_have_the_stacks_key_used_and_no_other(service: str) -> None:
    execution = PIPELINE.of_role("ExecutionRole")
    via = {"kms:ViaService": f"{service}.{REGION}.amazonaws.com"}
    for action in ("CreateGrant", "DescribeKey", "Encrypt", "Decrypt", "GenerateDataKey"):
        assert allowed(execution, Request(f"kms:{action}", KEY, via)), action
        assert not allowed(execution, Request(f"kms:{action}", KEY)), f"{action} without a service between"
        assert not allowed(execution, Request(f"kms:{action}", KEY.replace("1234", "5678"), via)), action


def test_a_pipeline_of_a_stack_without_a_key_may_use_none() -> None:
    without = Templates((ROOT / "ops" / "pipeline.yaml").read_text(), {**PIPELINE.known, "KmsKeyArn": ""})
    for role in ("DeployRole", "ExecutionRole"):
        assert not [one for one in without.of_role(role) if "kms:" in str(one["Action"])]


def test_the_key_is_used_by_rules_alarms_and_logs_as_the_services_document_it() -> None:
    key = Templates((ROOT / "ops" / "key.yaml").read_text(), {"Stack": STACK})
    document = key.value(key.body["Resources"]["Key"]["Properties"]["KeyPolicy"])
    found = {one["Principal"].get("Service"): one for one in document["Statement"]}
    use = {"Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": "*"}
    rules = {name: part for name, part in found["events.amazonaws.com"].items() if name != "Sid"}
    assert rules == {**use, "Principal": {"Service": "events.amazonaws.com"}}, "no condition: EventBridge supports none"
    assert found["cloudwatch.amazonaws.com"]["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    assert found["cloudwatch.amazonaws.com"].items() >= use.items()
    assert "kms:GenerateDataKey*" in found[f"logs.{REGION}.amazonaws.com"]["Action"]
