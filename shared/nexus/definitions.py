"""What a task is: a name, a queue, an argument model, a result model and its policies; no code of the work itself.

So a web application that imports a catalogue needs none of the tasks' dependencies. Sending is in `nexus.tasks`, on top
of the client; `nexus.registry` knows which function implements a task.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

HIDDEN = "(secret)"
"""What stands for a secret argument's value."""


class Arguments(BaseModel):
    """A task's arguments: frozen, and an unknown name is an error rather than silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Result(BaseModel):
    """What a task returns; stored as JSON in its run record."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class NoArguments(Arguments):
    """For a task that takes none."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is tried again, and how long it waits: exponential backoff with full jitter.

    Waits before retry n (1, 2, ...) are uniform in [0, min(cap, base x 2^(n-1))] seconds, so the jitter is kept at
    the cap (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015). `give_up_on` names exception
    types, by class name, that are never retried.
    """

    max_retries: int = 3
    base: float = 60.0
    cap: float = 900.0
    give_up_on: frozenset[str] = frozenset()

    def retries(self, error: BaseException, attempt: int) -> bool:
        """Whether attempt number `attempt` (from 1), which ended in `error`, is followed by another."""
        names = {kind.__name__ for kind in type(error).__mro__}
        return attempt <= self.max_retries and not names & self.give_up_on

    def wait(self, attempt: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1)."""
        return uniform(0.0, min(self.cap, self.base * 2.0 ** min(attempt - 1, 32)))


@dataclass(frozen=True, slots=True)
class Schedule:
    """When EventBridge sends a task by itself, in UTC: a `cron(...)` or `rate(...)` expression and its meaning."""

    expression: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Unique:
    """One live run at a time for each value of `key` (the arguments' fields that make two runs the same).

    `skip` ends the second run as REVOKED, naming the live one; `coalesce` lets one more wait for the live one's end
    and revokes the rest. `lease` seconds after its last sign of life a holder counts as gone.
    """

    key: tuple[str, ...] = ()
    on_conflict: Literal["skip", "coalesce"] = "skip"
    lease: int = 6 * 3600


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `per_second` runs of this task start each second, over all sandboxes."""

    per_second: float


@dataclass(frozen=True, slots=True, eq=False)
class TaskDefinition[A: Arguments, R: Result]:
    """A unit of background work. `time_limit` in seconds; the invocation's own end cuts it shorter.

    `part` is the argument model (or a union of models) of the segments and phases that a fan-out of this task sends to
    itself; nobody else can send one. Without it, segments take `arguments`. `module` is the module whose import
    registers the implementation: the one named like the task when left out.
    """

    name: str
    queue: str
    arguments: type[A]
    result: type[R]
    summary: str
    time_limit: float = 60.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    schedule: Schedule | None = None
    unique: Unique | None = None
    rate_limit: RateLimit | None = None
    part: Any = None
    module: str | None = None
    sends_to: tuple[str, ...] = ()
    """Other queues that it sends to, by itself or as what a chain goes on with: its function's role needs them."""

    sends_later: bool = False
    """It sends with a countdown over 15 minutes, or revokes such a run: its function's role needs schedules."""

    on_upload: bool = False
    """An S3 upload starts it: it takes `bucket`, `key`, `version_id` (None without versioning) and `event_order`."""

    everywhere: bool = False
    """Every queue serves it, and not `queue` alone."""

    searchable: tuple[str, ...] = ("user_id", "post_id")
    """The run history finds a run by the first of these arguments that it has; the others only among what is found."""

    secret: tuple[str, ...] = ()
    """Arguments whose values no run record shows. They are in the message alone, and in its dead letter."""

    def __post_init__(self) -> None:
        if both := set(self.searchable) & set(self.secret):
            raise ValueError(f"{self.name}: {min(both)} is searchable and secret: what is searched is kept")
        if self.secret and (self.part is not None or (self.unique and self.unique.on_conflict == "coalesce")):
            raise ValueError(f"{self.name}: parts and runs that wait for their turn are written down, secrets included")

    def without_secrets(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments as they may be kept and shown."""
        return {name: HIDDEN if name in self.secret else value for name, value in arguments.items()}

    def served_by(self, queue: str) -> bool:
        """Whether the queue's function runs this task."""
        return self.everywhere or queue == self.queue

    def check(self, arguments: Mapping[str, Any]) -> A:
        """The arguments as their model. Raises InvalidMessage naming each field and its fault."""
        checked: A = self._checked(self.arguments, arguments)
        return checked

    def check_part(self, arguments: Mapping[str, Any]) -> Any:
        """The arguments of a segment or phase, as a model of `part`. Raises InvalidMessage like `check`."""
        return self._checked(self.arguments if self.part is None else self.part, arguments)

    def _checked(self, model: Any, arguments: Mapping[str, Any]) -> Any:
        from pydantic import ValidationError

        from nexus.errors import InvalidMessage

        try:
            return _validator(model)(dict(arguments))
        except ValidationError as error:
            raise InvalidMessage(f"{self.name}: {faults(error)}") from None

    def __repr__(self) -> str:
        return f"<Task {self.name} on {self.queue or 'every queue'}>"


@cache
def _validator(model: Any) -> Callable[[Any], Any]:
    """What checks a model, or one of a union of models."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model.model_validate
    from pydantic import TypeAdapter

    return TypeAdapter(model).validate_python


def faults(error: Any) -> str:
    """A pydantic ValidationError in one line: `user_id: Field required; days: Input should be ... (got 'x')`."""
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in fault["loc"]) or "(whole)"
        got = "" if fault["type"] == "missing" else f" (got {str(fault['input'])[:80]!r})"
        lines.append(f"{where}: {fault['msg']}{got}")
    return "; ".join(lines)
