"""`nexus mail`: what it shows of mails, and how a person settles one whose delivery is unknown."""

import json
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nexus.settings import settings
from ops.cli import output
from ops.main import main
from ops.problems import ExitCode, Problem
from ops.social import mail
from social.data import mail_ledger
from social.weeks import week_of

pytestmark = pytest.mark.usefixtures("cloud", "network")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where previews are written."""
    monkeypatch.setattr(mail, "preview", partial(mail.preview, folder=tmp_path))
    return tmp_path


def unknown(user_id: str, mailing: mail_ledger.Mailing = mail_ledger.WELCOME) -> None:
    """A mail that a function claimed an hour ago, and died."""
    assert isinstance(mail_ledger.claim(mailing, user_id, "run-1", int(time.time()) - 3600), mail_ledger.Claim)


def test_a_preview_is_written_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mail", "preview", "welcome", "--locale", "fr", "--json"]) == ExitCode.DONE
    shown = json.loads(capsys.readouterr().out)
    assert (shown["html"], shown["text"]) == (str(folder / "welcome.html"), str(folder / "welcome.txt"))
    assert "Ada" in Path(shown["html"]).read_text()
    assert Path(shown["text"]).read_text().startswith(f"Subject: {shown['subject']}\n")


@pytest.mark.parametrize(("words", "opened"), [([], ["welcome.html"]), (["--no-open"], [])])
def test_a_preview_opens_in_the_browser_of_a_person(
    folder: Path,
    words: list[str],
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(output, "fancy", lambda *_: True)
    monkeypatch.setattr("webbrowser.open", seen.append)

    assert main(["mail", "preview", "welcome", *words]) == ExitCode.DONE

    assert seen == [(folder / name).as_uri() for name in opened]
    assert str(folder / "welcome.txt") in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["preview", "welcom"], "Did you mean welcome?"),
        (["decide", "digets", "ada", "sent"], "Did you mean digest?"),
        (["decide", "welcome", "ada", "maybe"], "'maybe' is not a verdict"),
        (["decide", "digest", "ada", "sent", "--yes"], "A digest needs its week."),
        (["sent"], "SES keeps no copy of what it sent"),
    ],
)
def test_wrong_words_are_exit_code_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mail", *words]) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_a_function_without_mail_settings_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lambda:
        def get_function_configuration(self, **_: Any) -> dict[str, object]:
            return {}

    mail._import_emails()
    monkeypatch.setattr(mail, "client", lambda _: Lambda())
    with pytest.raises(Problem, match=f"The function {settings().stack}-emails has no usable mail settings") as raised:
        mail.deployed_settings()
    assert "NEXUS_MAIL" in raised.value.why


def test_a_list_of_unknown_mails_that_is_cut_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mail, "MOST", 2)
    unknown("ada")
    assert main(["mail", "unknown"]) == ExitCode.DONE
    assert "The search ended" not in capsys.readouterr().err
    unknown("bea")
    unknown("cleo")
    assert main(["mail", "unknown"]) == ExitCode.DONE
    assert "The search ended at 2 mails." in capsys.readouterr().err


def test_unknown_mails_are_shown_and_settled(capsys: pytest.CaptureFixture[str]) -> None:
    week = week_of(time.time())
    unknown("ada")
    unknown("bea", mail_ledger.digest(week))

    assert main(["mail", "unknown"]) == ExitCode.DONE
    shown = capsys.readouterr()
    assert "run-1" in shown.out
    assert "1h" in shown.out
    assert "nexus mail decide" in shown.err
    assert main(["mail", "unknown", "--json"]) == ExitCode.DONE
    listed = json.loads(capsys.readouterr().out)
    assert {entry["user_id"] for entry in listed} == {"ada", "bea"}
    assert all(datetime.fromisoformat(entry["claimed_at"]).tzinfo for entry in listed)

    # Without an answer nothing changes
    assert main(["mail", "decide", "welcome", "ada", "sent"]) == ExitCode.NOT_CONFIRMED
    assert "Mark the welcome mail of ada in nexus-test as sent?" in capsys.readouterr().err
    assert main(["mail", "decide", "welcome", "ada", "sent", "--yes"]) == ExitCode.DONE
    assert main(["mail", "decide", "digest", "bea", "send", "--week", week, "--yes"]) == ExitCode.DONE
    assert "The digest mail of bea is marked as not sent" in capsys.readouterr().out

    ada = mail_ledger.get(mail_ledger.WELCOME, "ada")
    assert ada is not None
    assert ada.status == "sent"
    assert mail_ledger.get(mail_ledger.digest(week), "bea") is None
    assert main(["mail", "unknown"]) == ExitCode.DONE
    assert capsys.readouterr().out == "No mail's delivery is unknown.\n"
