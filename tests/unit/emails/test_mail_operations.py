"""What an operator sees: a user's mail before it is sent, and the mails whose delivery is unknown."""

import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from digest.edition import days_named
from mail import languages
from nexus.aws.table import Table
from ops import aws
from ops.problems import Problem
from ops.social import mail
from social.data import mail_ledger, posts
from social.data.posts import Counters, Post
from social.weeks import week_of
from tests.support.template import STACK
from tests.unit.emails.conftest import Ses, entries, person


@pytest.fixture
def deployed(ses: Ses, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emails function's environment, which is where the deployment's mail settings are."""
    variables = {"NEXUS_MAIL_SENDER": "no-reply@real.example", "NEXUS_MAIL_BASE_URL": "https://real.example"}

    class Lambda:
        def get_function_configuration(self, FunctionName: str, Qualifier: str) -> dict[str, object]:  # noqa: N803
            assert (FunctionName, Qualifier) == (f"{STACK}-emails", "live")
            return {"Environment": {"Variables": variables}}

    monkeypatch.setattr(mail, "client", lambda service: Lambda() if service == "lambda" else aws.client(service))


def test_the_digest_of_a_user_as_it_would_go_out_now(deployed: None, ses: Ses, tmp_path: Path) -> None:
    person("author", name="Bea")
    person("ada", locale="fr")
    posts.put_many(
        [Post("p", "author", int(time.time()) - 60, text="Fresh news", counters=Counters(likes=3))],
        now=int(time.time()),
    )

    shown = mail.preview("digest", "ada", folder=tmp_path)

    assert shown.subject == "Bea cette semaine sur Nexus"
    assert languages.load("fr").days(*days_named(int(time.time()))) in shown.text.read_text(), (
        "seven days, as it is sent"
    )
    assert "Fresh news" in shown.html.read_text()
    assert "https://real.example/posts/p" in shown.text.read_text()
    assert "token=preview" in shown.text.read_text(), "a link that works would let any reader of it unsubscribe her"
    assert ses.asked == 0
    assert not list(entries(mail_ledger.digest(week_of(time.time()))))
    with pytest.raises(Problem, match="nothing new for author"):
        mail.preview("digest", "author", folder=tmp_path)
    with pytest.raises(Problem, match="no user nobody"):
        mail.preview("welcome", "nobody", folder=tmp_path)


def test_unknown_mails_are_listed_oldest_first_until_an_operator_decides(ses: Ses) -> None:
    now = int(time.time())
    week = week_of(now)
    mail_ledger.claim(mail_ledger.digest(week), "bea", "run-2", now - 2_000)
    mail_ledger.claim(mail_ledger.WELCOME, "ada", "run-1", now - 9_000)
    mail_ledger.claim(mail_ledger.digest(week), "in-flight", "run-3", now - 5)
    sent = mail_ledger.claim(mail_ledger.digest(week), "cleo", "run-2", now - 2_000)
    assert isinstance(sent, mail_ledger.Claim)
    sent.sent("m-1", now)

    assert [(entry.kind, entry.user_id) for entry in mail.unknown()] == [("welcome", "ada"), ("digest", "bea")]

    mail.decide("welcome", "ada", was_sent=True)
    mail.decide("digest", "bea", was_sent=False, week=week)
    assert mail.unknown() == []
    assert mail_ledger.get(mail_ledger.digest(week), "bea") is None, "it may be sent now"
    for again in ("ada", "cleo"):
        with pytest.raises(Problem, match="not unknown"):
            mail.decide("welcome", again, was_sent=True)
    with pytest.raises(Problem, match="needs its week"):
        mail.decide("digest", "bea", was_sent=True)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mails a page."""
    query: Any = Table.query
    monkeypatch.setattr(Table, "query", lambda *args, **options: query(*args, **{"limit": 2, **options}))


def test_unknown_mails_are_found_on_every_page(ses: Ses, small_pages: None) -> None:
    now = int(time.time())
    for number in range(60):
        claim = mail_ledger.claim(mail_ledger.WELCOME, f"u{number:02}", "run", now - 2_000)
        assert isinstance(claim, mail_ledger.Claim)
        if number % 3:
            claim.sent("m", now)
    seen: list[tuple[int, int, int]] = []

    found = mail.unknown(1, on_progress=lambda *progress: seen.append(progress))

    assert [entry.user_id for entry in found] == [f"u{number:02}" for number in range(0, 60, 3)]
    partitions = 2 * mail_ledger.SHARDS
    assert seen[-1] == (partitions, partitions, 60)
    assert len(seen) > partitions / mail.THREADS, "a partition has several pages"


def test_the_search_for_unknown_mails_ends_when_it_has_found_enough(
    ses: Ses, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "MOST", 5)
    for number in range(60):
        mail_ledger.claim(mail_ledger.WELCOME, f"u{number:02}", "run", 1)
    read: list[int] = []

    assert len(mail.unknown(on_progress=lambda _done, _total, number: read.append(number))) == 5

    assert read[-1] <= 2 * mail.THREADS


def test_a_settled_digest_expires_and_an_unknown_mail_does_not(ses: Ses) -> None:
    """An undecided entry must not expire; a sent one does."""
    mailing = mail_ledger.digest("2026-W48")
    claim = mail_ledger.claim(mailing, "ada", "run", 1)
    mail_ledger.claim(mailing, "bea", "run", 1)
    assert isinstance(claim, mail_ledger.Claim)
    claim.sent("m", 1_000)
    dynamodb = boto3.client("dynamodb")
    items = dynamodb.scan(TableName=f"{STACK}-mail-ledger")["Items"]
    expiry = {item["user_id"]["S"]: item.get("expires_at", {}).get("N") for item in items}
    assert expiry == {"ada": str(1_000 + mail_ledger.KEPT_DAYS * 86_400), "bea": None}
