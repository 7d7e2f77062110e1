"""A write whose response is lost is repeated by the SDK and refused; every conditional write recognises its own.

Each row runs a writer twice, once undisturbed and once with the first answer to each of its writes lost. Both must come
to the same, and docs/data-model.md lists the attributes that are written. A function that writes conditionally and has
no row fails the first test.
"""

import ast
import itertools
import random
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from moto.dynamodb.models import dynamodb_backends

import cleanup_old_posts as cleanup
import erase_user_data as erasing
from nexus import backend
from nexus.aws.dynamodb import Condition, Item, Write, equals
from nexus.aws.table import Meter
from nexus.backend import Backend
from nexus.backend.memory import MemoryTransport
from nexus.backend.store import Applied, DynamoStore, Outcome
from nexus.builtin import ping
from nexus.client import chain, group
from nexus.eager import run_all
from nexus.envelope import Envelope
from nexus.errors import Reject, Retry
from nexus.ids import derived_id
from nexus.registry import Implementation, registry
from nexus.runs import locks, tallies, transitions
from nexus.runs.budget import Purse
from nexus.runs.rate_limit import RateLimiter
from nexus.runs.record import RunError, RunRecord
from nexus.runs.transitions import Claim
from nexus.tasks import Budget, Unique
from nexus.testing import run_task
from nexus.worker import Run
from ops import audit, budgets, control
from ops.cli.loop import worker
from social import application, backfill
from social.data import analytics, comments, follows, hashtags, mail_ledger, notifications, posts, sessions, users
from social.data.analytics import ContentDay, PopularPost, Totals
from social.data.comments import Comment
from social.data.days import DAY_SECONDS, day_of
from social.data.hashtags import Trend
from social.data.notifications import Notification
from social.data.posts import Counters, Media, Post
from social.data.sessions import Session, Token
from social.data.users import Counts, User
from social.sweep import Tally
from tests.support import moto_cloud, own_catalogue, sandboxes
from tests.support.own_catalogue import Counted, NoteSent, ReportPart
from tests.support.sandboxes import lost_answers
from tests.support.template import ACCOUNT, REGION, STACK

ROOT = Path(__file__).resolve().parents[3]
NOW = 1_800_000_000
DAY = day_of(NOW)
RUN = "00000000-0000-7000-8000-000000000001"
ERROR = RunError("E", "it failed")
ENVELOPE = Envelope.of(id=RUN, task="ping", sent_at="2026-11-22T12:00:00Z")
COUNTED = ContentDay(DAY, NOW, popular=(PopularPost("p", "a", 9, "words", "A"),))
JOB = own_catalogue.make_report


# --- the writers -----------------------------------------------------------------------------------------------------


def writers() -> set[str]:
    """Every function that makes a Write, inserts, deletes under a condition or transacts, as module.qualified.name."""
    found: set[str] = set()

    def visit(node: ast.AST, path: Path, names: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            inner = (*names, child.name) if isinstance(child, ast.FunctionDef | ast.ClassDef) else names
            if isinstance(child, ast.Call) and _writes(child):
                found.add(".".join((path.stem, *names)))
            visit(child, path, inner)

    for folder in ("shared/nexus", "shared/social", "functions", "ops", "dev", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            if "aws" not in path.parts:
                visit(ast.parse(path.read_text()), path, ())
    return found


def _writes(call: ast.Call) -> bool:
    match call.func:
        case ast.Name("Write" | "transact"):
            return True
        case ast.Attribute(table, "insert" | "delete_each"):
            return _is_table(table)
        case ast.Attribute(table, "delete"):
            return _is_table(table) and any(keyword.arg == "when" for keyword in call.keywords)
    return False


def _is_table(node: ast.expr) -> bool:
    name = ast.unparse(node).rpartition(".")[2]
    return name.isupper() or name == "table"


def written_by(name: str) -> list[str]:
    """The writers that a row's name lists before the colon."""
    return name.partition(":")[0].split(", ")


# --- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """`given` prepares the data; `when` writes, and returns what its caller uses."""

    when: Callable[[], object]
    given: Callable[[], object] = lambda: None


def by(token: str) -> Claim:
    """A sandbox's claim."""
    return Claim(token, "default", float(NOW), NOW + 60.0, NOW + 1000)


def apply(*writes: Write) -> Outcome | None:
    outcome = None
    for write in writes:
        outcome = DynamoStore().apply(write)
    return outcome


PENDING = transitions.pending(ENVELOPE, "default", NOW + 1000)


def claimed(known: Item | None, token: str = "mine") -> Write:
    write = transitions.claim(ENVELOPE, known, by(token), 4, redriven=True)
    assert isinstance(write, Write)
    return write


STARTED = claimed(None)
BLOCKED = transitions.blocked(ENVELOPE, "default", ERROR, float(NOW), NOW, recorded=True)
RETRIED = transitions.retry(RUN, "mine", "default", ERROR, NOW + 5.0)
FAILED = transitions.fail(RUN, "mine", ERROR, float(NOW))
LIVE: Item = {"status": "STARTED", "attempts": 1, "claim": "dead", "lease_until": 1.0}


def rule(then: Write, *before: Write) -> Row:
    """A rule of the run record, alone and in a batch with another run's claim."""

    def when() -> object:
        other = Write("other", {"status": "STARTED"}, when=(equals("status", "PENDING"),))
        if then.batchable:
            return DynamoStore().apply_all([then, other])
        return DynamoStore().apply(then)

    return Row(when, lambda: apply(Write("other", {"status": "PENDING"}), *before))


def in_runtime(story: Callable[[], Any]) -> Callable[[], object]:
    """The story's handle, once everything that it sent has run, without waiting for retries."""

    def reported() -> object:
        transport = MemoryTransport()
        with backend.use(Backend(DynamoStore(), transport)):
            handle = story()
            deliveries = run_all(transport)
            return deliveries, handle.status, handle.error, len(transport.dead), str(handle.result)

    return reported


def job(*, second_phase: bool = False, faulty: bool = False) -> Row:
    def work(_args: object, run: Run) -> Any:
        return run.fan_out([ReportPart(day=DAY)] * 3, then=ReportPart(day=DAY, last=True) if second_phase else None)

    def part(_args: object, run: Run) -> Counted:
        if faulty and run.segment is not None and run.segment.index == 1:
            raise Reject("no")
        return Counted(rows_read=1)

    return Row(in_runtime(JOB.delay), lambda: implements(Implementation(JOB, work, part)))


def implements(implementation: Implementation) -> None:
    registry._implementations[implementation.task.name] = implementation


def retried() -> Row:
    def work(_args: object, run: Any) -> object:
        if run.attempt < 3:
            raise Retry("again", after=1)
        return NoteSent(notification_id="n")

    note = own_catalogue.send_note.s(**own_catalogue.NOTE)
    return Row(in_runtime(lambda: chain(note, note, note).delay()), lambda: implements(Implementation(note.task, work)))


def in_store[**P](action: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Callable[[], object]:
    def reported() -> object:
        transport = MemoryTransport()
        with backend.use(Backend(DynamoStore(), transport)):
            return action(*args, **kwargs), len(transport.sent)

    return reported


UNIQUE = Unique(key=("day",), on_conflict="coalesce", lease=60)
PLACE = "unique/report/a"


def acquire(run_id: str) -> Callable[[], object]:
    envelope = Envelope.of(id=derived_id(run_id), task=JOB.name, sent_at=ENVELOPE.sent_at)
    return in_store(locks.acquire, PLACE, UNIQUE, envelope, NOW)


def waiting() -> None:
    acquire("a")()
    acquire("b")()
    apply(Write(derived_id("b"), {"status": "RETRY", "queue": JOB.queue}))


def book() -> object:
    limiter = RateLimiter("r", 10.0)
    in_store(limiter.acquire)()
    return limiter._next, limiter._left


def book_attempts() -> object:
    return in_store(Purse("report", Budget(runs=9)).take, 4)()


POST = Post("p", "author", NOW - 400 * DAY_SECONDS, visibility="public", media=Media(status="ready"))
PERSON = User("u", "u@example.com", "U", NOW, DAY)
WELCOME = mail_ledger.WELCOME


def posted(**counters: int) -> None:
    posts.put_many([replace(POST, counters=Counters(**counters))], now=NOW)


def commented() -> None:
    posted(comments=1)
    comments.put_many([Comment("p", "c", "a", NOW)])


def erased_comment() -> int:
    run = Run(id=RUN, task="erase_user_data", attempt=1, deadline=0.0, limit=0.0, token="t", sent_at=NOW)
    keys = {"post_id": {"S": "p"}, "comment_id": {"S": "c"}}
    return erasing._erase_comment(erasing.Erasing("a", False, Tally(run)), keys)


def a_person() -> None:
    users.put_many([PERSON])


def a_suppressed_person() -> None:
    users.put_many([replace(PERSON, suppressed="away")])


def archive_posts() -> object:
    report = run_task(cleanup.cleanup_old_posts, {"mode": "archive"})
    return report.eligible, report.archived, report.changed, report.skipped


def old_posts() -> None:
    at = NOW - 367 * DAY_SECONDS
    bare = [Post(f"bare{n}", "a", at, visibility="public") for n in range(3)]
    laden = [Post(f"laden{n}", "a", at, visibility="public") for n in range(3)]
    lively = [Post("lively", "a", at, counters=Counters(likes=5))]
    posts.put_many([*bare, *laden, *lively], now=NOW)
    posts.TABLE.update(Write("lively", {"review": posts.review_of("lively")}))
    comments.put_many([Comment(post.post_id, "c", "b", at, deleted=True) for post in laden])


def marked() -> None:
    old_posts()
    posts.TABLE.update(Write("lively", {"created_at": NOW - 380 * DAY_SECONDS}))


def signed_in() -> None:
    a_person()
    sessions.put_sessions([Session("u", f"s{n}", NOW - 9, NOW - 9, NOW - 1) for n in range(3)])
    sessions.put_tokens([Token("u", f"t{n}", NOW - 9, NOW + 900, "s0") for n in range(3)])


def mail() -> Any:
    return mail_ledger.claim(WELCOME, "u", RUN, NOW)


def sent_mail() -> object:
    claim = mail_ledger.Claim(WELCOME, "u", "mine")
    return claim.sent("m", NOW)


def a_mail() -> None:
    entry = {"mailing": WELCOME.partition("u"), "user_id": "u", "status": "unknown", "token": "mine"}
    mail_ledger.TABLE.put({**entry, "run_id": RUN, "claimed_at": NOW})


KEYS = [("u", f"s{n}") for n in range(3)]
TOKENS = [("u", f"t{n}") for n in range(3)]
SET_MEDIA = Row(lambda: posts.set_media("p", Media(status="rejected", reason="r"), "0A"), posted)

ROWS: dict[str, Row] = {
    "transitions.pending": rule(PENDING),
    "transitions.claim: of a run without a record": rule(STARTED),
    "transitions.blocked": rule(BLOCKED, PENDING),
    "transitions.unblocked": rule(transitions.unblocked(RUN), PENDING, BLOCKED),
    "transitions.claim: of a pending run": rule(claimed({"id": RUN, "status": "PENDING"}), PENDING),
    "transitions.claim: of a retry": rule(
        claimed({"id": RUN, "status": "RETRY", "attempts": 1}, "next"), STARTED, RETRIED
    ),
    "transitions.claim: of a failure": rule(claimed({"id": RUN, "status": "FAILURE"}, "next"), STARTED, FAILED),
    "transitions.claim: of a dead sandbox's run": rule(claimed({"id": RUN, **LIVE}), Write(RUN, LIVE)),
    "transitions.succeed": rule(transitions.succeed(RUN, "mine", "{}", float(NOW), ("a",)), STARTED),
    "transitions.fail": rule(FAILED, STARTED),
    "transitions.retry": rule(RETRIED, STARTED),
    "transitions.kept": rule(transitions.kept(RUN, NOW + 2000), PENDING),
    "transitions.release": rule(transitions.release(RUN, "mine", "default", 1, float(NOW), cursor="[1]"), STARTED),
    "transitions.listed": rule(transitions.listed(RUN, "mine", "default", float(NOW)), STARTED),
    "transitions.progress": rule(transitions.progress(RUN, "mine", 1, 2, "rows"), STARTED),
    "transitions.forget": rule(transitions.forget(RUN), STARTED, transitions.succeed(RUN, "mine", "{}", float(NOW))),
    "worker.due_now": Row(lambda: apply(worker.due_now(RUN)), lambda: apply(STARTED, RETRIED)),
    "transitions.send_again": rule(transitions.send_again(RUN), STARTED, FAILED),
    "transitions.not_sent": rule(transitions.not_sent(RUN, ERROR, float(NOW)), PENDING),
    "transitions.never_ran": rule(
        transitions.never_ran(ENVELOPE, "default", ERROR, float(NOW), NOW, known={"status": "PENDING"}, log="l"),
        PENDING,
    ),
    "transitions.ask_to_revoke": rule(transitions.ask_to_revoke(RUN), STARTED),
    "transitions.revoke_held": rule(transitions.revoke_held(RUN, "mine", "why", float(NOW)), STARTED),
    "transitions.revoked": rule(transitions.revoked(ENVELOPE, "default", "why", float(NOW), NOW)),
    "transitions.revoke_unknown": rule(transitions.revoke_unknown(RUN, "why", float(NOW))),
    "transitions.revoke_before_start": rule(
        transitions.revoke_before_start(RUN, RunRecord(RUN, "PENDING"), "why", float(NOW)), PENDING
    ),
    "transitions.revoke_fan_out": rule(
        transitions.revoke_fan_out(RUN, "why", float(NOW)), Write(RUN, {"status": "STARTED", "total": 2})
    ),
    "fanout.plan, fanout.send_plan, fanout.settle_member, fanout._succeed, tallies.new_tallies": job(),
    "fanout._fail": job(faulty=True),
    "fanout._advance": job(second_phase=True),
    "following._status, sending._later": retried(),
    "tallies.put_all": Row(
        in_store(tallies.put_all, [Write("t", {"size": 1}), Write("v", {"size": 2})]),
        lambda: apply(Write("v", {"x": 1})),
    ),
    "following.open_group": Row(in_runtime(lambda: group([ping.s(), ping.s()]).delay())),
    "locks.acquire: of a free place": Row(acquire("a")),
    "locks.acquire: to wait": Row(acquire("b"), acquire("a")),
    "locks.release, locks._wake": Row(in_store(locks.release, PLACE, derived_id("a"), NOW), waiting),
    "locks.leave": Row(in_store(locks.leave, PLACE, derived_id("b")), waiting),
    "rate_limit.RateLimiter._book": Row(book),
    "rate_limit.RateLimiter._book: after another": Row(book, book),
    "budget.Purse._book": Row(book_attempts),
    "budget.Purse._book: after another": Row(book_attempts, book_attempts),
    "budgets._limits": Row(
        lambda: DynamoStore().apply(budgets._limits("report", Budget(runs=5))),
        lambda: apply(Write("budget/report", {"limited": True, "limit_dollars": 3.0})),
    ),
    "audit._note": Row(
        lambda: DynamoStore().apply(
            audit._note("audit/1", audit.Entry(1.0, "ada", "pause", {"queue": "media"}, "done"))
        )
    ),
    "control._revoke": Row(in_store(control._revoke, [ENVELOPE], "default"), lambda: apply(PENDING)),
    "mail_ledger.claim": Row(lambda: type(mail())),
    "mail_ledger.claim: of one that was claimed": Row(lambda: type(mail()), a_mail),
    "mail_ledger.Claim.sent": Row(sent_mail, a_mail),
    "mail_ledger.Claim.released": Row(lambda: mail_ledger.Claim(WELCOME, "u", "mine").released(), a_mail),
    "users.create": Row(lambda: users.create(PERSON)),
    "users.suppress": Row(lambda: users.suppress("u", "bounce"), a_person),
    "users.end_suppression": Row(lambda: users.end_suppression("u", "away"), a_suppressed_person),
    "users.set_digest": Row(lambda: users.set_digest("u", False), a_person),
    "users.record_activity": Row(lambda: users.record_activity("u", day_of(NOW + DAY_SECONDS)), a_person),
    "users.refuse_tokens_before": Row(lambda: users.refuse_tokens_before("u", NOW), a_person),
    "users.mark_signed_out": Row(lambda: users.mark_signed_out([("u", DAY), ("v", DAY)], at=NOW), a_person),
    "users._counted": Row(lambda: users.set_counts([Counts("u", 1, 2, 3, NOW), Counts("v", 1, 2, 3, NOW)]), a_person),
    "users._counted: never before": Row(
        lambda: users.set_counts([Counts("u", 1, 2, 3, NOW)]),
        lambda: users.TABLE.put({"user_id": "u", "email": "u@example.com"}),
    ),
    "follows.add": Row(lambda: follows.add("a", "b", NOW)),
    "notifications.add": Row(lambda: notifications.add(Notification("u", "n", "like", "hello", NOW))),
    "posts.set_media": SET_MEDIA,
    "posts.scored": Row(
        lambda: posts.TABLE.update_many([posts.scored(item, NOW) for item in posts.for_scoring(["p"])]),
        lambda: posted(likes=3, views=90),
    ),
    "analytics.put_day": Row(lambda: analytics.put_day(ContentDay(DAY, NOW, {"public": 1}))),
    "analytics.put_totals": Row(lambda: analytics.put_totals(Totals(5, 6, NOW))),
    "analytics.raise_watermark": Row(lambda: analytics.raise_watermark("j", DAY)),
    "hashtags.set_trending": Row(lambda: hashtags.set_trending(Trend("t", 1, 2), NOW)),
    "hashtags.clear_trending": Row(lambda: hashtags.clear_trending("t", NOW)),
    "sessions.end_sessions": Row(lambda: sessions.end_sessions(KEYS, seen_before=NOW), signed_in),
    "sessions.revoke_tokens": Row(lambda: sessions.revoke_tokens(TOKENS, issued_before=NOW), signed_in),
    "sessions.end_all": Row(lambda: sessions.end_all("u", NOW), signed_in),
    "sessions.delete_expired": Row(
        lambda: sessions.delete_expired(
            sessions.SESSIONS, [{"user_id": "u", "session_id": f"s{n}"} for n in range(3)], now=NOW
        ),
        signed_in,
    ),
    "posts.counted": Row(lambda: application.count("p", likes=1, views=2), posted),
    "posts.counted: down to nothing": Row(lambda: application.count("p", likes=-1), lambda: posted(likes=1)),
    "application.comment": Row(lambda: application.comment("p", "a", "hello", comment_id="c", at=NOW), posted),
    "application.delete_comment": Row(
        lambda: application.delete_comment("p", "c", at=NOW),
        commented,
    ),
    "posts.create": Row(lambda: application.new_post("a", "hello #you", post_id="q", at=NOW)),
    "posts.set_counters": Row(lambda: application.set_counters("p", likes=3, views=4), posted),
    "comments.hidden": Row(lambda: comments.hide("p", "c", NOW), commented),
    "comments.show": Row(lambda: comments.show(Comment("p", "c", "a", NOW, "again")), commented),
    "application.edit_comment": Row(lambda: application.edit_comment("p", "c", "better"), commented),
    "posts.show_to": Row(lambda: application.set_visibility("p", "private"), posted),
    "posts.edit": Row(lambda: application.edit_post("p", "other #words", at=NOW), posted),
    "posts.hide": Row(lambda: posts.hide("p"), posted),
    "users.change": Row(lambda: application.change_user("u", email="new@example.com", name="N"), a_person),
    "users.change: not the address": Row(lambda: application.change_user("u", locale="fr"), a_person),
    "analytics.set_popular": Row(lambda: analytics.set_popular(COUNTED, ()), lambda: analytics.put_day(COUNTED)),
    "backfill._fill": Row(
        lambda: backfill.users([{"user_id": n, "email": "a@b.c", "created_at": NOW} for n in ("u", "v", "w")]),
        a_person,
    ),
    "erase_user_data._erase_comment": Row(erased_comment, commented),
    "application.record_activity": Row(lambda: application.record_activity("u", "s0", at=NOW), signed_in),
    "application.rotate_token": Row(lambda: application.rotate_token("u", "t0", "t9", at=NOW), signed_in),
    "cleanup_old_posts.move, cleanup_old_posts._move_with_all, cleanup_old_posts._remove_marked": Row(
        archive_posts, old_posts
    ),
    "cleanup_old_posts._review": Row(archive_posts, marked),
}


# --- the tests -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _same_each_time(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    monkeypatch.setattr(cleanup, "FIRST_DAY", day_of(NOW - 370 * DAY_SECONDS))
    monkeypatch.setattr(registry, "_implementations", dict(registry._implementations))
    sandboxes.no_sleep(monkeypatch)
    # A client has a budget of a hundred retries, and here every write is repeated.
    monkeypatch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda *_: True)


VARYING = ("by", "counted_by", "token", "log", "sent_at", "spent")


def everything() -> dict[str, list[str]]:
    """All items of all tables, without what differs between any two runs."""
    tables = dynamodb_backends[ACCOUNT][REGION].tables.values()
    return {
        table.name: sorted(
            str(
                sorted(
                    (name, str(value)) for name, value in item.to_json()["Attributes"].items() if name not in VARYING
                )
            )
            for item in table.all_items()
        )
        for table in tables
    }


def reported(row: Row, monkeypatch: pytest.MonkeyPatch, calls: set[str] | None = None) -> tuple[object, object]:
    """The writer's result, and the items that it left."""
    moto_cloud.clear()
    row.given()
    ids = (f"00000000-0000-7000-8000-{number:012}" for number in itertools.count())
    monkeypatch.setattr("nexus.client.canvas.new_id", lambda: next(ids))
    random.seed(1)
    if calls is not None:
        sys.setprofile(lambda frame, event, _: calls.add(_name(frame)) if event == "call" else None)
    try:
        return row.when(), everything()
    finally:
        sys.setprofile(None)


def stored() -> set[tuple[str, str]]:
    """The table and name of each stored attribute of the network's data; docs/data-model.md describes these by kind."""
    return {
        (table.name.removeprefix(f"{STACK}-"), name)
        for table in dynamodb_backends[ACCOUNT][REGION].tables.values()
        for item in table.all_items()
        for name in item.to_json()["Attributes"]
        if not table.name.endswith(("-analytics", "-task-runs"))
    }


@cache
def listed() -> set[tuple[str, str]]:
    """The same as docs/data-model.md lists them: a table's key and attributes."""
    tables = (ROOT / "docs" / "data-model.md").read_text().partition("\n## Tables\n")[2].partition("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in tables.splitlines() if line.startswith("| ")]
    return {
        (name, attribute) for name, key, others, *_ in cells for attribute in re.findall(r"\w+", f"{key}, {others}")
    }


def _name(frame: Any) -> str:
    return f"{frame.f_globals.get('__name__', '').rpartition('.')[2]}.{frame.f_code.co_qualname}"


def test_every_function_that_writes_conditionally_has_a_row() -> None:
    missing = sorted(writers() - {writer for name in ROWS for writer in written_by(name)})
    assert not missing, f"add a row to ROWS in {Path(__file__).relative_to(ROOT)} for {', '.join(missing)}"


@pytest.mark.simulation
@pytest.mark.parametrize("name", ROWS)
def test_a_write_whose_response_is_lost_has_the_same_effect_and_result(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, calls = ROWS[name], set[str]()
    undisturbed = reported(row, monkeypatch, calls)
    unlisted = [f"{attribute} of {table}" for table, attribute in sorted(stored() - listed())]
    assert not unlisted, f"docs/data-model.md#tables does not list {', '.join(unlisted)}"
    # A rule of the run record makes a Write, which the row applies.
    assert {writer for writer in written_by(name) if not writer.startswith("transitions.")} <= calls

    row = Row(_disturbed(row.when), row.given)
    assert reported(row, monkeypatch) == undisturbed


def _disturbed(when: Callable[[], object]) -> Callable[[], object]:
    def disturbed() -> object:
        with lost_answers() as lost:
            outcome = when()
        assert lost
        return outcome

    return disturbed


ONE_WINS: dict[str, tuple[Callable[[str], object], Callable[[object], bool]]] = {
    "a claim": (lambda who: DynamoStore().apply(claimed(None, who)), lambda it: isinstance(it, Applied)),
    "a claim in a batch": (
        lambda who: DynamoStore().apply_all([claimed(None, who), Write(f"other {who}", {"a": 1}, insert=True)])[0],
        lambda it: isinstance(it, Applied),
    ),
    "a unique place": (lambda who: acquire(who)(), lambda it: it == (None, 0)),
    "a mail": (lambda _: mail(), lambda it: isinstance(it, mail_ledger.Claim)),
    "a refresh": (lambda who: application.rotate_token("u", "t0", who, at=NOW), bool),
    "a user": (lambda who: users.create(User("w", f"{who}@example.com", who, NOW, DAY)), bool),
}


@pytest.mark.parametrize("name", ONE_WINS)
def test_one_of_two_writers_wins_although_the_others_request_is_repeated(name: str) -> None:
    signed_in()
    write, won = ONE_WINS[name]
    theirs: list[object] = []

    with lost_answers(lambda: theirs.append(write("theirs"))):
        mine = write("mine")

    assert won(theirs[0])
    assert not won(mine)


def test_two_sandboxes_that_book_in_the_same_instant_book_different_stretches() -> None:
    theirs: list[Any] = []

    with lost_answers(lambda: theirs.append(book())):
        mine: Any = book()

    assert mine[0] != theirs[0][0]


def test_two_counts_add_two_although_a_request_is_repeated() -> None:
    posted()

    with lost_answers(lambda: application.count("p", likes=1)):
        assert application.count("p", likes=1)

    post = posts.get("p")
    assert post is not None
    assert post.counters.likes == 2


def test_sessions_that_were_removed_before_are_not_reported_as_removed() -> None:
    signed_in()
    absent = [("u", "s0"), ("u", "gone")]
    assert sessions.end_sessions(absent, seen_before=NOW) == [True, False]
    assert sessions.end_sessions(absent, seen_before=NOW) == [False, False]


def test_a_write_refused_at_the_first_try_is_refused_although_the_item_equals_the_write() -> None:
    write = Write("a", {"status": "STARTED"}, when=(equals("status", "PENDING"),))
    DynamoStore().apply(Write("a", {"status": "STARTED"}))
    assert not isinstance(DynamoStore().apply(write), Applied)
    assert follows.add("a", "b", NOW)
    assert not follows.add("a", "b", NOW)


def test_a_request_repeated_after_a_lost_response_is_metered_once() -> None:
    meter, table = Meter(), users.TABLE
    with lost_answers():
        assert table.insert({"user_id": "a"}, meter=meter) is None
        assert table.update(Write("a", {"n": 1}, when=(Condition("n", "missing"),)), meter=meter)
    assert meter.requests == 2
