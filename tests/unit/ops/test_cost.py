"""Costs by task, queue and day, idle resources, budgets set at run time, and the estimate for a backlog."""

import json
import os
import time
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from botocore.exceptions import ClientError

from nexus import prices
from nexus.backend import backend
from nexus.backend.store import Write
from nexus.client import AsyncResult
from nexus.envelope import Envelope
from nexus.ids import new_id
from nexus.prices import Cost
from nexus.runs import budget, transitions
from nexus.runs.record import RunError, RunRecord
from nexus.runs.spent import Spent
from nexus.tasks import Budget
from ops import budgets, cloudwatch, cost, health, history, plan, waiting
from ops.cli import common
from ops.cost import Idle, Line, Slice
from ops.deployment import Choice, Deployment
from ops.main import main
from ops.problems import Problem
from ops.web import money
from ops.web.views import Site
from tests.support.pages import DOCS

KEEP = 2_000_000_000
DIGEST = "send_content_digest_email"
EACH = Spent(gb_seconds=0.1, invocations=1.0, writes=6.0, messages=3.0, log_bytes=1000.0)
DAY = 86_400.0


@pytest.fixture(autouse=True)
def stack(emptied: None, monkeypatch: pytest.MonkeyPatch) -> None:
    where = Deployment("nexus-test", "UPDATE_COMPLETE", "eu-west-1", "123456789012", {"Stage": "dev"})
    monkeypatch.setattr(common, "connect", lambda: where)
    monkeypatch.setattr(cost, "idle", lambda: [Idle("27 alarms", 2.7)])


def ran(
    task: str, queue: str, ago: float = 60.0, spent: Spent | None = EACH, error: RunError | None = None, **args: Any
) -> str:
    """A run that was sent this many seconds ago, and has ended."""
    at = time.time() - ago
    envelope = Envelope(id=new_id(), task=task, args=args, sent_at=datetime.fromtimestamp(at, UTC))
    store = backend().store
    store.apply(transitions.pending(envelope, queue, KEEP))
    claim = transitions.claim(
        envelope, {"id": envelope.id, "status": "PENDING"}, transitions.Claim("t", queue, at, at + 60, KEEP), 4
    )
    assert isinstance(claim, Write)
    store.apply(claim)
    end = transitions.fail(envelope.id, "t", error, at) if error else transitions.succeed(envelope.id, "t", "{}", at)
    store.apply(end)
    if spent is not None:
        store.apply(Write(envelope.id, {"spent": spent.text()}))
    return envelope.id


def waits(task: str, queue: str) -> str:
    envelope = Envelope(id=new_id(), task=task)
    backend().store.apply(transitions.pending(envelope, queue, KEEP))
    return envelope.id


# --- what runs have cost ---


@pytest.mark.parametrize("pages", [0, 2], ids=["many runs", "few runs"])
def test_every_run_counts_by_task_queue_and_day_whatever_its_outcome(
    pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGES", pages)
    for n in range(3):
        ran("send_welcome_email", "emails", user_id=f"u-{n}")
    ran("send_welcome_email", "emails", error=RunError("Timeout", "too slow"), user_id="u-9")
    ran("process_media_upload", "media", spent=EACH.times(10.0))
    ran("process_media_upload", "media", ago=2 * DAY)
    ran("process_media_upload", "media", ago=9 * DAY)
    waits("update_trending_hashtags", "analytics")

    slices = cost.read_slices(time.time() - 7 * DAY)

    each = EACH.dollars
    by_task = {line.name: (line.runs, line.cost.total) for line in cost.by(slices, "task")}
    assert by_task == {
        "process_media_upload": (2, pytest.approx(11 * each)),
        "send_welcome_email": (4, pytest.approx(4 * each)),
        "update_trending_hashtags": (1, 0.0),
    }
    assert [line.name for line in cost.by(slices, "queue")] == ["media", "emails", "analytics"]
    days = cost.by(slices, "day")
    assert [line.runs for line in days] == [1, 6]
    assert cost.total("today", cost.today(slices)).cost.total == pytest.approx(14 * each)
    assert not any(line.estimated for line in days)


def test_a_run_that_was_revoked_without_ever_being_sent_costs_nothing() -> None:
    """Its record has no task, and is in no history."""
    assert AsyncResult[Any](new_id()).revoke("by id") == "REVOKED"
    assert cost.read_slices(time.time() - 7 * DAY) == []


def test_a_run_that_fails_while_the_index_is_read_is_sampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It moves to another partition, and is read in both. DynamoDB refuses a batch that has a key twice."""
    over = history.over

    def twice(wanted: history.Query, take: Any) -> None:
        for _ in range(2):
            over(wanted, take)

    monkeypatch.setattr(history, "over", twice)
    ran("send_welcome_email", "emails", user_id="u-1")

    (one,) = cost.read_slices(time.time() - 3600)
    assert one.read == 1


def test_a_busy_tasks_cost_is_estimated_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LEAST", 10)
    for n in range(45):
        ran("send_welcome_email", "emails", user_id=f"u-{n}")

    (one,) = cost.read_slices(time.time() - 3600, sample=10)

    assert (one.runs, one.read) == (45, 10)
    assert one.cost.total == pytest.approx(45 * EACH.dollars)
    assert cost.total("all", [one]).estimated


def test_runs_from_before_the_measure_count_as_the_others_do() -> None:
    ran("send_welcome_email", "emails", spent=None, user_id="u-1")
    ran("send_welcome_email", "emails", user_id="u-2")

    (one,) = cost.read_slices(time.time() - 3600)

    assert one.unmeasured == 1
    assert one.cost.total == pytest.approx(2 * EACH.dollars)


MONDAY = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
"""Noon: a whole number of days ago, a day was half over."""


def spread(days: int, dollars: float, task: str = "daily") -> list[Slice]:
    """A task that has cost this much a day, evenly, in the days before MONDAY."""
    halves = [0, *(n // 2 + 1 for n in range(2 * days - 2)), days]
    return [slice_of(task, ago, dollars / 2) for ago in halves]


def slice_of(task: str, ago: int, dollars: float) -> Slice:
    day = f"{datetime.fromtimestamp(MONDAY - ago * DAY, UTC):%Y-%m-%d}"
    return Slice(task, "maintenance", day, 1, 1, 0, Cost(compute=dollars))


@pytest.mark.parametrize("days", [1, 7, 14, 60])
def test_the_month_ahead_is_estimated_from_equal_days(days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: MONDAY)
    slices, since = spread(days, 2.0), MONDAY - days * DAY
    assert cost.covered(slices, since) == days
    month = cost.month_ahead(slices, [Idle("a", 4.5)], cost.covered(slices, since))
    assert month == pytest.approx(4.5 + 2.0 * prices.MONTH)


@pytest.mark.parametrize(("oldest", "days"), [(0, 1.0), (1, 1.5), (3, 3.5), (7, 7.0)])
def test_a_stack_that_is_newer_than_the_span_counts_from_its_first_day(
    oldest: int, days: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: MONDAY)
    assert cost.covered([slice_of("t", oldest, 1.0), slice_of("t", 0, 1.0)], MONDAY - 7 * DAY) == days


def test_a_stack_without_runs_has_only_its_idle_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: MONDAY)
    assert cost.month_ahead([], [Idle("a", 4.5)], cost.covered([], MONDAY - 7 * DAY)) == 4.5


def test_a_weekly_task_counts_once_a_week_and_the_rows_add_up_to_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ran on Sunday: its own slices cover a day and a half."""
    monkeypatch.setattr(time, "time", lambda: MONDAY)
    slices = [*spread(7, 2.0), slice_of("weekly", 1, 7.0)]
    site = Site(Choice())
    monkeypatch.setattr(Site, "costs", lambda _: slices)
    monkeypatch.setattr(Site, "idle", lambda _: [Idle("a", 4.5)])

    rows = {row.name: row.month for row in money._rows(slices, "task")}

    assert rows == {"daily": pytest.approx(2.0 * prices.MONTH), "weekly": pytest.approx(prices.MONTH)}
    whole = money._sums(site)["month"]
    assert sum(rows.values()) + 4.5 == pytest.approx(whole)
    assert sum(row.month for row in money._rows(slices, "queue")) + 4.5 == pytest.approx(whole)


def test_the_command_divides_by_the_span_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time, "time", lambda: MONDAY)
    for ago in (13.9, 0.1):
        ran("send_welcome_email", "emails", ago=ago * DAY, user_id="u-1")
    for since, dollars in (("14d", 2 * EACH.dollars / 14), ("24h", EACH.dollars)):
        assert main(["cost", "--since", since, "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["month_ahead"] == pytest.approx(2.7 + dollars * prices.MONTH)


def test_idle_costs_are_counted_from_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("NEXUS_CATALOGUE", "social.catalogue")

    class Aws:
        """A stack of two alarms, a secret, a log group of 10 GB and a bucket of 100 GB."""

        def get_paginator(self, _: str) -> Any:
            return self

        def paginate(self, **_: str) -> Any:
            kinds = ["AWS::CloudWatch::Alarm"] * 2 + ["AWS::SecretsManager::Secret"]
            kinds += ["AWS::Logs::LogGroup", "AWS::S3::Bucket"]
            return [{"StackResourceSummaries": [{"ResourceType": k, "PhysicalResourceId": "x"} for k in kinds]}]

        def describe_log_groups(self, **_: str) -> Any:
            groups = [{"logGroupName": "x", "storedBytes": 10 * 2**30}, {"logGroupName": "xy", "storedBytes": 2**40}]
            return {"logGroups": groups}

    sizes = {datetime.now(UTC): 100 * 2.0**30, datetime.now(UTC) - timedelta(days=1): 1.0}
    monkeypatch.setattr(cloudwatch, "read", lambda wanted, _: dict.fromkeys(wanted, sizes))
    monkeypatch.setattr(cost, "client", lambda _: Aws())
    found = {one.what: round(one.dollars, 3) for one in cost.idle()}
    assert found == {
        "2 alarms": 0.2,
        "1 secret": 0.4,
        "empty receives of 6 queues": 1.576,
        "tables": 0.0,
        "logs": 0.3,
        "objects": 2.3,
    }


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0, "$0.00"),
        (1234.567, "$1,234.57"),
        (1.0, "$1.00"),
        (0.1234, "$0.12"),
        (0.0123, "$0.012"),
        (0.0000321, "$0.000032"),
    ],
)
def test_dollars_are_shown_with_their_significant_digits(amount: float, shown: str) -> None:
    assert cost.dollars(amount) == shown


def test_the_command_sums_costs_by_the_given_key(capsys: pytest.CaptureFixture[str]) -> None:
    ran("send_welcome_email", "emails", user_id="u-1")
    assert main(["cost", "--by", "queue", "--since", "2h", "--json"]) == 0
    reported = json.loads(capsys.readouterr().out)
    (line,) = reported["lines"]
    assert (line["name"], line["runs"]) == ("emails", 1)
    assert line["dollars"] == pytest.approx(EACH.dollars, rel=1e-3)
    assert sum(line["of"].values()) == pytest.approx(line["dollars"], rel=1e-2)
    assert reported["month_ahead"] == pytest.approx(2.7 + EACH.dollars * prices.MONTH, rel=0.01)
    assert reported["prices"] == {"region": "us-east-1", "date": prices.DATE}
    assert main(["cost"]) == 0
    captured = capsys.readouterr()
    assert "send_welcome_email" in captured.out
    assert "A month at this rate" in captured.out
    assert "List prices of us-east-1" in captured.err
    assert main(["cost", "--by", "colour"]) == 2
    assert main(["cost", "--since", "soon"]) == 2


# --- budgets ---


def booked(runs: int, **also: Any) -> None:
    """Books this many attempts of the digest for today."""
    values = {"day": budget.today(time.time()), "runs": runs, "done": 0, "nano": 0, **also}
    backend().store.apply(Write(budget.key(DIGEST), values))


def test_a_budget_is_set_and_taken_back_without_a_deployment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budget", DIGEST, "--runs", "20", "--yes", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["operators"] == {"dollars": 100.0, "runs": 20}
    account = budget.Account.of(backend().store.get([budget.key(DIGEST)])[budget.key(DIGEST)])
    assert account.limits == Budget(100.0, 20)
    assert budget.Purse(DIGEST, Budget(dollars=100.0)).take(30) == 20

    assert main(["budget", DIGEST, "--dollars", "none"]) == 0
    assert budgets.of(DIGEST).operators == Budget(None, 20)
    assert main(["budget", DIGEST]) == 0
    assert "20 of 20 attempts" in capsys.readouterr().out
    assert main(["budget", DIGEST, "--clear"]) == 0
    assert budgets.of(DIGEST).operators is None
    assert budgets.of(DIGEST).runs == 20


def test_a_budget_whose_new_limits_nothing_reads_is_set() -> None:
    """As in `nexus budget ... | true`: the table comes after the change."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, redirect_stdout(pipe):
        assert main(["budget", DIGEST, "--runs", "20"]) == 0
    assert budgets.of(DIGEST).operators == Budget(100.0, 20)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["budget", "--runs", "1"], "Which task's budget?"),
        (["cost", "--memory", "512"], "Give --plan too."),
        (["budget", DIGEST, "--clear", "--runs", "1"], "Give one"),
        (["budget", DIGEST, "--runs", "0.5"], "Give a whole number."),
        (["budget", DIGEST, "--dollars", "-1"], "not a limit"),
        (["budget", DIGEST, "--runs", "many"], "not a limit"),
        (["budget", "no_task"], "There is no task"),
    ],
)
def test_an_invalid_budget_is_refused(words: list[str], reported: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert reported in capsys.readouterr().err


def test_a_task_without_a_declared_budget_cannot_be_given_one() -> None:
    with pytest.raises(Problem, match="ping has no budget"):
        budgets.limits("ping", "5", None)


def test_status_and_a_run_say_that_a_budget_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_queue", lambda _: iter(()))
    record = RunRecord(new_id(), "PENDING", task=DIGEST, queue="emails", sent_at=time.time())
    booked(19, limited=True, limit_runs=20)
    assert health._of_budgets() == []
    booked(20, limited=True, limit_runs=20)

    (found,) = health._of_budgets()
    assert (found.severity, found.where) == ("warning", DIGEST)
    assert "20 of 20 attempts" in found.what
    assert "none is lost" in found.what
    assert found.do.startswith(f"`nexus budget {DIGEST}")
    (wait,) = waiting.reasons(record)
    assert wait.why.startswith(f"{DIGEST} has spent today's budget")


def test_status_can_be_asked_without_a_run_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> Any:
        raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "not found"}}, "BatchGetItem")

    monkeypatch.setattr(type(backend().store), "get", lambda _, keys: missing(keys))
    assert health._of_budgets() == []


def test_an_earlier_days_account_does_not_count_today() -> None:
    booked(500, day="2020-01-01", limited=True, limit_runs=20)
    one = budgets.of(DIGEST)
    assert (one.runs, one.spent, one.limits.runs) == (0, False, 20)


# --- the plan ---


def test_the_plan_in_the_docs_is_the_one_that_is_computed() -> None:
    text = (DOCS / "deploy.md").read_text()
    _, _, rest = text.partition("<!-- nexus cost --plan --markdown -->\n\n")
    shown, _, _ = rest.partition("\n<!-- the end of the plan -->")
    assert shown == plan.markdown(plan.kinds()), "put in what `nexus cost --plan --markdown` prints"


@pytest.mark.parametrize("kind", plan.kinds(), ids=lambda kind: kind.name)
def test_the_plan_is_no_slower_with_more_concurrency_and_longer_with_more_runs(kind: plan.Kind) -> None:
    rows = plan.rows(kind)
    for fewer, more in pairwise(rows):
        assert fewer.a_second <= more.a_second
        assert all(a.seconds >= b.seconds for a, b in zip(fewer.drains, more.drains, strict=True))
    for row in rows:
        assert [d.seconds for d in row.drains] == sorted(d.seconds for d in row.drains)
        for one in row.drains:
            assert one.dollars == pytest.approx(one.runs * kind.dollars, rel=0.1)
            # Never faster than all sandboxes together can be.
            assert one.seconds >= one.runs / row.a_second


def test_a_steady_queue_is_drained_at_its_rate() -> None:
    row = next(row for row in plan.rows(plan.MESSAGES) if row.at_once == 2)
    (_, _, large) = row.drains
    assert large.seconds == pytest.approx(10_000_000 / row.a_second, rel=0.001)


def test_a_plan_is_computed_without_a_stack(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_stack() -> None:
        raise AssertionError("it was asked")

    monkeypatch.setattr(common, "connect", no_stack)
    assert main(["cost", "--plan"]) == 0
    assert "pictures of 12 megapixels" in capsys.readouterr().out
    assert main(["cost", "--plan", "--seconds", "2", "--memory", "1024", "--json"]) == 0
    (kind,) = json.loads(capsys.readouterr().out)
    assert kind["kind"] == "messages of 2000 ms"
    assert kind["rows"][0]["a_second"] == pytest.approx(2 / 2.002, rel=0.01)


def test_a_line_without_runs_costs_nothing_each() -> None:
    assert Line("t", 0, Cost(), estimated=False).each == 0.0
