"""What a run records as used: within a tenth of the metered usage, over all attempts, without an extra write."""

import os
from typing import Any

import pytest

from bench import cost as bench
from nexus.aws import sdk, usage
from nexus.backend import backend
from nexus.prices import cost
from nexus.registry import Implementation, registry
from nexus.runs.spent import Spent
from nexus.testing import SentTasks, in_memory
from nexus.worker import Run, spending
from ops import plan
from tests.support import own_catalogue as catalogue

pytestmark = pytest.mark.usefixtures("environment")


@pytest.mark.parametrize("row", bench.ROWS)
def test_a_runs_recorded_usage_is_within_a_tenth_of_the_metered(row: str) -> None:
    found = bench.compare(row, 20)
    assert found.ratio == pytest.approx(1.0, abs=0.1)
    assert found.recorded.requests == pytest.approx(found.metered.requests, rel=0.1)
    assert found.recorded.logs == pytest.approx(found.metered.logs, rel=0.25)


def test_the_plan_uses_the_measured_figures() -> None:
    found = bench.compare("sent and processed in tens", 20)
    reckoned = cost(plan.MESSAGES.spent).times(1_000_000)
    assert reckoned.requests == pytest.approx(found.metered.requests, rel=0.1)
    assert reckoned.logs == pytest.approx(found.metered.logs, rel=0.25)


def spent_by(run_id: str) -> Spent:
    found = Spent.of(backend().store.get([run_id])[run_id])
    assert found is not None
    return found


def test_a_continued_run_carries_what_it_has_used(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(args: Any, run: Run) -> Any:
        usage.add("puts", 2)
        return catalogue.NoteSent() if run.cursor else run.continue_from({"at": 1})

    monkeypatch.setitem(registry._implementations, "send_note", Implementation(catalogue.send_note, work))
    handle = catalogue.send_note.delay(**catalogue.NOTE)
    tasks.run()

    found = spent_by(handle.id)
    assert (found.puts, found.invocations, found.messages) == (4, 2, 5)  # sent once, received and deleted twice


def test_a_job_that_fans_out_records_the_usage_of_its_planning(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(args: Any, run: Run) -> Any:
        usage.add("gets", 7)
        return run.fan_out([catalogue.ReportPart(day="d")] * 2)

    joined = Implementation(catalogue.make_report, plan, lambda args, run: catalogue.Counted(rows_read=1))
    monkeypatch.setitem(registry._implementations, "make_report", joined)
    handle = catalogue.make_report.delay()
    tasks.run()

    assert handle.status == "SUCCESS"
    assert spent_by(handle.id).gets == 7


def test_a_sandboxs_start_is_charged_only_to_its_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spending, "_cold", True)
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
    assert spending._starting() > 0
    assert spending._starting() == 0.0


def test_s3_and_ses_count_what_they_are_asked_for() -> None:
    with in_memory():
        before = usage.seen()
        s3 = sdk.client("s3")
        s3.put_object(Bucket="b", Key="k", Body=b"x")
        s3.get_object(Bucket="b", Key="k")
        s3.delete_object(Bucket="b", Key="k")
        s3.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
        content: Any = {"Simple": {"Subject": {"Data": "s"}, "Body": {"Text": {"Data": "t"}}}}
        to: Any = {"ToAddresses": ["a@example.com"]}
        sdk.client("sesv2").send_email(FromEmailAddress="n@example.com", Destination=to, Content=content)
        after = usage.seen()
    counted = {name: after[name] - before[name] for name in usage.NAMES}
    assert {name: count for name, count in counted.items() if count} == {"puts": 1, "gets": 1, "mails": 1}


def test_stored_usage_is_read_back_and_missing_usage_is_none() -> None:
    spent = Spent(seconds=0.1234567, gb_seconds=0.05, writes=6.0, puts=2)
    assert Spent.of({"spent": spent.text()}) == spent._replace(seconds=0.12346)
    assert spent.text() == "[0.12346,0.05,0,0,6,0,2]"
    assert Spent.of({}) is None


def test_a_run_is_priced_by_what_it_used() -> None:
    million = Spent(gb_seconds=1e6, invocations=1e6, reads=1e6, writes=1e6, messages=1e6, puts=1e6, gets=1e6, mails=1e6)
    found = cost(million)
    assert found.requests == pytest.approx(0.125 + 0.625 + 0.4)
    assert found.compute == pytest.approx(13.3334 + 0.2)
    assert found.s3 == pytest.approx(5.4)
    assert found.mail == pytest.approx(100)
    assert found.total == pytest.approx(found.requests + found.compute + found.s3 + found.mail)
    assert found.times(2).total == pytest.approx((found + found).total)


def test_usage_is_counted_with_the_functions_memory() -> None:
    assert spending.MEMORY not in os.environ
    assert spending.Tab().lap().gb_seconds == 0.0
