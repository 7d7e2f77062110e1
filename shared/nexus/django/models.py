"""Models of the outbox (`nexus.outbox`) and periodic tasks (`nexus.periodic`), and names for what the admin shows."""

from typing import Any, ClassVar

from django.db import connections, models, router

from nexus import outbox
from nexus.django.periodic import PeriodicTask
from nexus.django.tasks import AnyTask

__all__ = ["DeadLetter", "Outbox", "PeriodicTask", "Run", "Schedule"]


class Outbox(models.Model):
    """A task that waits to be sent; `manage.py nexus_outbox` sends it and deletes the row.

    `due`, `expires` and `added` are seconds since 1970. `fault` is why a row cannot be sent: correct the row and
    set `fault` to None, or delete the row.
    """

    id: Any = models.CharField(primary_key=True, max_length=36)
    task: Any = models.CharField(max_length=100)
    args: Any = models.TextField()
    queue: Any = models.CharField(max_length=80, null=True, blank=True)
    due: Any = models.FloatField(null=True, blank=True)
    expires: Any = models.FloatField(null=True, blank=True)
    added: Any = models.FloatField()
    fault: Any = models.TextField(null=True, blank=True)

    class Meta:
        """The table that the outbox's sender reads."""

        db_table = outbox.TABLE
        verbose_name = "task to be sent"
        verbose_name_plural = "outbox"
        ordering: ClassVar = ["id"]

    def __str__(self) -> str:
        return f"{self.task} {self.id}"

    @classmethod
    def add(cls, task: AnyTask, /, *args: Any, using: str | None = None, **kwargs: Any) -> str:
        """Writes the task into the outbox of the database `using`. Returns the id that its result will have.

        Raises TypeError for arguments that are not JSON, InvalidTask for a task of another backend.
        """
        from nexus.django.backend import runtime_task

        sent = runtime_task(task)
        connection = connections[using or router.db_for_write(cls)]
        handle = outbox.add(connection, sent.signature(args, kwargs), queue=task.queue_name, eta=sent.due)
        return handle.id


class _NoRows(models.Manager[Any]):
    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().none()


class _WithoutTable(models.Model):
    """`dumpdata`, and whatever else goes through all models, finds no rows."""

    objects: ClassVar = _NoRows()

    class Meta:
        """For `dumpdata --all` too."""

        abstract = True
        base_manager_name = "objects"


class Run(_WithoutTable):
    """A run, stored in the run table instead of the database: for the admin's menu and permissions.

    The permission to change runs is needed to retry or revoke one.
    """

    id: Any = models.CharField(primary_key=True, max_length=36)

    class Meta:
        """No table."""

        managed = False
        default_permissions = ("view", "change")

    def __str__(self) -> str:
        return str(self.id)


class DeadLetter(_WithoutTable):
    """A dead letter, stored in SQS: for the admin's menu and permissions. To send one again, a user needs the
    permission to change dead letters.
    """

    id: Any = models.CharField(primary_key=True, max_length=36)

    class Meta:
        """No table."""

        managed = False
        default_permissions = ("view", "change", "delete")

    def __str__(self) -> str:
        return str(self.id)


class Schedule(_WithoutTable):
    """A rule of the stack's template that sends a task: for the admin's menu and permissions."""

    task: Any = models.CharField(primary_key=True, max_length=100)

    class Meta:
        """No table."""

        managed = False
        default_permissions = ("view", "change")
        verbose_name = "schedule of the template"
        verbose_name_plural = "schedules of the template"

    def __str__(self) -> str:
        return str(self.task)
