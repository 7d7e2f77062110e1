"""`nexus web`: who may ask, what each page shows, what each button does."""

import html
import json
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError
from starlette.testclient import TestClient

from bench.web import loads
from nexus import group, ping
from nexus.aws.sdk import client
from nexus.backend import backend
from nexus.backend.store import Value, Write
from nexus.backend.transport import DeadLetter, queue_url
from nexus.client import AsyncResult
from nexus.envelope import Envelope
from nexus.ids import new_id
from nexus.runs import payloads, tallies, transitions
from nexus.runs.record import RunError
from nexus.runs.spent import Spent
from nexus.settings import settings
from nexus.tasks import Budget
from ops import (
    audit,
    budgets,
    catalogue,
    control,
    cost,
    dead_letters,
    deployment,
    figures,
    functions,
    health,
    history,
    logs,
    previews,
    schedules,
    waiting,
)
from ops.cli import monitor
from ops.dead_letters import Letter
from ops.deployment import Choice, Deployment
from ops.main import main
from ops.problems import ExitCode, Problem
from ops.timeline import Bar, TimeLine
from ops.web import actions, app, forms, show, views
from ops.web.actions import ACTIONS
from ops.web.app import make
from ops.web.views import Kept, Site
from social.catalogue import QUEUES, send_welcome_email
from tests.support import moto_cloud
from tests.support.patience import PATIENCE, eventually, next_millisecond

GRAFANA = Path(__file__).parents[3] / "ops" / "grafana"
PORT, KEY = 8765, "the-key"
EVIL = '<script>alert(1)</script>"\u202e'
KEEP = 2_000_000_000
EVENT = "a3441b5a-dc44-2028-9a5c-5f0c51b2b9c1"


def where(stage: str = "dev") -> Deployment:
    return Deployment("nexus-test", "UPDATE_COMPLETE", "eu-west-1", "123456789012", {"Stage": stage})


class World:
    """AWS's responses that moto lacks; a test sets `stage` and reads `calls`."""

    stage = "dev"

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def connect(self, _: Choice) -> Deployment:
        catalogue.use("social.catalogue", tuple(QUEUES))
        return where(self.stage)

    def switched(self, queue: str, *more: Any) -> control.Switched:
        self.calls.append((queue, *more))
        return control.Switched(queue, "Enabled", "Disabled", 2)

    def restarted(self, queue: str) -> str:
        self.calls.append(("restart", queue))
        return "restarted"


@pytest.fixture
def world(emptied: None, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    queues = tuple(
        health.QueueState(name, 5, 3, 1, 0, 12.0, 0, "Enabled", 9, "Active", None) for name in ("media", "emails")
    )
    finding = health.Finding("failed", "emails", f"it is {EVIL}", "`nexus resume emails`")
    lines = tuple(
        monitor.QueueLine(name, 5, name == "media", 3, 1, 0, 2, 1, 4.0, 0.5, (0, 1, 4)) for name in ("media", "emails")
    )
    event = logs.Event(time.time(), "emails", "send_welcome_email", new_id(), "failure", 4, 0.2, EVIL)
    view = monitor.View(time.time(), lines, (), (), (event,), (event,))
    sandboxes = functions.Sandboxes(40, 3600.0, 3, 1.2, 180, 410)
    function = functions.Function(
        "media", "nexus-test-media", "7", None, 2048, 300, "arm64", 10, 1, 0, 0.1, 2.0, 3.0, 3, sandboxes
    )
    figure = figures.TaskFigures("send_welcome_email", "emails", 5, 1, 0, 0, 0.1, 0.2, 0.25, 0.3, shortfalls={})
    rule = health.RuleState("cleanup_old_posts", "cron(0 1 ? * SUN *)", on=True)
    line = logs.Line("1", time.time(), "emails", f"run ended {EVIL}", "ERROR")
    monkeypatch.setattr(deployment, "connect", made.connect)
    monkeypatch.setattr(health, "check", lambda _: health.Health(where(), queues, (rule,), (), (finding,)))
    monkeypatch.setattr(monitor.Monitor, "poll", lambda _: view)
    monkeypatch.setattr(functions, "read_all", lambda _: [function])
    monkeypatch.setattr(figures, "lately", lambda _: (86_400.0, {figure.task: figure}))
    monkeypatch.setattr(schedules, "rule_states", lambda: [rule])
    monkeypatch.setattr(schedules, "history", lambda task, *_: [(EVENT, 1.0)] if task.name == rule.task else [])
    monkeypatch.setattr(schedules, "expression", lambda _: rule.expression)
    monkeypatch.setattr(schedules, "switch", lambda task, on: made.calls.append((task, on)))
    monkeypatch.setattr(schedules, "change", lambda task, to: made.calls.append((task, to)))
    monkeypatch.setattr(logs, "of_run", lambda *_, **__: iter([line]))
    monkeypatch.setattr(waiting, "reasons", lambda _: [])
    monkeypatch.setattr(cost, "idle", lambda: [cost.Idle("27 alarms", 2.7)])
    monkeypatch.setattr(audit, "_who", lambda: "arn:aws:iam::1:user/ada (ada)")
    for name in ("pause", "resume", "concurrency"):
        monkeypatch.setattr(control, name, made.switched)
    monkeypatch.setattr(control, "restart", made.restarted)
    return made


def site(*, read_only: bool = False, of: Site | None = None) -> TestClient:
    """A browser that has opened the printed address."""
    served = make(of or Site(Choice(), read_only), PORT, KEY)
    browser = TestClient(served, base_url=f"http://127.0.0.1:{PORT}")
    assert browser.get("/", params={"key": KEY}).status_code == 200
    token = re.search(r'data-token="([^"]+)"', browser.get("/").text)
    assert token is not None
    browser.headers["X-Nexus-Token"] = token[1]
    return browser


@pytest.fixture
def page(world: World) -> TestClient:
    return site()


def run(task: str = "send_welcome_email", queue: str = "emails", **args: Any) -> str:
    """A run that waits."""
    envelope = Envelope(id=new_id(), task=task, args=args)
    backend().store.apply(transitions.pending(envelope, queue, KEEP))
    return envelope.id


def failed(error: str = "Timeout", **args: Any) -> str:
    """A run that has failed, with its dead letter."""
    return fail(run(**args), error, **args)


def fail(run_id: str, error: str = "Timeout", **args: Any) -> str:
    """Makes a run fail, with its dead letter."""
    envelope = Envelope(id=run_id, task="send_welcome_email", args=args)
    message = f"too slow {EVIL}"
    known = backend().store.get([run_id])[run_id]
    write = transitions.never_ran(
        envelope, "emails", RunError(error, message), time.time(), KEEP, known=known, log="group stream"
    )
    backend().store.apply(write)
    attributes = {"ErrorType": error, "ErrorMessage": "too slow", "Task": envelope.task, "RunId": run_id}
    backend().transport.dead_letter("emails", DeadLetter(envelope.encode(), attributes, envelope.task))
    return run_id


def waiting_messages(queue: str) -> int:
    found = client("sqs").get_queue_attributes(
        QueueUrl=queue_url(settings().queue_name(queue)), AttributeNames=["ApproximateNumberOfMessages"]
    )
    return int(found["Attributes"]["ApproximateNumberOfMessages"])


def question(page: TestClient, action: str, form: Mapping[str, Any]) -> dict[str, list[str]]:
    """Requests an action, and returns the inputs of the form that confirms it."""
    asked = page.post(f"/do/{action}", data=dict(form))
    assert asked.headers["HX-Retarget"] == "#dialog"
    inputs: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', asked.text):
        inputs.setdefault(html.unescape(name), []).append(html.unescape(value))
    assert "confirmed" in inputs, asked.text
    return inputs


def done(page: TestClient, action: str, form: Mapping[str, Any]) -> str:
    """Requests an action, confirms it, and returns the outcome."""
    answer = page.post(f"/do/{action}", data=question(page, action, form))
    assert answer.headers["HX-Retarget"] == "#notices", answer.text
    assert answer.headers["HX-Trigger"] == "nexus:changed"
    return str(answer.text)


# --- who may ask ---


@pytest.mark.usefixtures("world")
def test_without_the_key_only_the_health_check_answers() -> None:
    stranger = TestClient(make(Site(Choice()), PORT, KEY), base_url=f"http://127.0.0.1:{PORT}")
    for path in ("/", "/runs", "/parts/runs", "/api/v1/runs", "/metrics", "/static/app.js"):
        assert stranger.get(path).status_code == 403
    assert stranger.get("/", params={"key": "another"}).status_code == 403
    assert stranger.get("/healthz").text == "ok\n"
    assert stranger.get("/api/v1/runs", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert stranger.get("/", headers={"Cookie": f"nexus-{PORT}=x; a[b]=\x00"}).status_code == 403
    asked = f"http://127.0.0.1:{PORT}//evil.example/?col=a&key={KEY}&col=b"
    admitted = stranger.get(asked, follow_redirects=False)
    assert admitted.headers["location"] == "/evil.example/?col=a&col=b"
    cookie = admitted.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("other", ['seen={"a": 1}', "flag", "a[b]=1", "s@id=1", "t=a b"])
def test_cookies_of_other_local_servers_are_ignored(other: str) -> None:
    """Cookies ignore ports, and http.cookies reads nothing after one that it does not understand."""
    stranger = TestClient(make(Site(Choice()), PORT, KEY), base_url=f"http://127.0.0.1:{PORT}")
    assert stranger.get("/", headers={"Cookie": f"{other}; nexus-{PORT}={KEY}"}).status_code == 200


@pytest.mark.usefixtures("world")
def test_the_address_that_a_browser_is_started_with_works_once() -> None:
    served = make(Site(Choice()), PORT, KEY, "once")
    first, second = (TestClient(served, base_url=f"http://127.0.0.1:{PORT}") for _ in range(2))
    assert first.get("/", params={"key": "once"}).status_code == 200
    assert first.get("/runs").status_code == 200
    assert second.get("/", params={"key": "once"}).status_code == 403
    assert second.get("/", params={"key": ""}).status_code == 403
    assert second.get("/", params={"key": KEY}).status_code == 200


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("key", ["a b&c+d#e%20", 'q"u;o,te', "schlüssel"])
def test_a_key_may_have_any_character(key: str) -> None:
    browser = TestClient(make(Site(Choice()), 80, key), base_url="http://127.0.0.1")
    assert browser.get("/", params={"key": key}).status_code == 200
    assert browser.get("/runs").status_code == 200


def test_another_host_name_gets_nothing(page: TestClient) -> None:
    for host in ("evil.example", f"evil.example:{PORT}", "127.0.0.1:1", ""):
        assert page.get("/", headers={"Host": host}).status_code == 421
    assert page.get("/", headers={"Host": f"localhost:{PORT}"}).status_code == 200


@pytest.mark.parametrize("headers", [{"X-Nexus-Token": "x"}, {"Origin": "http://evil.example"}])
def test_a_change_that_the_page_did_not_ask_for_is_refused(
    page: TestClient, world: World, headers: dict[str, str]
) -> None:
    answer = page.post("/do/pause", data={"queue": "media", "confirmed": "1"}, headers=headers)
    assert answer.status_code == 403
    assert world.calls == []


def test_every_answer_has_the_strict_policy_and_no_page_asks_another_host(page: TestClient) -> None:
    for path in PAGES:
        answer = page.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r'(src|href|action)="(https?:)?//', answer.text)
        assert not re.search(r"\s(style|on\w+)=|<script>|<style", answer.text)


def test_read_only_shows_everything_and_changes_nothing(world: World) -> None:
    page = site(read_only=True)
    run_id = failed(user_id="u-1")
    for path in (*PAGES, *PARTS, f"/parts/run/{run_id}"):
        text = page.get(path).text
        assert "/do/" not in text, path
    answer = page.post("/do/pause", data={"queue": "media", "confirmed": "1"})
    assert "read-only" in answer.text
    assert page.post("/api/v1/do/pause", json={"queue": "media", "confirmed": True}).status_code == 409
    assert world.calls == []


def test_in_prod_a_lasting_change_is_confirmed_by_typing_the_stacks_name(world: World) -> None:
    world.stage = "prod"
    page = site()
    run_id = failed(user_id="u-1")
    form = {"queue": "emails", "id": run_id}
    assert 'name="stack"' in page.post("/do/drop-letters", data=form).text
    for typed in ({}, {"stack": "nexus-dev"}):
        assert "type nexus-test" in page.post("/do/drop-letters", data={**form, "confirmed": "1", **typed}).text
    assert run_id in page.get("/parts/letters").text
    answer = page.post("/do/drop-letters", data={**form, "confirmed": "1", "stack": "nexus-test"})
    assert "1 dead letter dropped" in answer.text
    # Actions that can be undone only ask for confirmation
    assert 'name="stack"' not in page.post("/do/pause", data={"queue": "media"}).text


# --- what is shown ---

PAGES = (
    "/",
    "/runs",
    "/dead-letters",
    "/schedules",
    "/tasks",
    "/tasks/cleanup_old_posts",
    "/functions",
    "/cost",
    "/audit",
)
PARTS = tuple(
    f"/parts/{name}"
    for name in (
        "health", "queues", "activity", "upcoming", "runs", "groups", "letters", "schedules", "tasks", "functions",
        "audit", "firings/cleanup_old_posts", "tasks/send_welcome_email", "latest/send_welcome_email",
        "money", "cost", "cost/each", "cost/idle", "budgets", "tasks/send_welcome_email/cost",
    )
)  # fmt: skip


def test_when_the_credentials_expire_pages_open_and_their_parts_and_actions_say_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expired(*_: Any) -> Any:
        why = "The security token included in the request is expired"
        raise ClientError({"Error": {"Code": "ExpiredToken", "Message": why}}, "DescribeStacks")

    served = Site(Choice())
    page = site(of=served)
    assert "it is &lt;script" in page.get("/parts/health").text
    monkeypatch.setattr(deployment, "connect", expired)
    monkeypatch.setattr("ops.lookup.run_id", expired)
    # While the deployment was described less than a minute ago, it is not asked again
    assert "it is &lt;script" in page.get("/parts/health").text
    outdated: tuple[Any, ...] = (served._deployment, served._health)
    for kept in outdated:
        kept._answer = replace(kept._answer, until=0.0)
    for path, status in (*((path, 200) for path in PAGES), ("/runs/018f0000", 503)):
        answer = page.get(path)
        assert answer.status_code == status, path
        assert "<strong>nexus-test</strong>" in answer.text
    assert "The credentials have expired" in page.get("/runs/018f0000").text
    for path in PARTS:
        answer = page.get(path)
        assert answer.status_code == 200, path
        assert "The credentials have expired" in answer.text, path
    assert "The credentials have expired" in page.post("/do/pause", data={"queue": "media"}).text
    assert world.calls == []
    # New credentials are used without a restart
    monkeypatch.setattr(deployment, "connect", world.connect)
    assert "it is &lt;script" in page.get("/parts/health").text


@pytest.mark.parametrize("path", [*PAGES, *PARTS])
def test_each_page_and_part_is_shown(page: TestClient, path: str) -> None:
    failed(user_id=EVIL)
    answer = page.get(path)
    assert answer.status_code == 200
    assert 'role="alert"' not in answer.text, answer.text


def test_users_text_is_escaped_on_every_page(page: TestClient) -> None:
    run_id = failed(EVIL, user_id=EVIL)
    of_run = [
        f"/parts/run/{run_id}{more}" for more in ("", "/waits", "/made", "/result", "/log", "/timeline", "/parts")
    ]
    parts = [*PARTS, "/runs", *of_run, f"/runs/{run_id}"]
    seen = "".join(page.get(path).text for path in parts) + page.get("/runs", params={"q": EVIL}).text
    assert "alert(1)" in seen
    assert "<script>alert" not in seen
    assert "\u202e" not in re.sub(r'\s(value|data-chip)="[^"]*"', "", seen)  # that is sent back and not read


def older(page: TestClient, address: str) -> str:
    """The part of a page of older runs, which the page loads with the values of its form."""
    text = page.get(address).text
    loaded = re.search(r'hx-get="(/parts/runs\?after=[^"]+)" hx-include="\[data-search\]"', text)
    assert loaded is not None
    columns = re.findall(r'name="col" value="(\w+)"(?: data-usual)? checked', text)
    return page.get("&col=".join([html.unescape(loaded[1]), *columns])).text


def test_the_runs_are_filtered_paged_and_shown_by_the_columns_that_are_chosen(page: TestClient) -> None:
    ids = [run(user_id=f"u-{n}") for n in range(60)]
    first = page.get("/parts/runs").text
    assert first.count('<tr>\n    <td class="tick">') == 50
    more = re.search(r'href="(/runs\?[^"]+after=[^"]+)"', first)
    assert more is not None
    second = older(page, html.unescape(more[1]))
    shown = [run_id for run_id in ids if f'href="/runs/{run_id}"' in first + second]
    assert shown == ids
    only = page.get("/parts/runs", params={"q": "user_id=u-7", "col": ["queue"]}).text
    assert f'href="/runs/{ids[7]}"' in only
    assert f'href="/runs/{ids[8]}"' not in only
    assert "<th>queue</th>" in only
    assert "took" not in only
    assert "is not a status" in page.get("/parts/runs", params={"q": "status:done"}).text


def test_the_runs_of_a_parent_are_found_by_a_part_of_its_id(page: TestClient) -> None:
    parent, child = run(user_id="u-1"), new_id()
    envelope = Envelope(id=child, task="send_welcome_email", args={}, parent=parent)
    backend().store.apply(transitions.pending(envelope, "emails", KEEP))
    query = {"q": f"parent:{parent[-8:]}"}
    assert f'href="/runs/{child}"' in page.get("/parts/runs", params=query).text
    assert [one["id"] for one in page.get("/runs.json", params=query).json()] == [child]
    assert child in question(page, "revoke", {"query": query["q"]})["id"]
    assert "No run&#39;s id" in page.get("/parts/runs", params={"q": "parent:ffffffff"}).text


def test_the_newest_runs_are_shown_at_once_as_they_were_and_asked_for_again(page: TestClient) -> None:
    first = run(user_id="u-1")
    assert first in page.get("/parts/runs").text
    second = run(user_id="u-2")
    shown = page.get("/parts/runs").text
    # A search that is typed meanwhile is not overwritten.
    again = re.search(r'<span hx-get="([^"]+)" hx-target="#found" hx-trigger="load" hx-sync="#found:abort">', shown)
    assert again is not None
    assert second not in shown
    after = page.get(again[1].replace("&amp;", "&")).text
    assert first in after
    assert second in after
    assert 'hx-trigger="load"' not in after


def test_a_page_of_the_runs_is_shown_again_after_a_change(page: TestClient) -> None:
    ids = [run(user_id=f"u-{n}") for n in range(60)]
    first = page.get("/parts/runs", params={"col": ["task"]}).text
    more = re.search(r'href="(/runs\?[^"]+)">Older', first)
    assert more is not None
    shown = older(page, html.unescape(more[1]))
    again = re.search(r'hx-get="([^"]+)" hx-target="#found" hx-trigger="nexus:changed from:body, nexus:again"', shown)
    assert again is not None
    late = run(user_id="u-late")
    after = page.get(html.unescape(again[1])).text
    for text in (shown, after):
        assert [one for one in (*ids, late) if f'href="/runs/{one}"' in text] == ids[:10]
        assert "<th>queue" not in text


def test_the_benchmark_loads_what_a_browser_loads(page: TestClient) -> None:
    assert loads(page.get("/runs").text) == ["/parts/runs"]
    assert loads(page.get("/runs?q=status:failure").text, "q=status:failure") == ["/parts/runs?q=status:failure"]
    assert loads(page.get("/schedules").text) == ["/parts/schedules"]
    assert loads(page.get("/parts/schedules").text)[0].startswith("/parts/firings/")
    assert "/parts/health" in loads(page.get("/").text)


def test_the_address_of_the_runs_has_the_columns(page: TestClient) -> None:
    text = page.get("/runs?col=queue&col=task").text
    boxes = re.findall(r'name="col" value="(\w+)"( data-usual)?( checked)?', text)
    # A search that is typed meanwhile is not overwritten.
    assert 'hx-include="[data-search]" hx-trigger="load" hx-target="#found" hx-sync="#found:abort"' in text
    assert [name for name, _, checked in boxes if checked] == ["task", "queue"]
    assert tuple(name for name, usual, _ in boxes if usual) == app.SHOWN


def test_the_runs_are_exported_and_no_cell_is_a_formula(page: TestClient) -> None:
    run_id = run(task="-1", user_id="u-1")
    rows = page.get("/runs.csv", params={"q": "task:-1"}).text.splitlines()
    assert rows[1].startswith(f"{run_id},'-1,emails,PENDING,")
    assert [one["id"] for one in page.get("/runs.json", params={"q": "task:-1"}).json()] == [run_id]


def test_a_part_that_fails_shows_the_error_and_the_page_stays(
    page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(health, "check", broken)
    assert page.get("/").status_code == 200
    answer = page.get("/parts/health")
    assert answer.status_code == 200
    assert "RuntimeError" in answer.text
    assert "secret detail" not in answer.text
    assert "No run has this id" in page.get(f"/parts/run/{new_id()}").text
    assert "There is no task" in page.get("/tasks/nothing").text


def denied(*_: Any, **__: Any) -> Any:
    raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not authorized"}}, "GetItem")


def throttled(*_: Any, **__: Any) -> Any:
    raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "GetItem")


def test_a_denied_request_takes_only_its_own_part_of_a_run(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = new_id()
    values: dict[str, Value] = {"task": "process_media_upload", "queue": "media", "status": "SUCCESS"}
    backend().store.apply(Write(run_id, {**values, "result": "s3:results/media/x.json"}, insert=True))
    monkeypatch.setitem(previews.makers, "process_media_upload", denied)
    monkeypatch.setattr(waiting, "reasons", denied)
    monkeypatch.setattr(payloads, "load", denied)
    for part in ("waits", "made", "result"):
        assert "Permission denied" in page.get(f"/parts/run/{run_id}/{part}").text
    assert "What happened" in page.get(f"/parts/run/{run_id}").text
    picture = page.get(f"/runs/{run_id}/pictures/w320")
    assert (picture.status_code, "Permission denied" in picture.text) == (403, True)
    monkeypatch.setitem(previews.makers, "process_media_upload", throttled)
    assert page.get(f"/runs/{run_id}/pictures/w320").status_code == 503


def test_queues_are_shown_and_can_be_paused_while_their_health_is_not_known(
    page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "check", denied)
    assert "Permission denied" in page.get("/parts/health").text
    assert 'hx-post="/do/pause"' in page.get("/parts/queues").text


def test_a_throttled_request_is_not_a_run_that_does_not_exist(
    page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert page.get(f"/api/v1/runs/{new_id()}").status_code == 404
    monkeypatch.setattr(Site, "run", throttled)
    assert page.get(f"/api/v1/runs/{new_id()}").status_code == 503


def test_a_part_of_an_id_leads_to_its_run(page: TestClient) -> None:
    run_id = run(user_id="u-1")
    answer = page.get(f"/runs/{run_id[-8:]}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run_id}")
    assert "No run&#39;s id" in page.get("/runs/ffffffff").text


def test_a_query_that_cannot_be_read_exports_nothing(page: TestClient) -> None:
    answer = page.get("/runs.csv", params={"q": "since:soon"})
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.status_code == 400
    assert "not a duration" in answer.text
    assert page.get("/runs.xml").status_code == 404


def test_a_bug_is_a_server_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server logs it with its traceback, and responds with 500."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    browser = site()
    monkeypatch.setattr(audit, "entries", broken)
    monkeypatch.setattr(logs, "events", broken)
    for path in ("/api/v1/audit", "/metrics"):
        with pytest.raises(RuntimeError, match="a bug"):
            browser.get(path)


class Waited:
    """A lock that counts the threads that have it or wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_threads_that_wait_for_a_refresh_share_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """When AWS does not respond, the sixth part of a page would otherwise wait for six timeouts."""
    asked: list[None] = []

    def ask() -> None:
        asked.append(None)
        eventually(lambda: waited.count >= 6)
        raise Problem("AWS does not respond")

    kept, waited = Kept(ask, 60.0), Waited()
    monkeypatch.setattr(kept, "_lock", waited)
    with ThreadPoolExecutor(6) as pool:
        outcomes = [done.exception() for done in [pool.submit(kept.get) for _ in range(6)]]
    assert [str(one) for one in outcomes] == ["AWS does not respond"] * 6
    assert len(asked) == 1
    with pytest.raises(Problem):  # who asks later asks again
        kept.get()
    assert len(asked) == 2


def test_the_overview_counts_the_schedules_and_not_the_rules_of_events(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = (health.RuleState("cleanup_old_posts", "rate(1 day)", on=True), health.RuleState("bounces", "", on=True))
    monkeypatch.setattr(health, "check", lambda _: health.Health(where(), (), rules, (), ()))
    assert "0 queues, 1 schedules, 0 alarms" in site().get("/parts/health").text


def test_pages_are_served_while_all_of_their_parts_wait_for_aws(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who reloads a page that does not load has six parts waiting for each try."""
    go_on, waited = threading.Event(), Waited()
    served = Site(Choice())
    monkeypatch.setattr(Site, "warm", lambda _: None)
    monkeypatch.setattr(health, "check", lambda _: go_on.wait(PATIENCE) and health.Health(where(), (), (), (), ()))
    monkeypatch.setattr(served._health, "_lock", waited)
    with TestClient(make(served, PORT, KEY), base_url=f"http://127.0.0.1:{PORT}") as browser:
        browser.headers["Authorization"] = f"Bearer {KEY}"
        with ThreadPoolExecutor(61) as pool:
            parts = [pool.submit(browser.get, "/parts/health") for _ in range(60)]
            opened = pool.submit(lambda: (eventually(lambda: waited.count >= 40), browser.get("/runs"))[1])
            try:
                assert opened.result(PATIENCE).status_code == 200
            finally:
                go_on.set()
        assert {part.result().status_code for part in parts} == {200}


def test_a_change_does_not_wait_for_a_read_whose_answer_is_then_not_cached() -> None:
    begun, go_on = threading.Event(), threading.Event()
    values = iter(["before the change", "after it"])

    def ask() -> str:
        begun.set()
        assert go_on.wait(PATIENCE)
        return next(values)

    kept = Kept(ask, 60.0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(kept.get)
        assert begun.wait(PATIENCE)
        kept.forget()
        go_on.set()
        assert first.result() == "before the change"
    assert kept.last() is None
    assert kept.get() == kept.last() == "after it"


def test_an_answer_that_took_long_to_read_is_cached_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A week of a hundred million runs would otherwise be read every two minutes."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    asked: list[float] = []

    def ask() -> None:
        asked.append(now[0])
        now[0] += 30.0

    kept = Kept(ask, 120.0, 100.0)
    for _ in range(5):
        kept.get()
        now[0] += 1000.0
    assert len(asked) == 2  # at the start, and after 3,000 seconds


def test_errors_while_the_cache_is_warmed_are_ignored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def denied(name: str) -> Any:
        asked.append(name)
        raise ClientError({"Error": {"Code": "AccessDenied"}}, name)

    started = Site(Choice())
    for name in ("health", "monitor", "newest"):
        monkeypatch.setattr(Site, name, lambda _, name=name: denied(name))
    started.warm()
    assert asked == ["health", "monitor", "newest"]
    # And an open page is not notified of a change at each check
    pages = app.Pages(started)
    assert pages._fingerprint() == pages._fingerprint()


def test_a_time_line_draws_started_bars_with_links_to_their_runs() -> None:
    bars = (
        Bar("part", "first", 0.0, 5.0, "success", run="r-1"),
        Bar("part", "second", 2.0, None, "started"),
        Bar("part", "third", None, None, "pending"),
    )
    drawn = str(show.strip(bars, TimeLine(0.0, 10.0, bars, in_progress=True)))
    assert drawn.count("<rect") == 2
    assert 'href="/runs/r-1"' in drawn
    assert drawn.count("<a ") == 1


def test_a_job_of_ten_thousand_parts_is_shown_as_a_hundred_marks(page: TestClient) -> None:
    group = new_id()
    tallies.put_all(tallies.new_tallies(group, 1, 10_000, KEEP))
    values: dict[str, Value] = {"status": "STARTED", "task": tallies.GROUP, "total": 10_000, "phase": 1, "waits": True}
    backend().store.apply(Write(group, values, insert=True))
    first = tallies.tally(group, 1, 0)
    backend().store.apply(Write(first, add={"failed": frozenset({3})}))
    text = page.get(f"/parts/run/{group}/parts").text
    assert text.count('<a href="/runs/') == 101  # and the one that failed
    assert "0 of 10,000 done" in text
    assert f'href="/runs/{tallies.member(group, 1, 3)}"' in text
    assert len(text) < 50_000


def test_dead_letters_are_grouped_by_task_and_error(page: TestClient) -> None:
    for _ in range(3):
        failed("Timeout", user_id="u-1")
    failed("Bounced", user_id="u-2")
    text = page.get("/parts/groups").text
    assert re.findall(r'class="count">(\d+)</span> send_welcome_email <span class="bad">(\w+)', text) == [
        ("3", "Timeout"),
        ("1", "Bounced"),
    ]


def test_dead_letters_of_many_kinds_are_shown_as_nineteen_groups_and_the_rest(page: TestClient) -> None:
    for n in range(25):
        for _ in range(2 if n == 7 else 1):
            failed(f"Error{n}", user_id="u-1")
    text = page.get("/parts/groups").text
    assert text.count('class="card group"') == 20
    assert "<b>6</b> letters of 6 other kinds" in text
    assert text.index("Error7") < text.index("Error8")
    assert sum(f">Error{n}<" in text for n in range(25)) == 25


def test_a_very_large_dead_letter_is_shown_in_part(page: TestClient) -> None:
    run_id = failed(user_id="u" * 200_000)
    assert len(page.get("/parts/letters").text) < 10_000
    form = {"queue": "emails", "id": run_id, "task": "send_welcome_email", "args": "{}"}
    assert len(page.post("/do/edit-letters", data=form).text) < 10_000


def test_a_letter_without_a_run_shows_its_message_and_leads_to_no_run(page: TestClient) -> None:
    backend().transport.dead_letter("emails", DeadLetter('{"orphan": 1}', {}, "group"))
    text = page.get("/parts/letters").text
    assert '{"orphan":1}' in html.unescape(text)
    assert "/runs/" not in text
    assert "Edit" not in text
    assert "/do/drop-letters" in text


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("nexus logs 9752202a", "/runs/9752202a"),
        ("nexus dlq list emails", "/dead-letters"),
        ("nexus dlq show 01a203f2-0000-7000-8000-000000000001", "/runs/01a203f2-0000-7000-8000-000000000001"),
        ("nexus schedule enable cleanup_old_posts", "/schedules#cleanup_old_posts"),
        ("nexus resume users", "/"),
        ("nexus budget send_notification --dollars N --runs N", "/cost"),
    ],
)
def test_a_remedy_leads_to_the_page_that_has_it(command: str, where: str) -> None:
    assert show.commands(f"First `{command}`.") == f'First <a href="{where}"><code>{command}</code></a>.'


def test_the_line_of_a_single_value_is_level() -> None:
    assert 'polyline points="0.0,2.0 120.0,2.0"' in show.spark([7.0], "dollars a day")


def test_only_the_first_of_several_commands_of_one_page_is_a_link() -> None:
    text = "`nexus dlq list users` shows why; then `nexus dlq retry users`"
    assert show.commands(text).count('href="/dead-letters"') == 1


def test_a_remedy_that_no_page_has_is_a_command() -> None:
    assert show.commands("`nexus repair` restores <it>.") == "<code>nexus repair</code> restores &lt;it&gt;."


def test_a_result_of_megabytes_is_shown_in_part(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = run(user_id="u-1")
    for result, shown in (([0] * 9, True), (["x" * 200_000], False)):
        monkeypatch.setattr(payloads, "load", lambda _, result=result: result)
        backend().store.apply(Write(run_id, {"result": "{}"}))
        text = page.get(f"/parts/run/{run_id}/result").text
        assert len(text) < 110_000
        assert (f"nexus result {run_id}" not in text) == shown


def test_ten_thousand_letters_of_three_hundred_kinds_are_twenty_groups_that_are_small(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    letters = tuple(
        Letter(
            f"r-{n}", "emails", "send_welcome_email", f"Error{n % 300 if n % 3 else 0}", EVIL, 4, "", now - n, now, "{}"
        )
        for n in range(10_000)
    )
    monkeypatch.setattr(views, "_all_letters", lambda _: letters)
    monkeypatch.setattr(dead_letters, "counts", lambda _: {"emails": len(letters)})
    page = site()
    text = page.get("/parts/groups").text
    assert text.count('class="card group"') == 20
    assert '<span class="count">3,334</span> send_welcome_email <span class="bad">Error0</span>' in text
    assert len(text) < 300_000
    shown = page.get("/parts/letters", params={"queue": "emails", "error": "Error0"}).text
    assert shown.count("<tr>") == 201
    assert "The first 200 of 3334." in shown
    groups = page.get("/api/v1/dead-letters/groups").json()
    assert sum(one["count"] for one in groups) == 10_000
    assert sum(groups[0]["hours"]) == 3_334


def test_a_failed_run_shows_where_it_came_from_and_each_attempt(page: TestClient) -> None:
    run_id, parent = failed(user_id="u-1"), new_id()
    assert "a sender" in page.get(f"/parts/run/{run_id}").text
    sent: tuple[tuple[str, str, dict[str, Value], str], ...] = (
        (EVENT, "cleanup_old_posts", {"origin": "rule"}, "its schedule"),
        (new_id(), "record_mail_feedback", {"origin": "rule"}, "an EventBridge rule"),
        (new_id(), "process_media_upload", {"origin": "upload"}, "an upload"),
        (new_id(), "process_media_upload", {}, "a sender"),
        (new_id(), "cleanup_old_posts", {"parent": parent}, f'href="/runs/{parent}"'),
    )
    for own, task, how, reported in sent:
        values: dict[str, Value] = {"task": task, "queue": "default", "status": "SUCCESS"}
        backend().store.apply(Write(own, values | how, insert=True))
        assert reported in page.get(f"/parts/run/{own}").text
    line = page.get(f"/parts/run/{run_id}/timeline").text
    assert "in line" in line
    assert "<svg" in line


def test_an_uploads_renditions_are_shown_by_the_page_itself(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> bytes:
        raise LookupError("gone")

    made = [
        previews.Picture("w320", "image/webp", 320, 180, lambda: b"RIFF"),
        previews.Picture("script", "image/svg+xml", 1, 1, lambda: b"<svg/>"),
        previews.Picture("old", "image/webp", 1, 1, gone),
    ]
    monkeypatch.setitem(previews.makers, "process_media_upload", lambda _: made)
    run_id = new_id()
    values: dict[str, Value] = {"task": "process_media_upload", "queue": "media", "status": "SUCCESS"}
    backend().store.apply(Write(run_id, values, insert=True))
    assert f'src="/runs/{run_id}/pictures/w320"' in page.get(f"/parts/run/{run_id}/made").text
    picture = page.get(f"/runs/{run_id}/pictures/w320")
    assert (picture.content, picture.headers["content-type"]) == (b"RIFF", "image/webp")
    for asked, given, which in (
        ("bytes=0-1", b"RI", "bytes 0-1/4"),
        ("bytes=1-", b"IFF", "bytes 1-3/4"),
        ("bytes=2-99", b"FF", "bytes 2-3/4"),
        ("bytes=9-", b"RIFF", None),
        ("bytes=2-1", b"RIFF", None),
        ("bytes=-2", b"RIFF", None),
        ("lines=0-1", b"RIFF", None),
    ):
        ranged = page.get(f"/runs/{run_id}/pictures/w320", headers={"Range": asked})
        assert (ranged.content, ranged.headers.get("content-range")) == (given, which)
        assert ranged.status_code == (206 if which else 200)
    assert page.get(f"/runs/{run_id}/pictures/script").status_code == 415
    for name in ("old", "nothing"):
        assert page.get(f"/runs/{run_id}/pictures/{name}").status_code == 404


# --- what is done ---


@pytest.mark.parametrize(
    ("action", "form", "call"),
    [
        ("pause", {"queue": "media"}, ("media",)),
        ("resume", {"queue": "media"}, ("media", 0)),
        ("concurrency", {"queue": "media", "maximum": "4"}, ("media", 4)),
        ("restart", {"queue": "media"}, ("restart", "media")),
        ("enable", {"task": "cleanup_old_posts"}, ("cleanup_old_posts", True)),
        ("disable", {"task": "cleanup_old_posts"}, ("cleanup_old_posts", False)),
        (
            "change",
            {"task": "cleanup_old_posts", "expression": "cron(0 2 * * ? *)"},
            ("cleanup_old_posts", "cron(0 2 * * ? *)"),
        ),
    ],
)
def test_a_switch_asks_then_acts_and_is_in_the_audit_trail(
    page: TestClient,
    world: World,
    capsys: pytest.CaptureFixture[str],
    *,
    action: str,
    form: dict[str, str],
    call: tuple[Any, ...],
) -> None:
    page.post(f"/do/{action}", data=form)
    assert world.calls == []
    done(page, action, form)
    assert world.calls == [call]
    (entry,) = audit.entries()
    assert (entry.what, entry.about, entry.who) == (action, form, "arn:aws:iam::1:user/ada (ada)")
    assert action in page.get("/parts/audit").text
    assert main(["audit"]) == 0
    reported = capsys.readouterr().out
    assert action in reported
    assert "ada" in reported


@pytest.mark.parametrize(
    ("action", "form", "why"),
    [
        ("pause", {"queue": "mdia"}, "no queue"),
        ("pause", {}, "queue is missing"),
        ("concurrency", {"queue": "media", "maximum": "1"}, "2 to 1000"),
        ("enable", {"task": "ping"}, "has no schedule"),
        ("change", {"task": "cleanup_old_posts", "expression": "0 3 * * *"}, "EventBridge rejects this"),
        ("send", {"task": "send_welcome_email"}, "user_id: Field required"),
        ("send", {"task": "nothing"}, "There is no task"),
        ("send", {"task": "send_welcome_email", "args": "[]"}, "JSON object"),
        ("send", {"task": "send_welcome_email", "args": "{cut"}, "The arguments are not JSON"),
        ("send", {"task": "send_welcome_email", "arg:user_id": "[1"}, "looks like JSON but is not valid"),
        ("change", {"task": "cleanup_old_posts", "expression": "cron(0 1 1 1 ? 2020)"}, "never runs again"),
        ("send", {"task": "send_welcome_email", "arg:user_id": "(secret)"}, "secret argument"),
        ("retry", {}, "Which runs?"),
        ("retry", {"id": "42"}, "not a run id"),
        ("drop-letters", {"queue": "emails"}, "Which dead letters?"),
        ("drop-letters", {"queue": "emails", "id": "01a203f2"}, "not a run id"),
        ("drop-letters", {"queue": "emails", "task": "ping", "until": "soon"}, "not a time"),
        ("edit", {"id": EVENT}, f"{EVENT} is unknown"),
        ("explode", {}, "There is no action"),
    ],
)
def test_an_impossible_action_is_refused_with_its_reason(
    page: TestClient, world: World, action: str, form: dict[str, str], why: str
) -> None:
    for confirmed in ({}, {"confirmed": "1"}):
        answer = page.post(f"/do/{action}", data={**form, **confirmed})
        assert why in answer.text
    assert world.calls == []
    assert audit.entries() == []


def test_an_action_on_no_run_or_too_many_is_refused(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, _ = run(user_id="u-1"), run(user_id="u-1")
    assert "There is nothing to send again" in page.post("/do/retry", data={"id": waits}).text
    monkeypatch.setattr(actions, "MOST", 1)
    assert "These are more than 1 runs" in page.post("/do/revoke", data={"query": "user_id=u-1"}).text


def test_a_field_that_is_sent_twice_counts_once(page: TestClient, world: World) -> None:
    page.post("/do/pause", data={"queue": ["media", "emails"], "confirmed": "1"})
    assert world.calls == [("media",)]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("{cut", "The body is not JSON"),
        ("[]", "An action's body must be a JSON object"),
        (" " * (forms.LIMIT + 1), "The body is too long"),
    ],
)
def test_an_invalid_body_of_an_action_is_refused(page: TestClient, world: World, body: str, why: str) -> None:
    answer = page.post("/api/v1/do/pause", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["what"] == why
    shown = page.post("/do/pause", content=body, headers={"Content-Type": "application/json"}).text
    assert why in html.unescape(shown)
    assert world.calls == []


def test_a_change_whose_audit_entry_cannot_be_written_is_made_and_the_page_says_so(
    page: TestClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied() -> str:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetCallerIdentity")

    monkeypatch.setattr(audit, "_who", denied)
    text = done(page, "pause", {"queue": "media"})
    assert "media is paused" in text
    assert "It is missing from the audit trail" in text
    assert world.calls == [("media",)]


def test_a_task_is_sent_from_its_form(page: TestClient) -> None:
    text = done(page, "send", {"task": "send_welcome_email", "arg:user_id": "u-1"})
    found = re.search(r'href="/runs/([^"]+)"', text)
    assert found is not None
    record = AsyncResult[Any](found[1]).record()
    assert (record.task, record.args, record.status) == ("send_welcome_email", {"user_id": "u-1"}, "PENDING")


def test_a_task_is_sent_for_later_from_its_form_and_by_a_program(page: TestClient) -> None:
    about = {"task": "send_welcome_email", "arg:user_id": "u-1"}
    asked = page.post("/do/send", data={**about, "countdown": "2m", "eta": "", "expires": "1h"}).text
    assert "countdown  2m" in asked
    assert "expires  1h" in asked
    assert "eta  " not in asked
    assert "eta  2030-01-01 09:00:00+00:00" in page.post("/do/send", data={**about, "eta": "2030-01-01T09:00"}).text
    before = time.time()
    text = done(page, "send", {**about, "countdown": "2m", "expires": "1h"})
    found = re.search(r'href="/runs/([^"]+)"', text)
    assert found is not None
    assert before + 120 <= (AsyncResult[Any](found[1]).record().eta or 0) <= time.time() + 120
    assert {"countdown": "2m", "expires": "1h"}.items() <= audit.entries()[0].about.items()
    # And a program's number is of seconds; a time without a zone is in UTC
    of_api = {"task": "send_welcome_email", "args": {"user_id": "u-1"}, "confirmed": True}
    at = datetime.fromtimestamp(int(before) + 500, UTC).replace(tzinfo=None).isoformat()
    due = []
    for timing in ({"countdown": 600, "expires": 3600.5}, {"eta": at}):
        sent = page.post("/api/v1/do/send", json={**of_api, **timing}).json()["done"].removeprefix("Sent: ")
        due.append(AsyncResult[Any](sent).record().eta or 0)
    assert before + 600 <= due[0] <= time.time() + 600
    assert due[1] == int(before) + 500


@pytest.mark.parametrize(
    ("timing", "why"),
    [
        ({"countdown": "soon"}, "countdown: 'soon' is not a duration"),
        ({"countdown": "9999999999"}, "countdown is 9999999999.0: it must be a number of seconds, at most a hundred"),
        ({"countdown": [60]}, "countdown is [60]: it must be a number of seconds"),
        ({"eta": "tomorrow"}, "eta: 'tomorrow' is not a time"),
        ({"eta": 1893488400}, "eta is 1893488400: it must be a datetime with a time zone"),
        ({"eta": "2930-01-01"}, "it must be in at most a hundred years"),
        ({"expires": "2030-13-01"}, "expires: '2030-13-01' is not a time"),
        ({"expires": {"in": 5}}, "expires: '{"),
        ({"countdown": 60, "eta": "2030-01-01"}, "countdown and eta cannot be combined"),
    ],
)
def test_a_time_to_send_at_that_is_invalid_is_refused_by_its_name(
    page: TestClient, timing: dict[str, Any], why: str
) -> None:
    about = {"task": "send_welcome_email", "args": {"user_id": "u-1"}}
    for confirmed in (False, True):
        answer = page.post("/api/v1/do/send", json={**about, **timing, "confirmed": confirmed})
        assert answer.status_code == 400
        assert why in answer.json()["error"]["what"]
    assert audit.entries() == []


ODD = "👨\u200d👩 a soft\xadhyphen \U000e0067 \u202e it's \"<b>"
"""Text with characters that a page writes as escapes, so that nobody is misled by it."""


def test_a_confirmed_form_sends_the_unescaped_text(page: TestClient) -> None:
    text = done(page, "send", {"task": "send_notification", "arg:user_id": "u-1", "arg:kind": "like", "arg:text": ODD})
    found = re.search(r'href="/runs/([^"]+)"', text)
    assert found is not None
    assert (AsyncResult[Any](found[1]).record().args or {})["text"] == ODD


def test_the_edit_form_has_the_runs_exact_arguments(page: TestClient) -> None:
    args: dict[str, Any] = {"user_id": ODD, "latitude": 51.123456789012}
    shown = page.get(f"/parts/run/{run(**args)}").text
    field = re.search(r"<textarea[^>]*>(.*?)</textarea>", shown, re.DOTALL)
    assert field is not None
    assert json.loads(html.unescape(field[1])) == args
    assert "\u202e" not in shown


def test_a_group_is_handled_whatever_its_name(page: TestClient) -> None:
    attributes = {"ErrorType": f"Type {ODD}", "ErrorMessage": "", "Task": f"task {ODD}", "RunId": new_id()}
    backend().transport.dead_letter("emails", DeadLetter("no envelope", attributes, "group"))
    shown = re.search(r'<form class="inline" hx-post="/do/drop-letters".*?</form>', page.get("/parts/groups").text)
    assert shown is not None
    form = {name: html.unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', shown[0])}
    assert "1 dead letter dropped" in done(page, "drop-letters", form)


def test_every_value_in_a_template_is_escaped_without_changing_its_text() -> None:
    """`show.templates` escapes what is shown, which changes text: only `|e` leaves it as it is."""
    for path in (show.HERE / "templates").rglob("*.html"):
        for attribute in re.findall(r'\s(?:value|data-chip)="((?:[^"{]|\{\{.*?\}\})*)"', path.read_text()):
            for expression in re.findall(r"\{\{ (.*?) \}\}", attribute):
                assert expression.endswith("|e"), (path.name, expression)


def test_a_failed_run_is_sent_again_as_it_was_and_edited(page: TestClient) -> None:
    before = waiting_messages("emails")
    first, second = failed(user_id="u-1"), failed(user_id="u-2")
    assert "1 sent again" in done(page, "retry", {"id": first})
    assert AsyncResult[Any](first).status == "PENDING"
    done(page, "edit", {"id": second, "args": json.dumps({"user_id": "u-3"})})
    record = AsyncResult[Any](second).record()
    assert (record.status, record.args) == ("PENDING", {"user_id": "u-3"})
    assert waiting_messages("emails") == before + 2
    assert "No dead letters" in page.get("/parts/groups").text


def test_a_run_that_has_not_failed_is_edited_as_another_run(page: TestClient) -> None:
    first = run(user_id="u-1")
    text = done(page, "edit", {"id": first, "arg:user_id": "u-2"})
    found = re.search(r'href="/runs/([^"]+)"', text)
    assert found is not None
    assert found[1] != first
    assert AsyncResult[Any](found[1]).record().args == {"user_id": "u-2"}
    assert AsyncResult[Any](first).record().args == {"user_id": "u-1"}


def test_a_run_that_goes_on_before_it_is_confirmed_is_not_edited(page: TestClient) -> None:
    """Someone else has sent it again: to send another run now is not what was asked."""
    run_id = failed(user_id="u-1")
    inputs = question(page, "edit", {"id": run_id, "arg:user_id": "u-2"})
    done(page, "retry", {"id": run_id})
    assert f"{run_id} is PENDING now" in page.post("/do/edit", data=inputs).text
    assert [one.id for one in history.find(history.Query()).runs] == [run_id]
    assert AsyncResult[Any](run_id).record().args == {"user_id": "u-1"}


def test_a_failed_run_whose_letter_was_dropped_is_not_sent(page: TestClient) -> None:
    run_id = failed(user_id="u-1")
    dead_letters.drop("emails", dead_letters.Filter(ids=frozenset({run_id})))
    form = {"id": run_id, "arg:user_id": "u-2", "confirmed": "1"}
    assert f"{run_id} is no longer a dead letter" in page.post("/do/edit", data=form).text
    assert AsyncResult[Any](run_id).status == "FAILURE"


def test_all_that_match_are_retried_or_revoked_after_a_look_at_them(page: TestClient) -> None:
    bad = [failed(user_id="u-1") for _ in range(2)]
    live = run(user_id="u-1")
    other = run(user_id="u-2")
    asked = page.post("/do/revoke", data={"query": "user_id=u-1"}).text
    assert live in asked
    assert other not in asked
    assert "1 revoked" in done(page, "revoke", {"query": "user_id=u-1"})
    assert "2 sent again" in done(page, "retry", {"query": "user_id=u-1"})
    assert [AsyncResult[Any](one).status for one in (*bad, live, other)] == [
        "PENDING", "PENDING", "REVOKED", "PENDING",
    ]  # fmt: skip


def test_a_group_of_dead_letters_is_retried_and_another_dropped(page: TestClient) -> None:
    slow = [failed("Timeout", user_id="u-1") for _ in range(3)]
    gone = [failed("Bounced", user_id="u-2") for _ in range(2)]
    group = {"queue": "emails", "task": "send_welcome_email"}
    assert "3 dead letters sent again" in done(page, "retry-letters", {**group, "error": "Timeout"})
    assert "2 dead letters dropped" in done(page, "drop-letters", {**group, "error": "Bounced"})
    assert {AsyncResult[Any](one).status for one in slow} == {"PENDING"}
    assert {AsyncResult[Any](one).status for one in gone} == {"FAILURE"}
    assert "No dead letters" in page.get("/parts/groups").text


def test_letters_that_arrive_after_the_question_are_not_acted_on(page: TestClient) -> None:
    group = {"queue": "emails", "task": "send_welcome_email", "error": "Timeout"}
    for action, outcome in (
        ("retry-letters", "2 dead letters sent again"),
        ("edit-letters", "2 dead letters sent again"),
        ("drop-letters", "2 dead letters dropped"),
    ):
        moto_cloud.clear()
        for _ in range(2):
            failed("Timeout", user_id="u-1")
        inputs = question(page, action, {**group, "args": "{}"})
        next_millisecond()
        late = failed("Timeout", user_id="u-1")
        assert outcome in page.post(f"/do/{action}", data=inputs).text
        assert [one.id for one in dead_letters.read("emails", dead_letters.Filter())] == [late]


@pytest.mark.parametrize(
    ("action", "outcome", "after"),
    [
        ("retry", "1 sent again", ["PENDING", "FAILURE", "FAILURE"]),
        ("revoke", "1 revoked", ["FAILURE", "REVOKED", "PENDING"]),
    ],
)
def test_a_confirmed_query_acts_on_the_runs_that_it_had_found(
    page: TestClient, action: str, outcome: str, after: list[str]
) -> None:
    # Given a run that has failed and one that waits, when someone has asked about all that match
    bad, waits = failed(user_id="u-1"), run(user_id="u-1")
    inputs = question(page, action, {"query": "user_id=u-1"})
    assert inputs["id"] == [bad if action == "retry" else waits]
    # And meanwhile the other fails, and another comes that matches as well
    if action == "retry":
        fail(waits, user_id="u-1")
        late = failed(user_id="u-1")
    else:
        late = run(user_id="u-1")
    # Then the confirmation leaves both alone
    assert outcome in page.post(f"/do/{action}", data=inputs).text
    assert [AsyncResult[Any](one).status for one in (bad, waits, late)] == after
    assert [(entry.what, dict(entry.about)) for entry in audit.entries()] == [(action, {"query": "user_id=u-1"})]


def test_letters_that_someone_else_has_handled_are_not_asked_about(page: TestClient) -> None:
    group = {"queue": "emails", "task": "send_welcome_email", "error": "Timeout"}
    assert "emails has no such dead letters" in page.post("/do/drop-letters", data=group).text


@pytest.mark.parametrize("ids", [[""], ["0"], "01a203f2", [None]])
def test_the_api_takes_dead_letters_by_whole_ids_only(page: TestClient, ids: Any) -> None:
    kept = {failed(user_id="u-1") for _ in range(2)}
    for action in ("drop-letters", "retry-letters"):
        answer = page.post(f"/api/v1/do/{action}", json={"queue": "emails", "id": ids, "confirmed": True})
        assert answer.status_code == 400
        assert "is not a run id" in answer.json()["error"]["what"]
    assert {one.id for one in dead_letters.read("emails", dead_letters.Filter())} == kept


def test_an_edit_requires_exactly_one_known_run(page: TestClient) -> None:
    both, gone = [failed(user_id="u-1") for _ in range(2)], new_id()
    for ids, what in ((both, "These are 2 runs"), (gone, f"{gone} is unknown"), ([gone], f"{gone} is unknown")):
        for confirmed in (False, True):
            form = {"id": ids, "args": {"user_id": "u-2"}, "confirmed": confirmed}
            answer = page.post("/api/v1/do/edit", json=form)
            assert (answer.status_code, answer.json()["error"]["what"]) == (400, what)
    assert {AsyncResult[Any](one).status for one in both} == {"FAILURE"}


def test_an_action_on_a_group_does_not_affect_one_with_a_longer_name(page: TestClient) -> None:
    group = {"queue": "emails", "task": "send_welcome_email"}
    mine, other = failed("Timeout", user_id="u-1"), failed("ReadTimeout", user_id="u-2")
    assert "1 dead letter dropped" in done(page, "drop-letters", {**group, "error": "Timeout"})
    text = page.get("/parts/letters").text
    assert mine not in text
    assert other in text


def test_the_letters_of_a_group_are_sent_again_with_an_argument_replaced(page: TestClient) -> None:
    group = {"queue": "emails", "task": "send_welcome_email", "error": "Timeout"}
    ids = [failed("Timeout", user_id=f"u-{n}", greeting="x") for n in range(3)]
    refused = page.post("/do/edit-letters", data={**group, "args": "{}"}).text
    assert "None of these dead letters would be valid with these arguments" in refused
    assert "greeting" in refused
    text = done(page, "edit-letters", {**group, "args": json.dumps({"greeting": None})})
    assert "3 dead letters sent again" in text
    records = [AsyncResult[Any](one).record() for one in ids]
    assert [(one.status, one.args) for one in records] == [("PENDING", {"user_id": f"u-{n}"}) for n in range(3)]
    assert "No dead letters" in page.get("/parts/groups").text


def test_a_letter_whose_edited_arguments_are_invalid_stays(page: TestClient) -> None:
    group = {"queue": "emails", "task": "send_welcome_email", "error": "Timeout"}
    failed("Timeout", user_id="u-1")
    bad = failed("Timeout", user_id="u-2", greeting="x")
    text = done(page, "edit-letters", {**group, "args": "{}"})
    assert "1 dead letter sent again" in text
    assert "1 were not" in text
    assert bad in page.get("/parts/letters").text


def test_a_schedule_is_run_now(page: TestClient) -> None:
    text = done(page, "run", {"task": "cleanup_old_posts"})
    assert "Sent: " in text


# --- for programs ---


def test_the_api_gives_every_view_and_its_document_has_their_shapes(page: TestClient) -> None:
    run_id = failed(user_id="u-1")
    described = page.get("/api/v1/openapi.json").json()
    paths, schemas = described["paths"], described["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/(\w+)", json.dumps(described))) <= set(schemas)
    assert {f"/api/v1/do/{name}" for name in ACTIONS} < set(paths)
    operations = [one["operationId"] for methods in paths.values() for one in methods.values()]
    assert len(operations) == len(set(operations))
    for path, methods in paths.items():
        if "get" in methods:
            answer = page.get(path.replace("{id}", run_id).replace("{task}", "cleanup_old_posts"))
            assert answer.status_code == 200, path
            schema = methods["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            fits(answer.json(), schema, schemas, path)
    found = page.get("/api/v1/runs", params={"q": "status:failure"}).json()
    assert [one["id"] for one in found["runs"]] == [run_id]
    assert page.get("/api/v1/runs", params={"q": run_id[-8:]}).json()["runs"] == found["runs"]
    assert page.get(f"/api/v1/runs/{run_id[-8:]}").json()["id"] == run_id
    assert page.get("/api/v1/runs", params={"q": "status:done"}).status_code == 400
    assert page.get("/api/v1/runs", params={"limit": "0"}).status_code == 400
    assert page.get(f"/api/v1/runs/{new_id()}").json()["error"]["what"].endswith("is unknown")
    assert page.get("/api/v1/schedules/nothing/firings").status_code == 404


KINDS: Mapping[str, type | tuple[type, ...]] = {
    "string": str, "number": (int, float), "integer": int, "boolean": bool, "array": list, "object": dict,
    "null": type(None),
}  # fmt: skip


def fits(value: Any, schema: Mapping[str, Any], schemas: Mapping[str, Any], where: str) -> None:
    """Fails unless a response has the types of its schema, and exactly its names, at every level."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if any_of := schema.get("anyOf"):
        kinds = [one for one in any_of if one.get("type") != "null"]
        assert value is not None or len(kinds) < len(any_of), where
        if value is not None and len(kinds) == 1:
            fits(value, kinds[0], schemas, where)
        return
    if kind := schema.get("type"):
        assert isinstance(value, KINDS[kind]), f"{where}: {value!r} is not a {kind}"
    if schema.get("format") == "date-time":
        assert datetime.fromisoformat(value).tzinfo is not None, f"{where}: {value}"
    if "properties" in schema:
        assert set(value) == set(schema["properties"]), where
        for name, own in schema["properties"].items():
            fits(value[name], own, schemas, f"{where}.{name}")
    for n, item in enumerate(value if "items" in schema else ()):
        fits(item, schema["items"], schemas, f"{where}.{n}")


def test_an_action_of_the_api_says_what_it_would_do_and_does_it(world: World) -> None:
    program = TestClient(make(Site(Choice()), PORT, KEY), base_url=f"http://127.0.0.1:{PORT}")
    program.headers["Authorization"] = f"Bearer {KEY}"
    asked = program.post("/api/v1/do/pause", json={"queue": "media"}).json()
    assert asked == {"question": "Pause media of nexus-test?", "lines": [], "confirm_with": {}, "confirmed": False}
    for no in (False, "false", "", 0, None, [], ["1"]):
        assert program.post("/api/v1/do/pause", json={"queue": "media", "confirmed": no}).json() == asked
    assert world.calls == []
    assert program.post("/api/v1/do/pause", json={"queue": "media", "confirmed": True}).json()["confirmed"]
    assert world.calls == [("media",)]
    args = {"task": send_welcome_email.name, "args": {"user_id": "u-1"}, "confirmed": True}
    assert program.post("/api/v1/do/send", json=args).json()["done"].startswith("Sent: ")
    assert program.post("/api/v1/do/send", content="{").status_code == 400
    # What the plan says to add limits a confirmation to what the plan was about
    group = {"queue": "emails", "task": "send_welcome_email"}
    failed(user_id="u-1")
    asked = program.post("/api/v1/do/drop-letters", json=group).json()
    next_millisecond()
    late = failed(user_id="u-1")
    confirmed = {**group, **asked["confirm_with"], "confirmed": True}
    assert program.post("/api/v1/do/drop-letters", json=confirmed).json()["done"] == "1 dead letter dropped."
    found = program.get("/api/v1/dead-letters").json()
    assert [one["id"] for one in found] == [late]


def test_the_metrics_are_open_metrics(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    ended = [
        logs.Event(now + n, "emails", "send_welcome_email", f"r-{n}", outcome, 1, seconds)
        for n, (outcome, seconds) in enumerate([("success", 0.2), ("success", 0.25), ("failure", 400.0)])
    ]
    before = logs.Event(now - 3600, "emails", "send_welcome_email", "r-0", "success", 1, 1.0)
    known = [before, *ended]
    monkeypatch.setattr(logs, "events", lambda _queues, start, _task: [one for one in known if one.at >= start])
    page.get("/metrics")
    answer = page.get("/metrics")  # no attempt is counted twice
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    lines = answer.text.splitlines()
    of_task = 'task="send_welcome_email",queue="emails"'
    for line in (
        'nexus_queue_waiting_messages{queue="media"} 3',
        f'nexus_task_attempts_total{{{of_task},outcome="success"}} 2',
        f'nexus_task_attempts_total{{{of_task},outcome="failure"}} 1',
        f'nexus_task_duration_seconds_bucket{{{of_task},le="0.1"}} 0',
        f'nexus_task_duration_seconds_bucket{{{of_task},le="0.25"}} 2',
        f'nexus_task_duration_seconds_bucket{{{of_task},le="300.0"}} 2',
        f'nexus_task_duration_seconds_bucket{{{of_task},le="+Inf"}} 3',
        f"nexus_task_duration_seconds_count{{{of_task}}} 3",
        f"nexus_task_duration_seconds_sum{{{of_task}}} 400.45",
    ):
        assert line in lines
    assert answer.text.endswith("# EOF\n")
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", answer.text, re.MULTILINE))
    suffixes = {"gauge": "", "counter": "_(total|created)", "histogram": "_(bucket|count|sum|created)"}
    for line in lines:
        if not line.startswith("#"):
            assert re.fullmatch(r'\w+\{(\w+="[^"]*",?)+\} [\d.]+', line), line
            name = line.partition("{")[0]
            assert any(re.fullmatch(family + suffixes[kind], name) for family, kind in kinds.items()), line


def test_grafanas_dashboard_and_rules_use_existing_metrics_and_labels(
    page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = logs.Event(time.time() + 1, "emails", "send_welcome_email", "r-1", "failure", 1, 0.2)
    monkeypatch.setattr(logs, "events", lambda *_: [event])
    samples = re.findall(r"^(\w+)\{(.+)\} ", page.get("/metrics").text, re.MULTILINE)
    labels = {name: set(re.findall(r'(\w+)="', text)) for name, text in samples}
    dashboard = json.loads((GRAFANA / "dashboard.json").read_text())
    rules = yaml.safe_load((GRAFANA / "alerts.yaml").read_text())["groups"][0]["rules"]
    asked = [(target["expr"], target["legendFormat"]) for one in dashboard["panels"] for target in one["targets"]]
    asked += [(one["expr"], " ".join(one["annotations"].values())) for one in rules]
    assert len(asked) == len(dashboard["panels"]) + len(rules)
    for expression, shown in asked:
        named = set(re.findall(r"\bnexus_\w+", expression))
        assert named, expression
        assert named <= set(labels), expression
        known = set.union(*(labels[name] for name in named))
        used = re.findall(r"(\w+)=~?\"", expression) + re.findall(r"{{ ?(?:\$labels\.)?(\w+) ?}}", shown)
        used += [name for group in re.findall(r"by \(([^)]+)\)", expression) for name in group.split(", ")]
        assert set(used) <= known | {"le"}, expression


def test_metrics_that_cannot_be_had_say_why(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "FilterLogEvents")

    monkeypatch.setattr(logs, "events", denied)
    answer = page.get("/metrics")
    assert answer.status_code == 503
    assert "FilterLogEvents" in answer.text


# --- the command ---


class Listener:
    """A socket; `taken` if another program has the port."""

    def __init__(self, *, taken: bool = False) -> None:
        self.taken = taken

    def setsockopt(self, *_: int) -> None: ...

    def bind(self, address: tuple[str, int]) -> None:
        if self.taken:
            raise OSError("Address already in use")

    def listen(self) -> None: ...


@pytest.mark.usefixtures("world")
def test_a_port_that_is_in_use_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("socket.socket", lambda: Listener(taken=True))
    assert main(["web", "--port", "8765"]) == ExitCode.USAGE
    assert "Port 8765 cannot be used" in capsys.readouterr().err


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("words", [[], ["--no-open"], ["--no-open", "--read-only"]])
def test_the_server_opens_the_browser_and_runs_until_interrupted(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    served: list[Any] = []
    monkeypatch.setenv("NEXUS_WEB_KEY", "the & key")
    monkeypatch.setattr("socket.socket", Listener)
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("uvicorn.Server.run", lambda _, sockets: served.extend(sockets))

    assert main(["web", "--port", "8765", *words]) == ExitCode.DONE

    address = "http://127.0.0.1:8765/?key="
    printed = capsys.readouterr().out
    assert printed == f"nexus-test{' (read-only)' if '--read-only' in words else ''}: {address}the+%26+key\n"
    assert [one.startswith(address) and one not in printed for one in opened] == ([] if words else [True])
    assert len(served) == 1


# --- money ---

DIGEST = "send_content_digest_email"
SPENT = Spent(gb_seconds=0.1, invocations=1.0, writes=6.0, messages=3.0, puts=2.0, log_bytes=1000.0)


def measured() -> str:
    """A run with the usage of SPENT."""
    run_id = failed(user_id="u-1")
    backend().store.apply(Write(run_id, {"spent": SPENT.text()}))
    return run_id


def test_the_cost_page_shows_dollars_by_task_queue_and_part_and_idle_costs(page: TestClient) -> None:
    measured()
    run(user_id="u-2")
    shown = page.get("/parts/cost").text
    assert shown.count(cost.dollars(SPENT.dollars)) >= 4  # today and the week, of the task and of its queue
    assert "By task" in shown
    assert "By queue" in shown
    assert "S3 $0.000010" in shown
    each = page.get("/parts/cost/each").text
    assert cost.dollars(SPENT.dollars / 2) in each
    assert "27 alarms" in page.get("/parts/cost/idle").text
    assert "$2.70" in page.get("/parts/cost/idle").text
    assert cost.dollars(SPENT.dollars) in page.get("/parts/money").text
    assert "No run has been sent" in page.get("/parts/tasks/cleanup_old_posts/cost").text


def test_the_costs_of_groups_link_to_their_runs_and_to_no_queue(page: TestClient) -> None:
    """Groups are in no catalogue, so they have no page of their own."""
    group(ping.s(text="a"), ping.s(text="b")).delay()
    shown = page.get("/parts/cost").text
    assert ">no queue<" in shown
    assert not re.search(r'q=queue:("|no)', shown)
    for part in ("cost", "cost/each"):
        assert '"/runs?q=task:group"' in page.get(f"/parts/{part}").text
    assert "group" in page.get("/parts/runs?q=task:group").text


@pytest.mark.usefixtures("world")
def test_costs_that_are_kept_for_hours_say_when_they_were_read() -> None:
    served = Site(Choice())
    served.costs()
    kept: Any = served._costs
    kept._answer = replace(kept._answer, value=(time.time() - 7200, kept._answer.value[1]))
    for part in ("money", "cost"):
        assert re.search(r"today, read <time[^>]*>2h", site(of=served).get(f"/parts/{part}").text)


def test_a_run_says_what_it_cost_on_its_page_and_in_the_api(page: TestClient) -> None:
    run_id = measured()
    assert cost.dollars(SPENT.dollars) in page.get(f"/parts/run/{run_id}").text
    reported = page.get(f"/api/v1/runs/{run_id}").json()["cost"]
    assert reported["dollars"] == pytest.approx(SPENT.dollars, abs=1e-6)
    assert reported["used"]["puts"] == 2
    assert page.get(f"/api/v1/runs/{run(user_id='u-2')}").json()["cost"] is None


def test_a_budget_is_set_and_taken_back_on_the_page(page: TestClient) -> None:
    assert f'id="d-{DIGEST}"' in page.get("/parts/budgets").text
    asked = page.post("/do/budget", data={"task": DIGEST, "dollars": "none", "runs": "20"})
    assert "20 attempts" in asked.text
    assert "20 attempts a day" in done(page, "budget", {"task": DIGEST, "dollars": "none", "runs": "20"})
    assert budgets.of(DIGEST).operators == Budget(None, 20)
    shown = page.get("/parts/budgets").text
    assert "Set by an operator; declared: $100.00" in shown
    assert "$100.00 a day" in done(page, "budget", {"task": DIGEST, "declared": "1"})
    assert "Back to the declared" not in page.get("/parts/budgets").text
    assert "is not a limit" in page.post("/do/budget", data={"task": DIGEST, "dollars": "much"}).text
    assert "has no budget" in page.post("/do/budget", data={"task": "ping", "dollars": "1"}).text


def test_a_spent_budget_is_shown_with_what_happens_to_its_messages(page: TestClient) -> None:
    budgets.set_limits(DIGEST, Budget(runs=0))
    shown = page.get("/parts/budgets").text
    assert 'class="pill warning">spent' in shown
    assert "none is lost" in shown


def test_costs_and_budgets_are_in_the_api_and_in_the_metrics(page: TestClient) -> None:
    measured()
    reported = page.get("/api/v1/cost").json()
    assert reported["by_task"][0]["name"] == "send_welcome_email"
    assert reported["today"]["dollars"] == pytest.approx(SPENT.dollars, rel=0.01)
    assert reported["month_ahead"] > 2.7
    assert reported["idle"] == [{"what": "27 alarms", "dollars": 2.7}]
    (one,) = page.get("/api/v1/budgets").json()
    assert (one["task"], one["declared"]["dollars"], one["spent"]) == (DIGEST, 100.0, False)
    paths = page.get("/api/v1/openapi.json").json()["paths"]
    assert {"/api/v1/cost", "/api/v1/budgets", "/api/v1/do/budget"} <= paths.keys()
    text = page.get("/metrics").text
    assert re.search(r'nexus_task_cost_today_dollars\{task="send_welcome_email",queue="emails"\} \d', text)
    assert f'nexus_task_budget_spent{{task="{DIGEST}"}} 0\n' in text


def test_without_a_run_history_the_cost_page_says_so_and_the_metrics_have_no_costs(
    page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "INDEX", "gone")
    assert "The run history is not kept here" in page.get("/parts/cost").text
    metrics = page.get("/metrics")
    assert metrics.status_code == 200
    assert "nexus_queue_waiting_messages" in metrics.text
    assert "dollars" not in metrics.text


def test_metrics_that_aws_denies_are_an_error_and_are_not_left_out(
    page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DynamoDB:
        def scan(self, **_: Any) -> None:
            why = "not authorized to perform: dynamodb:Scan on resource: table/nexus-test-task-runs/index/history"
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": why}}, "Scan")

    monkeypatch.setattr(history, "client", lambda _: DynamoDB())
    metrics = page.get("/metrics")
    assert metrics.status_code == 503
    assert metrics.text.startswith("Permission denied: Scan was denied")
