"""A task's definition: a name, a queue, an argument model, a result model and policies, without the implementation.

So a web application can import a catalogue without the tasks' dependencies. Sending is in `nexus.tasks`, on top of the
client; `nexus.registry` knows which function implements a task.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from nexus.errors import LONGEST_WAIT, InvalidMessage
from nexus.values import compact, described, faults_of, kinds, plain

MOST_RETRIES = 100
"""A run's message is replaced after ten receives (`nexus.worker.delivery`), and Lambda ends a loop of messages after
about sixteen.
"""

HIDDEN = "(secret)"
"""Replaces a secret argument's value."""


class Arguments(BaseModel):
    """A task's arguments: frozen, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Result(BaseModel):
    """A task's result; stored as JSON in its run record."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    @property
    def shortfall(self) -> str | None:
        """Why a run that succeeded did not do what it was sent for; None if it did.

        Override it in a task whose runs may legitimately do nothing, with a text that many runs share: `nexus inspect
        stats` counts them, and `nexus status` lists a task if most of its runs fall short.
        """
        return None


class NoArguments(Arguments):
    """Arguments of a task that takes none."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is retried, and how long it waits: exponential backoff with full jitter.

    Waits before retry n (1, 2, ...) are uniform in [0, min(cap, base x 2^(n-1))] seconds, so the jitter remains at the
    cap (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015). `give_up_on` lists the class names of
    exceptions that are never retried.
    """

    max_retries: int = 3
    base: float = 60.0
    cap: float = 900.0
    give_up_on: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not (0 <= self.max_retries <= MOST_RETRIES and 0 <= self.base < math.inf and 0 <= self.cap <= LONGEST_WAIT):
            raise ValueError(
                f"{self}: numbers must be 0 or more, max_retries at most {MOST_RETRIES}, and the cap at most a year "
                f"({LONGEST_WAIT})"
            )

    def retries(self, error: BaseException, attempt: int) -> bool:
        """Whether another attempt follows attempt number `attempt` (from 1), which ended in `error`."""
        names = {kind.__name__ for kind in type(error).__mro__}
        return attempt <= self.max_retries and not names & self.give_up_on

    def wait(self, attempt: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1)."""
        return uniform(0.0, min(self.cap, self.base * 2.0 ** min(attempt - 1, 32)))


@dataclass(frozen=True, slots=True)
class Schedule:
    """When EventBridge sends a task, in UTC: a `cron(...)` or `rate(...)` expression and its meaning."""

    expression: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Unique:
    """One live run at a time per value of `key` (the argument fields by which two runs count as the same).

    `skip` ends the second run as REVOKED, naming the live one; `coalesce` lets one more run wait for the live one to
    end and revokes the rest. A holder counts as dead `lease` seconds after its last sign of life.
    """

    key: tuple[str, ...] = ()
    on_conflict: Literal["skip", "coalesce"] = "skip"
    lease: int = 6 * 3600

    def __post_init__(self) -> None:
        if self.lease <= 0:
            raise ValueError(f"{self}: the lease must be over 0")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `per_second` runs of this task start each second, across all sandboxes.

    SQS delivers nothing from a queue with about 120,000 messages in flight, and those of runs that wait for their start
    are in flight. So a task whose backlog may be larger needs a queue of its own.
    """

    per_second: float

    def __post_init__(self) -> None:
        if not 0 < self.per_second < math.inf:
            raise ValueError(f"{self}: it must be a finite number over 0")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a task may spend in a day (UTC): dollars by `nexus.prices`, attempts, or both; None means no limit.

    Runs beyond that wait for the next day. An operator can set other limits at any time for a task whose `budget` is
    not None: `Budget()` has no limit until then.
    """

    dollars: float | None = None
    runs: int | None = None

    def __post_init__(self) -> None:
        if not all(limit is None or 0 <= limit < math.inf for limit in (self.dollars, self.runs)):
            raise ValueError(f"{self}: numbers must be 0 or more")


@dataclass(frozen=True, slots=True, eq=False)
class TaskDefinition[A: Arguments, R: Result]:
    """A unit of background work. `time_limit` is in seconds; the end of the invocation may cut it shorter.

    `part` is the argument model (or a union of models) of the segments and phases that a fan-out of this task sends to
    itself; no other sender may send one. Without it, segments take `arguments`. `module` is the module whose import
    registers the implementation: by default the one named like the task.
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
    """Other queues that it sends to, itself or as the next link of a chain: its function's role must allow them."""

    sends_later: bool = False
    """It sends with a countdown over 15 minutes, or revokes such a run, so its function's role must allow schedules. So
    must that of a task with a budget, whose messages may wait for the next day.
    """

    on_upload: bool = False
    """An S3 upload starts it: it takes `bucket`, `key`, `version_id` (None without versioning) and `event_order`."""

    everywhere: bool = False
    """Every queue serves it, not only `queue`."""

    searchable: tuple[str, ...] = ("user_id", "post_id")
    """The run history is indexed by the first of these arguments that a run has; the others only filter the results."""

    secret: tuple[str, ...] = ()
    """Arguments whose values no run record and no fault of an argument shows. They exist only in the message and in its
    dead letter.
    """

    def __post_init__(self) -> None:
        if not self.time_limit > 0:
            raise ValueError(f"{self.name}: the time limit is {self.time_limit}: it must be over 0")
        named = {*self.secret, *(self.unique.key if self.unique else ())}
        if named and (unknown := named - self.arguments.model_fields.keys()):
            raise ValueError(f"{self.name}: {min(unknown)} is secret or unique, but not one of the arguments")
        if both := set(self.searchable) & set(self.secret):
            raise ValueError(
                f"{self.name}: {min(both)} is both searchable and secret, but searchable values are stored"
            )
        if self.secret and (self.part is not None or (self.unique and self.unique.on_conflict == "coalesce")):
            raise ValueError(
                f"{self.name}: a task with secrets cannot have parts or coalesce runs: both store the arguments"
            )

    def without_secrets(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments with secret values hidden, for storing and showing."""
        return {name: HIDDEN if name in self.secret else value for name, value in arguments.items()}

    def served_by(self, queue: str) -> bool:
        """Whether the queue's function runs this task."""
        return self.everywhere or queue == self.queue

    def check(self, arguments: Mapping[str, Any]) -> A:
        """The arguments as their model. Raises InvalidMessage listing each field and its fault."""
        checked: A = self._checked(self.arguments, arguments)
        return checked

    def check_part(self, arguments: Mapping[str, Any]) -> Any:
        """The arguments of a segment or phase, as a model of `part`. Raises InvalidMessage like `check`."""
        return self._checked(self.arguments if self.part is None else self.part, arguments)

    def to_send(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as a message carries them, which `check` accepts again. Raises InvalidMessage like `check`."""
        sent = plain(self.check(arguments), self.name, exclude_defaults=True)
        self.check(sent)
        return sent

    def part_to_send(self, part: BaseModel) -> dict[str, Any]:
        """The same for a segment's or phase's arguments."""
        sent = plain(part, self.name, exclude_defaults=True)
        self.check_part(sent)
        return sent

    def some_to_send(self, arguments: Mapping[str, Any], missing: str) -> dict[str, Any]:
        """The same for all arguments but one, which exists only when the task runs."""
        try:
            _validator(self.arguments)(dict(arguments))
        except ValidationError as error:
            wrong = [fault for fault in faults_of(error) if fault["loc"][:1] != (missing,)]
            if wrong:
                raise InvalidMessage(f"{self.name}: {described(wrong, self.secret)}", kinds(wrong)) from None
        return plain(_Given(**arguments), self.name)

    def result_to_keep(self, result: R) -> str:
        """A result as JSON for its record. Raises InvalidMessage for a result that could not be read back."""
        kept = plain(result, "result")
        self._checked(self.result, kept)
        return compact(kept)

    def _checked(self, model: Any, arguments: Mapping[str, Any]) -> Any:
        try:
            return _validator(model)(dict(arguments))
        except ValidationError as error:
            faults = faults_of(error)
            raise InvalidMessage(f"{self.name}: {described(faults, self.secret)}", kinds(faults)) from None

    def __repr__(self) -> str:
        return f"<Task {self.name} on {self.queue or 'every queue'}>"


class _Given(BaseModel):
    """Arguments that skip validation."""

    model_config = ConfigDict(extra="allow", defer_build=True)


@cache
def _validator(model: Any) -> Callable[[Any], Any]:
    """The validator of a model, or of a union of models."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model.model_validate
    return TypeAdapter(model).validate_python
