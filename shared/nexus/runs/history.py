"""Where the index `history` of the run table has a run: in a partition of its task, or of its bad end, by the time of
sending.

What the index projects is written with the record, and neither a claim nor a success changes it: a run costs one index
write, and a failure two more. A run with a searchable argument is in the partition that the argument's value falls
into, so a search by value reads one of them, and not an index of its own, which would be a second write.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nexus.backend.store import Value
from nexus.runs.record import RunError

SHARDS: Final = 8
"""The partitions of a task, or of a bad end: DynamoDB takes 1,000 writes a second in each."""

ARGUMENT_SHARDS: Final = 32
"""The partitions of a task's runs that have a searchable argument: what a search by value reads is one of them."""

REASON_LIMIT = 160


def of_task(task: str, run_id: str, argument: Value | None) -> str:
    """The partition of a run that has not ended, or has succeeded. `argument` is what `argument()` makes of it."""
    return shards(task)[ord(run_id[-1]) % SHARDS] if argument is None else of_argument(task, str(argument))


def of_argument(task: str, argument: str) -> str:
    """The partition of a task's runs with a searchable argument."""
    return argument_shards(task)[zlib.crc32(argument.encode()) % ARGUMENT_SHARDS]


def of_status(status: str, run_id: str) -> str:
    """The partition of a run that has ended as FAILURE or REVOKED."""
    return shards(status)[ord(run_id[-1]) % SHARDS]


def shards(name: str) -> list[str]:
    """The partitions of a task, or a status, for what has no searchable argument."""
    return [f"{name}#{n}" for n in range(SHARDS)]


def argument_shards(task: str) -> list[str]:
    """The partitions of a task for what has one."""
    return [f"{task}#a{n}" for n in range(ARGUMENT_SHARDS)]


def argument(searchable: Sequence[str], args: Mapping[str, Any]) -> str | None:
    """The first searchable argument that a run has, as name=value."""
    for name in searchable:
        value = args.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return f"{name}={value}"[:300]
    return None


def reason(error: RunError) -> str:
    """An error as the index shows it: what `nexus runs --error` looks through."""
    return str(error)[:REASON_LIMIT]
