"""Sending: a task with its arguments, checked, recorded and put into its queue."""

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from nexus import clock
from nexus.aws import sdk
from nexus.backend import backend
from nexus.backend.store import Applied, Value
from nexus.backend.transport import MAX_DELAY, Message
from nexus.client.bounded import asynchronous, bounded, note
from nexus.client.handles import AsyncResult
from nexus.definitions import Result, RetryPolicy, TaskDefinition
from nexus.envelope import Envelope
from nexus.errors import ConfigurationError, InvalidMessage, SendFailed, UnknownTask
from nexus.ids import derived_id, new_id
from nexus.registry import registry
from nexus.runs import transitions
from nexus.runs.record import RunError, compact
from nexus.settings import settings


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
        return cls(task, task.to_send(arguments))

    @property
    def queue(self) -> str:
        """The queue that it goes to."""
        return _queue(self.task, None)

    def delay(self) -> "AsyncResult[R]":
        return send(self)

    def to_json(self) -> dict[str, Any]:
        return {"task": self.task.name, "queue": self.queue, "args": dict(self.args), "result_as": self.result_as}


@bounded
def send[R: Result](
    signature: Signature[R],
    *,
    countdown: float | None = None,
    eta: datetime | None = None,
    queue: str | None = None,
    expires: float | datetime | None = None,
    retry: RetryPolicy | None = None,
    task_id: str | uuid.UUID | None = None,
    track: bool = True,
) -> "AsyncResult[R]":
    """Sends one task: its record first, then its message. See `nexus.tasks.Task.apply_async`."""
    task = signature.task
    target = _queue(task, queue)
    now = datetime.fromtimestamp(clock.now(), UTC)
    due = _due(now, countdown, eta)
    run_id = _given_id(task_id) if task_id else new_id() if track else derived_id("untracked", new_id())
    envelope = envelope_of(signature, run_id)
    if expires is not None:
        envelope = envelope.model_copy(update={"expires_at": moment("expires", now, expires)})
    message = Message.of(envelope)
    also: dict[str, Value] = {}
    if retry is not None:
        also["retry"] = compact([retry.max_retries, retry.base, retry.cap, sorted(retry.give_up_on)])
    if due > now:
        # A run that waits is one that somebody asks about: the sparse index lists it.
        since = round(due.timestamp(), 3)
        also |= {"eta": since, "live": transitions.live_key(target, envelope.id), "since": since}
    if not track and also.keys() - {"eta", "live", "since"}:
        raise ValueError("retry= is kept in the run's record, so it needs track=True")
    # With task_id given the record may stand already: then it is the same run, and its message is sent once more.
    with sending(envelope.id):
        written = track and isinstance(
            backend().store.apply(transitions.pending(envelope, target, keep_until(due), **also)), Applied
        )
        try:
            dispatch(target, message, due, now)
        except Exception:
            # Who gave the id sends it again: a record that this try settles late would stop the message of the next.
            if written and task_id is None:
                forget([envelope.id])
            raise
    note_child(envelope.id)
    return AsyncResult(envelope.id, task.result)


@bounded
def send_many(signatures: Sequence[Signature[Any]], *, track: bool = True) -> "list[AsyncResult[Any]]":
    """Sends them in batches of ten messages and 25 records a request.

    What SQS refuses is tried again twice; SendFailed names the runs that were still not taken, by id, and the others
    have been sent. When AWS cannot be reached, the rest is not tried.
    """
    envelopes = [envelope_of(s, new_id() if track else derived_id("untracked", new_id())) for s in signatures]
    messages = [Message.of(envelope) for envelope in envelopes]
    keep = keep_until(datetime.fromtimestamp(clock.now(), UTC))
    by_queue: dict[str, list[Message]] = {}
    writes = []
    for signature, envelope, message in zip(signatures, envelopes, messages, strict=True):
        by_queue.setdefault(signature.queue, []).append(message)
        writes.append(transitions.pending(envelope, signature.queue, keep))
    failures: dict[str, str] = {}
    with sending(*(envelope.id for envelope in envelopes)):
        if track:
            backend().store.apply_all(writes)
        for queue, page in by_queue.items():
            failures |= backend().transport.send(queue, page)
    for envelope in envelopes:
        if envelope.id not in failures:
            note_child(envelope.id)
    if failures:
        if track:
            forget(failures)
        raise SendFailed(failures)
    return [AsyncResult(e.id, s.task.result) for e, s in zip(envelopes, signatures, strict=True)]


asend_many = asynchronous(send_many)
"""`send_many` for a coroutine."""


def dispatch(queue: str, message: Message, due: datetime, now: datetime) -> None:
    """Sends a message now, or so that it comes when it is due. Raises SendFailed."""
    delay = (due - now).total_seconds()
    if delay > MAX_DELAY:
        backend().transport.send_at(queue, message, due)
        return
    failures = backend().transport.send(queue, [replace(message, delay=max(0, round(delay)))])
    if failures:
        raise SendFailed(dict(failures))


@contextmanager
def sending(*run_ids: str) -> Iterator[None]:
    """What botocore raises within the block as an application's errors: no such stack, or these runs were not sent."""
    from botocore.exceptions import BotoCoreError, ClientError

    note(*run_ids)
    try:
        yield
    except (BotoCoreError, ClientError, sdk.Throttled) as error:
        if sdk.is_misconfigured(error):
            raise ConfigurationError(f"AWS cannot be asked: {error}") from error
        if sdk.is_missing(error):
            stack, region = settings().stack, sdk.client("sqs").meta.region_name
            raise ConfigurationError(f"there is no stack {stack} in {region}, or not all of it: {error}") from error
        raise SendFailed(dict.fromkeys(run_ids, str(error))) from error


def forget(run_ids: Iterable[str]) -> None:
    """Settles the records of what was not sent. Those that AWS does not let be settled stay PENDING."""
    from botocore.exceptions import BotoCoreError, ClientError

    sdk.wait.set(None)  # whoever has given up on the send still wants its record settled
    error, now = RunError("SendFailed", "the message was not sent"), clock.moment()
    with suppress(BotoCoreError, ClientError, sdk.Throttled):
        for run_id in run_ids:
            backend().store.apply(transitions.not_sent(run_id, error, now))


def envelope_of(signature: Signature[Any], run_id: str, **also: Any) -> Envelope:
    """The envelope of a run with this id, a child of the run that sends it."""
    sender = current.get()
    parent = also.pop("parent", None) or (sender.run_id if sender else None)
    args = dict(signature.args)
    return Envelope.of(id=run_id, task=signature.task.name, args=args, parent=parent, trace=trace(), **also)


def trace() -> str | None:
    """The X-Ray trace of this invocation."""
    return os.environ.get("_X_AMZN_TRACE_ID")


def note_child(run_id: str) -> None:
    """Notes a run among the children of the one that sends it: the first hundred."""
    sender = current.get()
    if sender is not None and len(sender.children) < 100:
        sender.children.append(run_id)


def _queue(task: TaskDefinition[Any, Any], queue: str | None) -> str:
    """The queue to send to. Raises UnknownTask where it is known here that no function of it serves the task."""
    target = queue if queue is not None else task.queue or registry.queues()[-1]
    if not task.served_by(target) or (task.everywhere and target not in registry.queues()):
        raise UnknownTask(f"{task.name} is not served by queue {target!r}, but by {task.queue or registry.queues()}")
    if not registry.serves(task.name):
        named, stack = ", ".join(settings().catalogue), settings().stack or "in memory"
        raise UnknownTask(f"{task.name} is in no catalogue of this deployment ({stack}, NEXUS_CATALOGUE={named})")
    return target


def _given_id(task_id: str | uuid.UUID) -> str:
    """The id of a run as its sender gave it, in the one form that ids have."""
    try:
        return str(task_id if isinstance(task_id, uuid.UUID) else uuid.UUID(task_id))
    except (ValueError, TypeError, AttributeError):
        raise InvalidMessage("task_id: not a UUID", "task_id: not a UUID") from None


def _due(now: datetime, countdown: float | None, eta: datetime | None) -> datetime:
    if countdown is not None and eta is not None:
        raise ValueError("countdown and eta are two ways to say one thing: give one")
    if eta is not None:
        return moment("eta", now, eta)
    return now if countdown is None else moment("countdown", now, countdown)


def moment(name: str, now: datetime, value: float | datetime) -> datetime:
    """A time that a sender gave, as itself or in seconds from now. Raises ValueError, naming what cannot be one."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{name} is {value!r}: without a time zone it could mean any hour")
        return value
    try:
        return now + timedelta(seconds=value)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} is {value!r}: not a number of seconds, or beyond the year 9999") from None


def keep_until(due: datetime) -> int:
    """The TTL of the record of a run that is due then, in epoch seconds."""
    return transitions.keep_until(max(clock.now(), due.timestamp()))
