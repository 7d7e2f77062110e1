"""Runs each task effectively once: claim, run, settle.

A batch is claimed in one request and settled in one. One bad message never fails its batch: each ends settled, released
for a later delivery, or in the dead-letter queue with its reason. An error outside any message (DynamoDB out of reach,
say) fails the invocation, and SQS delivers the batch again.
"""

import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nexus import builtin
from nexus.backend import backend
from nexus.backend.store import Applied, Item, Value, Write
from nexus.backend.transport import DeadLetter
from nexus.client.sending import Sender, current
from nexus.definitions import Arguments, TaskDefinition
from nexus.envelope import Envelope
from nexus.errors import InvalidMessage, Reject, Retry, UnknownTask
from nexus.registry import Implementation, registry
from nexus.runs import locks, payloads, transitions
from nexus.runs.rate_limit import RateLimiter
from nexus.runs.record import RunError, RunRecord, compact
from nexus.runs.transitions import Acknowledge, Busy, Claim, Died
from nexus.worker import fanout, observe
from nexus.worker.delivery import Claimed, Readable, Received
from nexus.worker.run import Continued, FannedOut, Run
from nexus.worker.time_limit import time_limit

MARGIN = 2.0
"""Seconds kept of an invocation for settling what it ran."""

SETTLE_AFTER = 0.5
"""Seconds that an outcome waits for others before it is written: what a crash may cause to be done twice."""

WAIT_FOR_UNIQUE = 600.0
"""Each wait is a receive of the message, and SQS gives it up after twenty."""

LEASE_GRACE = 1.0
PATIENCE_FOR_RATE = 20.0


class Worker:
    """Serves the tasks of one queue. `context` is Lambda's; one Worker lives for one invocation.

    `later` says of each delivery that is to come again in how many seconds.
    """

    def __init__(self, queue: str, tasks: Mapping[str, TaskDefinition[Any, Any]], context: Any) -> None:
        self.queue = queue
        self.later: list[tuple[Received, float]] = []
        self._tasks = tasks
        self._log = observe.log_reference(context)
        # Lambda keeps the request id when it tries an asynchronous invocation again; a claim must not.
        self._token = f"{getattr(context, 'aws_request_id', '')}/{uuid.uuid4().hex[:8]}"
        self._ends: float = time.monotonic() + context.get_remaining_time_in_millis() / 1000
        self._unsettled: list[tuple[Claimed, Write]] = []
        self._oldest = 0.0

    @property
    def upload_task(self) -> str | None:
        """The task of this queue that an S3 upload starts."""
        return next((name for name, task in self._tasks.items() if task.on_upload), None)

    def task_for(self, envelope: Envelope) -> TaskDefinition[Any, Any]:
        """The envelope's task, if this queue serves it. Raises UnknownTask."""
        if envelope.task not in self._tasks:
            known = "served by another queue" if registry.known(envelope.task) else "not in the catalogue"
            raise UnknownTask(f"task: {envelope.task!r} is {known}; {self.queue} serves {', '.join(self._tasks)}")
        return self._tasks[envelope.task]

    def deliver(self, deliveries: Sequence[Received]) -> None:
        """Claims, runs and settles. What is to be delivered again is in `later` afterwards."""
        try:
            for claimed in self._claim(list(self._readable(deliveries))):
                if time.monotonic() + MARGIN >= self._ends:
                    self._release(claimed)
                    continue
                self._run(claimed)
                if self._unsettled and time.monotonic() - self._oldest > SETTLE_AFTER:
                    self._settle()
        finally:
            self._settle()

    # --- read ---

    def _readable(self, deliveries: Sequence[Received]) -> Iterator[Readable]:
        for received in deliveries:
            try:
                yield received.readable(self.task_for(received.envelope))
            except (UnknownTask, InvalidMessage) as error:
                self._never_ran(received.envelope, RunError.of(error))

    def _never_ran(self, envelope: Envelope, error: RunError) -> None:
        self.dead_letter(envelope.encode(), error, envelope, 0)
        keep = transitions.keep_until()
        backend().store.apply(transitions.never_ran(envelope, self.queue, error, _now(), keep, log=self._log))
        fanout.settle_member(envelope, succeeded=False)

    # --- claim ---

    def _claim(self, deliveries: Sequence[Readable]) -> list[Claimed]:
        """Claims the batch optimistically in one request, then retries each refused claim individually."""
        by = self._claimant()
        # DynamoDB takes one statement an item; SQS may deliver one message twice in a batch.
        unique = {readable.envelope.id: readable for readable in reversed(deliveries)}
        self.later += [(readable, 1.0) for readable in deliveries if unique[readable.envelope.id] is not readable]
        batch = [readable for readable in deliveries if unique[readable.envelope.id] is readable]
        writes = []
        for readable in batch:
            envelope = readable.envelope
            guess: Item | None = {"id": envelope.id, "status": "PENDING"} if envelope.recorded else None
            decision = transitions.claim(envelope, guess, by, readable.policy({}).max_retries + 1)
            assert isinstance(decision, Write)
            writes.append(decision)
        claimed = []
        for readable, write, outcome in zip(batch, writes, backend().store.apply_all(writes), strict=True):
            if isinstance(outcome, Applied):
                claimed.append(readable.claimed(outcome.item))
            elif late := self._claim_refused(readable, outcome.item, known_absent=not write.insert):
                claimed.append(late)
        return claimed

    def _claim_refused(self, readable: Readable, standing: Item | None, known_absent: bool) -> Claimed | None:
        envelope, store = readable.envelope, backend().store
        if standing is None and not known_absent:
            standing = store.get([envelope.id]).get(envelope.id)
        while True:
            attempts = readable.policy(standing or {}).max_retries + 1
            match transitions.claim(envelope, standing, self._claimant(), attempts):
                case Write() as write:
                    outcome = store.apply(write)
                    if isinstance(outcome, Applied):
                        return readable.claimed(outcome.item)
                    standing = outcome.item
                case Acknowledge(record):
                    self._already_ended(readable, record, standing or {})
                    return None
                case Busy(until):
                    self.later.append((readable, max(1.0, until - time.time() + LEASE_GRACE)))
                    return None
                case Died(record):
                    if self._died(readable, record, standing or {}):
                        return None
                    standing = store.get([envelope.id]).get(envelope.id)

    def _already_ended(self, readable: Readable, record: RunRecord, item: Item) -> None:
        """A duplicate of a run that has ended: completes what its first delivery may have left undone."""
        if record.status == "SUCCESS":
            fanout.after_success(record.id, item)
        if record.ended:
            fanout.settle_member(readable.envelope, succeeded=record.status == "SUCCESS")

    def _died(self, readable: Readable, record: RunRecord, item: Item) -> bool:
        """The sandbox of the last attempt is gone, and nobody settled it."""
        error = RunError(
            "SandboxDied",
            f"attempt {record.attempts} ended without a word: out of memory, out of time, or killed "
            f"(its lease ran out {max(0.0, time.time() - (record.lease_until or 0)):.0f} s ago)",
        )
        self.dead_letter(readable.envelope.encode(), error, readable.envelope, record.attempts)
        failure = transitions.fail(record.id, str(item.get("claim", "")), error, _now(), self._log)
        outcome = backend().store.apply(failure)
        if not isinstance(outcome, Applied):
            return False
        self._after_end(readable, outcome.item, succeeded=False)
        return True

    def _claimant(self) -> Claim:
        now = _now()
        return Claim(self._token, self.queue, now, round(now + self._left, 3), transitions.keep_until())

    @property
    def _left(self) -> float:
        return self._ends - time.monotonic()

    # --- run ---

    def _run(self, claimed: Claimed) -> None:
        if not self._may_start(claimed):
            return
        envelope, task, record = claimed.envelope, claimed.task, claimed.record
        limit = min(task.time_limit, self._left - MARGIN)
        run = Run(
            id=envelope.id,
            task=task.name,
            attempt=record.attempts,
            deadline=time.monotonic() + limit,
            limit=limit,
            token=self._token,
            parent=envelope.parent,
            segment=envelope.own_segment,
            cursor=record.cursor,
        )
        started = time.monotonic()
        waited = (record.started_at or 0.0) - envelope.sent_at.timestamp()
        observe.run_started(self.queue, envelope, record.attempts, waited)
        sender = Sender(envelope.id)
        entered = current.set(sender)
        error: RunError | None = None
        try:
            if record.total:
                # It was planned by a sandbox that died before all was sent.
                fanout.send_plan(envelope, self._token, record.total)
                outcome = "fanned_out"
            else:
                answer = self._call(claimed, run, limit)
                outcome = self._answered(claimed, answer, tuple(sender.children))
        except Exception as raised:  # noqa: BLE001 - whatever a task raises is that run's failure, by its policy
            outcome, error = self._failed(claimed, raised)
        finally:
            current.reset(entered)
        observe.run_ended(outcome, time.monotonic() - started, str(error) if error else None)

    def _may_start(self, claimed: Claimed) -> bool:
        """Whether nothing forbids the claimed run to start now; otherwise it was revoked or released."""
        envelope, task = claimed.envelope, claimed.task
        if claimed.item.get("revoke"):
            self._revoke(claimed, "revoked while an earlier attempt ran")
            return False
        if envelope.expires_at is not None and envelope.expires_at.timestamp() < time.time():
            self._revoke(claimed, f"expired at {envelope.expires_at:%Y-%m-%dT%H:%M:%SZ} before it started")
            return False
        if claimed.holds_place:
            held = locks.acquire(task, envelope.args, envelope.id)
            if held is not None and held.wait:
                self._release(claimed, WAIT_FOR_UNIQUE)
                return False
            if held is not None:
                self._revoke(claimed, f"{held.holder} is live, and {task.name} is unique")
                return False
        if task.rate_limit:
            limiter = _limiter(task)
            if not limiter.acquire(patience=min(PATIENCE_FOR_RATE, self._left / 2)):
                self._release(claimed, limiter.wait)
                return False
        return True

    def _call(self, claimed: Claimed, run: Run, limit: float) -> Any:
        task = claimed.task
        if task is builtin.ping:
            here = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "this process")
            return builtin.Pong(text=claimed.args.text, queue=self.queue, function=here)
        implementation = registry.implementation(task.name)
        work = implementation.function_for(part=claimed.envelope.is_part)
        with time_limit(limit, f"{task.name} has used its {limit:.0f} s"):
            answer = work(claimed.args, run)
        _check_answer(implementation, answer)
        return answer

    def _answered(self, claimed: Claimed, answer: Any, children: tuple[str, ...]) -> str:
        envelope = claimed.envelope
        match answer:
            case FannedOut(segments, then):
                self._settle()
                arguments = [_plain(args) for args in segments]
                next_phase = None if then is None else _plain(then)
                fanout.plan(envelope, self._token, arguments, next_phase, transitions.keep_until())
                fanout.send_plan(envelope, self._token, len(arguments))
                return "fanned_out"
            case Continued(cursor):
                continued = int(str(claimed.item.get("continued", 0))) + 1
                if continued > transitions.MAX_CONTINUED:
                    raise Reject(f"continued {transitions.MAX_CONTINUED} times already: plan smaller segments")
                self._release(claimed, 0.0, cursor=compact(cursor), continued=continued)
                return "continued"
        result = payloads.dump(envelope.id, answer.model_dump_json())
        self._end(claimed, transitions.succeed(envelope.id, self._token, result, _now(), children))
        return "success"

    def _failed(self, claimed: Claimed, error: Exception) -> tuple[str, RunError]:
        """RETRY or FAILURE, by the error and the policy; returns the outcome and its reason."""
        envelope, record = claimed.envelope, claimed.record
        observe.logger().debug("the error of this attempt", exc_info=error)
        reason = RunError.of(error)
        policy = claimed.policy(claimed.item)
        retryable = claimed.source != "direct" and not isinstance(error, Reject | InvalidMessage | UnknownTask)
        if retryable and policy.retries(error, record.attempts):
            after = error.after if isinstance(error, Retry) else None
            delay = policy.wait(record.attempts) if after is None else after
            retry = transitions.retry(envelope.id, self._token, reason, round(time.time() + delay, 3))
            outcome = backend().store.apply(retry)
            if isinstance(outcome, Applied):
                self.later.append((claimed, delay))
                return "retry", reason
            if (outcome.item or {}).get("revoke"):
                self._revoke(claimed, "revoked while it ran; its attempt failed")
                return "revoked", reason
        if claimed.source != "direct":
            self.dead_letter(envelope.encode(), reason, envelope, record.attempts)
        self._end(claimed, transitions.fail(envelope.id, self._token, reason, _now(), self._log))
        return "failure", reason

    def _revoke(self, claimed: Claimed, reason: str) -> None:
        backend().store.apply(transitions.revoke_held(claimed.envelope.id, self._token, reason, _now()))
        fanout.settle_member(claimed.envelope, succeeded=False)
        observe.logger().info("run revoked", run_id=claimed.envelope.id, task=claimed.envelope.task, reason=reason)

    def _release(self, claimed: Claimed, delay: float = 0.0, **also: Value) -> None:
        """Leaves the run for another invocation, without spending an attempt."""
        write = transitions.release(claimed.envelope.id, self._token, claimed.record.attempts, **also)
        outcome = backend().store.apply(write)
        if not isinstance(outcome, Applied) and (outcome.item or {}).get("revoke"):
            self._revoke(claimed, "revoked while it ran")
            return
        self.later.append((claimed, delay))

    # --- settle ---

    def _end(self, claimed: Claimed, write: Write) -> None:
        if not self._unsettled:
            self._oldest = time.monotonic()
        self._unsettled.append((claimed, write))

    def _settle(self) -> None:
        """Writes the outcomes that wait, in one request, then does what follows from each."""
        waiting, self._unsettled = self._unsettled, []
        if not waiting:
            return
        outcomes = backend().store.apply_all([write for _, write in waiting])
        for (claimed, write), outcome in zip(waiting, outcomes, strict=True):
            if isinstance(outcome, Applied):
                self._after_end(claimed, outcome.item, succeeded=write.set["status"] == "SUCCESS")
            else:
                # The lease had run out and another sandbox took over: its outcome counts, and ours is dropped.
                observe.logger().warning("outcome dropped: the run is another sandbox's", run_id=claimed.envelope.id)

    def _after_end(self, readable: Readable, item: Item, succeeded: bool) -> None:
        envelope = readable.envelope
        if readable.holds_place:
            locks.release(readable.task, envelope.args, envelope.id)
        if succeeded:
            fanout.after_success(envelope.id, item)
        fanout.settle_member(envelope, succeeded)

    def dead_letter(self, body: str, error: RunError, envelope: Envelope | None, attempts: int) -> None:
        """Sends a message that is given up to the dead-letter queue, with its reason."""
        run_id, task = (envelope.id, envelope.task) if envelope else ("", "")
        attributes = {
            "ErrorType": error.type,
            "ErrorMessage": _clean(error.message),
            "Task": task,
            "RunId": run_id,
            "Attempts": str(attempts),
            "Log": _clean(self._log),
            "FailedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        backend().transport.dead_letter(self.queue, DeadLetter(_clean_body(body), attributes, task))
        observe.dead_lettered(self.queue, error, run_id or None, task or None)


def _check_answer(implementation: Implementation, answer: Any) -> None:
    task = implementation.task
    if isinstance(answer, FannedOut):
        if not implementation.reducible:
            raise Reject(f"{task.name} fans out, and neither has a reducer nor a result with an add method")
    elif not isinstance(answer, Continued | task.result):
        raise Reject(f"{task.name} returned {type(answer).__name__}, not {task.result.__name__}")


def _plain(args: Arguments) -> dict[str, Any]:
    return args.model_dump(mode="json", exclude_defaults=True)


def _now() -> float:
    return round(time.time(), 3)


def _clean(text: str) -> str:
    """Text that SQS takes as an attribute: XML 1.0's characters, 1 KiB of them."""
    return "".join(c for c in text[:1024] if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd")


def _clean_body(body: str) -> str:
    return "".join(c if c in "\t\n\r" or " " <= c <= "\ud7ff" or c >= "\ue000" else "\ufffd" for c in body) or "(empty)"


_limiters: dict[str, RateLimiter] = {}


def _limiter(task: TaskDefinition[Any, Any]) -> RateLimiter:
    assert task.rate_limit is not None
    return _limiters.setdefault(task.name, RateLimiter(task.name, task.rate_limit.per_second))
