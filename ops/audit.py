"""Who changed what, and when: an item of the run table for each change, kept as long as run records.

The items are in the index of the run history, in a partition of their own. A change that was made stands, whether or
not its note could be written; then the change's own answer says so (`ops.web.actions.perform`).
"""

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nexus import clock
from nexus.aws.dynamodb import from_item
from nexus.aws.sdk import client as runtime_client
from nexus.backend import backend
from nexus.backend.store import Value, Write
from nexus.ids import new_id
from nexus.runs import transitions
from nexus.settings import settings
from nexus.values import compact
from ops.aws import client

PARTITION: Final = "audit#0"


@dataclass(frozen=True, slots=True)
class Entry:
    """One change: `at` in seconds since 1970, `who` by their account, `what` the action, with what it was about."""

    at: float
    who: str
    what: str
    about: Mapping[str, Any]
    outcome: str


def note(what: str, about: Mapping[str, Any], outcome: str, by: str = "") -> None:
    """Writes down a change that has been made; `by` whom, where AWS cannot tell."""
    backend().store.apply(_note(f"audit/{new_id()}", Entry(clock.moment(), by or _who(), what, about, outcome)))


def _note(key: str, entry: Entry) -> Write:
    values: dict[str, Value] = {"history": PARTITION, "sent_at": entry.at, "who": entry.who, "what": entry.what}
    also: dict[str, Value] = {"about": compact(dict(entry.about)), "outcome": entry.outcome[:1000]}
    return Write(key, {**values, **also, "expires": transitions.keep_until(entry.at)}, insert=True)


def _who() -> str:
    """The caller as AWS knows it, and the account of this machine."""
    return f"{client('sts').get_caller_identity()['Arn']} ({getpass.getuser()})"


def entries(limit: int = 50) -> list[Entry]:
    """The latest changes, the newest first."""
    import json

    answer = runtime_client("dynamodb").query(
        TableName=settings().table("task-runs"),
        IndexName="history",
        KeyConditionExpression="history = :p",
        ExpressionAttributeValues={":p": {"S": PARTITION}},
        ScanIndexForward=False,
        Limit=limit,
    )
    ids = [str(from_item(item)["id"]) for item in answer["Items"]]
    found = backend().store.get(ids) if ids else {}
    return [
        Entry(
            float(str(item["sent_at"])),
            str(item["who"]),
            str(item["what"]),
            json.loads(str(item["about"])),
            str(item["outcome"]),
        )
        for item in (found[one] for one in ids if one in found)
    ]
