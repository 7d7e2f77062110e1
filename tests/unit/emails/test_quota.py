"""SES's daily quota and its rate: what they leave unsent goes out later, before any task has used up its retries."""

import itertools
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import send_content_digest_email as digest_task
from mail.delivery import QUOTA_WAIT
from nexus import clock
from nexus.aws.memory import Sesv2
from nexus.runs.transitions import MAX_CONTINUED
from nexus.tasks import Task
from nexus.testing import Tasks, in_memory
from nexus.worker.messages import LONGEST_HIDING
from social import application
from social.catalogue import KEPT_AFTER_ERASURE, send_content_digest_email, send_welcome_email
from tests.support import network
from tests.support.template import resources
from tests.unit.emails.conftest import forget, refusal

ROOT = Path(__file__).parents[3]
DAY = 86_400.0
MONDAY = datetime(2026, 11, 23, 9, tzinfo=UTC)
SENDING = [
    task
    for task in network.tasks().values()
    if (path := ROOT / "functions" / "emails" / f"{task.name}.py").exists() and "QUOTA_WAIT" in path.read_text()
]


class Busy(Sesv2):
    """Another sender of the account takes five sixths of the rate."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = itertools.count(1)

    def send_email(self, **request: Any) -> Mapping[str, Any]:
        if next(self.asked) % 6:
            raise refusal("TooManyRequestsException", "Maximum sending rate exceeded.", 429)
        return super().send_email(**request)


class Quota(Sesv2):
    """Accepts `limit` mails in any 24 hours."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.accepted: list[float] = []

    def send_email(self, **request: Any) -> Mapping[str, Any]:
        now = clock.now()
        if sum(at > now - DAY for at in self.accepted) >= self.limit:
            raise refusal("LimitExceededException", "Daily message quota exceeded.")
        self.accepted.append(now)
        return super().send_email(**request)


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    forget()
    with in_memory(MONDAY) as tasks:
        yield tasks
    forget()


def test_the_tasks_that_send_mail_are_known() -> None:
    assert {task.name for task in SENDING} == {send_welcome_email.name, send_content_digest_email.name}


@pytest.mark.parametrize("task", SENDING, ids=lambda task: task.name)
def test_the_retries_outlast_the_quotas_day_and_sqs_outlasts_the_retries(task: Task[Any, Any]) -> None:
    waits = task.retry.max_retries * QUOTA_WAIT
    assert waits > DAY
    assert QUOTA_WAIT < LONGEST_HIDING
    queue = resources("AWS::SQS::Queue")["EmailsQueue"]["Properties"]
    assert waits + DAY < queue["MessageRetentionPeriod"], "with a day for the work itself"
    assert 1 + task.retry.max_retries + MAX_CONTINUED < queue["RedrivePolicy"]["maxReceiveCount"]


def test_an_edition_is_kept_as_long_as_a_segment_waits_and_may_be_redriven() -> None:
    (kept,) = (
        rule["ExpirationInDays"]
        for rule in resources("AWS::S3::Bucket")["ArchiveBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
        if rule.get("Prefix") == "digest/"
    )
    waits = send_content_digest_email.retry.max_retries * QUOTA_WAIT
    dead = resources("AWS::SQS::Queue")["EmailsDeadLetterQueue"]["Properties"]["MessageRetentionPeriod"]
    assert kept * DAY > waits + dead
    assert any(f"digest: expire {kept} days" in line for line in KEPT_AFTER_ERASURE)


def test_a_welcome_waits_until_a_quota_that_was_used_up_just_before_it_recovers(tasks: Tasks) -> None:
    ses = tasks.services.sesv2 = Quota(limit=50)
    ses.accepted = [MONDAY.timestamp() - 1.0] * 50
    user_id = application.register("ada@example.com", "Ada").user_id
    send_welcome_email.delay(user_id=user_id)

    tasks.drain()

    assert [mail.to for mail in tasks.mails] == [("ada@example.com",)]
    assert timedelta(days=1) < tasks.now - MONDAY < timedelta(days=1.5)


def town(tasks: Tasks, people: int) -> list[str]:
    """The addresses of this many readers of one post. It is a minute later."""
    author = application.register("author@example.com", "Author").user_id
    application.new_post(author, "This is news")
    readers = [f"r{number:03}@example.com" for number in range(people)]
    for reader in readers:
        application.record_login(application.register(reader, "Reader").user_id, token_id=reader)
    tasks.freeze(MONDAY + timedelta(minutes=1))
    return readers


def test_a_digest_that_gets_a_sixth_of_the_rate_is_sent_without_dead_letters(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.services.sesv2 = Busy()
    monkeypatch.setattr(digest_task, "segments", lambda people, per_second: 1)
    monkeypatch.setattr(digest_task, "_pause", lambda seconds: None)
    stopped = []
    monkeypatch.setattr(digest_task.Segment, "_stopped", lambda *where: stopped.append(where))
    readers = town(tasks, 60)
    handle = send_content_digest_email.delay()

    tasks.drain()

    assert sorted(mail.to[0] for mail in tasks.mails) == readers
    assert handle.get().throttled == 5 * 60
    assert not stopped, "each mail that SES accepts ends the count of refusals in a row"


def test_a_digest_for_three_times_the_quota_goes_out_over_three_days(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    ses = tasks.services.sesv2 = Quota(limit=4)
    monkeypatch.setattr(digest_task, "segments", lambda people, per_second: 3)
    readers = town(tasks, 12)
    send_content_digest_email.delay()

    tasks.drain()

    assert sorted(mail.to[0] for mail in tasks.mails) == readers
    assert [sum(at < MONDAY.timestamp() + day * DAY for at in ses.accepted) for day in (1, 2, 3)] == [4, 8, 12]
