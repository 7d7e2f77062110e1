"""Mail on the deployed stack: what the emulator's SES received, with IAM enforced."""

import json
import os
import time
import urllib.request
import uuid
from typing import Any

import boto3
import pytest

from nexus.client import AsyncResult
from nexus.settings import Settings
from nexus.tasks import Result
from social import mail_links
from social.catalogue import record_mail_feedback, send_content_digest_email, send_welcome_email
from social.data import blocks, days, follows, mail_ledger, posts, users
from social.data.posts import Counters, Post
from social.data.users import User
from social.weeks import week_of
from tests.support.patience import PATIENCE


def received(address: str) -> list[dict[str, Any]]:
    """The mails that the emulator's SES accepted for this address, oldest first."""
    with urllib.request.urlopen(
        f"{os.environ['AWS_ENDPOINT_URL']}/_ministack/ses/messages", timeout=PATIENCE
    ) as answer:
        accounts = json.load(answer)["messages"]
    return [message for kept in accounts.values() for message in kept if address in message["To"]]


def done[R: Result](handle: AsyncResult[R]) -> R:
    """The result, once there is one."""
    result = handle.get(timeout=PATIENCE)
    assert result is not None
    return result


def person(**values: Any) -> User:
    """A user of this test's own, active today."""
    user_id = f"mail-{uuid.uuid4().hex[:10]}"
    now = int(time.time())
    fields = {
        "user_id": user_id,
        "email": f"{user_id}@example.com",
        "name": "Ada",
        "created_at": now,
        "last_active_day": days.day_of(now),
        "digest": False,
    }
    user = User(**{**fields, **values})
    users.put_many([user])
    return user


def test_a_welcome_mail_arrives_once(stack: Settings) -> None:
    user = person(name="Ada", locale="fr")

    first = done(send_welcome_email.delay(user_id=user.user_id))
    second = done(send_welcome_email.delay(user_id=user.user_id))

    (message,) = received(user.email)
    assert message["Subject"] == "Bienvenue sur Nexus, Ada"
    assert message["MessageId"].startswith(str(first.message_id))
    assert "Suivez quelques personnes" in message["BodyText"]
    assert "<h1" in message["BodyHtml"]
    assert (second.outcome, second.reason) == ("skipped", "already sent")


def test_the_link_in_the_mail_unsubscribes(stack: Settings) -> None:
    user = person(digest=True)
    done(send_welcome_email.delay(user_id=user.user_id))
    (message,) = received(user.email)
    link = next(word for word in message["BodyText"].split() if "/mail/unsubscribe?token=" in word)

    mail_links.forget_keys()
    assert mail_links.unsubscribe(link.partition("token=")[2]).user_id == user.user_id

    after = users.get(user.user_id, consistent=True)
    assert after is not None
    assert not after.digest


def test_a_bounce_ends_the_mail_to_an_address(stack: Settings) -> None:
    """Sends what EventBridge would send to the queue; a unit test compares the rule with SES's format."""
    user = person()
    notification = {
        "eventType": "Bounce",
        "bounce": {"bounceType": "Permanent", "bouncedRecipients": [{"emailAddress": user.email}]},
        "mail": {"tags": {"user_id": [user.user_id]}},
    }

    assert done(record_mail_feedback.delay(notification=notification)).suppressed == 1
    assert done(send_welcome_email.delay(user_id=user.user_id)).reason == "suppressed: bounce"
    assert received(user.email) == []


def test_the_deployed_rule_matches_only_this_stacks_bounces_and_complaints(stack: Settings) -> None:
    """EventBridge accepts no event in SES's name from anyone else, so this asks the rule what it would match."""
    events = boto3.client("events")
    pattern = events.describe_rule(Name=f"{stack.stack}-record_mail_feedback")["EventPattern"]

    def takes(kind: str, configuration_set: str) -> bool:
        event = {
            "id": str(uuid.uuid4()),
            "account": stack.account_id,
            "region": "eu-west-1",
            "time": "2026-11-23T09:00:00Z",
            "source": "aws.ses",
            "detail-type": f"Email {kind}",
            "resources": [],
            "detail": {"eventType": kind, "mail": {"tags": {"ses:configuration-set": [configuration_set]}}},
        }
        return events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event))["Result"]

    own = f"{stack.stack}-mail"
    assert [takes(kind, own) for kind in ("Bounce", "Complaint", "Delivery", "Send")] == [True, True, False, False]
    assert not takes("Bounce", "somebody-elses")


@pytest.fixture
def readers(stack: Settings) -> list[User]:
    """Three readers of a fresh week: one follows an author, one has blocked another, one wants no digest."""
    ada, bea, silent = person(digest=True), person(digest=True, locale="fr"), person(digest=False)
    followed, blocked = person(name="Followed Author"), person(name="Blocked Author")
    now = int(time.time())
    # More likes than any other post, including those of earlier runs of this test: the digest shows only a few.
    for author, likes in ((followed, now), (blocked, now + 900)):
        post = Post(
            post_id=f"{author.user_id}-post",
            author_id=author.user_id,
            created_at=now - 3600,
            text=f"News of {author.user_id}",
            counters=Counters(likes=likes),
            engagement_score=3 * likes,
        )
        posts.put_many([post], now=now)
    follows.add(ada.user_id, followed.user_id, now)
    blocks.add(bea.user_id, blocked.user_id, now)
    return [ada, bea, silent, followed, blocked]


def test_two_overlapping_digests_send_each_reader_only_their_own(stack: Settings, readers: list[User]) -> None:
    ada, bea, silent, followed, blocked = readers
    before = {user.user_id: len(received(user.email)) for user in readers}
    week = _week()

    # The second does not wait for the first: the first names its week, so they are not the same unique run.
    handles = [send_content_digest_email.delay(week=week), send_content_digest_email.delay()]
    reports = [done(handle) for handle in handles]

    assert all(count == 0 for count in before.values())
    (to_ada,), (to_bea,) = received(ada.email), received(bea.email)
    assert received(silent.email) == []
    assert "Followed Author" in to_ada["Subject"]
    assert to_ada["BodyText"].index(f"News of {followed.user_id}") < to_ada["BodyText"].index(
        f"News of {blocked.user_id}"
    )
    assert f"News of {blocked.user_id}" not in to_bea["BodyText"]
    assert "POPULAIRE CETTE SEMAINE" in to_bea["BodyText"]
    entry = mail_ledger.get(mail_ledger.digest(week), ada.user_id)
    assert entry is not None
    assert entry.status == "sent"
    assert f"{followed.user_id}-post" in entry.posts
    assert sum(report.sent for report in reports) >= 2
    assert sum(report.unknown for report in reports) == 0


def _week() -> str:
    return week_of(time.time())
