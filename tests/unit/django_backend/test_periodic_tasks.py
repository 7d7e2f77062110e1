"""Periodic tasks as rows: made in the admin, kept in step with Scheduler, whatever AWS does meanwhile."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from math import inf
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from django.contrib.messages import get_messages
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.test.utils import override_settings
from django.utils import timezone

from nexus import clock, periodic
from nexus.aws.sdk import client as aws_client
from nexus.backend.transport import queue_url
from nexus.client import AsyncResult
from nexus.django.backend import runtime_task
from nexus.django.models import PeriodicTask
from nexus.django.periodic import keep
from nexus.envelope import FIRED_AT
from nexus.settings import settings
from ops import history
from ops.django_admin import admin
from tests.support.django_admin import World, browser, run_everything, text
from tests.support.django_project import tasks as project

ROWS = "/admin/nexus/periodictask/"
ADD = project.add.module_path
MONDAYS = "cron(0 9 ? * MON *)"


@pytest.fixture(scope="module")
def deployment(deployment: None) -> None:
    boto3.client("scheduler").create_schedule_group(Name=settings().stack)


@pytest.fixture(autouse=True)
def none_left(world: World) -> None:
    for task in periodic.every():
        periodic.delete(task.name)


def form(**changes: Any) -> dict[str, Any]:
    """The fields of the admin's form."""
    usual = {"name": "weekly", "task": ADD, "queue": "", "args": "[1]", "kwargs": '{"b": 2}', "expression": MONDAYS}
    return {
        **usual,
        "timezone": "Europe/Berlin",
        "description": "",
        "start_0": "",
        "start_1": "",
        "end_0": "",
        "end_1": "",
        **changes,
    }


def row(**changes: Any) -> PeriodicTask:
    made = PeriodicTask(**{"name": "weekly", "task": ADD, "args": [1], "expression": MONDAYS, **changes})
    made.save()
    return made


def state(name: str = "weekly") -> tuple[str, str]:
    found = PeriodicTask.objects.get(pk=name)
    return found.state, found.fault


def fire(made: PeriodicTask, at: datetime) -> str:
    """Sends what Scheduler sends at this time, runs it, and returns the run's id."""
    target = made.wanted().request()["Target"]["Input"].replace(FIRED_AT, f"{at:%Y-%m-%dT%H:%M:%SZ}")
    aws_client("sqs").send_message(QueueUrl=queue_url(settings().queue_name("default")), MessageBody=target)
    run_everything()
    return made.wanted().run_id(at)


def said(answer: Any) -> list[str]:
    """What the admin says about Scheduler."""
    return [str(one) for one in get_messages(answer.wsgi_request) if "in Scheduler" in str(one)]


class Away:
    """Scheduler's client while AWS cannot be reached."""

    def __getattr__(self, name: str) -> Any:
        if name == "exceptions":
            return aws_client("scheduler").exceptions
        raise EndpointConnectionError(endpoint_url="https://scheduler")


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as patch:
        patch.setattr(periodic, "client", lambda _: Away())
        yield patch


def test_a_row_made_in_the_admin_is_a_schedule_and_follows_its_changes() -> None:
    person = browser()
    start = datetime(2090, 1, 1, 8, 0, tzinfo=UTC)
    answer = person.post(f"{ROWS}add/", form(start_0="2090-01-01", start_1="08:00", description="A sum"))
    assert answer.status_code == 302, text(answer)
    there = periodic.get("weekly")
    assert there is not None
    assert (there.task, there.queue, there.args) == (ADD, "default", {"args": [1], "kwargs": {"b": 2}})
    assert (there.expression, there.timezone, there.start, there.description) == (
        MONDAYS,
        "Europe/Berlin",
        start,
        "A sum",
    )
    assert state() == ("kept", "")

    change = form(expression="rate(5 minutes)", queue="emails", paused="on")
    assert person.post(f"{ROWS}weekly/change/", change).status_code == 302
    there = periodic.get("weekly")
    assert there is not None
    assert (there.expression, there.queue, there.paused, there.start) == ("rate(5 minutes)", "emails", True, None)

    person.post(f"{ROWS}weekly/delete/", {"post": "yes"})
    assert periodic.get("weekly") is None
    assert not PeriodicTask.objects.exists()


def test_the_admin_switches_and_deletes_several() -> None:
    person = browser()
    for name in ("a", "b"):
        row(name=name)
    person.post(ROWS, {"action": "disable", "_selected_action": ["a", "b"]})
    assert [task.paused for task in periodic.every()] == [True, True]
    person.post(ROWS, {"action": "enable", "_selected_action": ["b"]})
    assert {task.name: task.paused for task in periodic.every()} == {"a": True, "b": False}
    person.post(ROWS, {"action": "delete_selected", "_selected_action": ["a", "b"], "post": "yes"})
    assert list(periodic.every()) == []
    assert not PeriodicTask.objects.exists()


def test_run_now_sends_the_task_and_firings_are_listed_as_its_history() -> None:
    person = browser()
    made = row(kwargs={"b": 5})
    listed = person.get(ROWS).content.decode()
    assert 'id="changelist-form"' in listed  # which this script sends once at a double click
    assert 'nexus_admin/once.js"' in listed
    answer = person.post(ROWS, {"action": "run_now", "_selected_action": ["weekly"]}, follow=True)
    assert "was sent" in text(answer)
    run_everything()
    assert project.calls == [(1, 5)]

    fired = fire(made, timezone.now().replace(microsecond=0))
    assert AsyncResult[Any](fired).status == "SUCCESS"
    page = text(person.get(f"{ROWS}weekly/change/"))
    history = set(re.findall(r"/admin/nexus/run/([^/]+)/change/", page))
    assert history == {fired}, "what was not fired by it is not in its history"
    assert "Mon " in page, "the next times"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"expression": "cron(0 9 * * MON *)"}, "exactly one of day-of-month and day-of-week"),
        ({"expression": "at(tomorrow)"}, "write the time as in"),
        ({"expression": "every day", "paused": "on"}, "is not of the form cron"),
        ({"name": "a name"}, "letters, digits"),
        ({"args": "{}"}, "args must be a list"),
        ({"queue": "nowhere"}, "is not valid for backend"),
        ({"task": "os.system"}, "Select a valid choice"),
        ({"task": project.secretive.module_path}, "Select a valid choice"),
        ({"timezone": "Europe/Atlantis"}, "Select a valid choice"),
        ({"expression": "rate(9999999999 days)"}, "times are out of range"),
        ({"expression": "at(9999-12-31T23:59:59)", "timezone": "America/New_York"}, "times are out of range"),
    ],
)  # fmt: skip
def test_the_form_refuses_a_task_that_could_not_be_sent(changes: dict[str, Any], fault: str) -> None:
    assert fault in text(browser().post(f"{ROWS}add/", form(**changes)))
    assert list(periodic.every()) == []


def test_secret_arguments_are_not_kept_in_the_table() -> None:
    with pytest.raises(ValidationError, match="secret"):
        PeriodicTask(name="w", task=project.secretive.module_path, args=["a", "b"], expression=MONDAYS).full_clean()


def test_a_rolled_back_row_writes_nothing() -> None:
    with transaction.atomic():
        row()
        transaction.set_rollback(True)
    assert list(periodic.every()) == []


def test_a_row_saved_while_aws_is_unreachable_keeps_the_reason_until_the_command_repairs_it(
    away: pytest.MonkeyPatch,
) -> None:
    person = browser()
    answer = person.post(f"{ROWS}add/", form())
    assert answer.status_code == 302
    (message,) = said(answer)
    assert "weekly is to be written in Scheduler: EndpointConnectionError" in message
    assert state()[0] == "write"
    assert "EndpointConnectionError" in state()[1]
    with pytest.raises(CommandError, match="Could not connect"):
        call_command("nexus_periodic")
    assert "Could not connect" in text(person.get(f"{ROWS}weekly/change/"))

    away.undo()
    out = StringIO()
    call_command("nexus_periodic", stdout=out)
    assert out.getvalue() == "written: weekly\n"
    assert state() == ("kept", "")
    assert periodic.get("weekly") is not None


def test_a_deletion_while_aws_is_unreachable_is_made_later_by_the_command(away: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as there:
        there.setattr(periodic, "client", aws_client)
        made = row()
    made.delete()
    assert state()[0] == "delete"
    away.undo()
    assert periodic.get("weekly") is not None
    call_command("nexus_periodic", stdout=StringIO())
    assert periodic.get("weekly") is None
    assert not PeriodicTask.objects.exists()


@pytest.mark.parametrize("action", ["write", "enable", "disable"])
def test_no_action_restores_a_deleted_row(action: str, away: pytest.MonkeyPatch) -> None:
    away.setattr(periodic, "client", aws_client)
    made = row()
    away.setattr(periodic, "client", lambda _: Away())
    made.delete()
    person = browser()
    (message,) = said(person.post(ROWS, {"action": action, "_selected_action": ["weekly"]}))
    assert "weekly is to be deleted in Scheduler: EndpointConnectionError" in message
    away.setattr(periodic, "client", aws_client)
    assert said(browser().post(ROWS, {"action": action, "_selected_action": ["weekly"]})) == []
    assert periodic.get("weekly") is None
    assert not PeriodicTask.objects.exists()


def test_a_schedule_changed_by_hand_is_restored_and_an_unknown_one_only_listed() -> None:
    row(start=timezone.now() - timedelta(days=30))
    row(name="same", expression="rate(1 day)")
    periodic.update("weekly", paused=True)
    periodic.create("stranger", runtime_task(project.add).signature([1], {}), MONDAYS)
    out = StringIO()
    call_command("nexus_periodic", stdout=out)
    assert out.getvalue() == "written: weekly\nin Scheduler, but not in the table: stranger\n"
    there = periodic.get("weekly")
    assert there is not None
    assert not there.paused
    assert periodic.get("stranger") is not None
    PeriodicTask.objects.filter(pk="same").update(expression="rate(2 days)")
    call_command("nexus_periodic", stdout=StringIO())
    changed = periodic.get("same")
    assert changed is not None
    assert changed.expression == "rate(2 days)"


def test_a_removed_task_is_an_error_only_of_its_own_row() -> None:
    row(name="gone", task="tests.support.django_project.tasks.nobody")
    row()
    assert state("gone")[0] == "write"
    with pytest.raises(CommandError, match=r"gone: LookupError: .*nobody"):
        call_command("nexus_periodic", stdout=StringIO())
    assert [task.name for task in periodic.every()] == ["weekly"]


def test_the_schedule_is_written_from_the_row_as_it_is_at_the_commit() -> None:
    with transaction.atomic():
        row()
        PeriodicTask.objects.filter(pk="weekly").update(args=[9])
    there = periodic.get("weekly")
    assert there is not None
    assert there.args == {"args": [9]}
    assert keep("nobody", "default") == ""


def test_a_firing_carries_the_rows_arguments() -> None:
    wanted = row(kwargs={"b": 3}).wanted()
    body = json.loads(wanted.request()["Target"]["Input"])
    assert body["args"] == {"args": [1], "kwargs": {"b": 3}}


# --- the page's next times and firings ---


@pytest.fixture
def leap_day() -> Iterator[datetime]:
    """It is noon on 29 February 2028, a Tuesday."""
    now = datetime(2028, 2, 29, 12, 0, tzinfo=UTC)
    with clock.use_everywhere(clock.FrozenClock(now.timestamp())):
        yield now


def page() -> str:
    return text(browser().get(f"{ROWS}weekly/change/"))


def test_a_rows_next_times_are_shown_on_leap_day_too(leap_day: datetime) -> None:
    row(timezone="Europe/Berlin")
    assert "Mon 2028-03-06 09:00, Mon 2028-03-13 09:00" in page()


def test_the_next_times_of_a_rate_are_shown_only_from_its_start(leap_day: datetime) -> None:
    made = row(expression="rate(7 days)")
    assert "without a start, Scheduler counts a rate from when it accepts the schedule" in page()
    made.start = leap_day + timedelta(hours=1)
    made.save()
    assert "Tue 2028-02-29 13:00, Tue 2028-03-07 13:00" in page()


def test_an_empty_form_has_no_times_and_no_firings() -> None:
    empty = text(browser().get(f"{ROWS}add/"))
    assert "is not in one of the modules" not in empty


def test_the_runs_of_a_schedule_are_filtered_by_its_name() -> None:
    made, now = row(), timezone.now().replace(microsecond=0)
    row(name="daily")
    fired = fire(made, now)
    sent = project.add.enqueue(1).id
    runs = "/admin/nexus/run/"
    page = text(browser().get(runs))
    assert fired in page
    assert sent in page
    assert "?schedule=weekly" in page
    for asked in ({"schedule": "weekly"}, {"q": "schedule:weekly"}):
        found = text(browser().get(runs, asked))
        assert fired in found
        assert sent not in found
    assert fired not in text(browser().get(runs, {"schedule": "daily"}))


def test_a_firing_is_found_however_many_runs_of_the_task_others_send(
    leap_day: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "SEARCHED", 2)
    fired = fire(row(timezone="Europe/Berlin"), leap_day - timedelta(days=1, hours=4))
    PeriodicTask.objects.update(paused=True)
    for n in range(3):
        project.add.enqueue(n)
    shown = page()
    assert f'/admin/nexus/run/{fired}/change/">2028-02-28 09:00</a> SUCCESS' in shown, "in the schedule's own zone"
    assert shown.count('/change/">2028-') == 1


def test_a_firing_is_shown_without_a_run_history(leap_day: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_kept(*_: Any) -> Any:
        raise history.NotKept("The run history is not kept here")

    monkeypatch.setattr(history, "find", not_kept)
    fired = fire(row(timezone="Europe/Berlin"), leap_day - timedelta(days=1, hours=4))
    shown = page()
    assert fired in shown
    assert "The run history is not kept here." in shown


def test_only_the_newest_of_many_firings_are_shown(leap_day: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "MOST_FIRINGS", 2)
    made = row(expression="cron(* * * * ? *)")
    first, second, third = (fire(made, leap_day - timedelta(minutes=ago)) for ago in (2, 1, 0))
    shown = page()
    assert shown.index(third) < shown.index(second)
    assert first not in shown
    assert "Only the newest 2 are shown." in shown


@pytest.mark.parametrize(("patience", "found"), [(0.0, False), (inf, True)])
def test_a_rates_firings_are_searched_for_among_the_tasks_runs(
    patience: float, found: bool, leap_day: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "SEARCHED", 2)
    monkeypatch.setattr(admin, "PATIENCE", patience)
    fired = fire(row(expression="rate(7 days)"), leap_day - timedelta(days=3))
    for n in range(3):
        project.add.enqueue(n)
    shown = page()
    assert (fired in shown) == found
    assert ("those before 2028-02-29 12:00 were not searched" in shown) != found


# --- the project's database settings ---


@pytest.mark.parametrize("expression", [MONDAYS, "rate(1 day)", "at(2090-01-31T09:00:00)"])
def test_without_use_tz_start_and_end_are_in_the_projects_zone(expression: str) -> None:
    bounds = {"start_0": "2090-01-01", "start_1": "08:00", "end_0": "2090-07-01", "end_1": "08:00"}
    with override_settings(USE_TZ=False, TIME_ZONE="Europe/Berlin"):
        person = browser()
        answer = person.post(f"{ROWS}add/", form(expression=expression, **bounds))
        assert answer.status_code == 302, text(answer)
        there = periodic.get("weekly")
        assert there is not None
        assert (there.start, there.end) == (
            datetime(2090, 1, 1, 7, 0, tzinfo=UTC),
            datetime(2090, 7, 1, 6, 0, tzinfo=UTC),
        )
        assert state() == ("kept", "")
        out = StringIO()
        call_command("nexus_periodic", stdout=out)
        assert out.getvalue() == "", "it is in step"
        assert " 2090-01-" in text(person.get(f"{ROWS}weekly/change/"))
        with timezone.override("Asia/Tokyo"):
            assert PeriodicTask.objects.get().wanted().start == there.start


@pytest.mark.parametrize("expression", [MONDAYS, "rate(1 day)", "at(2090-01-31T09:00:00)"])
def test_without_use_tz_a_row_needs_no_start(expression: str) -> None:
    with override_settings(USE_TZ=False, TIME_ZONE="Europe/Berlin"):
        assert browser().post(f"{ROWS}add/", form(expression=expression)).status_code == 302
        assert state() == ("kept", "")


def everything_in_the_admin(away: pytest.MonkeyPatch) -> None:
    """Adds, switches, changes and deletes a row; then adds another while AWS is away."""
    away.setattr(periodic, "client", aws_client)
    person = browser()
    answer = person.post(f"{ROWS}add/", form())
    assert (answer.status_code, said(answer)) == (302, [])
    answer = person.post(ROWS, {"action": "disable", "_selected_action": ["weekly"]})
    assert (answer.status_code, said(answer)) == (302, [])
    assert [task.paused for task in periodic.every()] == [True]
    answer = person.post(f"{ROWS}weekly/change/", form(expression="rate(5 minutes)"))
    assert (answer.status_code, said(answer)) == (302, [])
    assert [task.expression for task in periodic.every()] == ["rate(5 minutes)"]
    answer = person.post(f"{ROWS}weekly/delete/", {"post": "yes"})
    assert (answer.status_code, said(answer)) == (302, [])
    assert list(periodic.every()) == []
    assert not PeriodicTask.objects.exists()

    away.setattr(periodic, "client", lambda _: Away())
    answer = person.post(f"{ROWS}add/", form())
    (message,) = said(answer)
    assert "weekly is to be written in Scheduler: EndpointConnectionError" in message
    away.setattr(periodic, "client", aws_client)


def test_rows_may_be_in_another_database(elsewhere: None, away: pytest.MonkeyPatch) -> None:
    everything_in_the_admin(away)
    assert PeriodicTask.objects.using("other").count() == 1
    assert not PeriodicTask.objects.using("default").exists()
    out = StringIO()
    call_command("nexus_periodic", stdout=out)
    assert out.getvalue() == "written: weekly\n"
    PeriodicTask.objects.create(name="b", task=ADD, args=[1], expression=MONDAYS).delete(using="other")
    assert [task.name for task in periodic.every()] == ["weekly"]


def test_rows_may_be_read_from_a_replica(replica: None, away: pytest.MonkeyPatch) -> None:
    everything_in_the_admin(away)
    PeriodicTask.objects.get().delete()
    assert not PeriodicTask.objects.exists()


def test_each_request_may_be_a_transaction(away: pytest.MonkeyPatch) -> None:
    away.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    everything_in_the_admin(away)
