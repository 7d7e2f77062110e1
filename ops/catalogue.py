"""The catalogue and the queues of the deployment that this process is connected to.

The stack's output `Catalogue` names the modules (with commas between them), unless NEXUS_CATALOGUE does; its outputs
`<Queue>QueueUrl` are its queues. So whatever an application's catalogue declares is operated alike.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ops.problems import Problem

if TYPE_CHECKING:
    from nexus.tasks import Task

_queues: tuple[str, ...] = ()
_named: tuple[str, ...] = ()
_of_the_stack = ""
"""What NEXUS_CATALOGUE was set to here, for the registry to read; anything else in it is the person's own."""


def use(modules: str, queues: Sequence[str]) -> None:
    """What a deployment serves, as its outputs tell; a NEXUS_CATALOGUE of the person's own goes before `modules`."""
    from nexus.settings import settings

    global _queues, _of_the_stack  # noqa: PLW0603 - one process is connected to one deployment
    if os.environ.get("NEXUS_CATALOGUE", "") in ("", _of_the_stack):
        os.environ["NEXUS_CATALOGUE"] = _of_the_stack = modules
    _queues = tuple(queues)
    settings.cache_clear()


def use_within(modules: str, queues: Sequence[str]) -> None:
    """The same for a process that is not the command's alone, as a web server is: its variables stay as they are.

    Raises ConfigurationError when a module cannot be imported.
    """
    from nexus.registry import registry

    global _queues, _named
    _named, _queues = tuple(module.strip() for module in modules.split(",") if module.strip()), tuple(queues)
    registry.load(_named)


def modules() -> tuple[str, ...]:
    """The names of the catalogue's modules; empty when the stack does not tell."""
    from nexus.settings import settings

    return settings().catalogue or _named


def missing() -> Problem | None:
    """Why there is no catalogue to go by; None when there is one."""
    try:
        tasks()
    except Problem as problem:
        return problem
    return None


def tasks() -> "Mapping[str, Task[Any, Any]]":
    """Every task by name, in order of declaration. Raises Problem when there is no catalogue to go by."""
    from nexus.errors import ConfigurationError
    from nexus.registry import registry

    if not modules():
        raise Problem(
            "The stack does not say which tasks it serves",
            "It has no output `Catalogue`.",
            "Add it to the template, or export NEXUS_CATALOGUE=package.module.",
        )
    try:
        return registry.tasks()
    except ConfigurationError as error:
        do = "Run nexus where the application is installed, or put its folder into PYTHONPATH."
        raise Problem(f"The catalogue {', '.join(modules())} cannot be imported", str(error), do) from None


def served_by(queue: str) -> "Mapping[str, Task[Any, Any]]":
    """The tasks that a queue's function runs, ping among them. Raises Problem."""
    return {name: task for name, task in tasks().items() if task.served_by(queue)}


def queues() -> tuple[str, ...]:
    """The stack's queues, the most urgent first; by name where there is no catalogue to go by."""
    return tuple(sorted(_queues, key=lambda queue: (-(priority(queue) or 0), queue)))


def priority(queue: str) -> int | None:
    """A queue's weight; None where the catalogue does not tell."""
    from nexus.registry import registry

    return None if missing() else registry.priority(queue)


def upload_queue() -> str | None:
    """The queue whose function S3 invokes past the queue; None when uploads start no task, or nobody can tell."""
    return None if missing() else next((task.queue for task in tasks().values() if task.on_upload), None)
