"""Unique tasks: one live run per key. A key's place is an item of the run table.

A run that finds the place taken either ends (`skip`) or becomes the one run that waits for it (`coalesce`). Waiting
costs no receives: the run's message is due when the holder's lease ends, and the holder wakes it earlier when it gives
up the place.

A place names the attempt that took it by its start. If an attempt gives up the place late, after its run was started
again, the new attempt keeps it.
"""

from typing import Any, NamedTuple

from pydantic import BaseModel

from nexus import clock
from nexus.aws.dynamodb import Condition, equals
from nexus.backend import backend
from nexus.backend.store import Applied, Item, Value, Write, number
from nexus.backend.transport import Message
from nexus.definitions import TaskDefinition, Unique
from nexus.envelope import Envelope, decode
from nexus.errors import SendFailed
from nexus.ids import derived_id
from nexus.runs import payloads
from nexus.runs.record import RunRecord
from nexus.values import compact

LEFT_BY_WAITER = ("waiter", "waiter_message")


class Held(NamedTuple):
    """Another run is live, at most until `until`. `wait`: this run waits for it; otherwise this run ends, with `holder`
    as the reason."""

    holder: str
    wait: bool
    until: float = 0.0


def place(task: TaskDefinition[Any, Any], args: BaseModel) -> str | None:
    """The key of the place that a run with these arguments takes; None if the task is not unique.

    It is the same whether a sender states a default or leaves it out.
    """
    if task.unique is None:
        return None
    given = args.model_dump(mode="json", include=set(task.unique.key), warnings=False)
    return f"unique/{task.name}/{derived_id(compact([given.get(name) for name in task.unique.key]))}"


def acquire(key: str, unique: Unique, envelope: Envelope, started_at: float) -> Held | None:
    """Takes the place for the attempt that began at `started_at`; None if this run now has it.

    A run that has ended blocks no other: its sandbox may have died before giving up the place.
    """
    run_id, store = envelope.id, backend().store
    known: Item = {}
    while True:
        now = clock.now()
        until = number(known, "lease_until") or 0.0
        holder = str(known.get("holder", ""))
        unchanged = (equals("holder", known.get("holder")), equals("lease_until", known.get("lease_until")))
        if not holder or holder == run_id or until <= now or _has_ended(holder):
            lease_until = round(now + unique.lease, 3)
            taken: dict[str, Value] = {"holder": run_id, "lease_until": lease_until, "started_at": started_at}
            removed = LEFT_BY_WAITER if known.get("waiter") in (None, run_id) else ()
            outcome = store.apply(
                Write(key, {**taken, "expires": int(now + 2 * unique.lease)}, remove=removed, when=unchanged)
            )
            if isinstance(outcome, Applied):
                return None
        elif unique.on_conflict == "skip":
            return Held(holder, wait=False)
        elif known.get("waiter") == run_id:
            return Held(holder, wait=True, until=until)
        elif "waiter" in known:
            return Held(str(known["waiter"]), wait=False)
        else:
            message = payloads.dump(f"waiter-{run_id}", envelope.encode())
            waiting: dict[str, Value] = {"waiter": run_id, "waiter_message": message}
            outcome = store.apply(Write(key, waiting, when=(*unchanged, Condition("waiter", "missing"))))
            if isinstance(outcome, Applied):
                return Held(holder, wait=True, until=until)
        known = outcome.item or {}


def _has_ended(run_id: str) -> bool:
    return RunRecord.of(backend().store.get([run_id]).get(run_id, {})).ended


def release(key: str, run_id: str, started_at: float | None) -> None:
    """Gives up the place, unless a later attempt of this run has it, and wakes the waiting run. Raises SendFailed."""
    leave(key, run_id)
    when = (equals("holder", run_id), Condition("started_at", "missing or <=", started_at or 0.0))
    write = Write(key, remove=("holder", "lease_until", "started_at"), when=when)
    item = backend().store.apply(write).item or {}
    # Also if the place is already free: the sandbox that gave it up may have died before it woke the waiting run.
    if "holder" not in item and "waiter_message" in item:
        _wake(decode(payloads.load_text(str(item["waiter_message"]))))


def _wake(envelope: Envelope) -> None:
    """Sends a waiting run's message again, due now. When its delayed message arrives, the run has already ended."""
    due = Write(envelope.id, {"eta": clock.moment()}, when=(equals("status", "RETRY"),))
    outcome = backend().store.apply(due)
    if isinstance(outcome, Applied):  # otherwise the waiting run has already come back, or was revoked
        failures = backend().transport.send(str(outcome.item["queue"]), [Message.of(envelope)])
        if failures:
            raise SendFailed(failures)


def wake_if_free(key: str, envelope: Envelope) -> None:
    """Wakes a run that has just begun to wait, if the place is free by now."""
    item = backend().store.get([key]).get(key, {})
    if "holder" not in item:
        _wake(envelope)


def leave(key: str, run_id: str) -> None:
    """Stops waiting for the place, if this run is the one that waits."""
    backend().store.apply(Write(key, remove=LEFT_BY_WAITER, when=(equals("waiter", run_id),)))
