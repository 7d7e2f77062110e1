"""The digest beyond its budget of the day waits for the next one, with the rights that the emails function has."""

import time
from typing import Any

import pytest

from nexus.aws import sdk
from nexus.backend import backend
from nexus.backend.store import Value, Write
from nexus.eager import Context
from nexus.envelope import Envelope
from nexus.ids import new_id
from nexus.registry import registry
from nexus.runs import budget
from nexus.settings import settings
from nexus.worker import bookings
from nexus.worker.entry import serve

DIGEST = "send_content_digest_email"


@pytest.mark.usefixtures("cloud")
def test_a_digest_that_has_already_waited_in_its_queue_comes_back_by_a_schedule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bookings, "_purses", {})
    sdk.client("scheduler").create_schedule_group(Name=settings().stack)
    account: dict[str, Value] = {
        "day": budget.today(time.time()),
        "runs": 1,
        "done": 1,
        "nano": 0,
        "limited": True,
        "limit_runs": 1,
    }
    backend().store.apply(Write(budget.key(DIGEST), account))
    envelope = Envelope.of(id=new_id(), task=DIGEST, args={})
    message: dict[str, Any] = {
        "messageId": "m",
        "receiptHandle": "m",
        "body": envelope.encode(),
        "attributes": {"ApproximateReceiveCount": "2"},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
    }

    answer = serve("emails", registry.served_by("emails"), {"Records": [message]}, Context())

    assert answer == {"batchItemFailures": []}
    (schedule,) = sdk.client("scheduler").list_schedules(GroupName=settings().stack)["Schedules"]
    assert schedule["Name"].startswith(envelope.id)
