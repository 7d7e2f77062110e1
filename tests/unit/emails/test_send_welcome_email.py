"""The welcome mail: sent at most once per user; every way in which it is not sent has an outcome and a reason."""

from email.header import decode_header, make_header
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from mail import delivery, languages
from nexus.errors import Reject, Retry
from nexus.testing import run_task
from send_welcome_email import send_welcome_email
from social import catalogue, mail_links
from social.data import mail_ledger, users
from social.data.mail_ledger import WELCOME
from tests.support.template import STACK
from tests.unit.emails.conftest import Ses, person, refusal

RUN = "01900000-0000-7000-8000-000000000001"
OTHER = "01900000-0000-7000-8000-000000000002"


def send(user_id: str, run_id: str = RUN, attempt: int = 1) -> catalogue.WelcomeReport:
    report: catalogue.WelcomeReport = run_task(
        send_welcome_email, {"user_id": user_id}, seconds=30, id=run_id, task="send_welcome_email", attempt=attempt
    )
    return report


def ledger(user_id: str) -> mail_ledger.Entry | None:
    return mail_ledger.get(WELCOME, user_id)


def test_a_new_user_is_welcomed_in_their_language(ses: Ses) -> None:
    person("ada", name="Ada", locale="fr-CA")

    report = send("ada")

    assert (report.outcome, report.message_id) == ("sent", "m-0")
    (request,) = ses.sent
    simple = request["Content"]["Simple"]
    assert request["Destination"] == {"ToAddresses": ["ada@example.com"]}
    assert request["FromEmailAddress"] == "Nexus <no-reply@nexus.example>"
    assert request["ConfigurationSetName"] == "nexus-test-mail"
    assert simple["Subject"]["Data"] == "Bienvenue sur Nexus, Ada"
    assert "Bienvenue, Ada" in simple["Body"]["Text"]["Data"]
    assert 'lang="fr"' in simple["Body"]["Html"]["Data"]
    tags = {tag["Name"]: tag["Value"] for tag in request["EmailTags"]}
    assert tags["user_id"] == "ada"
    assert (tags["ses:feedback-id-a"], tags["ses:feedback-id-b"]) == ("welcome", STACK)
    assert "List-Id" not in {header["Name"] for header in simple["Headers"]}, "it is not a mailing"
    entry = ledger("ada")
    assert entry is not None
    assert (entry.status, entry.message_id, entry.run_id) == ("sent", "m-0", RUN)


def test_the_mail_has_a_one_click_unsubscribe_header(ses: Ses) -> None:
    """RFC 8058: the header's address, with a token that works, signed by SES's DKIM."""
    person("ada")
    send("ada")
    headers = {h["Name"]: h["Value"] for h in ses.sent[0]["Content"]["Simple"]["Headers"]}
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = headers["List-Unsubscribe"]
    assert link.startswith("<https://nexus.example/mail/unsubscribe?token=")
    token = link.rpartition("token=")[2].removesuffix(">")
    assert mail_links.verify(token).user_id == "ada"


def test_the_welcome_mail_is_sent_once_for_any_number_of_requests(ses: Ses) -> None:
    person("ada")
    first = send("ada")
    again = send("ada")
    other = send("ada", OTHER)

    assert len(ses.sent) == 1
    assert (first.outcome, again.outcome) == ("sent", "sent")
    assert (other.outcome, other.reason) == ("skipped", "already sent")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"suppressed": "bounce"}, "suppressed: bounce"),
        ({"email": "ada@example.com\r\nBcc: eve@evil.example"}, "the address contains a space or control character"),
        ({"email": "nobody"}, "the address is not of the form name@domain"),
    ],
)
def test_a_user_who_cannot_be_mailed_is_skipped_with_the_reason(ses: Ses, values: dict[str, Any], reason: str) -> None:
    person("ada", **values)
    report = send("ada")
    assert (report.outcome, report.reason) == ("skipped", reason)
    assert ses.asked == 0
    assert ledger("ada") is None


def test_a_missing_user_is_looked_up_again_and_skipped(ses: Ses) -> None:
    with pytest.raises(Retry) as raised:
        send("nobody")
    assert raised.value.after == users.LATE
    assert send("nobody", attempt=2).reason == "no such user"


def test_a_user_whose_row_comes_after_the_message_is_welcomed(ses: Ses) -> None:
    """As that of a mirrored table, whose row passes through the outbox."""
    with pytest.raises(Retry):
        send("ada")
    person("ada")
    assert send("ada", attempt=2).outcome == "sent"


@pytest.mark.parametrize(
    "error",
    [
        refusal("InternalFailure", status=500),
        refusal("ServiceUnavailable", status=503),
        ReadTimeoutError(endpoint_url="https://email.eu-west-1.amazonaws.com"),
    ],
)
def test_a_mail_without_a_response_is_unknown_and_never_sent_again_automatically(ses: Ses, error: Exception) -> None:
    person("ada")

    def silent(request: dict[str, Any], number: int) -> None:
        raise error

    ses.answers = silent
    assert send("ada").outcome == "unknown"
    ses.answers = lambda request, number: None
    assert send("ada").outcome == "unknown"
    entry = ledger("ada")
    assert entry is not None
    assert entry.status == "unknown"
    assert ses.asked == 1


def test_a_crash_between_claim_and_answer_leaves_it_unknown_for_a_person_to_decide(ses: Ses) -> None:
    person("ada")

    class Killed(BaseException):
        """The sandbox dies."""

    def die(request: dict[str, Any], number: int) -> None:
        raise Killed

    ses.answers = die
    with pytest.raises(Killed):
        send("ada")
    ses.answers = lambda request, number: None

    assert send("ada").outcome == "unknown"
    assert send("ada", OTHER).reason == "being sent by another run"
    assert ses.asked == 1

    # Only after a person has decided that it was not sent does it go out.
    assert mail_ledger.decide(WELCOME, "ada", was_sent=False, now=1)
    assert send("ada", OTHER).outcome == "sent"
    assert not mail_ledger.decide(WELCOME, "ada", was_sent=False, now=1), "it is not unknown any more"
    assert len(ses.sent) == 1


def test_a_claim_that_another_run_left_long_ago_is_unknown(ses: Ses, monkeypatch: pytest.MonkeyPatch) -> None:
    person("ada")
    mail_ledger.claim(WELCOME, "ada", OTHER, now=1)
    assert send("ada").outcome == "unknown"
    assert mail_ledger.decide(WELCOME, "ada", was_sent=True, now=1)
    assert send("ada").reason == "already sent"
    assert ses.asked == 0


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (refusal("TooManyRequestsException", "Maximum sending rate exceeded."), None),
        (refusal("LimitExceededException", "Daily message quota exceeded."), delivery.QUOTA_WAIT),
        (EndpointConnectionError(endpoint_url="https://email"), None),
        (ConnectTimeoutError(endpoint_url="https://email"), None),
    ],
)
def test_a_mail_that_ses_refused_is_tried_again(ses: Ses, error: Exception, after: float | None) -> None:
    person("ada")

    def throttle(request: dict[str, Any], number: int) -> None:
        raise error

    ses.answers = throttle
    with pytest.raises(Retry) as raised:
        send("ada")
    assert raised.value.after == after
    assert ledger("ada") is None, "the claim is released"
    ses.answers = lambda request, number: None
    assert send("ada").outcome == "sent"


NOT_VERIFIED = "Email address is not verified. The following identities failed the check in region EU-WEST-1: "


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (refusal("MessageRejected", NOT_VERIFIED + "no-reply@nexus.example"), "the sender is not verified"),
        (refusal("MessageRejected", NOT_VERIFIED + "ada@example.com"), "sandbox: the recipient is not verified"),
        (
            refusal("MessageRejected", NOT_VERIFIED + "no-reply@nexus.example, ada@example.com"),
            "the sender is not verified",
        ),
        (refusal("MailFromDomainNotVerifiedException"), "the MAIL FROM domain is not verified"),
        (refusal("AccountSuspendedException"), "suspended"),
        (refusal("SendingPausedException"), "paused"),
        (refusal("MessageRejected", "Sending paused for this account. For more information, ..."), "^Sending paused"),
        (refusal("NotFoundException"), "configuration set does not exist"),
        (refusal("AccessDeniedException", status=403), "no permission"),
        (
            refusal("BadRequestException", "Local address contains control or whitespace: ada@example.com"),
            "SES refused it: BadRequestException: Local address contains control or whitespace: the address",
        ),
        (NoCredentialsError(), "no credentials"),
    ],
)
def test_a_fault_that_only_a_person_can_fix_is_not_retried_and_the_mail_goes_out_once_fixed(
    ses: Ses, error: Exception, reason: str
) -> None:
    person("ada")

    def refuse(request: dict[str, Any], number: int) -> None:
        raise error

    ses.answers = refuse
    with pytest.raises(Reject, match=reason):
        send("ada")
    ses.answers = lambda request, number: None
    assert send("ada").outcome == "sent", "the dead letter, sent again"


def test_a_template_error_is_rejected_before_anything_is_claimed(ses: Ses, monkeypatch: pytest.MonkeyPatch) -> None:
    person("ada")
    english = languages.load("en")
    texts = {key: text for key, text in english.texts.items() if key != "welcome.title"}
    broken = languages.Language("en", "ltr", texts, english.plural, ",", english.months)
    monkeypatch.setattr(languages, "choose", lambda locale: broken)
    with pytest.raises(Reject, match=r"template: welcome in en: KeyError: 'welcome\.title'"):
        send("ada")
    assert ledger("ada") is None


def test_paused_sending_is_known_before_anything_is_sent(ses: Ses) -> None:
    person("ada")
    ses.account["SendingEnabled"] = False
    with pytest.raises(Reject, match="paused"):
        send("ada")
    assert ses.asked == 0


def test_a_sandbox_that_cannot_learn_the_rate_does_not_guess_one(ses: Ses, monkeypatch: pytest.MonkeyPatch) -> None:
    """SES answers GetAccount once a second. A sandbox that assumed a low rate would book most of the common one."""
    for user_id in ("ada", "bea"):
        person(user_id)

    def busy() -> dict[str, Any]:
        raise refusal("TooManyRequestsException", status=429)

    with monkeypatch.context() as patched:
        patched.setattr(ses, "get_account", busy)
        with pytest.raises(Retry, match="GetAccount: TooManyRequestsException"):
            send("ada")
    assert send("ada").outcome == "sent"
    monkeypatch.setattr(delivery, "_rate_until", 0.0)
    monkeypatch.setattr(ses, "get_account", busy)
    assert send("bea").outcome == "sent", "at the rate that is known"


def test_a_connection_that_has_been_idle_is_not_used_again(ses: Ses, monkeypatch: pytest.MonkeyPatch) -> None:
    """SES closes the connections of a frozen sandbox; a mail sent on one would be unknown without need."""
    for user_id in ("ada", "bea"):
        person(user_id)
        send(user_id)
    assert ses.closed == 1, "the second came at once"
    monkeypatch.setattr(delivery, "_last_used", delivery._last_used - delivery.IDLE - 1)
    person("cleo")
    send("cleo")
    assert ses.closed == 2


def test_a_long_non_ascii_sender_name_is_encoded_in_words_of_75_characters(
    ses: Ses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 2047, 2: at most 75 characters, and no character split over two words."""
    name = "Réseau d’amitié – 友達の輪 – сеть друзей и знакомых"
    monkeypatch.setenv("NEXUS_MAIL_SENDER_NAME", name)
    person("ada")
    send("ada")
    sender = ses.sent[0]["FromEmailAddress"]
    assert sender.endswith(" <no-reply@nexus.example>")
    encoded = sender.removesuffix(" <no-reply@nexus.example>").split(" ")
    assert len(encoded) > 1
    assert all(len(word) <= 75 and word.isascii() for word in encoded)
    assert str(make_header(decode_header(" ".join(encoded)))) == name
    for word in encoded:
        ((content, charset),) = decode_header(word)
        assert isinstance(content, bytes)
        content.decode(charset or "ascii")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("Nexus", "Nexus"), ("Ada & Co", '"Ada & Co"'), ('A "B" <c>\r\nBcc: x', '"A \\"B\\" <c> Bcc: x"')],
)
def test_the_sender_has_the_products_name(ses: Ses, monkeypatch: pytest.MonkeyPatch, name: str, shown: str) -> None:
    monkeypatch.setenv("NEXUS_MAIL_SENDER_NAME", name)
    person("ada")
    send("ada")
    assert ses.sent[0]["FromEmailAddress"] == f"{shown} <no-reply@nexus.example>"
