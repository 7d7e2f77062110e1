"""The tasks that this process knows by name, and the functions that implement them.

A catalogue is a module that declares tasks. It registers itself on its last line. A process that starts from names
alone (a function, the operator's command) imports the catalogues that NEXUS_CATALOGUE lists:

    QUEUES = {"reports": 5}                                   # priorities; lists show the highest first
    make_report = Task(name="make_report", queue="reports", arguments=..., result=..., summary=...)
    register(__name__)

The implementation registers itself with `@implements(make_report)`, in the task's module, which is imported when the
task first runs.
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nexus.definitions import Arguments, Result, TaskDefinition
from nexus.errors import ConfigurationError, UnknownTask
from nexus.settings import settings

if TYPE_CHECKING:
    from nexus.tasks import Task
    from nexus.worker.run import Continuation, Run

BUILT_IN = "nexus.builtin"
USUAL_PRIORITY = 5

type Work = "Callable[[Any, Run], Any]"


@dataclass(frozen=True, slots=True)
class Implementation:
    """The code of a task. `part` takes the arguments of its segments and phases; `reduce` combines results into one."""

    task: TaskDefinition[Any, Any]
    function: Work
    part: Work | None = None
    reduce: Callable[[Sequence[Any]], Any] | None = None

    def function_for(self, *, part: bool) -> Work:
        """The function that runs the task itself, or one of its parts."""
        return self.part if part and self.part is not None else self.function

    def reduced(self, parts: Sequence[Any]) -> Any:
        """Combines the parts' results: by the reducer, or else by the result model's `add` method."""
        if self.reduce is not None:
            return self.reduce(parts)
        return parts[0].add(*parts[1:])

    @property
    def reducible(self) -> bool:
        return self.reduce is not None or hasattr(self.task.result, "add")


class Registry:
    """Catalogues and implementations. A process has one, `registry`; a test may substitute another."""

    def __init__(self) -> None:
        self._declared: dict[str, tuple[Any, str]] = {}
        self._priorities: dict[str, int] = {}
        self._implementations: dict[str, Implementation] = {}
        self._parts: dict[str, Work] = {}
        self._loaded: set[str] = set()

    # --- catalogues ---

    def register(self, module: str) -> None:
        """Adds the tasks and the QUEUES of an imported module. Idempotent.

        Raises ConfigurationError if another catalogue has declared a task of the same name.
        """
        values = list(vars(sys.modules[module]).values())
        self.declare(module, [value for value in values if isinstance(value, TaskDefinition)])
        self._priorities |= getattr(sys.modules[module], "QUEUES", {})
        self._loaded.add(module)

    def declare(self, module: str, tasks: Iterable[TaskDefinition[Any, Any]]) -> None:
        """Adds tasks that a catalogue generates rather than names. Raises ConfigurationError like `register`."""
        for task in tasks:
            known, where = self._declared.get(task.name, (task, module))
            if known is not task and where != module:
                raise ConfigurationError(f"task {task.name} is declared twice: in {where} and in {module}")
            self._declared[task.name] = (task, where)

    def load(self, modules: Sequence[str]) -> None:
        """Imports these catalogues. Raises ConfigurationError if one cannot be imported."""
        for module in modules:
            if module in self._loaded:
                continue
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                raise ConfigurationError(
                    f"NEXUS_CATALOGUE: the catalogue {module} cannot be imported: {error}"
                ) from error
            self.register(module)

    def tasks(self) -> "Mapping[str, Task[Any, Any]]":
        """Every task by name, in order of declaration; the built-in ones last."""
        self.load((*settings().catalogue, BUILT_IN))
        found = sorted(self._declared.values(), key=lambda declared: declared[1] == BUILT_IN)
        return {task.name: task for task, _ in found}

    def task(self, name: str) -> "Task[Any, Any]":
        """The task of this name. Raises UnknownTask."""
        task = self.known(name)
        if task is None:
            raise UnknownTask(
                f"task: {name!r} is in no catalogue ({', '.join(settings().catalogue) or 'none is named'})"
            )
        return task

    def known(self, name: str) -> "Task[Any, Any] | None":
        """The task of this name; None if no catalogue has it."""
        return self._declared[name][0] if name in self._declared else self.tasks().get(name)

    def queues(self) -> Sequence[str]:
        """Every queue of the catalogues, the highest priority first."""
        tasks = [task for task in self.tasks().values() if not task.everywhere and self.serves(task.name)]
        named = settings().catalogue
        stated = [name for module in named for name in getattr(sys.modules[module], "QUEUES", {})]
        found = dict.fromkeys([*(stated if named else self._priorities), *(task.queue for task in tasks)])
        return sorted(found, key=lambda queue: -self.priority(queue))

    def priority(self, queue: str) -> int:
        """The queue's weight, from 1; 9 is the most urgent."""
        return self._priorities.get(queue, USUAL_PRIORITY)

    def served_by(self, queue: str) -> "Mapping[str, Task[Any, Any]]":
        """The allow-list of a queue's function: the deployment's tasks of that queue, and the built-in ones."""
        return {name: task for name, task in self.tasks().items() if task.served_by(queue) and self.serves(name)}

    def serves(self, name: str) -> bool:
        """Whether the deployment that this process is configured for serves the task: True without NEXUS_CATALOGUE."""
        named = settings().catalogue
        if not named:
            return True
        served = (*named, BUILT_IN)
        self.load(served)
        return name in self._declared and self._declared[name][1] in served

    # --- implementations ---

    def implement(self, implementation: Implementation) -> None:
        """Registers a task's function, and keeps the function of its parts if that is already registered."""
        self._implementations[implementation.task.name] = implementation

    def implement_part(self, task: TaskDefinition[Any, Any], function: Work) -> None:
        """Registers the function of a task's segments and phases."""
        self._parts[task.name] = function

    def implementation(self, name: str) -> Implementation:
        """The implementation of a task, imported from the task's module on first use.

        Raises ConfigurationError if that module does not implement the task, does not exist, or lacks a package.
        """
        if name not in self._implementations:
            task = self.known(name)
            module = (task.module if task else None) or name
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                raise ConfigurationError(_missing(name, module, str(error.name), task.queue if task else "")) from error
            if name not in self._implementations:
                raise ConfigurationError(f"module {module} has no function marked @implements({name})")
        found = self._implementations[name]
        if found.part is None and name in self._parts:
            return Implementation(found.task, found.function, self._parts[name], found.reduce)
        return found

    def task_of(self, function: Callable[..., Any]) -> TaskDefinition[Any, Any]:
        """The task that a function implements. Raises ConfigurationError if it implements none."""
        for implementation in self._implementations.values():
            if implementation.function is function:
                return implementation.task
        raise ConfigurationError(f"{function.__name__} is not marked @implements(...)")


def _missing(name: str, module: str, absent: str, queue: str) -> str:
    if absent == module:
        return f"{name} cannot run here: no module {module} is on the path; set NEXUS_FUNCTIONS to functions/"
    return f"{name} needs {absent}, which is not installed: pip install -r functions/{queue}/requirements.txt"


registry = Registry()


def register(module: str) -> None:
    """The last line of a catalogue: `register(__name__)` makes its tasks known by name."""
    registry.register(module)


def implements[A: Arguments, R: Result](
    task: TaskDefinition[A, R], *, reduce: Callable[[Sequence[R]], R] | None = None
) -> "Callable[[Callable[[A, Run], R | Continuation]], Callable[[A, Run], R | Continuation]]":
    """Marks the function that implements a task. It takes (arguments model, run) and returns the result model.

    `reduce` takes the results of all segments, in order, once all have succeeded; a job of two phases calls it for each
    phase, with the first phase's result ahead of the second's parts.
    """

    def mark(function: "Callable[[A, Run], R | Continuation]") -> "Callable[[A, Run], R | Continuation]":
        registry.implement(Implementation(task, function, reduce=reduce))
        return function

    return mark


def implements_part[R: Result](
    task: TaskDefinition[Any, R],
) -> "Callable[[Callable[[Any, Run], R | Continuation]], Callable[[Any, Run], R | Continuation]]":
    """Marks the function of a task's segments and phases. It takes (a model of the task's `part`, run)."""

    def mark(function: "Callable[[Any, Run], R | Continuation]") -> "Callable[[Any, Run], R | Continuation]":
        registry.implement_part(task, function)
        return function

    return mark
