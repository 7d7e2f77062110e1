"""What a task is: a name, a queue, an argument model, a result model and its policies; no code of the work itself.

So a web application that imports a catalogue needs none of the tasks' dependencies. Sending is in `nexus.tasks`, on top
of the client; `nexus.registry` knows which function implements a task.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from nexus.errors import LONGEST_WAIT, InvalidMessage
from nexus.values import compact, faults_of, kinds, plain, told

HIDDEN = "(secret)"
"""What stands for a secret argument's value."""


class Arguments(BaseModel):
    """A task's arguments: frozen, and an unknown name is an error rather than silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Result(BaseModel):
    """What a task returns; stored as JSON in its run record."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    @property
    def shortfall(self) -> str | None:
        """Why the run succeeded and yet did not do what it was sent for; None when it did.

        A task whose runs may rightly do nothing overrides it, in words that many runs share: `nexus inspect stats`
        counts them, and `nexus status` names a task most of whose runs fall short.
        """
        return None


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

    def __post_init__(self) -> None:
        if not (self.max_retries >= 0 and 0 <= self.base < math.inf and 0 <= self.cap <= LONGEST_WAIT):
            raise ValueError(f"{self}: numbers from 0 on, and a cap of a year ({LONGEST_WAIT}) at most")

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

    def __post_init__(self) -> None:
        if not 0 < self.per_second < math.inf:
            raise ValueError(f"{self}: a finite number over 0")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a task may spend in a day (UTC): dollars by `nexus.prices`, attempts, or both; nothing stops it by a None.

    What it would spend beyond that waits for the next day. An operator can set other limits at any time, for a task
    whose `budget` is not None: `Budget()` has no limit until then.
    """

    dollars: float | None = None
    runs: int | None = None

    def __post_init__(self) -> None:
        if not all(limit is None or 0 <= limit < math.inf for limit in (self.dollars, self.runs)):
            raise ValueError(f"{self}: numbers from 0 on")


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
    budget: Budget | None = None
    part: Any = None
    module: str | None = None
    sends_to: tuple[str, ...] = ()
    """Other queues that it sends to, by itself or as what a chain goes on with: its function's role needs them."""

    sends_later: bool = False
    """It sends with a countdown over 15 minutes, or revokes such a run: its function's role needs schedules. So does
    that of a task with a budget, whose messages wait for the next day."""

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

    def to_send(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as a message carries them: as `check` takes them again. Raises InvalidMessage like `check`."""
        sent = plain(self.check(arguments), self.name, exclude_defaults=True)
        self.check(sent)
        return sent

    def part_to_send(self, part: BaseModel) -> dict[str, Any]:
        """The same of a segment's or phase's arguments."""
        sent = plain(part, self.name, exclude_defaults=True)
        self.check_part(sent)
        return sent

    def some_to_send(self, arguments: Mapping[str, Any], missing: str) -> dict[str, Any]:
        """The same of all arguments but one, which will be there when the task runs."""
        try:
            _validator(self.arguments)(dict(arguments))
        except ValidationError as error:
            wrong = [fault for fault in faults_of(error) if fault["loc"][:1] != (missing,)]
            if wrong:
                raise InvalidMessage(f"{self.name}: {told(wrong)}", kinds(wrong)) from None
        return plain(_Given(**arguments), self.name)

    def result_to_keep(self, result: R) -> str:
        """A result as the JSON that its record keeps. Raises InvalidMessage for one that nobody could read again."""
        kept = plain(result, "result")
        self._checked(self.result, kept)
        return compact(kept)

    def _checked(self, model: Any, arguments: Mapping[str, Any]) -> Any:
        try:
            return _validator(model)(dict(arguments))
        except ValidationError as error:
            raise InvalidMessage(f"{self.name}: {told(faults_of(error))}", kinds(faults_of(error))) from None

    def __repr__(self) -> str:
        return f"<Task {self.name} on {self.queue or 'every queue'}>"


class _Given(BaseModel):
    """Arguments whose model is not asked."""

    model_config = ConfigDict(extra="allow")


@cache
def _validator(model: Any) -> Callable[[Any], Any]:
    """What checks a model, or one of a union of models."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model.model_validate
    return TypeAdapter(model).validate_python
