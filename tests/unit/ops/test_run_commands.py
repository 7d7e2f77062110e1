"""`nexus send`, `result`, `revoke` and `inspect` of a stack in moto: what a person is shown."""

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from nexus import clock
from nexus.aws import sdk
from nexus.backend import backend
from nexus.backend.store import Write
from nexus.backend.transport import queue_url
from nexus.client import AsyncResult
from nexus.envelope import Envelope
from nexus.ids import new_id
from nexus.runs import tallies, transitions
from nexus.runs.record import RunError
from nexus.settings import settings
from ops import audit, catalogue, control, deployment, diagnosis, live, logs, lookup, pinging, waiting
from ops.cli import output
from ops.live import Found, LiveRun
from ops.main import main
from ops.pinging import Pong
from ops.problems import ExitCode, Problem
from social.catalogue import QUEUES
from tests.support.patience import next_millisecond

pytestmark = pytest.mark.usefixtures("cloud", "network")

KEEP = 2_000_000_000


@pytest.fixture(autouse=True)
def catalogue_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_CATALOGUE", "social.catalogue")
    settings.cache_clear()


@pytest.fixture
def a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is a terminal's."""
    monkeypatch.setattr(output, "fancy", lambda *_: True)
    monkeypatch.setenv("FORCE_COLOR", "1")


def of_three_parts(task: str, queue: str, *, done: set[int]) -> str:
    """A run that waits for its three parts, of which these have ended; its id."""
    job = new_id()
    kept: dict[str, Any] = {"status": "STARTED", "task": task, "queue": queue, "total": 3, "phase": 1, "waits": True}
    backend().store.apply(Write(job, kept))
    backend().store.apply(Write(tallies.tally(job, 1, 0), add={"done": frozenset(done)}))
    return job


def sent(task: str = "ping", queue: str = "users", **args: Any) -> Envelope:
    envelope = Envelope(id=new_id(), task=task, args=args, sent_at=datetime.now(UTC))
    backend().store.apply(transitions.pending(envelope, queue, KEEP))
    return envelope


def started(envelope: Envelope) -> str:
    by = transitions.Claim("t", "users", clock.moment(), clock.moment() + 60, KEEP)
    claim = transitions.claim(envelope, backend().store.get([envelope.id])[envelope.id], by, 4)
    assert isinstance(claim, Write)
    backend().store.apply(claim)
    return envelope.id


def failed() -> str:
    run_id = started(sent())
    backend().store.apply(transitions.fail(run_id, "t", RunError("Timeout", "too slow"), clock.moment()))
    return run_id


def waits_for_three(task: str, queue: str) -> dict[str, Any]:
    """The record of a job with three parts."""
    return {"status": "STARTED", "task": task, "queue": queue, "total": 3, "phase": 1, "waits": True}


# --- send ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ping", "--args", "{cut"], "--args is not JSON"),
        (["update_user_statistics", "day=1"], "update_user_statistics takes no arguments."),
    ],
)
def test_wrong_arguments_are_exit_code_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", *words]) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_a_message_whose_queue_was_deleted_is_not_sent_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    sqs = boto3.client("sqs")
    sqs.delete_queue(QueueUrl=queue_url(settings().queue_name("users")))
    assert main(["send", "ping", "--queue", "users"]) == ExitCode.WRONG
    said = capsys.readouterr().err
    assert "nexus-test has no queue users: it was deleted" in said
    assert "nexus repair" in said


@pytest.mark.usefixtures("a_person")
def test_the_output_names_the_command_that_shows_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "ping"]) == ExitCode.DONE
    shown = capsys.readouterr()
    assert f"`nexus result {shown.out.strip()} --follow`" in shown.err


def test_the_id_of_a_run_is_printed_although_the_wait_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    assert main(["send", "ping", "--wait"]) == ExitCode.INTERRUPTED
    run_id = capsys.readouterr().err.removeprefix("Sent: ").strip()
    assert AsyncResult[Any](run_id).status == "PENDING"


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["send", "ping", "--timeout", "5m"], "--wait"),
        (["schedule", "run", "cleanup_old_posts", "--timeout", "5m"], "--wait"),
        (["result", new_id(), "--timeout", "5m"], "--follow"),
    ],
)
def test_a_timeout_without_a_wait_is_refused(words: list[str], option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == ExitCode.USAGE
    assert f"Give {option} too." in capsys.readouterr().err


# --- result ---


@pytest.mark.parametrize("words", [["--follow", "--timeout", "0s"], []])
def test_the_results_of_several_runs_are_one_json_document(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [sent().id, sent().id]
    assert main(["result", *ids, *words, "--json"]) == (ExitCode.STILL_RUNNING if words else ExitCode.DONE)
    shown = capsys.readouterr()
    assert [one["id"] for one in json.loads(shown.out)] == ids
    if words:
        assert f"`nexus result {' '.join(ids)} --follow`" in json.loads(shown.err)["error"]["do"]


def test_several_schedules_run_now_are_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["cleanup_old_posts", "update_trending_hashtags"]
    assert main(["schedule", "run", *names, "--json"]) == ExitCode.DONE
    assert [one["task"] for one in json.loads(capsys.readouterr().out)] == names
    assert main(["schedule", "run", names[0], "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["task"] == names[0]


def test_several_runs_are_shown_one_below_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = sent(text="first").id, failed()
    assert main(["result", one, other]) == ExitCode.WRONG
    first, second = capsys.readouterr().out.split("\n\n", 1)
    assert one in first
    assert other in second
    assert "Timeout: too slow" in second


@pytest.mark.usefixtures("a_person")
def test_a_failure_names_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    run_id = failed()
    assert main(["result", run_id]) == ExitCode.WRONG
    assert "nexus dlq show" not in capsys.readouterr().err  # no function had it

    backend().store.apply(Write(run_id, {"log": "group stream request"}))
    assert main(["result", run_id]) == ExitCode.WRONG
    shown = capsys.readouterr().err
    assert f"`nexus dlq show {run_id}`" in shown
    assert f"`nexus dlq retry {run_id}` sends it again" in shown

    # A job has no dead letter: its parts have
    backend().store.apply(Write(run_id, {"waits": True, "total": 3, "phase": 1}))
    assert main(["result", run_id]) == ExitCode.WRONG
    shown = capsys.readouterr().err
    assert "nexus dlq show" not in shown
    assert f"`nexus dlq retry {run_id}` sends them again" in shown
    assert f"`nexus runs parent:{run_id} status:failure`" in shown


@pytest.mark.usefixtures("a_person")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"progress": '[3, 10, "halfway [red]"]'}, "ping STARTED halfway [red] 3/10"),
        (
            {"status": "RETRY", "error": json.dumps({"type": "Retry", "message": "no user u-1 yet"})},
            "ping RETRY Retry: no user u-1 yet",
        ),
    ],
    ids=["its progress", "why it will be tried again"],
)
def test_the_bar_of_a_run_that_is_followed_shows(
    changes: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = started(sent())
    backend().store.apply(Write(run_id, changes))
    sleep, shown = time.sleep, ""

    def drawn(_: float) -> None:
        """Waits until the bar has been drawn, by its own thread; then the run ends."""
        nonlocal shown
        while expected not in shown:
            shown += capsys.readouterr().err
            sleep(0.01)
        backend().store.apply(Write(run_id, {"status": "SUCCESS", "result": '"done"', "ended_at": clock.moment()}))

    monkeypatch.setattr("time.sleep", drawn)
    assert main(["result", run_id, "--follow"]) == ExitCode.DONE
    assert expected in shown


@pytest.mark.usefixtures("a_person")
def test_follow_waits_until_the_run_has_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id, slept = started(sent()), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        backend().store.apply(transitions.succeed(run_id, "t", '"done"', clock.moment()))

    monkeypatch.setattr("time.sleep", sleep)
    assert main(["result", run_id, "--follow"]) == ExitCode.DONE
    assert slept == [0.2]
    shown = capsys.readouterr()
    assert "SUCCESS" in shown.out
    assert "ping SUCCESS" in shown.err


def test_a_revocation_that_matches_no_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["revoke", "--queue", "users", "--yes"]) == ExitCode.DONE
    assert "No live run matches." in capsys.readouterr().err
    assert main(["revoke", "--queue", "users", "--dry-run"]) == ExitCode.DONE
    assert "would be revoked" not in capsys.readouterr().err


def test_a_search_for_a_task_that_does_not_exist_names_the_one_that_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "send_welcom_email"]) == ExitCode.DONE
    shown = capsys.readouterr()
    assert "No run matches." in shown.out
    assert "no task 'send_welcom_email'. Did you mean send_welcome_email?" in shown.err
    for words in (["task:ping"], ["task:group"], ["status:failure"]):
        assert main(["runs", *words]) == ExitCode.DONE
        assert "no task" not in capsys.readouterr().err


def test_a_dry_run_and_the_question_say_which_runs(capsys: pytest.CaptureFixture[str]) -> None:
    ids = {sent().id, sent().id, sent("refresh_user_statistics", user_id="u-1").id}
    assert main(["revoke", "--queue", "users", "--dry-run"]) == ExitCode.DONE
    shown = capsys.readouterr()
    assert [line.split()[1:] for line in shown.out.splitlines()[1:]].count(["ping", "users", "PENDING"]) == 2
    assert "3 runs (2 ping, 1 refresh_user_statistics) would be revoked." in shown.err
    assert main(["revoke", "--queue", "users", "--dry-run", "--json"]) == ExitCode.DONE
    listed = json.loads(capsys.readouterr().out)
    assert {run["id"] for run in listed} == ids
    assert {"task": "refresh_user_statistics", "queue": "users", "status": "PENDING"}.items() <= next(
        run for run in listed if run["task"] != "ping"
    ).items()
    assert main(["revoke", *ids]) == ExitCode.NOT_CONFIRMED
    assert "Revoke 3 runs (2 ping, 1 refresh_user_statistics) in nexus-test?" in capsys.readouterr().err


# --- inspect ---


def test_registered_tasks_have_their_arguments_and_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "registered", "analytics"]) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "update_trending_hashtags" in shown
    assert "hourly" in shown
    assert "(every)" in shown  # ping
    assert "send_welcome_email" not in shown


def found(monkeypatch: pytest.MonkeyPatch, *runs: LiveRun, more: bool = False) -> None:
    monkeypatch.setattr(live, "runs", lambda *_, **__: Found(runs, more))
    monkeypatch.setattr("time.time", lambda: 1000.0)


def test_active_runs_have_their_progress_and_jobs_what_they_wait_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = of_three_parts("update_user_statistics", "analytics", done={0})
    found(
        monkeypatch,
        LiveRun("r-1", "ping", "users", "STARTED", 990.0, lease_until=1060.0, progress=(3, 10, "rows")),
        LiveRun("r-2", "ping", "users", "STARTED", 900.0, lease_until=940.0, parent=job, segment=1),
        more=True,
    )
    assert main(["inspect", "active"]) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "3/10 rows" in shown
    assert "lost" in shown
    assert "segment 1" in shown
    assert "... and more: --limit shows more than 2." in shown
    assert f"update_user_statistics {job} waits for its segments: 1 of 3 done" in shown


def test_reserved_runs_have_their_next_attempt_and_queues_their_messages_in_flight(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found(
        monkeypatch,
        LiveRun("r-1", "ping", "users", "RETRY", 1030.0, attempts=1),
        LiveRun("r-2", "ping", "users", "RETRY", 700.0, attempts=2),
    )
    assert main(["inspect", "reserved", "users"]) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "30s" in shown
    assert "overdue 5m" in shown
    assert "In flight: users 0" in shown


def test_a_queue_without_an_answer_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pongs = [Pong("users", "r-1", "SUCCESS", 0.25, 0.1, 0.05), Pong("media", "r-2", "no answer", why="it is paused")]
    monkeypatch.setattr(pinging, "ping", lambda *_: pongs)
    assert main(["inspect", "ping"]) == ExitCode.WRONG
    shown = capsys.readouterr().out
    assert "250 ms" in shown
    assert "media: it is paused" in shown


def test_a_run_without_attempts_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(logs, "events", lambda *_: [])
    assert main(["inspect", "stats"]) == ExitCode.DONE
    assert "No attempt has ended in the last" in capsys.readouterr().out


def test_completion_offers_live_and_recently_ended_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    event = logs.Event(1.0, "users", "ping", "r-1", "success", 1, 0.1)
    monkeypatch.setattr(logs, "events", lambda *_: [event])
    found(monkeypatch, LiveRun("r-2", "ping", "users", "STARTED", 990.0))
    assert [(one.id, one.status) for one in lookup.recent()] == [("r-2", "STARTED"), ("r-1", "success")]


# --- runs that are live ---


def test_live_runs_are_read_page_by_page_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Any] = []

    class Dynamodb:
        def query(self, **request: Any) -> Any:
            requests.append(request.get("ExclusiveStartKey"))
            item = {"id": {"S": f"r-{len(requests)}"}, "status": {"S": "RETRY"}, "since": {"N": "1"}}
            return {"Items": [item]} | ({"LastEvaluatedKey": {"id": item["id"]}} if len(requests) < 3 else {})

    monkeypatch.setattr(live, "client", lambda _: Dynamodb())
    runs, more = live._shard("users#0", None, 10)
    assert ([run.id for run in runs], more) == (["r-1", "r-2", "r-3"], False)
    assert requests == [None, {"id": {"S": "r-1"}}, {"id": {"S": "r-2"}}]
    requests.clear()
    runs, more = live._shard("users#0", None, 1)
    assert ([run.id for run in runs], more) == (["r-1"], True)


def test_runs_that_are_due_later_are_not_read_to_find_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Monitor looks every two seconds; a million runs may wait for their time."""
    runs = [started(sent()) for _ in range(3)]
    now = clock.moment()
    for run_id, since in zip(runs, (now - 5.0, now + 30.0, now + 3600.0), strict=True):
        backend().store.apply(transitions.listed(run_id, "t", "users", since))
    read: list[int] = []
    query = sdk.client("dynamodb").query

    def counted(**request: Any) -> Any:
        response = query(**request)
        read.append(response["ScannedCount"])
        return response

    monkeypatch.setattr(live, "client", lambda _: SimpleNamespace(query=counted))
    monkeypatch.setattr(live, "_with_record", lambda run, _: run)
    assert [run.id for run in live.runs(["users"], "STARTED").runs] == runs[:2]
    assert sum(read) == 2
    assert len(live.runs(["users"]).runs) == 3


def test_a_run_without_a_record_is_known_from_its_schedule() -> None:
    scheduler, group = boto3.client("scheduler"), settings().stack
    assert live.scheduled(["users"]) == Found((), more=False)  # a stack that has never scheduled anything
    scheduler.create_schedule_group(Name=group)
    envelope = Envelope(id=new_id(), task="refresh_user_statistics", args={"user_id": "u"})
    due = datetime(2030, 1, 1, tzinfo=UTC)
    target: Any = {"Arn": f"arn:aws:sqs:eu-west-1:1:{group}-users", "RoleArn": "arn:aws:iam::1:role/r"}
    for name, body, at in (
        (envelope.id, envelope.encode(), due),
        ("rubbish", "not a message", due + timedelta(hours=1)),
    ):
        scheduler.create_schedule(
            Name=name,
            GroupName=group,
            ScheduleExpression=f"at({at:%Y-%m-%dT%H:%M:%S})",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target=target | {"Input": body},
        )
    (run,) = live.scheduled(["users"]).runs
    assert (run.id, run.queue, run.since, run.args) == (envelope.id, "users", due.timestamp(), {"user_id": "u"})
    assert run.scheduled_by == "Scheduler"
    assert live.scheduled(["media"]).runs == ()
    assert live._scheduled("sent-in-the-meantime") is None


def test_only_the_first_of_very_many_schedules_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (f"s-{n}" for n in range(1000))
    held = LiveRun("z-held", "ping", "users", "PENDING", 1000.0)
    monkeypatch.setattr(live, "LISTED", 20)
    monkeypatch.setattr(live, "_schedules", lambda: names)
    monkeypatch.setattr(live, "_scheduled", lambda name: held if name == held.id else None)
    found(monkeypatch, held, LiveRun("z-other", "ping", "users", "PENDING", 1100.0))
    seen = live.scheduled(["users"], limit=5)
    assert [(run.id, run.scheduled_by) for run in seen.runs] == [("z-held", "Scheduler"), ("z-other", "SQS")]
    assert seen.more
    assert next(names) == "s-20"


# --- what a run that has started waits for ---


def test_a_job_waits_for_its_parts_and_a_lost_run_for_its_message() -> None:
    job = of_three_parts("ping", "users", done={0, 2})
    (wait,) = waiting.reasons(AsyncResult[Any](job).record())
    assert wait.why == "2 of its 3 parts are done"

    lost = started(sent())
    assert waiting.reasons(AsyncResult[Any](lost).record()) == []
    backend().store.apply(Write(lost, {"lease_until": clock.moment() - 1}))
    (wait,) = waiting.reasons(AsyncResult[Any](lost).record())
    assert wait.why == "its sandbox died"


# --- switches ---


class Lambda:
    """The functions' settings."""

    def __init__(self, reserved: int | None) -> None:
        self.reserved = reserved
        self.changes: list[Any] = []

    def get_function_concurrency(self, **_: str) -> Any:
        return {} if self.reserved is None else {"ReservedConcurrentExecutions": self.reserved}

    def put_function_concurrency(self, **given: Any) -> None:
        self.changes.append(given["ReservedConcurrentExecutions"])

    def delete_function_concurrency(self, **_: str) -> None:
        self.changes.append("deleted")


@pytest.mark.parametrize(
    ("queue", "reserved", "deployed", "changes"),
    [
        ("media", 0, 5, [5]),
        ("media", 0, 0, ["deleted"]),
        ("users", 0, 5, [5]),
        ("users", None, 5, []),
        ("media", 5, 5, []),
    ],
)
def test_resume_gives_back_the_concurrency_that_was_deployed(
    queue: str, reserved: int | None, deployed: int, changes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.use("social.catalogue", tuple(QUEUES))
    lambda_ = Lambda(reserved)
    monkeypatch.setattr(control, "client", lambda _: lambda_)
    monkeypatch.setattr(control, "event_source", lambda _: {"UUID": "u", "State": "Enabled"})
    assert control.resume(queue, deployed).changed == bool(changes)
    assert lambda_.changes == changes


def test_resume_says_that_it_gave_back_a_concurrency_of_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lambda_ = Lambda(0)
    monkeypatch.setattr(control, "client", lambda _: lambda_)
    monkeypatch.setattr(control, "event_source", lambda _: {"UUID": "u", "State": "Enabled"})
    assert main(["resume", "users", "--yes"]) == ExitCode.DONE
    assert capsys.readouterr().out == "users is resumed.\n"
    lambda_.reserved = None
    assert main(["resume", "users", "--yes"]) == ExitCode.DONE
    assert capsys.readouterr().out == "users was Enabled already.\n"


def test_a_queue_of_an_unknown_catalogue_is_resumed_as_it_was_deployed(
    network: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lambda_ = Lambda(0)
    monkeypatch.setattr(control, "client", lambda _: lambda_)
    monkeypatch.setattr(control, "event_source", lambda _: {"UUID": "u", "State": "Disabled"})
    monkeypatch.setattr(catalogue, "tasks", missing_catalogue)
    where = deployment.connect(deployment.Choice())
    monkeypatch.setattr(deployment, "connect", lambda _: replace(where, parameters={"MediaReservedConcurrency": "50"}))
    assert main(["pause", "media", "--yes"]) == ExitCode.DONE
    assert "not known whether uploads start this function" in capsys.readouterr().err
    monkeypatch.setattr(control, "event_source", lambda _: {"UUID": "u", "State": "Enabled"})
    assert main(["resume", "media", "--yes"]) == ExitCode.DONE
    assert lambda_.changes == [50]


def missing_catalogue() -> Any:
    raise Problem("The catalogue shop.tasks cannot be imported")


class Changing(Lambda):
    """An event source that someone else is disabling: until that is done, Lambda refuses to change it."""

    def __init__(self) -> None:
        super().__init__(None)
        self.states = ["Disabling", "Disabling", "Disabled"]
        self.maximum = 2

    def event_source(self, _: str) -> Any:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"UUID": "u", "State": state, "ScalingConfig": {"MaximumConcurrency": self.maximum}}

    def update_event_source_mapping(self, **given: Any) -> None:
        if self.states != ["Disabled"]:
            raise ClientError({"Error": {"Code": "ResourceInUseException"}}, "UpdateEventSourceMapping")
        self.changes.append(given)
        self.states = ["Enabled" if given.get("Enabled") else "Disabled"]
        self.maximum = given.get("ScalingConfig", {}).get("MaximumConcurrency", self.maximum)


@pytest.mark.parametrize("change", [control.resume, partial(control.concurrency, maximum=7)])
def test_a_change_waits_for_the_one_in_progress(
    change: Callable[[str], control.Switched], monkeypatch: pytest.MonkeyPatch
) -> None:
    lambda_ = Changing()
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(control, "client", lambda _: lambda_)
    monkeypatch.setattr(control, "event_source", lambda_.event_source)
    assert change("users").changed
    assert len(lambda_.changes) == 1


# --- purge ---


def waiting_messages(count: int) -> str:
    """Runs of `users` whose messages wait; the URL of its queue."""
    url = queue_url(settings().queue_name("users"))
    for _ in range(count):
        boto3.client("sqs").send_message(QueueUrl=url, MessageBody=sent().encode())
    return url


def test_a_purge_leaves_what_was_sent_after_the_question(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = waiting_messages(3)
    counted_at = next_millisecond()
    waiting_messages(2)
    monkeypatch.setattr(control, "PURGE_THREADS", 1)
    assert control.purge("users", until=counted_at).messages == 3
    found = boto3.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)["Messages"]
    assert len(found) == 2

    monkeypatch.setattr("ops.cli.commands.queues.time.time", lambda: counted_at)
    assert main(["purge", "users", "--yes"]) == ExitCode.DONE
    assert "Fewer than were counted" in capsys.readouterr().err


def test_a_purge_ends_at_ctrl_c_and_says_how_far_it_got(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting_messages(1)
    pages = itertools.count()

    def receive(_: str, **__: Any) -> list[Any]:
        return [] if next(pages) > 1000 else [{"Attributes": {"SentTimestamp": "1"}}]

    def purge_page(*_: Any) -> control.Purged:
        return control.Purged(messages=1, runs=1)

    def interrupted(so_far: str, note: Any = audit.note_progress) -> None:
        note(so_far)
        raise KeyboardInterrupt

    monkeypatch.setattr(control, "_receive", receive)
    monkeypatch.setattr(control, "purge_page", purge_page)
    monkeypatch.setattr(audit, "note_progress", interrupted)
    assert main(["purge", "users", "--yes"]) == ExitCode.INTERRUPTED
    assert "Interrupted. Before that: " in capsys.readouterr().err
    assert next(pages) < 1000


def test_an_event_source_that_is_missing_or_does_not_change_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter(range(100))
    monkeypatch.setattr("time.monotonic", lambda: next(states) * control.PATIENCE / 2)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(control, "event_source", lambda _: {"State": "Disabling"})
    with pytest.raises(Problem, match="users's event source is still Disabling"):
        control._settled("users", lambda source: bool(source["State"] == "Disabled"))
    monkeypatch.setattr(control, "event_source", lambda _: None)
    with pytest.raises(Problem, match="users has no event source"):
        control.pause("users")


def test_a_ping_without_an_answer_is_revoked_and_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "stopped", lambda _: None)
    monkeypatch.setattr(waiting, "reasons", lambda _: [waiting.Wait("it is in line", "Wait.")])
    (pong,) = pinging.ping(["users"], 0.0)
    assert (pong.status, pong.why) == ("no answer", "it is in line. Wait.")
    assert AsyncResult[Any](pong.id).status == "REVOKED"


@pytest.mark.parametrize(("in_flight", "unclaimed"), [(5, 3), (2, 0), (1, 0)])
def test_messages_in_flight_are_unclaimed_unless_a_run_has_started_or_waits_for_its_retry(
    in_flight: int, unclaimed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = ("STARTED", "RETRY", "PENDING")
    found(monkeypatch, *(LiveRun(f"r-{status}", "ping", "users", status, 990.0) for status in states))
    assert diagnosis.unclaimed("users", in_flight) == unclaimed


# --- since ---


@pytest.mark.parametrize(
    "words",
    [
        ["runs"],
        ["audit"],
        ["events", "--no-follow"],
        ["logs", "--queue", "users"],
        ["inspect", "stats"],
        ["schedule", "list"],
    ],
)
@pytest.mark.parametrize("since", ["2h", "2026-11-22T10:00"])
def test_since_is_a_time_or_how_long_ago_in_every_command(words: list[str], since: str) -> None:
    assert main([*words, "--since", since]) == ExitCode.DONE


def test_statistics_are_counted_from_the_time_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def events(_: Any, start: float) -> list[logs.Event]:
        asked.append(start)
        return []

    monkeypatch.setattr(logs, "events", events)
    assert main(["inspect", "stats", "--since", "2026-11-22T10:00"]) == ExitCode.DONE
    assert asked == [datetime(2026, 11, 22, 10, tzinfo=UTC).timestamp()]
