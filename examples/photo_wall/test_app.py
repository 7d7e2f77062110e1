"""The photo wall's own tests, as an application writes them: no AWS, no emulator, no mock.

make unit runs them; alone: pytest -p nexus.pytest examples/photo_wall
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO

import pytest
from flask.testing import FlaskClient
from PIL import Image

from examples.photo_wall.app import create_app
from nexus.testing import Tasks
from social.catalogue import process_media_upload, send_content_digest_email, send_welcome_email
from social.data import sessions, users


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    with create_app("a secret for tests").test_client() as client:
        yield client


def register(client: FlaskClient, email: str = "ada@example.com") -> str:
    answer = client.post("/register", data={"name": "Ada Lovelace", "email": email})
    assert answer.status_code == 302
    return users.by_email(email)[0]


def test_somebody_registers_is_signed_in_and_welcomed(nexus_tasks: Tasks, client: FlaskClient) -> None:
    user_id = register(client)

    nexus_tasks.assert_sent(send_welcome_email, user_id=user_id)
    assert len(sessions.sessions_of(user_id)) == 1
    assert client.get("/welcome").json == {"status": "PENDING", "ended": False, "outcome": None}
    nexus_tasks.drain()
    assert [mail.to for mail in nexus_tasks.mails] == [("ada@example.com",)]
    assert client.get("/welcome").json == {"status": "SUCCESS", "ended": True, "outcome": "sent"}


def test_an_address_is_taken_once(nexus_tasks: Tasks, client: FlaskClient) -> None:
    register(client)
    again = client.post("/register", data={"name": "Eve", "email": "ADA@example.com"})
    assert again.status_code == 422
    assert len(nexus_tasks.sent) == 1


@pytest.mark.parametrize(("name", "email"), [("", "ada@example.com"), ("Ada", "nowhere"), ("a" * 81, "a@example.com")])
def test_a_form_with_a_fault_sends_nothing(nexus_tasks: Tasks, client: FlaskClient, name: str, email: str) -> None:
    assert client.post("/register", data={"name": name, "email": email}).status_code == 422
    nexus_tasks.assert_not_sent(send_welcome_email)


def picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (640, 480), (90, 140, 60)).save(file, "JPEG")
    return file.getvalue()


def test_a_photo_is_on_the_wall_when_its_upload_is_processed(nexus_tasks: Tasks, client: FlaskClient) -> None:
    register(client)
    about = {"name": "holiday.jpg", "type": "image/jpeg", "size": len(picture()), "caption": "The #alps"}
    answer = client.post("/photos", json=about).json
    assert answer is not None
    assert answer["photo"]["status"] == "processing"

    nexus_tasks.upload(answer["upload"]["fields"]["key"], picture())
    nexus_tasks.drain()

    shown = client.get(f"/photos/{answer['photo']['id']}").json
    assert shown is not None
    assert (shown["status"], shown["width"], shown["caption"]) == ("ready", 640, "The #alps")
    assert {"width", "height", "url", "type"} <= shown["renditions"]["w320"].keys()
    nexus_tasks.assert_not_sent(process_media_upload)  # the upload's own event starts it


def test_the_digest_tells_of_others_photos_until_its_reader_unsubscribes(
    nexus_tasks: Tasks, client: FlaskClient
) -> None:
    register(client, "bob@example.com")
    client.post("/photos", json={"name": "a.jpg", "type": "image/jpeg", "size": 9, "caption": "Bob on the train"})
    client.post("/sign-out")
    register(client)
    nexus_tasks.drain()
    nexus_tasks.advance(timedelta(days=1))

    send_content_digest_email.delay()
    nexus_tasks.drain()

    digest = nexus_tasks.mails[-1]
    assert digest.to == ("ada@example.com",)
    assert "Bob on the train" in digest.text
    token = re.search(r"token=([\w.-]+)", digest.headers["List-Unsubscribe"])
    assert token is not None
    assert client.post("/mail/unsubscribe", query_string={"token": token[1]}).status_code == 200
    (reader,) = users.by_email("ada@example.com")
    assert (found := users.get(reader)) is not None
    assert not found.digest


def test_when_aws_takes_no_task_somebody_is_registered_all_the_same(nexus_tasks: Tasks, client: FlaskClient) -> None:
    with nexus_tasks.sends_failing():
        register(client)
    assert "Ada Lovelace" in client.get("/").text
    assert client.get("/welcome").status_code == 404
