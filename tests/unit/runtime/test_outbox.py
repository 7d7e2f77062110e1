"""Tasks in the outbox are sent if and only if the application's transaction commits, whatever crashes in between."""

import sqlite3
import sys
import time
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest
import sqlalchemy
from botocore.exceptions import ClientError, EndpointConnectionError
from sqlalchemy.orm import Session

from dev.postgres import temporary
from nexus import outbox, ping
from nexus.aws import sdk
from nexus.backend.transport import queue_url
from nexus.envelope import decode
from nexus.errors import ConfigurationError, SendFailed
from nexus.registry import Implementation, registry
from nexus.testing import SentTasks
from nexus.worker import Run
from tests.support import own_catalogue as catalogue
from tests.support.patience import PATIENCE

NOTE: dict[str, Any] = {"user_id": "u-1", "kind": "like", "text": "hello"}
type Connect = Callable[[], Any]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server of PostgreSQL on a socket of its own; gives its connection string.

    Its folder is not pytest's: that one belongs to root, and other sessions of pytest clean up there.
    """
    with temporary() as server:
        yield server.address


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.programs)])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Connects to a database that has the outbox, and a table of the application's own.

    Closes every connection after the test: an open transaction would lock the tables for the next.
    """
    connections: list[Any] = []

    def to_sqlite() -> Any:
        connections.append(sqlite3.connect(tmp_path / "database"))
        return connections[-1]

    def to_postgres() -> Any:
        connections.append(psycopg.connect(request.getfixturevalue("postgres")))
        return connections[-1]

    made: Connect = to_sqlite if request.param == "sqlite" else to_postgres
    connection = made()
    for statement in (f"DROP TABLE IF EXISTS {outbox.TABLE}", "DROP TABLE IF EXISTS users", outbox.DDL):
        connection.execute(statement)
    connection.execute("CREATE TABLE users (id INTEGER)")
    connection.commit()
    connection.close()
    yield made
    for connection in connections:
        connection.close()


@pytest.fixture
def runs(environment: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The run id of each execution of send_note."""
    seen: list[str] = []

    def work(args: catalogue.SendNote, run: Run) -> catalogue.NoteSent:
        seen.append(run.id)
        return catalogue.NoteSent(notification_id=args.text)

    monkeypatch.setitem(registry._implementations, "send_note", Implementation(catalogue.send_note, work))
    return seen


def rows(connect: Connect) -> int:
    connection = connect()
    count: int = connection.execute(f"SELECT count(*) FROM {outbox.TABLE}").fetchone()[0]
    connection.close()
    return count


def register(connection: Any) -> str:
    """What an application does: its own row and the task, in one transaction."""
    connection.execute("INSERT INTO users VALUES (1)")
    handle = outbox.add(connection, catalogue.send_note.s(**NOTE))
    connection.commit()
    return handle.id


def test_committed_rows_are_sent_once_and_deleted(connect: Connect, tasks: SentTasks, runs: list[str]) -> None:
    connection = connect()
    ids = [register(connection) for _ in range(30)]
    connection.close()
    assert tasks.calls == []

    assert outbox.send_pending(connect) == outbox.Sent(sent=30)
    assert outbox.send_pending(connect) == outbox.Sent()
    tasks.run()

    assert sorted(runs) == sorted(ids)
    assert rows(connect) == 0


def test_nothing_is_sent_for_a_transaction_that_was_rolled_back(connect: Connect, tasks: SentTasks) -> None:
    connection = connect()
    outbox.add(connection, catalogue.send_note.s(**NOTE))
    connection.rollback()
    connection.close()

    assert outbox.send_pending(connect) == outbox.Sent()
    assert tasks.calls == []


def test_no_row_is_lost_while_aws_is_unreachable(
    connect: Connect, tasks: SentTasks, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect()
    ids = [register(connection), register(connection)]
    connection.close()
    with monkeypatch.context() as away:
        away.setattr(
            type(tasks.transport), "send", lambda self, queue, messages: {m.id: "no connection" for m in messages}
        )
        for _ in range(3):
            with pytest.raises(SendFailed):
                outbox.send_pending(connect)
    assert rows(connect) == 2

    assert outbox.send_pending(connect) == outbox.Sent(sent=2)
    tasks.run()

    assert sorted(runs) == sorted(ids)


class Refusing:
    """A queue that accepts no message of some runs, and counts those that it is asked for."""

    def __init__(self, tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused: set[str] = set()
        self.asked: list[str] = []
        send = type(tasks.transport).send

        def send_some(transport: Any, queue: str, messages: Any) -> Any:
            self.asked += [message.id for message in messages]
            accepted = [message for message in messages if message.id not in self.refused]
            send(transport, queue, accepted)
            return {message.id: "refused" for message in messages if message.id in self.refused}

        monkeypatch.setattr(type(tasks.transport), "send", send_some)


@pytest.fixture
def queue(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> Refusing:
    return Refusing(tasks, monkeypatch)


def registered(connect: Connect, count: int) -> list[str]:
    """Registers this many rows. Returns their ids, in the order in which they are sent."""
    connection = connect()
    ids = sorted(register(connection) for _ in range(count))
    connection.close()
    return ids


def test_a_row_that_aws_refuses_holds_up_no_other(
    connect: Connect, tasks: SentTasks, runs: list[str], queue: Refusing
) -> None:
    """In the first page, at a page's end and in the last page."""
    ids = registered(connect, 12)
    queue.refused = {ids[0], ids[4], ids[11]}

    with pytest.raises(SendFailed) as refused:
        outbox.send_pending(connect, page=5)

    assert refused.value.failures == dict.fromkeys(sorted(queue.refused), "refused")
    assert queue.asked == ids, "each once"
    assert rows(connect) == 3
    queue.refused = {ids[0]}
    with pytest.raises(SendFailed):
        outbox.send_pending(connect)
    queue.refused = set()
    assert outbox.send_pending(connect) == outbox.Sent(sent=1)
    tasks.run()
    assert sorted(runs) == sorted(ids)


def test_a_pass_ends_with_a_page_of_which_aws_accepts_nothing(
    connect: Connect, tasks: SentTasks, queue: Refusing
) -> None:
    ids = registered(connect, 12)
    queue.refused = set(ids[2:9])

    with pytest.raises(SendFailed) as refused:
        outbox.send_pending(connect, page=3)

    assert queue.asked == ids[:6]
    assert list(refused.value.failures) == ids[2:6]


def test_refused_rows_count_toward_the_limit(connect: Connect, tasks: SentTasks, queue: Refusing) -> None:
    ids = registered(connect, 5)
    queue.refused = {ids[0]}

    with pytest.raises(SendFailed):
        outbox.send_pending(connect, limit=3, page=2)

    assert queue.asked == ids[:3]


def test_a_pass_ends_with_the_page_if_aws_is_out_of_reach(
    connect: Connect, tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = registered(connect, 5)
    apply, asked = type(tasks.store).apply, list[str]()

    def third_is_lost(store: Any, write: Any) -> Any:
        asked.append(write.key)
        if len(asked) == 3:
            raise EndpointConnectionError(endpoint_url="https://dynamodb")
        return apply(store, write)

    monkeypatch.setattr(type(tasks.store), "apply", third_is_lost)
    with pytest.raises(SendFailed, match="Could not connect") as refused:
        outbox.send_pending(connect, page=2)

    assert refused.value.away
    assert list(refused.value.failures) == [ids[2]]
    assert asked == ids[:4]
    assert rows(connect) == 2


@pytest.mark.usefixtures("cloud")
def test_a_pass_ends_with_the_page_if_sqs_is_out_of_reach(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, asked = registered(connect, 5), list[str]()

    def unreachable(**request: Any) -> None:
        asked.append(decode(request["MessageBody"]).id)
        raise EndpointConnectionError(endpoint_url="https://sqs")

    monkeypatch.setattr(sdk.client("sqs"), "send_message", unreachable)
    with pytest.raises(SendFailed, match="Could not connect") as refused:
        outbox.send_pending(connect, page=2)

    assert refused.value.away
    assert sorted(asked) == ids[:2]
    assert rows(connect) == 5


@pytest.mark.usefixtures("cloud")
def test_the_rows_of_a_page_are_sent_at_once(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(connect, 3)
    all_are_being_sent, send = Barrier(3), sdk.client("sqs").send_message

    def together(**request: Any) -> Any:
        all_are_being_sent.wait(PATIENCE)
        return send(**request)

    monkeypatch.setattr(sdk.client("sqs"), "send_message", together)
    assert outbox.send_pending(connect) == outbox.Sent(3, 0)
    assert rows(connect) == 0


@pytest.mark.usefixtures("cloud")
def test_a_row_whose_queue_does_not_exist_leaves_no_row_that_was_sent(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each pass would send the others again."""
    ids, send = registered(connect, 3), sdk.client("sqs").send_message

    def some_queue_is_missing(**request: Any) -> Any:
        if ids[0] in request["MessageBody"]:
            raise ClientError({"Error": {"Code": "AWS.SimpleQueueService.NonExistentQueue"}}, "SendMessage")
        return send(**request)

    monkeypatch.setattr(sdk.client("sqs"), "send_message", some_queue_is_missing)
    with pytest.raises(ConfigurationError, match="is missing or incomplete"):
        outbox.send_pending(connect)
    assert rows(connect) == 1


@pytest.mark.usefixtures("cloud")
def test_a_row_that_meets_schedulers_quota_holds_up_no_other(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> None:
        error = {"Code": "ServiceQuotaExceededException", "Message": "no more schedules"}
        raise ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": 402}}, "CreateSchedule")  # type: ignore[typeddict-item]

    connection = connect()
    late = outbox.add(connection, catalogue.send_note.s(**NOTE), countdown=3600)
    connection.commit()
    connection.close()
    (soon,) = registered(connect, 1)
    monkeypatch.setattr(sdk.client("scheduler"), "create_schedule", full)

    with pytest.raises(SendFailed, match="no more schedules") as refused:
        outbox.send_pending(connect)

    assert not refused.value.away
    assert list(refused.value.failures) == [late.id]
    sqs = sdk.client("sqs")
    (message,) = sqs.receive_message(QueueUrl=queue_url("nexus-test-default"))["Messages"]
    assert decode(message["Body"]).id == soon


@pytest.mark.parametrize(
    "fault",
    [
        "args = '{'",
        "args = '7'",
        "args = '[1]'",
        'args = \'{"user_id": "u"}\'',
        "due = 1e300",
        "due = 1e11",
        "expires = 1e17",
        "id = '0'",
        "queue = 'none'",
    ],
)
def test_a_row_that_cannot_be_read_is_kept_with_its_fault(connect: Connect, tasks: SentTasks, fault: str) -> None:
    spoiled, other = registered(connect, 2)
    connection = connect()
    connection.execute(f"UPDATE {outbox.TABLE} SET {fault}, added = added - 3600 WHERE id = '{spoiled}'")
    connection.commit()

    assert outbox.send_pending(connect) == outbox.Sent(sent=1, kept=1)

    assert [sent.message.id for sent in tasks.transport.sent] == [other]
    ((_, task, reason),) = outbox.faults(connection)
    connection.close()
    assert task == "send_note"
    assert reason.startswith(("InvalidMessage: ", "UnknownTask: ", "ValueError: "))


def test_a_row_of_a_newer_application_waits_for_a_newer_sender(
    connect: Connect, tasks: SentTasks, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Web server and sender are not replaced in the same moment: the old sender knows neither task nor argument."""
    ids = registered(connect, 4)
    connection = connect()
    for run_id in ids[:2]:
        connection.execute(f"UPDATE {outbox.TABLE} SET task = 'new_task' WHERE id = '{run_id}'")
    connection.commit()

    with pytest.raises(SendFailed, match="UnknownTask: task: 'new_task' is in no catalogue") as refused:
        outbox.send_pending(connect, page=2, limit=2)
    assert (list(refused.value.failures), refused.value.away) == (ids[:2], False)
    assert not outbox.faults(connection)
    connection.close()
    assert [sent.message.id for sent in tasks.transport.sent] == ids[2:], "it holds up no other"

    monkeypatch.setitem(registry._declared, "new_task", (catalogue.send_note, "new"))
    assert outbox.send_pending(connect) == outbox.Sent(sent=2)


def test_a_row_whose_check_raises_an_unexpected_error_holds_up_no_other(
    connect: Connect, tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A validator that looks up a value may raise KeyError for one that only the newer application has."""
    monkeypatch.setitem(registry._declared, "send_note", (catalogue.like_note(), "test"))
    ids = registered(connect, 2)
    connection = connect()
    connection.execute(f"UPDATE {outbox.TABLE} SET args = replace(args, 'like', 'poke') WHERE id = '{ids[0]}'")
    connection.commit()
    connection.close()

    with pytest.raises(SendFailed, match="KeyError: 'poke'"):
        outbox.send_pending(connect)

    assert [sent.message.id for sent in tasks.transport.sent] == ids[1:]


class Killed(BaseException):
    """The process died."""


class Mortal:
    """A connection, store or transport whose process dies at the n-th thing that it does, before or after it."""

    def __init__(self, target: Any, life: "Life") -> None:
        self.target, self.life = target, life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.target, name)
        return self.life.spend(found) if callable(found) and name not in ("cursor", "close") else found

    def cursor(self) -> "Mortal":
        return Mortal(self.target.cursor(), self.life)


class Life:
    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return work(*args, **kwargs)

        return step


def lives(connect: Connect, steps: int) -> tuple[Life, Connect]:
    life = Life(steps)

    def mortal() -> Any:
        connection = connect()
        # The outbox knows the database by the module of the connection's class.
        kind = type("Mortal", (Mortal,), {"__module__": type(connection).__module__})
        return kind(connection, life)

    return life, mortal


@pytest.mark.parametrize("steps", range(14))
def test_a_death_between_any_two_statements_loses_nothing_and_runs_nothing_twice(
    connect: Connect, tasks: SentTasks, runs: list[str], monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """The application registers, the sender sends: one life for both, spent at each statement, write and message."""
    life, mortal = lives(connect, steps)
    with monkeypatch.context() as dying:
        for owner, name in ((tasks.store, "apply"), (tasks.transport, "send")):
            whole = getattr(type(owner), name)
            dying.setattr(type(owner), name, life.spend(whole))
        connection = mortal()
        try:
            register(connection)
            outbox.send_pending(mortal)
        except Killed:
            pass
        finally:
            connection.target.close()
    reader = connect()
    users = reader.execute("SELECT count(*) FROM users").fetchone()[0]
    reader.close()

    outbox.send_pending(connect)
    tasks.run()

    assert len(runs) == users
    assert rows(connect) == 0
    assert steps < 14 - 1 or life.left > 0, "the deaths do not reach the end"


def test_a_row_that_two_senders_send_is_one_run(connect: Connect, tasks: SentTasks, runs: list[str]) -> None:
    """The second sender takes what the first has read and not yet deleted, if the database does not hide it."""
    connection = connect()
    ids = [register(connection) for _ in range(3)]
    held = outbox._pending(connection, 2)
    assert len(held) == 2
    connection.rollback()
    connection.close()

    outbox.send_pending(connect)
    for row in held:
        catalogue.send_note.apply_async(NOTE, task_id=row[0])
    tasks.run()

    assert sorted(runs) == sorted(ids)


def test_a_row_that_can_never_be_sent_says_why_and_holds_up_no_other(
    connect: Connect, tasks: SentTasks, runs: list[str]
) -> None:
    connection = connect()
    gone = outbox.add(connection, ping.s(text="hello"))
    connection.execute(f"UPDATE {outbox.TABLE} SET task = 'no_more', added = added - 3600")
    register(connection)
    connection.close()

    assert outbox.send_pending(connect) == outbox.Sent(sent=1, kept=1)
    assert outbox.send_pending(connect) == outbox.Sent()

    connection = connect()
    ((row, task, reason),) = outbox.faults(connection)
    connection.close()
    assert (row, task) == (gone.id, "no_more")
    assert reason.startswith("UnknownTask: ")


def test_a_rows_eta_and_expiry_are_sent_unchanged(connect: Connect, tasks: SentTasks) -> None:
    connection = connect()
    eta = datetime.now(UTC) + timedelta(hours=1)
    outbox.add(connection, catalogue.send_note.s(**NOTE), eta=eta, expires=7200)
    with pytest.raises(ValueError, match="it must be a datetime with a time zone"):
        outbox.add(connection, catalogue.send_note.s(**NOTE), eta=eta.replace(tzinfo=None))
    connection.commit()
    connection.close()
    outbox.send_pending(connect)
    (sent,) = tasks.transport.sent
    assert sent.due == pytest.approx(eta.timestamp(), abs=0.01)


def test_an_sqlalchemy_session_and_its_connection_write_in_their_transaction(
    connect: Connect, tasks: SentTasks, runs: list[str]
) -> None:
    probe = connect()
    dialect = "sqlite://" if isinstance(probe, sqlite3.Connection) else "postgresql+psycopg://"
    probe.close()
    engine = sqlalchemy.create_engine(dialect, creator=connect)
    with Session(engine) as session:
        outbox.add(session, catalogue.send_note.s(**NOTE))
        session.rollback()
        handle = outbox.add(session, catalogue.send_note.s(**NOTE))
        session.commit()
    with engine.begin() as connection:
        second = outbox.add(connection, catalogue.send_note.s(**NOTE))
    engine.dispose()

    outbox.send_pending(connect)
    tasks.run()

    assert sorted(runs) == sorted([handle.id, second.id])


def test_the_outbox_accepts_one_task_whose_options_are_passed_to_add(environment: None) -> None:
    with pytest.raises(TypeError, match=r"the outbox takes one task.s\(...\)"):
        outbox.add(None, ping.s() | ping.s())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"the outbox takes one task.s\(...\)"):
        outbox.add(None, ping.s().set(countdown=5))
    with pytest.raises(ValueError, match="give countdown or eta, not both"):
        outbox.add(None, ping.s(), countdown=5, eta=datetime.now(UTC))


def driven(monkeypatch: pytest.MonkeyPatch, style: str) -> Any:
    """A connection of a driver whose DB-API module is a package within another, as mysql.connector is."""
    for name in ("ownsql", "ownsql.connector", "ownsql.connector.abstracts"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["ownsql.connector"].paramstyle = style  # type: ignore[attr-defined]
    cursor = Mock()
    return type("Connection", (), {"__module__": "ownsql.connector.abstracts", "cursor": lambda _: cursor})()


@pytest.mark.parametrize(("style", "places"), [("pyformat", "%s, %s"), ("qmark", "?, ?")])
def test_sql_uses_the_drivers_placeholders(monkeypatch: pytest.MonkeyPatch, style: str, places: str) -> None:
    connection = driven(monkeypatch, style)

    outbox._execute(connection, "INSERT INTO t VALUES (?, ?)", ("a", 2))

    connection.cursor().execute.assert_called_once_with(f"INSERT INTO t VALUES ({places})", ("a", 2))


def test_a_database_without_the_outboxs_sql_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle's driver has named placeholders, and Oracle no LIMIT."""
    with pytest.raises(
        TypeError, match="a driver with named placeholders: the outbox needs PostgreSQL, MySQL, MariaDB"
    ):
        outbox.add(driven(monkeypatch, "named"), catalogue.send_note.s(**NOTE))


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert outbox.main(["ddl"]) == 0
    assert capsys.readouterr().out == outbox.DDL


def test_the_command_sends(
    tmp_path: Path, tasks: SentTasks, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"import sqlite3\n\ndef connect():\n    return sqlite3.connect({str(tmp_path / 'db')!r})\n"
    (tmp_path / "shop.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute(outbox.DDL)
    outbox.add(connection, ping.s())
    connection.commit()
    connection.close()
    assert outbox.main(["send", "shop:connect"]) == 0
    assert capsys.readouterr().out == "sent 1, kept 0\n"
    assert len(tasks.calls) == 1
    sys.modules.pop("shop")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module that the command gets its connection from."""
    module = f"import sqlite3\n\ndef connect():\n    return sqlite3.connect({str(tmp_path / 'db')!r})\n"
    (tmp_path / "shop.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("shop", None)


@pytest.mark.parametrize(
    ("error", "code"), [(SendFailed({"r": "AWS is away"}), 1), (ConfigurationError("NEXUS_STACK is not set"), 2)]
)
def test_the_command_says_why_it_could_not_send(
    shop: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def refuse(connect: Any) -> Any:
        raise error

    monkeypatch.setattr(outbox, "send_pending", refuse)
    assert outbox.main(["send", "shop:connect"]) == code
    assert capsys.readouterr().err == f"{error}\n"


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("database is locked"),
        psycopg.OperationalError("the database system is shutting down"),
        psycopg.InterfaceError("the connection is closed"),
        ConnectionRefusedError("Connection refused"),
    ],
    ids=repr,
)
def test_the_command_continues_after_the_database_was_out_of_reach(
    shop: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    results: list[Any] = [error, outbox.Sent(1, 0), ConfigurationError("no such stack")]

    monkeypatch.setattr(outbox, "send_pending", Mock(side_effect=results))
    monkeypatch.setattr(time, "sleep", lambda _: None)

    assert outbox.main(["send", "shop:connect", "--every", "7"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "sent 1, kept 0\n"
    assert printed.err == f"the database: {type(error).__name__}: {error}\nno such stack\n"


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (AttributeError("no such column"), ["--every", "7"]),
        (sqlite3.IntegrityError("a constraint"), ["--every", "7"]),
        (sqlite3.OperationalError("database is locked"), []),
    ],
    ids=["a fault of the code", "a fault of the data", "once"],
)
def test_the_command_ends_with_any_other_error(
    shop: None, monkeypatch: pytest.MonkeyPatch, error: Exception, options: list[str]
) -> None:
    def fail(_: Any) -> Any:
        raise error

    monkeypatch.setattr(outbox, "send_pending", fail)
    with pytest.raises(type(error)):
        outbox.main(["send", "shop:connect", *options])


def test_the_command_continues_after_a_failed_send_until_its_configuration_is_at_fault(
    shop: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[Any] = [SendFailed({"r": "AWS is away"}), outbox.Sent(3, 1), ConfigurationError("no such stack")]
    waits: list[float] = []

    monkeypatch.setattr(outbox, "send_pending", Mock(side_effect=results))
    monkeypatch.setattr(time, "sleep", waits.append)

    assert outbox.main(["send", "shop:connect", "--every", "7"]) == 2
    assert waits == [7.0, 7.0]
    printed = capsys.readouterr()
    assert printed.out == "sent 3, kept 1\n"
    assert "AWS is away" in printed.err
    assert printed.err.endswith("no such stack\n")
