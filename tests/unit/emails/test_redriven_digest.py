"""A part of the digest that failed and is sent again: soon, the digest follows; too late, nothing does."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import digest.edition
import send_content_digest_email as digest_task
from nexus.aws.memory import Sesv2
from nexus.backend.transport import Message
from nexus.client import AsyncResult
from nexus.errors import Reject
from nexus.runs.transitions import send_again
from nexus.testing import Tasks, in_memory
from social import application
from social.catalogue import send_content_digest_email
from tests.unit.emails.conftest import forget

MONDAY = datetime(2026, 11, 23, 9, tzinfo=UTC)


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    forget()
    with in_memory(MONDAY) as tasks:
        author = application.register("author@example.com", "Author").user_id
        application.new_post(author, "This is news")
        application.record_login(application.register("reader@example.com", "Reader").user_id, token_id="t")
        tasks.freeze(MONDAY + timedelta(minutes=1))
        yield tasks
    forget()


def fails_once(tasks: Tasks, monkeypatch: pytest.MonkeyPatch, phase: str, **args: Any) -> AsyncResult[Any]:
    """A digest of which one shard, or the edition, is a dead letter."""

    def broken(*_: object, **__: object) -> bool:
        raise Reject("broken")

    with monkeypatch.context() as patched:
        if phase == "edition":
            patched.setattr(digest.edition, "build", broken)
        else:
            whole = digest_task.rank_shard
            patched.setattr(digest_task, "rank_shard", lambda a, run: broken() if a.shard == 3 else whole(a, run))
        handle = send_content_digest_email.delay(**args)
        tasks.drain(raising=False)
    assert len(tasks.dead_letters) == 1
    assert handle.status == "FAILURE"
    assert tasks.mails == []
    return handle


def redrive(tasks: Tasks, after: timedelta) -> None:
    """As `nexus dlq retry` does it, so long after the failure."""
    tasks.freeze(tasks.now + after)
    ((queue, letter),) = tasks.dead_letters
    tasks.store.apply(send_again(letter.attributes["RunId"]))
    tasks.transport.send(queue, [Message(letter.attributes["RunId"], letter.body, "g")])
    tasks.drain(raising=False)


@pytest.mark.parametrize("phase", ["shard", "edition"])
@pytest.mark.parametrize("days", [0, 2])
def test_sent_again_within_three_days_the_digest_follows(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch, phase: str, days: int
) -> None:
    handle = fails_once(tasks, monkeypatch, phase)
    redrive(tasks, timedelta(days=days))
    assert handle.status == "SUCCESS"
    assert [mail.to for mail in tasks.mails] == [("reader@example.com",)]


@pytest.mark.parametrize("phase", ["shard", "edition"])
@pytest.mark.parametrize("days", [4, 6, 8])
def test_sent_again_later_it_is_given_up_and_says_what_to_do(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch, phase: str, days: int
) -> None:
    handle = fails_once(tasks, monkeypatch, phase)
    redrive(tasks, timedelta(days=days))
    assert tasks.mails == []
    _, (_, letter) = tasks.dead_letters
    assert letter.attributes["ErrorMessage"] == (
        "planned on 2026-11-23T09:01+00:00, too long ago: send the task again for 2026-W48"
    )
    assert handle.status == "FAILURE"


def test_a_digest_of_a_past_week_is_sent_without_expiring(tasks: Tasks) -> None:
    tasks.freeze(MONDAY + timedelta(days=9))
    handle = send_content_digest_email.delay(week="2026-W48")
    tasks.drain()
    assert handle.status == "SUCCESS"


class Slow(Sesv2):
    """Allows a mail every ten seconds."""

    @staticmethod
    def get_account() -> Mapping[str, Any]:
        return {"SendingEnabled": True, "SendQuota": {"MaxSendRate": 0.1}}


def test_a_redriven_segment_does_not_wait_for_mails_that_it_has_sent(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.services.sesv2 = Slow()
    monkeypatch.setattr(digest_task, "segments", lambda people, per_second: 1)
    readers = ["reader@example.com", *(f"r{number:03}@example.com" for number in range(120))]
    for reader in readers[1:]:
        application.record_login(application.register(reader, "Reader").user_id, token_id=reader)
    send_content_digest_email.delay()
    tasks.drain(raising=False)
    before = len(tasks.mails)
    assert 60 < before < 121, "the first time, it uses up its continuations"

    redrive(tasks, timedelta(hours=1))

    assert sorted(mail.to[0] for mail in tasks.mails) == sorted(readers)
