"""The example application in a browser: registers, uploads straight to S3, and shows what the deployed jobs made.

The server runs on a free port, with only the rights of the stack's policy for web applications. Chromium is
configured so that it is http://localhost:8000, the origin that the upload bucket's CORS rule names, so this tests that
rule as well.
"""

import html
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import boto3
import pytest
from PIL import Image

from examples.photo_wall.app import create_app
from nexus.aws import sdk
from nexus.settings import Settings, settings
from social import mail_links
from social.data import posts, users
from tests.e2e.test_mail import received
from tests.support.browser import Page, browser
from tests.support.clips import make_clip
from tests.support.patience import PATIENCE, eventually

ORIGIN = "http://localhost:8000"
PICTURES = Path(os.environ.get("NEXUS_SCREENSHOTS", ".local/screenshots"))


@pytest.fixture(scope="module")
def credentials(stack: Settings, outputs: dict[str, str]) -> Iterator[dict[str, str]]:
    """A role that may do what the stack's policy for web applications allows, and no more: IAM is enforced."""
    iam, name = boto3.client("iam"), f"e2e-photo-wall-{uuid.uuid4().hex[:8]}"
    statement = {"Effect": "Allow", "Principal": {"AWS": stack.account_id}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    emulator = boto3.client("cloudformation").describe_stack_resource(
        StackName=f"{stack.stack}-emulator", LogicalResourceId="RuntimePolicy"
    )["StackResourceDetail"]["PhysicalResourceId"]
    policies = (outputs["ApplicationPolicyArn"], emulator)
    for policy in policies:
        iam.attach_role_policy(RoleName=name, PolicyArn=policy)
    granted = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName="photo-wall")["Credentials"]
    yield {
        "AWS_ACCESS_KEY_ID": granted["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": granted["SecretAccessKey"],
        "AWS_SESSION_TOKEN": granted["SessionToken"],
    }
    for policy in policies:
        iam.detach_role_policy(RoleName=name, PolicyArn=policy)
    iam.delete_role(RoleName=name)


@pytest.fixture(scope="module")
def port(credentials: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of the server, which runs in its own process."""
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "flask",
                "--app",
                "examples.photo_wall.app",
                "run",
                "--host",
                "localhost",
                "--port",
                "0",
            ],
            env={**os.environ, **credentials, "PYTHONPATH": "shared"},
            stdout=out,
            stderr=out,
        )
    try:
        said = eventually(lambda: re.search(r"Running on http://localhost:(\d+)", log.read_text()))
        yield int(said[1])
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        server.terminate()
        server.wait(PATIENCE)


@pytest.fixture(scope="module")
def page(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    as_if = f"--host-resolver-rules=MAP localhost:8000 127.0.0.1:{port}"
    with browser(tmp_path_factory.mktemp("browser") / "profile", [as_if]) as page:
        yield page


def sign_out(page: Page) -> None:
    page.send("Page.navigate", {"url": "about:blank"})
    page.send("Network.clearBrowserCookies")


def register(page: Page, origin: str = ORIGIN) -> str:
    """A new user, signed in; returns the address."""
    email = f"ada.{uuid.uuid4().hex[:10]}@example.com"
    page.errors.clear()
    page.look(width=1200)
    sign_out(page)
    page.open(origin)
    page.fill("#name", "Ada Lovelace")
    page.fill("#email", email)
    page.press("Enter")
    page.wait_for("document.querySelector('#upload') && document.readyState === 'complete'")
    return email


def look_at(page: Page, name: str) -> None:
    """Screenshots of the page, wide and narrow, light and dark; nothing may overflow."""
    for width, dark in ((1200, False), (1200, True), (400, False)):
        page.look(width=width, dark=dark)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"nothing overflows at {width} px"
        page.screenshot(PICTURES / f"example-{name}-{width}-{'dark' if dark else 'light'}.png")


@pytest.fixture
def user(page: Page) -> str:
    """A new user, signed in; returns the address."""
    return register(page)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "Grüße + mehr.jpg"
    shape = Image.effect_mandelbrot((1600, 1067), (-2, -1.1, 1.3, 1.1), 60)
    Image.merge("RGB", (shape.point(lambda v: 3 * v), shape, Image.linear_gradient("L").resize(shape.size))).save(path)
    return path


def tile(status: str) -> str:
    return f"document.querySelector('.photo[data-status={status}]')"


def test_a_user_registers_and_their_welcome_mail_is_sent(page: Page, user: str) -> None:
    page.wait_for(f"document.querySelector('#welcome').innerText .includes('has been sent to {user}')")
    look_at(page, "empty")

    (user_id,) = users.by_email(user)
    registered = users.get(user_id)
    assert registered is not None
    assert (registered.name, registered.locale) == ("Ada Lovelace", "en")
    assert page.errors == []


def test_a_picture_goes_straight_to_s3_and_its_renditions_come_from_there(
    page: Page, port: int, user: str, picture: Path
) -> None:
    page.fill("#caption", "The edge of <b>chaos</b>")

    page.choose_files("#files", [picture])

    page.wait_for(f"{tile('ready')}?.querySelector('canvas')")
    placeholder = f"{tile('ready')}.querySelector('canvas').getContext('2d').getImageData(0, 0, 32, 32).data"
    assert page.evaluate(f"new Set({placeholder}).size") > 20, "the placeholder is a picture and no plain colour"
    page.wait_for(f"{tile('ready')}.querySelector('.here')")
    (user_id,) = users.by_email(user)
    shown = page.evaluate(f"""(() => {{
        const tile = {tile("ready")}, image = tile.querySelector("img");
        return {{
            id: tile.dataset.id, alt: image.alt, caption: tile.querySelector(".caption").innerHTML,
            width: image.naturalWidth, from: new URL(image.currentSrc).pathname,
            renditions: [...tile.querySelectorAll(".renditions a")].map((link) => link.textContent),
        }};
    }})()""")
    post = posts.get(shown["id"])
    assert post is not None
    assert post.author_id == user_id
    assert post.media is not None
    assert shown["width"] > 0
    assert f"/{settings().bucket('media')}/media/{shown['id']}/" in shown["from"]
    assert shown["alt"] == "The edge of <b>chaos</b>"
    assert shown["caption"] == "The edge of &lt;b&gt;chaos&lt;/b&gt;"
    assert len(shown["renditions"]) == len(post.media.renditions) >= 5
    stored = boto3.client("s3").head_object(
        Bucket=settings().bucket("uploads"), Key=f"uploads/{user_id}/{shown['id']}/{picture.name}"
    )
    assert stored["ContentLength"] == picture.stat().st_size
    assert page.errors == []

    made = post.media.renditions["w320"]
    with urllib.request.urlopen(f"http://localhost:{port}/media/{made.key}", timeout=PATIENCE) as in_a_mail:
        assert len(in_a_mail.read()) == made.bytes

    page.send("Page.reload")
    page.wait_for("performance.getEntriesByType('navigation')[0].type === 'reload'")
    page.wait_for(f"{tile('ready')}?.querySelector('.here')")
    look_at(page, "picture")


def test_a_clip_is_shown_with_its_poster(page: Page, user: str, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "waves.mp4", size=(320, 240))

    page.choose_files("#files", [path])

    page.wait_for(f"{tile('ready')}?.querySelector('video')")
    assert "/media/" in page.evaluate(f"{tile('ready')}.querySelector('video').poster")
    page.evaluate(
        f"(async () => {{ const v = {tile('ready')}.querySelector('video'); v.muted = true; await v.play(); }})()"
    )
    assert page.errors == []


def test_a_file_that_is_not_a_picture_is_refused_with_its_reason(page: Page, user: str, tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_text("<!doctype html><title>hello</title><script>alert(1)</script>")

    page.choose_files("#files", [path])

    page.wait_for(tile("rejected"))
    assert "web page" in page.evaluate(f"{tile('rejected')}.querySelector('.fault').innerText")
    look_at(page, "refused")


def test_a_document_is_refused_before_it_is_uploaded(page: Page, user: str, tmp_path: Path) -> None:
    path = tmp_path / "letter.pdf"
    path.write_bytes(b"%PDF-1.7")
    page.fill("#caption", "For all that I choose")

    page.choose_files("#files", [path])

    page.wait_for(tile("rejected"))
    assert "neither a picture nor a video" in page.text()
    assert "letter.pdf" in page.text(), "which of several it was"


def test_a_form_with_faults_says_which_and_keeps_what_was_typed(page: Page) -> None:
    sign_out(page)
    page.open(ORIGIN)
    page.evaluate("document.querySelector('form').noValidate = true")
    page.fill("#name", "Ada")
    page.fill("#email", "nowhere")
    page.press("Enter")

    page.wait_for("document.querySelector('#email-fault')")

    assert page.evaluate("document.querySelector('#name').value") == "Ada"
    assert page.evaluate("document.querySelector('#email').getAttribute('aria-describedby')") == "email-fault"
    look_at(page, "register")


def test_an_upload_from_another_address_is_refused_and_the_page_says_which_one_to_open(
    page: Page, port: int, picture: Path
) -> None:
    register(page, f"http://127.0.0.1:{port}")

    page.choose_files("#files", [picture])

    page.wait_for(tile("rejected"))
    assert f"The bucket takes uploads from {ORIGIN} alone" in page.text()


def test_make_example_explains_that_its_port_is_taken() -> None:
    with socket.socket() as other:
        with suppress(OSError):  # another program has the port indeed
            other.bind(("localhost", 8000))
            other.listen()

        made = subprocess.run(
            ["make", "--silent", "--old-file=up", "example"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    assert made.returncode != 0
    assert f"uploads only from pages of {ORIGIN}" in " ".join(made.stderr.split())


def test_every_link_in_a_mail_leads_to_a_page(port: int, page: Page, user: str) -> None:
    (message,) = eventually(lambda: received(user))
    links = set(re.findall(rf"{ORIGIN}[^\s\"<]*", message["BodyText"] + html.unescape(message["BodyHtml"])))
    assert len(links) >= 5

    for link in {*links, f"{ORIGIN}/feed", f"{ORIGIN}/posts/p-1"}:
        with urllib.request.urlopen(link.replace(ORIGIN, f"http://localhost:{port}"), timeout=PATIENCE) as answer:
            assert answer.status == 200, link


def wants_the_digest(email: str) -> bool:
    found = users.get(users.by_email(email)[0], consistent=True)
    assert found is not None
    return found.digest


def test_the_unsubscribe_page_asks_and_its_button_unsubscribes(page: Page, user: str) -> None:
    sign_out(page)
    page.open(f"{ORIGIN}/mail/unsubscribe?token={mail_links.token_for(users.by_email(user)[0])}")
    look_at(page, "unsubscribe")
    assert wants_the_digest(user), "programs that look for viruses follow links"

    page.evaluate("document.querySelector('main button').click()")

    page.wait_for("document.querySelector('h1')?.innerText === 'You are unsubscribed'")
    assert not wants_the_digest(user)
    assert page.errors == []


def test_a_mail_program_unsubscribes_with_one_request(user: str) -> None:
    token = mail_links.token_for(users.by_email(user)[0])
    client = create_app().test_client()

    refused = client.post("/mail/unsubscribe", query_string={"token": f"{token}x"})
    assert refused.status_code == 400
    assert wants_the_digest(user)

    taken = client.post(
        "/mail/unsubscribe",
        query_string={"token": token},
        data={"List-Unsubscribe": "One-Click"},
        headers={"Sec-Fetch-Site": "cross-site"},
    )
    assert taken.status_code == 200
    assert not wants_the_digest(user)


def test_a_page_without_the_local_cloud_says_how_to_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # botocore's, between its attempts
    sdk.reset()
    try:
        client = create_app().test_client()
        form = {"name": "Ada", "email": "ada@example.com"}
        to_person = client.post("/register", data=form, headers={"Accept": "text/html,*/*;q=0.8"})
        to_script = client.post("/register", data=form, headers={"Accept": "*/*"})
    finally:
        sdk.reset()

    assert (to_person.status_code, to_script.status_code) == (503, 503)
    assert "`make up` starts it" in to_person.text
    assert "`make up` starts it" in to_script.get_json()["error"]


def test_one_users_photo_is_not_found_by_another(page: Page, user: str, post: str) -> None:
    assert page.evaluate(f"fetch('/photos/{post}').then((answer) => answer.status)") == 404


def test_a_cross_site_form_is_refused() -> None:
    client = create_app().test_client()

    answer = client.post("/register", headers={"Sec-Fetch-Site": "cross-site"})

    assert answer.status_code == 403
