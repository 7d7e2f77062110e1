"""A canvas as it is sent: sequences of steps, each with its run's id.

A run's record stores what follows it as JSON (`then`, `on_error`), so whichever invocation ends the run can send it.
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
"""Limit for what follows a run: a DynamoDB item holds 400 KiB, including the run's own result."""


class Failure(BaseModel):
    """What an error callback receives: the run that failed, and the reason."""

    model_config = ConfigDict(frozen=True)

    id: str
    task: str
    type: str
    message: str

    @classmethod
    def of(cls, record: RunRecord) -> Self:
        """The failure of a run that ended without success."""
        error = record.error
        why = (error.type, error.message) if error else (record.status, "no reason recorded")
        return cls(id=record.id, task=record.task, type=why[0], message=why[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStep:
    """One run. Times are seconds: `countdown` and `expires_in` count from when it is sent, the others since 1970.

    `result_as` names the argument that takes the previous step's result; `retry` is what the record stores; `parent`
    and `segment` belong to the group whose member this sequence is, and are set on its last step.
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
    """Sequences that run in parallel. `parent` and `segment` as in TaskStep."""

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
        """How many steps each member has before its last; empty if none has any."""
        counts = [len(member) - 1 for member in self.members]
        return counts if any(counts) else []


type Step = TaskStep | GroupStep
type Steps = Sequence[Step]


def latest(steps: Steps, start: float) -> float:
    """When the last of these steps is due, if the first begins at `start` and none takes any time."""
    for step in steps:
        if isinstance(step, GroupStep):
            start = max(latest(member, start) for member in step.members)
        else:
            start = max(start, start + step.countdown if step.eta is None else step.eta)
    return start


@cache
def _json() -> TypeAdapter[tuple[Step, ...]]:
    return TypeAdapter(tuple[Step, ...])


def place(step: Step) -> Envelope:
    """The envelope by which a group counts the member that ends with this step."""
    return Envelope(id=step.id, task=step.name, parent=step.parent, segment=step.segment)


def dump(steps: Steps, beside: str = "") -> str:
    """The steps as a record stores them, next to `beside` others. Raises InvalidMessage if they are too many for it."""
    text = _json().dump_json(tuple(steps), exclude_defaults=True).decode()
    size = len(text.encode()) + len(beside.encode())
    if size > MAX_BYTES:
        fault = f"{size:,} bytes, over {MAX_BYTES:,}"
        raise InvalidMessage(
            f"the steps from {steps[0].name} on take {fault}: pass keys, not data, and let a task fan out instead of a "
            "large group that follows another step",
            f"the steps that follow: {fault}",
        )
    return text


def load(text: str, run_id: str) -> tuple[Step, ...]:
    """The steps in the record of the run that they follow."""
    steps = []
    for step in json.loads(text):
        # A chain that was sent before steps had their own ids.
        run_id = step.setdefault("id", derived_id(run_id, "then"))
        steps.append(step)
    return _json().validate_python(steps)
