"""The rules by which a run record moves from one status to the next.

The rules are pure: each examines the known state of a record and returns the conditional write that makes the move,
conditional on exactly that state. If the item has changed, DynamoDB refuses and returns it, and the rule is evaluated
again. So no interleaving of duplicates, crashes and revocations can make a move that the rules do not allow.

    PENDING --claim--> STARTED --settle--> SUCCESS | FAILURE | RETRY | REVOKED
       RETRY --claim--> STARTED            FAILURE --send again--> PENDING
                                           FAILURE --claim (SQS's own redrive)--> STARTED
       STARTED with an expired lease --claim--> STARTED, one attempt more
"""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from nexus import clock
from nexus.aws.dynamodb import Condition, equals
from nexus.backend.store import Item, Value, Write
from nexus.envelope import Envelope
from nexus.registry import registry
from nexus.runs import history
from nexus.runs.record import RunError, RunRecord, clean, error_text
from nexus.settings import settings
from nexus.values import compact

MAX_CONTINUED = 10
EARLY = 2.0
"""Seconds by which a message may be early, due to clock differences between machines and SQS's whole seconds."""

ARGUMENTS_SHOWN = 2048
PROGRESS_BYTES = 8192
SHARDS = "0123456789abcdef"


class Claim(NamedTuple):
    """A claim's parameters: the claimant (`token`), until when (`lease_until`), on which queue."""

    token: str
    queue: str
    now: float
    lease_until: float
    keep_until: int
    shared: bool = False
    """Others are claimed in the same request: if the sandbox dies, any of them may be the cause."""

    listed: bool = False
    """List it among the live runs at once, because no message is redelivered if its sandbox dies."""


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Nothing to run: the run already has this status."""

    record: RunRecord


@dataclass(frozen=True, slots=True)
class Busy:
    """Another sandbox holds a live lease until then: leave the message for later."""

    until: float


@dataclass(frozen=True, slots=True)
class Early:
    """The run is not due yet: leave the message until then."""

    until: float


@dataclass(frozen=True, slots=True)
class Died:
    """The lease of the last attempt expired before it was settled."""

    record: RunRecord


type Decision = Write | Acknowledge | Busy | Early | Died


def pending(envelope: Envelope, queue: str, keep_until: int, **also: Value) -> Write:
    """The record of a run that is about to be sent."""
    values: dict[str, Value] = {"status": "PENDING", **_described(envelope, queue), "expires": keep_until, **also}
    return Write(envelope.id, set=values, insert=True)


def _described(envelope: Envelope, queue: str) -> dict[str, Value]:
    values: dict[str, Value] = {
        "task": envelope.task,
        "queue": queue,
        "sent_at": round(envelope.sent_at.timestamp(), 3),
        **_indexed(envelope),
    }
    task = registry.known(envelope.task)
    # An unknown task's arguments may be secret.
    if task is not None and len(shown := compact(task.without_secrets(envelope.args))) <= ARGUMENTS_SHOWN:
        values["args"] = shown
    if envelope.parent:
        values["parent"] = envelope.parent
    if envelope.segment:
        values["segment"] = envelope.segment.index
    if envelope.origin:
        values["origin"] = envelope.origin
    return values


def _indexed(envelope: Envelope) -> dict[str, Value]:
    """The history partition of a run that has not failed."""
    task = registry.known(envelope.task)
    argument = history.argument(task.searchable, envelope.args) if task else None
    values: dict[str, Value] = {"history": history.of_task(envelope.task, envelope.id, argument)}
    return values if argument is None else {**values, "argument": argument}


def live_key(queue: str, run_id: str) -> str:
    """The partition of the sparse index `live`: sixteen per queue, so that no partition takes a queue's whole rate."""
    return f"{queue}#{run_id[-1]}"


def claim(
    envelope: Envelope,
    known: Item | None,
    by: Claim,
    max_attempts: int,
    place: str | None = None,
    *,
    redriven: bool = False,
) -> Decision:
    """The move to STARTED, given the known record (None: it does not exist).

    A claim that is one of a batch (`by.shared`) spends its attempt before it is certain to run. So if its sandbox dies,
    the attempt is refunded, and the next claim is for this run only.

    A claim does not list the run among the live ones (`listed` does, once it takes long), except if a sandbox has died
    with it. A run that waited until it was due is listed already.
    """
    started: dict[str, Value] = {
        "status": "STARTED",
        "claim": by.token,
        "lease_until": by.lease_until,
        "started_at": by.now,
        "expires": by.keep_until,
        **_indexed(envelope),
    }
    if by.listed:
        started |= _listed(envelope.id, by.queue, by.now)
    if place:
        started["place"] = place
    left = () if by.shared else ("shared",)
    if by.shared:
        started["shared"] = True
    if known is None:
        return Write(envelope.id, set={**_described(envelope, by.queue), **started, "attempts": 1}, insert=True)
    record = RunRecord.of(known)
    status = equals("status", record.status)
    match record.status:
        case "PENDING":
            return Write(envelope.id, set={**started, "attempts": 1}, when=(status,))
        case "RETRY":
            if record.eta is not None and record.eta > by.now + EARLY:
                return Early(record.eta)
            # Another delivery may have postponed it since this was read, without spending an attempt.
            read = (status, equals("attempts", record.attempts), equals("eta", known.get("eta")))
            return Write(envelope.id, set={**started, "attempts": record.attempts + 1}, remove=left, when=read)
        case "FAILURE" if not record.waits and (redriven or "blocked" in known):
            # A dead letter that SQS has redriven: its attempts start over. A mere duplicate has no such mark. Or a run
            # that was marked as blocked although its predecessor has succeeded: its message exists. It may have run and
            # failed again since it was read, with other parts.
            read = (status, equals("ended_at", known.get("ended_at")), equals("waits", None))
            again: dict[str, Value] = {**started, "attempts": 1, "restarted": True}
            return Write(envelope.id, set=again, remove=LEFT_BY_FAILURE, when=read)
        case "STARTED" if not record.waits and record.lease_until is not None:
            if record.lease_until > by.now:
                return Busy(record.lease_until)
            shared = bool(known.get("shared"))
            if record.attempts >= max_attempts and not shared:
                return Died(record)
            when = (status, equals("claim", known.get("claim")))
            attempts = record.attempts if shared else record.attempts + 1
            entry = _listed(envelope.id, by.queue, by.now)
            return Write(envelope.id, set={**started, **entry, "attempts": attempts}, remove=left, when=when)
    return Acknowledge(record)


def listed(run_id: str, token: str, queue: str, since: float) -> Write:
    """Lists a STARTED run among the live ones, while the claim `token` holds it."""
    return Write(run_id, set=_listed(run_id, queue, since), when=held(token))


def _listed(run_id: str, queue: str, since: float) -> dict[str, Value]:
    """A run's entry in the index of live runs: `since` is when it started or is due."""
    return {"live": live_key(queue, run_id), "since": since}


LEFT_BY_CLAIM = ("claim", "lease_until", "live", "since", "shared")
LEFT_BY_FAILURE = ("error", "why", "ended_at", "log", "cursor", "continued", "shared", "blocked")


def send_again(run_id: str, **also: Value) -> Write:
    """FAILURE to PENDING, before its dead letter is sent again: a reader of its handle then sees it waiting, not
    failed.
    """
    when = (equals("status", "FAILURE"), equals("waits", None))
    values: dict[str, Value] = {"status": "PENDING", "attempts": 0, "restarted": True}
    return Write(run_id, set=values | also, remove=LEFT_BY_FAILURE, when=when)


def not_sent(run_id: str, error: RunError, ended_at: float, **also: Value) -> Write:
    """PENDING to FAILURE: SQS did not accept its message, and it must not stay PENDING forever."""
    values = {**failure(run_id, error, ended_at), **also}
    return Write(run_id, set=values, remove=("live", "since"), when=(equals("status", "PENDING"),))


def held(token: str) -> tuple[Condition, ...]:
    """While the claim `token` holds the run."""
    return (equals("status", "STARTED"), equals("claim", token))


def succeed(run_id: str, token: str, result: str, now: float, children: tuple[str, ...] = ()) -> Write:
    """STARTED to SUCCESS, while this claim holds it."""
    values: dict[str, Value] = {"status": "SUCCESS", "result": result, "ended_at": now}
    if children:
        values["children"] = compact(children)
    # A cursor and a result may be too large for one item.
    removed = (*LEFT_BY_CLAIM, "error", "why", "eta", "cursor", "continued")
    return Write(run_id, set=values, remove=removed, when=held(token))


def failure(run_id: str, error: RunError, now: float) -> dict[str, Value]:
    """The record fields of a run that has failed."""
    return _ended_badly("FAILURE", run_id, error, now)


def _ended_badly(status: Value, run_id: str, error: RunError, now: float) -> dict[str, Value]:
    values: dict[str, Value] = {"status": status, "error": error_text(error), "ended_at": now}
    return {**values, "history": history.of_status(str(status), run_id), "why": history.reason(error)}


def fail(run_id: str, token: str | None, error: RunError, now: float, log: str | None = None) -> Write:
    """STARTED to FAILURE, while the claim `token` holds it."""
    values = failure(run_id, error, now)
    if log:
        values["log"] = log
    when = held(token) if token else (equals("status", "STARTED"),)
    return Write(run_id, set=values, remove=(*LEFT_BY_CLAIM, "eta"), when=when)


def retry(run_id: str, token: str, queue: str, error: RunError, eta: float) -> Write:
    """STARTED to RETRY, unless it was revoked while it ran."""
    values: dict[str, Value] = {"status": "RETRY", "error": error_text(error), "eta": eta, "expires": keep_until(eta)}
    return Write(
        run_id,
        set=values | _listed(run_id, queue, eta),
        remove=("claim", "lease_until", "shared", "slot"),
        when=(*held(token), equals("revoke", None)),
    )


def release(run_id: str, token: str, queue: str, attempt: int, since: float, **also: Value) -> Write:
    """STARTED to RETRY without spending an attempt: continued from a cursor, or not begun for lack of time.

    It is due at `since`; with an `eta`, not before.
    """
    values: dict[str, Value] = {"status": "RETRY", "attempts": attempt - 1, **_listed(run_id, queue, since), **also}
    if "eta" in also:
        values["expires"] = keep_until(since)
    removed = ("claim", "lease_until", "shared", *(name for name in ("eta", "slot") if name not in also))
    return Write(run_id, set=values, remove=removed, when=(*held(token), equals("revoke", None)))


def kept(key: str, keep_until: int) -> Write:
    """Keeps a record or a tally for longer: a message waits, and what follows its run is stored nowhere else."""
    return Write(key, set={"expires": keep_until}, when=(Condition("expires", "<", keep_until),))


def _revocation(run_id: str, reason: str, now: float) -> dict[str, Value]:
    return _ended_badly("REVOKED", run_id, RunError("Revoked", reason), now)


def revoke_before_start(run_id: str, record: RunRecord, reason: str, now: float) -> Write:
    """PENDING or RETRY to REVOKED."""
    when = (equals("status", record.status),)
    return Write(run_id, set=_revocation(run_id, reason, now), remove=(*LEFT_BY_CLAIM, "eta"), when=when)


def revoke_held(run_id: str, token: str, reason: str, now: float) -> Write:
    """STARTED to REVOKED by its own holder: expired, skipped as not unique, or revoked while it ran and due for a
    retry."""
    return Write(run_id, set=_revocation(run_id, reason, now), remove=(*LEFT_BY_CLAIM, "eta"), when=held(token))


def ask_to_revoke(run_id: str) -> Write:
    """Marks a STARTED run that has not fanned out: it is not stopped, and not retried."""
    when = (equals("status", "STARTED"), equals("total", None))
    return Write(run_id, set={"revoke": True}, when=when)


def revoke_fan_out(run_id: str, reason: str, now: float) -> Write:
    """An open fan-out to REVOKED; the caller revokes its segments that have not run individually."""
    when = (equals("status", "STARTED"), Condition("total", "exists"))
    return Write(run_id, set=_revocation(run_id, reason, now), remove=LEFT_BY_CLAIM, when=when)


def revoked(envelope: Envelope, queue: str, reason: str, now: float, keep_until: int) -> Write:
    """The record of a run that was never recorded, and must not start."""
    return Write(
        envelope.id,
        set={**_described(envelope, queue), **_revocation(envelope.id, reason, now), "expires": keep_until},
        insert=True,
    )


def revoke_unknown(run_id: str, reason: str, now: float) -> Write:
    """Like `revoked`, for a run of which only the id is known."""
    return Write(run_id, set={"task": "", **_revocation(run_id, reason, now), "expires": keep_until()}, insert=True)


def never_ran(
    envelope: Envelope, queue: str, error: RunError, now: float, keep_until: int, *, known: Item | None, log: str
) -> Write:
    """FAILURE of a run that could not start (bad arguments, an unknown task), whether it was recorded or not."""
    values = {**failure(envelope.id, error, now), "expires": keep_until, "log": log}
    when = (equals("status", (known or {}).get("status")),)
    return Write(envelope.id, set={**_described(envelope, queue), **values}, remove=LEFT_BY_CLAIM, when=when)


def blocked(envelope: Envelope, queue: str, error: RunError, now: float, keep_until: int, *, recorded: bool) -> Write:
    """FAILURE of a run that is not sent because its predecessor failed; if sent after all, it is PENDING again."""
    values = {**_described(envelope, queue), **failure(envelope.id, error, now), "expires": keep_until, "blocked": True}
    return Write(envelope.id, set=values, when=(equals("status", "PENDING"),) if recorded else (), insert=not recorded)


def unblocked(run_id: str, **also: Value) -> Write:
    """FAILURE of an unsent run to PENDING: its predecessor has succeeded after all."""
    when = (equals("status", "FAILURE"), Condition("blocked", "exists"))
    return Write(run_id, set={"status": "PENDING", "restarted": True, **also}, remove=LEFT_BY_FAILURE, when=when)


def forget(run_id: str, *, counted: bool = False) -> Write:
    """Drops the result of a run that has ended, unless a follower needs it, or a group that has not `counted` it."""
    needed = ("then",) if counted else ("then", "member", "segment")
    when = (Condition("ended_at", "exists"), *(Condition(name, "missing") for name in needed))
    return Write(run_id, remove=("result", "progress"), when=when)


def progress(run_id: str, token: str, done: int, total: int, note: str, *, info: Any = None) -> Write:
    """The latest progress of a STARTED run. Raises ValueError or TypeError if `info` is too large or not JSON."""
    shown = clean(json.dumps([done, total, note, info], separators=(",", ":"), ensure_ascii=False, allow_nan=False))
    if len(shown.encode()) > PROGRESS_BYTES:
        raise ValueError(
            f"progress: {len(shown.encode())} bytes, over the limit of {PROGRESS_BYTES}: report a key, not the data"
        )
    return Write(run_id, set={"progress": shown}, when=held(token))


def keep_until(now: float | None = None) -> int:
    """The TTL of a record written now, in epoch seconds."""
    return int((now or clock.now()) + kept_seconds())


def kept_seconds() -> int:
    """For how long a record is kept after its last write."""
    return settings().run_days * 86_400
