"""Periodic tasks created at run time, like django-celery-beat's: EventBridge Scheduler stores and fires them.

    periodic.create("weekly-report", make_report.s(team="a"), "cron(0 9 ? * MON *)", timezone="Europe/Berlin")
    periodic.update("weekly-report", paused=True)

They live in the stack's schedule group. Each firing is a run whose id derives from the name and the firing time, so a
firing that Scheduler delivers twice is one run. Schedules that never change belong in the template instead.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from nexus import clock, cron
from nexus.aws.sdk import client
from nexus.backend.transport import MAX_SCHEDULED, schedule_target, verbatim
from nexus.client import Signature
from nexus.envelope import FIRED_AT, acceptable, fired_id
from nexus.errors import NexusError
from nexus.settings import settings

PREFIX = "periodic."
"""Prefix of a schedule's name: its group also has the one-off schedules of runs due later, named by their ids."""

NAME_LIMIT = 64 - len(PREFIX)


class PeriodicTaskError(NexusError):
    """A periodic task cannot be created or changed: its name, its expression, or Scheduler's reason."""


def run_id(name: str, at: datetime) -> str:
    """The id of the run that a periodic task's firing at this time starts."""
    return fired_id(name, f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicTask:
    """A task that Scheduler sends repeatedly.

    `expression` is Scheduler's: `cron(0 9 ? * MON *)`, `rate(5 minutes)`, or `at(2030-01-31T09:00:00)` for once. A
    `cron` or `at` is read in `timezone`: a `cron` skips a time that the clocks skip, and fires once at a time that they
    repeat. A `rate` counts elapsed time. No `cron` or `rate` fires before `start` or after `end`.
    """

    name: str
    task: str
    queue: str
    args: Mapping[str, Any]
    expression: str
    timezone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    description: str = ""
    paused: bool = False

    def run_id(self, at: datetime) -> str:
        """The id of the run that the firing at this time starts."""
        return run_id(self.name, at)

    def request(self) -> dict[str, Any]:
        """The parameters of CreateSchedule and UpdateSchedule. Raises PeriodicTaskError."""
        if not re.fullmatch(f"[0-9A-Za-z._-]{{1,{NAME_LIMIT}}}", self.name):
            raise PeriodicTaskError(f"name: {self.name!r}: 1 to {NAME_LIMIT} letters, digits, '-', '_' and '.'")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise PeriodicTaskError(f"timezone: {self.timezone!r} is not in the IANA database") from None
        for field, value in (("start", self.start), ("end", self.end)):
            if value is not None and value.tzinfo is None:
                raise PeriodicTaskError(f"{field}: {value!r} has no time zone")
        fired = json.dumps([self.name, FIRED_AT])
        rest = acceptable(json.dumps({"v": 1, "task": self.task, "args": dict(self.args)}, ensure_ascii=False))
        message = f'{{"fired": {fired}, {verbatim(rest)[1:]}'
        size = len(message.encode())
        if size > MAX_SCHEDULED:
            raise PeriodicTaskError(f"args: {size:,} bytes as a message, over the limit of {MAX_SCHEDULED:,}")
        request: dict[str, Any] = {
            "Name": f"{PREFIX}{self.name}",
            "GroupName": settings().stack,
            "ScheduleExpression": self.expression,
            "ScheduleExpressionTimezone": self.timezone,
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ActionAfterCompletion": "NONE",
            "State": "DISABLED" if self.paused else "ENABLED",
            "Description": self.description,
            "Target": schedule_target(self.queue, message),
        }
        # Scheduler refuses a start more than five minutes ago, and a past start has no effect.
        start = self.start if self.start is not None and self.start.timestamp() > clock.now() else None
        times = {"StartDate": start, "EndDate": self.end}
        return request | {name: value for name, value in times.items() if value is not None}

    def times(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The firing times after one moment, up to and including another; none while paused. Raises BadSchedule."""
        if self.paused:
            return iter(())
        zone = ZoneInfo(self.timezone)
        return cron.scheduler_times(self.expression, zone, after, until, start=self.start, end=self.end)

    @classmethod
    def of(cls, schedule: Mapping[str, Any]) -> Self:
        """Parses a GetSchedule response."""
        target = schedule["Target"]
        body = json.loads(target["Input"])
        return cls(
            name=body["fired"][0],
            task=body["task"],
            queue=str(target["Arn"]).rpartition(":")[2].removeprefix(f"{settings().stack}-"),
            args=body["args"],
            expression=schedule["ScheduleExpression"],
            timezone=schedule.get("ScheduleExpressionTimezone", "UTC"),
            start=schedule.get("StartDate"),
            end=schedule.get("EndDate"),
            description=schedule.get("Description", ""),
            paused=schedule.get("State") == "DISABLED",
        )


def create(
    name: str,
    signature: Signature[Any],
    expression: str,
    *,
    timezone: str = "UTC",
    start: datetime | None = None,
    end: datetime | None = None,
    description: str = "",
    paused: bool = False,
) -> PeriodicTask:
    """Creates a periodic task. Raises PeriodicTaskError if the name is taken or Scheduler does not accept it."""
    _bare(signature)
    made = PeriodicTask(
        name=name,
        task=signature.task.name,
        queue=signature.queue,
        args=dict(signature.args),
        expression=expression,
        timezone=timezone,
        start=start,
        end=end,
        description=description,
        paused=paused,
    )
    _call("create_schedule", made)
    return made


def update(name: str, signature: Signature[Any] | None = None, **changes: Any) -> PeriodicTask:
    """Changes the given fields of PeriodicTask: `update("weekly-report", paused=True)`.

    A signature replaces task, queue and arguments. Raises PeriodicTaskError if no task has this name, or Scheduler does
    not accept it.
    """
    if unchecked := ", ".join(changes.keys() & {"task", "queue", "args"}):
        raise PeriodicTaskError(f"{unchecked}: pass a signature, whose arguments are checked")
    existing = get(name)
    if existing is None:
        raise PeriodicTaskError(f"there is no periodic task {name!r}")
    if signature is not None:
        _bare(signature)
        changes |= {"task": signature.task.name, "queue": signature.queue, "args": dict(signature.args)}
    changed = replace(existing, **changes)
    _call("update_schedule", changed)
    return changed


def put(task: PeriodicTask) -> None:
    """Creates it, or changes the one of the same name. Raises PeriodicTaskError if Scheduler does not accept it."""
    try:
        _call("update_schedule", task)
    except client("scheduler").exceptions.ResourceNotFoundException:
        _call("create_schedule", task)


def delete(name: str) -> bool:
    """Deletes it; False if it did not exist. Runs that have been sent are not stopped."""
    scheduler = client("scheduler")
    try:
        scheduler.delete_schedule(Name=f"{PREFIX}{name}", GroupName=settings().deployment)
    except scheduler.exceptions.ResourceNotFoundException:
        return False
    return True


def get(name: str) -> PeriodicTask | None:
    """The periodic task of this name, or None."""
    scheduler = client("scheduler")
    try:
        found = scheduler.get_schedule(Name=f"{PREFIX}{name}", GroupName=settings().deployment)
    except scheduler.exceptions.ResourceNotFoundException:
        return None
    return PeriodicTask.of(found)


def every() -> Iterator[PeriodicTask]:
    """All of them, by name; one request per hundred names and one per task."""
    pages = (
        client("scheduler").get_paginator("list_schedules").paginate(GroupName=settings().deployment, NamePrefix=PREFIX)
    )
    for page in pages:
        for schedule in page["Schedules"]:
            found = get(schedule["Name"].removeprefix(PREFIX))
            if found is not None:
                yield found


def _bare(signature: Signature[Any]) -> None:
    if names := ", ".join(signature.options.keys() - {"queue"}):
        raise PeriodicTaskError(f"{signature.task.name}: {names} applies to a single send, not to a periodic task")


def _call(operation: str, task: PeriodicTask) -> None:
    scheduler = client("scheduler")
    request = task.request()
    try:
        getattr(scheduler, operation)(**request)
    except scheduler.exceptions.ConflictException:
        raise PeriodicTaskError(f"name: a periodic task {task.name!r} already exists") from None
    except scheduler.exceptions.ValidationException as error:
        raise PeriodicTaskError(str(error.response["Error"].get("Message"))) from None
