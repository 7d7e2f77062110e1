"""What a handle shows, under Celery's names too, and what a task reports through it while it runs."""

import asyncio
import inspect
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import EndpointConnectionError

from nexus import Revoked, clock
from nexus.client import AsyncResult, chain, group
from nexus.clock import FrozenClock
from nexus.eager import run_next
from nexus.errors import Reject, StillRunning
from nexus.runs import transitions
from nexus.testing import SentTasks, memory_backend
from nexus.worker import Run
from tests.support import own_catalogue as catalogue
from tests.support.own_catalogue import NOTE, NoteSent, SendNote
from tests.unit.runtime.conftest import MORNING, does

pytestmark = pytest.mark.usefixtures("environment")


def sent(text: str = "hello") -> AsyncResult[NoteSent]:
    return catalogue.send_note.delay(user_id="u", kind="k", text=text)


@pytest.mark.parametrize(
    "wait", [AsyncResult.get, lambda handle: asyncio.run(handle.aget(interval=0.01))], ids=["get", "aget"]
)
def test_a_wait_continues_after_a_poll_that_aws_did_not_answer(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, wait: Callable[[AsyncResult[NoteSent]], NoteSent]
) -> None:
    handle, away = sent(), EndpointConnectionError(endpoint_url="https://dynamodb")
    done = replace(handle.record(), status="SUCCESS", result='{"notification_id":"n"}')
    monkeypatch.setattr("nexus.client.handles._hint", lambda: "")

    monkeypatch.setattr(AsyncResult, "record", Mock(side_effect=[handle.record(), away, away, done]))
    with clock.use_everywhere(FrozenClock(MORNING)):
        assert wait(handle).notification_id == "n"

    monkeypatch.setattr(AsyncResult, "record", Mock(side_effect=away))
    with pytest.raises(EndpointConnectionError):
        wait(handle)


def test_handles_of_the_same_run_are_equal(tasks: SentTasks) -> None:
    handle = sent()
    same: AsyncResult[Any] = AsyncResult(uuid.UUID(handle.id))  # what task_id accepts, and databases store

    assert str(handle) == handle.task_id == handle.id
    assert handle == same
    assert {handle, same} == {same}
    assert handle != sent()
    assert handle != handle.id


def test_the_outcome_is_available_under_celerys_names(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(args: SendNote, run: Run) -> NoteSent:
        if args.text == "bad":
            raise Reject("as asked")
        return NoteSent(notification_id=args.text)

    does(monkeypatch, work)
    good, bad = sent("good"), sent("bad")
    assert (good.state, good.failed(), good.info, good.traceback) == ("PENDING", False, None, None)

    tasks.run()

    assert good.get(10) == good.info == NoteSent(notification_id="good")
    assert (bad.state, bad.failed(), bad.successful()) == ("FAILURE", True, False)
    assert str(bad.info) == "Reject: as asked"
    assert bad.traceback is not None
    assert 'raise Reject("as asked")' in bad.traceback
    assert bad.traceback.startswith(f'  File "{__file__}"'), "the worker's frames are left out"
    assert bad.get(10, propagate=False) is None


def test_a_task_can_report_any_json_with_its_progress(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def work(args: SendNote, run: Run) -> NoteSent:
        handle: AsyncResult[Any] = AsyncResult(run.id)
        run.progress(info={"file": "a.csv", "odd": "\udcff"})
        seen.append((handle.progress, handle.info))
        run.progress(3, 3, "rows", info=["b.csv"])
        seen.append((handle.progress, handle.info))
        return NoteSent()

    does(monkeypatch, work)
    sent()
    tasks.run()

    assert seen == [((0, 0), {"file": "a.csv", "odd": "\ufffd"}), ((3, 3), ["b.csv"])]


@pytest.mark.parametrize("info", ["x" * 9000, float("nan"), object()])
def test_info_that_is_not_json_or_too_large_is_refused(info: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        transitions.progress("run", "token", 0, 0, "", info=info)


def test_a_running_task_can_see_that_it_was_revoked_and_end_as_revoked(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(args: SendNote, run: Run) -> NoteSent:
        assert not run.revoked
        AsyncResult(run.id).revoke()
        run.progress(1, 1)
        if run.revoked:
            raise Revoked("stopped at row 1")
        return NoteSent()

    does(monkeypatch, work)
    handle = chain(catalogue.send_note.s(**NOTE), catalogue.send_note.s(**NOTE)).delay()
    tasks.run()

    before = handle.parent
    assert before is not None
    assert before.status == "REVOKED"
    assert str(before.error) == "Revoked: revoked while it ran: stopped at row 1"
    assert handle.status == "FAILURE", "what follows does not come"
    assert tasks.dead_letters == []


def test_reading_revoked_makes_at_most_one_request_a_second(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = []
    read = tasks.store.get

    def noted(_store: Any, keys: Any) -> Any:
        reads.append(keys)
        return read(keys)

    monkeypatch.setattr(type(tasks.store), "get", noted)
    counts = []

    def work(args: SendNote, run: Run) -> NoteSent:
        before = len(reads)
        run.progress(1, 1)
        counts.append(len(reads) - before)
        assert not run.revoked, "progress has just looked"
        counts.append(len(reads) - before)
        run._asked -= 1.0
        for _ in range(100):
            assert not run.revoked
        counts.append(len(reads) - before)
        return NoteSent()

    does(monkeypatch, work)
    sent()
    tasks.run()

    assert counts == [0, 0, 1]


def test_forgetting_drops_the_result_and_keeps_the_run(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []

    def work(args: SendNote, run: Run) -> NoteSent:
        runs.append(run.id)
        return NoteSent(notification_id="n")

    does(monkeypatch, work)
    handle, together = sent(), group(catalogue.send_note.s(**NOTE) for _ in range(2)).delay()
    waiting = chain(catalogue.send_note.s(**NOTE), catalogue.send_note.s(**NOTE)).delay()
    handle.forget()
    assert handle.status == "PENDING"
    message = tasks.transport.sent[0]
    run_next(tasks.transport)
    run_next(tasks.transport)
    together.results[0].forget()
    tasks.run()
    assert together.result == [{"notification_id": "n", "reason": None}] * 2, "a group needs its members' results"

    for each in (handle, together, waiting):
        each.forget()
    first = waiting.parent
    assert first is not None
    first.forget()

    assert handle.status == "SUCCESS"
    assert handle.result is None
    assert handle.get(10, propagate=False) is None
    assert (together.result, [member.result for member in together.results]) == (None, [None, None])
    assert first.result is not None, "what follows may have to be sent again with it"
    tasks.transport.sent.append(message)
    tasks.run()
    assert len(runs) == len(set(runs)), "a message that comes again runs nothing"


def test_every_method_with_a_request_has_an_asynchronous_form() -> None:
    """`a` and the verb; methods without a request to AWS have no asynchronous form."""
    verbs = {name for name in vars(AsyncResult) if not name.startswith("_")}
    at_once = {"id", "task_id"}
    plain = {name for name in verbs - at_once if not inspect.iscoroutinefunction(vars(AsyncResult)[name])}
    assert {f"a{name}" for name in plain} == verbs - at_once - plain


def test_the_asynchronous_forms_return_the_same(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, lambda args, run: NoteSent(notification_id="n"))
    together = group(catalogue.send_note.s(**NOTE) for _ in range(2)).delay()
    tasks.run()

    async def ask() -> tuple[Any, ...]:
        children = await together.aresults()
        return (
            await together.astate(),
            await together.afailed(),
            await together.ainfo(),
            await together.atraceback(),
            await together.acompleted_count(),
            await together.ajoin(10),
            await children[0].aparent(),
            await children[0].aattempts(),
            await children[0].aerror(),
        )

    result = together.result
    assert asyncio.run(ask()) == ("SUCCESS", False, result, None, 2, result, together, 1, None)
    asyncio.run(together.aforget())
    assert together.result is None


def test_waiting_for_a_task_in_a_test_fails_at_once_and_names_drain(tasks: SentTasks) -> None:
    with pytest.raises(StillRunning, match=r"is PENDING: in a test, sent tasks run when it calls drain\(\)"):
        sent().get()
    with pytest.raises(StillRunning, match=r"is PENDING: in a test, sent tasks run when it calls drain\(\)"):
        asyncio.run(sent().aget())


def test_a_result_in_memory_may_have_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, lambda args, run: NoteSent(notification_id="x" * 1_000_000))
    with memory_backend() as tasks:
        handle = sent()
        tasks.run()
        assert len(handle.get(10).notification_id or "") == 1_000_000
