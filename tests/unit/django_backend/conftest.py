"""Django is set up once a process, with the settings of tests/support/django_project; each test has an empty store."""

import os
from collections.abc import Iterator

import pytest

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.django_project.settings"

import django

django.setup()

from nexus.django import conf  # noqa: E402 - Django comes first
from nexus.registry import registry  # noqa: E402
from nexus.testing import SentTasks, memory_backend  # noqa: E402
from tests.support.django_project import tasks as project  # noqa: E402


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
