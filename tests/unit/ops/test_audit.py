"""The audit trail: every change of the deployment leaves who, what and when; reading leaves nothing."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from botocore.exceptions import ClientError
from botocore.session import get_session

from nexus import clock
from nexus.aws import sdk
from nexus.backend import backend
from nexus.client import AsyncResult
from nexus.envelope import Envelope
from nexus.ids import new_id
from nexus.runs import transitions
from nexus.runs.record import RunError
from nexus.settings import settings
from ops import audit, aws
from ops.cli import common
from ops.main import app, main
from ops.problems import ExitCode
from tests.support.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[3]
ADA = "arn:aws:iam::123456789012:user/ada (ada)"
KEEP = 2_000_000_000


@pytest.fixture
def cloud(deployment: None) -> None:
    """The module's deployment, for `network`."""


@pytest.fixture(autouse=True)
def stack(emptied: None, network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    audit.watch()
    monkeypatch.setattr(audit, "_who", lambda: ADA)


def commands(of: typer.Typer, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command, by its path, and the function that typer calls."""
    for command in of.registered_commands:
        yield f"{path}{command.name}", command.callback
    for group in of.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, f"{path}{group.name} ")


def trail() -> list[tuple[str, dict[str, Any], str]]:
    """What, about and outcome of each entry, the oldest first."""
    return [(one.what, dict(one.about), one.outcome) for one in reversed(audit.entries())]


def message() -> None:
    """A request that changes something."""
    url = sdk.client("sqs").get_queue_url(QueueName=settings().queue_name("users"))["QueueUrl"]
    sdk.client("sqs").send_message(QueueUrl=url, MessageBody="x")


def failed(**args: Any) -> str:
    """A run that has failed, with its dead letter."""
    envelope = Envelope(id=new_id(), task="send_welcome_email", args=args)
    backend().store.apply(transitions.pending(envelope, "emails", KEEP))
    backend().store.apply(transitions.not_sent(envelope.id, RunError("Timeout", "too slow"), clock.moment()))
    url = sdk.client("sqs").get_queue_url(QueueName=settings().dead_letter_queue_name("emails"))["QueueUrl"]
    sdk.client("sqs").send_message(QueueUrl=url, MessageBody=envelope.encode())
    return envelope.id


# --- no command can forget it ---


def test_every_command_there_is_runs_in_a_change() -> None:
    """`common.command` is the one way to add a command, and what it adds is this function."""
    audited = common.with_options(lambda: None).__code__
    found = dict(commands(app))
    assert {"pause", "dlq retry", "schedule set", "mail decide", "backfill", "web", "monitor"} < set(found)
    assert [path for path, callback in found.items() if callback.__code__ is not audited] == []


def test_every_command_is_noted_before_its_first_change_and_not_if_it_only_reads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[list[tuple[str, dict[str, Any], str]]] = []
    made = common.app("A command that somebody will add.")

    @common.command(made, "new")
    def new(queue: str, *, twice: bool = False, yes: bool = False) -> int:
        sdk.client("sqs").list_queues()
        seen.append(trail())
        if twice:
            aws.in_parallel(lambda _: message(), range(8))
            seen.append(trail())
        return 0

    @common.command(made, "other")
    def other() -> int:
        return 0

    made(["new", "users", "--yes"], prog_name="nexus", standalone_mode=False)
    assert seen == [[]]
    assert trail() == []
    made(["new", "users", "--yes", "--twice"], prog_name="nexus", standalone_mode=False)
    about = {"queue": "users", "twice": True}
    assert seen[1:] == [[], [("new", about, audit.UNDER_WAY)]]
    assert trail() == [("new", about, "done")]
    (entry,) = audit.entries()
    assert entry.who == ADA
    assert clock.moment() - 60 < entry.at <= clock.moment()


def test_threads_that_change_something_belong_to_the_change_that_started_them() -> None:
    """A thread of another pool would not, so the operator's side has no other."""
    bare = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ops").rglob("*.py")
        if re.search(r"\b(ThreadPoolExecutor|Thread)\b", path.read_text())
    }
    assert bare == {"ops/aws.py"}


READING = {
    "BatchGetItem",
    "ChangeMessageVisibilityBatch",
    "CreateChangeSet",
    "DeleteChangeSet",
    "DetectStackDrift",
    "FilterLogEvents",
    "Query",
    "ReceiveMessage",
    "Scan",
    "SimulatePrincipalPolicy",
}
"""Operations that read, besides those that AWS names Get, List, Describe or Head."""


def test_an_operation_is_noted_unless_it_is_known_to_read_only() -> None:
    """Of the operations that the operator's side and the runtime use, these read; all others change something."""
    services = (
        "cloudformation", "cloudwatch", "dynamodb", "events", "iam", "lambda", "logs", "s3", "scheduler",
        "secretsmanager", "sesv2", "ses", "sqs", "sts",
    )  # fmt: skip
    names = {
        re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): name
        for service in services
        for name in get_session().get_service_model(service).operation_names
    }
    files = [*(ROOT / "ops").rglob("*.py"), *(ROOT / "shared").rglob("*.py")]
    said: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                said.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.add(node.value)
    used = {names[word] for word in said if word in names}
    passed = {name for name in used if audit.reads(name)}
    assert {name for name in passed if not name.startswith(("Get", "List", "Describe", "Head"))} == READING
    changing = {"SendMessageBatch", "DeleteMessageBatch", "UpdateItem", "BatchExecuteStatement", "ExecuteChangeSet"}
    assert changing | {"UpdateEventSourceMapping", "PutRule", "UpdateAlias", "DeleteFunction"} <= used - passed


# --- what the commands leave ---


def test_each_change_to_runs_and_dead_letters_is_an_entry_with_what_came_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["send", "send_welcome_email", "user_id=u-1", "--countdown", "600s"]) == 0
    run_id = capsys.readouterr().out.split()[0]
    assert main(["result", run_id]) == 0
    assert main(["revoke", run_id, "--dry-run"]) == 0
    assert main(["revoke", run_id]) == ExitCode.NOT_CONFIRMED
    assert main(["revoke", run_id[-8:], "--yes", "--reason", "a mistake"]) == 0
    again, edited, dropped = failed(user_id="u-2"), failed(user_id="u-3"), failed(user_id="u-4")
    assert main(["dlq", "list"]) == 0
    assert main(["dlq", "retry", again]) == 0
    assert main(["dlq", "edit", edited, "user_id=u-5", "--yes"]) == 0
    assert main(["dlq", "drop", "--queue", "emails", "--error", "redriven", "--yes"]) == 0
    assert main(["purge", "emails", "--yes"]) == 0
    assert main(["pause", "mdia"]) == ExitCode.USAGE
    waiting = {"task": "send_welcome_email", "arguments": ["user_id"], "countdown": "600s"}
    assert trail() == [
        ("send", waiting, f"sent: {run_id}"),
        ("revoke", {"run_ids": [run_id[-8:]], "reason": "a mistake"}, "1 REVOKED"),
        ("dlq retry", {"ids": [again]}, "1 dead letter sent again: emails 1."),
        ("dlq edit", {"letter_id": edited, "arguments": ["user_id"]}, f"{edited} sent again."),
        ("dlq drop", {"queue": "emails", "error": "redriven"}, "1 dead letter dropped: emails 1."),
        ("purge", {"queue": "emails"}, "2 messages removed, 2 runs revoked."),
    ]
    assert AsyncResult[Any](dropped).status == "FAILURE"


def test_the_trail_is_shown_by_who_what_and_since_when(capsys: pytest.CaptureFixture[str]) -> None:
    for n, (who, what) in enumerate([("arn:ada", "pause"), ("arn:bob", "dlq retry"), ("arn:ada", "retry-letters")]):
        entry = audit.Entry(clock.moment() - 7200 * (2 - n), who, what, {"queue": "media"}, "done")
        backend().store.apply(audit._note(f"audit/{n}", entry))

    def shown(*words: str) -> list[str]:
        assert main(["audit", "--json", *words]) == 0
        return [one["what"] for one in json.loads(capsys.readouterr().out)]

    assert shown() == ["retry-letters", "dlq retry", "pause"]
    assert shown("--who", "ADA") == ["retry-letters", "pause"]
    assert shown("--what", "retry") == ["retry-letters", "dlq retry"]
    assert shown("--since", "3h") == ["retry-letters", "dlq retry"]
    assert shown("--who", "bob", "--since", "1h") == []
    assert shown("--limit", "1") == ["retry-letters"]
    assert main(["audit", "--what", "purge"]) == 0
    assert capsys.readouterr().out == "No change matches.\n"
    assert main(["audit"]) == 0
    assert re.search(r"dlq retry +queue=media +done +arn:bob", capsys.readouterr().out)


# --- interruptions, failures, and entries that cannot be written ---


def stopped(what: str, error: BaseException, *, changed: bool, so_far: str = "") -> None:
    """A change that an error stops, after its first request or before."""
    with audit.changing(audit.Change(what, {})):
        if changed:
            message()
        audit.note_progress(so_far)
        raise error


def test_a_change_that_is_cut_short_or_fails_has_its_entry() -> None:
    denied = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "UpdateAlias")
    for what, error, changed in (
        ("purge", KeyboardInterrupt(), True),
        ("rollback", denied, True),
        ("versions", denied, False),
    ):
        with pytest.raises(type(error)):
            stopped(what, error, changed=changed)
    with pytest.raises(KeyboardInterrupt):
        stopped("purge", KeyboardInterrupt(), changed=True, so_far="20 messages removed")
    outcomes = [(what, outcome) for what, _, outcome in trail()]
    assert outcomes == [
        ("purge", "KeyboardInterrupt"),
        ("rollback", "failed: Permission denied: UpdateAlias was denied"),
        ("purge", "KeyboardInterrupt; before that: 20 messages removed"),
    ]


def test_a_change_whose_audit_entry_cannot_be_written_is_made_and_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied() -> str:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetCallerIdentity")

    monkeypatch.setattr(audit, "_who", denied)
    assert main(["send", "ping", "text=x", "--json"]) == ExitCode.WRONG
    reported = capsys.readouterr()
    run_id = json.loads(reported.out)["id"]
    assert AsyncResult[Any](run_id).status == "PENDING"
    error = json.loads(reported.err)["error"]
    assert error["what"] == "The change was made, but the audit trail has no entry for it"
    assert "GetCallerIdentity was denied" in error["why"]
    kept = json.loads(error["do"])
    assert (kept["what"], kept["outcome"]) == ("send", f"sent: {run_id}")
    assert trail() == []


def test_an_entry_that_could_not_be_written_at_first_is_complete_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    throttled = [ClientError({"Error": {"Code": "Throttling", "Message": "wait"}}, "GetCallerIdentity")]

    def who() -> str:
        if throttled:
            raise throttled.pop()
        return ADA

    monkeypatch.setattr(audit, "_who", who)
    change = audit.Change("pause", {"queue": "media"})
    with audit.changing(change):
        message()
    assert change.missing is None
    assert trail() == [("pause", {"queue": "media"}, "done")]


def test_changes_by_the_runtimes_own_client_are_noted_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This client is used for DynamoDB and SQS wherever the environment is simple, as on the local cloud."""
    from nexus.aws import connections, slim, surroundings

    asked: list[str] = []

    def post(_: connections.Connections, headers: Mapping[str, str], body: bytes) -> connections.Response:
        asked.append(headers["X-Amz-Target"].partition(".")[2])
        return connections.Response(200, {}, b"{}")

    monkeypatch.setattr(connections.Connections, "post", post)
    monkeypatch.setattr(surroundings, "_answered_in_botocore", lambda: False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NEXUS_CLIENT", raising=False)
    sdk.reset()
    try:
        audit.watch()
        assert isinstance(sdk.client("sqs"), slim.Client)
        with audit.changing(audit.Change("send", {})):
            sdk.client("sqs").receive_message(QueueUrl="q")
            sdk.client("sqs").send_message(QueueUrl="q", MessageBody="x")
    finally:
        sdk.reset()
    assert asked == ["ReceiveMessage", "UpdateItem", "SendMessage", "UpdateItem"]


def test_an_unexpected_error_while_noting_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise ValueError("a bug")

    monkeypatch.setattr(audit, "_who", broken)
    with pytest.raises(ValueError, match="a bug"), audit.changing(audit.Change("pause", {})):
        message()


def test_an_operator_without_a_user_name_is_noted_by_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the module's own _who

    def unnamed() -> str:
        raise KeyError("uid")

    monkeypatch.setattr("getpass.getuser", unnamed)
    monkeypatch.setattr("os.getuid", lambda: 1234)
    assert audit._who().endswith(" (uid 1234)")


def test_arguments_too_long_for_an_entry_are_shown_as_far_as_they_were_kept() -> None:
    cut = {"since": 1, "who": "ada", "what": "send", "about": '{"args": "aaaa', "outcome": "done"}
    assert audit._entry(cut).about == {"cut": '{"args": "aaaa'}


def test_an_error_of_a_change_in_the_background_is_raised_where_its_result_is_read() -> None:
    def broken() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        aws.in_background(broken).result(timeout=PATIENCE)
