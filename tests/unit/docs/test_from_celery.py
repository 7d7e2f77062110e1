"""docs/from-celery.md: the code after the move runs, and sends what its heading says; the code before it is Python."""

import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nexus import outbox
from nexus.backend import Backend, use
from nexus.backend.transport import Message
from nexus.client import AsyncResult
from nexus.eager import EagerTransport
from nexus.envelope import decode
from nexus.testing import in_memory
from social import application
from social.catalogue import process_media_upload
from social.data import posts
from tests.support import network
from tests.support.pages import Block, blocks
from tests.support.stills import gradient, still

PAGE = "from-celery.md"
WEEK_46 = datetime(2026, 11, 12, tzinfo=UTC)
PYTHON = [block for block in blocks(PAGE) if block.language == "python"]
BEFORE = [block for block in PYTHON if block.words == ("before",)]
AFTER = [block for block in PYTHON if not block.words]

NINE = (
    "cleanup_expired_tokens",
    "update_user_statistics",
    "send_welcome_email",
    "process_media_upload",
    "update_trending_hashtags",
    "cleanup_old_posts",
    "generate_content_analytics",
    "update_post_engagement_scores",
    "send_content_digest_email",
)


def name(block: Block) -> str:
    return f"line {block.line}"


class Users:
    """Django's user model: the people who were there before the move."""

    def __init__(self) -> None:
        self.objects = self

    @staticmethod
    def all() -> list[SimpleNamespace]:
        return [person(pk) for pk in range(25)]


def person(pk: int) -> SimpleNamespace:
    joined = datetime(2026, 1, 1, tzinfo=UTC)
    return SimpleNamespace(pk=pk, email=f"{pk}@example.com", get_full_name=lambda: f"Person {pk}", date_joined=joined)


@pytest.fixture
def django(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The parts of Django, and of an application, that the page's code uses."""
    database, auth = ModuleType("django.db"), ModuleType("django.contrib.auth")
    database.transaction = SimpleNamespace(on_commit=lambda then: then())  # type: ignore[attr-defined]
    auth.get_user_model = Users  # type: ignore[attr-defined]
    for module in (ModuleType("django"), database, ModuleType("django.contrib"), auth):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    new = map(person, count(100))
    form: Any = SimpleNamespace(instance=None)

    def save() -> Any:
        form.instance = next(new)
        return form.instance

    form.save = save

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(tmp_path / "database", isolation_level=None)  # each statement commits

    connection = connect()
    connection.execute(outbox.DDL)
    yield {
        "connect": connect,
        "connection": connection,
        "user": person(7),
        "post": SimpleNamespace(pk=17, text="From the #train"),
        "comment": SimpleNamespace(pk=1, post_id=17, author_id=8, text="Nice"),
        "form": form,
        "request": SimpleNamespace(
            POST={"name": "holiday.jpg", "type": "image/jpeg"}, session=SimpleNamespace(session_key="s-1")
        ),
    }
    connection.close()


class Sending(EagerTransport):
    """Runs sent tasks at once, and records them."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: dict[str, list[str]] = {}

    def send(self, queue: str, messages: Sequence[Message]) -> Mapping[str, str]:
        for message in messages:
            if not message.body.startswith('{"Records"') and not decode(message.body).is_part:
                self.ids.setdefault(decode(message.body).task, []).append(message.id)
        return super().send(queue, messages)


@pytest.mark.parametrize("block", BEFORE, ids=name)
def test_the_code_before_is_python(block: Block) -> None:
    block.compiled(PAGE)


def test_the_code_after_applied_in_turn_to_a_fresh_application_does_what_its_headings_say(
    django: dict[str, Any],
) -> None:
    # Given an application whose users are only in Django's table, and this page
    with in_memory() as tasks:
        for at in (tasks.now - timedelta(days=1), WEEK_46):
            application.new_post("8", "Somebody else's #news", at=at.timestamp())
        for block in AFTER:
            # When a reader applies its code, one block after the other
            transport = Sending()
            with use(Backend(tasks.store, transport)):
                exec(block.compiled(PAGE), django)
                if "presigned_post" in block.text:  # and the browser posts the form
                    key, picture = django["upload_form"]["fields"]["key"], still("JPEG", gradient(64, 48))
                    tasks.upload(key, picture, task=process_media_upload)
                    assert media_status("17") == "ready"
                    transport.ids[block.heading] = []
            # Then each block sends the task of its heading, and every run does what it was sent for
            assert block.heading not in NINE or block.heading in transport.ids, f"line {block.line}"
            for name, ids in transport.ids.items():
                for run_id in ids:
                    handle = AsyncResult(run_id, network.tasks()[name].result)
                    assert (handle.status, handle.error) == ("SUCCESS", None), (name, block.line)
                    assert handle.result is not None
                    assert handle.result.shortfall is None, (name, block.line)
        # And the mails are there
        welcomed = {address for mail in tasks.mails for address in mail.to}
        assert {"100@example.com", "101@example.com"} <= welcomed


def media_status(post_id: str) -> str | None:
    post = posts.get(post_id)
    return post.media.status if post and post.media else None


def test_each_of_the_nine_tasks_has_its_call_site_before_and_after() -> None:
    assert set(NINE) <= {block.heading for block in BEFORE}
    assert set(NINE) <= {block.heading for block in AFTER}
