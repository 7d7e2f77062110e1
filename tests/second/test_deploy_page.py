"""Every `aws` command of docs/deploy.md, run in the page's order on localemu, which has CloudFormation that fails.

The page begins with a stack whose first deployment failed, so that "When the first deployment fails" has what it speaks
of. What localemu has not implemented is listed here with its reason, and the page says that it is untried.
"""

import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from dev import deploy
from ops.checkout import ROOT
from tests.support import moto_cloud
from tests.support.pages import blocks
from tests.support.patience import eventually
from tests.support.template import resolved, resources

STACK, ACCOUNT = "nexus-prod", "123456789012"
UNTRIED = (
    "aws service-quotas get-service-quota",
    "aws service-quotas request-service-quota-increase",
    "aws sesv2 put-email-identity-mail-from-attributes",
    "aws sesv2 put-account-details",
)
"""localemu has none of these. The AWS CLI has checked their arguments when it says so."""

NOT_IMPLEMENTED = re.compile("has not been implemented|No moto route|not available in the current Region")


def commands() -> Iterator[str]:
    """The page's aws commands, loops whole, comments and line breaks gone."""
    for block in blocks("deploy.md"):
        if block.language == "sh":
            text = re.sub(r"\s{2,}#.*", "", block.text.replace("\\\n", " "))
            yield from re.findall(r"^(?:aws .*|for .*\n(?:.*\n)*?done)$", text, re.MULTILINE)


def a_first_deployment_of(*, sound: bool) -> dict[str, Any]:
    """prod's tables, protected from deletion, and a queue that CloudFormation takes or refuses."""
    tables = json.loads(json.dumps(resources("AWS::DynamoDB::Table")).replace("${AWS::StackName}", STACK))
    for body in tables.values():
        body["Properties"] = resolved(body["Properties"]) | {"DeletionProtectionEnabled": True}
        body["Properties"].pop("PointInTimeRecoverySpecification", None)
        body["Properties"].pop("SSESpecification", None)
    queue = {"QueueName": f"{STACK}-late" if sound else "not a name!"}
    late = {"Type": "AWS::SQS::Queue", "DependsOn": list(tables), "Properties": queue}
    return {"Resources": {**tables, "Late": late}}


@pytest.fixture
def cloud(emulator: str) -> Iterator[Any]:
    """CloudFormation's client; no stack is left."""
    with moto_cloud.environment() as patch:
        patch.setenv("AWS_ENDPOINT_URL", emulator)
        cloudformation = boto3.client("cloudformation")
        yield cloudformation
        dynamodb = boto3.client("dynamodb")
        for table in dynamodb.list_tables()["TableNames"]:
            dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)
        for stack in cloudformation.describe_stacks()["Stacks"]:
            cloudformation.delete_stack(StackName=stack["StackName"])
            cloudformation.get_waiter("stack_delete_complete").wait(StackName=stack["StackName"])


def state(cloud: Any, stack: str = STACK) -> str:
    return str(cloud.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])


def deployed(folder: Path, template: dict[str, Any], *options: str) -> "subprocess.CompletedProcess[str]":
    """What `sam deploy` makes of a template that is its own package."""
    (folder / "template.json").write_text(json.dumps(template))
    bucket = f"packages-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    command = [str(ROOT / ".venv-sam" / "bin" / "sam"), "deploy", "--stack-name", STACK, "--no-confirm-changeset"]
    where = ["--template-file", str(folder / "template.json"), "--s3-bucket", bucket, "--region", "eu-west-1"]
    environment = os.environ | {"SAM_CLI_TELEMETRY": "0", "TMPDIR": str(folder)}
    return subprocess.run(
        [*command, *where, *options], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_first_deployment_that_stopped_continues_once_the_fault_is_fixed(cloud: Any, tmp_path: Path) -> None:
    """localemu rolls back what sam deploys whatever it is asked, so the API makes the stack that stopped."""
    assert deploy.options({}) == ["--disable-rollback"]
    cloud.create_stack(
        StackName=STACK, TemplateBody=json.dumps(a_first_deployment_of(sound=False)), DisableRollback=True
    )
    eventually(lambda: state(cloud) == "CREATE_FAILED")
    assert deploy.faults_of_state("CREATE_FAILED", STACK) == []

    stopped = cloud.describe_stacks(StackName=STACK)["Stacks"][0]
    done = deployed(tmp_path, a_first_deployment_of(sound=True), *deploy.options(stopped))

    assert done.returncode == 0, done.stdout + done.stderr
    assert state(cloud) == "UPDATE_COMPLETE"


def test_every_aws_command_of_the_page_does_what_it_says(cloud: Any, tmp_path: Path) -> None:
    assert deployed(tmp_path, a_first_deployment_of(sound=False)).returncode != 0
    (fault,) = deploy.faults_of_state(state(cloud), STACK)
    assert "it has to be deleted first" in fault
    assert boto3.client("dynamodb").list_tables()["TableNames"]
    iam = boto3.client("iam")
    allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}]}
    policy = iam.create_policy(PolicyName="nexus-prod-application", PolicyDocument=json.dumps(allow))["Policy"]["Arn"]
    iam.create_role(RoleName="my-web-application", AssumeRolePolicyDocument=json.dumps(allow))
    environment = os.environ | {
        "PATH": f"{ROOT / '.venv-second' / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "AWS_PAGER": "",
    }

    ran, unavailable = [], []
    for command in commands():
        typed = command.replace(f"arn:aws:iam::{ACCOUNT}:policy/nexus-prod-application", policy)
        done = subprocess.run(
            ["bash", "-euc", typed], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        if NOT_IMPLEMENTED.search(said):
            unavailable.append(command)
        else:
            assert done.returncode == 0, f"{command}\n{said}"
            ran.append(command)

    assert sorted(command.split(" --")[0] for command in unavailable) == sorted(UNTRIED)
    assert len(ran) >= 13
    assert boto3.client("dynamodb").list_tables()["TableNames"] == []
    assert {"nexus-prod-cdn", "nexus-prod-pipeline"} <= {
        stack["StackName"] for stack in cloud.describe_stacks()["Stacks"] if stack["StackStatus"] == "CREATE_COMPLETE"
    }
