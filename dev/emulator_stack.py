"""Deploys dev/emulator_stack.yaml beside the local stack: `python -m dev.emulator_stack`, by `make up`.

Its parameters come from the local stack; template.yaml does not refer to it.
"""

from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import ClientError

from ops.checkout import STACK

TEMPLATE: Final = Path(__file__).with_name("emulator_stack.yaml")
NAME: Final = f"{STACK}-emulator"


def deploy(stack: str = STACK) -> None:
    """Creates or updates the stack, and waits for it. Raises botocore's errors."""
    cloudformation: Any = boto3.client("cloudformation")
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
    resources = [resource for page in pages for resource in page["StackResourceSummaries"]]
    roles = {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for resource in resources
        if resource["ResourceType"] == "AWS::IAM::Role" and resource["LogicalResourceId"] != "SchedulerRole"
    }
    (described,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    sender = next(p["ParameterValue"] for p in described["Parameters"] if p["ParameterKey"] == "SenderAddress")
    parameters = {
        "Stack": stack,
        "Roles": ",".join(sorted(roles.values())),
        "MailRole": roles["EmailsRole"],
        "ErasingRole": roles["MaintenanceRole"],
        "SenderDomain": sender.rpartition("@")[2],
    }
    request = {
        "StackName": NAME,
        "TemplateBody": TEMPLATE.read_text(),
        "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        "Capabilities": ["CAPABILITY_IAM"],
    }
    try:
        cloudformation.create_stack(**request)
        done = "stack_create_complete"
    except cloudformation.exceptions.AlreadyExistsException:
        try:
            cloudformation.update_stack(**request)
        except ClientError as error:
            if "No updates are to be performed" in str(error):
                return
            raise
        done = "stack_update_complete"
    cloudformation.get_waiter(done).wait(StackName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


if __name__ == "__main__":
    deploy()
