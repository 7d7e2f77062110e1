"""The deployed stack, with IAM enforced, as `make integration` and `make e2e` deploy it.

Each test uses its own users, posts and runs, so the stack can be shared and reused.
"""

import os
import signal
import uuid
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from nexus import backend, settings
from nexus.aws import sdk
from nexus.backend import transport
from nexus.client import AsyncResult
from nexus.tasks import Result
from social import application
from tests.support.patience import PATIENCE, eventually

NEEDED = ("AWS_ENDPOINT_URL", "NEXUS_STACK", "NEXUS_ACCOUNT_ID")


@pytest.fixture(scope="session", autouse=True)
def stack() -> settings.Settings:
    """The deployment under test. `make e2e` exports the variables; `eval "$(nexus env)"` does so for a shell.

    NEXUS_ON_AWS: it is in an AWS account (dev/e2e_aws.py), without a separate endpoint.
    """
    missing = [name for name in NEEDED if not os.environ.get(name) and not os.environ.get("NEXUS_ON_AWS")]
    if missing:
        pytest.exit(f"the end-to-end tests need a local cloud, and {', '.join(missing)} not set: run `make e2e`", 2)
    # A shell's background job ignores SIGINT, and the commands that tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for forget in (sdk.reset, backend.reset, settings.settings.cache_clear, transport.queue_url.cache_clear):
        forget()
    return settings.settings()


@pytest.fixture(scope="session")
def outputs(stack: settings.Settings) -> dict[str, str]:
    """The stack's outputs, by name."""
    (described,) = boto3.client("cloudformation").describe_stacks(StackName=stack.stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}


@pytest.fixture
def post() -> str:
    """A new post by a new author."""
    post_id = f"p-{uuid.uuid4().hex[:12]}"
    application.new_post("u-e2e", "look", post_id=post_id)
    return post_id


def take(url: str, mine: Callable[[Any], bool]) -> list[Any]:
    """Removes a test's own messages from a shared queue and returns them. The others become visible again at once."""
    sqs = boto3.client("sqs")
    found: list[Any] = []
    others: list[Any] = []
    request: Any = {
        "MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"], "VisibilityTimeout": 60, "WaitTimeSeconds": 1,
    }  # fmt: skip
    while batch := sqs.receive_message(QueueUrl=url, **request).get("Messages", []):
        for message in batch:
            (found if mine(message) else others).append(message)
    for message in found:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    for message in others:
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    return found


def dead_letters(url: str, run_id: str) -> list[Any]:
    """Removes the dead letters of one run from the queue and returns them."""

    def of_the_run(message: Any) -> bool:
        run = message.get("MessageAttributes", {}).get("RunId")
        return run is not None and bool(run.get("StringValue") == run_id)

    return take(url, of_the_run)


def in_its_place[R: Result](send: Callable[[], AsyncResult[R]]) -> AsyncResult[R]:
    """The ended run of a unique job. Sends it again if another run held the place, for example a scheduled one."""

    def ended() -> AsyncResult[R] | None:
        handle = send()
        handle.get(timeout=PATIENCE, propagate=False)
        return None if handle.status == "REVOKED" else handle

    return eventually(ended)
