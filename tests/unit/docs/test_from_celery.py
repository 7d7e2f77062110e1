"""docs/from-celery.md: the code after the move runs, and sends what its heading says; the code before it is Python."""

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nexus import outbox
from nexus.backend import Backend, use
from nexus.backend.memory import MemoryStore
from nexus.eager import EagerTransport
from nexus.registry import Implementation, registry
from nexus.tasks import Task
from tests.support import network
from tests.support.pages import Block, blocks

PAGE = "from-celery.md"
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


@pytest.fixture
def sent(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The tasks that are sent; each runs at once and has an empty result."""
    seen: list[str] = []

    def stand_in(task: Task[Any, Any]) -> Implementation:
        def work(args: Any, run: Any) -> Any:
            seen.append(task.name)
            fields = task.result.model_fields.items()
            empty = {key: (field.annotation or str)() for key, field in fields if field.is_required()}
            given = {key: value for key, value in args.model_dump().items() if key in empty}
            return task.result(**empty | given)

        return Implementation(task, work)

    for task in network.tasks().values():
        monkeypatch.setitem(registry._implementations, task.name, stand_in(task))
    with use(Backend(MemoryStore(), EagerTransport())):
        yield seen


@pytest.fixture
def django(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """As much of Django, and of an application on it, as the page's code names."""
    database = ModuleType("django.db")
    database.transaction = SimpleNamespace(on_commit=lambda then: then())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "django", ModuleType("django"))
    monkeypatch.setitem(sys.modules, "django.db", database)
    user = SimpleNamespace(pk=7)

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(tmp_path / "database", isolation_level=None)  # each statement commits

    connection = connect()
    connection.execute(outbox.DDL)
    yield {
        "connect": connect,
        "connection": connection,
        "user": user,
        "post": SimpleNamespace(pk=17),
        "form": SimpleNamespace(save=lambda: user),
        "request": SimpleNamespace(POST={"name": "holiday.jpg", "type": "image/jpeg"}),
    }
    connection.close()


@pytest.mark.parametrize("block", BEFORE, ids=name)
def test_the_code_before_is_python(block: Block) -> None:
    block.compiled(PAGE)


@pytest.mark.parametrize("block", AFTER, ids=name)
def test_the_code_after_runs_and_sends_the_task_of_its_heading(
    block: Block, sent: list[str], django: dict[str, Any]
) -> None:
    exec(block.compiled(PAGE), django)

    if block.heading in NINE and "presigned_post" not in block.text:
        assert block.heading in sent


def test_each_of_the_nine_tasks_has_its_call_site_before_and_after() -> None:
    assert set(NINE) <= {block.heading for block in BEFORE}
    assert set(NINE) <= {block.heading for block in AFTER}
