"""Starting the steps of a canvas: the client starts the first; the invocation that ends a run starts what follows.

Every function here is idempotent: after a crash, any sandbox may call it again. The ids are then the same, and steps
that were already taken are refused.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nexus import clock
from nexus.aws import sdk
from nexus.aws.dynamodb import Condition, equals
from nexus.aws.table import in_threads
from nexus.backend import backend
from nexus.backend.store import Applied, Item, Outcome, Refused, Value, Write
from nexus.backend.transport import MAX_DELAY, Message
from nexus.client.steps import Failure, GroupStep, Step, Steps, TaskStep, dump, latest, place
from nexus.envelope import Envelope, TooLarge
from nexus.errors import InvalidMessage, SendFailed
from nexus.runs import history, payloads, tallies, transitions
from nexus.runs.record import RunError, RunRecord
from nexus.runs.tallies import GROUP
from nexus.values import compact


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run that is about to be sent. `record` has the record's fields beyond those that every record has."""

    step: TaskStep
    rest: Steps
    envelope: Envelope
    message: Message
    due: float
    record: dict[str, Value]

    @property
    def keep_until(self) -> int:
        """The TTL of the run's record."""
        return transitions.keep_until(max(clock.now(), self.due))

    @property
    def pending(self) -> Write:
        """The run's record."""
        return transitions.pending(self.envelope, self.step.queue, self.keep_until, **self.record)


@dataclass(frozen=True, slots=True)
class PreparedGroup:
    """A group that is about to begin."""

    step: GroupStep
    rest: Steps
    record: dict[str, Value]
    members: "PreparedSteps"


@dataclass(frozen=True, slots=True)
class PreparedSteps:
    """The first steps of some sequences, complete and checked; nothing is written or sent yet."""

    runs: Sequence[PreparedRun]
    groups: Sequence[PreparedGroup]

    @classmethod
    def of(cls, sequences: Sequence[Steps], parent: str | None, result: Any = None) -> "PreparedSteps":
        """`parent` is the run that they follow, `result` its result. Raises InvalidMessage if a step cannot be sent."""
        runs, groups = [], []
        for steps in sequences:
            first, rest = steps[0], steps[1:]
            if isinstance(first, TaskStep):
                runs.append(_prepared_run(first, rest, parent, result))
            else:
                members = cls.of(first.members, first.id, result)
                groups.append(PreparedGroup(first, rest, _record(first, rest), members))
        return cls(runs, groups)

    def all_runs(self) -> Iterator[PreparedRun]:
        """All runs, those of the groups included."""
        yield from self.runs
        for group in self.groups:
            yield from group.members.all_runs()


def _prepared_run(step: TaskStep, rest: Steps, parent: str | None, result: Any) -> PreparedRun:
    now = clock.now()
    due = now + step.countdown if step.eta is None else step.eta
    expires = step.expires_at if step.expires_in is None else now + step.expires_in
    taken = {step.result_as: result} if step.result_as else {}
    pointers = {name: value.where for name, value in taken.items() if isinstance(value, payloads.Pointer)}
    envelope = Envelope.of(
        id=step.id,
        task=step.task,
        args=dict(step.args) if pointers else {**step.args, **taken},
        refs=pointers or None,
        parent=step.parent or parent,
        segment=step.segment,
        expires_at=None if expires is None else clock.date(expires),
        group=step.group,
        trace=trace(),
    )
    record = _record(step, rest)
    if step.retry:
        record["retry"] = step.retry
    if due > now:
        # The sparse index lists waiting runs, so that an operator can find them.
        since = round(due, 3)
        record |= {"eta": since, "live": transitions.live_key(step.queue, step.id), "since": since}
    try:
        message = Message.of(envelope)
        if due > now + MAX_DELAY:
            message.check_scheduled(step.task)
    except TooLarge:
        if not step.result_as or pointers:
            raise
        # The result fits into its record, but not into a message next to the other arguments.
        pointer = payloads.Pointer(payloads.dump(step.id, compact(result), inline=0))
        return _prepared_run(step, rest, parent, pointer)
    return PreparedRun(step, rest, envelope, message, due, record)


def _record(step: Step, rest: Steps) -> dict[str, Value]:
    record: dict[str, Value] = {}
    if rest:
        record["then"] = dump(rest)
    if step.on_error:
        record["on_error"] = dump(step.on_error, beside=str(record.get("then", "")))
    return record


def trace() -> str | None:
    """The X-Ray trace header of this invocation."""
    return os.environ.get("_X_AMZN_TRACE_ID")


# --- what follows a run ----------------------------------------------------------------------------------------------


def send_next(run_id: str, steps: Steps, result: Any) -> list[Envelope]:
    """Sends what follows a run. Returns the group members that this ends without sending, for their groups to count.

    A step that can never be sent (its arguments are too large) becomes FAILURE.
    """
    first, rest = steps[0], steps[1:]
    try:
        prepared = PreparedSteps.of([steps], run_id, result)
    except InvalidMessage as error:
        reason = RunError.of(error)
        failure = Failure(id=first.id, task=first.name, type=reason.type, message=reason.message)
        return fail_next(run_id, [replace(first, always=False), *rest], reason, failure)
    return begin(prepared)


def begin(prepared: PreparedSteps) -> list[Envelope]:
    """Records and sends what follows a run, unless it has already been sent. Raises SendFailed."""
    ended: list[Envelope] = []
    for group in prepared.groups:
        status = open_group(group)
        if status == "STARTED":
            ended += begin(group.members)
        elif status == "REVOKED":
            ended += _after_revoked(group.step, group.rest)
    due, writes = [], [run.pending for run in prepared.runs]
    store = backend().store
    outcomes = store.apply_all(writes)
    # A refused single write returns the existing item; a batch write does not.
    unseen = [str(w.key) for w, o in zip(writes, outcomes, strict=True) if isinstance(o, Refused) and o.item is None]
    existing = store.get(unseen)
    for run, outcome in zip(prepared.runs, outcomes, strict=True):
        status = _status(run, outcome, existing)
        if status == "PENDING":
            due.append(run)
        elif status == "REVOKED":
            ended += _after_revoked(run.step, run.rest)
    send_all(due)
    return ended


def _status(run: PreparedRun, outcome: Outcome, existing: Mapping[str, Item]) -> str:
    """The status of a recorded run, made PENDING if it was waiting for its predecessor. Its message is sent then."""
    run_id, store = run.envelope.id, backend().store
    if isinstance(outcome, Applied):
        return "PENDING"
    status = RunRecord.of(outcome.item or existing.get(run_id, {})).status
    if status == "FAILURE":
        outcome = store.apply(transitions.unblocked(run_id, **run.record, expires=run.keep_until))
    elif status == "PENDING" and run.record:
        values = {**run.record, "expires": run.keep_until}
        outcome = store.apply(Write(run_id, set=values, when=(equals("status", "PENDING"),)))
    else:
        return status
    return RunRecord.of(outcome.item or {}).status


def _after_revoked(step: Step, rest: Steps) -> list[Envelope]:
    if not rest:
        return [place(step)]
    error = RunError("Revoked", "revoked before it started")
    failure = Failure(id=step.id, task=step.name, type=error.type, message=error.message)
    return fail_next(step.id, rest, RunError("UpstreamFailed", f"{step.name} {step.id} is REVOKED"), failure)


def fail_next(run_id: str, steps: Steps, error: RunError, failure: Failure) -> list[Envelope]:
    """Ends what follows a failed run, so that no handle waits forever; `failure` is the cause.

    A step that is to run `always` proceeds anyway, but not within a group that ends: as its tallies do not exist, the
    step could not be counted if the group begins after all. Returns the group members that this ends.
    """
    first = next((n for n, step in enumerate(steps) if step.always), len(steps))
    ended, rest = steps[:first], steps[first:]
    whole = list(_with_members(ended))
    for step, outcome in zip(whole, _block(whole, error), strict=True):
        if step.on_error and (outcome.item or {}).get("blocked"):
            send_next(step.id, step.on_error, failure.model_dump())
    before = ended[-1] if ended else None
    if rest:
        nothing = [None] * len(before.members) if isinstance(before, GroupStep) else None
        return send_next(before.id if before else run_id, rest, nothing)
    return [place(before)] if before else []


def _with_members(steps: Steps) -> Iterator[Step]:
    """The steps, and those within their groups."""
    for step in steps:
        yield step
        if isinstance(step, GroupStep):
            for member in step.members:
                yield from _with_members(member)


def _block(steps: Steps, error: RunError) -> list[Outcome]:
    """Marks the steps as blocked, whether each has a record or not."""
    store, now, keep = backend().store, clock.moment(), transitions.keep_until()
    outcomes = store.apply_all([_blocked(step, error, now, keep, recorded=False) for step in steps])
    refused = [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, Applied)]
    again = store.apply_all([_blocked(steps[n], error, now, keep, recorded=True) for n in refused])
    for n, outcome in zip(refused, again, strict=True):
        outcomes[n] = outcome
    return outcomes


def _blocked(step: Step, error: RunError, now: float, keep: int, *, recorded: bool) -> Write:
    args = dict(step.args) if isinstance(step, TaskStep) else {}
    envelope = Envelope(id=step.id, task=step.name, args=args, parent=step.parent)
    queue = step.queue if isinstance(step, TaskStep) else ""
    write = transitions.blocked(envelope, queue, error, now, keep, recorded=recorded)
    return replace(write, set={**write.set, **group_values(step)}) if isinstance(step, GroupStep) else write


# --- groups ----------------------------------------------------------------------------------------------------------


def group_values(step: GroupStep, parent: str | None = None) -> dict[str, Value]:
    """The fields of a group's record, whether it has begun or not."""
    values: dict[str, Value] = {"task": GROUP, "sent_at": clock.moment(), "total": len(step.members), "phase": 1}
    if step.parent or parent:
        values["parent"] = step.parent or parent
    if step.earlier:
        values["earlier"] = compact(step.earlier)
    if step.segment:
        values["member"] = step.segment.model_dump_json()
    return values


def open_group(group: PreparedGroup) -> str:
    """Begins a group: its tallies, then its record. Returns its status; its members are sent while it is STARTED.

    Both are kept as long as the record of the member that is due last.
    """
    step, store = group.step, backend().store
    keep = transitions.keep_until(latest([step], clock.now()))
    tallies.put_all(tallies.new_tallies(step.id, 1, len(step.members), keep))
    values = group_values(step) | group.record
    values |= {"status": "STARTED", "started_at": clock.moment(), "waits": True, "expires": keep}
    values["history"] = history.of_task(GROUP, step.id, None)  # a PENDING or given-up group is in another partition
    outcome = store.apply(Write(step.id, set=values, insert=True))
    existing = RunRecord.of(outcome.item or {})
    if not isinstance(outcome, Applied) and existing.status in ("PENDING", "FAILURE"):
        # Recorded when its canvas was sent, and possibly given up since.
        waits = (Condition("blocked", "exists"),) if existing.status == "FAILURE" else ()
        when = (equals("status", existing.status), *waits)
        outcome = store.apply(Write(step.id, set=values, remove=transitions.LEFT_BY_FAILURE, when=when))
    return RunRecord.of(outcome.item or {}).status


# --- messages --------------------------------------------------------------------------------------------------------


def send_all(runs: Sequence[PreparedRun]) -> None:
    """Sends the messages, each to arrive when due. Raises SendFailed, which names the runs that were not accepted.

    If none was, because the deployment or the credentials are missing, raises AWS's error.
    """
    now = clock.now()
    scheduled: list[PreparedRun] = []
    pages: dict[str, list[Message]] = {}
    for run in runs:
        delay = run.due - now
        if delay > MAX_DELAY:
            scheduled.append(run)
        else:
            message = replace(run.message, delay=round(delay)) if delay > 0 else run.message
            pages.setdefault(run.step.queue, []).append(message)
    reasons: dict[str, Exception | str] = {**_schedule(scheduled)}
    for queue, page in pages.items():
        try:
            refused = backend().transport.send(queue, page)
        except Exception as error:
            if not sdk.is_of_aws(error):
                raise
            refused = {message.id: error for message in page}
        reasons |= refused
    errors = [reason for reason in reasons.values() if isinstance(reason, Exception)]
    incomplete = [error for error in errors if sdk.is_missing(error) or sdk.is_misconfigured(error)]
    if incomplete and len(reasons) == len(runs):
        raise incomplete[0]
    if reasons:
        away = any(map(sdk.is_outage, errors))
        raise SendFailed(reasons, away=away)


def _schedule(runs: Sequence[PreparedRun]) -> Mapping[str, Exception]:
    """Has each message sent when it is due. Returns the reason for each run for which that failed.

    The first failure ends it: the SDK has already retried, so the rest would only take as long to fail.
    """
    refused: dict[str, Exception] = {}
    failures: list[Exception] = []

    def schedule(run: PreparedRun) -> None:
        if failures:
            refused[run.envelope.id] = failures[0]
            return
        try:
            backend().transport.send_at(run.step.queue, run.message, clock.date(run.due))
        except Exception as error:
            if not sdk.is_of_aws(error):
                raise
            failures.append(error)
            refused[run.envelope.id] = error

    for _ in in_threads(schedule, runs, sdk.threads()):
        pass
    return refused
