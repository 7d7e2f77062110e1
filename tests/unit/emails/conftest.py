"""SES for these tests: it keeps the mails, responds as a test requests, and checks each request's form.

moto's SES v2 knows neither GetAccount nor configuration sets, and cannot refuse, throttle or go silent.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

import send_content_digest_email as digest_task
from mail import delivery, settings
from nexus.aws import sdk
from social import mail_links
from social.data import mail_ledger, users
from social.data.mail_ledger import Entry, Mailing
from social.data.users import User
from tests.support import rights
from tests.support.template import STACK

TODAY = "2026-11-23"  # a Monday, week 2026-W48
NOW = 1_795_424_400  # 09:00 UTC of that day


def refusal(code: str, message: str = "", status: int = 400) -> ClientError:
    """An error as SES answers it."""
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "SendEmail",
    )


@dataclass
class Ses:
    """`sent` are the requests that were taken. `answers` is called with each request and
    its number from 1, and may raise."""

    sent: list[dict[str, Any]] = field(default_factory=list)
    asked_for: rights.Note = lambda *_: None
    closed: int = 0
    account: dict[str, Any] = field(
        default_factory=lambda: {
            "SendingEnabled": True,
            "SendQuota": {"MaxSendRate": 2000.0},
        }
    )
    answers: Callable[[dict[str, Any], int], None] = lambda request, number: None
    _ids: Iterator[int] = field(default_factory=itertools.count)
    _asked: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def get_account(self) -> dict[str, Any]:
        self.asked_for("sesv2", "GetAccount", {})
        return self.account

    def send_email(self, **request: Any) -> dict[str, Any]:
        number = next(self._asked)
        shape = _model().operation_model("SendEmail").input_shape
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), report.generate_report()
        self.asked_for("sesv2", "SendEmail", request)
        self.answers(request, number)
        self.sent.append(request)
        return {"MessageId": f"m-{next(self._ids)}"}

    @property
    def asked(self) -> int:
        """How often it was asked to send."""
        return int(repr(self._asked)[6:-1]) - 1

    def close(self) -> None:
        """Connections are opened again."""
        self.closed += 1

    @property
    def recipients(self) -> list[str]:
        return sorted(request["Destination"]["ToAddresses"][0] for request in self.sent)


def _model() -> Any:
    return botocore.session.get_session().get_service_model("sesv2")


@pytest.fixture
def ses(cloud: None, monkeypatch: pytest.MonkeyPatch, asked: rights.Note) -> Iterator[Ses]:
    """A deployment whose mail goes to the fixture."""
    boto3.client("secretsmanager").create_secret(Name=f"{STACK}-mail-signing", SecretString="k" * 64)
    for name, value in {
        "NEXUS_MAIL_SENDER": "no-reply@nexus.example",
        "NEXUS_MAIL_SENDER_NAME": "Nexus",
        "NEXUS_MAIL_BASE_URL": "https://nexus.example",
        "NEXUS_MAIL_MEDIA_URL": "https://media.nexus.example",
        "NEXUS_MAIL_POSTAL_ADDRESS": "1 Example Street",
    }.items():
        monkeypatch.setenv(name, value)
    fake = Ses(asked_for=asked)
    monkeypatch.setattr(delivery, "client", lambda service: fake if service == "sesv2" else sdk.client(service))
    monkeypatch.setattr(digest_task, "_pause", lambda seconds: None)
    monkeypatch.setattr(digest_task, "_now", lambda: NOW)
    forget()
    yield fake
    forget()


def forget() -> None:
    mail_links.forget_keys()
    settings.mail_settings.cache_clear()
    delivery.pace.cache_clear()
    delivery._rate = None
    delivery._last_used = 0.0
    digest_task.close_editions()


def entries(mailing: Mailing) -> Iterator[Entry]:
    """Every entry of a mailing in the ledger."""
    for number in range(mail_ledger.SHARDS):
        for page in mail_ledger.TABLE.query(mailing.shard(number)):
            yield from map(mail_ledger.read, page.items)


def person(user_id: str, **values: Any) -> User:
    """A user who was active today, in the table."""
    fields = {
        "user_id": user_id,
        "email": f"{user_id}@example.com",
        "name": user_id.capitalize(),
        "created_at": NOW - 90 * 86_400,
        "last_active_day": TODAY,
    }
    user = User(**{**fields, **values})
    users.put_many([user])
    return user
