"""A state machine tries interleavings of duplicates, crashes, dead leases, revocations and redrives.

The world is one task's queue as SQS behaves (a message stays until it is acknowledged, and may come twice), the run
table, and sandboxes that may die before any request to the table or to SQS. What must always hold:

- a run that is SUCCESS never runs again;
- no message is lost: a run that has not ended has a message in the queue, or is a dead letter whose operator died;
- a run that failed is in the dead-letter queue;
- the effect happens once, plus once for each sandbox that died after it and before it was settled.
"""

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from nexus import backend
from nexus.backend import Backend
from nexus.backend.memory import MemoryStore
from nexus.backend.store import DynamoStore, Write
from nexus.backend.transport import Message
from nexus.client import AsyncResult
from nexus.eager import Context
from nexus.errors import Reject
from nexus.registry import Implementation, registry
from nexus.runs.record import RunRecord
from nexus.runs.transitions import send_again
from nexus.testing import SandboxDied
from nexus.worker import Run
from nexus.worker.entry import serve
from tests.support import own_catalogue as catalogue
from tests.support.mortal import Fuse, MortalStore, Queue


class Effects(RuleBasedStateMachine):
    """See the module's text."""

    runs = Bundle("runs")
    make_store: Any = MemoryStore

    @initialize()
    def begin(self) -> None:
        self.fuse = Fuse()
        self.store = MortalStore(self.make_store(), self.fuse)
        self.queue = Queue(self.fuse)
        self.ids: list[str] = []
        self.effects: Counter[str] = Counter()
        self.allowed: Counter[str] = Counter()
        self.outcome = "well"
        self.overtaken: dict[str, Any] | None = None
        self.entered = backend.use(Backend(self.store, self.queue))
        self.entered.__enter__()
        self.before = dict(registry._implementations)
        work = Implementation(catalogue.send_note, self.work)
        registry._implementations["send_note"] = work

    def teardown(self) -> None:
        if hasattr(self, "entered"):
            self.entered.__exit__(None, None, None)
            registry._implementations.clear()
            registry._implementations.update(self.before)

    def work(self, args: catalogue.SendNote, run: Run) -> catalogue.NoteSent:
        status = self.status(run.id)
        assert status == "STARTED", f"it runs while its record says {status}"
        if self.outcome == "rejected":
            raise Reject("bad")
        if self.outcome == "fails":
            raise OSError("for now")
        if self.overtaken is not None:
            # It outlives its lease: meanwhile another sandbox receives the message, and may run it too.
            record, self.overtaken = self.overtaken, None
            self.store.inner.apply(Write(run.id, set={"lease_until": 1.0}))
            done = self.effects[run.id]
            serve("default", registry.served_by("default"), {"Records": [record]}, Context())
            self.allowed[run.id] += self.effects[run.id] - done
        self.effects[run.id] += 1
        return catalogue.NoteSent(notification_id=run.id)

    def record(self, run_id: str) -> RunRecord:
        item = self.store.inner.get([run_id]).get(run_id)
        return RunRecord.of(item) if item else RunRecord(id=run_id, status="UNKNOWN")

    def status(self, run_id: str) -> str:
        return self.record(run_id).status

    # --- rules ---

    @rule(target=runs, tracked=st.booleans())
    def send(self, tracked: bool) -> str:
        arguments = {"user_id": "u", "kind": "k", "text": "t"}
        handle = catalogue.send_note.apply_async(arguments, track=tracked)
        self.ids.append(handle.id)
        return handle.id

    @rule(
        data=st.data(),
        outcome=st.sampled_from(["well", "well", "fails", "rejected"]),
        dies=st.none() | st.integers(0, 9),
        overtaken=st.booleans(),
    )
    def deliver(self, data: st.DataObject, outcome: str, dies: int | None, overtaken: bool) -> None:
        """SQS delivers some messages, perhaps one of them twice, to a sandbox that may die at its n-th request."""
        if not self.queue.messages:
            return
        keys = data.draw(st.lists(st.sampled_from(sorted(self.queue.messages)), min_size=1, max_size=4))
        records = [
            {
                "messageId": f"{key}.{n}",
                "receiptHandle": key,
                "body": self.queue.messages[key].body,
                "eventSource": "aws:sqs",
                "messageAttributes": {"ErrorType": {}} if key in self.queue.moved else {},
            }
            for n, key in enumerate(keys)
        ]
        self.outcome, self.fuse.left = outcome, dies
        self.overtaken = records[0] if overtaken and dies is None and len(keys) == 1 else None
        before = self.effects.copy()
        try:
            answer = serve("default", registry.served_by("default"), {"Records": records}, Context())
        except SandboxDied:
            # Whatever it did and did not settle may be repeated.
            for run_id, times in (self.effects - before).items():
                if self.status(run_id) != "SUCCESS":
                    self.allowed[run_id] += times
            return
        finally:
            self.fuse.left = None
        again = {failure["itemIdentifier"].split(".")[0] for failure in answer["batchItemFailures"]}
        for key in set(keys) - again:
            del self.queue.messages[key]

    @rule(data=st.data())
    def lease_runs_out(self, data: st.DataObject) -> None:
        """Time passes for a run whose sandbox has died (none is alive between two rules)."""
        started = [run_id for run_id in self.ids if self.status(run_id) == "STARTED"]
        if started:
            run_id = data.draw(st.sampled_from(started))
            self.store.inner.apply(Write(run_id, set={"lease_until": 1.0}))

    @rule(data=st.data())
    def sqs_gives_it_twice(self, data: st.DataObject) -> None:
        if self.queue.messages:
            self.queue.put(self.queue.messages[data.draw(st.sampled_from(sorted(self.queue.messages)))])

    @rule(run_id=runs)
    def revoke(self, run_id: str) -> None:
        AsyncResult(run_id).revoke()

    @rule(
        data=st.data(),
        by=st.sampled_from(["StartMessageMoveTask", "nexus dlq retry", "nexus dlq retry that dies before it sends"]),
    )
    def redrive(self, data: st.DataObject, by: str) -> None:
        """An operator sends a dead letter again: the same body."""
        if not self.queue.dead:
            return
        number = data.draw(st.integers(0, len(self.queue.dead) - 1))
        letter = self.queue.dead[number]
        run_id = letter.attributes["RunId"]
        if by != "StartMessageMoveTask":
            self.store.inner.apply(send_again(run_id))
        if by != "nexus dlq retry that dies before it sends":
            key = self.queue.put(Message(run_id, letter.body, "g"))
            if by == "StartMessageMoveTask":
                self.queue.moved.add(key)
            del self.queue.dead[number]

    # --- invariants ---

    @invariant()
    def nothing_is_lost(self) -> None:
        waiting = {message.id for message in self.queue.messages.values()}
        dead = {letter.attributes["RunId"] for letter in self.queue.dead}
        for run_id in getattr(self, "ids", ()):
            status = self.status(run_id)
            if status not in ("SUCCESS", "FAILURE", "REVOKED"):
                to_be_found = waiting | dead if status == "PENDING" else waiting
                assert run_id in to_be_found, f"{run_id} is {status}, and no message will end it"

    @invariant()
    def a_failure_is_a_dead_letter_or_comes_again(self) -> None:
        if not hasattr(self, "ids"):
            return
        dead = {letter.attributes["RunId"] for letter in self.queue.dead}
        waiting = {message.id for message in self.queue.messages.values()}
        for run_id in self.ids:
            if self.status(run_id) == "FAILURE":
                assert run_id in dead | waiting

    @invariant()
    def effects_happen_once(self) -> None:
        for run_id, times in getattr(self, "effects", Counter()).items():
            assert times <= 1 + self.allowed[run_id], f"{run_id}: {times} effects, {self.allowed[run_id]} deaths"


class EffectsInDynamo(Effects):
    """The same with DynamoDB's conditions, as moto has them."""

    make_store = DynamoStore


@pytest.mark.usefixtures("environment")
def test_effects_happen_once_in_memory() -> None:
    run_state_machine_as_test(Effects, settings=settings(max_examples=150, stateful_step_count=40))


@pytest.mark.usefixtures("cloud")
def test_effects_happen_once_in_moto() -> None:
    run_state_machine_as_test(EffectsInDynamo, settings=settings(max_examples=12, stateful_step_count=25))
