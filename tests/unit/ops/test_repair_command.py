"""`nexus repair`: what it restores, in which order, and what it says."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ops import audit, deployment, repair
from ops.cli import common
from ops.deployment import Deployment
from ops.main import main
from ops.problems import ExitCode, Problem

WHERE = Deployment(
    "nexus-x", "UPDATE_COMPLETE", "eu-west-1", "1" * 12, {"Stage": "dev"}, datetime.now(UTC), outputs={"Version": "1"}
)


def test_parts_deleted_with_a_queue_are_restored_after_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = repair.Change("UsersQueue", "SQS::Queue", missing=True)
    policy = repair.Change("UsersQueuePolicy", "SQS::QueuePolicy", missing=True)
    # Given CloudFormation, which sees that the policy is missing once the queue is there
    plans = iter([repair.Plan("first", (queue,)), repair.Plan("second", (policy,))])
    executed: list[str] = []
    monkeypatch.setattr(deployment, "connect", lambda *_, **__: WHERE)
    monkeypatch.setattr(common, "connect", lambda: WHERE)
    monkeypatch.setattr(audit, "note_outcome", lambda _: None)
    monkeypatch.setattr(repair, "plan", lambda _: next(plans))
    monkeypatch.setattr(repair, "execute", lambda _, made: executed.append(made.change_set))

    assert main(["repair", "--yes"]) == 0

    assert executed == ["first", "second"]
    assert "UsersQueuePolicy (SQS::QueuePolicy) was deleted with it" in capsys.readouterr().out


class CloudFormation:
    """A stack that goes through these statuses, and a change set with this end; it records the calls."""

    def __init__(self, statuses: Iterable[str] = (), change_set: dict[str, Any] | None = None) -> None:
        self._statuses = iter(statuses)
        self._change_set = change_set
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def do(**_: Any) -> None:
            self.done.append(name)

        return do

    def describe_stacks(self, **_: Any) -> Any:
        return {"Stacks": [{"StackStatus": next(self._statuses), "StackStatusReason": "a quota"}]}

    def describe_change_set(self, **_: Any) -> Any:
        return self._change_set


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between two looks; each look takes a quarter of the patience."""
    pauses: list[float] = []
    moments = itertools.count(0.0, repair.PATIENCE / 4)
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


def stack(monkeypatch: pytest.MonkeyPatch, made: CloudFormation, where: Deployment = WHERE) -> CloudFormation:
    monkeypatch.setattr(repair, "client", lambda _: made)
    monkeypatch.setattr(common, "connect", lambda: where)
    monkeypatch.setattr(audit, "note_outcome", lambda _: None)
    return made


MISSING = {
    "ResourceChange": {"LogicalResourceId": "UsersAlias", "ResourceType": "AWS::Lambda::Alias", "Action": "Modify"}
}
WELL = {"Status": "CREATE_COMPLETE", "Changes": [MISSING]}
NOTHING = {"Status": "FAILED", "StatusReason": "The submitted information didn't contain changes."}


@pytest.mark.parametrize(
    ("status", "do"),
    [
        ("UPDATE_IN_PROGRESS", "Wait for the deployment to end."),
        ("ROLLBACK_COMPLETE", "It cannot be updated: `sam delete --stack-name nexus-x`, then deploy."),
        (
            "UPDATE_ROLLBACK_FAILED",
            "`aws cloudformation continue-update-rollback --stack-name nexus-x` ends the rollback; then deploy.",
        ),
    ],
)
def test_a_stack_that_cannot_be_updated_is_not_compared(status: str, do: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stack(monkeypatch, CloudFormation())
    with pytest.raises(Problem, match=f"is {status} and cannot be changed") as raised:
        repair.plan(replace(WHERE, status=status))
    assert raised.value.do == do
    assert made.done == []


def test_a_failed_comparison_differs_from_one_that_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stack(monkeypatch, CloudFormation(change_set=NOTHING))
    assert repair.plan(WHERE).changes == ()
    assert made.done == ["create_change_set", "delete_change_set"]
    stack(monkeypatch, CloudFormation(change_set={"Status": "FAILED", "StatusReason": "no rights"}))
    with pytest.raises(Problem, match="cannot compare the stack") as raised:
        repair.plan(WHERE)
    assert raised.value.why == "no rights"


def test_a_repair_that_fails_says_where_its_details_are(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    made = stack(monkeypatch, CloudFormation(["UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"]))
    with pytest.raises(Problem, match="was not repaired: it is UPDATE_ROLLBACK_COMPLETE") as raised:
        repair.execute(WHERE, repair.Plan("one", ()))
    assert "describe-stack-events --stack-name nexus-x" in raised.value.do
    assert (made.done, clock) == (["execute_change_set"], [0.2])


def test_a_stack_that_does_not_settle_is_given_up(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    stack(monkeypatch, CloudFormation(itertools.repeat("UPDATE_IN_PROGRESS")))
    with pytest.raises(Problem, match="CloudFormation has not finished"):
        repair.roll_back(WHERE)
    assert clock == [0.2, pytest.approx(0.3), pytest.approx(0.45), pytest.approx(0.675)]


@pytest.mark.parametrize("settled", ["UPDATE_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED"])
def test_a_deployment_that_was_interrupted_is_rolled_back_first(
    settled: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted = replace(WHERE, status="UPDATE_FAILED")
    made = stack(monkeypatch, CloudFormation([settled], NOTHING))
    found = iter([interrupted, WHERE])
    monkeypatch.setattr(common, "connect", lambda: next(found))

    code = main(["repair", "--yes"])

    shown = capsys.readouterr()
    if settled.endswith("FAILED"):
        assert code == ExitCode.WRONG
        assert "was not rolled back: it is UPDATE_ROLLBACK_FAILED" in shown.err
        assert made.done == ["rollback_stack"]
    else:
        assert code == ExitCode.DONE
        assert "Rolled back to the previous deployment." in shown.out
        assert "Nothing of nexus-x was deleted or changed by hand." in shown.out


def test_a_first_deployment_that_failed_twice_is_not_rolled_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no earlier state: RollbackStack would delete the stack."""
    made = stack(monkeypatch, CloudFormation(), replace(WHERE, status="UPDATE_FAILED", outputs={}))
    assert main(["repair", "--yes"]) == ExitCode.WRONG
    assert "a first deployment continues where it stopped" in capsys.readouterr().err
    assert made.done == []


def test_nothing_is_restored_without_a_confirmation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stack(monkeypatch, CloudFormation(change_set=WELL))
    assert main(["repair"]) == ExitCode.NOT_CONFIRMED
    assert "It also undoes `nexus rollback`" in capsys.readouterr().out
    assert made.done == ["create_change_set", "delete_change_set"]


def test_ctrl_c_at_the_question_leaves_no_change_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def confirm(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    made = stack(monkeypatch, CloudFormation(change_set=WELL))
    monkeypatch.setattr(common, "confirm", confirm)
    assert main(["repair"]) == ExitCode.INTERRUPTED
    assert made.done == ["create_change_set", "delete_change_set"]


@pytest.mark.parametrize(
    ("status", "started"), [("UPDATE_COMPLETE", "execute_change_set"), ("UPDATE_FAILED", "rollback_stack")]
)
def test_ctrl_c_during_the_update_says_that_cloudformation_continues(
    status: str, started: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    made = stack(monkeypatch, CloudFormation(["UPDATE_IN_PROGRESS"], WELL), replace(WHERE, status=status))
    monkeypatch.setattr("time.sleep", sleep)
    assert main(["repair", "--yes"]) == ExitCode.INTERRUPTED
    assert made.done[-1] == started
    assert "CloudFormation began, and continues without this command." in capsys.readouterr().err


@pytest.mark.parametrize("end", ["denied", "UPDATE_ROLLBACK_COMPLETE"])
def test_a_repair_that_did_not_begin_or_has_ended_does_not_continue(
    end: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ExecuteChangeSet")

    made = stack(monkeypatch, CloudFormation([end], WELL))
    if end == "denied":
        monkeypatch.setattr(made, "execute_change_set", denied, raising=False)
    assert main(["repair", "--yes"]) == (ExitCode.DENIED if end == "denied" else ExitCode.WRONG)
    assert "continues" not in capsys.readouterr().err


def test_a_repair_ends_after_one_change_set_if_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = repair.Change("PostsTable", "DynamoDB::Table", missing=True)
    plans = iter([repair.Plan("first", (table,)), repair.Plan("second", ())])
    made = stack(monkeypatch, CloudFormation(["UPDATE_COMPLETE"]))
    monkeypatch.setattr(repair, "plan", lambda _: next(plans))
    assert main(["repair", "--yes", "--json"]) == ExitCode.DONE
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["repaired"]] == ["PostsTable"]
    assert made.done == ["execute_change_set"]
