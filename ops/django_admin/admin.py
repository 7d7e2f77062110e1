"""Runs, dead letters, schedules and periodic tasks in the admin."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, ClassVar
from zoneinfo import ZoneInfo, available_timezones

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db import transaction
from django.db.models import JSONField, QuerySet, TextField
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from nexus import clock, periodic
from nexus.client import AsyncResult, read_records
from nexus.django.models import DeadLetter, Outbox, PeriodicTask, Run, Schedule
from nexus.django.periodic import FAULTS
from nexus.django.tasks import Task, find
from nexus.runs.record import RunRecord
from nexus.values import compact
from ops import catalogue, dead_letters, history, logs, lookup, runs, waiting
from ops.django_admin.pages import MOST_LETTERS, Pages, explaining, site
from ops.problems import Problem

PAGE = 50
LINES = 500
FILTERS = ("status", "queue", "task", "since", "schedule")
MOST_SCHEDULES = 100
DAYS = 7
MOST_FIRINGS = 100
"""The most firings that a periodic task's page shows: one request reads the records of that many."""

SEARCHED = 200
PATIENCE = 4.0
"""Seconds for which a task's runs are searched, a page of `SEARCHED` at a time, for those that a schedule started."""


@admin.register(Run)
class RunAdmin(Pages):
    """Runs of the last days: search as with `nexus runs`, retry, revoke."""

    may: ClassVar[Mapping[str, str]] = {"retry": "change", "revoke": "change"}

    def more(self) -> Sequence[tuple[str, Callable[..., HttpResponse]]]:
        """The page of one run."""
        return [("<str:run_id>/change/", self.run_page)]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:  # noqa: ARG002 - Django's
        """A page of runs that match the search and filters, newest first."""
        typed = request.GET.get("q", "").strip()
        if lookup.is_whole(typed):
            return redirect("admin:nexus_run_change", typed)
        return self.page(request, "runs", "Runs", partial(_runs, request, typed))

    def run_page(self, request: HttpRequest, run_id: str) -> HttpResponse:
        """One run: its arguments, attempts, result, traceback and log."""
        return self.page(request, "run", f"Run {run_id}", partial(_run, run_id), f"/{run_id}")


def _runs(request: HttpRequest, typed: str) -> dict[str, Any]:
    chosen = {name: request.GET.get(name) for name in FILTERS}
    wanted = lookup.whole(history.both(history.parse(typed), history.query(chosen, {})))
    found = history.find(wanted, PAGE, request.GET.get("after"))
    tasks = [name for name, task in catalogue.tasks().items() if not task.everywhere or "." in name]
    schedules = [name for name, task in catalogue.tasks().items() if task.schedule]
    schedules += PeriodicTask.objects.order_by("name").values_list("name", flat=True)[:MOST_SCHEDULES]
    choices = {
        "status": list(history.STATUSES),
        "queue": catalogue.queues(),
        "task": tasks,
        "since": ("1h", "1d", "7d"),
        "schedule": schedules,
    }

    def link(**changes: str | None) -> str:
        kept = request.GET.copy()
        for name, value in {"after": None, **changes}.items():
            kept.pop(name, None)
            if value is not None:
                kept[name] = value
        return f"?{kept.urlencode()}"

    filters = [
        {
            "title": name,
            "choices": [
                {"display": value or "All", "query_string": link(**{name: value}), "selected": chosen[name] == value}
                for value in (None, *values)
            ],
        }
        for name, values in choices.items()
    ]
    return {
        "q": typed,
        "hidden": [(name, value) for name, value in chosen.items() if value],
        "filters": filters,
        "runs": [{**runs.as_plain(record, result=False), "args": _short(record.args)} for record in found.runs],
        "examined": found.examined,
        "next": link(after=found.after) if found.after else "",
    }


def _short(args: Any) -> str:
    return "" if args is None else compact(args)


def _run(run_id: str) -> dict[str, Any]:
    lookup.check_whole(run_id)
    record = site().run(run_id)
    shown: dict[str, Any] = {"run": runs.as_plain(record), "ended": record.ended}
    shown["waits"] = [] if record.ended else explaining(lambda: waiting.reasons(record))
    lines = explaining(lambda: site().log(run_id)[-LINES:])
    if isinstance(lines, Problem):
        return {**shown, "log_problem": lines}
    ends = [event for line in lines if (event := logs.event_of(line)) is not None]
    attempts = [{"event": event, "at": clock.date(event.at)} for event in ends if event.attempt]
    return {**shown, "log": "\n".join(line.text for line in lines), "attempts": attempts}


@admin.register(DeadLetter)
class DeadLetterAdmin(Pages):
    """Dead letters by queue, task and error: resend or drop them."""

    may: ClassVar[Mapping[str, str]] = {"retry-letters": "change", "drop-letters": "delete"}
    web = "dead-letters"

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:  # noqa: ARG002 - Django's
        """The groups, and the letters of the chosen one."""
        return self.page(request, "letters", "Dead letters", partial(_letters, request.GET))


def _letters(asked: Mapping[str, Any]) -> dict[str, Any]:
    counts = dead_letters.counts(catalogue.queues())
    chosen = {name: str(asked.get(name, "")) for name in ("queue", "task", "error")}
    found = site().letters(chosen["task"], chosen["error"], chosen["queue"]) if chosen["queue"] else []
    return {
        "groups": [{"group": group, "last": clock.date(group.last_at)} for group in site().groups()],
        "more": {queue: count for queue, count in counts.items() if count > MOST_LETTERS},
        "most": MOST_LETTERS,
        "chosen": chosen,
        "letters": [
            {
                "letter": letter,
                "at": clock.date(letter.failed_at),
                "args": _short(letter.shown_body if letter.args is None else letter.shown_args),
            }
            for letter in found[:PAGE]
        ],
        "count": len(found),
    }


@admin.register(Schedule)
class ScheduleAdmin(Pages):
    """The template's schedule rules: enable, disable, run now, change, and see the results of their firings."""

    may: ClassVar[Mapping[str, str]] = dict.fromkeys(("enable", "disable", "run", "change"), "change")
    web = "schedules"

    def more(self) -> Sequence[tuple[str, Callable[..., HttpResponse]]]:
        """The page of a rule's firings."""
        return [("<str:task>/change/", self.rule_page)]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:  # noqa: ARG002 - Django's
        """All rules, the next to fire first."""
        return self.page(request, "schedules", "Schedules of the template", lambda: {"rules": site().schedules()})

    def rule_page(self, request: HttpRequest, task: str) -> HttpResponse:
        """One rule, its next times, and its firings of the last days."""
        task = unquote(task)  # the admin's history quotes the underscores of a name

        def make() -> dict[str, Any]:
            rule = next((one for one in site().schedules() if one.task == task), None)
            if rule is None:
                raise Problem(f"{task} has no schedule")
            fired = [{"firing": one, "at": clock.date(one.at)} for one in reversed(site().firings(task))]
            return {"rule": rule, "times": site().next_times(rule.expression) if rule.on else [], "fired": fired}

        return self.page(request, "schedule", f"Schedule of {task}", make)


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # it takes none at run time
    """Periodic tasks: rows that are kept in sync with EventBridge Scheduler."""

    class Media:
        """What keeps a double click from sending a task twice."""

        js = ("nexus_admin/once.js",)

    list_display = ("name", "task", "expression", "timezone", "is_on", "state", "fault")
    list_filter = ("paused", "state", "task")
    search_fields = ("name", "task", "description")
    formfield_overrides: ClassVar = {JSONField: {"widget": forms.Textarea(attrs={"rows": 2})}}
    actions = ("enable", "disable", "run_now", "write")
    readonly_fields = ("state", "fault", "tried_at", "next_times", "firings")
    fieldsets = (
        (None, {"fields": ("name", "description", "paused")}),
        ("What is sent", {"fields": ("task", "queue", "args", "kwargs")}),
        ("When", {"fields": ("expression", "timezone", "start", "end", "next_times")}),
        ("In EventBridge Scheduler", {"fields": ("state", "fault", "tried_at", "firings")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:  # noqa: ARG002 - Django's
        """The name of an existing row cannot change."""
        return (*self.readonly_fields, "name") if obj else self.readonly_fields

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Shows a list to choose from where there is one."""
        if db_field.name == "task":
            from nexus.django.catalogue import discovered

            tasks = sorted(task.module_path for task in discovered() if not task.secret)
            return forms.ChoiceField(choices=[(name, name) for name in ("", *tasks)], help_text=db_field.help_text)
        if db_field.name == "timezone":
            zones = [(zone, zone) for zone in sorted(available_timezones())]
            return forms.ChoiceField(choices=zones, initial="UTC", help_text=db_field.help_text)
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    @admin.display(boolean=True, description="on")
    def is_on(self, row: PeriodicTask) -> bool:
        """Whether the schedule is enabled."""
        return not row.paused

    @admin.display(description="Next times")
    def next_times(self, row: PeriodicTask) -> str:
        """The next five firings, in the task's own time zone."""
        if not row.pk:
            return "-"
        try:
            wanted, now = row.wanted(), clock.date(clock.now())
            if _at_rate(wanted) and wanted.start is None:
                return "not known: without a start, Scheduler counts a rate from when it accepts the schedule"
            times = list(islice(wanted.times(now, datetime.max.replace(tzinfo=UTC)), 5))
            return ", ".join(f"{_in_zone(wanted, moment):%a %Y-%m-%d %H:%M}" for moment in times) or "none"
        except FAULTS as error:
            return str(error)

    @admin.display(description="Runs of the last days")
    def firings(self, row: PeriodicTask) -> str:
        """The runs that this schedule started, newest first, and what may be missing."""
        if not row.pk:
            return "-"
        now = clock.now()
        since = now - DAYS * 86_400
        try:
            wanted = row.wanted()
            times = [] if _at_rate(wanted) else [*_always(wanted).times(clock.date(since), clock.date(now))]
        except FAULTS as error:
            return str(error)
        found = explaining(partial(_fired, wanted, since, times))
        if isinstance(found, Problem):
            return found.what
        fired, missing = found
        shown: list[str] = [
            format_html(
                '<a href="{}">{}</a> {}',
                reverse("admin:nexus_run_change", args=[run.id]),
                f"{_in_zone(wanted, clock.date(run.sent_at or 0)):%Y-%m-%d %H:%M}",
                run.status,
            )
            for run in fired
        ]
        return format_html_join("", "{}<br>", ((line,) for line in (*(shown or ["none"]), *missing)))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Saves the row, with a message if Scheduler did not accept it."""
        super().save_model(request, obj, form, change)
        self._report_after_commit(request, obj)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Deletes the row, with a message if Scheduler did not delete the schedule."""
        self.delete_queryset(request, [obj])

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Deletes each row on its own: a QuerySet's delete does not reach Scheduler."""
        for row in queryset:
            row.delete()
            self._report_after_commit(request, row)

    def _report_after_commit(self, request: HttpRequest, row: PeriodicTask) -> None:
        """Reports after the row's own hook, which writes the schedule: both wait for the same database's commit."""
        alias = row.written_to
        transaction.on_commit(partial(self._report, request, row.pk, alias), using=alias)

    def _report(self, request: HttpRequest, name: str, using: str) -> None:
        row = PeriodicTask.objects.using(using).filter(pk=name).exclude(state=PeriodicTask.State.KEPT).first()
        if row is not None:
            text = f"{row.name} is {row.State(row.state).label} in Scheduler: {row.fault} (`manage.py nexus_periodic`)"
            self.message_user(request, text, messages.ERROR)

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        """Enables the schedules."""
        self._set(request, queryset, paused=False)

    @admin.action(description="Disable", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        """Disables the schedules."""
        self._set(request, queryset, paused=True)

    @admin.action(description="Write to Scheduler again", permissions=["change"])
    def write(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        """Writes the rows to Scheduler again, after an AWS failure or a manual change; deletes those to be deleted."""
        self._set(request, queryset)

    def _set(self, request: HttpRequest, queryset: QuerySet[PeriodicTask], **values: Any) -> None:
        for row in queryset:
            if row.state == PeriodicTask.State.DELETE:  # saving it would bring it back
                row.delete()
                self._report_after_commit(request, row)
                continue
            for name, value in values.items():
                setattr(row, name, value)
            row.save(update_fields=list(values))
            self.log_change(
                request, row, ", ".join(f"{name} is {value}" for name, value in values.items()) or "written"
            )
            self._report_after_commit(request, row)

    @admin.action(description="Run now", permissions=["change"])
    def run_now(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        """Sends the tasks now, outside their schedules."""
        for row in queryset:
            try:
                result = find(row.task).using(queue_name=row.queue or None).enqueue(*row.args, **row.kwargs)
            except FAULTS as error:
                self.message_user(request, f"{row.name} was not sent: {error}", messages.ERROR)
                continue
            self.log_change(request, row, f"run now: {result.id}")
            where = reverse("admin:nexus_run_change", args=[result.id])
            self.message_user(request, format_html('{} was sent: <a href="{}">{}</a>', row.name, where, result.id))


def _at_rate(wanted: periodic.PeriodicTask) -> bool:
    return wanted.expression.strip().startswith("rate")


def _always(wanted: periodic.PeriodicTask) -> periodic.PeriodicTask:
    """It may have fired before it was paused."""
    return replace(wanted, paused=False)


def _in_zone(wanted: periodic.PeriodicTask, moment: datetime) -> datetime:
    return moment.astimezone(ZoneInfo(wanted.timezone))


def _fired(
    wanted: periodic.PeriodicTask, since: float, times: Sequence[datetime]
) -> tuple[Sequence[RunRecord], Sequence[str]]:
    """The runs that a schedule started since then, newest first, and sentences about what may be missing.

    The times of a `cron` or `at` give its runs' ids, however many other runs the task has. Those of a `rate`, and of an
    earlier expression, are searched for among the task's runs.
    """
    _ = site().deployment
    handles: list[AsyncResult[Any]] = [AsyncResult(wanted.run_id(at)) for at in times[-MOST_FIRINGS:]]
    found = {run.id: run for run in read_records(handles) if run.status != "UNKNOWN"}
    missing = []
    searched = explaining(partial(_searched, wanted, since))
    if isinstance(searched, Problem):
        missing.append(f"{searched.what}.")
    else:
        more, before = searched
        found |= {run.id: run for run in more}
        if before is not None and _at_rate(wanted) and len(found) <= MOST_FIRINGS:
            at = _in_zone(wanted, clock.date(before))
            missing.append(f"The task has too many runs: those before {at:%Y-%m-%d %H:%M} were not searched.")
    if max(len(found), len(times)) > MOST_FIRINGS:
        missing.append(f"Only the newest {MOST_FIRINGS} are shown.")
    return sorted(found.values(), key=lambda run: -(run.sent_at or 0))[:MOST_FIRINGS], missing


def _searched(wanted: periodic.PeriodicTask, since: float) -> tuple[Sequence[RunRecord], float | None]:
    """The task's latest runs that a schedule started, and the time before which none were searched, if so.

    A `rate`'s are searched for until there are enough or `PATIENCE` is exhausted, another schedule's on one page.
    """
    deadline = time.monotonic() + (PATIENCE if _at_rate(wanted) else 0.0)
    found: list[RunRecord] = []
    after = None
    while True:
        page = history.find(history.Query(task=wanted.task, since=since), SEARCHED, after)
        found += [run for run in page.runs if run.id == wanted.run_id(clock.date(run.sent_at or 0))]
        after = page.after
        if after is None:
            return found, None
        if len(found) > MOST_FIRINGS or time.monotonic() >= deadline:
            return found, float(after.partition("/")[0])


@admin.register(Outbox)
class OutboxAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # it takes none at run time
    """Tasks that wait to be sent. One that cannot be sent is corrected and its `fault` cleared, or it is deleted."""

    list_display = ("id", "task", "queue", "fault")
    list_filter = ("task",)
    search_fields = ("id", "task", "fault")
    readonly_fields = ("id", "added")  # a row saved with another id would be another run
    formfield_overrides: ClassVar = {TextField: {"empty_value": None}}  # the sender reads rows whose fault is NULL

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's
        """False: `Outbox.add` adds rows, in a transaction."""
        return False

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> list[str]:  # noqa: ARG002 - Django's
        """Shows the arguments only of a known task without secret ones."""
        try:
            task = find(obj.task) if obj else None
        except LookupError:
            task = None
        return [] if isinstance(task, Task) and not task.secret else ["args"]
