"""Failed runs, jobs and groups that are sent again: from a page, from the monitor, whatever queues they are in."""

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from nexus.backend import backend
from nexus.backend.store import Value, Write
from nexus.backend.transport import DeadLetter
from nexus.builtin import ping
from nexus.client import AsyncResult, chain, group
from nexus.client.handles import AsyncResult as Handle
from nexus.envelope import Envelope, Segment
from nexus.ids import new_id
from nexus.runs import tallies, transitions
from nexus.runs.record import RunError
from nexus.worker import fanout
from ops import audit, dead_letters, retrying
from ops.cli import watch
from ops.dead_letters import Filter, Outcome
from ops.deployment import Choice, Deployment
from ops.problems import ExitCode, Problem
from ops.web.actions import Plan, perform
from ops.web.views import Site
from social.catalogue import QUEUES, send_welcome_email

KEEP = 2_000_000_000


@pytest.fixture(autouse=True)
def stack(emptied: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_who", lambda: "arn:ada")


def fails(envelope: Envelope, queue: str, *, letter: bool = True) -> str:
    """The run ends as FAILURE, with its dead letter, and its group counts it."""
    store = backend().store
    known = store.get([envelope.id]).get(envelope.id)
    error = RunError("Timeout", "too slow")
    write = transitions.never_ran(envelope, queue, error, time.time(), KEEP, known=known, log="group stream")
    item = store.apply(write).item
    assert item is not None
    if letter:
        attributes = {"ErrorType": "Timeout", "ErrorMessage": "too slow", "Task": envelope.task, "RunId": envelope.id}
        backend().transport.dead_letter(queue, DeadLetter(envelope.encode(), attributes, envelope.task))
    fanout.follow_up(envelope.id, item, succeeded=False)
    fanout.settle_member(envelope, succeeded=False)
    return envelope.id


def member(of: Handle[Any], index: int, task: str, queue: str, total: int = 2) -> str:
    """A group's member fails."""
    segment = Segment(index=index, total=total, kind="group")
    run_id = tallies.member(of.id, 1, index)
    return fails(Envelope(id=run_id, task=task, args={"user_id": "u-1"}, parent=of.id, segment=segment), queue)


def two_queues() -> tuple[Handle[Any], list[str]]:
    """A group that has failed, and its members, one in emails and one in default."""
    made = group([send_welcome_email.s(user_id="u-1"), ping.s(text="x")]).delay()
    members = [member(made, 0, "send_welcome_email", "emails"), member(made, 1, "ping", "default")]
    assert made.status == "FAILURE"
    return made, members


def alone(queue: str = "users", **also: Any) -> str:
    """A run that has failed."""
    return fails(Envelope(id=new_id(), task="refresh_user_statistics", args={"user_id": "u-1"}), queue, **also)


def statuses(ids: list[str]) -> list[str]:
    return [AsyncResult[Any](run_id).status for run_id in ids]


def click(**form: Any) -> Plan | str:
    """The button Retry of a page, or of Django's admin."""
    where = Deployment("nexus-test", "UPDATE_COMPLETE", "eu-west-1", "1" * 12, {"Stage": "dev"})
    return perform(Site(Choice(), connect=lambda _: where), "retry", form)


def test_a_group_and_a_run_that_failed_are_sent_again_whatever_their_queues() -> None:
    made, members = two_queues()
    runs = [*members, alone()]

    asked = click(query="status:failure")
    assert isinstance(asked, Plan)
    assert asked.question == "Send 3 runs of nexus-test again, with all attempts?"
    assert sorted(line.rpartition("  ")[2] for line in asked.lines) == sorted(runs)

    assert click(query="status:failure", confirmed="1") == "3 sent again."
    assert statuses(runs) == ["PENDING"] * 3
    assert dead_letters.counts(list(QUEUES)) == dict.fromkeys(QUEUES, 0)
    assert made.status == "FAILURE"  # until its members succeed


def test_the_page_of_a_group_sends_its_failed_members_and_no_other_run() -> None:
    made, members = two_queues()
    other = alone()
    assert click(id=made.id, confirmed="1") == "2 sent again."
    assert statuses([*members, other]) == ["PENDING", "PENDING", "FAILURE"]
    with pytest.raises(Problem, match="nothing to send again"):
        click(id=made.id)


def test_the_monitor_sends_a_groups_failed_members() -> None:
    made, members = two_queues()
    assert watch.act("retry", made.id) == "2 sent again."
    assert statuses(members) == ["PENDING", "PENDING"]


def test_a_group_that_still_runs_is_asked_for_the_members_that_have_failed() -> None:
    made = group([send_welcome_email.s(user_id="u-1"), ping.s(text="x")]).delay()
    failed = member(made, 1, "ping", "default")
    assert made.status == "STARTED"
    assert click(id=made.id, confirmed="1") == "1 sent again."
    assert statuses([failed]) == ["PENDING"]


def test_a_retry_of_a_member_that_is_a_chain_sends_the_failed_step_again() -> None:
    made = group([chain(ping.s(text="1"), ping.s(text="2")), ping.s(text="3")]).delay()
    last = tallies.member(made.id, 1, 0)
    first = fails(Envelope(id=tallies.earlier_id(last, 0), task="ping", args={"text": "1"}), "default")
    assert statuses([last]) == ["FAILURE"]
    # The step after it has no dead letter: it was never sent
    with pytest.raises(Problem) as caught:
        click(id=last)
    assert "send that one again" in caught.value.why

    assert click(id=[made.id, last], confirmed="1") == "1 sent again. 1 will follow when the run before has succeeded."
    assert statuses([first, last]) == ["PENDING", "FAILURE"]


def waiting(run_id: str, failed: int, **also: Value) -> None:
    """A fan-out of two segments, one of which has failed, as its record says."""
    values: dict[str, Value] = {"status": "FAILURE", "task": "update_user_statistics", "queue": "analytics", **also}
    backend().store.apply(Write(run_id, values | {"total": 2, "phase": 1}))
    key = tallies.tally(run_id, 1, 0)
    backend().store.apply(Write(key, add={"done": frozenset({1 - failed}), "failed": frozenset({failed})}))


def test_a_retry_of_nested_fan_outs_sends_the_failed_segment_again() -> None:
    outer = new_id()
    inner = tallies.member(outer, 1, 1)
    waiting(outer, 1, waits=True)
    waiting(inner, 0, waits=True)
    segment = fails(Envelope(id=tallies.member(inner, 1, 0), task="update_user_statistics"), "analytics")
    assert [run.id for run in retrying.failed([outer]).runs] == [segment]
    assert click(id=outer, confirmed="1") == "1 sent again."
    assert statuses([outer, inner, segment]) == ["FAILURE", "FAILURE", "PENDING"]


def test_a_fan_out_that_failed_while_it_sent_its_segments_is_sent_again_itself() -> None:
    outer = new_id()
    segment = fails(Envelope(id=tallies.member(outer, 1, 0), task="update_user_statistics"), "analytics")
    waiting(outer, 0)
    assert [run.id for run in retrying.failed([outer]).runs] == [outer, segment]


def test_only_failed_runs_can_be_sent_again() -> None:
    revoked = new_id()
    waiting(revoked, 0, status="REVOKED", waits=True)
    fails(Envelope(id=tallies.member(revoked, 1, 0), task="update_user_statistics"), "analytics")
    for run_id in (revoked, new_id()):
        with pytest.raises(Problem, match="nothing to send again"):
            retrying.failed([run_id])


def test_a_run_without_a_letter_or_without_a_queue_of_this_stack_stops_no_other() -> None:
    runs = [alone(), alone(letter=False), alone("gone", letter=False)]
    assert retrying.retry(retrying.failed(runs)) == (
        "1 sent again. Not sent: 1 whose queue is not in this stack. 1 no longer had a dead letter."
    )


def test_a_message_that_sqs_refuses_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = alone()
    monkeypatch.setattr(dead_letters, "retry", lambda *_: Outcome(failed={run_id: "too large"}))
    assert retrying.retry(retrying.failed([run_id])) == "0 sent again. 1 could not be: too large."


def test_an_error_halfway_says_how_many_were_sent_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = alone("users"), alone("media")
    really = dead_letters.retry

    def retry(queue: str, wanted: Filter) -> Outcome:
        if queue == "media":
            why = "not authorized to perform: sqs:ReceiveMessage"
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": why}}, "ReceiveMessage")
        return really(queue, wanted)

    monkeypatch.setattr(dead_letters, "retry", retry)
    with pytest.raises(Problem, match="ReceiveMessage was denied") as caught:
        click(id=[first, second], confirmed="1")
    assert caught.value.why == "not authorized to perform: sqs:ReceiveMessage. 1 sent again before that."
    assert caught.value.code is ExitCode.DENIED
    assert statuses([first, second]) == ["PENDING", "FAILURE"]
    with pytest.raises(ClientError):
        click(id=second, confirmed="1")
