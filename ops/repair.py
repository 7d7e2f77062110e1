"""Restores what was deleted from a stack or changed in it by hand, with CloudFormation.

A drift-aware change set (CreateChangeSet with the deployment mode REVERT_DRIFT) compares the stack's template with the
actual resources; executing it restores the template's state. Nothing else is deployed: the template and its parameters
are those of the last deployment.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ops import health
from ops.aws import client
from ops.deployment import Deployment
from ops.problems import Problem

PATIENCE = 900.0
"""Seconds that CloudFormation may take."""

UPDATABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE")

_NOTHING = ("didn't contain changes", "No updates are to be performed", "no changes")


@dataclass(frozen=True, slots=True)
class Change:
    """A part of the stack to restore: `missing`, or changed."""

    name: str
    kind: str
    missing: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a change set would restore. A change set without changes is already deleted."""

    change_set: str
    changes: Sequence[Change]


def plan(deployment: Deployment) -> Plan:
    """Has CloudFormation compare the stack with its template. Raises Problem if it cannot."""
    if deployment.status not in UPDATABLE:
        do = " ".join(finding.do for finding in health.of_stack(deployment))
        raise Problem(f"{deployment.stack} is {deployment.status} and cannot be changed", deployment.status_reason, do)
    cloudformation, name = client("cloudformation"), f"repair-{uuid.uuid4().hex[:12]}"
    cloudformation.create_change_set(
        StackName=deployment.stack,
        ChangeSetName=name,
        UsePreviousTemplate=True,
        Parameters=[{"ParameterKey": key, "UsePreviousValue": True} for key in deployment.parameters],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        DeploymentMode="REVERT_DRIFT",
    )
    described = _until(
        lambda: cloudformation.describe_change_set(StackName=deployment.stack, ChangeSetName=name),
        lambda response: response["Status"] in ("CREATE_COMPLETE", "FAILED"),
    )
    changes = [
        Change(
            change["ResourceChange"]["LogicalResourceId"],
            change["ResourceChange"]["ResourceType"].removeprefix("AWS::"),
            missing=change["ResourceChange"]["Action"] == "Add",
        )
        for change in described.get("Changes", [])
        if change["ResourceChange"]["Action"] not in ("SyncWithActual", "Dynamic")
    ]
    reason = described.get("StatusReason", "")
    if described["Status"] == "FAILED" and not any(text in reason for text in _NOTHING):
        raise Problem("CloudFormation cannot compare the stack with its template", reason)
    made = Plan(name, changes if described["Status"] == "CREATE_COMPLETE" else ())
    if not made.changes:
        forget(deployment, made)
    return made


def roll_back(deployment: Deployment) -> None:
    """Rolls an interrupted deployment back to the previous one. Raises Problem if the rollback fails."""
    client("cloudformation").rollback_stack(StackName=deployment.stack)
    status, why = _settled(deployment)
    if status != "UPDATE_ROLLBACK_COMPLETE":
        raise Problem(f"{deployment.stack} was not rolled back: it is {status}", why)


def forget(deployment: Deployment, made: Plan) -> None:
    """Deletes a plan that will not be executed."""
    client("cloudformation").delete_change_set(StackName=deployment.stack, ChangeSetName=made.change_set)


def execute(deployment: Deployment, made: Plan) -> None:
    """Restores everything and waits until it is there. Raises Problem if CloudFormation fails."""
    cloudformation = client("cloudformation")
    cloudformation.execute_change_set(StackName=deployment.stack, ChangeSetName=made.change_set)
    status, why = _settled(deployment)
    if status != "UPDATE_COMPLETE":
        do = f"`aws cloudformation describe-stack-events --stack-name {deployment.stack}` shows the details."
        raise Problem(f"{deployment.stack} was not repaired: it is {status}", why, do)


def _settled(deployment: Deployment) -> tuple[str, str]:
    """The stack's status and reason, once no operation is in progress."""
    cloudformation = client("cloudformation")
    stack = _until(
        lambda: cloudformation.describe_stacks(StackName=deployment.stack)["Stacks"][0],
        lambda response: not response["StackStatus"].endswith("_IN_PROGRESS"),
    )
    return stack["StackStatus"], stack.get("StackStatusReason", "")


def _until(describe: Callable[[], Any], done: Callable[[Any], bool]) -> Any:
    deadline, pause = time.monotonic() + PATIENCE, 0.2
    while not done(response := describe()):
        if time.monotonic() > deadline:
            raise Problem("CloudFormation has not finished", do="`nexus status` shows the stack's state.")
        time.sleep(pause)
        pause = min(pause * 1.5, 5.0)
    return response
