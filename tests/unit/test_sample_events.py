"""events/ has a sample for each task, and each is one that its task would take."""

import json
from pathlib import Path
from typing import Any

import pytest

from nexus.envelope import Envelope
from nexus.worker.events import upload_envelopes
from tests.support import network

EVENTS = Path(__file__).resolve().parents[2] / "events"


def event(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


@pytest.mark.parametrize("task", sorted(network.tasks()))
def test_a_sample_has_arguments_that_the_task_accepts(task: str) -> None:
    sample = event(task)
    assert sample["task"] == task
    network.tasks()[task].arguments.model_validate(sample["args"])


def test_the_sample_of_an_s3_event_is_about_the_same_upload_as_the_direct_one() -> None:
    (envelope,) = upload_envelopes(event("process_media_upload.s3")["Records"], "process_media_upload")
    direct = event("process_media_upload")
    assert envelope.task == direct["task"]
    assert {name: envelope.args[name] for name in direct["args"]} == direct["args"]


def test_the_sample_of_a_queues_event_carries_an_envelope() -> None:
    (record,) = event("ping.sqs")["Records"]
    assert Envelope.model_validate_json(record["body"]).task == "ping"
