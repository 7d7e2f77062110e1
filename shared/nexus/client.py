"""What a producer sees: sending, signatures, groups and chains, and the handle to a result."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from nexus import locks, results, runs, tallies
from nexus.aws import clients
from nexus.aws.dynamodb import equals
from nexus.backend import backend
from nexus.definitions import Result, RetryPolicy, TaskDefinition, known_tasks
from nexus.envelope import Envelope, Segment
from nexus.errors import ConfigurationError, InvalidMessage, SendFailed, StillRunning, TaskFailed, UnknownTask
from nexus.ids import derived_id, new_id
from nexus.runs import RunError, RunRecord
from nexus.settings import settings
from nexus.store import Applied, Item, Value, Write
from nexus.transport import MAX_DELAY, Message

CHAIN_LIMIT = 12
"""Links of a chain: Lambda ends a loop of about 16 invocations through SQS, and a link may be retried by nobody."""


@dataclass(slots=True)
class Sender:
    """The run inside which tasks are sent: their parent, and where it notes their ids."""

    run_id: str
    children: list[str] = field(default_factory=list)


current: ContextVar[Sender | None] = ContextVar("current", default=None)


@dataclass(frozen=True, slots=True)
class Signature[R: Result]:
    """A task with checked arguments, not yet sent. `result_as` names the argument that takes a chain's last result."""

    task: TaskDefinition[Any, R]
    args: Mapping[str, Any]
    result_as: str | None = None

    @classmethod
    def of(cls, task: TaskDefinition[Any, R], arguments: Mapping[str, Any]) -> "Signature[R]":
        return cls(task, _arguments(task, arguments))

    def delay(self) -> "AsyncResult[R]":
        return send(self)

    def to_json(self) -> dict[str, Any]:
        return {"task": self.task.name, "args": dict(self.args), "result_as": self.result_as}


def _arguments(task: TaskDefinition[Any, Any], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], task.check(arguments).model_dump(mode="json", exclude_defaults=True))


def then[R: Result](task: TaskDefinition[Any, R], result_as: str, **arguments: Any) -> Signature[R]:
    """A link of a chain or the callback of a chord that takes what came before as its argument `result_as`.

    Its other arguments are checked when it runs, since they are not complete before.
    """
    if result_as not in task.arguments.model_fields:
        raise InvalidMessage(f"{task.name}: {result_as}: no such argument")
    return Signature(task, arguments, result_as)


def send[R: Result](
    signature: Signature[R],
    *,
    countdown: float | None = None,
    eta: datetime | None = None,
    queue: str | None = None,
    expires: float | datetime | None = None,
    retry: RetryPolicy | None = None,
    task_id: str | None = None,
    track: bool = True,
) -> "AsyncResult[R]":
    """Sends one task: its record first, then its message. See `nexus.tasks.Task.apply_async`."""
    task = signature.task
    target = _queue(task, queue)
    now = datetime.now(UTC)
    due = _due(now, countdown, eta)
    envelope = _envelope(signature, task_id or (new_id() if track else derived_id("untracked", new_id())))
    if expires is not None:
        limit = expires if isinstance(expires, datetime) else now + timedelta(seconds=expires)
        envelope = envelope.model_copy(update={"expires_at": _aware("expires", limit)})
    message = Message.of(envelope)
    also: dict[str, Value] = {}
    if retry is not None:
        also["retry"] = runs.compact([retry.max_retries, retry.base, retry.cap, sorted(retry.give_up_on)])
    if due > now:
        # A run that waits is one that somebody asks about: the sparse index lists it.
        since = round(due.timestamp(), 3)
        also |= {"eta": since, "live": runs.live_key(target, envelope.id), "since": since}
    if not track and also.keys() - {"eta", "live", "since"}:
        raise ValueError("retry= is kept in the run's record, so it needs track=True")
    # With task_id given the record may stand already: then it is the same run, and its message is sent once more.
    with _sending(envelope.id):
        written = track and isinstance(
            backend().store.apply(runs.pending(envelope, target, _keep_until(due), **also)), Applied
        )
        try:
            _dispatch(target, message, due, now)
        except Exception:
            if written:
                _forget([envelope.id])
            raise
    _note_child(envelope.id)
    return AsyncResult(envelope.id, task.result)


def send_many(signatures: Sequence[Signature[Any]], *, track: bool = True) -> "list[AsyncResult[Any]]":
    """Sends them in batches of ten messages and 25 records a request.

    What SQS refuses is tried again twice; SendFailed names the runs that were still not taken, by id, and the others
    have been sent. When AWS cannot be reached, the rest is not tried.
    """
    envelopes = [_envelope(s, new_id() if track else derived_id("untracked", new_id())) for s in signatures]
    messages = [Message.of(envelope) for envelope in envelopes]
    keep = _keep_until(datetime.now(UTC))
    by_queue: dict[str, list[Message]] = {}
    writes = []
    for signature, envelope, message in zip(signatures, envelopes, messages, strict=True):
        by_queue.setdefault(signature.task.queue, []).append(message)
        writes.append(runs.pending(envelope, signature.task.queue, keep))
    failures: dict[str, str] = {}
    with _sending(*(envelope.id for envelope in envelopes)):
        if track:
            backend().store.apply_all(writes)
        for queue, page in by_queue.items():
            failures |= backend().transport.send(queue, page)
    for envelope in envelopes:
        if envelope.id not in failures:
            _note_child(envelope.id)
    if failures:
        if track:
            _forget(failures)
        raise SendFailed(failures)
    return [AsyncResult(e.id, s.task.result) for e, s in zip(envelopes, signatures, strict=True)]


def _dispatch(queue: str, message: Message, due: datetime, now: datetime) -> None:
    delay = (due - now).total_seconds()
    if delay > MAX_DELAY:
        backend().transport.send_at(queue, message, due)
        return
    failures = backend().transport.send(queue, [replace(message, delay=max(0, round(delay)))])
    if failures:
        raise SendFailed(dict(failures))


@contextmanager
def _sending(*run_ids: str) -> Iterator[None]:
    """What botocore raises within the block as an application's errors: no such stack, or these runs were not sent."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        if clients.is_missing(error):
            stack, region = settings().stack, clients.client("sqs").meta.region_name
            raise ConfigurationError(f"there is no stack {stack} in {region}, or not all of it: {error}") from error
        raise SendFailed(dict.fromkeys(run_ids, str(error))) from error


def _forget(run_ids: Iterable[str]) -> None:
    """Settles the records of what was not sent. Those that AWS does not let be settled stay PENDING."""
    from botocore.exceptions import BotoCoreError, ClientError

    error, now = RunError("SendFailed", "the message was not sent"), round(time.time(), 3)
    with suppress(BotoCoreError, ClientError):
        for run_id in run_ids:
            backend().store.apply(runs.not_sent(run_id, error, now))


def _envelope(signature: Signature[Any], run_id: str, **also: Any) -> Envelope:
    sender = current.get()
    parent = also.pop("parent", None) or (sender.run_id if sender else None)
    trace = os.environ.get("_X_AMZN_TRACE_ID")
    args = dict(signature.args)
    return Envelope.of(id=run_id, task=signature.task.name, args=args, parent=parent, trace=trace, **also)


def _note_child(run_id: str) -> None:
    sender = current.get()
    if sender is not None and len(sender.children) < 100:
        sender.children.append(run_id)


def _queue(task: TaskDefinition[Any, Any], queue: str | None) -> str:
    if queue is None:
        return task.queue
    if not task.served_by(queue):
        raise UnknownTask(f"{task.name} is not served by queue {queue!r}, but by {task.queue}")
    return queue


def _due(now: datetime, countdown: float | None, eta: datetime | None) -> datetime:
    if countdown is not None and eta is not None:
        raise ValueError("countdown and eta are two ways to say one thing: give one")
    if eta is not None:
        return _aware("eta", eta)
    return now + timedelta(seconds=countdown or 0)


def _aware(name: str, value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError(f"{name} is {value!r}: without a time zone it could mean any hour")
    return value


def _keep_until(due: datetime) -> int:
    return runs.keep_until(max(time.time(), due.timestamp()))


# --- groups, chains, chords ------------------------------------------------------------------------------------

GROUP = "group"


def group(signatures: Sequence[Signature[Any]], callback: Signature[Any] | None = None) -> "AsyncResult[Any]":
    """Sends them all at once; the handle's result is the list of their results, in order.

    With a `callback` this is a chord: when all have succeeded it is sent, with the list as its `result_as` argument. A
    member that fails makes the group FAILURE; its dead letter sent again and then well mends it.
    """
    if not 1 <= len(signatures) <= tallies.LIMIT:
        raise ValueError(f"a group of {len(signatures)}: 1 to {tallies.LIMIT}")
    group_id = new_id()
    total = len(signatures)
    keep = _keep_until(datetime.now(UTC))
    envelopes = [
        _envelope(s, derived_id(group_id, 1, i), parent=group_id, segment=Segment(index=i, total=total, kind="group"))
        for i, s in enumerate(signatures)
    ]
    messages: dict[str, list[Message]] = {}
    for signature, envelope in zip(signatures, envelopes, strict=True):
        messages.setdefault(signature.task.queue, []).append(Message.of(envelope))
    also: dict[str, Value] = {"then": runs.compact([callback.to_json()])} if callback else {}
    failures: dict[str, str] = {}
    with _sending(*(envelope.id for envelope in envelopes)):
        tallies.open_group(group_id, total, keep, **also)
        for queue, page in messages.items():
            failures |= backend().transport.send(queue, page)
    _note_child(group_id)
    if failures:
        raise SendFailed(failures)
    return AsyncResult(group_id, None)


def chord(signatures: Sequence[Signature[Any]], callback: Signature[Any]) -> "AsyncResult[Any]":
    """A group and what comes after it; the handle is the callback's."""
    handle = group(signatures, callback)
    return AsyncResult(next_id(handle.id), callback.task.result)


def chain(*links: Signature[Any]) -> "AsyncResult[Any]":
    """Sends the first; each that succeeds sends the next, with its result where that asks for it (`then`).

    The handle is the last link's. A link that fails stops the chain there; its dead letter sent again goes on with it.
    At most 12 links: longer chains through one function look like a loop to Lambda and are dropped.
    """
    if not 1 <= len(links) <= CHAIN_LIMIT:
        raise ValueError(f"a chain of {len(links)} links: 1 to {CHAIN_LIMIT}")
    run_id = first = new_id()
    rest = [link.to_json() for link in links[1:]]
    envelope = _envelope(links[0], first)
    keep = _keep_until(datetime.now(UTC))
    also: dict[str, Value] = {"then": runs.compact(rest)} if rest else {}
    store = backend().store
    with _sending(first):
        store.apply(runs.pending(envelope, links[0].task.queue, keep, **also))
        for link in links[1:]:
            run_id = next_id(run_id)
            later = Envelope(id=run_id, task=link.task.name, args=dict(link.args))
            store.apply(runs.pending(later, link.task.queue, keep))
        try:
            _dispatch(links[0].task.queue, Message.of(envelope), *(datetime.now(UTC),) * 2)
        except Exception:
            _forget([first])
            raise
    _note_child(first)
    return AsyncResult(run_id, links[-1].task.result)


def next_id(run_id: str) -> str:
    """The id of what follows a run: a chain's next link, a chord's callback. Sent twice, it is one run."""
    return derived_id(run_id, "then")


def send_next(run_id: str, links: Sequence[Mapping[str, Any]], result: Any) -> None:
    """Sends what follows a run that has succeeded. `links` is its record's `then`."""
    link, rest = links[0], links[1:]
    task = known_tasks[link["task"]]
    args = dict(link["args"])
    if link.get("result_as"):
        args[link["result_as"]] = result
    envelope = _envelope(Signature(task, args), next_id(run_id), parent=run_id)
    also: dict[str, Value] = {"then": runs.compact(rest)} if rest else {}
    store = backend().store
    written = store.apply(runs.pending(envelope, task.queue, _keep_until(datetime.now(UTC)), **also))
    if rest and not isinstance(written, Applied):
        store.apply(Write(envelope.id, set=also, when=(equals("status", "PENDING"),)))
    _dispatch(task.queue, Message.of(envelope), *(datetime.now(UTC),) * 2)


# --- results ---------------------------------------------------------------------------------------------------


class AsyncResult[R: Result]:
    """The handle to a run. Every property reads the record anew, one consistent GetItem."""

    def __init__(self, run_id: str, result_type: type[R] | None = None) -> None:
        self.id = run_id
        self._result_type = result_type

    def record(self) -> RunRecord:
        """The whole record; status UNKNOWN when there is none."""
        return _record(self.id, backend().store.get([self.id]))

    @property
    def status(self) -> str:
        """PENDING, STARTED, RETRY, SUCCESS, FAILURE, REVOKED; UNKNOWN for an id that was never sent, or has expired."""
        return self.record().status

    def ready(self) -> bool:
        return self.record().ended

    def successful(self) -> bool:
        return self.status == "SUCCESS"

    @property
    def attempts(self) -> int:
        return self.record().attempts

    @property
    def error(self) -> RunError | None:
        """Why it failed, or why its last attempt did."""
        return self.record().error

    @property
    def result(self) -> R | None:
        """The result as its model; None before SUCCESS. A group's is the list of its members' results."""
        return self._result(self.record())

    def _result(self, record: RunRecord) -> R | None:
        if record.result is None:
            return None
        value = results.load(record.result)
        kind = self._result_type or _result_type(record.task)
        return kind.model_validate(value) if kind is not None else value

    @property
    def progress(self) -> tuple[int, int]:
        """(done, total): a fan-out's segments, or what the task says of itself; (0, 0) when it says nothing."""
        record = self.record()
        if record.fanned_out:
            return tallies.progress(record)
        done, total = record.progress[:2] if record.progress else (0, 0)
        return (total if record.status == "SUCCESS" else done), total

    @property
    def children(self) -> "list[AsyncResult[Any]]":
        """The runs that this one sent: its segments or members, or what it sent with delay() (the first hundred)."""
        record = self.record()
        ids = tallies.children(record) if record.fanned_out else record.children
        return [AsyncResult(run_id) for run_id in ids]

    def get(self, timeout: float | None = None, *, propagate: bool = True, interval: float = 0.2) -> R | None:
        """Waits for the end and gives the result.

        Polls from `interval` up to 2 s apart. Raises StillRunning after `timeout` seconds (None: for ever), and
        TaskFailed for FAILURE and REVOKED unless `propagate` is False (then: None).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            record = self.record()
            if record.ended:
                break
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise StillRunning(f"{self.id} is {record.status} after {timeout} s")
            time.sleep(interval if left is None else min(interval, max(left, 0.01)))
            interval = min(interval * 1.5, 2.0)
        if record.status != "SUCCESS" and propagate:
            reason = f"{record.error.type}: {record.error.message}" if record.error else "no reason recorded"
            raise TaskFailed(f"{record.task} {self.id} is {record.status}: {reason}")
        return self._result(record)

    def revoke(self, reason: str = "revoked") -> str:
        """Stops the run from starting, or a fan-out from going on; answers with the status that it has now.

        What is running is not killed: it ends as it ends, but is not tried again.
        """
        store = backend().store
        for _ in range(10):
            record = self.record()
            now = round(time.time(), 3)
            if record.status in ("PENDING", "RETRY"):
                write = runs.revoke_before_start(self.id, record, reason, now)
            elif record.status == "STARTED" and record.fanned_out:
                write = runs.revoke_fan_out(self.id, reason, now)
            elif record.status == "STARTED":
                write = runs.ask_to_revoke(self.id)
            else:
                return record.status
            if isinstance(store.apply(write), Applied):
                if record.fanned_out or record.status == "RETRY":
                    _release(record)
                if record.fanned_out:
                    _revoke_members(record, reason)
                elif record.status == "PENDING" and record.eta is not None:
                    backend().transport.cancel(self.id)
                return "STARTED" if record.status == "STARTED" and not record.fanned_out else "REVOKED"
        return self.status

    def __repr__(self) -> str:
        return f"<AsyncResult {self.id}>"


def _result_type(task_name: str) -> type[Any] | None:
    task = known_tasks.get(task_name)
    return task.result if task else None


def _release(record: RunRecord) -> None:
    if record.task in known_tasks:
        locks.release(known_tasks[record.task], record.args or {}, record.id)


def _revoke_members(record: RunRecord, reason: str) -> None:
    """Marks each member that has not begun as REVOKED, 25 a request, so that its message is acknowledged unrun."""
    now, keep_until = round(time.time(), 3), runs.keep_until()
    writes = []
    for run_id in tallies.children(record):
        member = Envelope(id=run_id, task=record.task or GROUP, parent=record.id)
        writes.append(runs.revoked(member, record.queue, reason, now, keep_until))
    for write, outcome in zip(writes, backend().store.apply_all(writes), strict=True):
        if not isinstance(outcome, Applied):
            AsyncResult(write.key).revoke(reason)


def results_of(handles: Sequence[AsyncResult[Any]]) -> list[RunRecord]:
    """The records of many runs, 100 a request, in their order."""
    found = backend().store.get([handle.id for handle in handles])
    return [_record(handle.id, found) for handle in handles]


def _record(run_id: str, found: Mapping[str, Item]) -> RunRecord:
    return RunRecord.of(found[run_id]) if run_id in found else RunRecord(id=run_id, status="UNKNOWN")


__all__ = ["AsyncResult", "Signature", "chain", "chord", "group", "send", "send_many", "then"]
