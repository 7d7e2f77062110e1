"""NexusTestCase as a project's own tests use it. The cases are run by unittest, as `manage.py test` runs them."""

import importlib
import sys
import unittest
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

import nexus.django
from nexus.django import NexusTestCase, conf, enqueue_on_commit
from nexus.django.models import Outbox, PeriodicTask
from nexus.registry import registry
from nexus.testing import in_memory
from tests.support.django_project import tasks as project


class Cases(NexusTestCase):
    """Assertions that pass."""

    __test__ = False  # for pytest, which would run it without a database

    @classmethod
    def setUpTestData(cls) -> None:
        project.add.enqueue(99)

    def test_tasks_enqueued_by_the_class_are_not_sent_and_in_no_test(self) -> None:
        self.assertNotEnqueued(project.add)

    def test_an_enqueued_task_is_found_by_its_arguments_and_run_on_request(self) -> None:
        project.calls.clear()
        project.add.enqueue(1, b=2)
        project.add.using(queue_name="emails").enqueue(3)
        result: Any = self.assertEnqueued(project.add, 1, b=2)
        assert project.calls == []
        self.assertEnqueued(project.add.using(queue_name="emails"), 3)
        self.assertNotEnqueued(project.send_mail)
        self.tasks.drain()
        result.refresh()
        assert result.return_value == 3
        assert len(self.enqueued(project.add)) == 2

    def test_tasks_wait_for_the_commit(self) -> None:
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            enqueue_on_commit(project.add, 1)
            self.assertNotEnqueued(project.add)
        self.assertEnqueued(project.add, 1)

    def test_advancing_the_time_runs_tasks_that_are_due(self) -> None:
        due = timezone.now() + timedelta(hours=3)
        project.add.using(run_after=due).enqueue(1)
        project.calls.clear()
        self.tasks.advance(timedelta(hours=2))
        assert project.calls == []
        self.tasks.advance(timedelta(hours=2))
        assert project.calls == [(1, 1)]

    def test_a_periodic_task_fires(self) -> None:
        project.calls.clear()
        with self.captureOnCommitCallbacks(execute=True):
            PeriodicTask.objects.create(
                name="hourly", task=project.add.module_path, args=[7], expression="rate(1 hour)"
            )
        self.tasks.advance(timedelta(hours=3), schedules=True)
        assert project.calls == [(7, 1)] * 3

    def test_the_outbox_is_in_the_tests_transaction(self) -> None:
        Outbox.add(project.add, 1)
        self.assertNotEnqueued(project.add)
        assert Outbox.objects.count() == 1
        assert self.send_outbox() == 1
        self.assertEnqueued(project.add, 1)
        assert not Outbox.objects.exists()


class Failures(NexusTestCase):
    """Assertions that fail, and their messages."""

    __test__ = False

    def test_other_arguments(self) -> None:
        project.add.enqueue(1, b=2)
        self.assertEnqueued(project.add, 1, b=3)

    def test_another_queue(self) -> None:
        project.add.enqueue(1)
        self.assertEnqueued(project.add.using(queue_name="emails"), 1)

    def test_nothing(self) -> None:
        self.assertEnqueued(project.add, 1)

    def test_not(self) -> None:
        project.add.enqueue(1)
        self.assertNotEnqueued(project.add)


def run(case: type[unittest.TestCase]) -> unittest.TestResult:
    return unittest.defaultTestLoader.loadTestsFromTestCase(case).run(unittest.TestResult())


@pytest.mark.usefixtures("database")
def test_the_assertions_hold_and_the_tasks_run() -> None:
    outcome = run(Cases)
    assert (outcome.testsRun, outcome.errors, outcome.failures) == (6, [], [])
    assert not Outbox.objects.exists()
    assert not PeriodicTask.objects.exists()


def test_a_task_runs_in_any_other_test_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `TasksMixin` on another class, or pytest's `nexus_tasks`: nothing names or has imported the catalogue."""
    monkeypatch.delenv("NEXUS_CATALOGUE", raising=False)
    monkeypatch.setattr(nexus.django, "catalogue", importlib.import_module(conf.CATALOGUE))
    monkeypatch.delitem(sys.modules, conf.CATALOGUE)
    for name in ("_declared", "_implementations"):
        monkeypatch.setattr(registry, name, {})
    monkeypatch.setattr(registry, "_loaded", set())
    with in_memory() as tasks:
        result = project.add.enqueue(2, b=3)
        tasks.drain()
        result.refresh()
    assert result.return_value == 5


@pytest.mark.usefixtures("database")
def test_an_assertion_that_does_not_hold_says_what_was_enqueued() -> None:
    outcome = run(Failures)
    assert outcome.errors == []
    said = {case.id().rpartition(".")[2]: text for case, text in outcome.failures}
    assert "with {'args': [1], 'kwargs': {'b': 3}}" in said["test_other_arguments"]
    assert "args=[1], kwargs={'b': 2}) to default" in said["test_other_arguments"]
    assert "was not enqueued to emails" in said["test_another_queue"]
    assert "nothing" in said["test_nothing"]
    assert "was enqueued:" in said["test_not"]
