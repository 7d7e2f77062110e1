"""A world of sandboxes, programs and operators over SQS and DynamoDB, of which one runs at a time.

Each is a greenlet that yields at every request to AWS, at every wait and within every task's work. The world decides
which one continues, the fate of its request, when the clock moves and which one dies: from a seed, or by going through
all choices in order (`exhaustive`). Nothing else is random, so the same choices give the same history.
"""

import os
import random
import re
import time
import traceback
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from datetime import datetime as real_datetime
from typing import Any, NoReturn

import greenlet
from botocore.exceptions import ClientError, ConnectionClosedError

from nexus import clock
from nexus.aws.expressions import Item
from nexus.errors import TimeLimitExceeded
from nexus.registry import registry
from nexus.worker.entry import serve
from nexus.worker.listing import LISTED_AFTER, Listing, attend
from tests.simulation import aws

START = 1_800_000_000.0
STACK = "nexus-test"
BATCH = {"quick": 10, "slow": 1}
TIMEOUT = {"quick": 30.0, "slow": 900.0}
CONCURRENCY = 3
STEPS_AT_MOST = 20_000
MAX_ATTEMPTS = 3
INLINE_BYTES = 1000
"""Results above this are stored in S3: a two-hundredth of the runtime's limit, since large texts slow it down."""

TICK = 0.01
"""Seconds that a request takes."""

_world: "World | None" = None


def current() -> "World":
    """The current world."""
    assert _world is not None
    return _world


class Killed(BaseException):
    """A sandbox or a program was killed. No code catches this."""


class Endless(Exception):
    """The world does not come to rest."""


@dataclass(eq=False, slots=True)
class Actor:
    """A sandbox at one invocation, a program that sends, or an operator."""

    name: str
    body: Callable[[], None]
    wake: float
    queue: str | None = None
    deadline: float = float("inf")
    """When Lambda ends the invocation, which is when its leases end."""

    green: Any = None
    dead: bool = False
    faulted: bool = False
    """It had a fault by which an outcome may be lost: death, a stall past its lease, a failed request."""

    outage: float = 0.0
    """The time until which DynamoDB refuses all its requests."""

    outlives: bool = False
    limit_at: float = float("inf")
    claimed: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    slot: int = 0
    """The number of the queue's sandbox; `World.memories` has what it remembers between invocations."""

    listing: Listing | None = None
    """Its claimed runs, for the thread that lists those that take long."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong in a world: kinds with their weights, a fault in one of `one_in` steps, `at_most` in all."""

    kinds: Mapping[str, float] = field(default_factory=dict)
    one_in: int = 25
    at_most: int = 4


PARTIAL = frozenset(
    {"send_message_batch", "change_message_visibility_batch", "batch_get_item", "batch_execute_statement"}
)
AT_REQUEST = frozenset({"kill", "kill after", "lost", "again", "unanswered", "refused", "outage", "partial"})


class World:
    """`seed` decides everything. `trace` records a line for each event."""

    tick = TICK
    repeats_late = True
    """Others may run between a request whose response is lost and its repetition."""

    def __init__(self, seed: int, faults: Faults, *, trace: bool = False) -> None:
        self.seed, self.faults = seed, faults
        self.chance = random.Random(seed)
        self.clock = aws.Clock(START)
        self.sqs = aws.Sqs(self.clock, self.chance)
        for queue, timeout in TIMEOUT.items():
            self.sqs.add(f"{STACK}-{queue}", 6 * timeout)
        self.sources = {queue: self.sqs.queues[f"{STACK}-{queue}"] for queue in TIMEOUT}
        self.dynamo = aws.Dynamo(self.clock, self.chance, self._written)
        self.scheduler = aws.Scheduler(self.clock, self.sqs)
        self.s3 = aws.S3()
        models = {"sqs": self.sqs, "dynamodb": self.dynamo, "scheduler": self.scheduler, "s3": self.s3}
        self.clients = aws.clients(models, self._request)
        self.actors: list[Actor] = []
        self.trace: list[str] | None = [] if trace else None
        self.awaiting: list[tuple[str, Actor]] = []
        self.paused: set[str] = set()
        self.left = faults.at_most
        self.steps = self.requests = self._count = 0
        self._hub = greenlet.getcurrent()
        self._now: Actor | None = None
        # What happened, for the invariants.
        self.violations: list[str] = []
        self.starts: dict[str, list[tuple[Actor, float]]] = defaultdict(list)
        self.since_reset: dict[str, int] = defaultdict(int)
        self.claims: dict[str, list[Actor]] = defaultdict(list)
        self.attempts: dict[str, dict[int, Actor]] = defaultdict(dict)
        self.completions: dict[str, list[Actor]] = defaultdict(list)
        self.unwanted: set[str] = set()
        self.expires: dict[str, float] = {}
        self.holding: dict[tuple[str, str], Actor] = {}
        self.watch: Callable[[str, Item | None, Item | None], None] = lambda _key, _before, _after: None
        self.redriven: list[str] = []
        self.lost: list[str] = []
        self.dropped: list[str] = []
        self.memories: dict[tuple[str, int], dict[str, Any]] = defaultdict(dict)

    # --- what the code under test sees ---

    def _request(self, service: str, operation: str, method: Callable[..., Any], parameters: Mapping[str, Any]) -> Any:
        actor = self._now
        if actor is None:
            return _carried_out(method, parameters)
        if actor.dead:
            raise Killed
        self.requests += 1
        fate = self._yield(operation)
        if service == "dynamodb" and self.clock.now < actor.outage:
            fate = "refused"
        if fate in ("lost", "unanswered", "kill after"):
            self._execute_unseen(actor, operation, method, parameters)
        self._raise_fault(actor, service, operation, fate)
        if fate == "partial" and operation in PARTIAL:
            parameters = {**parameters, "failing": 1}
        repeats = int(fate in ("lost", "again"))
        if repeats:
            self._log(actor, f"{operation}: its response is lost, or it was refused: the SDK repeats it")
            if self.repeats_late:
                self._yield(operation)
        try:
            response = _carried_out(method, parameters, repeats)
        except Exception as error:
            self._observe(error)
            if self.trace is not None:
                self._log(actor, f"{operation} {_brief(parameters)} -> {error}")
            raise
        self._observe(response)
        if operation == "send_message" and parameters["QueueUrl"].endswith("-dead"):
            self._happens("a dead letter")
        if self.trace is not None:
            self._log(actor, f"{operation} {_brief(parameters)} -> {_brief(response)}")
        return response

    def _raise_fault(self, actor: Actor, service: str, operation: str, fate: str) -> None:
        """Raises the error of a request that gets no response."""
        match fate:
            case "unanswered":
                actor.faulted = True
                raise ConnectionClosedError(endpoint_url=service)
            case "kill after":
                actor.dead = actor.faulted = True
                raise Killed
            case "outage":
                actor.faulted = True
                actor.outage = self.clock.now + 120.0
        if fate in ("refused", "outage"):
            actor.faulted = actor.faulted or service != "dynamodb"
            raise aws.refusal("ThrottlingException", "Rate exceeded", operation)

    def _observe(self, response: object) -> None:
        """Called with each response that an actor sees."""

    def _execute_unseen(
        self, actor: Actor, operation: str, method: Callable[..., Any], parameters: Mapping[str, Any]
    ) -> Any:
        """Carries out a request whose response is lost."""
        try:
            response = method(**parameters)
        except Exception as error:  # noqa: BLE001 - the response is lost, whatever it is
            response = error
        if self.trace is not None:
            self._log(actor, f"{operation} {_brief(parameters)} -> (unseen) {_brief(response)}")
        return response

    def _yield(self, operation: str) -> str:
        """Lets other actors run; returns the fate of this actor's next request."""
        actor = self._now
        assert actor is not None
        fate: str = self._hub.switch(operation)
        if actor.dead or fate == "kill":
            actor.dead = actor.faulted = True
            raise Killed
        return fate

    def draw(self, count: int) -> bytes:
        """Random bytes."""
        return self.chance.randbytes(count)

    def sleep(self, seconds: float) -> None:
        """The world's time.sleep."""
        actor = self._now
        if actor is None:
            self.clock.now += seconds
            return
        actor.wake = self.clock.now + seconds
        self._yield("")

    def spend(self, seconds: float) -> None:
        """A task's work: time passes, within the time limit."""
        actor = self._now
        assert actor is not None
        left = actor.limit_at - self.clock.now
        if (listing := actor.listing) is not None and seconds > LISTED_AFTER:
            # The sandbox's thread. Its request may be carried out after the run or the sandbox has ended.
            self.add(f"{actor.name}'s thread", lambda: attend(listing), after=LISTED_AFTER)
        self.sleep(max(0.0, min(seconds, left)))
        if self.clock.now >= actor.limit_at:
            raise TimeLimitExceeded("the task has used its time")

    def die(self) -> NoReturn:
        """The task crashes its sandbox."""
        actor = self._now
        assert actor is not None
        actor.dead = actor.faulted = True
        raise Killed

    @contextmanager
    def at_work(self, run: Any, key: str | None) -> Iterator[int]:
        """Checks a task's start; yields the number of this run's earlier starts. `key` is that of a unique task."""
        actor = self._now
        assert actor is not None
        self._log(actor, f"STARTS {run.task} {run.id[-6:]} attempt {run.attempt}")
        number = len(self.starts[run.id])
        self.starts[run.id].append((actor, self.clock.now))
        actor.started.append(run.id)
        if run.attempt > MAX_ATTEMPTS:
            self.violation(f"{run.task} {run.id} starts attempt {run.attempt} of {MAX_ATTEMPTS}")
        if run.id in self.unwanted:
            self.violation(f"{run.task} {run.id} starts although it was revoked before it was claimed")
        if self.clock.now > self.expires.get(run.id, float("inf")) + 1.0 and not actor.faulted:
            self.violation(f"{run.task} {run.id} starts after it has expired")
        earlier = self.attempts[run.id].get(run.attempt)
        lost = actor.faulted or earlier is None or earlier.faulted or self.clock.now >= earlier.deadline
        if run.cursor is None and not lost:
            self.violation(f"{run.task} {run.id} starts attempt {run.attempt} twice")
        self.attempts[run.id][run.attempt] = actor
        if run.attempt > 1 + self.paid(run.id):
            self.violation(f"{run.task} {run.id} starts attempt {run.attempt}, and has paid {self.paid(run.id)}")
        self.since_reset[run.id] += 1
        place = (run.task, key) if key is not None else None
        if place is not None:
            other = self.holding.get(place)
            lost = actor.faulted or other is None or other.faulted or self.clock.now >= other.deadline
            if other is not None and not lost:
                self.violation(f"two runs of {place} at work at once")
            self.holding[place] = actor
        try:
            yield number
        finally:
            if place is not None and self.holding.get(place) is actor:
                del self.holding[place]
        self._log(actor, f"ENDS {run.task} {run.id[-6:]}")

    def done(self, run: Any) -> None:
        """Records that the task has done its work and is about to return its result."""
        assert self._now is not None
        self.completions[run.id].append(self._now)

    def paid(self, run_id: str) -> int:
        """The number of attempts that this run has used: its starts, and the sandboxes lost after they had claimed it.

        A sandbox that was lost while it ran another run of the batch costs this one no attempt.
        """
        lost = 0
        for actor in self.claims[run_id]:
            stalled = actor in self.actors and actor is not self._now and self.clock.now >= actor.deadline
            gone = actor.faulted or stalled
            if gone and run_id not in actor.started and actor.claimed[-1] == run_id:
                lost += 1
        return self.since_reset[run_id] + lost

    # --- actors and steps ---

    def add(self, name: str, body: Callable[[], None], *, after: float = 0.0, at: str = "") -> Actor:
        """Adds a program or an operator that begins `after` this many seconds, or at the next event of a kind."""
        actor = Actor(name, body, float("inf") if at else self.clock.now + after)
        self.actors.append(actor)
        if at:
            self.awaiting.append((at, actor))
        return actor

    def _happens(self, event: str) -> None:
        """Starts one actor that waits for this event."""
        for one in self.awaiting:
            if one[0] == event:
                self.awaiting.remove(one)
                one[1].wake = self.clock.now
                return

    def run(self) -> None:
        """Runs until nothing is left to do. Raises Endless."""
        while self._step():
            self.steps += 1
            if self.steps > STEPS_AT_MOST:
                raise Endless(f"after {self.steps} steps there is still something to do")

    def _step(self) -> bool:
        self.scheduler.fire()
        now = self.clock.now
        ready: list[Actor | str] = [actor for actor in self.actors if actor.wake <= now]
        ready += [queue for queue in TIMEOUT if self._receivable(queue, now)]
        if not ready:
            return self._move_clock()
        one = ready[self.chance.randrange(len(ready))] if len(ready) > 1 else ready[0]
        kind = self._fault()
        if isinstance(one, str):
            if kind is not None and kind not in AT_REQUEST:
                self._inject(kind, None)
            self._receive(one)
        elif kind is None:
            self._resume(one, "go")
        elif kind in AT_REQUEST:
            self._log(one, f"FAULT {kind}")
            self._resume(one, kind)
        else:
            self._inject(kind, one)
        return True

    def _fault(self) -> str | None:
        if self.left <= 0 or self.chance.randrange(self.faults.one_in):
            return None
        self.left -= 1
        kinds = self.faults.kinds
        return self.chance.choices(list(kinds), list(kinds.values()))[0]

    def _inject(self, kind: str, one: Actor | None) -> None:
        """Injects a fault that does not belong to a request."""
        self._log(one, f"FAULT {kind}")
        match kind:
            case "stall" if one is not None and one.queue:
                one.outlives = self.chance.random() < 0.5
                one.wake = self.clock.now + self.chance.choice((3.0, TIMEOUT[one.queue] * 1.1, TIMEOUT[one.queue] * 7))
            case "jump":
                self.clock.now += self.chance.choice((1.0, 30.0, 200.0, 4000.0))
            case "twice":
                queue = self.sources[self.chance.choice(list(TIMEOUT))]
                if queue.messages:
                    self.sqs.duplicate(queue, self.chance.choice(queue.messages))

    def _move_clock(self) -> bool:
        """Moves the clock to the next thing that is due; False if there is none."""
        times = [actor.wake for actor in self.actors]
        due = self.scheduler.due()
        if due is not None:
            times.append(due)
        for queue in TIMEOUT:
            if queue not in self.paused:
                messages = self.sources[queue].messages
                times += [message.visible for message in messages if message.visible > self.clock.now]
        if min(times, default=float("inf")) == float("inf"):
            return False
        before, self.clock.now = self.clock.now, max(self.clock.now, min(times))
        if self.clock.now - before > 3600:
            self.dynamo.expire()
            self.dropped += [message.body for message in self.sqs.expire()]
        return True

    def _receivable(self, queue: str, now: float) -> bool:
        messages = self.sources[queue].messages
        if not messages or queue in self.paused:
            return False
        busy = sum([actor.queue == queue for actor in self.actors])
        return busy < CONCURRENCY and any(message.visible <= now for message in messages)

    def _receive(self, queue: str) -> None:
        """The event source takes a batch and invokes the queue's function with it."""
        source = self.sources[queue]
        worn = len(source.redriven)
        messages = self.sqs.receive(source, self.chance.randint(1, BATCH[queue]))
        self.redriven += source.redriven[worn:]
        if messages:
            self._count += 1
            self.invoke(queue, messages, f"sandbox {self._count}")

    def invoke(self, queue: str, messages: Sequence[aws.Stored], name: str) -> None:
        """Adds a sandbox that will process these messages."""
        source = self.sources[queue]
        actor = Actor(name, lambda: None, self.clock.now, queue, self.clock.now + TIMEOUT[queue])
        actor.bodies = [message.body for message in messages]
        taken = {other.slot for other in self.actors if other.queue == queue}
        actor.slot = min(set(range(CONCURRENCY)) - taken)
        records = [
            {
                "messageId": message.id,
                "receiptHandle": message.receipt,
                "body": message.body,
                "attributes": {
                    "ApproximateReceiveCount": str(message.receives),
                    "SentTimestamp": str(int(message.sent * 1000)),
                },
                "messageAttributes": {
                    name: {"stringValue": value["StringValue"], "dataType": value["DataType"]}
                    for name, value in message.attributes.items()
                },
                "eventSource": "aws:sqs",
            }
            for message in messages
        ]

        receipts = [(message.id, message.receipt) for message in messages]

        def invoke() -> None:
            try:
                response = serve(queue, registry.served_by(queue), {"Records": records}, _Context(self, actor))
            except Killed:
                raise
            except BaseException as error:
                if not actor.faulted:
                    self.violation(f"the handler raised {type(error).__name__}: {str(error)[:200]}")
                raise Killed from error
            again = {failure["itemIdentifier"] for failure in response["batchItemFailures"]}
            done = {receipt for message_id, receipt in receipts if message_id not in again}
            source.messages = [message for message in source.messages if message.receipt not in done]

        actor.body = invoke
        self._log(actor, f"RECEIVES {len(messages)} of {queue}: {[message.id for message in messages]}")
        self.actors.append(actor)

    def _resume(self, actor: Actor, fate: str) -> None:
        if self.clock.now >= actor.deadline:
            actor.faulted = True
            if not actor.outlives:
                self._log(actor, "Lambda ends it: out of time")
                actor.dead = True
                fate = "kill"
        if actor.green is None:
            if fate == "kill":
                self._end(actor)
                return
            actor.green = greenlet.greenlet(lambda _fate: self._live(actor))
            fate = "go"
        self._now = actor
        try:
            actor.green.switch(fate)
        finally:
            self._now = None
        self.clock.now += self.tick
        if actor.green.dead:
            self._end(actor)

    def _live(self, actor: Actor) -> None:
        try:
            with clock.use(WorldClock(self)):
                actor.body()
        except Killed:
            self._log(actor, "has died")
            actor.dead = True
        except Exception as error:  # noqa: BLE001 - a program's own: the world continues without it
            self._log(actor, f"raised {type(error).__name__}: {error}")
            if not actor.faulted:
                self.violation(f"{actor.name} raised {type(error).__name__}: {str(error)[:300]}")

    def close(self) -> None:
        """Breaks the world's reference cycles, so that its memory is freed at once without the garbage collector."""
        abandon(self.actors)
        for client in self.clients.values():
            vars(client).clear()
        vars(self).clear()

    def _end(self, actor: Actor) -> None:
        self.actors.remove(actor)
        actor.body, actor.green = _nothing, None
        if actor.faulted:
            self.lost += actor.bodies
        if actor.dead and actor.queue:
            self.memories.pop((actor.queue, actor.slot), None)

    # --- observing the world ---

    def _written(self, key: str, before: Item | None, after: Item | None) -> None:
        if after is not None and "status" in after:
            if "revoke" in after and "total" in after:
                self.violation(f"{key} has segments although it was revoked before it planned them")
            status = after["status"]["S"]
            if status == "PENDING" or (
                before and before.get("status", {}).get("S") == "FAILURE" and status == "STARTED"
            ):
                self.since_reset[key] = 0
                self.attempts[key].clear()
                self.claims[key].clear()
            if status == "STARTED" and self._now is not None and after.get("claim") != (before or {}).get("claim"):
                (self.unwanted.add if "revoke" in (before or {}) else self.unwanted.discard)(key)
                self._now.claimed.append(key)
                self._happens("a claim")
                self.claims[key].append(self._now)
        self.watch(key, before, after)

    def violation(self, text: str) -> None:
        self.violations.append(text)
        self._log(None, f"VIOLATION {text}")

    def _log(self, actor: Actor | None, text: str) -> None:
        if self.trace is not None:
            name = actor.name if actor else "world"
            self.trace.append(f"{self.steps:5} {self.clock.now - START:11.2f} {name:12} {text}")


def _nothing() -> None:
    """The body of an actor that has ended."""


def _carried_out(method: Callable[..., Any], parameters: Mapping[str, Any], repeats: int = 0) -> dict[str, Any]:
    """The response to a request, with the number of retries, as the SDK returns it."""
    metadata = {"RetryAttempts": repeats, "HTTPStatusCode": 200}
    try:
        return {**(method(**parameters) or {}), "ResponseMetadata": metadata}
    except ClientError as error:
        error.response["ResponseMetadata"] = metadata  # type: ignore[typeddict-item]
        raise


@dataclass(frozen=True, slots=True)
class WorldClock:
    """A world's time, with the runtime's interface."""

    world: World

    def now(self) -> float:
        return self.world.clock.now

    def monotonic(self) -> float:
        return self.world.clock.now

    def sleep(self, seconds: float) -> None:
        self.world.sleep(seconds)


class _Context:
    """The fields of Lambda's context that the worker reads."""

    log_group_name = log_stream_name = ""

    def __init__(self, world: World, actor: Actor) -> None:
        self._world, self._actor = world, actor
        self.aws_request_id = actor.name

    def get_remaining_time_in_millis(self) -> int:
        return int((self._actor.deadline - self._world.clock.now) * 1000)


def _brief(value: Any) -> str:
    """A request or a response in one line: with placeholders filled in and shortened ids."""
    if isinstance(value, Mapping) and "UpdateExpression" in value:
        names, values = value["ExpressionAttributeNames"], value.get("ExpressionAttributeValues", {})
        text = f"{value['Key']['id']['S']} {value['UpdateExpression']} WHEN {value.get('ConditionExpression')}"
        text = re.sub(r"#\w+", lambda found: names[found[0]], text)
        text = re.sub(r":\d+", lambda found: str(next(iter(values[found[0]].values()))), text)
    elif isinstance(value, Mapping) and "Statements" in value:
        texts = []
        for one in value["Statements"]:
            parts, given = one["Statement"].split("?"), [str(next(iter(value.values()))) for value in one["Parameters"]]
            texts.append("".join(f"{part}{value}" for part, value in zip(parts, [*given, ""], strict=True)))
        text = "\n                                 ".join(texts)
    else:
        text = str(value)
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{21}([0-9a-f]{6})", r"\1", text)[:700]


# --- replacing the machine's clock, chance and clients ----------------------------------------------------------------


class _Datetime(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, real_datetime)


class WorldDatetime(real_datetime, metaclass=_Datetime):
    """`datetime` with the world's time."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return real_datetime.fromtimestamp(current().clock.now, tz or UTC)


class Memory:
    """A process-wide dictionary, such as the rate limiters': each sandbox has its own, which is lost with it."""

    @staticmethod
    def setdefault(name: str, value: Any) -> Any:
        world = current()
        actor = world._now
        assert actor is not None
        assert actor.queue is not None
        return world.memories[actor.queue, actor.slot].setdefault(name, value)


def _watch(listing: Listing) -> None:
    """Gives a sandbox's claimed runs to its thread."""
    actor = current()._now
    if actor is not None:
        actor.listing = listing


class MachineTime:
    """The module `time`, as far as the operator's code uses it."""

    @staticmethod
    def time() -> float:
        return current().clock.now


class SilentLogger:
    """A logger that drops its lines, which other tests check."""

    def __getattr__(self, _name: str) -> Callable[..., Any]:
        return lambda *_args, **_fields: {}


@contextmanager
def _limit(seconds: float, _message: str) -> Iterator[None]:
    """The soft time limit, on the world's clock."""
    actor = current()._now
    assert actor is not None
    actor.limit_at = current().clock.now + seconds
    try:
        yield
    finally:
        actor.limit_at = float("inf")


@contextmanager
def installed() -> Iterator[None]:
    """Replaces clock, random numbers, clients, logger and time limit with those of the current world."""
    import sys

    import pytest

    from nexus.aws import sdk, table
    from nexus.backend import transport
    from nexus.runs import payloads, tallies
    from nexus.worker import bookings, execution, listing, observe
    from ops import control

    silent = SilentLogger()
    real_time = time.time

    with pytest.MonkeyPatch.context() as patch:
        transport.queue_url.cache_clear()
        patch.setattr(sdk, "_client", lambda service: current().clients[service])
        patch.setattr(time, "time_ns", lambda: int((_world.clock.now if _world else real_time()) * 1e9))
        patch.setattr(os, "urandom", lambda count: current().draw(count))
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=current().draw(16), version=4))
        patch.setattr(observe, "logger", lambda: silent)
        # It takes a tenth of a schedule's time, and no check uses it.
        patch.setattr(traceback, "extract_tb", lambda _traceback: traceback.StackSummary())
        patch.setattr(payloads.dump, "__kwdefaults__", {"inline": INLINE_BYTES})
        patch.setattr(payloads, "INLINE_BYTES", INLINE_BYTES)
        patch.setattr(tallies, "CHUNK", 2)  # so that a fan-out of three has two tallies
        # A sandbox's throttled requests must not affect the next sandbox.
        patch.setattr(table, "throttled_since", lambda _moment: None)
        patch.setattr(control, "time", MachineTime())
        patch.setattr(execution, "time_limit", _limit)
        patch.setattr(listing, "watch", _watch)
        patch.setattr(execution, "_limiters", Memory)
        patch.setattr(bookings, "_purses", Memory)
        for name, module in list(sys.modules.items()):
            if name.startswith("nexus.") and getattr(module, "datetime", None) is real_datetime:
                patch.setattr(module, "datetime", WorldDatetime)
        yield
    transport.queue_url.cache_clear()


@contextmanager
def in_force(world: World) -> Iterator[World]:
    """Makes this world the current one within the block."""
    global _world  # noqa: PLW0603 - tasks and patches use the current world
    _world = world
    random.seed(world.seed)
    try:
        with clock.use(WorldClock(world)):
            yield world
    finally:
        _world = None


def abandon(actors: Sequence[Actor]) -> None:
    """Ends actors that still wait, so that nothing of one world continues in another."""
    for actor in actors:
        actor.dead = True
        if actor.green is not None and not actor.green.dead:
            actor.green.throw(Killed)
