"""`nexus web` in a browser: what an operator does with it from a failure to its success, without the mouse's luck.

The policy refuses everything that does not come from the page's own host, so an error in the browser's console is also
a request to elsewhere, or a script that another person's text has brought in.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nexus.backend import backend
from nexus.backend.transport import Message
from nexus.client import AsyncResult
from nexus.envelope import Envelope
from nexus.ids import new_id
from nexus.settings import Settings
from tests.support import axe
from tests.support.browser import Page, browser
from tests.support.stack import eventually

PICTURES = Path(os.environ.get("NEXUS_SCREENSHOTS", ".local/screenshots"))
EVIL = '"><img src=x onerror=alert(1)><script>alert(1)</script>\u202e'


@pytest.fixture(scope="module")
def address(stack: Settings) -> Iterator[str]:
    """The page's address, with its key."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    key = secrets.token_urlsafe(8)
    program = "import sys; from ops.main import main; sys.exit(main(sys.argv[1:]))"
    server = subprocess.Popen(
        [sys.executable, "-c", program, "web", "--no-open", "--port", str(port)],
        env={**os.environ, "NEXUS_WEB_KEY": key, "PYTHONPATH": "shared:."},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert f":{port}/?key={key}" in server.stdout.readline()
    eventually(lambda: _answers(port))
    yield f"http://127.0.0.1:{port}/?key={key}"
    server.terminate()
    server.wait(20)
    server.stdout.close()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def page(address: str, tmp_path: Path) -> Iterator[Page]:
    """A browser that has opened the address; at the end nothing may have gone wrong in it."""
    with browser(tmp_path / "profile") as opened:
        opened.look(width=1600, height=1000)
        opened.open(address)
        opened.wait_for("!document.querySelector('.skeleton')")
        yield opened
        assert opened.errors == []


def go(page: Page, path: str) -> None:
    """Opens a path, and waits for its parts."""
    page.open(page.evaluate("location.origin") + path)
    page.wait_for("!document.querySelector('.skeleton')")


def click(page: Page, selector: str) -> None:
    page.wait_for(f"document.querySelector({json.dumps(selector)})")
    page.evaluate(f"document.querySelector({json.dumps(selector)}).click()")


def confirm(page: Page) -> str:
    """Says yes to the question, and gives what was done."""
    page.wait_for("document.querySelector('#dialog[open] [data-confirm]')")
    click(page, "#dialog button.primary")
    return str(page.wait_for("document.querySelector('#notices .notice')?.innerText"))


def failed(stack: Settings, **args: Any) -> str:
    """A run of send_welcome_email that cannot start, for it has an argument too many."""
    envelope = Envelope(id=new_id(), task="send_welcome_email", args={**args, "greeting": EVIL})
    assert backend().transport.send("emails", [Message.of(envelope)]) == {}
    assert eventually(lambda: AsyncResult[Any](envelope.id).status == "FAILURE")
    return envelope.id


def test_a_failed_run_is_found_by_its_argument_edited_and_sent_again(page: Page, stack: Settings) -> None:
    user = f"u-{uuid.uuid4().hex[:8]}"
    run_id = failed(stack, user_id=user)
    go(page, "/runs")
    page.fill("#q", f"status:failure user_id={user}")
    page.press("Enter")
    page.wait_for("document.querySelectorAll('[data-rows] tbody tr').length === 1")
    page.wait_for(f"document.querySelector('a.id[href=\"/runs/{run_id}\"]')")
    assert user in page.evaluate("location.search")  # the view has an address to share
    click(page, "a.id")
    page.wait_for("document.querySelector('#args')")
    assert "greeting: Extra inputs" in page.text()
    args = json.dumps({"user_id": user})
    page.evaluate(f"document.querySelector('#args').value = {json.dumps(args)}")
    click(page, "form[hx-post='/do/edit'] button")
    assert run_id in confirm(page)
    page.wait_for("document.querySelector('h1 .pill.success')", within=60)
    assert AsyncResult[Any](run_id).status == "SUCCESS"


def test_a_queue_is_paused_and_the_overview_says_so_and_it_goes_on(page: Page, stack: Settings) -> None:
    go(page, "/")
    form = "form[hx-post='/do/%s']:has(input[value=maintenance])"
    click(page, f"{form % 'pause'} button")
    assert "paused" in confirm(page)
    page.wait_for("[...document.querySelectorAll('.health li')].some((one) => one.innerText.includes('is paused'))")
    click(page, f"{form % 'resume'} button")
    confirm(page)
    page.wait_for(f"document.querySelector({json.dumps(form % 'pause')})")
    go(page, "/audit")
    assert "resume" in page.text()


def test_a_schedule_is_changed_after_a_look_at_its_times_and_put_back(page: Page, stack: Settings) -> None:
    field = "#cleanup_old_posts input[name=expression]"
    go(page, "/schedules")
    before = page.evaluate(f"document.querySelector('{field}').value")
    for expression in ("cron(30 4 ? * SUN *)", before):
        page.evaluate(f"document.querySelector('{field}').value = {json.dumps(expression)}")
        click(page, "#cleanup_old_posts form[hx-post='/do/change'] button")
        page.wait_for("document.querySelector('#dialog pre')?.innerText.split('UTC').length === 6")
        confirm(page)
        page.wait_for(f"document.querySelector('#cleanup_old_posts code')?.innerText === {json.dumps(expression)}")
        page.wait_for("!document.querySelector('#dialog[open]')")


def test_dead_letters_go_by_the_group(page: Page, stack: Settings) -> None:
    task = f"gone_{uuid.uuid4().hex[:8]}"
    envelopes = [Envelope(id=new_id(), task=task, args={"text": EVIL}) for _ in range(30)]
    assert backend().transport.send("users", [Message.of(one) for one in envelopes]) == {}
    assert eventually(lambda: all(AsyncResult[Any](one.id).status == "FAILURE" for one in envelopes))
    go(page, "/dead-letters")
    group = f"form[hx-post='/do/drop-letters']:has(input[value={task}])"
    page.wait_for(f"document.querySelector({json.dumps(group)})")
    click(page, f"{group} button")
    page.wait_for("document.querySelector('#dialog h2')?.innerText.includes('30 dead letters')")
    assert "30 dead letters dropped" in confirm(page)
    page.wait_for(f"!document.querySelector({json.dumps(group)}) && !document.querySelector('.skeleton')")


def test_the_keys_of_the_keyboard(page: Page, stack: Settings) -> None:
    failed(stack, user_id="u-keys")

    def key(text: str) -> None:
        page.send("Input.dispatchKeyEvent", {"type": "keyDown", "key": text, "text": text})
        page.send("Input.dispatchKeyEvent", {"type": "keyUp", "key": text})

    key("g")
    key("r")
    page.wait_for("location.pathname === '/runs' && document.querySelector('[data-rows] tbody tr')")
    key("j")
    page.wait_for("document.querySelector('tr.here')")
    key("/")
    page.wait_for("document.activeElement.id === 'q'")
    page.evaluate("document.activeElement.blur()")
    key("?")
    page.wait_for("document.querySelector('#help').open")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_is_accessible_and_fits(page: Page, stack: Settings, *, dark: bool) -> None:
    run_id = failed(stack, user_id=f"u-{EVIL}")
    for path in ("/", "/runs", f"/runs/{run_id}", "/dead-letters", "/schedules", "/tasks", "/tasks/ping", "/functions"):
        for width in (400, 1600):
            page.look(width=width, height=1000, dark=dark)
            go(page, path)
            time.sleep(0.2)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{path} is {wide} wide at {width}"
            name = f"web{path.replace('/', '-').replace(run_id, 'id')}-{width}-{'dark' if dark else 'light'}.png"
            page.screenshot(PICTURES / name)
        assert axe.violations(page) == [], path
