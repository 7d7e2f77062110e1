"""What else decides about a mail besides its reader: spam filters, the size at which Gmail cuts, accessibility."""

import mailbox
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest

from mail import delivery
from mail.languages import available, load
from mail.rendering import Mail
from tests.support.axe import violations
from tests.support.browser import Page, browser
from tests.unit.emails.odd_readers import LINK, digests, settings, welcomes

MAILS = {"welcome": welcomes, "digest": digests}
SIZE = 90_000
"""Bytes; Gmail cuts a mail off at 102 KB, and its footer with the link that unsubscribes."""

SCORE = 0.5
MEDIA = "https://media.nexus.example"


def message(mail: Mail, kind: str, folder: Path) -> EmailMessage:
    """The mail as SES makes it of what it is given."""
    made = EmailMessage(policy=SMTP)
    made["From"] = delivery.sender(kind, settings(folder))
    made["To"] = "ada@reader.example"
    made["Subject"] = mail.subject
    made["Date"] = "Mon, 30 Nov 2026 09:00:05 +0000"
    made["Message-ID"] = "<01020192f0a1b2c3-4d5e6f70-8192-a3b4-c5d6-e7f8091a2b3c-000000@eu-west-1.amazonses.com>"
    for header in delivery.one_click(LINK):
        made[header["Name"]] = header["Value"]
    made.set_content(mail.text)
    made.add_alternative(mail.html.replace(settings(folder).media_url, MEDIA), subtype="html")
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mail")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


@pytest.mark.parametrize("code", available())
@pytest.mark.parametrize("kind", MAILS)
def test_a_mail_is_small_enough_to_be_shown_whole_and_has_no_long_line(kind: str, code: str, folder: Path) -> None:
    for mail in MAILS[kind](load(code), folder):
        assert len(bytes(message(mail, kind, folder))) < SIZE
        for part in (mail.html, mail.text):
            assert max(len(line.encode()) for line in part.split("\n")) <= 998


def scores(folder: Path, *messages: EmailMessage) -> list[tuple[str, float]]:
    """(X-Mail, score) of each message by SpamAssassin with the rules that it comes with: no network, no Bayes."""
    program = shutil.which("spamassassin")
    assert program, "the tests need SpamAssassin: `make .local/spamassassin` installs it"
    box = mailbox.mbox(folder / "mails.mbox")
    for one in messages:
        box.add(bytes(one))
    box.close()
    (folder / "preferences").write_text("report_safe 0\nuse_bayes 0\n")
    checked = subprocess.run(
        [program, "--local", f"--prefspath={folder / 'preferences'}", "--mbox", str(folder / "mails.mbox")],
        capture_output=True,
        check=True,
        env={**os.environ, "HOME": str(folder)},
    ).stdout.decode(errors="replace")
    found = re.findall(r"^X-Spam-Status: \w+, score=(-?[\d.]+).*?^X-Mail: (.+?)$", checked, re.MULTILINE | re.DOTALL)
    assert len(found) == len(messages)
    return [(name, float(score)) for score, name in found]


def test_spam_filters_have_nothing_against_the_mails(folder: Path, tmp_path: Path) -> None:
    sent = [
        (f"{kind} {number} in {code}", message(mail, kind, folder))
        for kind, make in MAILS.items()
        for code in available()
        for number, mail in enumerate(make(load(code), folder))
        if number % 8 == 0
    ]
    for name, mail in sent:
        mail["X-Mail"] = name
    assert {name: score for name, score in scores(tmp_path, *(mail for _, mail in sent)) if score >= SCORE} == {}


def test_the_spam_filter_knows_spam(tmp_path: Path) -> None:
    advert = EmailMessage(policy=SMTP)
    advert["X-Mail"] = "advert"
    advert.set_content("XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\n")
    ((_, score),) = scores(tmp_path, advert)
    assert score > 100


@pytest.mark.parametrize("code", available())
@pytest.mark.parametrize("kind", MAILS)
def test_axe_finds_nothing(page: Page, kind: str, code: str, folder: Path) -> None:
    for number, mail in enumerate(MAILS[kind](load(code), folder)):
        if number % 6 == 0:
            shown = folder / f"{kind}-{code}-{number}.html"
            shown.write_text(mail.html, encoding="utf-8")
            page.look(width=600)
            page.open(shown.as_uri())
            assert violations(page) == [], (code, number)


def test_axe_finds_known_faults(page: Page, folder: Path) -> None:
    shown = folder / "broken.html"
    shown.write_text(
        '<html lang="en"><title>x</title><h1>x</h1><table role="list"><tr role="listitem"><td>x</td></tr></table>'
    )
    page.open(shown.as_uri())
    assert any("list" in one for one in violations(page))
