"""Every sample of events/ works on the deployed functions, with the users and the post that `make invoke` creates."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from dev.invoke import lay_ground
from nexus.client import AsyncResult
from tests.support import network
from tests.support.stack import in_its_place

EVENTS = Path(__file__).resolve().parents[2] / "events"


@pytest.fixture(scope="module", autouse=True)
def ground() -> None:
    lay_ground()


def invoke(event: str, outputs: dict[str, str]) -> Any:
    """The response of the function of the sample's task."""
    queue = network.tasks()[event.split(".", maxsplit=1)[0]].queue or "default"  # every queue serves ping
    answer = boto3.client("lambda").invoke(
        FunctionName=outputs[f"{queue.capitalize()}FunctionName"], Payload=(EVENTS / event).read_bytes()
    )
    said = json.load(answer["Payload"])
    assert not answer.get("FunctionError"), said
    return said


@pytest.mark.parametrize("task", sorted(network.tasks()))
def test_a_direct_event_succeeds(task: str, outputs: dict[str, str]) -> None:
    def invoked() -> AsyncResult[Any]:
        run = invoke(f"{task}.json", outputs)
        assert run["status"] in ("SUCCESS", "STARTED", "REVOKED"), run
        return AsyncResult(run["id"])

    assert in_its_place(invoked).get() is not None


def test_a_batch_of_sqs_is_taken(outputs: dict[str, str]) -> None:
    assert invoke("ping.sqs.json", outputs) == {"batchItemFailures": []}


def test_an_event_of_s3_is_taken(outputs: dict[str, str]) -> None:
    assert invoke("process_media_upload.s3.json", outputs) is None


def test_every_sample_event_is_tested() -> None:
    forms = {f"{task}.json" for task in network.tasks()} | {"ping.sqs.json", "process_media_upload.s3.json"}
    assert {path.name for path in EVENTS.iterdir()} == forms
