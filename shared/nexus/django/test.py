"""For a Django project's own tests: tasks in memory, next to the database's transaction.

class RegisterTest(NexusTestCase):
    def test_a_new_user_is_welcomed(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.client.post("/register", {"username": "ada"})
        self.assertEnqueued(welcome, User.objects.get().pk)
        self.tasks.drain()
"""

import os
from typing import Any
from unittest import mock

from django.db import connections, router
from django.test import TestCase

from nexus import outbox
from nexus.django import conf
from nexus.django.backend import runtime_task
from nexus.django.models import Outbox
from nexus.django.tasks import AnyTask, TaskResult
from nexus.testing import SentTask, TasksMixin, in_memory


class NexusTestCase(TasksMixin, TestCase):
    """A TestCase whose tasks wait in memory until `self.tasks.drain()` or `advance()` runs them as the worker does."""

    @classmethod
    def setUpClass(cls) -> None:
        """Finds tasks where the project's function finds them. What `setUpTestData` enqueues stays in memory and is not
        run: each test begins with none."""
        cls.enterClassContext(mock.patch.dict(os.environ, {"NEXUS_CATALOGUE": conf.CATALOGUE}))
        cls.enterClassContext(in_memory())
        super().setUpClass()

    def send_outbox(self) -> int:
        """Sends the tasks in the outbox, as `manage.py nexus_outbox` does after the commit, which a TestCase never
        makes. Returns how many."""
        connection = connections[router.db_for_write(Outbox)]
        with mock.patch.object(connection, "commit"), mock.patch.object(connection, "close"):
            return outbox.send_pending(lambda: connection).sent

    def enqueued(self, task: AnyTask) -> list[SentTask]:
        """All enqueued runs of a task, run or not, in order: each with `args`, `queue`, `due` and `id`."""
        return [one for one in self.tasks.sent if one.task.name == task.module_path]

    def assertEnqueued(self, task: AnyTask, *args: Any, **kwargs: Any) -> TaskResult:  # noqa: N802
        """The result of the first run enqueued with these arguments to the task's queue. Raises AssertionError."""
        sent = runtime_task(task)
        wanted = dict(sent.signature(args, kwargs).args)
        found = self.enqueued(task)
        for one in found:
            if sent.definition.to_send(one.args) == wanted and one.queue == sent.queue_name:
                return task.get_backend().get_result(one.id)
        given = "".join(f"\n    {one} to {one.queue}" for one in found) or " nothing"
        raise AssertionError(
            f"{task.module_path} was not enqueued to {sent.queue_name} with {wanted}. Its enqueued calls:{given}"
        )

    def assertNotEnqueued(self, task: AnyTask) -> None:  # noqa: N802
        """Asserts that no run of this task was enqueued."""
        if found := "".join(f"\n    {one}" for one in self.enqueued(task)):
            raise AssertionError(f"{task.module_path} was enqueued:{found}")
