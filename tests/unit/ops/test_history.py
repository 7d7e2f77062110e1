"""The run history: what each search finds, in which order, over pages, and what is never kept."""

import json
import random
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from nexus import definitions
from nexus.backend import backend
from nexus.backend.store import Write
from nexus.builtin import ping
from nexus.client import group
from nexus.envelope import Envelope, decode
from nexus.ids import new_id
from nexus.registry import registry
from nexus.runs import tallies, transitions
from nexus.runs.history import of_status, of_task
from nexus.runs.record import RunError, RunRecord
from nexus.settings import settings
from nexus.tasks import Task
from ops import audit, history, lookup
from ops.cli import common
from ops.history import Query, find, parse
from ops.main import main
from ops.problems import Problem

KEEP = 2_000_000_000
NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def stack(emptied: None) -> None:
    history._large.clear()


def sent(task: str, at: float, queue: str = "users", parent: str | None = None, **args: Any) -> str:
    """A run that was sent this many seconds after NOW, PENDING."""
    moment = datetime.fromtimestamp(NOW + at, UTC)
    envelope = Envelope(id=new_id(), task=task, args=args, parent=parent, sent_at=moment)
    backend().store.apply(transitions.pending(envelope, queue, KEEP))
    return envelope.id


def ended(run_id: str, task: str, error: RunError | None = None) -> str:
    """The run, claimed and settled."""
    by = transitions.Claim("t", "users", NOW, NOW + 60, KEEP)
    known = backend().store.get([run_id])[run_id]
    envelope = Envelope(id=run_id, task=task, args=json.loads(str(known["args"])))
    claim = transitions.claim(envelope, known, by, 4)
    assert isinstance(claim, Write)
    backend().store.apply(claim)
    end = transitions.fail(run_id, "t", error, NOW + 1) if error else transitions.succeed(run_id, "t", "{}", NOW + 1)
    backend().store.apply(end)
    return run_id


def ids(wanted: Query, **also: Any) -> list[str]:
    return [run.id for run in find(wanted, **also).runs]


@pytest.mark.parametrize("pages", [0, 2], ids=["many runs", "few runs"])
def test_each_filter_finds_what_it_names_and_nothing_else_the_newest_first(
    pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGES", pages)
    good = ended(sent("refresh_user_statistics", 1, user_id="u-1"), "refresh_user_statistics")
    bad = ended(
        sent("send_welcome_email", 2, "emails", user_id="u-1"), "send_welcome_email", RunError("Timeout", "too slow")
    )
    waits = sent("send_welcome_email", 3, "emails", user_id="u-2")
    other = sent("cleanup_old_posts", 4, "maintenance", mode="review")
    audit.Change("pause", {"queue": "users"}).begin()  # shares the index, but is not a run
    assert ids(Query()) == [other, waits, bad, good]
    assert ids(Query(task="send_welcome_email")) == [waits, bad]
    assert ids(Query(queue="emails")) == [waits, bad]
    assert ids(Query(status="FAILURE")) == [bad]
    assert ids(Query(status="SUCCESS")) == [good]
    assert ids(Query(status="PENDING")) == [other, waits]
    assert ids(Query(error="Timeout")) == ids(Query(error="too slow")) == [bad]
    assert ids(Query(error="nothing")) == []
    assert ids(Query(args={"user_id": "u-1"})) == [bad, good]
    assert ids(Query(args={"user_id": "u-1"}, status="SUCCESS")) == [good]
    assert ids(Query(args={"user_id": "u-*"})) == [waits, bad, good]
    assert ids(Query(args={"mode": "review"})) == [other]
    assert ids(Query(since=NOW + 2, until=NOW + 3)) == [waits, bad]


@pytest.mark.parametrize("pages", [0, 2], ids=["many runs", "few runs"])
def test_a_search_of_a_span_that_ends_before_it_begins_finds_nothing(
    pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DynamoDB refuses such a span: `since:1h until:2h`, the last page of `since:1h`, an id from before `since`."""
    monkeypatch.setattr(history, "PAGES", pages)
    run_id = sent("ping", 0)
    assert ids(Query(task="ping", since=NOW + 2, until=NOW + 1)) == []
    assert ids(Query(task="ping", since=NOW + 2), after=f"{NOW + 1}/{run_id}") == []
    assert ids(Query(task="ping", id=run_id[:8], since=NOW + 2, until=NOW + 1)) == []
    counted: list[Any] = []
    history.over(Query(task="ping", since=NOW + 2, until=NOW + 1), counted.extend)
    assert counted == []


@pytest.mark.parametrize("pages", [0, 2], ids=["many runs", "few runs"])
def test_the_runs_of_a_schedule_are_found_by_its_name(pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "PAGES", pages)
    sent("cleanup_old_posts", 1)  # by a sender
    of_rule = Envelope.of(
        id=new_id(), task="cleanup_old_posts", sent_at=datetime.fromtimestamp(NOW, UTC), origin="rule"
    )
    fired = [
        decode(json.dumps({"v": 1, "fired": [name, at], "task": "cleanup_old_posts", "args": {"mode": "review"}}))
        for name, at in (
            ("monday", "2027-01-15T08:01:00Z"),
            ("monday", "2027-01-15T08:02:00Z"),
            ("tuesday", "2027-01-15T08:01:00Z"),
        )
    ]
    for envelope in (of_rule, *fired):
        backend().store.apply(transitions.pending(envelope, "maintenance", KEEP))
    assert ids(Query(schedule="cleanup_old_posts")) == [of_rule.id]
    assert ids(Query(schedule="monday")) == [fired[1].id, fired[0].id]
    assert ids(Query(schedule="monday", until=NOW + 60)) == [fired[0].id]
    assert ids(Query(schedule="tuesday", task="cleanup_old_posts")) == [fired[2].id]
    assert ids(Query(schedule="wednesday")) == []


def test_a_run_that_takes_a_while_is_found_as_started_before_it_ends() -> None:
    run_id = sent("send_welcome_email", 1, "emails", user_id="u-1")
    claim = transitions.claim(
        Envelope(id=run_id, task="send_welcome_email"),
        {"id": run_id, "status": "PENDING"},
        transitions.Claim("t", "emails", NOW, NOW + 60, KEEP),
        4,
    )
    assert isinstance(claim, Write)
    backend().store.apply(claim)
    backend().store.apply(transitions.listed(run_id, "t", "emails", NOW))
    assert ids(Query(status="STARTED")) == [run_id]
    assert ids(Query(status="STARTED", task="ping")) == []


def test_a_failed_run_that_is_sent_again_leaves_the_list_of_failures() -> None:
    task = "send_welcome_email"
    run_id = ended(sent(task, 1, user_id="u-1"), task, RunError("Timeout", "too slow"))
    backend().store.apply(transitions.send_again(run_id))
    assert ids(Query(status="FAILURE")) == []
    assert ids(Query(status="PENDING")) == [run_id]
    ended(run_id, task)
    assert ids(Query(status="SUCCESS")) == [run_id]
    assert "why" not in backend().store.get([run_id])[run_id]


@pytest.mark.parametrize("pages", [0, 2], ids=["many runs", "few runs"])
def test_a_page_begins_where_the_last_one_ended_with_no_run_twice_or_missing(
    pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGES", pages)
    every = {sent("send_welcome_email", n // 7, "emails", user_id=f"u-{n}") for n in range(50)}
    seen: list[str] = []
    after = None
    while True:
        page = find(Query(task="send_welcome_email"), limit=8, after=after)
        seen += [run.id for run in page.runs]
        after = page.after
        if after is None:
            break
    assert len(seen) == 50
    assert set(seen) == every


def test_a_search_that_takes_too_long_returns_what_it_has_and_continues_from_there() -> None:
    wanted = sent("cleanup_old_posts", 0, "maintenance", mode="archive")
    for n in range(1, 30):
        sent("cleanup_old_posts", n, "maintenance", mode="review")
    page, looks = find(Query(args={"mode": "archive"}), limit=5, patience=0.0), 1
    while not page.runs:
        assert page.after is not None
        page, looks = find(Query(args={"mode": "archive"}), limit=5, after=page.after, patience=0.0), looks + 1
    assert [run.id for run in page.runs] == [wanted]
    assert looks > 1


class Index:
    """An index of random runs of three users, most of them failures, many in one millisecond, read in small pages."""

    task = "refresh_user_statistics"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self.random = random.Random(seed)
        self.limit, within = self.random.randint(1, 3), self.random.choice([3, 30])
        self.records: dict[str, RunRecord] = {}
        self.partitions: dict[str, list[RunRecord]] = {}
        for _ in range(self.random.randint(1, 60)):
            run_id = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
            user, at = self.random.choice(["u-1", "u-2", "u-3"]), NOW + self.random.randint(0, within) / 1000
            failed = self.random.random() < 0.7
            key = of_status("FAILURE", run_id) if failed else of_task(self.task, run_id, f"user_id={user}")
            run = RunRecord(run_id, "FAILURE" if failed else "PENDING", self.task, args={"user_id": user}, sent_at=at)
            self.records[run_id] = run
            self.partitions.setdefault(key, []).append(run)
        for runs in self.partitions.values():  # within one millisecond it has no order
            runs.sort(key=lambda run: -(run.sent_at or 0))
        monkeypatch.setattr(history, "_asked", self.asked)
        monkeypatch.setattr(history, "_scanned", lambda *_: None)
        monkeypatch.setattr(history, "read_records", lambda handles: [self.records[one.id] for one in handles])

    def asked(self, _: str, request: Any) -> Any:
        values = request["ExpressionAttributeValues"]
        low, high = float(values[":low"]["N"]), float(values[":high"]["N"])
        runs = [run for run in self.partitions.get(values[":p"]["S"], []) if low <= (run.sent_at or 0) <= high]
        if start := request.get("ExclusiveStartKey"):
            runs = runs[[run.id for run in runs].index(start["id"]["S"]) + 1 :]
        limit = self.limit if "FilterExpression" in request else min(self.limit, request["Limit"])
        wanted = values.get(":argument", {}).get("S")
        found = [run for run in runs[:limit] if wanted in (None, f"user_id={(run.args or {})['user_id']}")]
        response: dict[str, Any] = {"Items": [self.item(run) for run in found]}
        # The last page may not know that it is the last.
        if len(runs) > limit or (len(runs) == limit and self.random.random() < 0.5):
            response["LastEvaluatedKey"] = self.item(runs[limit - 1])
        return response

    @staticmethod
    def item(run: RunRecord) -> Any:
        return {"id": {"S": run.id}, "sent_at": {"N": repr(run.sent_at)}}


@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("patience", [0.0, 600.0])
def test_a_search_among_many_failures_is_patient_and_misses_none(
    patience: float, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All failures share partitions, which are filtered page by page: those of one user may be few of many."""
    index = Index(monkeypatch, seed)
    mine = [run for run in index.records.values() if run.args == {"user_id": "u-1"}]
    expected = sorted(((run.sent_at, run.id) for run in mine), reverse=True)
    found, after, looks = list[RunRecord](), None, 0
    while looks == 0 or after is not None:
        page = find(Query(task=index.task, args={"user_id": "u-1"}), index.random.randint(1, 4), after, patience)
        found, after, looks = [*found, *page.runs], page.after, looks + 1
        assert looks <= 200
    assert [(run.sent_at, run.id) for run in found] == expected


def test_a_search_without_matches_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    index, reads = Index(monkeypatch, 0), [0]
    index.partitions["FAILURE#0"] = [
        RunRecord(new_id(), "FAILURE", index.task, args={"user_id": "u-2"}, sent_at=NOW - n) for n in range(1000)
    ]
    asked = index.asked

    def counted(*given: Any) -> Any:
        reads[0] += 1
        return asked(*given)

    monkeypatch.setattr(history, "_asked", counted)
    page = find(Query(task=index.task, args={"user_id": "u-4"}), patience=0.0)
    assert (page.runs, page.after is None) == ((), False)
    assert reads[0] < 100


def test_every_returns_all_matching_runs_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A button acts on all that match, and a file has them all: half of them would pass for the whole."""
    sent_ids = [sent("cleanup_old_posts", n, "maintenance", mode="review") for n in range(9)]
    wanted = Query(task="cleanup_old_posts", args={"mode": "review"})
    assert [one.id for one in history.every(wanted, 100)] == sent_ids[::-1]
    assert len(history.every(wanted, 5)) == 5
    monkeypatch.setattr(history, "LONG", 0.0)
    assert len(history.every(wanted, 5)) == 5
    with pytest.raises(Problem, match="takes too long"):
        history.every(replace(wanted, args={"mode": "archive"}), 5)


def test_the_members_of_a_group_and_what_a_run_sent_are_found_by_their_parent() -> None:
    handle = group([ping.s(text="1"), ping.s(text="2")]).delay()
    members = [tallies.member(handle.id, 1, n) for n in range(2)]
    for member in members:  # recorded when they start
        envelope = Envelope(id=member, task="ping", parent=handle.id)
        backend().store.apply(transitions.pending(envelope, "default", KEEP))
    assert set(ids(Query(parent=handle.id))) == set(members)
    assert ids(Query(task="group")) == [handle.id]
    job = sent("cleanup_old_posts", time.time() - NOW - 5, "maintenance")
    child = sent("ping", time.time() - NOW, "default", parent=job)
    sent("ping", time.time() - NOW, "default")
    assert ids(Query(parent=job)) == [child]


@pytest.mark.parametrize("pages", [0, 2], ids=["many runs", "few runs"])
def test_a_run_is_found_by_the_first_or_the_last_characters_of_its_id(
    pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGES", pages)
    if not pages:  # each search would make two hundred requests
        all_tasks = history._tasks
        few = {"ping", tallies.GROUP}
        monkeypatch.setattr(history, "_tasks", lambda wanted: {n: t for n, t in all_tasks(wanted).items() if n in few})
    monkeypatch.setattr(time, "time", lambda: NOW + 200_000)
    # Given two runs of one minute, two days ago, and a third with the end of the second's id; NOW is 01a3185c
    first, second = (f"01a3185c-{n}401-7000-8000-0000000{n}2345" for n in (1, 2))
    third = "8a3185c9-0000-5000-8000-000000022345"
    for run_id, at in ((first, 0), (second, 1), (third, 200_000 - 5_000)):
        envelope = Envelope(id=run_id, task="ping", args={}, sent_at=datetime.fromtimestamp(NOW + at, UTC))
        backend().store.apply(transitions.pending(envelope, "users", KEEP))
    audit.Change("pause", {"queue": "users"}).begin()
    # Then its first characters find a run at any age, since they contain its time
    assert lookup.run_id("01A3185C-1") == first
    assert ids(Query(id="01a3185c")) == [second, first]
    with pytest.raises(Problem, match="matches 2 runs") as caught:
        lookup.run_id("01a3185c")
    assert f"{second} ping PENDING; {first} ping PENDING" in caught.value.why
    # And its last ones, which do not, among the runs of a day, or of the given time
    assert lookup.short(third) == "00022345"
    assert lookup.run_id("00022345") == third
    assert ids(Query(id="00012345")) == []
    assert ids(Query(id="00012345", since=NOW - 1)) == [first]
    assert ids(Query(id="00012345", since=NOW + 1)) == []
    with pytest.raises(Problem, match="begins or ends with 00012345"):
        lookup.run_id("00012345")
    # And neither finds characters from the middle, nor anything if another filter does not match
    assert ids(Query(id="0-7000-8000")) == ids(Query(id="01a3185c", status="FAILURE")) == []
    assert lookup.run_id(first) == first


def test_a_search_by_part_of_an_id_reads_a_bounded_span_of_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time in the id bounds the search: no partition is read completely."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    month = NOW - 30 * 86_400
    assert list(history._spans(Query(id="01a3185c"))) == [
        (pytest.approx(NOW - 60, abs=66), pytest.approx(NOW + 3600, abs=66)),
        *((NOW - back, 9_999_999_999.0) for back in (600, 7_200, 86_400)),
    ]
    assert list(history._spans(Query(id="c0ffee00"))) == [(NOW - b, 9_999_999_999.0) for b in (600, 7_200, 86_400)]
    assert list(history._spans(Query(id="c0ffee00", since=month)))[-1] == (month, 9_999_999_999.0)
    assert list(history._spans(Query(id="c0ffee00", since=NOW - 60, until=NOW))) == [(NOW - 60, NOW)]


def test_a_secret_argument_is_in_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reset(definitions.Arguments):
        user_id: str
        code: str

    class Done(definitions.Result):
        pass

    task = Task(name="reset_password", queue="users", arguments=Reset, result=Done, summary="", secret=("code",))
    monkeypatch.setattr(registry, "known", {task.name: task}.get)
    envelope = Envelope(id=new_id(), task=task.name, args={"user_id": "u-1", "code": "c-4711"})
    backend().store.apply(transitions.pending(envelope, "users", KEEP))
    item = backend().store.get([envelope.id])[envelope.id]
    assert "4711" not in str(item)
    assert item["argument"] == "user_id=u-1"


@pytest.mark.parametrize(
    ("typed", "means"),
    [
        ("task:ping status:failure user_id=u-1", Query(task="ping", status="FAILURE", args={"user_id": "u-1"})),
        ('error:"timed out" queue:media', Query(error="timed out", queue="media")),
        ("ping", Query(task="ping")),
        ("id:9752202A task:ping", Query(id="9752202a", task="ping")),
        ("9752202a", Query(id="9752202a")),
        ("schedule:monday", Query(schedule="monday")),
        ("key=a:b", Query(args={"key": "a:b"})),
        ("since:2026-11-23T09:00", Query(since=1795424400.0)),
        ("", Query()),
    ],
)
def test_a_typed_query_is_parsed(typed: str, means: Query) -> None:
    assert parse(typed) == means


@pytest.mark.parametrize(
    "typed",
    [
        "status:done",
        "colour:red",
        'error:"open',
        "since:soon",
        f"since:{'9' * 400}",
        f"until:{'9' * 5000}d",
        "id:97522",
        "status:failure status:revoked",
        "ping task:cleanup_old_posts",
        "user_id=u-1 user_id=u-2",
    ],
)
def test_an_invalid_query_is_refused(typed: str) -> None:
    with pytest.raises(Problem):
        parse(typed)


@pytest.mark.parametrize("after", ["x", "1.0", "/id", "nan/id", "inf/", "inf/id", "1e999/id", "-inf/id"])
def test_an_invalid_position_is_refused(after: str) -> None:
    with pytest.raises(Problem, match="not a position"):
        find(Query(), after=after)


@pytest.mark.parametrize(
    ("words", "means"),
    [
        (["error:timed out"], Query(error="timed out")),  # error:"timed out", as the shell passes it on
        (['error:"timed out"'], Query(error="timed out")),
        (["status:failure since:2026-11-23T09:00"], Query(status="FAILURE", since=1795424400.0)),
        (
            ["ping", "name=Ada Lovelace", "queue:media"],
            Query(task="ping", queue="media", args={"name": "Ada Lovelace"}),
        ),
        (["ping queue:media"], Query(task="ping", queue="media")),
        (["  "], Query()),
        ([], Query()),
    ],
)
def test_a_word_of_the_command_line_is_a_filter(words: list[str], means: Query) -> None:
    assert history.parse_words(words) == means


@pytest.mark.parametrize("pages", [0, 2], ids=["many runs", "few runs"])
def test_a_whole_id_is_found_at_any_age(pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload's id, a rule's and a member's have no time in them."""
    monkeypatch.setattr(history, "PAGES", pages)
    monkeypatch.setattr(time, "time", lambda: NOW + 3 * 86_400)
    run_id = "8a3185c9-0000-5000-8000-000000022345"
    envelope = Envelope(id=run_id, task="ping", args={}, sent_at=datetime.fromtimestamp(NOW, UTC))
    backend().store.apply(transitions.pending(envelope, "users", KEEP))
    assert ids(parse(run_id.upper())) == [run_id]
    assert ids(Query(id=run_id, task="ping", until=NOW)) == [run_id]
    assert ids(Query(id=run_id, task="group")) == ids(Query(id=run_id, until=NOW - 1)) == ids(Query(id=new_id())) == []
    page = find(Query(id=run_id), limit=1)
    assert ids(Query(id=run_id), after=page.after) == []


@pytest.mark.parametrize("user", ["u" * 400, "", "it's", '"', "\u202e"])
def test_any_value_of_an_argument_is_found(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index keeps the first 300 characters of a searchable argument."""
    monkeypatch.setattr(history, "PAGES", 0)
    run_id, _ = sent("refresh_user_statistics", 0, user_id=user), sent("refresh_user_statistics", 1, user_id="u-1")
    assert ids(Query(args={"user_id": user}, task="refresh_user_statistics")) == [run_id]
    ended(run_id, "refresh_user_statistics", RunError("Timeout", "too slow"))
    assert ids(Query(args={"user_id": user}, task="refresh_user_statistics", status="FAILURE")) == [run_id]


def test_a_run_that_fails_while_it_is_searched_for_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its partition is another then, and the search may read both."""
    run_id = sent("ping", 0)
    item = {"id": run_id, "sent_at": NOW}
    monkeypatch.setattr(history, "_merged", lambda *_: iter([item, item]))
    monkeypatch.setattr(history, "_scanned", lambda *_: None)
    assert ids(Query()) == [run_id]


@pytest.mark.parametrize("pages", [0, 2], ids=["many runs", "few runs"])
def test_a_stack_without_the_history_says_so(pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "PAGES", pages)
    monkeypatch.setattr(history, "INDEX", "gone")
    with pytest.raises(Problem, match="not kept"):
        find(Query())


DENIED = "ada is not authorized to perform: dynamodb:Query on resource: arn:aws:dynamodb:::table/runs/index/history"
THROTTLED = "Throughput exceeds the current capacity of your table or index. DynamoDB is automatically scaling it."


def refuse_reads(monkeypatch: pytest.MonkeyPatch, code: str, message: str) -> None:
    """DynamoDB answers every read of the index with this error."""

    class DynamoDB:
        def query(self, **_: Any) -> None:
            raise ClientError({"Error": {"Code": code, "Message": message}}, "Query")

        scan = query

    monkeypatch.setattr(history, "client", lambda _: DynamoDB())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ValidationException", "The table does not have the specified index: history"),
        ("ValidationException", "Cannot read from backfilling global secondary index: history"),
        ("ResourceNotFoundException", "Invalid index: history"),
    ],
)
def test_without_a_filled_index_there_is_no_history(
    code: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "connect", lambda: None)
    refuse_reads(monkeypatch, code, message)
    with pytest.raises(history.NotKept):
        find(Query())
    assert main(["runs"]) == 1
    assert "RunHistory=on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "message", "exit_code", "shown"),
    [
        ("AccessDeniedException", DENIED, 4, "denied"),
        ("ThrottlingException", THROTTLED, 1, "AWS throttles Query"),
        ("ProvisionedThroughputExceededException", THROTTLED, 1, "AWS throttles Query"),
        ("ResourceNotFoundException", "Requested resource not found", 1, "is missing"),
        ("ResourceNotFoundException", "not found: Table: nexus-test-task-runs not found", 1, "is missing"),
    ],
)
def test_any_other_error_about_the_index_is_reported_as_it_is(
    code: str,
    message: str,
    exit_code: int,
    shown: str,
    *,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(common, "connect", lambda: None)
    refuse_reads(monkeypatch, code, message)

    assert main(["runs"]) == exit_code

    printed = capsys.readouterr().err
    assert shown in printed
    assert "RunHistory" not in printed
    # And a search by part of an id does not read the whole table instead.
    with pytest.raises(ClientError):
        lookup.run_id("00022345")


def test_a_stack_that_is_called_index_and_has_no_table_is_missing_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_STACK", "index")
    settings.cache_clear()
    message = "Requested resource not found: Table: index-task-runs not found"
    refuse_reads(monkeypatch, "ResourceNotFoundException", message)
    with pytest.raises(ClientError, match="index-task-runs"):
        find(Query())


@pytest.mark.parametrize(
    "fields",
    [
        {"searchable": ("code",), "secret": ("code",)},
        {"part": object, "secret": ("code",)},
        {"unique": definitions.Unique(on_conflict="coalesce"), "secret": ("code",)},
    ],
)
def test_a_task_whose_secret_would_be_written_down_cannot_be_declared(fields: dict[str, Any]) -> None:
    class Reset(definitions.Arguments):
        code: str

    with pytest.raises(ValueError, match=r"t: code is both searchable and secret|t: a task with secrets cannot have"):
        Task(
            name="t",
            queue="users",
            arguments=Reset,
            result=definitions.Result,
            summary="",
            **fields,
        )


def test_the_command_shows_a_page_as_text_and_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "connect", lambda: None)
    task = "send_welcome_email"
    run_id = ended(sent(task, 1, "emails", user_id="u-1"), task, RunError("Timeout", "too slow"))
    sent(task, 0, "emails", user_id="u-2")
    assert main(["runs", "task:send_welcome_email", "--arg", "user_id=u-1", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert [run["id"] for run in page["runs"]] == [run_id]
    assert page["next"] is None
    assert main(["runs", "--status", "failure", "--error", "Timeout"]) == 0
    assert "Timeout: too slow" in capsys.readouterr().out
    assert main(["runs", "--limit", "1"]) == 0
    captured = capsys.readouterr()
    assert run_id in captured.out
    assert "--after" in captured.err
    assert main(["runs", "--task", "ping"]) == 0
    assert "No run" in capsys.readouterr().out
    assert main(["runs", "--arg", "user_id"]) == 2
    assert main(["runs", "--after", "x"]) == 2


def test_a_large_index_is_not_read_whole_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(history, "_first_pages", looked.append)
    run_id = sent("send_notification", 0, user_id="u-1")
    for _ in range(2):
        assert [one.id for one in find(Query()).runs] == [run_id]
    assert looked == [history.PAGES]
