"""`nexus dev` without its processes: what it refuses, which queues it takes, what a change does, what is shown."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nexus.envelope import Envelope
from nexus.errors import NexusError
from ops import checkout, control, deployment, health
from ops.cli.commands import developing
from ops.cli.loop import server, session, worker
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
    reported = {"task": "send_welcome_email", "args": {"user_id": "u-1"}}
    assert developing._last(record(), ["users", "emails"]) == {"queue": "emails", "event": None, "runs": [reported]}
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


def test_queues_are_paused_and_resumed_except_one_that_was_paused_already(sources: Sources, note: Path) -> None:
    with session._taken(stack(), ["media", "users", "default"], note) as taken:
        assert taken == ["media", "users"]
        assert set(sources.states.values()) == {"Disabled"}
        assert json.loads(note.read_text()) == ["media", "users"]
    assert sources.states == {"users": "Enabled", "media": "Enabled", "default": "Disabled"}
    assert json.loads(note.read_text()) == []


def test_queues_that_a_killed_session_had_paused_are_resumed(sources: Sources, note: Path) -> None:
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


def test_a_session_is_refused_if_every_queue_is_paused(sources: Sources, note: Path) -> None:
    with pytest.raises(Problem, match="There is no queue to run"), session._taken(stack(), ["default"], note):
        pytest.fail("there is none")
    assert sources.states["default"] == "Disabled"


def test_a_queue_without_an_event_source_is_not_taken(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "event_source", lambda _: None)
    with pytest.raises(Problem, match="users has no event source"):
        session._state("users")


def test_a_second_session_of_the_same_stack_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- the end ---


class Ending:
    """A server's process with a run that continues until a second Ctrl-C."""

    def __init__(self) -> None:
        self.terminated = 0

    def poll(self) -> int | None:
        return 0 if self.terminated == 2 else None

    def terminate(self) -> None:
        self.terminated += 1

    def wait(self) -> None:
        if self.terminated == 1:
            raise KeyboardInterrupt


def test_a_second_ctrl_c_kills_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    ending: Any = Ending()
    session.end(ending)
    assert ending.terminated == 2  # the second SIGTERM makes the server kill its workers
    assert "Killed. The message that was running comes back in an hour." in capsys.readouterr().err


@pytest.fixture
def lifeline() -> Iterator[int]:
    """The session's pipe, closed at its end."""
    reading, writing = os.pipe()
    os.close(writing)
    yield reading
    os.close(reading)


def test_workers_that_are_busy_end_when_the_session_has_died(
    tmp_path: Path, lifeline: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server whose session has died, and which no signal reaches
    (tmp_path / "config.json").write_text('{"region": "eu-west-1", "queues": {"users": {}}, "again": false}')
    monkeypatch.setattr(server, "_sqs", lambda _: None)
    serving, sent = server.Server(tmp_path, lifeline), []
    monkeypatch.setattr(signal, "sigtimedwait", lambda *_: None)
    monkeypatch.setattr(serving, "_fork", lambda *, again: serving._workers.update({4711: "users"}))

    # And a worker that ends at SIGTERM
    def kill(process: int, number: int) -> None:
        sent.append((process, number))

    def reap(_process: int, _options: int) -> tuple[int, int]:
        return (4711, 0) if sent and serving._workers else (0, 0)

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(os, "waitpid", reap)

    serving.run()

    assert sent == [(4711, signal.SIGTERM)]


SERVER = [sys.executable, "-P", "-m", "ops.cli.loop.server"]
DIES = """
import os, signal

def handler(event, context):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.programs
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "The worker of users was killed by SIGKILL. Its message comes back in an hour."),
        ({"NUMBER": 1}, "The worker of users ended with 1. Its message comes back in an hour."),
    ],
)
def test_a_worker_that_dies_is_replaced(tmp_path: Path, variables: Mapping[str, Any], said: str) -> None:
    # Given a run to begin with that kills its process, or a worker that cannot start
    (tmp_path / "dies.py").write_text(DIES)
    own = {"NEXUS_CATALOGUE": "social.catalogue", "NEXUS_BACKEND": "memory", **variables}
    served = {"url": "u", "arn": "a", "handler": "dies.handler", "environment": own, "path": [str(tmp_path)]}
    last = {"queue": "users", "event": None, "runs": [{"task": "refresh_user_statistics", "args": {"user_id": "u"}}]}
    (tmp_path / "config.json").write_text(
        json.dumps({"region": "eu-west-1", "queues": {"users": served}, "again": True})
    )
    (tmp_path / "last.json").write_text(json.dumps(last))
    reading, writing = os.pipe()
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    command = [*SERVER, str(tmp_path), str(reading)]
    with subprocess.Popen(
        command, env={**os.environ, **nowhere}, pass_fds=[reading], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as started:
        assert started.stdout is not None
        os.close(reading)
        try:
            # When it dies, then the server says so, and its successor is at work: it finds no queue, or dies likewise
            printed = iter(started.stdout.readline, b"")
            assert any(said in line.decode() for line in printed)
            assert any(b"cannot be read" in line or said in line.decode() for line in printed)
        finally:
            os.close(writing)
            while started.poll() is None:  # from the second on, it kills a worker that waits for AWS
                started.terminate()
                with suppress(subprocess.TimeoutExpired):
                    started.wait(0.2)
    assert started.returncode == 0


# --- what a worker passes on and shows ---


class Queue:
    """An SQS client that notes what a worker does with its messages."""

    def __init__(self, receive: Callable[[], Any] = dict) -> None:
        self.receive = receive
        self.done: list[tuple[str, Any]] = []

    def receive_message(self, **_: Any) -> Any:
        return self.receive()

    def change_message_visibility(self, **given: Any) -> None:
        self.done.append((given["ReceiptHandle"], given["VisibilityTimeout"]))

    def delete_message(self, **given: Any) -> None:
        self.done.append((given["ReceiptHandle"], "deleted"))


ARN = "arn:aws:sqs:eu-west-1:000000000000:nexus-x-users"


@pytest.fixture
def working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., worker.Worker]:
    """Makes the worker of `users`, whose handler is the given function, in this process."""
    monkeypatch.setattr(worker.Worker, "_enter", lambda _: None)

    def make(handler: Callable[[Any, Any], Any], queue: Any) -> worker.Worker:
        monkeypatch.setitem(sys.modules, "of_a_test", SimpleNamespace(handler=handler))
        served = {"url": "https://sqs/users", "arn": ARN, "handler": "of_a_test.handler"}
        return worker.Worker("users", tmp_path, served, queue)

    return make


def message(body: str = "") -> dict[str, Any]:
    envelope = Envelope(id=RUN, task="refresh_user_statistics", args={"user_id": "u-1"})
    return {"MessageId": "m", "ReceiptHandle": "r", "Body": body or envelope.encode()}


def fault(*_: Any) -> Any:
    raise SyntaxError("a fault")


@pytest.mark.usefixtures("connected")
def test_a_message_whose_handler_has_a_fault_comes_back_and_a_change_runs_it_at_once(
    working: Callable[..., worker.Worker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = Queue()
    working(fault, queue)._message(worker._record(message(), ARN))

    printed = capsys.readouterr()
    assert "SyntaxError: a fault" in printed.out
    assert "The message comes back in 60 s" in printed.err
    assert queue.done == [("r", 60)]
    kept = json.loads((tmp_path / "last.json").read_text())
    assert kept["event"]["Records"][0]["receiptHandle"] == "r"
    # Which runs it has may have been the fault, so that the message itself is passed on again.
    assert kept["runs"] == []


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize(("failures", "done"), [([], [("r", "deleted")]), ([{"itemIdentifier": "m"}], [])])
def test_a_message_that_cannot_be_read_is_shown_and_the_handler_settles_it(
    working: Callable[..., worker.Worker], failures: list[Any], done: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    queue, passed = Queue(), []

    def handler(event: Any, _: Any) -> Any:
        passed.append(event["Records"][0]["body"])
        return {"batchItemFailures": failures}

    working(handler, queue)._message(worker._record(message("not JSON"), ARN))

    assert passed == ["not JSON"]
    assert capsys.readouterr().out.startswith("users: ")
    assert queue.done == done


@pytest.mark.usefixtures("connected")
def test_an_outage_does_not_end_the_worker(
    working: Callable[..., worker.Worker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable() -> Any:
        raise ConnectionError("no route")

    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    assert working(fault, Queue(unreachable))._receive() == []
    assert waited == [worker.POLL]
    assert "users cannot be read: no route" in capsys.readouterr().err


@pytest.mark.usefixtures("connected")
def test_a_message_that_arrives_when_the_worker_should_end_is_given_back_at_once(
    working: Callable[..., worker.Worker],
) -> None:
    def receive() -> Any:
        replaced._end(RERUN, None)
        return {"Messages": [message()]}

    queue = Queue(receive)
    replaced = working(fault, queue)
    work(replaced, again=False)
    assert queue.done == [("r", 0)]


def work(started: worker.Worker, *, again: bool) -> None:
    """The worker's loop, until it ends."""
    reading, writing = os.pipe()
    try:
        started.work(reading, again=again)
    finally:
        os.close(reading)
        os.close(writing)


def replayed(folder: Path, queue: str = "users") -> None:
    runs = [{"task": "refresh_user_statistics", "args": {"user_id": "u-1"}}]
    (folder / "last.json").write_text(json.dumps({"queue": queue, "event": None, "runs": runs}))


def refused(*_: Any) -> Any:
    raise NexusError("no such user")


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize(
    ("handler", "said"), [(fault, "SyntaxError: a fault"), (refused, "\nNexusError: no such user\n")]
)
def test_a_fault_in_what_runs_again_is_shown_and_the_worker_goes_on(
    working: Callable[..., worker.Worker],
    tmp_path: Path,
    handler: Callable[..., Any],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    received: list[int] = []

    def receive() -> Any:
        received.append(1)
        started._end(RERUN, None)
        return {}

    replayed(tmp_path)
    started = working(handler, Queue(receive))
    work(started, again=True)
    printed = capsys.readouterr().out
    assert "users again: refresh_user_statistics" in printed
    assert said in printed
    assert ("Traceback" in printed) == (handler is fault)
    assert received == [1]


@pytest.mark.usefixtures("connected")
def test_the_last_message_of_another_queue_is_not_run_again(
    working: Callable[..., worker.Worker], tmp_path: Path
) -> None:
    replayed(tmp_path, "emails")
    working(fault, Queue())._again()


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
