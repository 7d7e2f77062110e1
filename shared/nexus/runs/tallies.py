"""The members that a run waits for: how their ids are derived, and the tally items that count them.

`nexus.worker.fanout` describes how members end a run; this is the part that producers need.
"""

from collections.abc import Sequence

from nexus.backend import backend
from nexus.backend.store import Applied, Write, numbers
from nexus.envelope import Envelope
from nexus.ids import derived_id
from nexus.runs.record import RunRecord

GROUP = "group"
"""The task name of a group's own record."""

CHUNK = 100
LIMIT = 10_000


def tally(parent: str, phase: int, chunk: int) -> str:
    """The key of a tally: members chunk x 100 to chunk x 100 + 99."""
    return f"{parent}/{phase}/tally/{chunk}"


def chunks(total: int) -> int:
    """How many tallies this many members need."""
    return -(-total // CHUNK)


def member(parent: str, phase: int, index: int) -> str:
    """The id of a member: derived, so that sending it again is the same run."""
    return derived_id(parent, phase, index)


def is_member(envelope: Envelope) -> bool:
    """Whether the envelope is the member of its parent that it claims to be: only then does its end count there."""
    segment, parent = envelope.segment, envelope.parent
    if segment is None or parent is None:
        return False
    return envelope.id == member(parent, segment.phase, segment.index)


def earlier_id(last: str, number: int) -> str:
    """The id of an earlier step, from 0, of the sequence whose last step has the id `last`."""
    return derived_id(last, "step", number)


def earlier(record: RunRecord) -> list[str]:
    """The ids of the runs before the last step of each member of a group."""
    counts = zip(children(record), record.earlier, strict=False)
    return [earlier_id(last, number) for last, count in counts for number in range(count)]


def children(record: RunRecord) -> list[str]:
    """The ids of the members of the run's current phase."""
    return [member(record.id, record.phase, index) for index in range(record.total)]


def progress(record: RunRecord) -> tuple[int, int]:
    """(members that have succeeded, members) of the run's current phase; one read per 10,000 members."""
    counted = backend().store.get([tally(record.id, record.phase, chunk) for chunk in range(chunks(record.total))])
    return sum(len(numbers(item, "done")) for item in counted.values()), record.total


def new_tallies(parent: str, phase: int, total: int, keep_until: int) -> list[Write]:
    """The tallies of a phase, empty."""
    sizes = (min(CHUNK, total - chunk * CHUNK) for chunk in range(chunks(total)))
    return [Write(tally(parent, phase, n), {"size": size, "expires": keep_until}) for n, size in enumerate(sizes)]


def put_all(writes: Sequence[Write]) -> None:
    """Writes items that mostly do not exist yet: inserts in batches, then overwrites those that do exist."""
    inserts = [Write(write.key, write.set, insert=True) for write in writes]
    for write, outcome in zip(writes, backend().store.apply_all(inserts), strict=True):
        if not isinstance(outcome, Applied):
            backend().store.apply(write)
