"""The admin's pages about runs, dead letters and schedules: on moto's tables and queues, with the real worker."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from django.contrib.admin.models import LogEntry
from django.contrib.staticfiles import finders
from django.test import Client
from django.test.utils import override_settings

from nexus import clock
from nexus.backend import backend
from nexus.backend.transport import DeadLetter
from nexus.client import AsyncResult
from nexus.django.models import Outbox
from nexus.settings import settings
from nexus.tasks import NoArguments, Result, Schedule, Task
from ops import audit, catalogue, dead_letters, history, logs, retrying, schedules
from ops.health import RuleState
from tests.support.django_admin import EVIL, World, browser, run_everything, text
from tests.support.django_project import tasks as project
from tests.support.patience import next_millisecond

RUNS, LETTERS, RULES = "/admin/nexus/run/", "/admin/nexus/deadletter/", "/admin/nexus/schedule/"


def given(response: Any) -> Any:
    """The context of a page's template."""
    return response.context_data


def failed_run(message: str = "it broke") -> str:
    result = project.fail.enqueue(message)
    run_everything()
    return str(result.id)


# --- runs ---


def test_runs_are_listed_searched_and_filtered(world: World) -> None:
    failed = failed_run(f"no {EVIL}")
    waiting = project.send_mail.enqueue("ada").id
    person = browser()

    everything = text(person.get(RUNS))
    assert failed in everything
    assert waiting in everything
    assert EVIL not in everything, "text of a task is escaped"
    assert "&lt;script&gt;" in everything

    assert waiting not in text(person.get(RUNS, {"status": "FAILURE"}))
    assert failed not in text(person.get(RUNS, {"queue": "emails"}))
    found = text(person.get(RUNS, {"q": "task:tests.support.django_project.tasks.fail status:failure", "since": "1h"}))
    assert failed in found
    assert waiting not in found
    assert waiting in text(person.get(RUNS, {"q": "args='[\"ada\"]'"}))
    assert "is not a status" in text(person.get(RUNS, {"q": "status:gone"}))
    assert person.get(RUNS, {"q": failed}).headers["Location"] == f"{RUNS}{failed}/change/"


def test_older_runs_are_on_the_next_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.django_admin.admin.PAGE", 2)
    ids = [project.add.enqueue(n).id for n in range(3)]
    person = browser()
    first = person.get(RUNS, {"queue": "default"})
    assert [run["id"] for run in given(first)["runs"]] == [ids[2], ids[1]]
    second = person.get(RUNS + given(first)["next"])
    assert [run["id"] for run in given(second)["runs"]] == [ids[0]]


def test_a_run_shows_its_arguments_traceback_and_log(world: World) -> None:
    failed = failed_run(f"no {EVIL}")
    page = text(browser().get(f"{RUNS}{failed}/change/"))
    assert "Broken" in page
    assert "in fail" in page, "the traceback"
    assert "it wrote" in page, "the log"
    assert "fail status" not in page
    assert EVIL not in page


@pytest.mark.parametrize("use_tz", [True, False])
def test_times_are_in_the_projects_zone(use_tz: bool, world: World) -> None:
    now = datetime(2030, 7, 1, 20, 0, tzinfo=UTC)
    with (
        clock.use_everywhere(clock.FrozenClock(now.timestamp())),
        override_settings(USE_TZ=use_tz, TIME_ZONE="Asia/Tokyo"),
    ):
        failed = failed_run()
        person = browser()
        assert "<time>07-02 05:00:00</time>" in text(person.get(RUNS))
        assert "<time>07-02 05:00:00</time>" in text(person.get(LETTERS))
        assert text(person.get(f"{RUNS}{failed}/change/")).count("2030-07-02 05:00:00") == 3


def test_a_log_that_cannot_be_read_leaves_the_rest_of_the_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "FilterLogEvents")

    failed, waits = failed_run(), project.add.enqueue(1).id
    monkeypatch.setattr(logs, "of_run", denied)
    monkeypatch.setattr("ops.waiting.reasons", denied)
    page = text(browser().get(f"{RUNS}{failed}/change/"))
    assert "FilterLogEvents was denied" in page
    assert "in fail" in page
    page = text(browser().get(f"{RUNS}{waits}/change/"))
    assert page.count("FilterLogEvents was denied") == 2
    assert "PENDING" in page


def test_an_unknown_run_and_an_invalid_id_get_a_message(world: World) -> None:
    person = browser()
    assert "No run has this id" in text(person.get(f"{RUNS}018f0000-0000-7000-8000-000000000000/change/"))
    assert "is not a run id" in text(person.get(f"{RUNS}nonsense/change/"))


def test_a_retry_asks_first_and_is_noted(world: World) -> None:
    failed = failed_run()
    person = browser()
    question = person.post(f"{RUNS}do/retry/", {"id": failed})
    assert "Send 1 run of nexus-test again, with all attempts?" in text(question)
    page = question.content.decode()
    assert '<form method="post" data-once>' in page
    assert 'nexus_admin/once.js"' in page
    assert finders.find("nexus_admin/once.js")
    assert AsyncResult[Any](failed).status == "FAILURE"

    done = person.post(f"{RUNS}do/retry/", {"id": failed, "confirmed": "1"}, follow=True)
    assert "1 sent again." in text(done)
    assert AsyncResult[Any](failed).status == "PENDING"
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == (failed, "retry: 1 sent again.")
    assert [(one.what, one.who) for one in audit.entries()] == [("retry", f"{entry.user} in Django's admin")]


def test_several_runs_are_revoked_at_once(world: World) -> None:
    ids = [project.add.enqueue(n).id for n in range(2)]
    person = browser()
    person.post(f"{RUNS}do/revoke/", {"id": ids, "confirmed": "1"})
    assert [AsyncResult[Any](one).status for one in ids] == ["REVOKED", "REVOKED"]
    assert {entry.object_id for entry in LogEntry.objects.all()} == set(ids)


def test_an_impossible_action_shows_its_reason(world: World) -> None:
    done = project.add.enqueue(1).id
    run_everything()
    answer = browser().post(f"{RUNS}do/revoke/", {"id": done, "confirmed": "1"}, follow=True)
    assert "0 revoked" in text(answer)
    assert "All of these runs have ended" in text(browser().post(f"{RUNS}do/revoke/", {"id": done}, follow=True))


def test_prod_requires_its_name_to_be_typed(world: World) -> None:
    world.stage = "prod"
    failed = failed_run()
    person = browser()
    assert "Type nexus-test to continue" in text(person.post(f"{RUNS}do/retry/", {"id": failed}))
    person.post(f"{RUNS}do/retry/", {"id": failed, "confirmed": "1", "stack": "another"})
    assert AsyncResult[Any](failed).status == "FAILURE"
    person.post(f"{RUNS}do/retry/", {"id": failed, "confirmed": "1", "stack": "nexus-test"})
    assert AsyncResult[Any](failed).status == "PENDING"


# --- permissions ---


def test_each_page_and_action_requires_its_django_permission(world: World) -> None:
    failed = failed_run()
    viewer = browser("view_run", "view_deadletter")
    assert "Retry" not in text(viewer.get(f"{RUNS}{failed}/change/"))
    assert "Drop" not in text(viewer.get(LETTERS))
    for address in (f"{RUNS}do/retry/", f"{LETTERS}do/drop-letters/"):
        assert viewer.post(address, {"id": failed, "confirmed": "1"}).status_code == 403
    changer = browser("view_deadletter", "change_deadletter")
    assert "Retry" in text(changer.get(LETTERS))
    assert "Drop" not in text(changer.get(LETTERS))
    assert changer.get(RUNS).status_code == 403
    assert Client().get(RUNS).status_code == 302, "to the login"
    assert AsyncResult[Any](failed).status == "FAILURE"


def test_an_action_requires_a_post_with_a_csrf_token(world: World) -> None:
    failed = failed_run()
    person = browser(enforce_csrf_checks=True)
    assert person.post(f"{RUNS}do/retry/", {"id": failed, "confirmed": "1"}).status_code == 403
    assert person.get(f"{RUNS}do/retry/").status_code == 405
    assert person.get(f"{RUNS}{failed}/change/").cookies["csrftoken"]
    token = person.cookies["csrftoken"].value
    form = {"id": failed, "confirmed": "1", "csrfmiddlewaretoken": token}
    assert person.post(f"{RUNS}do/retry/", form).status_code == 302
    assert AsyncResult[Any](failed).status == "PENDING"


def test_a_page_has_only_its_own_actions_and_fields(world: World) -> None:
    person = browser()
    failed = failed_run()
    answer = person.post(f"{RUNS}do/retry/", {"query": "status:failure", "confirmed": "1"}, follow=True)
    assert "Which runs?" in text(answer)
    assert AsyncResult[Any](failed).status == "FAILURE"
    for action in ("pause", "drop-letters", "nothing"):
        assert person.post(f"{RUNS}do/{action}/", {"queue": "default"}).status_code == 404


def test_the_admins_index_links_to_each_page(world: World) -> None:
    page = text(browser().get("/admin/"))
    for address in (RUNS, LETTERS, RULES, "/admin/nexus/periodictask/", "/admin/nexus/outbox/"):
        assert f'href="{address}"' in page
    assert f"{RUNS}add/" not in page


# --- dead letters ---


def test_dead_letters_are_grouped_by_error_and_sent_again(world: World) -> None:
    failed_run(f"first {EVIL}")
    failed_run("second")
    project.no_json.enqueue()
    run_everything()
    person = browser()
    groups = given(person.get(LETTERS))["groups"]
    assert {(one["group"].error, one["group"].count) for one in groups} == {("Broken", 2), ("TypeError", 1)}

    group = {"queue": "default", "task": project.fail.module_path, "error": "Broken"}
    page = text(person.get(LETTERS, group))
    assert "second" in page
    assert EVIL not in page
    assert "Send 2 dead letters of default" in text(person.post(f"{LETTERS}do/retry-letters/", group))
    person.post(f"{LETTERS}do/retry-letters/", {**group, "confirmed": "1"})
    assert dead_letters.counts(["default"]) == {"default": 1}


@pytest.mark.usefixtures("world")
def test_a_dead_letter_without_a_run_shows_its_message_and_no_link() -> None:
    backend().transport.dead_letter("default", DeadLetter("no envelope", {"ErrorType": "InvalidMessage"}, "x"))
    (letter,) = dead_letters.read("default", dead_letters.Filter())
    page = text(browser().get(LETTERS, {"queue": "default", "task": "", "error": "InvalidMessage"}))
    assert "no envelope" in page
    assert f"{RUNS}{letter.id}" not in page


def test_dead_letters_are_dropped(world: World) -> None:
    failed_run()
    group = {"queue": "default", "task": project.fail.module_path, "error": "Broken"}
    person = browser()
    asked = text(person.post(f"{LETTERS}do/drop-letters/", group))
    (until,) = re.findall('name="until" value="([^"]+)"', asked)
    next_millisecond()
    late = failed_run()
    person.post(f"{LETTERS}do/drop-letters/", {**group, "until": until, "confirmed": "1"})
    assert [letter.id for letter in dead_letters.read("default", dead_letters.Filter())] == [late]
    person.post(f"{LETTERS}do/drop-letters/", {**group, "confirmed": "1"})
    assert dead_letters.counts(["default"]) == {"default": 0}


def test_more_dead_letters_than_a_page_handles_are_left_to_the_command(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pages", "admin"):
        monkeypatch.setattr(f"ops.django_admin.{module}.MOST_LETTERS", 1)
    failed = failed_run()
    failed_run()
    person = browser()
    assert "This page reads 1 of them" in text(person.get(LETTERS))
    answer = person.post(f"{RUNS}do/retry/", {"id": failed, "confirmed": "1"}, follow=True)
    assert "too many for a page" in text(answer)
    assert dead_letters.counts(["default"]) == {"default": 2}

    # A group is in no queue: its failed members' queues count.
    group = AsyncResult[Any]("0193a000-0000-7000-8000-00000000000a")
    members = retrying.failed([failed])
    monkeypatch.setattr(retrying, "failed", lambda ids: members if ids == [group.id] else pytest.fail(str(ids)))
    answer = person.post(f"{RUNS}do/retry/", {"id": group.id, "confirmed": "1"}, follow=True)
    assert "too many for a page" in text(answer)


def test_secret_arguments_are_on_no_page(world: World) -> None:
    failed = project.secretive.enqueue("nobody", "xyzzy", "plugh").id
    run_everything()
    run_id = Outbox.add(project.secretive, "ada", password="xyzzy")
    Outbox.objects.create(id="gone", task="gone.task", args='{"args": ["xyzzy"]}', added=0.0)
    plain = Outbox.add(project.add, 41)
    person = browser()
    group = {"queue": "default", "task": project.secretive.module_path, "error": "Broken"}
    outbox = "/admin/nexus/outbox"
    for address, data in (
        (RUNS, {}),
        (f"{RUNS}{failed}/change/", {}),
        (LETTERS, group),
        (f"{outbox}/{run_id}/change/", {}),
        (f"{outbox}/gone/change/", {}),
    ):
        page = text(person.get(address, data))
        assert "xyzzy" not in page
        assert "plugh" not in page
    assert "41" in text(person.get(f"{outbox}/{plain}/change/"))
    assert "(secret)" in text(person.get(f"{RUNS}{failed}/change/"))


# --- the template's schedules ---


def test_rules_are_listed_switched_run_and_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    nightly = Task(
        name="clean_up",
        queue="default",
        arguments=NoArguments,
        result=Result,
        summary="Runs by night",
        schedule=Schedule("cron(0 3 * * ? *)", "every night"),
    )
    calls: list[Any] = []
    rule = RuleState("clean_up", "cron(0 3 * * ? *)", on=True)
    run_id = project.add.enqueue(1).id
    monkeypatch.setattr(catalogue, "tasks", lambda: {"clean_up": nightly})
    monkeypatch.setattr(schedules, "rule_states", lambda: [rule])
    monkeypatch.setattr(schedules, "history", lambda *_: [(run_id, 1.8e9)])
    monkeypatch.setattr(schedules, "expression", lambda _: rule.expression)
    monkeypatch.setattr(schedules, "switch", lambda task, on: calls.append((task, on)))
    monkeypatch.setattr(schedules, "change", lambda task, to: calls.append((task, to)))
    person = browser()
    assert "every night" in text(person.get(RULES))
    page = text(person.get(f"{RULES}clean_up/change/"))
    assert run_id in page
    assert "has no schedule" in text(person.get(f"{RULES}weekly/change/"))

    person.post(f"{RULES}do/disable/", {"task": "clean_up", "confirmed": "1"})
    change = {"task": "clean_up", "expression": "cron(0 4 * * ? *)"}
    assert "04:00 UTC" in text(person.post(f"{RULES}do/change/", change))
    person.post(f"{RULES}do/change/", {**change, "confirmed": "1"})
    assert calls == [("clean_up", False), ("clean_up", "cron(0 4 * * ? *)")]
    entry = LogEntry.objects.latest("pk")
    assert entry.object_id == "clean_up"
    assert run_id in text(person.get(str(entry.get_admin_url()))), "the link of the history"
    done = text(person.post(f"{RULES}do/run/", {"task": "clean_up", "confirmed": "1"}, follow=True))
    assert "Sent: " in done


# --- AWS out of reach, and what the pages do not change ---


def test_an_unreachable_aws_gets_a_message_and_503(world: World) -> None:
    world.error = EndpointConnectionError(endpoint_url="https://nowhere")
    person = browser()
    for address in (RUNS, LETTERS, RULES, f"{RUNS}018f0000-0000-7000-8000-000000000000/change/"):
        assert "AWS does not respond" in text(person.get(address), 503)
    answer = person.post(f"{RUNS}do/retry/", {"id": "x", "confirmed": "1"}, follow=True)
    assert "AWS does not respond" in text(answer, 503)
    assert "Periodic tasks" in text(person.get("/admin/"))


def test_an_unexpected_error_is_raised_and_not_shown_as_a_message(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "find", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        browser().get(RUNS)


def test_a_project_without_a_stack_gets_a_message(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_BACKEND", "nexus.eager")
    settings.cache_clear()
    assert "Tasks run in this process" in text(browser().get(RUNS))


def test_a_page_changes_no_variable_of_the_web_server(world: World) -> None:
    before = dict(os.environ)
    text(browser().get(RUNS))
    assert dict(os.environ) == before


@override_settings(NEXUS={"STACK": "test", "WEB": "http://127.0.0.1:8765/"})
def test_each_page_links_to_the_web_page(world: World) -> None:
    failed = failed_run()
    person = browser()
    assert f'href="http://127.0.0.1:8765/runs/{failed}"' in text(person.get(f"{RUNS}{failed}/change/"))
    assert 'href="http://127.0.0.1:8765/dead-letters"' in text(person.get(LETTERS))


def test_the_pages_need_none_of_the_commands_packages() -> None:
    """A web server installs Django and the client, and has the checkout beside them."""
    program = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("typer", "rich", "yaml", "jinja2", "starlette", "uvicorn"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Without())
import django

django.setup()
from ops.django_admin import admin, pages

pages.site()
"""
    subprocess.run(
        [sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
