"""Periodic tasks (`nexus.periodic`) as a model, whose rows are kept in step with EventBridge Scheduler."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from botocore.exceptions import BotoCoreError, ClientError
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models, router, transaction
from django.tasks.exceptions import InvalidTask
from django.utils import timezone

from nexus import clock, periodic
from nexus.cron import BadSchedule
from nexus.django import conf
from nexus.django.backend import runtime_task
from nexus.django.tasks import find
from nexus.errors import NexusError

FAULTS = (NexusError, LookupError, TypeError, ValueError, InvalidTask, ImproperlyConfigured, BotoCoreError, ClientError)
"""What a row, the project or AWS can be the cause of."""


class PeriodicTask(models.Model):
    """A task that EventBridge Scheduler sends again and again: a row here, and a schedule of the same name there.

    Saving or deleting a row writes its schedule after the commit. While AWS does not take it, `state` says what is
    still to be done and `fault` why; `manage.py nexus_periodic` does it. A row's deletion waits for the schedule's.
    A QuerySet's `update`, `delete` and `bulk_create` write no schedules: run the command after them.
    """

    class State(models.TextChoices):
        """What is to be done at Scheduler."""

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
        """Raises ValidationError for what Scheduler or the task would not take."""
        if not isinstance(self.args, list) or not isinstance(self.kwargs, dict):
            raise ValidationError("args are a list, and kwargs an object.")
        try:
            wanted = self.wanted()
            wanted.request()
            now = timezone.now()
            next(replace(wanted, paused=False).times(now, now), None)
        except BadSchedule as error:
            raise ValidationError({"expression": str(error)}) from None
        except FAULTS as error:
            raise ValidationError(str(error)) from None

    def wanted(self) -> periodic.PeriodicTask:
        """What Scheduler is to have. Raises one of `FAULTS`."""
        task = runtime_task(find(self.task).using(queue_name=self.queue or None))
        if task.secret:
            raise TypeError(f"{self.task} has secret arguments, and this table would keep them in the open")
        return periodic.PeriodicTask(
            name=self.name,
            task=task.module_path,
            queue=task.queue_name,
            args=dict(task.signature(self.args, self.kwargs).args),
            expression=self.expression,
            timezone=self.timezone,
            start=self.start and self.start.replace(microsecond=0),
            end=self.end and self.end.replace(microsecond=0),
            description=self.description,
            paused=self.paused,
        )

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the row, and writes its schedule after the commit."""
        self.state = self.State.WRITE
        if (fields := kwargs.get("update_fields")) is not None:
            kwargs["update_fields"] = {*fields, "state"}
        with transaction.atomic(using=kwargs.get("using") or router.db_for_write(type(self), instance=self)):
            super().save(*args, **kwargs)
            self._keep_after_commit()

    def delete(self, *_: Any, **__: Any) -> Any:
        """Deletes the schedule after the commit, and then the row."""
        with transaction.atomic(using=self._state.db):
            rows = type(self).objects.using(self._state.db).filter(pk=self.pk)
            count = rows.update(state=self.State.DELETE)
            self._keep_after_commit()
        return count, {self._meta.label: count}

    def _keep_after_commit(self) -> None:
        transaction.on_commit(partial(keep, self.pk, str(self._state.db)), using=self._state.db)


def keep(name: str, using: str) -> str:
    """Writes or deletes a row's schedule as its `state` says; why that failed, empty when it did not.

    The row is locked meanwhile, so that of two that save it the later one's values are Scheduler's in the end.
    """
    conf.apply()
    rows = PeriodicTask.objects.using(using).filter(pk=name)
    with transaction.atomic(using=using):
        if not rows.update(tried_at=timezone.now()):  # a lock on every database, which select_for_update is not
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
    """What a look at every row did: the names of those written or deleted, and why others could not be; and the names
    of schedules that have no row, which are left as they are."""

    written: tuple[str, ...]
    faults: dict[str, str]
    strangers: tuple[str, ...]


def sync(using: str) -> Synced:
    """Does what is still to be done, and writes schedules that differ from their rows. Raises one of `FAULTS`."""
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
    """Whether Scheduler has what the row says; False also where nobody can tell, and `keep` says why."""
    try:
        wanted = row.wanted()
    except FAULTS:
        return False
    begun = wanted.start is not None and wanted.start.timestamp() <= clock.now()  # and Scheduler may not have it
    return there is not None and (replace(there, start=wanted.start) if begun else there) == wanted
