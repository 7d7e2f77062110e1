"""The deployment pipeline: its workflows, and what its roles may do (.github/workflows, ops/pipeline.yaml)."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from social.catalogue import QUEUES
from tests.support import iam
from tests.support.iam import Request, Templates, allowed, applies
from tests.support.template import ACCOUNT, REGION, STACK, resources

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PIPELINE = Templates(
    (ROOT / "ops" / "pipeline.yaml").read_text(),
    {"Stack": STACK, "Repository": "somebody/social", "Environment": "prod", "PackageBucket": "packages"},
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


def test_only_the_repository_and_its_environment_may_be_the_deploy_role() -> None:
    role = PIPELINE.body["Resources"]["DeployRole"]["Properties"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert PIPELINE.value(statement["Condition"]) == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": "repo:somebody/social:environment:prod",
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
    ],
)
def test_the_deploy_role_hands_over_and_does_nothing_itself(
    action: str, resource: str, context: dict[str, str], may: bool
) -> None:
    assert allowed(PIPELINE.of_role("DeployRole"), Request(action, resource, context)) is may


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
def test_the_boundary_lets_through_all_that_the_templates_roles_may(role: str) -> None:
    boundary = PIPELINE.of_policy("Boundary")
    for statement in iam.stack().of_role(role):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        named = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        for action in actions:
            for resource in named:
                context = {"iam:PassedToService": "scheduler.amazonaws.com"} if action == "iam:PassRole" else {}
                request = Request(action, resource, context)
                assert any(applies(one, request) for one in boundary), f"{role}: {request}"
