"""The Lambda handler of every queue: takes what SQS, S3 or a caller gives it, and runs each task effectively once.

    message -> envelope -> claim -> run -> settle

A batch is claimed in one request and settled in one. One bad message never fails its batch: each ends settled, put
back for later (its id among batchItemFailures), or in the dead-letter queue with its reason. An error outside any
message (DynamoDB out of reach, say) fails the invocation, and SQS delivers the batch again.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import unquote_plus

from nexus import fanout, locks, observe, results, runs
from nexus.backend import backend
from nexus.client import Sender, current
from nexus.definitions import Arguments, RetryPolicy, TaskDefinition
from nexus.envelope import Envelope, decode
from nexus.errors import InvalidMessage, Reject, Retry, SendFailed, UnknownTask
from nexus.ids import derived_id, new_id
from nexus.implementations import Implementation, implementation, implements, task_of
from nexus.rate_limit import RateLimiter
from nexus.run import Continuation, FannedOut, HandedOn, Run
from nexus.runs import Acknowledge, Busy, Claim, Died, RunError, RunRecord
from nexus.store import Applied, Item, Write
from nexus.time_limit import time_limit
from nexus.transport import MAX_DELAY, DeadLetter, Message
from social import catalogue

MARGIN = 2.0
"""Seconds kept of an invocation for settling what it ran."""

SETTLE_AFTER = 0.5
"""Seconds that an outcome waits for others before it is written: what a crash may cause to be done twice."""

WAIT_FOR_UNIQUE = 600.0
"""Each wait is a receive of the message, and SQS gives it up after twenty."""

LEASE_GRACE = 1.0
PATIENCE_FOR_RATE = 20.0


@dataclass(slots=True)
class Delivery:
    """One envelope to run, and what became of it."""

    envelope: Envelope
    source: str
    message: "SqsMessage | None" = None
    task: TaskDefinition[Any, Any] | None = None
    args: Any = None
    item: Item = field(default_factory=dict)
    delay: float | None = None
    """Seconds after which the message is to come again; None: it is done with."""

    record: RunRecord | None = None


@dataclass(frozen=True, slots=True)
class SqsMessage:
    """The parts of an SQS record that matter."""

    id: str
    receipt: str
    body: str
    receives: int = 1

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        receives = str(_mapping(record.get("attributes")).get("ApproximateReceiveCount", "1"))
        return cls(
            id=str(record["messageId"]),
            receipt=str(record.get("receiptHandle", "")),
            body=str(record.get("body", "")),
            receives=int(receives) if receives.isdecimal() else 1,
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


class Worker:
    """Serves the tasks of one queue. `context` is Lambda's; one Worker lives for one invocation."""

    def __init__(self, queue: str, tasks: Mapping[str, TaskDefinition[Any, Any]], context: Any) -> None:
        self._queue = queue
        self._tasks = tasks
        self._log = observe.log_reference(context)
        # Lambda keeps the request id when it tries an asynchronous invocation again; a claim must not.
        self._token = f"{getattr(context, 'aws_request_id', '')}/{uuid.uuid4().hex[:8]}"
        self._ends: float = time.monotonic() + context.get_remaining_time_in_millis() / 1000
        self._unsettled: list[tuple[Delivery, Write]] = []
        self._oldest = 0.0

    # --- the three forms of an event ---

    def messages(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """An SQS batch; answers with the ids that are to come again."""
        deliveries: list[Delivery] = []
        for record in records:
            message = SqsMessage.of(record)
            try:
                envelopes = _envelopes(message.body)
            except InvalidMessage as error:
                self._dead_letter(message.body, error, None, message.receives)
                continue
            deliveries += [Delivery(envelope, "sqs", message) for envelope in envelopes]
        self.deliver(deliveries)
        later: dict[SqsMessage, float] = {}
        for delivery in deliveries:
            if delivery.delay is not None and delivery.message is not None:
                # The message of an upload's event may carry several runs: it comes again for the first of them.
                later[delivery.message] = min(delivery.delay, later.get(delivery.message, delivery.delay))
        if later:
            seconds = {message.receipt: delay for message, delay in later.items()}
            backend().transport.set_visibility(self._queue, seconds)
        return {"batchItemFailures": [{"itemIdentifier": message.id} for message in later]}

    def uploads(self, records: Sequence[Mapping[str, Any]]) -> None:
        """S3's own event, given to the function without a queue between.

        Raises Retry when any upload is to be tried again: the function's on-failure destination is the queue, which
        then gives it the queue's retries.
        """
        deliveries = [Delivery(envelope, "s3") for envelope in s3_envelopes(records)]
        self.deliver(deliveries)
        again = [d.envelope.args.get("key", "") for d in deliveries if d.delay is not None]
        if again:
            raise Retry(f"to be tried again through the queue: {', '.join(again)}")

    def invocation(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """{"task", "args"} from a caller who waits: one attempt, and the settled run as the answer.

        Raises InvalidMessage or UnknownTask to the caller when it cannot run at all.
        """
        if "v" in event or "id" in event:
            envelope = decode(_dumps(event))
        else:
            envelope = Envelope.of(id=new_id(), task=event.get("task"), args=event.get("args") or {})
        delivery = Delivery(envelope, "direct")
        delivery.task = self._task(envelope)
        delivery.args = delivery.task.check(envelope.args)
        self.deliver([delivery])
        if delivery.delay is not None:
            # Nobody delivers a direct invocation again: what it left goes on through the queue.
            message = Message.of(envelope, delay=min(MAX_DELAY, round(delivery.delay)))
            failures = backend().transport.send(self._queue, [message])
            if failures:
                raise SendFailed(dict(failures))
        record = RunRecord.of(backend().store.get([envelope.id])[envelope.id])
        answer: dict[str, Any] = {"id": record.id, "task": record.task, "status": record.status}
        if record.result is not None:
            answer["result"] = results.load(record.result)
        if record.error is not None:
            answer["error"] = {"type": record.error.type, "message": record.error.message}
        return answer

    # --- one batch ---

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Claims, runs and settles; each delivery's `delay` then says whether it is to come again."""
        ready = [delivery for delivery in deliveries if self._readable(delivery)]
        claimed = self._claim(ready)
        try:
            for delivery in claimed:
                if time.monotonic() + MARGIN >= self._ends:
                    self._put_back(delivery)
                    continue
                self._run(delivery)
                if self._unsettled and time.monotonic() - self._oldest > SETTLE_AFTER:
                    self._settle()
        finally:
            self._settle()

    def _task(self, envelope: Envelope) -> TaskDefinition[Any, Any]:
        if envelope.task not in self._tasks:
            known = "served by another queue" if envelope.task in catalogue.TASKS else "not in the catalogue"
            raise UnknownTask(f"task: {envelope.task!r} is {known}; {self._queue} serves {', '.join(self._tasks)}")
        return self._tasks[envelope.task]

    def _readable(self, delivery: Delivery) -> bool:
        try:
            delivery.task = self._task(delivery.envelope)
            delivery.args = delivery.task.check(delivery.envelope.args)
        except (UnknownTask, InvalidMessage) as error:
            self._never_ran(delivery, error)
            return False
        return True

    def _never_ran(self, delivery: Delivery, error: Exception) -> None:
        envelope = delivery.envelope
        self._dead_letter(envelope.encode(), error, envelope, 0)
        reason = RunError(type(error).__name__, str(error))
        backend().store.apply(runs.never_ran(envelope, self._queue, reason, _now(), self._keep_until(), log=self._log))
        fanout.settle_member(envelope, succeeded=False)

    # --- claim ---

    def _claim(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that are ours to run. First all at once, as each most likely is; then one by one who was refused."""
        by = self._claimant()
        first = []
        # DynamoDB takes one statement an item; SQS may give one message twice in a batch.
        unique = {delivery.envelope.id: delivery for delivery in reversed(deliveries)}
        for delivery in deliveries:
            if unique[delivery.envelope.id] is not delivery:
                delivery.delay = 1.0
        deliveries = [delivery for delivery in deliveries if unique[delivery.envelope.id] is delivery]
        for delivery in deliveries:
            guess: Item | None = (
                {"id": delivery.envelope.id, "status": "PENDING"} if delivery.envelope.recorded else None
            )
            decision = runs.claim(delivery.envelope, guess, by, self._attempts(delivery, {}))
            assert isinstance(decision, Write)
            first.append(decision)
        claimed = []
        outcomes = backend().store.apply_all(first)
        for delivery, write, outcome in zip(deliveries, first, outcomes, strict=True):
            if isinstance(outcome, Applied):
                delivery.item = outcome.item
                claimed.append(delivery)
            elif self._claim_refused(delivery, outcome.item, known_absent=not write.insert):
                claimed.append(delivery)
        return claimed

    def _claim_refused(self, delivery: Delivery, standing: Item | None, known_absent: bool) -> bool:
        envelope, store = delivery.envelope, backend().store
        if standing is None and not known_absent:
            standing = store.get([envelope.id]).get(envelope.id)
        while True:
            by = self._claimant()
            decision = runs.claim(envelope, standing, by, self._attempts(delivery, standing or {}))
            match decision:
                case Write():
                    outcome = store.apply(decision)
                    if isinstance(outcome, Applied):
                        delivery.item = outcome.item
                        return True
                    standing = outcome.item
                case Acknowledge(record):
                    self._already(delivery, record, standing or {})
                    return False
                case Busy(until):
                    delivery.delay = max(1.0, until - time.time() + LEASE_GRACE)
                    return False
                case Died(record):
                    if self._died(delivery, record, standing or {}):
                        return False
                    standing = store.get([envelope.id]).get(envelope.id)

    def _already(self, delivery: Delivery, record: RunRecord, item: Item) -> None:
        """A duplicate of a run that has ended: what its first delivery may have left undone is done, and no more."""
        if record.status == "SUCCESS":
            fanout.after_success(record.id, item)
        if record.ended:
            fanout.settle_member(delivery.envelope, succeeded=record.status == "SUCCESS")

    def _died(self, delivery: Delivery, record: RunRecord, item: Item) -> bool:
        """The sandbox of the last attempt is gone, and nobody settled it."""
        error = RunError(
            "SandboxDied",
            f"attempt {record.attempts} ended without a word: out of memory, out of time, or killed "
            f"(its lease ran out {max(0.0, time.time() - (record.lease_until or 0)):.0f} s ago)",
        )
        self._dead_letter(delivery.envelope.encode(), error, delivery.envelope, record.attempts)
        outcome = backend().store.apply(runs.fail(record.id, str(item.get("claim", "")), error, _now(), self._log))
        if not isinstance(outcome, Applied):
            return False
        self._after_end(delivery, succeeded=False)
        return True

    def _claimant(self) -> Claim:
        now = _now()
        left = self._ends - time.monotonic()
        return Claim(self._token, self._queue, now, round(now + left, 3), self._keep_until())

    def _keep_until(self) -> int:
        return runs.keep_until()

    def _policy(self, delivery: Delivery, item: Item) -> RetryPolicy:
        assert delivery.task is not None
        if "retry" in item:
            max_retries, base, cap, give_up_on = json.loads(str(item["retry"]))
            return RetryPolicy(max_retries, base, cap, frozenset(give_up_on))
        return delivery.task.retry

    def _attempts(self, delivery: Delivery, item: Item) -> int:
        return self._policy(delivery, item).max_retries + 1

    # --- run ---

    def _run(self, delivery: Delivery) -> None:
        envelope, task = delivery.envelope, delivery.task
        assert task is not None
        delivery.record = record = RunRecord.of(delivery.item)
        if delivery.item.get("revoke"):
            self._revoke(delivery, "revoked while an earlier attempt ran")
            return
        if envelope.expires_at is not None and envelope.expires_at.timestamp() < time.time():
            self._revoke(delivery, f"expired at {envelope.expires_at:%Y-%m-%dT%H:%M:%SZ} before it started")
            return
        if task.unique and not _is_part(envelope):
            held = locks.acquire(task, envelope.args, envelope.id)
            if held is not None and held.wait:
                self._put_back(delivery, WAIT_FOR_UNIQUE)
                return
            if held is not None:
                self._revoke(delivery, f"{held.holder} is live, and {task.name} is unique")
                return
        if task.rate_limit:
            limiter = _limiter(task)
            if not limiter.acquire(patience=min(PATIENCE_FOR_RATE, self._left / 2)):
                self._put_back(delivery, limiter.wait)
                return
        limit = min(task.time_limit, self._left - MARGIN)
        run = Run(
            id=envelope.id,
            task=task.name,
            attempt=record.attempts,
            deadline=time.monotonic() + limit,
            limit=limit,
            token=self._token,
            parent=envelope.parent,
            segment=runs.segment_of(envelope),
            cursor=record.cursor,
        )
        started = time.monotonic()
        waited = (record.started_at or 0.0) - envelope.sent_at.timestamp()
        observe.run_started(self._queue, envelope, record.attempts, waited)
        sender = Sender(envelope.id)
        entered = current.set(sender)
        try:
            if record.total:
                # It was planned by a sandbox that died before all was sent.
                fanout.send_plan(envelope, self._token, record.total)
                outcome, reason = "fanned_out", None
            else:
                answer = self._call(task, delivery.args, run, limit)
                outcome, reason = self._answered(delivery, answer, tuple(sender.children)), None
        except Exception as error:  # noqa: BLE001 - whatever a task raises is that run's failure, by its policy
            outcome, reason = self._failed(delivery, error)
        finally:
            current.reset(entered)
        observe.run_ended(outcome, time.monotonic() - started, reason)

    @property
    def _left(self) -> float:
        return self._ends - time.monotonic()

    def _call(self, task: TaskDefinition[Any, Any], args: Any, run: Run, limit: float) -> Any:
        if task is catalogue.ping:
            here = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "this process")
            return catalogue.Pong(text=args.text, queue=self._queue, function=here)
        joined = implementation(task.name)
        with time_limit(limit, f"{task.name} has used its {limit:.0f} s"):
            answer = joined.function(args, run)
        _check_answer(joined, answer)
        return answer

    def _answered(self, delivery: Delivery, answer: Any, children: tuple[str, ...]) -> str:
        envelope, record = delivery.envelope, delivery.record
        assert record is not None
        match answer:
            case FannedOut(segments, then):
                self._settle()
                arguments = [_plain(args) for args in segments]
                fanout.plan(
                    envelope, self._token, arguments, None if then is None else _plain(then), self._keep_until()
                )
                fanout.send_plan(envelope, self._token, len(arguments))
                return "fanned_out"
            case HandedOn(cursor):
                hand_ons = int(str(delivery.item.get("hand_ons", 0))) + 1
                if hand_ons > runs.MAX_HAND_ONS:
                    raise Reject(f"handed on {runs.MAX_HAND_ONS} times already: plan smaller segments")
                text = runs.compact(cursor)
                self._put_back(delivery, 0.0, cursor=text, hand_ons=hand_ons)
                return "handed_on"
        result = results.dump(envelope.id, answer.model_dump_json())
        self._end(delivery, runs.succeed(envelope.id, self._token, result, _now(), children))
        return "success"

    def _failed(self, delivery: Delivery, error: Exception) -> tuple[str, str]:
        """RETRY or FAILURE, by the error and the policy; answers with the outcome and its reason."""
        envelope, record = delivery.envelope, delivery.record
        assert record is not None
        observe.logger().debug("the error of this attempt", exc_info=error)
        reason = RunError(type(error).__name__, str(error) or "no message")
        policy = self._policy(delivery, delivery.item)
        retryable = delivery.source != "direct" and not isinstance(error, Reject | InvalidMessage | UnknownTask)
        if retryable and policy.retries(error, record.attempts):
            after = error.after if isinstance(error, Retry) else None
            delay = policy.wait(record.attempts) if after is None else after
            outcome = backend().store.apply(runs.retry(envelope.id, self._token, reason, round(time.time() + delay, 3)))
            if isinstance(outcome, Applied):
                delivery.delay = delay
                return "retry", f"{reason.type}: {reason.message}"
            if (outcome.item or {}).get("revoke"):
                self._revoke(delivery, "revoked while it ran; its attempt failed")
                return "revoked", f"{reason.type}: {reason.message}"
        if delivery.source != "direct":
            self._dead_letter(envelope.encode(), reason, envelope, record.attempts)
        self._end(delivery, runs.fail(envelope.id, self._token, reason, _now(), self._log))
        return "failure", f"{reason.type}: {reason.message}"

    def _revoke(self, delivery: Delivery, reason: str) -> None:
        backend().store.apply(runs.revoke_held(delivery.envelope.id, self._token, reason, _now()))
        fanout.settle_member(delivery.envelope, succeeded=False)
        observe.logger().info("run revoked", run_id=delivery.envelope.id, task=delivery.envelope.task, reason=reason)

    def _put_back(self, delivery: Delivery, delay: float = 0.0, **also: Any) -> None:
        """Leaves the run for another invocation, without spending an attempt."""
        record = RunRecord.of(delivery.item)
        write = runs.put_back(delivery.envelope.id, self._token, record.attempts, **also)
        outcome = backend().store.apply(write)
        if not isinstance(outcome, Applied) and (outcome.item or {}).get("revoke"):
            self._revoke(delivery, "revoked while it ran")
            return
        delivery.delay = delay

    # --- settle ---

    def _end(self, delivery: Delivery, write: Write) -> None:
        if not self._unsettled:
            self._oldest = time.monotonic()
        self._unsettled.append((delivery, write))

    def _settle(self) -> None:
        """Writes the outcomes that wait, in one request, then does what follows from each."""
        waiting, self._unsettled = self._unsettled, []
        if not waiting:
            return
        outcomes = backend().store.apply_all([write for _, write in waiting])
        for (delivery, write), outcome in zip(waiting, outcomes, strict=True):
            if isinstance(outcome, Applied):
                delivery.item = outcome.item
                self._after_end(delivery, succeeded=write.set["status"] == "SUCCESS")
            else:
                # The lease had run out and another sandbox took over: its outcome counts, and ours is dropped.
                observe.logger().warning("outcome dropped: the run is another sandbox's", run_id=delivery.envelope.id)

    def _after_end(self, delivery: Delivery, succeeded: bool) -> None:
        envelope, task = delivery.envelope, delivery.task
        if task is not None and task.unique and not _is_part(envelope):
            locks.release(task, envelope.args, envelope.id)
        if succeeded:
            fanout.after_success(envelope.id, delivery.item)
        fanout.settle_member(envelope, succeeded)

    def _dead_letter(self, body: str, error: Exception | RunError, envelope: Envelope | None, attempts: int) -> None:
        kind = error.type if isinstance(error, RunError) else type(error).__name__
        message = error.message if isinstance(error, RunError) else str(error)
        attributes = {
            "ErrorType": kind,
            "ErrorMessage": _clean(message),
            "Task": envelope.task if envelope else "",
            "RunId": envelope.id if envelope else "",
            "Attempts": str(attempts),
            "Log": _clean(self._log),
            "FailedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        backend().transport.dead_letter(
            self._queue, DeadLetter(_clean_body(body), attributes, envelope.task if envelope else "")
        )
        observe.dead_lettered(
            self._queue, kind, message, envelope.id if envelope else None, envelope.task if envelope else None
        )


def _check_answer(joined: Implementation, answer: Any) -> None:
    if isinstance(answer, FannedOut):
        if not joined.reducible:
            raise Reject(f"{joined.task.name} fans out, and neither has a reducer nor a result with an add method")
    elif not isinstance(answer, HandedOn | joined.task.result):
        raise Reject(f"{joined.task.name} returned {type(answer).__name__}, not {joined.task.result.__name__}")


def _is_part(envelope: Envelope) -> bool:
    """Whether it is a segment or a later phase: then the run that it is part of holds a unique task's place."""
    return envelope.segment is not None and envelope.segment.kind != "group"


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


# --- S3's events ---


def s3_envelopes(records: Sequence[Mapping[str, Any]]) -> list[Envelope]:
    """The runs that S3's ObjectCreated records stand for; other records (s3:TestEvent, removals) are none.

    Keys come URL-encoded, with + for a space. The run's id derives from what names the upload, so an event that S3
    gives twice is one run.
    """
    envelopes = []
    for record in records:
        if not str(record.get("eventName", "")).startswith(("ObjectCreated:", "s3:ObjectCreated:")):
            continue
        s3 = _mapping(record.get("s3"))
        bucket, thing = str(_mapping(s3.get("bucket")).get("name", "")), _mapping(s3.get("object"))
        key = unquote_plus(str(thing.get("key", "")))
        version, order = thing.get("versionId"), str(thing.get("sequencer", ""))
        args = {"bucket": bucket, "key": key, "event_order": order}
        if version and version != "null":
            args["version_id"] = str(version)
        run_id = derived_id("s3", bucket, key, version, order or thing.get("eTag"))
        sent_at = _time(record.get("eventTime"))
        envelopes.append(Envelope(id=run_id, task=catalogue.S3_UPLOAD_TASK.name, args=args, sent_at=sent_at))
    return envelopes


def _time(text: Any) -> datetime:
    """S3's time of an event, which every attempt sees alike; now, where there is none that can be read."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return datetime.now(UTC)


def _envelopes(body: str) -> list[Envelope]:
    """The envelopes in a message: its own, or those of the S3 event that a failed invocation left in the queue."""
    try:
        value = json.loads(body)
    except ValueError:
        return [decode(body)]
    if isinstance(value, dict) and "requestPayload" in value and "requestContext" in value:
        value = value["requestPayload"]
    if isinstance(value, dict) and isinstance(value.get("Records"), list):
        return s3_envelopes([record for record in value["Records"] if isinstance(record, dict)])
    if isinstance(value, dict) and value.get("Event") == "s3:TestEvent":
        return []
    return [decode(body)]


def _dumps(event: Mapping[str, Any]) -> str:
    return json.dumps(event, default=str)


# --- handlers ---


def serve(queue: str, tasks: Mapping[str, TaskDefinition[Any, Any]], event: Any, context: Any) -> Any:
    """One invocation, in whichever form it comes."""
    if not isinstance(event, Mapping):
        raise InvalidMessage(f"an event is a JSON object, not {type(event).__name__}")
    worker = Worker(queue, tasks, context)
    if "Records" in event:
        if not isinstance(event["Records"], list):
            raise InvalidMessage(f"Records: a list, not {type(event['Records']).__name__}")
        records = [record for record in event["Records"] if isinstance(record, Mapping)]
        if records and records[0].get("eventSource") == "aws:sqs":
            return worker.messages(records)
        return worker.uploads(records)
    if event.get("Event") == "s3:TestEvent":
        return None
    return worker.invocation(event)


def handler(event: Any, context: Any) -> Any:
    """The entry of every queue's function; NEXUS_QUEUE says which queue it serves."""
    queue = os.environ["NEXUS_QUEUE"]
    return serve(queue, catalogue.served_by(queue), event, context)


def handler_for(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """A Lambda handler for one task alone: what each task's file ends in.

    It takes the same events as the queue's function, and a direct one may leave "task" out.
    """
    task = task_of(function)

    def handle(event: Any, context: Any) -> Any:
        if isinstance(event, Mapping) and "Records" not in event and "Event" not in event:
            event = {"task": task.name, **event}
        return serve(task.queue, {task.name: task}, event, context)

    return handle


__all__ = ["Continuation", "FannedOut", "HandedOn", "Reject", "Retry", "Run", "handler", "handler_for", "implements"]
