"""What this process has requested from AWS, counted where the requests are made, in the units that AWS bills.

`nexus.aws.table` counts DynamoDB's units, `nexus.backend.transport` the requests to SQS and Scheduler; the other
clients are counted through botocore's events. Counters only increase: to measure an operation, take the difference of
two reads.
"""

import threading
from collections.abc import Mapping
from typing import Any

NAMES = ("reads", "writes", "messages", "puts", "gets", "schedules", "mails")

_READS = frozenset({"get_item", "batch_get_item", "query", "scan"})
lock = threading.Lock()
_counted = dict.fromkeys(NAMES, 0.0)


def add(name: str, amount: float = 1.0) -> None:
    """Adds units or requests to a counter. Thread-safe."""
    with lock:
        _counted[name] += amount


def seen() -> dict[str, float]:
    """The counts since the process began."""
    with lock:
        return dict(_counted)


def units(response: Mapping[str, Any]) -> float:
    """The units that a DynamoDB response reports."""
    capacity = response.get("ConsumedCapacity") or ()
    each = [capacity] if isinstance(capacity, Mapping) else capacity
    return sum(float(one.get("CapacityUnits", 0.0)) for one in each)


def dynamodb(operation: str, response: Mapping[str, Any]) -> None:
    """Counts a DynamoDB response."""
    add("reads" if operation in _READS else "writes", units(response))


def watch(service: str, client: Any) -> None:
    """Counts a request of an S3 or SES client: deletions cost nothing, and presigning an address makes no request."""
    if service in ("s3", "sesv2"):
        client.meta.events.register_first("before-call", _asked)


def _asked(model: Any, **_: Any) -> None:
    name = model.name
    if name == "SendEmail":
        add("mails")
    elif name.startswith(("Get", "Head", "Select")):
        add("gets")
    elif name.startswith(("Put", "Copy", "List", "Create", "Upload", "Complete")):
        add("puts")
