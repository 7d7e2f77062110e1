"""What there is to see of a run: an application's own part of `nexus` says so, as the commands are put together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nexus.runs.record import RunRecord


@dataclass(frozen=True, slots=True)
class Picture:
    """Something to look at that came of a run. `content_type` is an image's or a video's, sizes are pixels."""

    name: str
    content_type: str
    width: int
    height: int
    read: Callable[[], bytes]
    """Its bytes. Raises LookupError when they are gone."""


makers: "Final[dict[str, Callable[[RunRecord], Sequence[Picture]]]]" = {}
"""By task: the function that finds the pictures of a run."""


def of(record: "RunRecord") -> Mapping[str, Picture]:
    """By name; empty for a task that makes none."""
    look = makers.get(record.task)
    return {one.name: one for one in look(record)} if look and record.status == "SUCCESS" else {}
