"""Bounces and complaints: a permanent one ends all mail to that address, and nothing else does."""

import json
from typing import Any

import pytest

from nexus.errors import Reject
from nexus.testing import run_task
from record_mail_feedback import record_mail_feedback
from send_welcome_email import send_welcome_email
from social import catalogue
from social.data import users
from tests.support.template import STACK, resolved, resources
from tests.unit.emails.conftest import Ses, person

# As in the Amazon SES Developer Guide, "Examples of event data that Amazon SES publishes".
BOUNCE: dict[str, Any] = {
    "eventType": "Bounce",
    "bounce": {
        "bounceType": "Permanent",
        "bounceSubType": "General",
        "bouncedRecipients": [
            {"emailAddress": "ada@example.com", "action": "failed", "status": "5.1.1", "diagnosticCode": "550 unknown"}
        ],
        "timestamp": "2026-11-23T09:00:05.000Z",
        "feedbackId": "f-1",
        "reportingMTA": "dsn; mta.example.com",
    },
    "mail": {
        "timestamp": "2026-11-23T09:00:00.000Z",
        "source": "Nexus <no-reply@nexus.example>",
        "messageId": "m-1",
        "destination": ["ada@example.com"],
        "tags": {"ses:configuration-set": ["nexus-test-mail"], "mailing": ["digest"], "user_id": ["ada"]},
    },
}
COMPLAINT: dict[str, Any] = {
    "eventType": "Complaint",
    "complaint": {
        "complainedRecipients": [{"emailAddress": "ada@example.com"}],
        "complaintFeedbackType": "abuse",
        "feedbackId": "f-2",
        "userAgent": "Example",
    },
    "mail": BOUNCE["mail"],
}


def record(notification: dict[str, Any]) -> catalogue.FeedbackReport:
    report: catalogue.FeedbackReport = run_task(record_mail_feedback, {"notification": notification})
    return report


def suppressed(user_id: str) -> str | None:
    user = users.get(user_id)
    assert user is not None
    return user.suppressed


@pytest.mark.parametrize(("notification", "reason"), [(BOUNCE, "bounce"), (COMPLAINT, "complaint")])
def test_the_user_gets_no_more_mail(ses: Ses, notification: dict[str, Any], reason: str) -> None:
    person("ada")
    person("bea")

    report = record(notification)

    assert (report.suppressed, report.reason) == (1, reason)
    assert suppressed("ada") == reason
    assert suppressed("bea") is None
    assert run_task(send_welcome_email, {"user_id": "ada"}).reason == f"suppressed: {reason}"
    assert ses.asked == 0


def test_a_second_notification_changes_nothing(ses: Ses) -> None:
    person("ada")
    record(BOUNCE)
    record(COMPLAINT)
    assert suppressed("ada") == "bounce"


@pytest.mark.parametrize("kind", ["Transient", "Undetermined"])
def test_a_transient_bounce_suppresses_no_one(ses: Ses, kind: str) -> None:
    person("ada")
    report = record({**BOUNCE, "bounce": {**BOUNCE["bounce"], "bounceType": kind}})
    assert (report.suppressed, report.reason) == (0, f"{kind.lower()} bounce")
    assert suppressed("ada") is None


def test_not_spam_is_no_complaint(ses: Ses) -> None:
    person("ada")
    assert (
        record({**COMPLAINT, "complaint": {**COMPLAINT["complaint"], "complaintFeedbackType": "not-spam"}}).suppressed
        == 0
    )


def test_a_user_with_a_new_address_is_not_punished_for_the_old_one(ses: Ses) -> None:
    person("ada", email="ada@new.example")
    assert record(BOUNCE).suppressed == 0
    assert suppressed("ada") is None


def test_a_user_whose_domain_was_mailed_in_its_ascii_form_is_found(ses: Ses) -> None:
    person("ada", email="ada@münchen.example")
    mail = {**BOUNCE["mail"], "destination": ["ada@xn--mnchen-3ya.example"]}
    assert record({**BOUNCE, "mail": mail}).suppressed == 1


def test_an_address_that_forwards_to_one_that_bounces_gets_no_more_mail(ses: Ses) -> None:
    """SES names the final recipient of the bounce (RFC 3464), and the one who was mailed under `mail`."""
    person("ada")
    recipients = [{"emailAddress": "ada.lovelace@elsewhere.example"}]
    assert record({**BOUNCE, "bounce": {**BOUNCE["bounce"], "bouncedRecipients": recipients}}).suppressed == 1
    assert suppressed("ada") == "bounce"


@pytest.mark.parametrize(
    "destination", [[], ["Ada@Example.com", "Bea <bea@example.com>", "cay@xn--mnchen-3ya.example"]]
)
def test_a_bounce_without_our_tag_finds_the_user_by_address(ses: Ses, destination: list[str]) -> None:
    person("ada")
    person("bea")
    person("cay", email="cay@münchen.example")
    mail = {**{key: value for key, value in BOUNCE["mail"].items() if key != "tags"}, "destination": destination}
    recipients = [{"emailAddress": one} for one in ("Ada@Example.com", "bea@example.com", "cay@xn--mnchen-3ya.example")]
    report = record({**BOUNCE, "mail": mail, "bounce": {**BOUNCE["bounce"], "bouncedRecipients": recipients}})
    assert report.suppressed == 3


@pytest.mark.parametrize(
    "notification", [{}, {"eventType": "Open"}, {"eventType": "Bounce"}, {"eventType": "Bounce", "bounce": []}]
)
def test_an_invalid_notification_is_rejected(ses: Ses, notification: dict[str, Any]) -> None:
    with pytest.raises(Reject):
        record(notification)


def test_the_rule_makes_a_run_of_the_event(ses: Ses) -> None:
    """template.yaml's pattern matches SES's event, and its transformer makes this task's envelope of it."""
    from nexus.envelope import decode

    person("ada")
    (rule,) = [
        resolved(body["Properties"])
        for body in resources("AWS::Events::Rule").values()
        if resolved(body["Properties"])["Name"] == f"{STACK}-record_mail_feedback"
    ]
    pattern = rule["EventPattern"]
    assert BOUNCE["eventType"] in pattern["detail"]["eventType"]
    assert pattern["detail"]["mail"]["tags"]["ses:configuration-set"] == BOUNCE["mail"]["tags"]["ses:configuration-set"]
    transformer = rule["Targets"][0]["InputTransformer"]
    event = {"id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa", "time": "2026-11-23T09:00:06Z", "detail": BOUNCE}
    text = transformer["InputTemplate"]
    for name, path in transformer["InputPathsMap"].items():
        value = event[path.removeprefix("$.")]
        text = text.replace(f"<{name}>", value if isinstance(value, str) else json.dumps(value))
    envelope = decode(text)
    assert (envelope.id, envelope.task) == (event["id"], "record_mail_feedback")
    assert record(dict(envelope.args["notification"])).suppressed == 1
