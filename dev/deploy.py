"""Helper of `make deploy`: `python -m dev.deploy dev|prod` runs checks and prints options for SAM.

With --protect, run afterwards, it sets prod's termination protection, for which SAM has no option. With --stack and
--region it prints only that name, as samconfig.toml has it.

A deployment that cannot succeed should fail here within a second, not after ten minutes with half a stack. A stack's
first deployment runs with --disable-rollback: tables with deletion protection cannot be rolled back, whereas a stack
that stopped halfway can continue once the fault is fixed.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ops import template
from ops.checkout import ROOT

LONGEST_NAME: Final = 34
"""A rule's name is the stack's and the task's, and EventBridge allows 64 characters; buckets allow 42."""
STACK_NAME: Final = rf"[a-z][a-z0-9-]{{0,{LONGEST_NAME - 1}}}"
KEPT_FREE: Final = 100
"""Lambda does not allow reserving an account's last hundred concurrent executions."""

RAISE: Final = "Have the limit raised (docs/deploy.md, step 2)"


def faults_of_name(stack: str) -> list[str]:
    """Why a stack may not have this name; empty if it may."""
    if re.fullmatch(STACK_NAME, stack) and not stack.endswith("-"):
        return []
    rule = f"lower-case letters, digits and hyphens, at most {LONGEST_NAME} in total"
    return [f"stack_name is {stack!r}: {rule}. Buckets, rules and functions are named after it"]


def faults_of_concurrency(free: int, at_once: Mapping[str, int], reserved: int) -> list[str]:
    """Why the concurrent executions of an account do not suffice, or the reserve does not; empty if they do.

    `free` is what no other function reserves, `at_once` each queue's MaximumConcurrency, `reserved` the media
    function's reserved concurrency.
    """
    if 0 < reserved < at_once["media"]:
        fault = f"MediaReservedConcurrency is {reserved} and the media queue may use {at_once['media']}"
        return [f"{fault}: messages would be throttled into its dead-letter queue. Reserve more, or 0 for no reserve"]
    if reserved and free - reserved < KEPT_FREE:
        fault = f"MediaReservedConcurrency is {reserved} and the account has {free} unreserved concurrent executions"
        return [f"{fault}: Lambda keeps {KEPT_FREE} unreserved. {RAISE}, or deploy with MediaReservedConcurrency=0"]
    if free < sum(at_once.values()):
        fault = f"the account has {free} unreserved concurrent executions"
        fault = f"{fault} and the queues may use {sum(at_once.values())}"
        do = "or continue with NEXUS_FEW_SANDBOXES=1 and lower each queue with `nexus concurrency`"
        return [f"{fault}: messages would be throttled into the dead-letter queues. {RAISE}, {do}"]
    return []


def faults_of_state(status: str | None, stack: str) -> list[str]:
    """Why CloudFormation cannot deploy over this status; empty if it can. None means no such stack."""
    if status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"):
        do = 'it has to be deleted first (docs/deploy.md, "When the first deployment fails")'
        return [f"the stack {stack} is {status}: {do}"]
    if status == "UPDATE_ROLLBACK_FAILED":
        do = f"end the rollback first with `aws cloudformation continue-update-rollback --stack-name {stack}`"
        return [f"the stack {stack} is {status}: {do}"]
    if status and status.endswith("_IN_PROGRESS"):
        return [f"the stack {stack} is {status}: wait until the operation has ended"]
    return []


def options(deployed: Mapping[str, Any]) -> list[str]:
    """SAM's options for a stack as CloudFormation describes it. One that no deployment has completed has no outputs."""
    return [] if deployed.get("Outputs") else ["--disable-rollback"]


def protect(cloudformation: Any, stack: str) -> None:
    """Enables the stack's termination protection."""
    cloudformation.update_termination_protection(StackName=stack, EnableTerminationProtection=True)


def concurrency() -> dict[str, int]:
    """Each queue's MaximumConcurrency in template.yaml."""
    return {
        body["Properties"]["Environment"]["Variables"]["NEXUS_QUEUE"]: int(
            event["Properties"]["ScalingConfig"]["MaximumConcurrency"]
        )
        for body in template.load((ROOT / "template.yaml").read_text())["Resources"].values()
        if body["Type"] == "AWS::Serverless::Function"
        for event in body["Properties"]["Events"].values()
    }


def own_reserve(parameters: Iterable[Mapping[str, str]]) -> int:
    """What a deployed stack's media function reserves, from the parameters that CloudFormation describes."""
    values = {one["ParameterKey"]: one.get("ParameterValue", "") for one in parameters}
    return int(values.get("MediaReservedConcurrency") or 0)


def main(arguments: list[str]) -> int:
    """The command line; its exit code."""
    environment, *flags = arguments
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())[environment]
    stack = settings["global"]["parameters"]["stack_name"]
    region = settings["global"]["parameters"]["region"]
    for flag, name in (("--stack", stack), ("--region", region)):
        if flag in flags:
            print(name)
            return 0

    import os

    import boto3
    from botocore.exceptions import ClientError

    if "//127.0.0.1:" in (endpoint := os.environ.get("AWS_ENDPOINT_URL", "")):
        do = "use another shell, or `unset AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY`"
        print(
            f"Nothing was deployed: AWS_ENDPOINT_URL is {endpoint}, an emulator on this machine: {do}.", file=sys.stderr
        )
        return 1
    given = dict(one.split("=", 1) for one in settings["deploy"]["parameters"]["parameter_overrides"])
    cloudformation: Any = boto3.client("cloudformation", region_name=region)
    if "--protect" in flags:
        if "Stage=prod" in settings["deploy"]["parameters"]["parameter_overrides"]:
            protect(cloudformation, stack)
        return 0
    deployed: Mapping[str, Any] = {}
    try:
        deployed = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" not in str(error):
            raise
    status = deployed.get("StackStatus")
    account = boto3.client("lambda", region_name=region).get_account_settings()["AccountLimit"]
    faults = faults_of_name(stack) + faults_of_state(None if status == "REVIEW_IN_PROGRESS" else status, stack)
    if not os.environ.get("NEXUS_FEW_SANDBOXES"):
        reserved = int(given.get("MediaReservedConcurrency", 0))
        free = account["UnreservedConcurrentExecutions"] + own_reserve(deployed.get("Parameters", ()))
        faults += faults_of_concurrency(free, concurrency(), reserved)
    for fault in faults:
        print(f"Nothing was deployed: {fault}.", file=sys.stderr)
    print(*options(deployed))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
