"""`nexus web` in a browser: what an operator does with it, from a failed run to its success.

The policy refuses everything that does not come from the page's own host, so an error in the browser's console is also
a request to elsewhere, or a script that another person's text has brought in.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import batched
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nexus.aws.sdk import client
from nexus.backend import backend
from nexus.backend.store import Value, Write
from nexus.backend.transport import Message, queue_url
from nexus.client import AsyncResult
from nexus.envelope import Envelope
from nexus.ids import new_id
from nexus.settings import Settings, settings
from ops import control, dead_letters, deployment, health, history
from ops.deployment import Choice
from ops.social import upload
from tests.support import axe
from tests.support.browser import Page, browser
from tests.support.patience import PATIENCE, eventually

LETTERS = int(os.environ.get("NEXUS_LOAD_LETTERS", "1000"))
"""Dead letters of the test of groups: 10,000 take some minutes on the local cloud."""

README, SHOWN = Path("README.md"), Path("docs/nexus-web.png")
PICTURES = Path(os.environ.get("NEXUS_SCREENSHOTS", ".local/screenshots"))
EVIL = '"><img src=x onerror=alert(1)><script>alert(1)</script>\u202e'


@contextmanager
def served(*options: str) -> Iterator[str]:
    """`nexus web` with these options: its address, with its key."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    key = secrets.token_urlsafe(8)
    program = "import sys; from ops.main import main; sys.exit(main(sys.argv[1:]))"
    server = subprocess.Popen(
        [sys.executable, "-c", program, "web", "--no-open", "--port", str(port), *options],
        env={**os.environ, "NEXUS_WEB_KEY": key, "PYTHONPATH": "shared:."},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert f":{port}/?key={key}" in server.stdout.readline()
    eventually(lambda: _answers(port))
    try:
        yield f"http://127.0.0.1:{port}/?key={key}"
    finally:
        server.terminate()
        server.wait(PATIENCE)
        server.stdout.close()


@pytest.fixture(scope="module", autouse=True)
def connected(stack: Settings) -> None:
    """The page's data source reads the queues of the deployment that it is connected to."""
    deployment.connect(Choice(stack.stack, None, None))


@pytest.fixture(scope="module")
def address(stack: Settings) -> Iterator[str]:
    with served() as address:
        yield address


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


@pytest.fixture
def page(address: str, chromium: Page) -> Iterator[Page]:
    """A browser without cookies that has opened the address. Fails at the end if the page had an error."""
    chromium.send("Page.navigate", {"url": "about:blank"})
    chromium.send("Network.clearBrowserCookies")
    chromium.send("Storage.clearDataForOrigin", {"origin": address.partition("/?")[0], "storageTypes": "all"})
    chromium.errors.clear()
    chromium.look(width=1600, height=1000)
    chromium.open(address)
    chromium.wait_for("!document.querySelector('.skeleton')")
    yield chromium
    assert chromium.errors == []


def go(page: Page, path: str, *, within: float = PATIENCE) -> None:
    """Opens a path, and waits for its parts."""
    page.open(page.evaluate("location.origin") + path)
    page.wait_for("!document.querySelector('.skeleton')", within=within)


def click(page: Page, selector: str) -> None:
    page.wait_for(f"document.querySelector({json.dumps(selector)})")
    page.evaluate(f"document.querySelector({json.dumps(selector)}).click()")


def confirm(page: Page) -> str:
    """Confirms the question, which names the dialog for a screen reader, and returns the outcome."""
    page.wait_for("document.querySelector('#dialog[open] [data-confirm]')")
    assert page.evaluate("document.getElementById(dialog.getAttribute('aria-labelledby')).innerText").endswith("?")
    click(page, "#dialog button.primary")
    return str(page.wait_for("document.querySelector('#notices .notice')?.innerText"))


def failed(stack: Settings, **args: Any) -> str:
    """A run of send_welcome_email that cannot start, because it has an unknown argument."""
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
    page.wait_for(f"location.search.includes('{user}')")  # the view has an address to share
    click(page, "a.id")
    page.wait_for("document.querySelector('#args')")
    assert "greeting: Extra inputs" in page.text()
    args = json.dumps({"user_id": user})
    page.evaluate(f"document.querySelector('#args').value = {json.dumps(args)}")
    click(page, "form[hx-post='/do/edit'] button")
    assert run_id in confirm(page)
    page.wait_for("document.querySelector('h1 .pill.success')")
    assert AsyncResult[Any](run_id).status == "SUCCESS"


def test_a_double_click_confirms_once(page: Page, stack: Settings) -> None:
    text = f"twice-{uuid.uuid4().hex[:8]}"
    go(page, "/tasks/ping")
    page.fill("[name='arg:text']", text)
    click(page, "form[hx-post='/do/send'] button")
    page.wait_for("document.querySelector('#dialog[open] [data-confirm]')")
    page.evaluate(
        "for (const button of Array(3).fill(document.querySelector('#dialog button.primary'))) button.click()"
    )
    page.wait_for("document.querySelector('#notices .notice')")
    page.wait_for("!document.querySelector('#dialog[open], .htmx-request')")
    found = eventually(lambda: history.find(history.parse(f"task:ping text={text}")).runs)
    assert len(found) == 1


def test_a_queue_is_paused_as_the_overview_shows_and_is_resumed(page: Page, stack: Settings) -> None:
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


def test_a_concurrency_that_is_not_confirmed_is_not_left_in_its_field(page: Page, stack: Settings) -> None:
    field = "form:has(input[value=maintenance]) input[name=maximum]"
    go(page, "/")
    before = page.evaluate(f"document.querySelector('{field}').value")
    page.evaluate(f"document.querySelector('{field}').value = '7{before}'")
    page.evaluate(f"document.querySelector('{field}').form.requestSubmit()")
    page.wait_for(f"document.querySelector('#dialog[open] h2')?.innerText.includes('7{before}')")
    click(page, "#dialog [data-close]")
    page.wait_for(f"document.querySelector('{field}').value === '{before}'")


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


def test_a_group_of_dead_letters_is_dropped(page: Page, stack: Settings) -> None:
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


def test_many_dead_letters_are_twenty_groups_and_one_of_them_is_sent_again(page: Page, stack: Settings) -> None:
    """The queue is paused meanwhile: what is sent again waits there, and is purged."""
    control.pause("default")
    dead_letters.drop("default", dead_letters.Filter())  # of earlier tests
    try:
        _letters(LETTERS, ["Throttled", *(f"Odd{n}" for n in range(30))])
        go(page, "/dead-letters", within=600)
        page.wait_for("document.querySelectorAll('.card.group').length === 20")
        count = LETTERS - 30
        form = "form[hx-post='/do/retry-letters']:has(input[value=Throttled])"
        click(page, f"{form} button")
        page.wait_for(f"document.querySelector('#dialog h2')?.innerText.includes('{count:,} dead letters')", within=600)
        click(page, "#dialog button.primary")
        page.wait_for("document.querySelector('#notices .notice')?.innerText.includes('sent again')", within=600)
        assert f"{count:,} dead letters sent again" in page.text()
        page.wait_for(f"!document.querySelector({json.dumps(form)})", within=600)
        assert dead_letters.counts(["default"]) == {"default": 30}
        waiting = health.queue_counts(stack.queue_name("default"))
        assert waiting is not None
        assert waiting.waiting >= count
    finally:
        dead_letters.drop("default", dead_letters.Filter())
        control.purge("default")
        control.resume("default")


def _letters(number: int, errors: list[str]) -> None:
    """Dead letters of the queue default with their failed runs: one of each error, and the rest of the first."""
    sqs, url = client("sqs"), queue_url(settings().dead_letter_queue_name("default"))
    names = [*errors[1:], *[errors[0]] * (number - len(errors) + 1)]

    def write(page: tuple[str, ...]) -> None:
        letters = [(Envelope(id=new_id(), task="ping", args={"text": EVIL}), name) for name in page]
        values: dict[str, Value] = {"status": "FAILURE", "task": "ping", "queue": "default", "expires": 2_000_000_000}
        backend().store.apply_all([Write(one.id, {**values, "sent_at": 1.0}, insert=True) for one, _ in letters])
        entries: Any = [
            {
                "Id": str(n),
                "MessageBody": one.encode(),
                "MessageGroupId": "ping",
                "MessageAttributes": {
                    key: {"DataType": "String", "StringValue": value}
                    for key, value in {
                        "ErrorType": name,
                        "ErrorMessage": EVIL[:-1],
                        "Task": "ping",
                        "RunId": one.id,
                    }.items()
                },
            }
            for n, (one, name) in enumerate(letters)
        ]
        assert not sqs.send_message_batch(QueueUrl=url, Entries=entries).get("Failed")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, batched(names, 10, strict=False)))


def test_read_only_offers_no_action_and_refuses_one(stack: Settings, tmp_path: Path) -> None:
    run_id = failed(stack, user_id="u-read-only")
    with served("--read-only") as address, browser(tmp_path / "profile") as page:
        page.open(address)
        for path in ("/", f"/runs/{run_id}", "/dead-letters", "/schedules", "/tasks/ping", "/functions"):
            go(page, path)
            assert page.evaluate("document.querySelectorAll('[hx-post]').length") == 0, path
        reported = page.evaluate(
            """fetch('/do/pause', {method: 'POST', body: new URLSearchParams({queue: 'media', confirmed: '1'}),
               headers: {'X-Nexus-Token': document.body.dataset.token}}).then((answer) => answer.text())"""
        )
        assert "This page is read-only" in reported
        assert control.concurrency("media").state == "Enabled"
        assert page.errors == []


def test_names_that_try_to_inject_are_text_on_every_page_and_in_every_link(page: Page, stack: Settings) -> None:
    run_id = failed(stack, user_id=EVIL)
    unknown = Envelope(id=new_id(), task="no_such_task", args={"tag": EVIL, EVIL: EVIL})
    assert backend().transport.send("users", [Message.of(unknown)]) == {}
    assert eventually(lambda: AsyncResult[Any](unknown.id).status == "FAILURE")
    for path in ("/", "/runs", f"/runs/{run_id}", f"/runs/{unknown.id}", "/dead-letters", "/audit"):
        go(page, path)
        assert page.evaluate("document.querySelectorAll('img[src=x], main script').length") == 0, path
    go(page, "/runs?q=status:failure")
    page.wait_for("[...document.querySelectorAll('button.filter')].some((one) => one.innerText.includes('<img'))")
    page.evaluate(
        "[...document.querySelectorAll('button.filter')].find((one) => one.innerText.includes('<img')).click()"
    )
    page.wait_for("decodeURIComponent(location.search).includes('alert(1)')")
    page.wait_for(
        "!document.querySelector('.htmx-request') && document.querySelector('#found table, #found .empty, .error')"
    )
    assert page.evaluate("document.querySelectorAll('img[src=x], main script').length") == 0


def test_an_uploads_renditions_are_pictures_on_its_runs_page(page: Page, stack: Settings, tmp_path: Path) -> None:
    picture = tmp_path / "alps.jpg"
    Image.effect_noise((640, 480), 60).convert("RGB").save(picture)
    sent = upload.send(picture, f"u-{uuid.uuid4().hex[:8]}")
    assert upload.settled(sent, PATIENCE)
    query = history.parse(f"task:process_media_upload key={sent.key}")
    (record,) = eventually(lambda: [one for one in history.find(query).runs if one.status == "SUCCESS"])
    go(page, f"/runs/{record.id}")
    page.wait_for(
        "[...document.querySelectorAll('.pictures img')].filter((one) => one.complete && one.naturalWidth).length > 3"
    )
    assert sent.key in page.text()  # where it came from


def test_a_view_of_the_runs_has_a_url_and_new_runs_appear_live(page: Page, stack: Settings) -> None:
    first = failed(stack, user_id="u-live")
    go(page, "/runs")
    click(page, "[data-chip='status:failure']")
    page.wait_for("location.search === '?q=status%3Afailure'")
    page.evaluate("document.querySelector('[name=col][value=queue]').click()")
    page.wait_for(
        "location.search.includes('col=queue') && document.querySelector('#found thead')?.innerText.includes('queue')"
    )
    click(page, "[data-sort=sent]")
    page.wait_for("location.search.includes('sort=-sent') && document.querySelector('th[aria-sort=descending]')")
    shared = page.evaluate("location.pathname + location.search")
    go(page, shared)
    page.wait_for(
        "document.querySelector('th[aria-sort=descending]') && document.querySelector('#q').value === 'status:failure'"
    )
    page.wait_for(f"document.querySelector('a.id[href=\"/runs/{first}\"]')")
    assert "queue" in page.evaluate("document.querySelector('#found thead').innerText")
    assert page.evaluate("location.pathname + location.search") == shared
    page.evaluate("document.querySelector('[data-live]').click()")
    second = failed(stack, user_id="u-live")
    page.wait_for(f"document.querySelector('a.id[href=\"/runs/{second}\"]')")
    # And so is a page of older runs, until another search begins
    go(page, "/runs?after=9999999999.000%2Fx")
    page.wait_for("document.querySelector('#found .pages') && location.search.includes('after=9999999999')")
    click(page, "[data-chip='status:failure']")
    page.wait_for("location.search === '?q=status%3Afailure'")


def test_a_click_on_a_value_filters_by_it(page: Page, stack: Settings) -> None:
    user = f"""it's "{uuid.uuid4().hex[:8]}" a\\b c=d"""
    run_id = failed(stack, user_id=user)
    row = f"tr:has(a.id[href='/runs/{run_id}'])"
    go(page, "/runs?q=status:failure")
    page.wait_for(f"document.querySelector({json.dumps(row)})")
    click(page, f"{row} [data-chip^=user_id]")
    page.wait_for("document.querySelectorAll('[data-rows] tbody tr').length === 1")
    click(page, "[data-chip='since:24h']")  # the other filter stays
    page.wait_for("location.search.includes('since')")
    page.wait_for(
        f"document.querySelectorAll('[data-rows] tbody tr').length === 1 && document.querySelector(\"{row}\")"
    )
    click(page, "[name=id]")
    click(page, "[data-needs][hx-post='/do/retry']")
    assert "sent again" in confirm(page)
    page.wait_for("!document.querySelector('[name=id]:checked') && document.querySelector('#found').innerText")


def test_a_page_that_was_hidden_shows_what_has_happened_since(page: Page, stack: Settings) -> None:
    """The browser sets `document.hidden`; there is no command that hides a headless tab."""
    later = Envelope(id=new_id(), task="ping", args={"text": "x"})
    backend().store.apply(Write(later.id, {"task": "ping", "queue": "default", "status": "PENDING"}, insert=True))
    go(page, f"/runs/{later.id}")
    page.wait_for("document.querySelector('h1 .pill.pending') && opened")
    page.evaluate("Object.defineProperty(document, 'hidden', {configurable: true, get: () => true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    backend().store.apply(Write(later.id, {"status": "REVOKED"}))
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for("document.querySelector('h1 .pill.revoked')")


def test_a_url_fragment_scrolls_to_or_focuses_its_element(page: Page, stack: Settings) -> None:
    page.look(width=1600, height=300)
    go(page, "/schedules#update_user_statistics")
    page.wait_for("scrollY > 0 && document.querySelector('#update_user_statistics').getBoundingClientRect().top < 300")
    go(page, f"/runs/{failed(stack, user_id='u-edit')}#args")
    page.wait_for("document.activeElement.id === 'args'")


def test_a_link_on_another_site_opens_its_page(page: Page, stack: Settings) -> None:
    here = page.evaluate("location.origin")
    page.open(f"data:text/html,<a href='{here}/runs'>a run</a>")
    click(page, "a")
    page.wait_for("location.pathname === '/runs' && document.querySelector('h1')?.innerText === 'Runs'")


def test_the_keys_of_the_keyboard(page: Page, stack: Settings) -> None:
    failed(stack, user_id="u-keys")

    def key(text: str) -> None:
        page.send("Input.dispatchKeyEvent", {"type": "keyDown", "key": text, "text": text})
        page.send("Input.dispatchKeyEvent", {"type": "keyUp", "key": text})

    key("g")
    key("r")
    page.wait_for("location.pathname === '/runs' && document.querySelector('[data-rows] tbody tr')")
    key("j")
    selected = page.wait_for("document.querySelector('tr.here a.id')?.href")
    page.evaluate("htmx.trigger(document.body, 'nexus:changed')")  # the list is replaced, the selection stays
    page.wait_for(
        f"!document.querySelector('.htmx-request') && document.querySelector('tr.here a.id')?.href === '{selected}'"
    )
    key("/")
    page.wait_for("document.activeElement.id === 'q'")
    page.evaluate("document.activeElement.blur()")
    key("?")
    page.wait_for("document.querySelector('#help').open")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_is_accessible_and_fits(page: Page, stack: Settings, *, dark: bool) -> None:
    run_id = failed(stack, user_id=f"u-{EVIL}")
    pages = ("/", "/runs", "/dead-letters", "/schedules", "/tasks", "/tasks/ping", "/functions", "/cost", "/audit")
    for path in (*pages, f"/runs/{run_id}"):
        for width in (400, 1600):
            page.look(width=width, height=1000, dark=dark)
            go(page, path)
            page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{path} is {wide} wide at {width}"
            name = f"web{path.replace('/', '-').replace(run_id, 'id')}-{width}-{'dark' if dark else 'light'}.png"
            page.screenshot(PICTURES / name)
        assert axe.violations(page) == [], path


def test_the_readme_shows_the_screenshot_in_its_size(page: Page, stack: Settings) -> None:
    """NEXUS_WRITE_PICTURE=1 makes it again, after the demo has run on this stack (`make run`)."""
    if os.environ.get("NEXUS_WRITE_PICTURE"):
        page.look(width=1280, height=800)
        go(page, "/")
        page.screenshot(SHOWN)
        with Image.open(SHOWN) as picture:
            picture.convert("RGB").quantize(160, dither=Image.Dither.NONE).save(SHOWN, optimize=True)
    assert f"]({SHOWN})" in README.read_text()
    assert SHOWN.stat().st_size < 150 * 1024
    with Image.open(SHOWN) as picture:
        assert picture.width == 1280
