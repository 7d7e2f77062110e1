"""Previews of a run's pictures. An application's own part of `nexus` registers them when the commands are assembled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nexus.runs.record import RunRecord


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture or video that a run made. `content_type` is its media type; sizes are in pixels."""

    name: str
    content_type: str
    width: int
    height: int
    read: Callable[[], bytes]
    """Returns its bytes. Raises LookupError if they no longer exist."""


makers: "Final[dict[str, Callable[[RunRecord], Sequence[Picture]]]]" = {}
"""The function that finds a run's pictures, by task."""


def of(record: "RunRecord") -> Mapping[str, Picture]:
    """A run's pictures by name; empty for a task that makes none."""
    make = makers.get(record.task)
    return {one.name: one for one in make(record)} if make and record.status == "SUCCESS" else {}
