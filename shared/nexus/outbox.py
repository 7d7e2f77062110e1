"""An outbox: tasks that are sent if, and only if, the application's own transaction commits.

The application writes the tasks to be sent into a table in its own database, in the transaction of its own rows:

    outbox.add(connection, send_welcome_email.s(user_id=user.id))
    connection.commit()

A sender, at intervals (cron, a loop, `python -m nexus.outbox send myapp.db:connect --every 10`) or wherever the
application likes (after a commit), sends the rows and deletes them:

    outbox.send_pending(connect)

A row's id is its run's id, so a row that is sent twice (the sender crashed before deleting it, or two senders ran at
once) is one run. This holds while the run's record is kept (NEXUS_RUN_DAYS): a row must not wait longer than that for
its second sending.

Tested on PostgreSQL and SQLite, with a DB-API connection or an SQLAlchemy session or connection; its statements are
also those of MySQL (8.0.1 or later) and MariaDB (10.6 or later). `python -m nexus.outbox ddl` prints the table; on
MySQL and MariaDB, where TEXT holds 64 KiB, let `args` be MEDIUMTEXT.
"""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from nexus import clock
from nexus.aws.surroundings import CONNECTIONS
from nexus.aws.table import in_threads
from nexus.backend import backend
from nexus.backend.transport import SqsTransport
from nexus.client import AsyncResult, Signature
from nexus.client.canvas import send
from nexus.client.options import moment, seconds
from nexus.definitions import Result
from nexus.errors import ConfigurationError, InvalidMessage, NexusError, SendFailed
from nexus.ids import new_id
from nexus.registry import registry

TABLE = "nexus_outbox"
DDL = f"""\
CREATE TABLE {TABLE} (
    id VARCHAR(36) PRIMARY KEY,
    task VARCHAR(100) NOT NULL,
    args TEXT NOT NULL,
    queue VARCHAR(80),
    due DOUBLE PRECISION,
    expires DOUBLE PRECISION,
    added DOUBLE PRECISION NOT NULL,
    fault TEXT
);
"""
"""Ids sort by creation time. Times are seconds since 1970. `fault` is why a row cannot be sent."""

GRACE = 3600.0
"""Seconds for which a row that the sender cannot read stays for the next one."""

COLUMNS = ("id", "task", "args", "queue", "due", "expires", "added")


@dataclass(frozen=True, slots=True)
class Sent:
    """A sender's result: how many rows were sent and deleted, and how many kept because they cannot be sent."""

    sent: int = 0
    kept: int = 0


def add[R: Result](
    connection: Any,
    signature: Signature[R],
    *,
    queue: str | None = None,
    countdown: float | None = None,
    eta: datetime | None = None,
    expires: float | datetime | None = None,
) -> AsyncResult[R]:
    """Writes one task into the outbox, in the current transaction of the connection or session.

    `queue`, `countdown`, `eta` and `expires` are those of `apply_async`; seconds count from now. The handle is the
    run's: UNKNOWN until it is sent. Raises TypeError for more than one task, ValueError for a time without a zone or
    for conflicting options.
    """
    if not _is_bare(signature):
        raise TypeError(
            "the outbox takes one task.s(...), with the options given to add(): let that task send a canvas of several"
        )
    if countdown is not None and eta is not None:
        raise ValueError("give countdown or eta, not both")
    now = clock.now()
    due = None if countdown is None else now + seconds("countdown", countdown)
    if eta is not None:
        due = moment("eta", eta)
    if isinstance(expires, datetime):
        until: float | None = moment("expires", expires)
    else:
        until = None if expires is None else now + seconds("expires", expires)
    run_id = new_id()
    row = (
        run_id,
        signature.task.name,
        json.dumps(dict(signature.args)),
        queue,
        due,
        until,
        now,
    )
    _execute(connection, f"INSERT INTO {TABLE} ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608
    return AsyncResult(run_id, signature.task.result)


def send_pending(connect: Callable[[], Any], *, limit: int = 1000, page: int = 25) -> Sent:
    """Sends up to `limit` rows, the oldest first and up to sixteen at once, and deletes each that was sent.

    `connect` returns a DB-API connection of the sender's own, which is closed at the end. A row that AWS does not
    accept stays for the next sender. So does one that this sender cannot read (its task does not exist, its arguments
    are not valid), since the application may be newer; an hour after it was added it gets the reason in `fault`, and is
    skipped from then on. Neither holds up another row: SendFailed, which names them, is raised at the end. If AWS is
    out of reach, or accepts no row of a page, the rows after that wait for the next sender. Raises ConfigurationError
    after a page if AWS cannot be reached as configured.
    """
    sent = kept = 0
    last, refused, unknown, away = "", dict[str, str](), dict[str, str](), False
    misconfigured: ConfigurationError | None = None
    with closing(connect()) as connection:
        while not away and (tried := sent + kept + len(refused)) < limit:
            done = sent + kept + len(unknown)
            rows = _pending(connection, min(page, limit - tried), last)
            try:
                for row, fault in zip(rows, in_threads(_sent, rows, _threads()), strict=True):
                    last, added = row[0], row[-1]
                    reason = f"{type(fault).__name__}: {fault}"[:2000]
                    if fault is None:
                        _execute(connection, f"DELETE FROM {TABLE} WHERE id = ?", (last,))  # noqa: S608
                        sent += 1
                    elif isinstance(fault, SendFailed):
                        refused[last] = fault.failures.get(last, str(fault))
                        away = away or fault.away
                    elif isinstance(fault, ConfigurationError):
                        misconfigured = fault
                    elif clock.now() < added + GRACE:
                        unknown[last] = reason
                    else:
                        _execute(connection, f"UPDATE {TABLE} SET fault = ? WHERE id = ?", (reason, last))  # noqa: S608
                        kept += 1
            finally:
                connection.commit()  # delete what was sent even if another row failed
            if misconfigured:
                raise misconfigured
            if sent + kept + len(unknown) == done:
                break
    if refused or unknown:
        raise SendFailed({**refused, **unknown}, away=away)
    return Sent(sent, kept)


def faults(connection: Any) -> list[tuple[str, str, str]]:
    """The rows that cannot be sent, as (id, task, reason). Delete them, or correct them and set `fault` to NULL."""
    rows = _execute(connection, f"SELECT id, task, fault FROM {TABLE} WHERE fault IS NOT NULL ORDER BY id").fetchall()  # noqa: S608
    return [(row[0], row[1], row[2]) for row in rows]


def _pending(connection: Any, count: int, after: str = "") -> Sequence[Any]:
    """The oldest rows, those after that id, locked so that other senders skip them if the database supports it."""
    lock = " FOR UPDATE SKIP LOCKED" if _driver(connection) in SKIPS_LOCKED else ""
    where = "fault IS NULL AND id > ?" if after else "fault IS NULL"
    query = f"SELECT {', '.join(COLUMNS)} FROM {TABLE} WHERE {where} ORDER BY id LIMIT {count}{lock}"  # noqa: S608
    rows: Sequence[Any] = _execute(connection, query, (after,) if after else ()).fetchall()
    return rows


def _threads() -> int:
    """How many rows to send at once: one by one if sending runs the task, which may use the caller's database."""
    return CONNECTIONS if isinstance(backend().transport, SqsTransport) else 1


def _sent(row: Any) -> Exception | None:
    """Sends a row. Returns why it was not sent."""
    try:
        send(_signature(row), task_id=row[0])
    except Exception as error:  # noqa: BLE001 - a task's own validator may raise anything; other rows are not affected
        return error
    return None


def _signature(row: Any) -> Signature[Any]:
    """What a row sends. Raises InvalidMessage, UnknownTask."""
    _, name, args, queue, due, expires, _ = row
    task = registry.task(name)
    try:
        return Signature.of(task, json.loads(args)).set(
            queue=queue,
            eta=None if due is None else datetime.fromtimestamp(due, UTC),
            expires=None if expires is None else datetime.fromtimestamp(expires, UTC),
        )
    except (ValueError, TypeError, OverflowError, OSError) as error:  # those of JSON and of dates
        raise InvalidMessage(f"not a row of the outbox: {error}") from error


# --- databases -------------------------------------------------------------------------------------------------------

SKIPS_LOCKED = frozenset({"psycopg", "psycopg2", "pg8000", "MySQLdb", "pymysql", "mysql"})
PLACES = {"qmark": "?", "format": "%s", "pyformat": "%s"}


def _is_bare(signature: Any) -> bool:
    return isinstance(signature, Signature) and not signature.options and signature.takes is None


def _execute(connection: Any, statement: str, values: Sequence[object] = ()) -> Any:
    """Runs a statement, with `?` for each value, on a DB-API connection or SQLAlchemy's or Django's wrapper of one."""
    if _is_djangos(connection):
        cursor = connection.cursor()
        cursor.execute(statement.replace("?", "%s"), tuple(values))
        return cursor
    if hasattr(connection, "exec_driver_sql"):  # SQLAlchemy's connection
        places = _places(connection.dialect.paramstyle)
        return connection.exec_driver_sql(statement.replace("?", places), tuple(values))
    if hasattr(connection, "connection") and callable(connection.connection):  # SQLAlchemy's session
        return _execute(connection.connection(), statement, values)
    cursor = connection.cursor()
    cursor.execute(statement.replace("?", _places(_paramstyle(connection))), tuple(values))
    return cursor


def _places(paramstyle: str) -> str:
    if paramstyle not in PLACES:
        raise TypeError(
            f"a driver with {paramstyle} placeholders: the outbox needs PostgreSQL, MySQL, MariaDB or SQLite"
        )
    return PLACES[paramstyle]


def _paramstyle(connection: Any) -> str:
    """That of the connection's DB-API module, which may be a package within another: mysql.connector."""
    modules = accumulate(type(connection).__module__.split("."), "{}.{}".format)
    styles = (getattr(sys.modules[name], "paramstyle", None) for name in modules)
    return next(filter(None, styles), "unknown")


def _driver(connection: Any) -> str:
    """The name of the connection's top-level package; Django's wrapper is unwrapped."""
    inner = getattr(connection, "connection", None)
    driver = inner if _is_djangos(connection) and inner is not None else connection
    return type(driver).__module__.partition(".")[0]


def _is_djangos(connection: Any) -> bool:
    return type(connection).__module__.partition(".")[0] == "django"


# --- the command -----------------------------------------------------------------------------------------------------


def is_lost(error: Exception) -> bool:
    """Whether the database was out of reach: by the names that PEP 249 gives a driver's errors, or the network's."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, OSError) or not names.isdisjoint(("OperationalError", "InterfaceError"))


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m nexus.outbox ddl`, and `python -m nexus.outbox send MODULE:FUNCTION [--every SECONDS]`."""
    parser = argparse.ArgumentParser(prog="python -m nexus.outbox", description="The outbox's table and its sender.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ddl", help="print the table's definition")
    sender = commands.add_parser("send", help="send the tasks in the outbox")
    sender.add_argument("connect", help="the function that returns a DB-API connection, e.g. myapp.db:connect")
    sender.add_argument("--every", type=float, default=0.0, help="repeat after this many seconds (default: send once)")
    chosen = parser.parse_args(arguments)
    if chosen.command == "ddl":
        print(DDL, end="")
        return 0
    module, _, function = chosen.connect.partition(":")
    connect = getattr(importlib.import_module(module), function)
    while True:
        try:
            done = send_pending(connect)
            print(f"sent {done.sent}, kept {done.kept}", flush=True)
        except SendFailed as error:
            print(error, file=sys.stderr, flush=True)
            if not chosen.every:
                return 1
        except NexusError as error:
            print(error, file=sys.stderr)
            return 2
        except Exception as error:
            if not chosen.every or not is_lost(error):
                raise
            print(f"the database: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        if not chosen.every:
            return 0
        time.sleep(chosen.every)


if __name__ == "__main__":
    sys.exit(main())
