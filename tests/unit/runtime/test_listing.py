"""The index of live runs: long runs enter it, short runs never do."""

import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from nexus import clock
from nexus.backend import Backend, backend, use
from nexus.backend.store import DynamoStore, Item, Value, Write
from nexus.client.handles import AsyncResult
from nexus.clock import FrozenClock
from nexus.eager import Context
from nexus.errors import Retry
from nexus.registry import Implementation, registry
from nexus.testing import SentTasks
from nexus.worker import Run, listing
from nexus.worker.entry import serve
from nexus.worker.listing import LISTED_AFTER, Listing, attend
from tests.support import moto_cloud
from tests.support import own_catalogue as catalogue
from tests.support.patience import PATIENCE

NOTE = {"user_id": "u-1", "kind": "like", "text": "A likes your post"}


class Sandbox:
    """Invocations whose thread looks when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = FrozenClock(1_800_000_000.0)
        self.seen: dict[str, list[Item]] = {}
        self.takes: dict[str, float] = {}
        self.looks = 1
        self.listing: Listing | None = None
        monkeypatch.setattr(listing, "watch", lambda held: setattr(self, "listing", held))
        monkeypatch.setitem(registry._implementations, "send_note", Implementation(catalogue.send_note, self.work))

    def work(self, args: Any, run: Run) -> catalogue.NoteSent:
        """Takes some time, lets the thread check, and notes the records at that point."""
        self.clock.sleep(self.takes.get(run.id, 0.0))
        assert self.listing is not None
        for _ in range(self.looks):
            attend(self.listing)
        self.seen[run.id] = list(backend().store.get([*self.takes]).values())
        return catalogue.NoteSent(notification_id="n")

    def listed(self, run_id: str) -> set[str]:
        """The runs that were in the index while this one ran."""
        return {str(item["id"]) for item in self.seen[run_id] if "live" in item}

    def deliver(self, *run_ids: str) -> None:
        with clock.use_everywhere(self.clock):
            bodies = [{"v": 1, "id": run_id, "task": "send_note", "args": NOTE} for run_id in run_ids]
            serve("default", registry.served_by("default"), event(*bodies), Context())

    def item(self, run_id: str) -> Item:
        return backend().store.get([run_id])[run_id]


def event(*bodies: dict[str, Any]) -> dict[str, Any]:
    return {
        "Records": [
            {"messageId": f"m{n}", "receiptHandle": f"r{n}", "body": json.dumps(body), "eventSource": "aws:sqs"}
            for n, body in enumerate(bodies)
        ]
    }


@pytest.fixture
def sandbox(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    return Sandbox(monkeypatch)


def ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


def test_a_short_run_is_never_listed(sandbox: Sandbox) -> None:
    (only,) = ids(1)
    sandbox.takes = {only: LISTED_AFTER - 0.1}
    sandbox.deliver(only)
    assert sandbox.listed(only) == set()
    assert sandbox.item(only)["status"] == "SUCCESS"


def test_a_long_run_is_listed_with_those_that_wait_behind_it_until_each_has_ended(sandbox: Sandbox) -> None:
    short, long, behind = ids(3)
    sandbox.takes = {short: 0.1, long: LISTED_AFTER, behind: 0.1}
    sandbox.deliver(short, long, behind)
    assert sandbox.listed(short) == set()
    assert sandbox.listed(long) == {long, behind}
    assert sandbox.seen[long][1]["since"] == 1_800_000_000.0  # when it was claimed
    for run_id in (short, long, behind):
        assert sandbox.item(run_id)["status"] == "SUCCESS"
        assert not {"live", "since"} & sandbox.item(run_id).keys()


def test_a_run_left_by_a_dead_sandbox_is_listed_from_its_next_claim(sandbox: Sandbox) -> None:
    (dead,) = ids(1)
    sandbox.takes = {dead: 0.1}
    left: dict[str, Value] = {"status": "STARTED", "attempts": 1, "claim": "dead", "lease_until": 1.0}
    backend().store.apply(Write(dead, set=left))
    sandbox.deliver(dead)
    assert sandbox.listed(dead) == {dead}
    assert "live" not in sandbox.item(dead)


def test_a_direct_invocation_is_listed_at_once_since_no_message_of_it_comes_again(sandbox: Sandbox) -> None:
    (direct,) = ids(1)
    sandbox.takes = {direct: 0.1}
    called = {"v": 1, "id": direct, "task": "send_note", "args": NOTE}
    with clock.use_everywhere(sandbox.clock):
        serve("default", registry.served_by("default"), called, Context())
    assert sandbox.listed(direct) == {direct}
    assert "live" not in sandbox.item(direct)


def test_a_run_that_waits_for_its_next_attempt_is_listed_until_it_has_ended(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []

    def work(args: Any, run: Run) -> catalogue.NoteSent:
        listed.append("live" in tasks.store.items[run.id])
        if run.attempt == 1:
            raise Retry("again", after=5)
        return catalogue.NoteSent(notification_id="n")

    monkeypatch.setitem(registry._implementations, "send_note", Implementation(catalogue.send_note, work))
    handle = catalogue.send_note.delay(**NOTE)
    tasks.run()
    assert listed == [False, True]
    assert handle.status == "SUCCESS"
    assert "live" not in tasks.store.items[handle.id]


def test_the_listing_thread_survives_an_outage_and_lists_at_its_next_check(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run_id,) = ids(1)
    sandbox.takes, sandbox.looks = {run_id: LISTED_AFTER}, 2
    store = type(backend().store)
    whole, failures = store.apply_all, [ConnectionError("no answer")]

    def unreachable(self: Any, writes: Any) -> Any:
        if any("live" in write.set for write in writes) and failures:
            raise failures.pop()
        return whole(self, writes)

    monkeypatch.setattr(store, "apply_all", unreachable)
    sandbox.deliver(run_id)
    assert not failures
    assert sandbox.listed(run_id) == {run_id}


def test_a_run_that_another_sandbox_has_claimed_is_not_listed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run_id,) = ids(1)
    sandbox.takes = {run_id: LISTED_AFTER}
    look = Listing.check

    def late(self: Listing) -> None:
        backend().store.apply(Write(run_id, set={"claim": "another's"}))
        look(self)

    monkeypatch.setattr(Listing, "check", late)
    sandbox.deliver(run_id)
    assert sandbox.listed(run_id) == set()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A thread of the test that checks continuously and ends with the test; set once it has listed a run."""
    monkeypatch.setattr(listing, "EVERY", 0.01)
    monkeypatch.setattr(listing, "LISTED_AFTER", 0.0)
    listed, look = threading.Event(), Listing.check

    def notice(self: Listing) -> None:
        look(self)
        if self._listed:
            listed.set()

    monkeypatch.setattr(Listing, "check", notice)
    _end_the_thread()
    yield listed
    _end_the_thread()


def _end_the_thread() -> None:
    if listing._thread.cache_info().currsize:
        listing._ended.set()
        listing._thread().join()
        listing._ended.clear()
        listing._thread.cache_clear()


@pytest.mark.usefixtures("deployment")
def test_a_thread_lists_a_long_run_while_it_works(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, watched: threading.Event
) -> None:
    moto_cloud.clear()
    run_id, found = str(uuid.uuid4()), []

    def work(args: Any, run: Run) -> catalogue.NoteSent:
        assert watched.wait(PATIENCE)
        found.append("live" in backend().store.get([run_id])[run_id])
        return catalogue.NoteSent(notification_id="n")

    monkeypatch.setitem(registry._implementations, "send_note", Implementation(catalogue.send_note, work))
    with use(Backend(DynamoStore(), tasks.transport)):
        body = {"v": 1, "id": run_id, "task": "send_note", "args": NOTE}
        serve("default", registry.served_by("default"), event(body), Context())
        record = AsyncResult[Any](run_id).record()
        assert "live" not in backend().store.get([run_id])[run_id]
    assert found == [True]
    assert record.status == "SUCCESS"
