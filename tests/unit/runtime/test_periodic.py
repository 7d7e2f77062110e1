"""Periodic tasks made at run time: the requests to Scheduler, and the runs of its firings."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from nexus import periodic
from nexus.aws import sdk
from nexus.backend.transport import Message
from nexus.client import AsyncResult
from nexus.cron import BadSchedule
from nexus.envelope import FIRED_AT, decode
from nexus.errors import InvalidMessage
from nexus.registry import Implementation, registry
from nexus.settings import settings
from nexus.testing import SentTasks
from tests.support import own_catalogue as catalogue

NOTE: dict[str, Any] = {"user_id": "u-1", "kind": "weekly", "text": "Grüße"}
MONDAYS = "cron(0 9 ? * MON *)"


@pytest.fixture
def group(cloud: None) -> None:
    """The stack's schedule group."""
    boto3.client("scheduler").create_schedule_group(Name=settings().stack)


def fired(body: str, at: str) -> str:
    """The message of a firing, as Scheduler sends it."""
    return body.replace(FIRED_AT, at)


def test_a_periodic_task_can_be_created_read_changed_and_deleted(group: None) -> None:
    start = datetime(2090, 1, 1, tzinfo=UTC)
    made = periodic.create(
        "weekly", catalogue.send_note.s(**NOTE), MONDAYS, timezone="Europe/Berlin", start=start, description="A note"
    )
    assert made.args == NOTE

    found = periodic.get("weekly")
    assert found is not None
    assert (found.task, found.queue, found.args, found.expression) == ("send_note", "default", NOTE, MONDAYS)
    assert (found.timezone, found.start, found.end, found.paused) == ("Europe/Berlin", start, None, False)

    changed = periodic.update("weekly", paused=True, expression="rate(1 day)")
    assert changed.paused
    assert [task.name for task in periodic.every()] == ["weekly"]
    (left,) = periodic.every()
    assert (left.expression, left.paused, left.description, left.start) == ("rate(1 day)", True, "A note", start)

    assert periodic.delete("weekly")
    assert not periodic.delete("weekly")
    assert periodic.get("weekly") is None
    assert list(periodic.every()) == []


def test_put_creates_or_replaces_a_periodic_task(group: None) -> None:
    task = periodic.create("weekly", catalogue.send_note.s(**NOTE), MONDAYS)
    assert periodic.delete("weekly")
    periodic.put(task)
    periodic.put(replace(task, paused=True))
    assert [found.paused for found in periodic.every()] == [True]


def test_a_start_that_has_passed_is_not_given_to_scheduler_again(group: None) -> None:
    task = periodic.create("weekly", catalogue.send_note.s(**NOTE), MONDAYS)
    begun = replace(task, start=datetime(2020, 1, 1, tzinfo=UTC))
    periodic.put(begun)
    found = periodic.get("weekly")
    assert found is not None
    assert found.start is None
    assert "StartDate" in replace(task, start=datetime(2090, 1, 1, tzinfo=UTC)).request()


@pytest.mark.parametrize(
    ("expression", "zone", "times"),
    [
        ("cron(0 9 ? * MON *)", "Europe/Berlin", ["2026-11-30T08:00:00+00:00"]),
        ("at(2026-11-28T12:00:00)", "Asia/Tokyo", ["2026-11-28T03:00:00+00:00"]),
        ("rate(3 days)", "UTC", ["2026-11-30T00:00:00+00:00", "2026-12-03T00:00:00+00:00"]),
    ],
)
def test_a_periodic_task_lists_its_firing_times_unless_it_is_paused(
    expression: str, zone: str, times: list[str]
) -> None:
    after, until = datetime(2026, 11, 27, tzinfo=UTC), datetime(2026, 12, 4, tzinfo=UTC)
    task = periodic.PeriodicTask(name="w", task="t", queue="q", args={}, expression=expression, timezone=zone)
    assert [moment.astimezone(UTC).isoformat() for moment in task.times(after, until)] == times
    assert list(replace(task, paused=True).times(after, until)) == []


def test_a_message_holds_no_character_that_sqs_refuses(environment: None) -> None:
    """Scheduler accepts them, and then can send the message neither to the queue nor to its dead letters."""
    args = {**NOTE, "text": "a\ufffeb\uffff\x00é"}
    task = periodic.PeriodicTask(name="w", task="send_note", queue="default", args=args, expression=MONDAYS)
    body = task.request()["Target"]["Input"]
    assert not {"\ufffe", "\uffff", "\x00"} & set(body)
    assert decode(body.replace(FIRED_AT, "2030-01-31T09:00:00Z")).args == args


def test_an_expression_without_a_time_is_refused() -> None:
    task = periodic.PeriodicTask(name="w", task="t", queue="q", args={}, expression="at(soon)")
    with pytest.raises(BadSchedule, match="write the time as in"):
        next(task.times(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)))


def test_one_off_schedules_are_not_listed_as_periodic_tasks(group: None) -> None:
    catalogue.send_note.apply_async(NOTE, countdown=7200)
    assert list(periodic.every()) == []


def test_another_task_and_queue_can_take_its_place(group: None) -> None:
    periodic.create("mine", catalogue.send_note.s(**NOTE), MONDAYS)
    periodic.update("mine", catalogue.welcome.s(user_id="u-2"))
    found = periodic.get("mine")
    assert found is not None
    assert (found.task, found.queue, found.args) == ("welcome", "welcomes", {"user_id": "u-2"})


def test_each_firing_is_one_run_even_if_it_is_delivered_twice(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Implementation(catalogue.send_note, lambda _args, _run: catalogue.NoteSent())
    monkeypatch.setitem(registry._implementations, "send_note", done)
    task = periodic.PeriodicTask(name="w", task="send_note", queue="default", args=NOTE, expression=MONDAYS)
    body = json.dumps({"v": 1, "fired": ["w", FIRED_AT], "task": "send_note", "args": NOTE})
    times = ["2026-11-23T09:00:00Z", "2026-11-23T09:00:00Z", "2026-11-30T09:00:00Z"]
    for n, at in enumerate(times):
        tasks.transport.send("default", [Message(str(n), fired(body, at), "w")])
    tasks.run()

    first, second = (task.run_id(datetime.fromisoformat(at)) for at in (times[0], times[2]))
    assert first != second
    for run_id, at in ((first, times[0]), (second, times[2])):
        record = AsyncResult[Any](run_id).record()
        assert record.status == "SUCCESS"
        assert record.attempts == 1
        assert record.sent_at == datetime.fromisoformat(at).timestamp()
        assert record.args == NOTE


@pytest.mark.parametrize(
    "body",
    [
        '{"v":1,"fired":["w"],"task":"send_note"}',
        '{"v":1,"fired":["w","<aws.scheduler.scheduled-time>"],"task":"send_note"}',
        '{"v":1,"fired":"w","task":"send_note"}',
        '{"v":1,"id":"x","fired":["w","2026-11-23T09:00:00Z"],"task":"send_note"}',
        '"fired"',
        '{"fired":',
    ],
)
def test_an_invalid_firing_is_refused(body: str) -> None:
    with pytest.raises(InvalidMessage):
        decode(body)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"name": ""}, "name: ''"),
        ({"name": "a b"}, "name: 'a b'"),
        ({"name": "x" * 56}, "1 to 55"),
        ({"timezone": "Mars/Olympus"}, "timezone: 'Mars/Olympus' is not in the IANA database"),
        ({"start": datetime(2030, 1, 1)}, "start: .* has no time zone"),  # noqa: DTZ001
        ({"end": datetime(2030, 1, 1)}, "end: .* has no time zone"),  # noqa: DTZ001
    ],
)
def test_an_invalid_option_of_a_periodic_task_is_refused_with_its_field(
    options: dict[str, Any], fault: str, group: None
) -> None:
    given = {"name": "weekly", **options}
    with pytest.raises(periodic.PeriodicTaskError, match=fault):
        periodic.create(given.pop("name"), catalogue.send_note.s(**NOTE), MONDAYS, **given)


def test_a_message_that_does_not_fit_into_a_schedule_is_refused(group: None) -> None:
    with pytest.raises(
        periodic.PeriodicTaskError, match=r"^args: 256,\d{3} bytes as a message, over the limit of 256,000"
    ):
        periodic.create("weekly", catalogue.send_note.s(**{**NOTE, "text": "x" * 256_000}), MONDAYS)
    assert not list(periodic.every())


def test_arguments_are_only_changed_by_a_signature(group: None) -> None:
    periodic.create("weekly", catalogue.send_note.s(**NOTE), MONDAYS)
    with pytest.raises(periodic.PeriodicTaskError, match="args: pass a signature, whose arguments are checked"):
        periodic.update("weekly", args={"no_such": 1})
    assert [task.args for task in periodic.every()] == [NOTE]


def test_create_refuses_an_existing_name_and_update_an_unknown_one(group: None) -> None:
    periodic.create("weekly", catalogue.send_note.s(**NOTE), MONDAYS)
    with pytest.raises(periodic.PeriodicTaskError, match="a periodic task 'weekly' already exists"):
        periodic.create("weekly", catalogue.send_note.s(**NOTE), MONDAYS)
    with pytest.raises(periodic.PeriodicTaskError, match="there is no periodic task 'daily'"):
        periodic.update("daily", paused=True)


def test_options_of_a_single_send_are_refused(group: None) -> None:
    with pytest.raises(periodic.PeriodicTaskError, match="countdown"):
        periodic.create("weekly", catalogue.send_note.s(**NOTE).set(countdown=5), MONDAYS)


def test_schedulers_message_about_an_expression_is_in_the_error(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = sdk.client("scheduler")

    def refuse(**_: Any) -> None:
        error: Any = {"Error": {"Code": "ValidationException", "Message": "Invalid Schedule Expression rate(0 days)."}}
        raise scheduler.exceptions.ValidationException(error, "CreateSchedule")

    monkeypatch.setattr(scheduler, "create_schedule", refuse)
    with pytest.raises(periodic.PeriodicTaskError, match="Invalid Schedule Expression"):
        periodic.create("weekly", catalogue.send_note.s(**NOTE), "rate(0 days)")
