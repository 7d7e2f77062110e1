"""The partitions of the run table's index `history`: a run is in one of its task or, if it failed, of its status,
sorted by the time of sending.

The index's projection is written with the record, and neither a claim nor a success changes it: a run costs one index
write, a failure two more. A run with a searchable argument is in the partition that the argument's value hashes to, so
a search by value reads a single partition, without a second index and its extra write.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nexus.backend.store import Value
from nexus.runs.record import RunError

SHARDS: Final = 8
"""The partitions per task, or per failed status: DynamoDB takes 1,000 writes a second in each."""

ARGUMENT_SHARDS: Final = 32
"""The partitions of a task's runs that have a searchable argument: a search by value reads one of them."""

REASON_LIMIT = 160


def of_task(task: str, run_id: str, argument: Value | None) -> str:
    """The partition of a run that has not ended, or has succeeded. `argument` is the output of `argument()`."""
    return shards(task)[ord(run_id[-1]) % SHARDS] if argument is None else of_argument(task, str(argument))


def of_argument(task: str, argument: str) -> str:
    """The partition of a task's runs with a searchable argument."""
    return argument_shards(task)[zlib.crc32(argument.encode()) % ARGUMENT_SHARDS]


def of_status(status: str, run_id: str) -> str:
    """The partition of a run that ended as FAILURE or REVOKED."""
    return shards(status)[ord(run_id[-1]) % SHARDS]


def shards(name: str) -> list[str]:
    """The partitions of a task or a status, for runs without a searchable argument."""
    return [f"{name}#{n}" for n in range(SHARDS)]


def argument_shards(task: str) -> list[str]:
    """The partitions of a task, for runs with one."""
    return [f"{task}#a{n}" for n in range(ARGUMENT_SHARDS)]


def argument(searchable: Sequence[str], args: Mapping[str, Any]) -> str | None:
    """A run's first searchable argument, as name=value."""
    for name in searchable:
        value = args.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return f"{name}={value}"[:300]
    return None


def reason(error: RunError) -> str:
    """An error as the index stores it; `nexus runs --error` searches it."""
    return str(error)[:REASON_LIMIT]
