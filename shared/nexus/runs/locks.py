"""Unique tasks: one live run for each key, held by an item of the run table."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nexus.aws.dynamodb import Condition, equals
from nexus.backend import backend
from nexus.backend.store import Applied, Item, Value, Write, number
from nexus.definitions import TaskDefinition, Unique
from nexus.ids import derived_id
from nexus.runs.record import compact


@dataclass(frozen=True, slots=True)
class Held:
    """Another run is live. `wait`: this one is to wait for it; otherwise it is to end, giving `holder` as the
    reason."""

    holder: str
    wait: bool


def _key(task: TaskDefinition[Any, Any], unique: Unique, args: Mapping[str, Any]) -> str:
    return f"unique/{task.name}/{derived_id(compact([args.get(name) for name in unique.key]))}"


def acquire(task: TaskDefinition[Any, Any], args: Mapping[str, Any], run_id: str) -> Held | None:
    """Takes the place of the live run; None when it is this run's now (or the task is not unique)."""
    unique = task.unique
    if unique is None:
        return None
    key, store = _key(task, unique, args), backend().store
    known: Item = {}
    while True:
        now = time.time()
        until = number(known, "lease_until") or 0.0
        holder = str(known.get("holder", ""))
        unchanged = (equals("holder", known.get("holder")), equals("lease_until", known.get("lease_until")))
        if not holder or holder == run_id or until <= now:
            taken: dict[str, Value] = {"holder": run_id, "lease_until": round(now + unique.lease, 3)}
            removed = ("waiter",) if known.get("waiter") in (None, run_id) else ()
            outcome = store.apply(
                Write(key, {**taken, "expires": int(now + 2 * unique.lease)}, remove=removed, when=unchanged)
            )
            if isinstance(outcome, Applied):
                return None
        elif unique.on_conflict == "skip":
            return Held(holder, wait=False)
        elif known.get("waiter") == run_id:
            return Held(holder, wait=True)
        elif "waiter" in known:
            return Held(str(known["waiter"]), wait=False)
        else:
            outcome = store.apply(Write(key, {"waiter": run_id}, when=(*unchanged, Condition("waiter", "missing"))))
            if isinstance(outcome, Applied):
                return Held(holder, wait=True)
        known = outcome.item or {}


def release(task: TaskDefinition[Any, Any], args: Mapping[str, Any], run_id: str) -> None:
    """Gives the place up, if this run has it."""
    if task.unique is not None:
        write = Write(_key(task, task.unique, args), remove=("holder", "lease_until"), when=(equals("holder", run_id),))
        backend().store.apply(write)
