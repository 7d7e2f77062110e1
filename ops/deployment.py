"""Which deployment a command uses, and CloudFormation's description of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from ops import checkout
from ops.aws import client
from ops.problems import ExitCode, Problem

PATIENCE = {
    "NEXUS_CONNECT_TIMEOUT": "5",
    "NEXUS_READ_TIMEOUT": "30",
    "NEXUS_ATTEMPTS": "5",
    "NEXUS_SEND_TIMEOUT": "60",
}
"""An operator waits longer for AWS than a web request may, unless set otherwise."""


CREDENTIALS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
"""The variables that botocore prefers to a profile that is named by a variable."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The command line's options; None if not given."""

    stack: str | None = None
    profile: str | None = None
    region: str | None = None


EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A stack as CloudFormation describes it. `changed_at` is when its last deployment began; `named` is whether its
    name was typed on this command line."""

    stack: str
    status: str
    region: str
    account_id: str
    parameters: Mapping[str, str]
    changed_at: datetime = EPOCH
    status_reason: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    endpoint: str | None = None
    named: bool = False

    @property
    def stage(self) -> str:
        return self.parameters.get("Stage", "")

    @property
    def is_prod(self) -> bool:
        return self.stage == "prod"

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of its queues, from its outputs `<Queue>QueueUrl`."""
        urls = [url for name, url in self.outputs.items() if name.endswith("QueueUrl")]
        names = [url.rpartition("/")[2].removeprefix(f"{self.stack}-") for url in urls]
        return tuple(name for name in names if not name.endswith("-dead"))

    def reserved(self, queue: str) -> int:
        """The reserved concurrency of a queue's function as deployed (`MediaReservedConcurrency`); 0 if none."""
        return int(self.parameters.get(f"{queue.capitalize()}ReservedConcurrency", 0))


def choose(choice: Choice) -> str:
    """Points this process at the chosen deployment and returns its stack's name.

    --stack, else NEXUS_STACK, else this checkout's local cloud if it runs. A profile on the command line takes
    precedence over credentials and a local endpoint in the environment. Raises Problem if there is no stack to use.
    """
    stack = choice.stack or os.environ.get("NEXUS_STACK")
    if choice.profile:
        for name in CREDENTIALS:
            os.environ.pop(name, None)
        if "//127.0.0.1:" in os.environ.get("AWS_ENDPOINT_URL", ""):
            del os.environ["AWS_ENDPOINT_URL"]
        os.environ["AWS_PROFILE"] = choice.profile
    elif stack in (None, checkout.STACK) and "AWS_ENDPOINT_URL" not in os.environ:
        cloud = checkout.running()
        if cloud is not None:
            os.environ.update(cloud.exports())
            stack = stack or checkout.STACK
        elif stack == checkout.STACK and "AWS_PROFILE" not in os.environ:
            raise Problem("The local cloud is not running", do="Start it with `nexus up`.", code=ExitCode.UNREACHABLE)
    if not stack and (cloud := checkout.running()) is not None and cloud.endpoint == os.environ.get("AWS_ENDPOINT_URL"):
        stack = checkout.STACK
    if not stack:
        raise Problem(
            "Which stack?",
            _why_none(choice),
            "Start one with `nexus up`, or name a deployed one: --stack nexus-prod, or export NEXUS_STACK.",
            ExitCode.UNREACHABLE,
        )
    if choice.region:
        os.environ["AWS_REGION"] = os.environ["AWS_DEFAULT_REGION"] = choice.region
    os.environ["NEXUS_STACK"] = stack
    return stack


def _why_none(choice: Choice) -> str:
    """Why the local cloud is not used when no stack is named."""
    cloud = checkout.running()
    if cloud is None:
        return "No stack is named, and no local cloud is running here."
    if choice.profile:
        return "No stack is named, and --profile means one in an account."
    elsewhere = os.environ.get("AWS_ENDPOINT_URL", "")
    return (
        f"No stack is named, and AWS_ENDPOINT_URL ({elsewhere}) is not this checkout's local cloud ({cloud.endpoint})."
    )


def connect(choice: Choice) -> Deployment:
    """The chosen deployment, with this process's variables set for it. Raises like `describe`."""
    from nexus import settings
    from ops import audit, catalogue

    stack = choose(choice)
    audit.watch()
    deployment = describe(stack, named=choice.stack is not None)
    os.environ["NEXUS_ACCOUNT_ID"] = deployment.account_id
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    if days := deployment.parameters.get("RunRetentionDays"):
        os.environ["NEXUS_RUN_DAYS"] = days
    settings.settings.cache_clear()
    catalogue.use(deployment.outputs.get("Catalogue", ""), deployment.queues)
    return deployment


def describe(stack: str, *, named: bool = False) -> Deployment:
    """Describes a stack in one request, which also checks the credentials. Raises Problem and botocore's errors."""
    from botocore.exceptions import ClientError

    cloudformation = client("cloudformation")
    region = cloudformation.meta.region_name
    try:
        described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" not in str(error):
            raise
        raise Problem(
            f"There is no stack {stack} in {region}",
            f"The stacks there: {', '.join(_stacks()) or 'none'}.",
            "`make deploy ENV=dev` creates one, `make up` the local one. Is it under another --region or --profile?",
            ExitCode.UNREACHABLE,
        ) from None
    return Deployment(
        stack=stack,
        status=described["StackStatus"],
        status_reason=described.get("StackStatusReason", ""),
        region=region,
        account_id=described.get("StackId", "::::").split(":")[4],
        parameters={p.get("ParameterKey", ""): p.get("ParameterValue", "") for p in described.get("Parameters", [])},
        outputs={o.get("OutputKey", ""): o.get("OutputValue", "") for o in described.get("Outputs", [])},
        endpoint=os.environ.get("AWS_ENDPOINT_URL"),
        changed_at=described.get("LastUpdatedTime") or described["CreationTime"],
        named=named,
    )


def _stacks() -> list[str]:
    """Names of the stacks in this account and region that look like deployments of this project."""
    from botocore.exceptions import ClientError

    try:
        stacks = client("cloudformation").describe_stacks()["Stacks"]
    except ClientError:
        return []
    return [
        s["StackName"]
        for s in stacks
        if any(o.get("OutputKey") in ("Catalogue", "TaskRunsTableName") for o in s.get("Outputs", []))
    ]
