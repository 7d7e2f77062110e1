"""A run that waits for others: the segments of a fan-out, the members of a group, the next phase of a job.

The waiting run's record has the number of its members (`total`). Ended members are counted in tally items of a hundred
members each, as two number sets, `done` and `failed`: one conditional update adds a member and refuses it a second
time, so duplicates count once. A full tally is recorded in the waiting run (`chunks_done`, `chunks_failed`), and when
all are full, the run ends. So the waiting run's own item is written once per hundred members, no item exceeds a few
kilobytes, and 10,000 members end without a hot item. A failed member that is sent again and succeeds moves from
`failed` to `done`, and repairs the run.

Every step is idempotent, and each member's message is acknowledged only after its steps: after a crash, redelivery of
the last member's message resumes the remaining steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import batched
from typing import Any

from nexus import clock
from nexus.aws import sdk
from nexus.aws.dynamodb import Condition, equals
from nexus.backend import backend
from nexus.backend.store import Applied, Item, Outcome, Value, Write, numbers
from nexus.backend.transport import Message
from nexus.envelope import Envelope, Segment
from nexus.errors import SendFailed, UnknownTask
from nexus.registry import registry
from nexus.runs import history, locks, payloads, tallies, transitions
from nexus.runs.record import RunError, RunRecord
from nexus.runs.transitions import LEFT_BY_CLAIM, held
from nexus.settings import settings
from nexus.worker import observe

FAILURES_NAMED = 20

NEXT_PHASE_BYTES = 32 * 1024
"""Inline limit of the next phase's arguments. The record may also hold 256 KiB of what follows the run
(`nexus.client.steps`), and its partial result has what room is left."""


def _plan_key(parent: str, phase: int, chunk: int) -> str:
    return f"{parent}/{phase}/plan/{chunk}"


# --- opening ---------------------------------------------------------------------------------------------------


def plan(
    envelope: Envelope,
    token: str,
    segments: Sequence[dict[str, Any]],
    next_phase: dict[str, Any] | None,
    keep_until: int,
) -> Outcome:
    """Records the segments of a claimed run before the first is sent.

    Refused if another sandbox has the run now, or if it has been revoked. Raises InvalidMessage for a next phase that
    could not be sent.
    """
    if next_phase is not None:
        _next_phase(envelope, next_phase)
    pages = enumerate(batched(segments, tallies.CHUNK))
    plans = [
        Write(
            _plan_key(envelope.id, 1, n),
            {"segments": payloads.dump(f"{envelope.id}-plan-{n}", page), "expires": keep_until},
        )
        for n, page in pages
    ]
    tallies.put_all([*plans, *tallies.new_tallies(envelope.id, 1, len(segments), keep_until)])
    values: dict[str, Value] = {"total": len(segments), "phase": 1}
    if next_phase is not None:
        values["next_phase"] = payloads.dump(f"{envelope.id}-next-phase", next_phase, inline=NEXT_PHASE_BYTES)
    if envelope.segment is not None:
        values["member"] = envelope.segment.model_dump_json()
    if envelope.group is not None:
        values["group"] = envelope.group
    return backend().store.apply(Write(envelope.id, values, when=(*held(token), equals("revoke", None))))


def send_plan(envelope: Envelope, token: str, total: int, billed: Callable[[Write], Write]) -> Outcome:
    """Sends the recorded segments, and releases the lease: the run waits for its segments.

    `billed` adds the run's usage to the last write.

    After a crash it sends the same ids again. Raises SendFailed if SQS refuses messages after retries; the run's own
    message is then redelivered.
    """
    store = backend().store
    queue = registry.task(envelope.task).queue
    for chunk in range(tallies.chunks(total)):
        key = _plan_key(envelope.id, 1, chunk)
        messages = []
        for offset, args in enumerate(payloads.load(str(store.get([key])[key]["segments"]))):
            index = chunk * tallies.CHUNK + offset
            segment = Segment(index=index, total=total)
            messages.append(_message(envelope, tallies.member(envelope.id, 1, index), args, segment))
        failures = backend().transport.send(queue, messages)
        if failures:
            raise SendFailed(failures)
    sent = Write(envelope.id, {"waits": True}, remove=(*LEFT_BY_CLAIM, "cursor"), when=held(token))
    return store.apply(billed(sent))


def _message(parent: Envelope, run_id: str, args: dict[str, Any], segment: Segment) -> Message:
    inherited = {"task": parent.task, "parent": parent.id, "trace": parent.trace, "group": parent.group}
    return Message.of(Envelope.of(id=run_id, args=args, segment=segment, **inherited))


def _next_phase(parent: Envelope, args: dict[str, Any]) -> Message:
    segment = Segment(index=0, total=1, phase=2, kind="phase")
    return _message(parent, tallies.member(parent.id, 2, 0), args, segment)


# --- ending ----------------------------------------------------------------------------------------------------


def settle_member(envelope: Envelope, succeeded: bool) -> None:
    """Counts a run that has ended into the run that waits for it, and ends that run if it was the last."""
    segment, parent = envelope.segment, envelope.parent
    if segment is None or parent is None or not tallies.is_member(envelope):
        return
    chunk, store = segment.index // tallies.CHUNK, backend().store
    key = tallies.tally(parent, segment.phase, chunk)
    index, one = segment.index, frozenset({segment.index})
    uncounted = (Condition("size", "exists"), Condition("done", "lacks", index))
    if succeeded:
        outcome = store.apply(Write(key, add={"done": one}, discard={"failed": one}, when=uncounted))
    else:
        outcome = store.apply(Write(key, add={"failed": one}, when=(*uncounted, Condition("failed", "lacks", index))))
    tally = outcome.item
    if tally is None:
        _lost(parent, segment)
        return
    kept = int(str(tally["expires"]))
    if kept - transitions.keep_until() > transitions.kept_seconds() / 2:
        # Another member is due so much later that this one's result would have expired by then.
        store.apply(transitions.kept(envelope.id, kept))
    done, failed = numbers(tally, "done"), numbers(tally, "failed")
    if len(done) + len(failed) < int(str(tally["size"])):
        return
    # `waits` is not tested: the last segment may end before its planner has released the lease.
    this, phase = frozenset({chunk}), equals("phase", segment.phase)
    if failed:  # not if this comes late: a failed member that was sent again and succeeded has completed the tally
        note = Write(parent, add={"chunks_failed": this}, when=(phase, Condition("chunks_done", "lacks", chunk)))
    else:
        note = Write(parent, add={"chunks_done": this}, discard={"chunks_failed": this}, when=(phase,))
    noted = store.apply(note)
    if noted.item is None:
        observe.not_counted(parent, segment)
        return
    if isinstance(noted, Applied):
        _end_if_complete(noted.item)
    elif RunRecord.of(noted.item).phase == segment.phase + 1:
        _send_next_phase(noted.item)


def outlive(envelope: Envelope, item: Item, due: float) -> None:
    """Keeps what a run's end needs, if the run waits until `due` and others wait for it: its parent, the parent's
    tallies and the members that have ended, and those of the parent's parent.

    A request for each parent. The writes, one per member and per hundred of them, are made only if less than three
    quarters of the time for which records are kept would be left when the run is due.
    """
    keep, store = transitions.keep_until(due), backend().store
    member: Envelope | None = _ends_in(envelope.id, item) or envelope
    while member is not None and tallies.is_member(member):
        parent = str(member.parent)
        waiting = store.get([parent]).get(parent)
        if waiting is None:
            return
        record = RunRecord.of(waiting)
        if keep - int(str(waiting["expires"])) > transitions.kept_seconds() / 4:
            # Tallies first: a member that ends meanwhile is kept as long as its tally. The parent last: its
            # expiry shows that all were extended, so after a crash the redelivered message completes the rest.
            counts = [tallies.tally(parent, record.phase, chunk) for chunk in range(tallies.chunks(record.total))]
            for keys in (counts, tallies.children(record), [parent]):
                store.apply_all([transitions.kept(key, keep) for key in keys])
        member = _ends_in(parent, waiting) or _waits_for(waiting)


def _ends_in(run_id: str, item: Item) -> Envelope | None:
    """The last of the runs that follow this one: the one that a group counts."""
    if "then" not in item:
        return None
    from nexus.client.steps import load, place  # imported here as in `follow_up`

    return place(load(str(item["then"]), run_id)[-1])


def _lost(parent: str, segment: Segment) -> None:
    """A member has ended, but its tally has expired. If the run still waits for it, fails that run, since no member can
    complete it any more.
    """
    item = backend().store.get([parent]).get(parent)
    if item is None:
        observe.not_counted(parent, segment)
        return
    record = RunRecord.of(item)
    if record.status == "STARTED" and record.phase == segment.phase:
        waited = f"member {segment.index} ended when its place in the count had expired"
        _fail(item, RunError.own("TallyExpired", f"{waited}: such records are kept for {settings().run_days} days"))


def _end_if_complete(item: Item) -> None:
    record = RunRecord.of(item)
    if len(record.chunks_done | record.chunks_failed) < tallies.chunks(record.total):
        return
    if record.status in ("SUCCESS", "REVOKED"):
        if record.status == "SUCCESS":
            _after_success(item)
        else:
            _release(record)  # the process that revoked it may have died before doing this
            after_revoked(item)
        return
    if record.chunks_failed:
        _fail(item, _failures(record))
    elif "next_phase" in item and record.phase == 1:
        _advance(item)
    else:
        _succeed(item)


def _failures(record: RunRecord) -> RunError:
    counted = backend().store.get(
        [tallies.tally(record.id, record.phase, chunk) for chunk in sorted(record.chunks_failed)]
    )
    failed = sorted(index for item in counted.values() for index in numbers(item, "failed"))
    named = ", ".join(map(str, failed[:FAILURES_NAMED])) + (", ..." if len(failed) > FAILURES_NAMED else "")
    first = tallies.member(record.id, record.phase, failed[0])
    one = RunRecord.of(backend().store.get([first]).get(first, {}))
    # A member that was revoked before it began may have a record without its task.
    reason = f" ({one.task or 'member'} {first} is {one.status}: {one.error})" if one.error else ""
    what = f"{len(failed)} of {record.total} failed: {named}"
    return RunError("SegmentsFailed", what + reason, fault=what)


def _fail(item: Item, error: RunError) -> None:
    record = RunRecord.of(item)
    # `waits`: its planner may have died after the last send, and only its members can complete it now.
    values = {**transitions.failure(record.id, error, clock.moment()), "waits": True}
    when = (equals("status", record.status), equals("phase", record.phase))
    outcome = backend().store.apply(Write(record.id, values, remove=LEFT_BY_CLAIM, when=when))
    if not isinstance(outcome, Applied):
        # In the meantime the failed part was sent again and succeeded, or the run was revoked.
        if outcome.item is not None:
            _end_if_complete(outcome.item)
        return
    observe.waiting_run_ended(record, "failure", error)
    follow_up(record.id, {**item, **values}, succeeded=False)
    _release(record)
    if waiting := _waits_for(item):
        settle_member(waiting, succeeded=False)


def _succeed(item: Item) -> None:
    record = RunRecord.of(item)

    def kept(combined: Any) -> tuple[str, str | None]:
        shortfall = _shortfall(record, combined)
        return payloads.dump(record.id, combined, inline=payloads.room(item)), shortfall

    reduced = _reduced(item, kept)
    if reduced is None:
        return
    text, shortfall = reduced
    values: dict[str, Value] = {"status": "SUCCESS", "result": text, "ended_at": clock.moment()}
    # The run may have failed before: a failed part that is sent again and succeeds turns it into a success.
    values["history"] = history.of_task(record.task, record.id, item.get("argument"))
    if record.status == "FAILURE":
        values["restarted"] = True
    when = (equals("status", record.status), equals("phase", record.phase))
    removed = (*LEFT_BY_CLAIM, "error", "why", "next_phase", "partial")
    outcome = backend().store.apply(Write(record.id, values, remove=removed, when=when))
    if isinstance(outcome, Applied):
        observe.waiting_run_ended(record, "success", shortfall=shortfall)
        _after_success(outcome.item)
    elif outcome.item is not None:
        # Another sandbox has ended it, has failed it by a state that it read before the last part succeeded, or it was
        # revoked.
        _end_if_complete(outcome.item)


def _shortfall(record: RunRecord, combined: Any) -> str | None:
    if record.task == tallies.GROUP:
        return None
    shortfall: str | None = registry.task(record.task).result.model_validate_json(combined).shortfall
    return shortfall


def _reduced[T](item: Item, keep: Callable[[Any], T]) -> T | None:
    """What `keep` makes of the members' reduced results.

    None: the run has failed, because they could not be reduced. Raises UnknownTask if this deployment lacks the task,
    and what AWS raises: the member's message is redelivered.
    """
    record = RunRecord.of(item)
    if record.task != tallies.GROUP:
        registry.task(record.task)
    try:
        return keep(_combined(item))
    except Exception as error:
        if sdk.is_of_aws(error) or isinstance(error, UnknownTask):
            raise
        # Any other exception from a task's reducer is that run's failure, with its reason.
        reason = RunError.of(error)
        _fail(item, replace(reason, message=f"while reducing the results: {reason.message}"))
        return None


def _combined(item: Item) -> Any:
    """Combines the members' results: a list for a group, the task's reducer for a fan-out."""
    record = RunRecord.of(item)
    values = _results(record)
    if record.task == tallies.GROUP:
        return values
    joined = registry.implementation(record.task)
    parts = [joined.task.result.model_validate(value) for value in values]
    if "partial" in item:
        parts = [joined.task.result.model_validate(payloads.load(str(item["partial"]))), *parts]
    return joined.task.result_to_keep(joined.reduced(parts))


def _results(record: RunRecord, *, failed_too: bool = False) -> list[Any]:
    """The members' results, in order; None for those that failed, if requested."""
    values: list[Any] = []
    for page in batched(tallies.children(record), tallies.CHUNK):
        members = backend().store.get(page)
        for run_id in page:
            ended_well = not failed_too or members.get(run_id, {}).get("status") == "SUCCESS"
            values.append(payloads.load(str(members[run_id]["result"])) if ended_well else None)
    return values


def _advance(item: Item) -> None:
    """Starts the next phase once all segments are done: one run of the same task, which may fan out itself."""
    record = RunRecord.of(item)
    inline = payloads.room(item) - len(str(item.get("next_phase", "")).encode())
    partial = _reduced(item, lambda combined: payloads.dump(f"{record.id}-partial", combined, inline=inline))
    if partial is None:
        return
    keep = transitions.keep_until()
    tallies.put_all(tallies.new_tallies(record.id, 2, 1, keep))
    values: dict[str, Value] = {"phase": 2, "total": 1, "waits": True, "partial": partial, "expires": keep}
    # Its planner may have died after the last message: all segments have ended, so there is nothing left to send.
    removed = (*LEFT_BY_CLAIM, "chunks_done", "chunks_failed")
    when = (equals("status", record.status), equals("phase", 1))
    outcome = backend().store.apply(Write(record.id, values, remove=removed, when=when))
    if outcome.item is None:
        return
    if RunRecord.of(outcome.item).phase == record.phase:
        _end_if_complete(outcome.item)  # as in `_succeed`
    else:
        _send_next_phase(outcome.item)


def _send_next_phase(item: Item) -> None:
    if "next_phase" not in item:
        return  # A late duplicate: the next phase has already ended the run.
    record = RunRecord.of(item)
    args: dict[str, Any] = payloads.load(str(item["next_phase"]))
    message = _next_phase(Envelope.of(id=record.id, task=record.task, group=item.get("group")), args)
    failures = backend().transport.send(registry.task(record.task).queue, [message])
    if failures:
        raise SendFailed(failures)


def _after_success(item: Item) -> None:
    record = RunRecord.of(item)
    _release(record)
    follow_up(record.id, item, succeeded=True)
    if waiting := _waits_for(item):
        settle_member(waiting, succeeded=True)


def follow_up(run_id: str, item: Item, *, succeeded: bool) -> None:
    """Sends the next step in the record, a chain's next link or a chord's body, or ends it unsent."""
    if "then" not in item and "on_error" not in item:
        return
    # Imported here: most runs have no next step, and a function that needs no client starts without it.
    from nexus.client.following import fail_next, send_next
    from nexus.client.steps import Failure, load

    record = RunRecord.of(item)
    steps = load(str(item.get("then", "[]")), run_id)
    ended: list[Envelope] = []
    if succeeded:
        if "on_error" in item and "restarted" in item:
            _retract(load(str(item["on_error"]), run_id)[0].id, f"{record.task} {run_id} has succeeded")
        if steps:
            ended = send_next(run_id, steps, payloads.taken(str(item["result"])))
    else:
        failure = Failure.of(record)
        if "on_error" in item and record.status == "FAILURE":
            send_next(run_id, load(str(item["on_error"]), run_id), failure.model_dump())
        if steps and steps[0].always and record.task == tallies.GROUP:
            ended = send_next(run_id, steps, _results(record, failed_too=True))
        elif steps:
            error = RunError("UpstreamFailed", f"{record.task} {run_id} is {record.status}: {record.error}")
            ended = fail_next(run_id, steps, error, failure)
    for member in ended:
        settle_member(member, succeeded=False)


def _retract(callback: str, reason: str) -> None:
    """Revokes an error callback that has not begun: the process that should have sent it may have died."""
    from nexus.client.handles import AsyncResult

    handle = AsyncResult[Any](callback)
    if handle.status == "PENDING":
        handle.revoke(reason)


def after_revoked(item: Item) -> None:
    """Performs what follows from the revocation of a waiting run, if its members will not end it."""
    follow_up(str(item["id"]), item, succeeded=False)
    if waiting := _waits_for(item):
        settle_member(waiting, succeeded=False)


def _release(record: RunRecord) -> None:
    if record.place:
        locks.release(record.place, record.id, record.started_at)


def _waits_for(item: Item) -> Envelope | None:
    """For a waiting run that is itself a member: the envelope by which its own parent counts it."""
    if "member" not in item:
        return None
    record = RunRecord.of(item)
    segment = Segment.model_validate_json(str(item["member"]))
    return Envelope(id=record.id, task=record.task, parent=record.parent, segment=segment)
