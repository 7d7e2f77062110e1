"""Why a run waits, and what releases it."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from nexus import version
from nexus.backend import backend
from nexus.backend.store import Write
from nexus.builtin import ping
from nexus.client import chain, group
from nexus.runs.record import RunError, RunRecord
from ops import diagnosis, doctor, health, live, lookup, waiting
from ops.deployment import Deployment
from ops.problems import Problem
from tests.support import moto_cloud

RUN = "01a203f2-0000-7000-8000-000000000001"
OTHER = "01a203f2-0000-7000-8000-000000000002"


@pytest.fixture(autouse=True)
def well(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A deployment whose queue is on and has nine sandboxes, unless a test changes it."""
    state: dict[str, Any] = {
        "source": {"State": "Enabled", "ScalingConfig": {"MaximumConcurrency": 2}},
        "counts": health.Counts(3, 0, 0),
        "dead": health.Counts(0, 0, 0),
        "reserved": None,
        "dying": None,
        "running": (),
    }
    monkeypatch.setattr(health, "event_source", lambda _: state["source"])
    monkeypatch.setattr(health, "queue_counts", lambda name: state["dead" if name.endswith("-dead") else "counts"])
    monkeypatch.setattr(health, "reserved_concurrency", lambda _: state["reserved"])
    monkeypatch.setattr(health, "live_version", lambda _: (0.0, "7"))
    monkeypatch.setattr(diagnosis, "dying", lambda *_: state["dying"])
    monkeypatch.setattr(live, "runs", lambda *_, **__: live.Found(state["running"], more=False))
    with moto_cloud.deployment():
        yield state


def run(status: Any = "PENDING", **also: Any) -> RunRecord:
    return RunRecord(RUN, status, task="t", queue="users", sent_at=time.time() - 5, **also)


def reported(record: RunRecord) -> tuple[str, str]:
    (wait,) = waiting.reasons(record)
    return wait.why, wait.release


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "REVOKED", "UNKNOWN"])
def test_an_ended_run_waits_for_nothing(status: str) -> None:
    assert waiting.reasons(run(status)) == []


def test_a_paused_queue_is_reported_with_the_command_that_resumes_it(well: dict[str, Any]) -> None:
    well["source"] = {"State": "Disabled"}
    assert reported(run()) == ("the queue users is paused", "`nexus resume users`")
    # And a run that is due later waits for both
    assert len(waiting.reasons(run(eta=time.time() + 600))) == 2


@pytest.mark.parametrize(
    ("what", "value", "why"),
    [
        ("counts", None, "the queue users is missing"),
        ("source", None, "no event source feeds users's function"),
        ("reserved", 0, "the reserved concurrency of users's function is 0"),
    ],
)
def test_a_queue_that_lacks_a_part_is_reported(well: dict[str, Any], what: str, value: Any, why: str) -> None:
    well[what] = value
    assert reported(run())[0] == why


def test_a_run_before_its_time_says_when() -> None:
    why, release = reported(run(eta=4_102_444_800.0))
    assert why == "it is due at 2100-01-01 00:00:00 UTC"
    assert f"`nexus revoke {RUN}`" in release


def test_a_later_step_waits_for_the_one_before_it_and_not_for_a_message(well: dict[str, Any]) -> None:
    """Its message was neither purged nor is its queue missing: it has none yet, and a group never has a queue."""
    well["counts"] = health.Counts(0, 0, 0)
    last: Any = chain(ping.s(text="1"), ping.si(text="2"), group([ping.s(text="3")]), ping.si(text="4")).delay()
    handles = [last, last.parent, last.parent.parent, last.parent.parent.parent]
    for step, before in pairwise(handles):
        record = replace(step.record(), sent_at=time.time() - 100)
        assert record.status == "PENDING"
        assert reported(record)[0] == f"it follows {before.id}, which has not ended"
    # And the first, or one whose predecessor has ended, waits for its message
    first = replace(handles[-1].record(), sent_at=time.time() - 100)
    assert "has no message for it" in reported(first)[0]
    backend().store.apply(Write(handles[-1].id, {"status": "SUCCESS"}))
    second = replace(handles[-2].record(), sent_at=time.time() - 100)
    assert "has no message for it" in reported(second)[0]
    # And so does what a run has sent itself
    child = replace(first, id=OTHER, parent=last.id)
    assert "has no message for it" in reported(child)[0]


def test_a_failed_attempt_is_reported_with_its_error() -> None:
    why, _ = reported(run("RETRY", eta=4_102_444_800.0, attempts=2, error=RunError("ValueError", "no")))
    assert why == "attempt 2 failed (ValueError: no); the next comes at 2100-01-01 00:00:00 UTC"


def test_a_rate_limit_is_reported_with_the_booked_start() -> None:
    backend().store.apply(Write(RUN, {"slot": True}))
    booked = reported(run("RETRY", eta=4_102_444_800.0))
    assert booked[0].startswith("t has a rate limit, and its start is booked for 2100")


def test_a_unique_task_names_the_run_that_it_waits_for() -> None:
    backend().store.apply(Write("unique/t/1", {"holder": OTHER, "waiter": RUN, "lease_until": 4_102_444_800}))
    why, release = reported(run("RETRY", eta=4_102_444_800.0, place="unique/t/1"))
    assert why == f"{OTHER} is live, and t is unique"
    assert f"`nexus revoke {OTHER}`" in release


def test_a_lack_of_sandboxes_is_reported_with_the_number_of_busy_ones(well: dict[str, Any]) -> None:
    until = time.time() + 60
    # Given three runs in two sandboxes: a batch's leases end together
    leases = (until, until, until + 5)
    well["running"] = tuple(live.LiveRun(str(n), "t", "users", "STARTED", 0.0, 1, at) for n, at in enumerate(leases))
    why, release = reported(run())
    assert why == "all 2 sandboxes of users are busy, and 3 messages wait"
    assert "`nexus concurrency users 4`" in release


def test_a_dying_function_is_reported(well: dict[str, Any]) -> None:
    well["dying"] = diagnosis.Dying("users", 0.0, 1, "Runtime.ImportModuleError: x")
    assert reported(run())[0] == "the function dies: Runtime.ImportModuleError: x"


def test_a_message_that_was_purged_by_hand_is_reported_missing(well: dict[str, Any]) -> None:
    well["counts"] = health.Counts(0, 0, 0)
    assert reported(run())[0] == "its turn: 0 waiting in users", "it may be on its way"
    late = RunRecord(RUN, "PENDING", task="t", queue="users", sent_at=time.time() - 300)
    why, release = reported(late)
    assert why == "users has no message for it: it was purged, or has expired"
    assert f"--id {RUN}" in release


def test_a_message_that_sqs_has_moved_is_looked_for_among_the_dead_letters(well: dict[str, Any]) -> None:
    well["counts"], well["dead"] = health.Counts(0, 0, 0), health.Counts(2, 0, 0)
    late = RunRecord(RUN, "RETRY", task="t", queue="users", sent_at=time.time() - 300)
    why, release = reported(late)
    assert why == "users has no message for it: it may be a dead letter (users has 2)"
    assert f"`nexus dlq show {RUN}`" in release


def test_a_message_that_a_function_holds_is_counted(well: dict[str, Any]) -> None:
    well["counts"] = health.Counts(0, 1, 0)
    assert reported(run("RETRY"))[0] == "its turn: 0 waiting in users, 1 in flight"


# --- ids, clocks, versions ---


def test_an_id_may_be_cut_to_eight_characters_where_no_history_is_kept(
    well: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ops import catalogue, history

    monkeypatch.setattr(catalogue, "queues", lambda: ("users",))
    monkeypatch.setattr(history, "INDEX", "gone")
    with pytest.raises(Problem, match="No run's id begins or ends with 01a203f2"):
        lookup.run_id("01a203f2")
    # A run that waits in its queue is only in its record
    waits = "01a203f2-1111-7000-8000-000000000003"
    backend().store.apply(Write(waits, {"status": "PENDING", "task": "t", "queue": "users", "sent_at": 5}))
    assert lookup.run_id("01a203f2-1") == lookup.run_id("00000003") == waits
    # Items that are not runs are not found by the end of their key
    backend().store.apply(Write("audit/01a203f2-1111-7000-8000-0000c0ffee00", {"who": "ada"}))
    with pytest.raises(Problem, match="No run's id"):
        lookup.run_id("c0ffee00")
    assert [run.id for run in lookup.live_runs(["users"], "t", None)] == [waits]
    assert lookup.live_runs(["users"], "another", None) == lookup.live_runs(["media"], "t", None) == []
    assert lookup.live_runs(["users"], None, "STARTED") == []
    assert lookup.run_id("01A203F2") == waits
    # And one that has started is in the index of live runs
    well["running"] = (live.LiveRun(RUN, "t", "users", "STARTED", 0.0),)
    with pytest.raises(Problem, match="01a203f2 matches 2 runs") as caught:
        lookup.run_id("01a203f2")
    assert f"{RUN} t STARTED" in caught.value.why
    assert waits in caught.value.why
    assert lookup.run_id(OTHER) == OTHER
    with pytest.raises(Problem, match="not a run id"):
        lookup.run_id("01a203f")


def deployment(**outputs: str) -> Deployment:
    return Deployment("nexus-x", "CREATE_COMPLETE", "eu-west-1", "1" * 12, {}, outputs=outputs)


class CloudFormation:
    """Returns a date, as every AWS service does."""

    def describe_stacks(self, **_: str) -> Any:
        return {"ResponseMetadata": {"HTTPHeaders": {"date": "Fri, 27 Nov 2026 05:00:00 GMT"}}}


@pytest.mark.parametrize(
    ("off", "severity"), [(0.0, None), (4.0, None), (60.0, "warning"), (-60.0, "warning"), (900.0, "failed")]
)
def test_a_wrong_clock_is_reported(off: float, severity: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = 1_795_755_600.0
    monkeypatch.setattr(doctor, "client", lambda _: CloudFormation())
    monkeypatch.setattr(doctor, "now", lambda: right + off)
    found = list(doctor.clock(deployment()))
    assert [one.severity for one in found] == ([] if severity is None else [severity])
    if found:
        assert found[0].what == f"it is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'} of AWS's"


@pytest.mark.parametrize(
    ("deployed", "older"), [("0.1.0", False), ("0.0.9", False), ("0.1.1", True), ("0.10.0", True), (None, False)]
)
def test_a_client_older_than_the_deployment_is_reported(
    deployed: str | None, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "VERSION", "0.1.0")
    outputs = {} if deployed is None else {"Version": deployed}
    assert bool(health.of_version(deployment(**outputs))) is older
