"""Runs that depend on each other: groups, chains and chords."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from nexus import clock
from nexus.aws.dynamodb import equals
from nexus.backend import backend
from nexus.backend.store import Applied, Value, Write
from nexus.backend.transport import Message
from nexus.client.bounded import asynchronous, bounded
from nexus.client.handles import AsyncResult
from nexus.client.sending import Signature, dispatch, envelope_of, forget, keep_until, note_child, sending, trace
from nexus.definitions import Result, TaskDefinition
from nexus.envelope import Envelope, Segment
from nexus.errors import InvalidMessage, SendFailed, UnknownTask
from nexus.ids import derived_id, new_id
from nexus.registry import registry
from nexus.runs import tallies, transitions
from nexus.runs.record import RunError, RunRecord, compact

if TYPE_CHECKING:
    from nexus.tasks import Task

CHAIN_LIMIT = 12
"""Links of a chain: Lambda ends a loop of about 16 invocations through SQS, and a link may be retried by nobody."""


@dataclass(frozen=True, slots=True)
class ResultOf:
    """Stands for a result that is not there yet."""

    task: str


def result_of[R: Result](task: TaskDefinition[Any, R]) -> R:
    """In `then(...)`, the result of the link before, which is this task. To a type checker it is that result."""
    return cast(R, ResultOf(task.name))


def results_of[R: Result](task: TaskDefinition[Any, R]) -> Sequence[R]:
    """In `then(...)`, the results of a chord's members, which are runs of this task, in order."""
    return cast(Sequence[R], ResultOf(task.name))


def then[R: Result, **P](task: "Task[Any, R, P]", /, *positional: P.args, **arguments: P.kwargs) -> Signature[R]:
    """A link of a chain or the callback of a chord that takes what came before as an argument.

        chain(count.s(user_id="7"), then(tell_staff, counts=result_of(count), to="ops"))

    Its arguments are checked when it runs, since they are not complete before. Raises InvalidMessage for one that the
    task does not have, TypeError unless exactly one of them is `result_of(...)` or `results_of(...)`.
    """
    for name in arguments:
        if name not in task.arguments.model_fields:
            raise InvalidMessage(f"{task.name}: {name}: no such argument")
    waiting = [name for name, value in arguments.items() if isinstance(value, ResultOf)]
    if positional or len(waiting) != 1:
        raise TypeError(f"{task.name}: write then({task.name}, argument=result_of(the_task_before), ...)")
    given = {name: value for name, value in arguments.items() if name not in waiting}
    return Signature(task, given, waiting[0])


def _may_follow(before: Signature[Any], after: Signature[Any]) -> None:
    """The function that ends a link sends the next one, with its own role. Raises InvalidMessage where it may not."""
    if after.task.secret:
        raise InvalidMessage(f"{after.task.name} has secret arguments: what follows is written down until it is sent")
    if after.queue not in (before.queue, *before.task.sends_to):
        raise InvalidMessage(
            f"{before.task.name}: {after.task.name} cannot follow it: the function of {before.queue} may not send to "
            f"{after.queue}. Name that in the task's sends_to, and let its role (template.yaml)"
        )


@bounded
def group(signatures: Sequence[Signature[Any]], callback: Signature[Any] | None = None) -> "AsyncResult[Any]":
    """Sends them all at once; the handle's result is the list of their results, in order.

    With a `callback` this is a chord: when all have succeeded it is sent, with the list as its `result_as` argument. A
    member that fails makes the group FAILURE; its dead letter sent again and then well mends it.
    """
    if not 1 <= len(signatures) <= tallies.LIMIT:
        raise ValueError(f"a group of {len(signatures)}: 1 to {tallies.LIMIT}")
    if callback is not None:
        for member in signatures:
            _may_follow(member, callback)
    group_id = new_id()
    total = len(signatures)
    keep = keep_until(datetime.fromtimestamp(clock.now(), UTC))
    envelopes = [
        envelope_of(s, derived_id(group_id, 1, i), parent=group_id, segment=Segment(index=i, total=total, kind="group"))
        for i, s in enumerate(signatures)
    ]
    messages: dict[str, list[Message]] = {}
    for signature, envelope in zip(signatures, envelopes, strict=True):
        messages.setdefault(signature.queue, []).append(Message.of(envelope))
    also: dict[str, Value] = {"then": compact([callback.to_json()])} if callback else {}
    failures: dict[str, str] = {}
    with sending(*(envelope.id for envelope in envelopes)):
        tallies.open_group(group_id, total, keep, **also)
        if callback is not None:
            later = Envelope(id=next_id(group_id), task=callback.task.name, args=dict(callback.args))
            backend().store.apply(transitions.pending(later, callback.queue, keep))
        for queue, page in messages.items():
            failures |= backend().transport.send(queue, page)
    note_child(group_id)
    if failures:
        raise SendFailed(failures)
    return AsyncResult(group_id, None)


@bounded
def chord(signatures: Sequence[Signature[Any]], callback: Signature[Any]) -> "AsyncResult[Any]":
    """A group and what comes after it; the handle is the callback's."""
    handle = group(signatures, callback)
    return AsyncResult(next_id(handle.id), callback.task.result)


@bounded
def chain(*links: Signature[Any]) -> "AsyncResult[Any]":
    """Sends the first; each that succeeds sends the next, with its result where that asks for it (`then`).

    The handle is the last link's. A link that fails ends the chain: the links after it are FAILURE too. Its dead letter
    sent again goes on with it.
    At most 12 links: longer chains through one function look like a loop to Lambda and are dropped.
    """
    if not 1 <= len(links) <= CHAIN_LIMIT:
        raise ValueError(f"a chain of {len(links)} links: 1 to {CHAIN_LIMIT}")
    for before, after in pairwise(links):
        _may_follow(before, after)
    run_id = first = new_id()
    rest = [link.to_json() for link in links[1:]]
    envelope = envelope_of(links[0], first)
    keep = keep_until(datetime.fromtimestamp(clock.now(), UTC))
    also: dict[str, Value] = {"then": compact(rest)} if rest else {}
    store = backend().store
    with sending(first):
        store.apply(transitions.pending(envelope, links[0].queue, keep, **also))
        for link in links[1:]:
            run_id = next_id(run_id)
            later = Envelope(id=run_id, task=link.task.name, args=dict(link.args))
            store.apply(transitions.pending(later, link.queue, keep))
        try:
            dispatch(links[0].queue, Message.of(envelope), *(datetime.fromtimestamp(clock.now(), UTC),) * 2)
        except Exception:
            forget([first])
            raise
    note_child(first)
    return AsyncResult(run_id, links[-1].task.result)


def next_id(run_id: str) -> str:
    """The id of what follows a run: a chain's next link, a chord's callback. Sent twice, it is one run."""
    return derived_id(run_id, "then")


def send_next(run_id: str, links: Sequence[Mapping[str, Any]], result: Any) -> None:
    """Sends what follows a run that has succeeded. `links` is its record's `then`.

    What cannot be sent for good (its arguments are too large) becomes that run's FAILURE.
    """
    link, rest = links[0], links[1:]
    following = next_id(run_id)
    args = dict(link["args"])
    if link.get("result_as"):
        args[link["result_as"]] = result
    try:
        # By the queue's name: a task that the catalogue has lost meanwhile ends among that queue's dead letters.
        queue = link.get("queue") or registry.task(link["task"]).queue
        envelope = Envelope.of(id=following, task=link["task"], args=args, parent=run_id, trace=trace())
        message = Message.of(envelope)
    except (InvalidMessage, UnknownTask) as error:
        fail_next(run_id, links, RunError.of(error))
        return
    also: dict[str, Value] = {"then": compact(rest)} if rest else {}
    store = backend().store
    now = datetime.fromtimestamp(clock.now(), UTC)
    written = store.apply(transitions.pending(envelope, queue, keep_until(now), **also))
    standing = RunRecord.of(written.item or {})
    if not isinstance(written, Applied):
        if standing.status == "REVOKED":
            fail_next(following, rest, RunError("UpstreamFailed", f"{standing.task} {following} is REVOKED"))
            return
        if standing.status == "FAILURE":
            store.apply(transitions.unblocked(following, **also))
        elif rest:
            store.apply(Write(following, set=also, when=(equals("status", "PENDING"),)))
    dispatch(queue, message, now, now)


def fail_next(run_id: str, links: Sequence[Mapping[str, Any]], error: RunError) -> None:
    """Ends what follows a run that has failed, so that no handle waits for what will not come."""
    now = clock.moment()
    keep = transitions.keep_until()
    for link in links:
        run_id = next_id(run_id)
        envelope = Envelope(id=run_id, task=link["task"], args=dict(link["args"]))
        task = registry.known(link["task"])
        queue = str(link.get("queue") or (task.queue if task else ""))
        for recorded in (True, False):
            write = transitions.blocked(envelope, queue, error, now, keep, recorded=recorded)
            if isinstance(backend().store.apply(write), Applied):
                break


agroup, achain, achord = asynchronous(group), asynchronous(chain), asynchronous(chord)
"""The same for a coroutine: `await agroup([...])`."""
