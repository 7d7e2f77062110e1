"""No log line contains the value of an argument or a result, whatever path a secret takes."""

import ast
import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter
from botocore.exceptions import ClientError

from nexus import worker
from nexus.aws import encoding
from nexus.backend.store import Write
from nexus.client import AsyncResult, group, send
from nexus.eager import Context
from nexus.envelope import Envelope
from nexus.errors import Reject, Retry
from nexus.ids import new_id
from nexus.registry import Implementation, registry
from nexus.runs import transitions
from nexus.runs.record import RunError
from nexus.tasks import RetryPolicy
from nexus.testing import SentTasks
from nexus.worker import Continuation, Run, fanout, lines, observe
from nexus.worker.lines import LineFormatter
from nexus.worker.listing import Listing, attend
from tests.support import own_catalogue as catalogue
from tests.support.own_catalogue import NOTE, Counted, ReportPart

pytestmark = pytest.mark.usefixtures("environment")

SECRET = "tr0ub4dor&3"
NUMBER = 49301234567
"""Neither looks like an address, nor like a token."""

LINES = {
    name
    for name, value in vars(observe).items()
    if callable(value) and getattr(value, "__module__", "") == observe.__name__
} - {"logger", "log_reference"}


@pytest.mark.parametrize("fails", [False, True])
def test_an_attempt_whose_run_another_sandbox_has_says_that_it_was_overtaken(
    fails: bool, tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`nexus logs` and the timeline in `nexus web` show it by these lines."""
    sent = body()

    def work(args: Any, run: Run) -> catalogue.NoteSent:
        tasks.store.apply(Write(run.id, {"claim": "another sandbox's", "attempts": 2}))
        if fails:
            raise OSError(SECRET)
        return catalogue.NoteSent(notification_id="1")

    does(monkeypatch, work)
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "INFO")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"nexus-{uuid.uuid4()}")  # a logger of its own
    observe.logger.cache_clear()
    deliver(sent)

    captured = capsys.readouterr()
    lines = [json.loads(text) for text in (captured.out + captured.err).splitlines()]
    (end,) = [one for one in lines if one["message"] == "run ended"]
    (line,) = [one for one in lines if one["message"] == "attempt overtaken"]
    assert (end["outcome"], end["attempt"]) == ("overtaken" if fails else "success", 1)
    assert (line["run_id"], line["attempt"]) == (sent["id"], 1)
    assert AsyncResult[Any](sent["id"]).record().attempts == 2


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kind of line was written."""
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"nexus-{uuid.uuid4()}")
    observe.logger.cache_clear()
    count: Counter[str] = Counter()

    def counted(name: str, write: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*args: Any, **fields: Any) -> None:
            count[name] += 1
            write(*args, **fields)

        return wrapped

    for name in LINES:
        monkeypatch.setattr(observe, name, counted(name, getattr(observe, name)))
    return count


def deliver(*bodies: str | dict[str, Any], queue: str = "default") -> list[str]:
    """Invokes the queue's function with these messages; returns what Lambda would log of what it raises."""
    records = [
        {"messageId": f"m{n}", "receiptHandle": f"m{n}", "eventSource": "aws:sqs"}
        | {"body": body if isinstance(body, str) else json.dumps(body)}
        for n, body in enumerate(bodies)
    ]
    return invoke({"Records": records}, queue)


def invoke(event: Any, queue: str = "default") -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXUS_QUEUE", queue)
        try:
            worker.handler(event, Context())
        except Exception as error:  # noqa: BLE001 - whatever leaves a handler, Lambda logs
            return [f"{type(error).__name__}: {error}"]
    return []


def body(task: str = "send_note", **also: Any) -> dict[str, Any]:
    return {"v": 1, "id": str(uuid.uuid4()), "task": task, "args": {**NOTE, "text": SECRET}, **also}


def does(monkeypatch: pytest.MonkeyPatch, work: Callable[..., Any], task: Any = catalogue.send_note) -> None:
    monkeypatch.setitem(registry._implementations, task.name, Implementation(task, work))


def raises(error: BaseException) -> Callable[[Any, Run], NoReturn]:
    def work(args: Any, run: Run) -> NoReturn:
        error.add_note(SECRET)
        raise error from ValueError(SECRET, NUMBER)

    return work


def good(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    does(monkeypatch, lambda args, run: catalogue.NoteSent(notification_id=args.text))
    return deliver(body())


def failing(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    errors = (
        OSError(SECRET, NUMBER),
        FileNotFoundError(2, SECRET, SECRET),
        KeyError(SECRET),
        Retry(SECRET, after=1),
        Reject(SECRET),
        SystemExit(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
        UnicodeEncodeError("utf-8", SECRET, 0, 1, SECRET),
    )
    logged = []
    for error in errors:
        does(monkeypatch, raises(error))
        logged += deliver(body())
        logged += invoke({"task": "send_note", "args": {**NOTE, "text": SECRET}})
    return logged


def unreadable(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    spoiled: list[Any] = [
        SECRET,
        json.dumps(SECRET),
        body(args={**NOTE, "password": SECRET}),
        body(args={**NOTE, "text": [SECRET]}),
        body(args={"user_id": SECRET * 50, "kind": "k", "text": {SECRET: NUMBER}}),
        body(args=SECRET),
        body(task="nobody_knows"),
        body(id=SECRET),
        body(sent_at=SECRET),
        body(segment={"index": SECRET, "total": NUMBER}),
        body(refs={"text": SECRET}),
        {"Records": [{"eventSource": "aws:sns", "Sns": {"Message": SECRET}}]},
        {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {"object": {"key": SECRET}}}]},
    ]
    logged = []
    for one in spoiled:
        logged += deliver(one)
        logged += invoke(json.loads(one) if isinstance(one, str) and one[0] == '"' else one)
    return logged


def unreadable_results(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    logged = []
    for answer in (
        catalogue.NoteSent.model_construct(notification_id=[SECRET]),  # type: ignore[arg-type]
        catalogue.NoteSent.model_construct(notification_id=f"{SECRET}\udcff"),
        SECRET,
        {SECRET: NUMBER},
    ):
        does(monkeypatch, lambda args, run, answer=answer: answer)
        logged += deliver(body())
    return logged


def waiting(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    task = catalogue.make_report

    def plan(args: Any, run: Run) -> Continuation:
        return run.fan_out([ReportPart(day=SECRET)] * 2)

    def reduce(parts: Any) -> NoReturn:
        raise ValueError(SECRET, parts)

    joined = Implementation(task, plan, lambda args, run: Counted(rows_read=1), reduce)
    monkeypatch.setitem(registry._implementations, task.name, joined)
    task.delay()
    tasks.run()
    does(monkeypatch, raises(Reject(SECRET)))
    group([catalogue.send_note.s(**{**NOTE, "text": SECRET}) for _ in range(2)]).delay()
    tasks.run()
    group([catalogue.send_note.s(**{**NOTE, "text": SECRET})]).delay()
    tasks.store.items.clear()  # its members have taken so long that they have expired
    tasks.run()
    return []


def never_started(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    handle = catalogue.send_note.delay(**{**NOTE, "text": SECRET})
    tasks.store.items[handle.id] |= {"status": "RETRY", "attempts": 1, "revoke": True}
    catalogue.send_note.apply_async({**NOTE, "text": SECRET}, expires=-1)
    tasks.run()
    return []


def losing(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lease expires; everything after that fails, and AWS accepts no schedule."""

    def loses(args: Any, run: Run) -> catalogue.NoteSent:
        tasks.store.items[run.id]["claim"] = "another's"
        return catalogue.NoteSent(notification_id=args.text)

    does(monkeypatch, loses)
    logged = deliver(body())
    does(monkeypatch, lambda args, run: catalogue.NoteSent(notification_id=args.text))
    with monkeypatch.context() as patch:
        patch.setattr(fanout, "follow_up", lambda *_, **__: (_ for _ in ()).throw(KeyError(SECRET)))
        logged += deliver(body())
    with monkeypatch.context() as patch:
        patch.setattr(type(tasks.transport), "send_at", lambda *_: (_ for _ in ()).throw(ValueError(SECRET)))
        does(patch, raises(Retry(SECRET, after=100_000)))
        logged += deliver(body())
    with monkeypatch.context() as patch:
        patch.setattr(transitions, "claim", lambda *_, **__: (_ for _ in ()).throw(RuntimeError(SECRET)))
        logged += deliver(body())
    with monkeypatch.context() as patch:
        patch.setattr(Listing, "check", lambda _: (_ for _ in ()).throw(KeyError(SECRET)))
        attend(Listing("default", "token"))
    assert len(logged) == 1
    return logged


WAYS = (good, failing, unreadable, unreadable_results, waiting, never_started, losing)


def test_no_line_holds_a_value_whatever_goes_wrong_with_it(
    tasks: SentTasks, written: Counter[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for way in WAYS:
        logged = way(tasks, monkeypatch)
        captured = capfd.readouterr()
        text = "\n".join([captured.out, captured.err, *logged])
        assert SECRET not in text, way.__name__
        assert str(NUMBER) not in text, way.__name__

    assert written.keys() == LINES, "a kind of line that no secret was tried on"


def test_a_log_line_has_the_fault_and_its_place(
    tasks: SentTasks, written: Counter[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    does(monkeypatch, raises(OSError(SECRET)))
    deliver(body(args={**NOTE, "password": SECRET}))
    send(catalogue.send_note.s(**NOTE), retry=RetryPolicy(max_retries=0))
    tasks.run()

    reasons = [json.loads(line).get("reason", "") for line in capfd.readouterr().err.splitlines()]

    assert "InvalidMessage: password: extra_forbidden" in reasons
    assert any(reason.startswith("OSError: at test_logs.py:") for reason in reasons)


def test_a_refusal_of_aws_is_logged_by_its_code_and_operation(
    tasks: SentTasks, written: Counter[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for operation in ("PutObject", f"GetObject {SECRET}"):
        does(monkeypatch, raises(ClientError({"Error": {"Code": "AccessDenied", "Message": SECRET}}, operation)))
        send(catalogue.send_note.s(**NOTE), retry=RetryPolicy(max_retries=0))
        tasks.run()

    text = capfd.readouterr().err
    reasons = [json.loads(line).get("reason", "") for line in text.splitlines()]

    assert "ClientError: AccessDenied (PutObject)" in reasons
    assert "ClientError: AccessDenied" in reasons, "an operation that AWS cannot have"
    assert SECRET not in text


def test_all_lines_of_the_runtime_are_written_in_one_module() -> None:
    """So that the test above has tried them all. A task's own lines, by run.logger, are the task's; `function` only
    makes the logger."""
    folder = Path(observe.__file__).parents[1]
    for path in sorted(folder.rglob("*.py")):
        if path.name == "observe.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", getattr(node, "id", ""))
            assert name != "logger" or path.name in ("run.py", "function.py"), (
                f"{path.name} writes log lines of its own"
            )
            assert name not in ("getLogger", "warn"), f"{path.name} logs past observe"


@pytest.mark.parametrize("error", [None, RunError("ValueError", "secret", "builtins.ValueError", "", "at x.py:1 in f")])
def test_a_runs_lines_are_formatted_as_powertools_formats_them(
    environment: None, monkeypatch: pytest.MonkeyPatch, error: RunError | None
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-2-3;Parent=4;Sampled=1")
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"nexus-{uuid.uuid4()}")
    observe.logger.cache_clear()
    said: list[str] = []
    theirs = LambdaPowertoolsFormatter(use_rfc3339=True, utc=True, json_serializer=encoding.line)

    class Both(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            ours = observe.logger().registered_handler.formatter
            assert isinstance(ours, LineFormatter)
            theirs.log_format = {**ours.log_format}
            said.append(ours.format(record))
            full = json.loads(theirs.format(record))
            left_out = {"location", "service"} if record.msg in lines.OF_EVERY_RUN else set()
            assert json.loads(said[-1]) == {name: value for name, value in full.items() if name not in left_out}

    handler = Both()
    logger = logging.getLogger(observe.logger().service)
    logger.addHandler(handler)
    try:
        observe.run_started("default", Envelope.of(id=new_id(), task="ping", args={}), 1, 0.5)
        observe.run_ended("success", 0.25, error)
        observe.overtaken("another line", 1)
    finally:
        logger.removeHandler(handler)
    assert [json.loads(line)["message"] for line in said][:2] == ["run started", "run ended"]
    assert len(said) == 3
