"""Where the two indexes of the run history have a run: `history` by task or end, `arguments` by a searchable argument.

An index entry holds what seldom changes, so a run costs one index write: it is written with the record, claims and
successes leave it as it is, and only a failure moves it. Both indexes are sorted by the time of sending.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nexus.runs.record import RunError

SHARDS: Final = 8
"""The partitions of a task, or of a bad end: DynamoDB takes 1,000 writes a second in each."""

REASON_LIMIT = 160


def of_task(task: str, run_id: str) -> str:
    """The partition of a run that has not ended, or has succeeded."""
    return partition(task, _shard(run_id))


def of_status(status: str, run_id: str) -> str:
    """The partition of a run that has ended as FAILURE or REVOKED."""
    return partition(status, _shard(run_id))


def _shard(run_id: str) -> int:
    return ord(run_id[-1]) % SHARDS


def partition(name: str, shard: int) -> str:
    """A partition by its task's name or its status."""
    return f"{name}#{shard}"


def argument(searchable: Sequence[str], args: Mapping[str, Any]) -> str | None:
    """The partition of the index `arguments`: the first searchable argument that the run has, as name=value."""
    for name in searchable:
        value = args.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return f"{name}={value}"[:1024]
    return None


def reason(error: RunError) -> str:
    """An error as the index shows it: what `nexus runs --error` looks through."""
    return str(error)[:REASON_LIMIT]
