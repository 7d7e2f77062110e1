"""What the worker does around a Django task: one setup, its connections, its time limit, tasks on an event loop."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.db import connections
from django.tasks import TaskResultStatus

from dev.postgres import Server, temporary
from nexus.errors import TimeLimitExceeded
from nexus.testing import SentTasks
from tests.support.django_project import tasks as project
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with temporary() as found:
        yield found


@pytest.fixture
def postgresql(server: Server) -> Iterator[Any]:
    """PostgreSQL in place of the project's database: as on Lambda, a connection is kept, and here never checked."""
    kept = connections.settings["default"].copy()
    given = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "CONN_MAX_AGE": 60,
        "OPTIONS": {},
    }
    connections["default"].close()
    del connections["default"]
    connections.settings["default"].update(given, HOST=server.folder)
    yield connections["default"]
    connections["default"].close()
    del connections["default"]
    connections.settings["default"].update(kept)


def ended(sent: SentTasks, task: Any) -> Any:
    result = task.enqueue()
    sent.run()
    result.refresh()
    return result


def test_an_asynchronous_task_is_ended_at_its_limit_and_cleans_up(sent: SentTasks) -> None:
    result = ended(sent, project.endless)
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is TimeLimitExceeded
    assert "endless has used its 1 s" in result.errors[0].traceback
    assert project.calls[-1] == "ended", "nothing of it runs on"
    assert project.calls.count("ended") == 1


def test_a_cache_is_kept_from_task_to_task_and_closed_before_each(
    sent: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    if caches.all(initialized_only=True):
        del caches["default"]
    first = ended(sent, project.remember).return_value
    closed: list[int] = []
    monkeypatch.setattr(project.calls[0], "close", lambda: closed.append(len(project.calls)), raising=False)
    assert ended(sent, project.remember).return_value == first
    assert closed == [1], "before the second task"


@pytest.mark.parametrize("speak", [project.speak, project.speak_on_a_loop])
def test_a_language_that_a_task_activates_is_not_the_next_tasks(speak: Any, sent: SentTasks) -> None:
    results = [speak.enqueue("de"), speak.enqueue()]
    sent.run()
    for result in results:
        result.refresh()
        assert result.return_value == "en-us UTC"


def test_an_asynchronous_task_that_blocks_its_loop_is_given_up_and_goes_no_further(sent: SentTasks) -> None:
    result = ended(sent, project.blocking)
    assert result.errors[0].exception_class is TimeLimitExceeded
    assert project.calls == ["on"], "the run has ended while the thread is still held"
    project.held.set()
    assert project.over.wait(PATIENCE)
    assert project.calls == ["on", "off"]


@pytest.mark.programs
@pytest.mark.parametrize("slow", [project.slow_query, project.slow_query_on_a_loop])
def test_a_query_that_the_limit_cut_off_does_not_spoil_the_connection_for_the_next_task(
    slow: Any, sent: SentTasks, postgresql: Any
) -> None:
    result = ended(sent, slow)
    assert result.errors[0].exception_class is TimeLimitExceeded
    assert ended(sent, project.one_query).return_value == 42


@pytest.mark.programs
def test_a_task_that_catches_its_limit_does_not_spoil_the_connection_either(sent: SentTasks, postgresql: Any) -> None:
    assert ended(sent, project.slow_query_given_up).return_value == "given up"
    assert ended(sent, project.one_query).return_value == 42


@pytest.mark.programs
def test_a_connection_is_kept_from_task_to_task_on_a_loop_too(sent: SentTasks, postgresql: Any) -> None:
    assert ended(sent, project.one_query).return_value == 42
    first = postgresql.connection
    assert ended(sent, project.one_query_on_a_loop).return_value == 42
    assert ended(sent, project.one_query).return_value == 42
    assert first is not None
    assert postgresql.connection is first


@pytest.mark.programs
@pytest.mark.parametrize("task", [project.one_query, project.one_query_on_a_loop])
def test_a_connection_that_the_database_ended_while_the_sandbox_was_frozen_is_replaced(
    task: Any, sent: SentTasks, postgresql: Any
) -> None:
    postgresql.settings_dict["CONN_HEALTH_CHECKS"] = True
    assert ended(sent, task).return_value == 42
    first = postgresql.connection
    postgresql.connection.pgconn.finish()
    assert ended(sent, task).return_value == 42
    assert postgresql.connection is not first


@pytest.mark.programs
def test_nothing_pins_a_connection_to_rds_proxy(sent: SentTasks, postgresql: Any) -> None:
    """RDS Proxy pins a session that sets a variable or prepares a statement. In UTC, RDS's default, Django does not."""
    with postgresql.cursor() as cursor:
        cursor.execute("ALTER ROLE postgres SET timezone TO 'UTC'")
    postgresql.close()
    for _ in range(8):
        ended(sent, project.one_query)
    with postgresql.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT name FROM pg_settings WHERE source = 'session' AND name <> 'DateStyle'")
        assert cursor.fetchall() == []


@pytest.mark.programs
def test_the_functions_process_sets_django_up_once() -> None:
    """Imports only the catalogue, in a new process, like a function's cold start."""
    script = (
        "import django, django.apps, logging\n"
        "count, setup = [], django.setup\n"
        "django.setup = lambda *a, **k: (count.append(1), setup(*a, **k))\n"
        "from nexus.registry import registry\n"
        "names = [n for n in registry.served_by('default') if 'django_project' in n]\n"
        "registry.served_by('default')\n"
        "print(len(count), len(names) > 5)"
    )
    variables = {"NEXUS_CATALOGUE": "nexus.django.catalogue", "NEXUS_QUEUE": "default", "NEXUS_STACK": "test"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **variables, "PYTHONPATH": f"{ROOT / 'shared'}:{ROOT}"},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.stdout.split() == ["1", "True"], done.stderr
