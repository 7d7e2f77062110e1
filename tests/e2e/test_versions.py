"""A deployment's code goes live, back and forth by its alias, and old versions are removed."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest

from nexus.settings import Settings
from ops import versions
from ops.problems import Problem
from ops.versions import Moved

ROOT = Path(__file__).parents[2]
QUEUE = "default"


def reported(function: str) -> str:
    """The text of what the function answers to a ping."""
    answer = boto3.client("lambda").invoke(FunctionName=function, Payload=json.dumps({"task": "ping"}))
    return str(json.loads(answer["Payload"].read())["result"]["text"])


NEWER = """
def handler(event, context):
    return {"result": {"text": "newer"}}
"""


@pytest.fixture
def deployed_again(stack: Settings) -> Iterator[datetime]:
    """A second deployment of one function, as CloudFormation makes it: new code, a version, the alias moved."""
    lambda_, function = boto3.client("lambda"), stack.function_name(QUEUE)
    with suppress(Problem):  # the test before has left newer code behind, and has removed its versions
        versions.republish(QUEUE, "what a rollback goes back to")  # chaos may have published broken versions
    before = {version.number for version in versions.versions(QUEUE)}
    (live,) = (version.number for version in versions.versions(QUEUE) if version.live)
    old = lambda_.get_function_configuration(FunctionName=function)["Handler"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("newer.py", NEWER)
        for path in (ROOT / "functions" / QUEUE).glob("*.py"):
            file.write(path, path.name)
    since = datetime.now(UTC)
    lambda_.update_function_code(FunctionName=function, ZipFile=packed.getvalue())
    lambda_.get_waiter("function_updated_v2").wait(FunctionName=function)
    lambda_.update_function_configuration(FunctionName=function, Handler="newer.handler")
    lambda_.get_waiter("function_updated_v2").wait(FunctionName=function)
    published = int(lambda_.publish_version(FunctionName=function)["Version"])
    versions.move([Moved(QUEUE, live, published)])
    try:
        yield since
    finally:
        lambda_.update_function_configuration(FunctionName=function, Handler=old)
        versions.move([Moved(QUEUE, published, live)])
        for version in versions.versions(QUEUE):
            if version.number not in before:
                lambda_.delete_function(FunctionName=function, Qualifier=str(version.number))


def test_a_deployment_is_undone_by_its_alias_and_a_restart_does_not_bring_it_back(
    stack: Settings, outputs: dict[str, str], deployed_again: datetime
) -> None:
    function = outputs["DefaultFunctionName"]
    assert function == versions.alias(QUEUE)
    assert reported(function) == "newer"

    versions.move(versions.rollback_plan([QUEUE], deployed_again))

    assert reported(function) == "pong"
    with pytest.raises(Problem, match="was not restarted"):
        versions.republish(QUEUE, "restarted")
    assert reported(function) == "pong"


def test_old_versions_are_removed_and_the_live_one_never(stack: Settings, deployed_again: datetime) -> None:
    versions.move(versions.rollback_plan([QUEUE], deployed_again))
    (live,) = (version.number for version in versions.versions(QUEUE) if version.live)

    versions.prune([QUEUE], keep=1)

    left = versions.versions(QUEUE)
    assert [version.number for version in left if version.live] == [live]
    assert len(left) == 2, "the newest, and what is live"
