"""The soft time limit, handing messages back, the global rate limit, and what log lines contain and leave out."""

import json
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import boto3
import pytest

from nexus import clock
from nexus.aws import sdk
from nexus.backend.store import Outcome, Write
from nexus.backend.transport import queue_url
from nexus.client import group
from nexus.clock import FrozenClock
from nexus.eager import Context
from nexus.errors import Retry, TimeLimitExceeded
from nexus.registry import Implementation, registry
from nexus.runs.rate_limit import RateLimiter
from nexus.settings import settings
from nexus.tasks import RateLimit
from nexus.testing import SentTasks, run_task
from nexus.worker import Continuation, Run, execution, observe
from nexus.worker.entry import serve
from nexus.worker.run import CURSOR_BYTES
from tests.support import own_catalogue as catalogue
from tests.unit.runtime.conftest import MORNING, does, invoke

pytestmark = pytest.mark.usefixtures("environment")


NOTE: dict[str, Any] = {"user_id": "u-1", "kind": "like", "text": "hello"}
SENT = catalogue.NoteSent(notification_id="n")


def bodies(tasks: SentTasks) -> list[str]:
    return [sent.message.body for sent in tasks.transport.sent]


def test_a_task_that_overruns_is_stopped_in_time_to_be_settled(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []

    def work(args: Any, run: Run) -> catalogue.NoteSent:
        left.append(signal.getitimer(signal.ITIMER_REAL)[0])
        signal.raise_signal(signal.SIGALRM)  # as when this time has passed
        return SENT

    does(monkeypatch, work)
    handle = catalogue.send_note.delay(**NOTE)

    invoke(bodies(tasks), seconds=100.0)

    assert 0 < left[0] <= 100.0 - execution.MARGIN
    assert handle.status == "RETRY"
    assert handle.error is not None
    assert handle.error.type == "TimeLimitExceeded"


@pytest.mark.parametrize("service", ["s3", "sesv2"])
def test_a_time_limit_that_ends_during_a_request_ends_the_task(
    service: Literal["s3", "sesv2"], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []

    def interrupted(*_: Any, **request: Any) -> Any:
        requests.append(request)
        raise TimeLimitExceeded("over")  # as the alarm does

    monkeypatch.setattr("urllib3.connectionpool.HTTPConnectionPool.urlopen", interrupted)
    client: Any = sdk.client(service)

    with pytest.raises(TimeLimitExceeded, match="over"):
        client.get_object(Bucket="bucket", Key="key") if service == "s3" else client.get_account()

    assert len(requests) == 1


type Batch = Callable[..., list[str]]


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch, tasks: SentTasks) -> Iterator[Batch]:
    """Runs a batch of tasks, each of which takes some seconds. Returns the first one's status as each run began."""
    frozen = FrozenClock(MORNING)
    arguments: dict[str, dict[str, Any]] = {"send_note": NOTE, "process_upload": {"bucket": "uploads", "key": "k"}}

    def run(*runs: tuple[str, float], rate: RateLimit | None = None) -> list[str]:
        seen: list[str] = []

        def work(args: Any, run: Run) -> Any:
            seen.append(handles[0].status)
            frozen.sleep(seconds[run.id])
            return SENT if run.task == "send_note" else catalogue.UploadReport(post_id="p", status="s")

        served = {
            task.name: replace(task, queue="default", rate_limit=rate)
            for task in (catalogue.send_note, catalogue.process_upload)
        }
        for task in served.values():
            monkeypatch.setitem(registry._implementations, task.name, Implementation(task, work))
        handles = [served[name].apply_async(arguments[name]) for name, _ in runs]
        seconds = {handle.id: takes for handle, (_, takes) in zip(handles, runs, strict=True)}
        records = [
            {"messageId": f"m{n}", "receiptHandle": f"m{n}", "body": sent.message.body, "eventSource": "aws:sqs"}
            for n, sent in enumerate(tasks.transport.sent)
        ]
        serve("default", served, {"Records": records}, Context())
        return seen

    monkeypatch.setattr(execution, "_limiters", {})
    with clock.use(frozen):
        yield run


QUICK, SLOW = ("send_note", 0.01), ("process_upload", 600.0)


def test_an_outcome_is_written_before_a_run_that_may_take_long(batch: Batch) -> None:
    assert batch(QUICK, SLOW) == ["STARTED", "SUCCESS"]


def test_outcomes_of_quick_runs_are_written_together(batch: Batch) -> None:
    assert batch(QUICK, QUICK, QUICK) == ["STARTED"] * 3


def test_an_outcome_is_written_before_another_run_of_a_slow_task(batch: Batch) -> None:
    assert batch(("send_note", 0.6), ("send_note", 0.6)) == ["STARTED", "SUCCESS"]


def test_an_outcome_is_written_before_the_wait_for_the_next_start(batch: Batch) -> None:
    assert batch(QUICK, QUICK, rate=RateLimit(1.0)) == ["STARTED", "SUCCESS"]


def test_a_message_for_which_no_time_is_left_is_put_back_and_has_spent_no_attempt(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, lambda args, run: SENT)
    handle = catalogue.send_note.delay(**NOTE)

    answer = invoke(bodies(tasks), seconds=execution.MARGIN / 2)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert (handle.status, handle.attempts) == ("RETRY", 0)
    invoke(bodies(tasks))
    assert (handle.status, handle.attempts) == ("SUCCESS", 1)


@pytest.mark.parametrize(
    ("limit", "claim", "ends"),
    [
        (10.0, 17.9, ("SUCCESS", 1)),
        (10.0, 18.1, ("RETRY", 0)),
        (60.0, 13.9, ("SUCCESS", 1)),
        (60.0, 14.1, ("RETRY", 0)),
    ],
    ids=["its limit is left", "less than its limit", "half of the invocation is left", "less than half"],
)
def test_a_claim_that_took_long_does_not_cut_the_run_short(  # noqa: PLR0917 - three fixtures
    tasks: SentTasks,
    monkeypatch: pytest.MonkeyPatch,
    now: FrozenClock,
    limit: float,
    claim: float,
    ends: tuple[str, int],
) -> None:
    """While a table warms up, DynamoDB throttles a claim until little is left of an invocation of 30 s."""
    does(monkeypatch, lambda args, run: SENT, time_limit=limit)
    handle = catalogue.send_note.delay(**NOTE)
    apply_all = tasks.store.apply_all

    def throttled(writes: Sequence[Write]) -> list[Outcome]:
        now.sleep(claim)
        monkeypatch.setattr(tasks.store, "apply_all", apply_all)
        return apply_all(writes)

    monkeypatch.setattr(tasks.store, "apply_all", throttled)

    invoke(bodies(tasks), seconds=30.0)

    assert (handle.status, handle.attempts) == ends


def test_a_run_continues_from_its_cursor_without_using_attempts_up_to_a_limit(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def work(args: catalogue.SendNote, run: Run) -> catalogue.NoteSent | Continuation:
        seen.append((run.attempt, run.cursor))
        at = int(run.cursor["at"]) if run.cursor else 0
        if args.kind == "endless" or at < 3:
            return run.continue_from({"at": at + 1})
        return SENT

    does(monkeypatch, work)
    handle = catalogue.send_note.delay(**NOTE)
    endless = catalogue.send_note.delay(**{**NOTE, "kind": "endless"})

    tasks.run()

    assert (1, {"at": 3}) in seen
    assert handle.status == "SUCCESS"
    assert endless.status == "FAILURE"
    assert endless.error is not None
    assert "continued 10 times" in endless.error.message


def test_progress_is_seen_while_it_runs(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    reported = []

    def work(args: Any, run: Run) -> catalogue.NoteSent:
        run.progress(7, 100, "encoding")
        reported.append(handle.progress)
        return SENT

    does(monkeypatch, work)
    handle = catalogue.send_note.delay(**NOTE)
    tasks.run()
    assert reported == [(7, 100)]


def test_a_job_beyond_its_expected_total_does_not_write_progress_for_every_row(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    written = []
    apply = tasks.store.apply

    def noted(write: Write) -> Outcome:
        written.extend([write.set["progress"]] if "progress" in write.set else [])
        return apply(write)

    def work(args: Any, run: Run) -> catalogue.NoteSent:
        for rows in range(1, 2101):
            run.progress(rows, 1000)
            now.sleep(1 / 1024)
        return SENT

    tasks.store.apply = noted  # type: ignore[method-assign]
    does(monkeypatch, work)
    catalogue.send_note.delay(**NOTE)
    tasks.run()

    assert written == [f'[{rows},1000,"",null]' for rows in (1, 1000, 2024)]


@pytest.mark.parametrize(("more", "status"), [(0, "SUCCESS"), (1, "FAILURE")])
def test_a_cursor_has_a_size_limit_that_leaves_room_for_the_result(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, more: int, status: str
) -> None:
    cursor = {"seen": (CURSOR_BYTES - len('{"seen":""}') + more) * "x"}
    does(monkeypatch, lambda args, run: SENT if run.cursor == cursor else run.continue_from(cursor))
    handle = catalogue.send_note.delay(**NOTE)

    tasks.run()

    assert handle.status == status
    if more:
        assert handle.error is not None
        assert handle.error.message == "cursor: 65,537 bytes, over the limit of 65,536: store the data and pass its key"
    assert "cursor" not in tasks.store.items[handle.id]


def test_a_cursor_is_converted_by_json_in_run_task_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def work(args: Any, run: Run) -> Any:
        seen.append(run.cursor)
        return SENT if run.cursor else run.continue_from({7: (1, 2)})  # type: ignore[dict-item]

    does(monkeypatch, work)
    run_task(work, NOTE)

    assert seen == [None, {"7": [1, 2]}]


def test_a_rate_holds_over_all_sandboxes_and_costs_a_request_a_second_not_one_a_message(tasks: SentTasks) -> None:
    clocks = [FrozenClock(1000.0), FrozenClock(1000.3), FrozenClock(1000.6)]
    sandboxes = [RateLimiter("mail", 10) for _ in clocks]
    writes = 0
    apply = tasks.store.apply

    def counted(write: Any) -> Any:
        nonlocal writes
        writes += 1
        return apply(write)

    tasks.store.apply = counted  # type: ignore[method-assign]
    starts = []
    for _ in range(300):
        number = min(range(3), key=lambda n: clocks[n].moment)  # the earliest is next; each start's work takes 0.15 s
        with clock.use(clocks[number]):
            assert sandboxes[number].acquire()
        starts.append(clocks[number].moment)
        clocks[number].moment += 0.15

    for start in starts:
        assert sum(start <= other < start + 1 for other in starts) <= 20
    assert len(starts) / (max(starts) - min(starts)) <= 10.5
    # A booking is two requests, the first of which returns the timetable.
    assert writes <= 2 * 1.2 * len(sandboxes) * (max(starts) - min(starts))


def test_an_idle_sandbox_does_not_accumulate_starts(tasks: SentTasks) -> None:
    time = FrozenClock(1000.0)
    limiter = RateLimiter("mail", 10)
    with clock.use(time):
        assert limiter.acquire()
        time.sleep(60)
        assert sum(limiter.acquire(patience=0) for _ in range(100)) <= 11


def test_a_rate_limit_booked_beyond_the_callers_patience_returns_the_wait(tasks: SentTasks) -> None:
    time = FrozenClock(1000.0)
    first, second = (RateLimiter("slow", 0.1) for _ in range(2))
    with clock.use(time):
        assert first.acquire()
        assert second.acquire(patience=1) is False
        assert second.wait == pytest.approx(10)
        time.sleep(10)
        assert second.acquire(patience=1)


def test_a_rate_limited_task_beyond_patience_is_put_back_unspent(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = replace(catalogue.send_note, rate_limit=RateLimit(per_second=0.01))
    monkeypatch.setattr(execution, "_limiters", {})
    does(monkeypatch, lambda args, run: SENT)
    handles = [catalogue.send_note.delay(**NOTE) for _ in range(2)]
    records = [
        {"messageId": f"m{n}", "receiptHandle": "r", "body": sent.message.body, "eventSource": "aws:sqs"}
        for n, sent in enumerate(tasks.transport.sent)
    ]

    answer = serve("default", {"send_note": limited}, {"Records": records}, Context())

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert [(h.status, h.attempts) for h in handles] == [("SUCCESS", 1), ("RETRY", 0)]


def test_a_slow_rate_costs_each_run_one_receive_more_and_loses_none(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[float] = []
    monkeypatch.setattr(execution, "_limiters", {})

    def work(args: Any, run: Run) -> Any:
        starts.append(clock.now())
        return SENT

    does(monkeypatch, work, rate_limit=RateLimit(per_second=1 / 60))
    handles = [catalogue.send_note.delay(**NOTE) for _ in range(40)]

    deliveries = tasks.run()

    assert {handle.status for handle in handles} == {"SUCCESS"}
    assert {handle.attempts for handle in handles} == {1}
    assert deliveries <= 2 * len(handles)
    starts.sort()
    assert min(later - earlier for earlier, later in pairwise(starts)) >= 59


# --- what is logged ---


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "INFO")
    # A logger keeps the standard output that it was made with, by its service's name.
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"nexus-{uuid.uuid4()}")
    observe.logger.cache_clear()

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    return read


def test_a_run_has_one_line_at_its_start_and_one_at_its_end_with_its_metrics(
    tasks: SentTasks, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, lambda args, run: SENT)
    handle = catalogue.send_note.delay(**NOTE)

    tasks.run()

    started, ended = lines()
    wanted = {"task": "send_note", "run_id": handle.id, "attempt": 1, "queue": "default"}
    assert wanted.items() <= started.items()
    assert wanted.items() <= ended.items()
    assert (started["message"], ended["message"], ended["outcome"]) == ("run started", "run ended", "success")
    (directive,) = ended["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["stack", "queue", "task"], ["stack", "queue"]]
    assert ended["stack"] == "nexus-test"
    for metric in directive["Metrics"]:
        assert isinstance(ended[metric["Name"]], int | float)


def test_the_log_line_of_a_success_has_its_shortfall(
    tasks: SentTasks, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, lambda args, run: catalogue.NoteSent(reason="no such user: ada@example.org"))
    catalogue.send_note.delay(**NOTE)

    tasks.run()

    _, ended = lines()
    assert (ended["outcome"], ended["shortfall"], ended["level"]) == ("success", "no such user", "INFO")


def test_the_end_of_a_group_has_its_own_log_line(tasks: SentTasks, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, lambda args, run: SENT)
    handle = group([catalogue.send_note.s(**NOTE) for _ in range(2)]).delay()

    tasks.run()

    ended = [line for line in lines() if line["message"] == "run ended"]
    assert [line["task"] for line in ended] == ["send_note", "send_note", "group"]
    assert (ended[-1]["run_id"], ended[-1]["outcome"]) == (handle.id, "success")


def test_a_shortfall_is_logged_for_a_fan_out_and_not_for_its_segments(
    tasks: SentTasks, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(args: catalogue.MakeReport, run: Run) -> Continuation:
        return run.fan_out([catalogue.ReportPart(day="2026-01-01")] * 2)

    joined = Implementation(catalogue.make_report, plan, lambda args, run: catalogue.Counted())
    monkeypatch.setitem(registry._implementations, "make_report", joined)
    handle = catalogue.make_report.delay()

    tasks.run()

    ended = [line for line in lines() if line["message"] == "run ended"]
    assert [line["outcome"] for line in ended] == ["fanned_out", "success", "success", "success"]
    assert [(line["run_id"], line["shortfall"]) for line in ended if "shortfall" in line] == [
        (handle.id, "nothing to count")
    ]


# --- visibility -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cloud")
def test_each_retried_message_of_a_batch_has_its_own_delay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a batch in SQS: one run that succeeds, one to be retried at once, one in an hour
    def work(args: catalogue.SendNote, run: Run) -> catalogue.NoteSent:
        if args.kind == "well":
            return SENT
        raise Retry("not yet", after=0 if args.kind == "at once" else 3600)

    does(monkeypatch, work)
    handles = {kind: catalogue.send_note.delay(**{**NOTE, "kind": kind}) for kind in ("well", "at once", "hour")}
    sqs, url = boto3.client("sqs"), queue_url(settings().queue_name("default"))
    received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    records = [
        {"messageId": m["MessageId"], "receiptHandle": m["ReceiptHandle"], "body": m["Body"], "eventSource": "aws:sqs"}
        for m in received
    ]
    # When it is run
    answer = serve("default", registry.served_by("default"), {"Records": records}, Context())
    # Then two of the three stay in SQS, which delivers one of them now
    assert len(answer["batchItemFailures"]) == 2
    assert {kind: handle.status for kind, handle in handles.items()} == {
        "well": "SUCCESS",
        "at once": "RETRY",
        "hour": "RETRY",
    }
    (again,) = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert json.loads(again["Body"])["args"]["kind"] == "at once"
