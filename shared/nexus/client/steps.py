"""A canvas as it is sent: sequences of steps, each with the id of its run.

What follows a run stands in the run's record as JSON (`then`, `on_error`), so whoever ends the run can send it.
"""

import json
from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

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


class _Step(BaseModel):
    """`parent` and `segment` are those of the group of which the step's sequence is a member, at its last step."""

    model_config = ConfigDict(frozen=True)

    id: str = ""
    parent: str | None = None
    segment: Segment | None = None
    always: bool = False
    on_error: tuple["Step", ...] = ()

    @property
    def name(self) -> str:
        """The task of the step's run."""
        raise NotImplementedError

    @property
    def place(self) -> Envelope:
        """By which a group counts the member that ends with this step."""
        return Envelope(id=self.id, task=self.name, parent=self.parent, segment=self.segment)


class TaskStep(_Step):
    """One run. Times are seconds: `countdown` and `expires_in` from when it is sent, the others since 1970.

    `result_as` names the argument that takes the result of the step before; `retry` is what the record keeps.
    """

    task: str
    queue: str
    args: dict[str, Any] = Field(default_factory=dict)
    result_as: str | None = None
    countdown: float = 0.0
    eta: float | None = None
    expires_in: float | None = None
    expires_at: float | None = None
    retry: str | None = None
    group: str | None = None

    @property
    def name(self) -> str:
        return self.task


class GroupStep(_Step):
    """Sequences that run side by side."""

    members: tuple[tuple["Step", ...], ...]

    @property
    def name(self) -> str:
        return GROUP

    @property
    def earlier(self) -> list[int]:
        """How many steps each member has before its last; empty where none has any."""
        counts = [len(member) - 1 for member in self.members]
        return counts if any(counts) else []


type Step = TaskStep | GroupStep
type Steps = Sequence[Step]

_Step.model_rebuild()
TaskStep.model_rebuild()
GroupStep.model_rebuild()
_STEPS = TypeAdapter(tuple[Step, ...])


def dump(steps: Steps) -> str:
    """As a record keeps them. Raises InvalidMessage when they are too many for it."""
    text = _STEPS.dump_json(tuple(steps), exclude_defaults=True).decode()
    if len(text.encode()) > MAX_BYTES:
        raise InvalidMessage(
            f"what follows {steps[0].name} is {len(text.encode())} bytes of plan, over {MAX_BYTES}: "
            "pass keys, not data, and let a task fan out instead of a large group after another step"
        )
    return text


def load(text: str, run_id: str) -> tuple[Step, ...]:
    """The steps in the record of the run that they follow."""
    steps = []
    for step in json.loads(text):
        # A chain that was sent before steps had ids of their own.
        run_id = step.setdefault("id", derived_id(run_id, "then"))
        steps.append(step)
    return _STEPS.validate_python(steps)
