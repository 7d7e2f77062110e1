"""`nexus dev` without its processes: what it refuses, which queues it takes, what a change does, what is shown."""

import io
import json
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest

from ops import checkout, control, deployment, health
from ops.cli.commands import developing
from ops.cli.loop import session, worker
from ops.cli.loop.lifeline import RELOAD, RERUN
from ops.deployment import Deployment
from ops.main import main
from ops.problems import ExitCode, Problem
from social.catalogue import QUEUES

RUN = str(uuid.uuid4())


def stack(stage: str = "local") -> Deployment:
    urls = {f"{queue.title()}QueueUrl": f"https://sqs/000000000000/nexus-x-{queue}" for queue in QUEUES}
    return Deployment("nexus-x", "UPDATE_COMPLETE", "eu-west-1", "000000000000", {"Stage": stage}, outputs=urls)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> None:
    from ops import catalogue

    catalogue.use("social.catalogue", tuple(QUEUES))
    monkeypatch.setattr(deployment, "connect", lambda _: stack())


# --- what it refuses ---


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dev", "--json"], "dev needs a terminal"),
        (["dev", "usres"], "Did you mean users?"),
        (["dev", "--from", "nexus-prod"], "Give --replay RUN too."),
        (["dev", "--functions", "/no/such/folder"], "--functions: /no/such/folder is not a folder"),
    ],
)
def test_wrong_words_are_exit_code_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_the_queues_of_production_are_never_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deployment, "connect", lambda _: stack("prod"))
    assert main(["dev"]) == ExitCode.WRONG
    assert "nexus-x is production" in capsys.readouterr().err


def record(**fields: Any) -> dict[str, Any]:
    task = {"task": "send_welcome_email", "queue": "emails", "args": {"user_id": "u-1"}}
    return {"id": RUN, "status": "FAILURE", "parent": None, **task, **fields}


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"status": "UNKNOWN", "task": None}, "is unknown"),
        ({"args": None}, "lacks arguments that are secret or too large"),
        ({"args": {"user_id": "(secret)"}}, "lacks arguments that are secret or too large"),
        ({"args": {"first": 1}}, "user_id: Field required"),
        ({"task": "send_welcome_mail"}, "There is no task"),
    ],
)
def test_a_run_whose_arguments_are_not_known_is_not_replayed(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem) as raised:
        developing._last(record(**fields), list(QUEUES))
    assert said in f"{raised.value.what} {raised.value.why}"


@pytest.mark.usefixtures("connected")
def test_a_part_is_replayed_by_the_job_that_it_belongs_to() -> None:
    with pytest.raises(Problem) as raised:
        developing._last(record(args={"shard": 1}, parent="the-job"), list(QUEUES))
    assert raised.value.do == "It is a part of the-job: replay that."


@pytest.mark.usefixtures("connected")
def test_a_run_is_replayed_on_its_own_queue_if_that_is_served() -> None:
    told = {"task": "send_welcome_email", "args": {"user_id": "u-1"}}
    assert developing._last(record(), ["users", "emails"]) == {"queue": "emails", "event": None, "runs": [told]}
    with pytest.raises(Problem, match="belongs to the queue emails"):
        developing._last(record(), ["users"])


# --- the queues ---


class Sources:
    """The queues' event sources."""

    def __init__(self, **states: str) -> None:
        self.states = states

    def pause(self, queue: str) -> None:
        self.states[queue] = "Disabled"

    def resume(self, queue: str, _reserved: int) -> None:
        self.states[queue] = "Enabled"


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "dev.json"
    path.write_text("")
    return path


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Sources:
    made = Sources(users="Enabled", media="Enabled", default="Disabled")
    monkeypatch.setattr(health, "event_source", lambda queue: {"State": made.states[queue]})
    monkeypatch.setattr(control, "pause", made.pause)
    monkeypatch.setattr(control, "resume", made.resume)
    return made


def test_queues_are_paused_and_resumed_and_one_that_someone_paused_is_left_alone(sources: Sources, note: Path) -> None:
    with session._taken(stack(), ["media", "users", "default"], note) as taken:
        assert taken == ["media", "users"]
        assert set(sources.states.values()) == {"Disabled"}
        assert json.loads(note.read_text()) == ["media", "users"]
    assert sources.states == {"users": "Enabled", "media": "Enabled", "default": "Disabled"}
    assert json.loads(note.read_text()) == []


def test_what_a_killed_session_had_paused_is_resumed(sources: Sources, note: Path) -> None:
    sources.states["users"] = "Disabled"
    note.write_text('["default", "users", "a-queue-of-an-older-template"]')
    with session._taken(stack(), ["users"], note) as taken:
        assert taken == ["users"]
        assert sources.states["default"] == "Enabled"  # at once: nobody works on it
        assert sources.states["users"] == "Disabled"
    assert set(sources.states.values()) == {"Enabled"}


def test_ctrl_c_while_it_pauses_resumes_too(sources: Sources, note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(queue: str) -> None:
        sources.pause(queue)
        raise KeyboardInterrupt

    def handle(*_: object) -> None: ...

    monkeypatch.setattr(control, "pause", interrupted)
    before = signal.signal(signal.SIGINT, handle)  # a shell's background job starts with SIGINT ignored
    try:
        with pytest.raises(KeyboardInterrupt), session._taken(stack(), ["users"], note):
            pytest.fail("it was interrupted before")
        assert sources.states["users"] == "Enabled"
        assert signal.getsignal(signal.SIGINT) is handle
    finally:
        signal.signal(signal.SIGINT, before)


def test_with_every_queue_paused_there_is_nothing_to_work_on(sources: Sources, note: Path) -> None:
    with pytest.raises(Problem, match="There is no queue to run"), session._taken(stack(), ["default"], note):
        pytest.fail("there is none")
    assert sources.states["default"] == "Disabled"


def test_two_sessions_of_a_stack_exclude_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "cloud_folder", lambda: tmp_path)
    with (
        session._noted("a"),
        session._noted("b"),
        pytest.raises(Problem, match="Another `nexus dev` runs on a"),
        session._noted("a"),
    ):
        pytest.fail("it is locked")


# --- changes ---


class Server:
    """Notes the signals; ends with `code`."""

    def __init__(self, code: int | None = None) -> None:
        self.code = code
        self.signals: list[int] = []

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, sig: int) -> None:
        self.signals.append(sig)


@pytest.mark.parametrize(
    ("changed", "sent"),
    [
        ("functions/users/one.py", [RERUN]),
        ("functions/users/templates/one.html", [RERUN]),
        ("shared/nexus/cron.py", [RERUN]),
        ("functions/media/one.py", [RELOAD]),
    ],
)
def test_a_change_runs_the_last_message_again_unless_it_is_in_another_queues_folder(
    tmp_path: Path, changed: str, sent: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    code, server, last = tmp_path / "functions", Server(), tmp_path / "last.json"
    (code / "users").mkdir(parents=True)
    last.write_text('{"queue": "users"}')

    session.watch([code, tmp_path / "shared"], server, last, code, iter([set(), {(1, str(tmp_path / changed))}]))

    assert server.signals == sent
    assert capsys.readouterr().err == f"{changed} changed\n"


def test_the_temporary_files_of_editors_are_not_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = {(1, str(tmp_path / "functions/users" / name)) for name in ("one.py", "sedRqycro", "4913")}
    code = tmp_path / "functions"
    session.watch([code], Server(), tmp_path / "last.json", code, iter([changed]))
    assert capsys.readouterr().err == "functions/users/one.py changed\n"


def test_a_server_that_has_ended_ends_the_session(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="server has ended"):
        session.watch([], Server(1), tmp_path / "last.json", tmp_path, iter([set()]))


# --- what a worker passes on and shows ---


def test_a_message_is_passed_on_as_lambda_does() -> None:
    attribute = {"StringValue": "Reject", "DataType": "String"}
    message = {
        "MessageId": "m",
        "ReceiptHandle": "r",
        "Body": "{}",
        "Attributes": {"ApproximateReceiveCount": "2"},
        "MessageAttributes": {"ErrorType": attribute},
    }
    passed = worker._record(message, "arn:aws:sqs:eu-west-1:000000000000:nexus-x-users")
    assert passed["messageAttributes"] == {"ErrorType": {"stringValue": "Reject", "dataType": "String"}}
    assert passed["attributes"] == {"ApproximateReceiveCount": "2"}
    assert (passed["eventSource"], passed["awsRegion"]) == ("aws:sqs", "eu-west-1")


def test_log_lines_are_for_people_and_what_the_worker_shows_itself_is_left_out() -> None:
    shown = io.StringIO()
    stream = worker.Readable(shown)
    for message in ("run started", "counted", "run ended"):
        stream.write(json.dumps({"level": "INFO", "message": message, "rows": 3, "run_id": RUN}) + "\n")
    stream.write("a print\n")
    stream.write("{not JSON\n")
    first, *rest = shown.getvalue().splitlines()
    assert first.endswith("INFO    counted  rows=3")
    assert rest == ["a print", "{not JSON"]


def test_a_traceback_begins_in_the_tasks_code() -> None:
    runtime = (
        '  File "/x/nexus/worker/execution.py", line 1, in _call\n    answer = work(args, run)\n             ^^^^\n'
    )
    own = '  File "/x/functions/users/one.py", line 2, in one\n    raise ValueError\n'
    assert worker.tasks_own(runtime + runtime + own) == own.rstrip()
    assert worker.tasks_own("") == ""
