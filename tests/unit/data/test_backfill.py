"""Importing users, posts and follows: existing rows stay, an interruption is resumed, memory is bounded."""

import csv
import itertools
import json
import tracemalloc
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nexus.aws.table import Table
from ops import catalogue, deployment
from ops.main import main
from ops.problems import ExitCode
from social import application, backfill
from social.catalogue import QUEUES
from social.data import follows, posts, users
from social.data.posts import Counters
from tests.support.pages import blocks
from tests.support.sandboxes import requests

NOW = 1_800_000_000


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)


def people(number: int, first: int = 0) -> Iterator[Mapping[str, Any]]:
    for n in range(first, first + number):
        yield {"user_id": n, "email": f"U{n}@Example.com", "name": f"User {n}", "created_at": NOW - n}


def stored(table: Table) -> dict[tuple[str, ...], Any]:
    rows = (item for page in table.scan() for item in page.items)
    return {tuple(item[name]["S"] for name in table.key): item for item in rows}


def test_rows_are_imported_as_the_application_would_write_them(database: None) -> None:
    user = {"user_id": 7, "email": "Ada@Example.com", "name": "Ada", "locale": "fr", "digest": "false"}
    dates = {"created_at": "2025-03-01T12:00:00", "last_active_at": "2026-11-20T23:30:00-02:00"}
    assert backfill.users([{**user, **dates, "password": "x"}]) == backfill.Report(1, 1, 0, 0)
    assert users.get("7") == users.User("7", "ada@example.com", "Ada", 1740830400, "2026-11-21", "fr", False)

    liked = {"post_id": "p", "author_id": 7, "created_at": str(NOW), "text": "dawn #Café", "likes_count": "3"}
    tagged = {"post_id": "q", "author_id": 7, "created_at": NOW, "visibility": "private", "hashtags": "Tea, coffee"}
    old = {"post_id": "r", "author_id": 7, "created_at": "2024-02-01"}
    assert backfill.posts([liked, tagged, old]).written == 3
    first, second = posts.get("p"), posts.get("q")
    assert first is not None
    assert second is not None
    assert (first.hashtags, first.counters) == (("café",), Counters(likes=3))
    assert (second.hashtags, second.visibility) == (("tea", "coffee"), "private")
    items = stored(posts.TABLE)
    assert "moved" in items["p",], "its counters are to be scored"
    assert "review" in items["r",], "old and quiet, and its day has been reviewed without it"

    assert backfill.follows([{"follower_id": 7, "followed_id": 8, "created_at": NOW}]).written == 1
    assert follows.followed_by("7") == ["8"]


def test_existing_rows_are_kept_and_faulty_rows_are_reported(database: None) -> None:
    application.register("new@example.com", "New", user_id="1", at=NOW)
    faults: list[tuple[int, str]] = []
    rows = [*people(3), {"user_id": "9"}, {"user_id": "../x", "email": "a@b.c", "created_at": NOW}, *people(1)]
    report = backfill.users(rows, on_fault=lambda number, reason: faults.append((number, reason)))
    assert report == backfill.Report(rows=6, written=2, present=2, faulty=2)
    assert [number for number, _ in faults] == [4, 5]
    assert "email: Field required; created_at: Field required" in faults[0][1]
    kept = users.get("1")
    assert kept is not None
    assert (kept.name, kept.email) == ("New", "new@example.com"), "what the application wrote since"
    assert backfill.users(rows).written == 0


def test_a_users_follow_of_themselves_is_a_fault(database: None) -> None:
    faults: list[str] = []
    edges = [{"follower_id": "a", "followed_id": other, "created_at": NOW} for other in ("a", "b")]
    report = backfill.follows(edges, on_fault=lambda _, reason: faults.append(reason))
    assert (report.written, report.faulty) == (1, 1)
    assert faults[0].startswith("followed_id: ")
    assert "it is the follower's own id" in faults[0]
    assert follows.followed_by("a") == ["b"]


class Cut(BaseException):
    """The process is killed."""


@pytest.mark.parametrize("wrong", ["0001-01-01T00:00:00", -1, NOW + 86_401, NOW * 1_000_000, "2262-04-11"])
def test_unreadable_and_future_times_are_reported_as_faults(database: None, wrong: object) -> None:
    faults: list[str] = []
    post = {"post_id": "p", "author_id": "a", "created_at": wrong}
    user = {"user_id": "a", "email": "a@b.c", "created_at": NOW, "last_active_at": wrong}
    backfill.posts([post], check=True, on_fault=lambda _, reason: faults.append(reason))
    backfill.users([user], check=True, on_fault=lambda _, reason: faults.append(reason))
    assert [fault.partition(":")[0] for fault in faults] == ["created_at", "last_active_at"]
    soon = {**post, "created_at": NOW + 3_600}
    assert backfill.posts([soon]).written == 1, "one hour ahead: a time of another zone without its offset"


def test_an_interrupted_backfill_continues_where_it_stopped(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "AT_ONCE", 50)
    monkeypatch.setattr(backfill, "THREADS", 1)
    for fatal in range(0, 12, 3):
        from tests.support import moto_cloud

        moto_cloud.clear()
        seen, done = itertools.count(), [0]

        def killed(_: str, seen: Iterator[int] = seen, fatal: int = fatal) -> None:
            if next(seen) == fatal:
                raise Cut

        with pytest.raises(Cut), requests(killed):
            backfill.users(people(300), on_progress=done.append)
        assert set(stored(users.TABLE)) >= {(str(n),) for n in range(done[-1])}, "what is done is done for good"
        backfill.users(people(300), start=done[-1])
        assert set(stored(users.TABLE)) == {(str(n),) for n in range(300)}


def test_memory_does_not_grow_with_the_number_of_rows(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Discards the writes, so that they take no memory."""
    monkeypatch.setattr(Table, "update_many", lambda _self, writes, **_: [True] * len(writes))

    def peak(number: int) -> int:
        tracemalloc.start()
        assert backfill.users(people(number)).written == number
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1_000)  # the models are built
    few, many = peak(2_000), peak(20_000)
    assert many < few * 1.2 + 500_000


def test_the_code_of_the_page_writes_the_rows_of_another_database(
    database: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [b for b in blocks("web-application.md") if b.words == ("backfill",)]
    rows = [
        SimpleNamespace(pk=n, email=f"u{n}@example.com", name="U", joined=datetime(2025, 1, n, tzinfo=UTC))
        for n in (1, 2)
    ]
    exec(block.compiled("web-application.md"), {"rows": rows})
    assert capsys.readouterr().out.strip() == block.text.splitlines()[-1].rpartition("# ")[2]
    assert users.exists("2")


# --- the command ---


@pytest.fixture
def command(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_: deployment.Choice) -> deployment.Deployment:
        catalogue.use("social.catalogue", tuple(QUEUES))
        return deployment.Deployment("nexus-test", "CREATE_COMPLETE", "eu-west-1", "1" * 12, {})

    monkeypatch.setattr(deployment, "connect", connect)


def nexus(*words: str) -> int:
    return main(list(words))


@pytest.mark.usefixtures("command")
def test_a_csv_file_and_a_json_lines_file_are_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "users.csv"
    with table.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["user_id", "email", "name", "locale", "created_at"])
        writer.writeheader()
        writer.writerow({"user_id": "a", "email": "a@example.com", "name": "Ada,\nLovelace", "created_at": NOW})
        writer.writerow({"user_id": "b", "email": "none", "created_at": NOW})
    assert nexus("backfill", "users", str(table), "--check") == ExitCode.WRONG
    assert stored(users.TABLE) == {}
    assert nexus("backfill", "users", str(table), "--json") == ExitCode.WRONG
    reported = capsys.readouterr()
    assert json.loads(reported.out[reported.out.index("{\n") :]) == {"rows": 2, "written": 1, "present": 0, "faulty": 1}
    assert "row 2: email" in reported.err
    kept = users.get("a")
    assert kept is not None
    assert (kept.name, kept.locale) == ("Ada,\nLovelace", "en")

    lines = tmp_path / "posts.jsonl"
    row = {"post_id": "p", "author_id": "a", "created_at": NOW, "hashtags": ["tea"], "text": "Grüße"}
    lines.write_text(f"{json.dumps(row)}\n\nnot json\n")
    assert nexus("backfill", "posts", str(lines)) == ExitCode.WRONG
    post = posts.get("p")
    assert post is not None
    assert (post.text, post.hashtags) == ("Grüße", ("tea",))
    assert nexus("backfill", "likes", str(lines)) == ExitCode.USAGE
    assert nexus("backfill", "users", str(tmp_path)) == ExitCode.USAGE
    (tmp_path / "users.txt").write_text("")
    assert nexus("backfill", "users", str(tmp_path / "users.txt")) == ExitCode.USAGE


@pytest.mark.usefixtures("command")
def test_text_that_is_not_utf_8_is_reported_as_a_fault_and_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "users.csv"
    table.write_bytes("user_id,email,name,created_at\na,a@x,Grüße,1\n".encode("latin-1"))
    assert nexus("backfill", "users", str(table)) == ExitCode.WRONG
    assert "row 1: name" in capsys.readouterr().err
    lines = tmp_path / "users.jsonl"
    lines.write_bytes('{"user_id": "a", "email": "a@x", "name": "Grüße", "created_at": 1}\n'.encode("latin-1"))
    assert nexus("backfill", "users", str(lines)) == ExitCode.WRONG
    assert "row 1: name" in capsys.readouterr().err
    assert stored(users.TABLE) == {}


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("text", ['"' + "x" * 200_000, "one\rtwo"])
def test_a_file_that_is_not_csv_is_reported_with_the_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "users.csv"
    table.write_text(f"user_id,email,created_at,name\na,a@x,1,Ada\nb,b@x,1,{text}\n", newline="")
    assert nexus("backfill", "users", str(table)) == ExitCode.WRONG
    assert "users.csv is not CSV near line" in capsys.readouterr().err


@pytest.mark.usefixtures("command")
def test_the_command_continues_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backfill, "AT_ONCE", 10)
    monkeypatch.setattr(backfill, "THREADS", 1)
    file = tmp_path / "users.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in people(40)))
    seen = itertools.count()

    def killed(_: str) -> None:
        if next(seen) == 2:
            raise Cut

    with pytest.raises(Cut), requests(killed):
        nexus("backfill", "users", str(file))
    assert len(stored(users.TABLE)) == 20
    asked: list[str] = []
    with requests(asked.append):
        assert nexus("backfill", "users", str(file)) == ExitCode.DONE
    assert "20 rows are done" in capsys.readouterr().err
    assert len(asked) == 2, "and none of the first twenty is written again"
    assert len(stored(users.TABLE)) == 40
    assert list(tmp_path.iterdir()) == [file], "nothing is left beside the file"


@pytest.mark.usefixtures("command")
def test_a_file_that_has_changed_is_read_from_its_beginning(tmp_path: Path) -> None:
    from ops.social import backfilling

    file = tmp_path / "users.jsonl"
    file.write_text("{}\n")
    position = backfilling.remembered(file, "nexus-test", "users")
    backfilling.remember(file, backfilling.Position(**{**vars_of(position), "done": 9}))
    assert backfilling.remembered(file, "nexus-test", "users").done == 9
    assert backfilling.remembered(file, "nexus-prod", "users").done == 0
    assert backfilling.remembered(file, "nexus-test", "posts").done == 0
    file.write_text("{}\n{}\n")
    assert backfilling.remembered(file, "nexus-test", "users").done == 0


def vars_of(position: Any) -> dict[str, Any]:
    return {name: getattr(position, name) for name in position.__slots__}
