"""Django is set up once a process, with the settings of tests/support/django_project; each test has an empty store."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.django_project.settings"

import django

django.setup()

from nexus.django import conf  # noqa: E402 - Django comes first
from nexus.registry import registry  # noqa: E402
from nexus.testing import SentTasks, memory_backend  # noqa: E402
from tests.support.django_admin import world  # noqa: E402
from tests.support.django_project import tasks as project  # noqa: E402

__all__ = ["world"]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SentTasks]:
    """The tasks that the test enqueues, which it can run as the worker does."""
    project.calls.clear()
    monkeypatch.setenv("NEXUS_CATALOGUE", conf.CATALOGUE)
    with memory_backend() as found:
        registry.load((conf.CATALOGUE,))
        yield found


@pytest.fixture
def database() -> Iterator[None]:
    """The project's tables, in SQLite's memory."""
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", run_syncdb=True, verbosity=0)
    yield
    call_command("flush", verbosity=0, interactive=False)
    connection.close()


class Router:
    """Sends this application's models to other databases than the default one."""

    reading, writing = "default", "default"

    def db_for_read(self, model: Any, **_: Any) -> str | None:
        return self.reading if model._meta.app_label == "nexus" else None

    def db_for_write(self, model: Any, **_: Any) -> str | None:
        return self.writing if model._meta.app_label == "nexus" else None


class Elsewhere(Router):
    reading = writing = "other"


class ReadingFromAReplica(Router):
    reading = "replica"


@pytest.fixture
def elsewhere(database: None) -> Iterator[None]:
    """This application's rows are in another database, which has the same tables."""
    from django.core.management import call_command
    from django.db import connections
    from django.test.utils import override_settings

    call_command("migrate", database="other", run_syncdb=True, verbosity=0)
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.Elsewhere"]):
        yield
    call_command("flush", database="other", verbosity=0, interactive=False)
    connections["other"].close()


@pytest.fixture
def replica(database: None) -> Iterator[None]:
    """This application's rows are read from a replica, which refuses writes."""
    from django.db import connections
    from django.test.utils import override_settings

    with override_settings(DATABASE_ROUTERS=[f"{__name__}.ReadingFromAReplica"]):
        yield
    connections["replica"].close()
