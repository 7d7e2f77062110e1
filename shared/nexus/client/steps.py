"""A canvas as it is sent: sequences of steps, each with the id of its run.

What follows a run stands in the run's record as JSON (`then`, `on_error`), so whoever ends the run can send it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter

from nexus.envelope import Envelope, Segment
from nexus.errors import InvalidMessage
from nexus.ids import derived_id
from nexus.runs.record import RunRecord
from nexus.runs.tallies import GROUP

MAX_BYTES = 256 * 1024
"""Of what follows a run: DynamoDB's item holds 400 KiB, and the run's own result."""


class Failure(BaseModel):
    """What an error callback is given: the run that failed, and why."""

    model_config = ConfigDict(frozen=True)

    id: str
    task: str
    type: str
    message: str

    @classmethod
    def of(cls, record: RunRecord) -> Self:
        """Of a run that has ended without success."""
        error = record.error
        why = (error.type, error.message) if error else (record.status, "no reason recorded")
        return cls(id=record.id, task=record.task, type=why[0], message=why[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStep:
    """One run. Times are seconds: `countdown` and `expires_in` from when it is sent, the others since 1970.

    `result_as` names the argument that takes the result of the step before; `retry` is what the record keeps; `parent`
    and `segment` are those of the group of which the step's sequence is a member, at the last step of it.
    """

    id: str
    task: str
    queue: str
    args: Mapping[str, Any] = field(default_factory=dict)
    result_as: str | None = None
    countdown: float = 0.0
    eta: float | None = None
    expires_in: float | None = None
    expires_at: float | None = None
    retry: str | None = None
    group: str | None = None
    always: bool = False
    on_error: tuple["Step", ...] = ()
    parent: str | None = None
    segment: Segment | None = None

    @property
    def name(self) -> str:
        """The task of the step's run."""
        return self.task


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStep:
    """Sequences that run side by side. `parent` and `segment` as of a TaskStep."""

    id: str
    members: tuple[tuple["Step", ...], ...]
    always: bool = False
    on_error: tuple["Step", ...] = ()
    parent: str | None = None
    segment: Segment | None = None

    @property
    def name(self) -> str:
        """The task of the step's run."""
        return GROUP

    @property
    def earlier(self) -> list[int]:
        """How many steps each member has before its last; empty where none has any."""
        counts = [len(member) - 1 for member in self.members]
        return counts if any(counts) else []


type Step = TaskStep | GroupStep
type Steps = Sequence[Step]


@cache
def _json() -> TypeAdapter[tuple[Step, ...]]:
    return TypeAdapter(tuple[Step, ...])


def place(step: Step) -> Envelope:
    """By which a group counts the member that ends with this step."""
    return Envelope(id=step.id, task=step.name, parent=step.parent, segment=step.segment)


def dump(steps: Steps, beside: str = "") -> str:
    """As a record keeps them, `beside` others. Raises InvalidMessage when they are too many for it."""
    text = _json().dump_json(tuple(steps), exclude_defaults=True).decode()
    size = len(text.encode()) + len(beside.encode())
    if size > MAX_BYTES:
        fault = f"{size:,} bytes of plan, over {MAX_BYTES:,}"
        raise InvalidMessage(
            f"what follows, with {steps[0].name}, is {fault}: pass keys, not data, and let a task fan out instead of a "
            "large group after another step",
            f"what follows: {fault}",
        )
    return text


def load(text: str, run_id: str) -> tuple[Step, ...]:
    """The steps in the record of the run that they follow."""
    steps = []
    for step in json.loads(text):
        # A chain that was sent before steps had ids of their own.
        run_id = step.setdefault("id", derived_id(run_id, "then"))
        steps.append(step)
    return _json().validate_python(steps)
