"""The deployed stack, with IAM enforced, as `make integration` and `make e2e` deploy it.

Each test uses its own users, posts and runs, so the stack can be shared and reused.
"""

import os
import signal
import time
import uuid
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from nexus import backend, settings
from nexus.aws import sdk
from nexus.backend import transport
from social import application

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


def eventually[T](look: Callable[[], T | None], *, within: float = 60.0, every: float = 0.2) -> T:
    """Polls `look` until it returns something truthy. Fails after `within` seconds, a guard against hangs."""
    end = time.monotonic() + within
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < end, f"not within {within} s: {look.__name__}"
        time.sleep(every)


def dead_letters(url: str, run_id: str) -> list[Any]:
    """The dead letters of one run; the others become visible again at once."""
    sqs = boto3.client("sqs")
    answer = sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], VisibilityTimeout=1, WaitTimeSeconds=1
    )
    found = []
    for message in answer.get("Messages", []):
        run = message["MessageAttributes"].get("RunId") if "MessageAttributes" in message else None
        if run is not None and run.get("StringValue") == run_id:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            found.append(message)
    return found
