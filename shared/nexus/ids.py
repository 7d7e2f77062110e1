"""Run ids: UUIDv7 for what a producer sends, derived ids where a duplicate must be the same run."""

import os
import uuid
from math import inf

from nexus import clock

_NAMESPACE = uuid.UUID("6f9b5a52-3c1e-5d0a-9d55-8a1f6c0e7b11")


def new_id() -> str:
    """A UUIDv7 (RFC 9562, 5.7): 48 bits of milliseconds, then random bits, so ids sort by creation time."""
    return _version_7(clock.now(), int.from_bytes(os.urandom(10)))


def sortable_id(run_id: str, sent_at: float) -> str:
    """A UUIDv7 for a run, by which what runs have made sorts by the time of sending: the run's own id if it is one.

    Runs that are untracked, or members or links of a canvas, have UUIDv5 ids, which sort at random.
    """
    return run_id if made_at(run_id) is not None else _version_7(sent_at, uuid.UUID(run_id).int)


def _version_7(seconds: float, bits: int) -> str:
    value = int(seconds * 1000) << 80 | bits & (1 << 80) - 1
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def derived_id(*parts: object) -> str:
    """A UUIDv5 of the parts: the same parts give the same run."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(map(str, parts))))


def made_at(run_id: str) -> float | None:
    """The creation time of a UUIDv7, in seconds since 1970; None for another id.

    An EventBridge event's id may look like one; nearly all of those would be from the future.
    """
    seconds = int(run_id[:8] + run_id[9:13], 16) / 1000 if made_by_producer(run_id) else inf
    return seconds if seconds < clock.now() + 86_400 else None


def made_by_producer(run_id: str) -> bool:
    """Whether the id looks like a UUIDv7, so that a PENDING record may exist (see `Envelope.recorded`)."""
    return len(run_id) == 36 and run_id[14] == "7"
