"""`nexus repair`: what it restores, in which order, and what it says."""

from datetime import UTC, datetime

import pytest

from ops import audit, deployment, repair
from ops.cli import common
from ops.deployment import Deployment
from ops.main import main


def test_what_was_deleted_with_a_queue_is_restored_after_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = Deployment("nexus-x", "UPDATE_COMPLETE", "eu-west-1", "1" * 12, {"Stage": "dev"}, datetime.now(UTC))
    queue = repair.Change("UsersQueue", "SQS::Queue", missing=True)
    policy = repair.Change("UsersQueuePolicy", "SQS::QueuePolicy", missing=True)
    # Given CloudFormation, which sees that the policy is missing once the queue is there
    plans = iter([repair.Plan("first", (queue,)), repair.Plan("second", (policy,))])
    executed: list[str] = []
    monkeypatch.setattr(deployment, "connect", lambda *_, **__: where)
    monkeypatch.setattr(common, "connect", lambda: where)
    monkeypatch.setattr(audit, "note_outcome", lambda _: None)
    monkeypatch.setattr(repair, "plan", lambda _: next(plans))
    monkeypatch.setattr(repair, "execute", lambda _, made: executed.append(made.change_set))

    assert main(["repair", "--yes"]) == 0

    assert executed == ["first", "second"]
    assert "UsersQueuePolicy (SQS::QueuePolicy) was deleted with it" in capsys.readouterr().out
