"""Periodic tasks (`nexus.periodic`) as a model whose rows are kept in sync with EventBridge Scheduler."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from botocore.exceptions import BotoCoreError, ClientError
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models, router, transaction
from django.tasks.exceptions import InvalidTask

from nexus import clock, periodic
from nexus.cron import BadSchedule
from nexus.django import conf
from nexus.django.backend import runtime_task
from nexus.django.tasks import aware, find, shown_time
from nexus.errors import NexusError

FAULTS = (
    NexusError,
    LookupError,
    TypeError,
    ValueError,
    OverflowError,
    InvalidTask,
    ImproperlyConfigured,
    BotoCoreError,
    ClientError,
)
"""Errors that a row, the project or AWS can cause."""


class PeriodicTask(models.Model):
    """A task that EventBridge Scheduler sends repeatedly: a row here, and a schedule of the same name there.

    Saving or deleting a row writes its schedule after the commit. Until AWS accepts it, `state` says what remains to be
    done and `fault` why; `manage.py nexus_periodic` does it. A row is deleted only after its schedule. A QuerySet's
    `update`, `delete` and `bulk_create` do not write schedules: run the command after them.
    """

    class State(models.TextChoices):
        """What remains to be done at Scheduler."""

        KEPT = "kept", "in step"
        WRITE = "write", "to be written"
        DELETE = "delete", "to be deleted"

    name: Any = models.CharField(
        primary_key=True,
        max_length=periodic.NAME_LIMIT,
        help_text="The schedule's name in Scheduler; it cannot be changed.",
    )
    task: Any = models.CharField(max_length=100, help_text="The dotted path of a task, as users.tasks.welcome")
    queue: Any = models.CharField(max_length=40, blank=True, help_text="Empty for the task's own")
    args: Any = models.JSONField(default=list, blank=True)
    kwargs: Any = models.JSONField(default=dict, blank=True)
    expression: Any = models.CharField(
        max_length=256, help_text="cron(0 9 ? * MON *), rate(5 minutes), or at(2030-01-31T09:00:00) for once"
    )
    timezone: Any = models.CharField(max_length=50, default="UTC", help_text="Of cron and at, as Europe/Berlin")
    start: Any = models.DateTimeField(null=True, blank=True, help_text="Nothing is sent before")
    end: Any = models.DateTimeField(null=True, blank=True, help_text="Nothing is sent after")
    description: Any = models.CharField(max_length=512, blank=True)
    paused: Any = models.BooleanField(default=False)
    state: Any = models.CharField(max_length=6, choices=State, default=State.WRITE, editable=False)
    fault: Any = models.TextField(blank=True, editable=False)
    tried_at: Any = models.DateTimeField(null=True, editable=False)

    class Meta:
        """By name."""

        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return str(self.name)

    def clean(self) -> None:
        """Raises ValidationError for values that Scheduler or the task would not accept."""
        if not isinstance(self.args, list) or not isinstance(self.kwargs, dict):
            raise ValidationError("args must be a list, and kwargs an object.")
        try:
            wanted = self.wanted()
            wanted.request()
            now = clock.date(clock.now())
            next(replace(wanted, paused=False).times(now, now), None)
        except BadSchedule as error:
            raise ValidationError({"expression": str(error)}) from None
        except OverflowError:
            raise ValidationError({"expression": "Its times are out of range."}) from None
        except FAULTS as error:
            raise ValidationError(str(error)) from None

    def wanted(self) -> periodic.PeriodicTask:
        """The schedule as Scheduler should have it. Raises one of `FAULTS`."""
        task = runtime_task(find(self.task).using(queue_name=self.queue or None))
        if task.secret:
            raise TypeError(f"{self.task} has secret arguments, which this table would store in plain text")
        return periodic.PeriodicTask(
            name=self.name,
            task=task.module_path,
            queue=task.queue_name,
            args=dict(task.signature(self.args, self.kwargs).args),
            expression=self.expression,
            timezone=self.timezone,
            start=self.start and aware(self.start).replace(microsecond=0),
            end=self.end and aware(self.end).replace(microsecond=0),
            description=self.description,
            paused=self.paused,
        )

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the row, and writes its schedule after the commit."""
        self.state = self.State.WRITE
        if (fields := kwargs.get("update_fields")) is not None:
            kwargs["update_fields"] = {*fields, "state"}
        alias = kwargs.get("using") or self.written_to
        with transaction.atomic(using=alias):
            super().save(*args, **{**kwargs, "using": alias})
            self._keep_after_commit(alias)

    def delete(self, using: str | None = None, keep_parents: bool = False) -> Any:  # noqa: ARG002 - Django's
        """Deletes the schedule after the commit, and then the row."""
        alias = using or self.written_to
        with transaction.atomic(using=alias):
            count = type(self).objects.using(alias).filter(pk=self.pk).update(state=self.State.DELETE)
            self._keep_after_commit(alias)
        return count, {self._meta.label: count}

    @property
    def written_to(self) -> str:
        """The database that this row is written to. It may have been read from a replica."""
        return str(router.db_for_write(type(self), instance=self))

    def _keep_after_commit(self, using: str) -> None:
        transaction.on_commit(partial(keep, self.pk, using), using=using)


def keep(name: str, using: str) -> str:
    """Writes or deletes a row's schedule as its `state` says. Returns why that failed, or an empty text.

    The row is locked meanwhile, so that of two concurrent saves the later one's values end up in Scheduler.
    """
    conf.apply()
    rows = PeriodicTask.objects.using(using).filter(pk=name)
    with transaction.atomic(using=using):
        if not rows.update(tried_at=shown_time(clock.now())):  # a lock on every database, unlike select_for_update
            return ""
        row = rows.get()
        try:
            if row.state == PeriodicTask.State.DELETE:
                periodic.delete(name)
            else:
                periodic.put(row.wanted())
        except FAULTS as error:
            fault = f"{type(error).__name__}: {error}"
            rows.update(fault=fault)
            return fault
        if row.state == PeriodicTask.State.DELETE:
            rows.delete()
        else:
            rows.update(state=PeriodicTask.State.KEPT, fault="")
    return ""


@dataclass(frozen=True, slots=True)
class Synced:
    """Result of checking every row: the names written or deleted, the reasons for those that failed, and the names of
    schedules without a row, which are left unchanged."""

    written: tuple[str, ...]
    faults: dict[str, str]
    strangers: tuple[str, ...]


def sync(using: str) -> Synced:
    """Does what remains to be done, and writes schedules that differ from their rows. Raises one of `FAULTS`."""
    conf.apply()
    there = {found.name: found for found in periodic.every()}
    written, faults = [], {}
    rows = list(PeriodicTask.objects.using(using))
    for row in rows:
        if row.state == PeriodicTask.State.KEPT and _in_step(row, there.get(row.name)):
            continue
        if fault := keep(row.name, using):
            faults[row.name] = fault
        else:
            written.append(row.name)
    return Synced(tuple(written), faults, tuple(sorted(there.keys() - {row.name for row in rows})))


def _in_step(row: PeriodicTask, there: periodic.PeriodicTask | None) -> bool:
    """Whether Scheduler has what the row says; False also if that cannot be determined, and `keep` says why."""
    try:
        wanted = row.wanted()
    except FAULTS:
        return False
    begun = (
        wanted.start is not None and wanted.start.timestamp() <= clock.now()
    )  # Scheduler may no longer have its start
    return there is not None and (replace(there, start=wanted.start) if begun else there) == wanted
