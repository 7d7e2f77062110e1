"""A run as JSON, for the command's --json and the web API."""

from dataclasses import asdict
from typing import Any

from nexus import prices
from nexus.runs import payloads, tallies
from nexus.runs.record import RunError, RunRecord
from nexus.runs.spent import Spent
from ops.spans import at


def as_plain(record: RunRecord, *, waits: bool = False, result: bool = True) -> dict[str, Any]:
    """A run; `waits` adds what it waits for. Lists leave out `result`: a large one is a separate S3 object."""
    progress: tuple[int, int] | None = None
    if result and record.fanned_out:
        progress = tallies.progress(record)
    elif record.progress:
        progress = record.progress[:2]
    plain: dict[str, Any] = {
        "id": record.id,
        "task": record.task or None,
        "queue": record.queue or None,
        "status": record.status,
        "args": record.args,
        "sent_at": at(record.sent_at),
        "started_at": at(record.started_at),
        "ended_at": at(record.ended_at),
        "eta": at(record.eta),
        "took": took(record),
        "attempts": record.attempts,
        "parent": record.parent,
        "segment": record.segment,
        "progress": progress,
        "info": record.info,
        "error": error_as_plain(record.error),
        "log": record.log,
        "cost": cost_as_plain(record.spent),
    }
    if result:
        plain["result"] = payloads.load(record.result) if record.result is not None else None
    if waits:
        from ops import waiting

        plain["waits_for"] = waiting.reasons(record)
    return plain


def cost_as_plain(spent: Spent | None) -> dict[str, Any] | None:
    """Dollars by part, and usage; null if no attempt has ended."""
    if spent is None:
        return None
    found = prices.cost(spent)
    return {"dollars": found.total, "of": asdict(found), "used": spent._asdict()}


def error_as_plain(error: RunError | None) -> dict[str, Any] | None:
    """An error; `path` and `traceback` are null if they were not kept."""
    if error is None:
        return None
    return {
        "type": error.type,
        "message": error.message,
        "path": error.path or None,
        "traceback": error.traceback or None,
    }


def took(record: RunRecord) -> float | None:
    """Seconds from the start of the last attempt to the end."""
    if not record.ended_at or not record.started_at:
        return None
    return round(record.ended_at - record.started_at, 3)
