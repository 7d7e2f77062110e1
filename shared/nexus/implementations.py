"""Which function does the work of which task: joined by `@implements`, imported when a task is first called."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nexus.definitions import Arguments, Result, TaskDefinition
from nexus.errors import ConfigurationError

if TYPE_CHECKING:
    from nexus.run import Continuation, Run


@dataclass(frozen=True, slots=True)
class Implementation:
    """A task and its code; `reduce` makes one result of a fan-out's many."""

    task: TaskDefinition[Any, Any]
    function: "Callable[[Any, Run], Any]"
    reduce: Callable[[Sequence[Any]], Any] | None = None

    def reduced(self, parts: Sequence[Any]) -> Any:
        """The parts as one result. A model with an `add` method is summed by it when no reducer was given."""
        if self.reduce is not None:
            return self.reduce(parts)
        return parts[0].add(*parts[1:])

    @property
    def reducible(self) -> bool:
        return self.reduce is not None or hasattr(self.task.result, "add")


_joined: dict[str, Implementation] = {}


def implements[A: Arguments, R: Result](
    task: TaskDefinition[A, R], *, reduce: Callable[[Sequence[R]], R] | None = None
) -> "Callable[[Callable[[A, Run], R | Continuation]], Callable[[A, Run], R | Continuation]]":
    """Marks a function as the work of a task. It takes (arguments model, run) and returns the result model.

    `reduce` takes the results of all segments, in order, once all have succeeded; a job of two phases has it called
    for each phase, the first phase's result leading the second's parts.
    """

    def join(function: "Callable[[A, Run], R | Continuation]") -> "Callable[[A, Run], R | Continuation]":
        _joined[task.name] = Implementation(task, function, reduce)
        return function

    return join


def implementation(name: str) -> Implementation:
    """The implementation of a task, imported from the module of its name if it is not yet here.

    Raises ConfigurationError when that module does not join the task.
    """
    if name not in _joined:
        importlib.import_module(name)
    if name not in _joined:
        raise ConfigurationError(f"module {name} has no function marked @implements(catalogue.{name})")
    return _joined[name]


def task_of(function: Callable[..., Any]) -> TaskDefinition[Any, Any]:
    """The task that a function implements."""
    for joined in _joined.values():
        if joined.function is function:
            return joined.task
    raise ConfigurationError(f"{function.__name__} is not marked @implements(...)")
