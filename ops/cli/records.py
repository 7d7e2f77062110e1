"""A run as text for people, for the command and the live view."""

import json
from typing import Any

from nexus.runs.record import RunRecord
from ops import runs, waiting
from ops.cli import output
from ops.cost import dollars


def described(record: RunRecord) -> tuple[dict[str, Any], str]:
    """A record as (fields, text below them): the text is its traceback and result."""
    plain, waits = runs.as_plain(record), waiting.reasons(record)
    below = [record.error.traceback.rstrip()] if record.error and record.error.traceback else []
    if plain["result"] is not None:
        below.append(json.dumps(output.rounded(plain["result"]), indent=2, ensure_ascii=False))
    fields = {
        "id": record.id,
        "task": record.task,
        "queue": record.queue,
        "status": record.status,
        "arguments": output.arguments(record.args),
        "sent": output.time_of(record.sent_at),
        "due": output.time_of(record.eta) if record.status in ("PENDING", "RETRY") else None,
        "started": output.time_of(record.started_at),
        "ended": output.time_of(record.ended_at),
        "took": plain["took"] and f"{plain['took']} s",
        "attempts": record.attempts or None,
        "cost": dollars(plain["cost"]["dollars"]) if plain["cost"] else None,
        "waits for": "; ".join(wait.why for wait in waits),
        "until": " ".join(wait.release for wait in waits),
        "parent": record.parent,
        "segment": record.segment,
        "progress": " of ".join(map(str, plain["progress"])) if plain["progress"] else None,
        "info": json.dumps(record.info, ensure_ascii=False) if record.info is not None else None,
        "error": str(record.error) if record.error else None,
        "exception": record.error.path or None if record.error else None,
        "log": record.log,
    }
    return fields, "\n".join(below)


def meaning(before: str, after: str) -> str:
    """What a revocation did, from the statuses before and after."""
    if after == "UNKNOWN":
        return "no run has this id, or its record has expired"
    if after == "STARTED":
        return "it runs to its end, and is not retried"
    if before in ("SUCCESS", "FAILURE", "REVOKED"):
        return "it had already ended"
    return "it does not run"
