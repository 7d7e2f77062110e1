"""The catalogue and the queues of the deployment that this process is connected to.

The stack's output `Catalogue` names the modules (with commas between them), unless NEXUS_CATALOGUE does; its outputs
`<Queue>QueueUrl` give its queues. So every application's catalogue is operated in the same way.
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
"""The value that this module gave NEXUS_CATALOGUE, for the registry to read. Any other value is the user's."""


def use(modules: str, queues: Sequence[str]) -> None:
    """Sets what a deployment serves, from its outputs. The user's own NEXUS_CATALOGUE overrides `modules`."""
    from nexus.settings import settings

    global _queues, _of_the_stack  # noqa: PLW0603 - one process is connected to one deployment
    if os.environ.get("NEXUS_CATALOGUE", "") in ("", _of_the_stack):
        os.environ["NEXUS_CATALOGUE"] = _of_the_stack = modules
    _queues = tuple(queues)
    settings.cache_clear()


def use_within(modules: str, queues: Sequence[str]) -> None:
    """The same for a process that the command does not own, such as a web server: its environment is left alone.

    Raises ConfigurationError when a module cannot be imported.
    """
    from nexus.registry import registry

    global _queues, _named
    _named, _queues = tuple(module.strip() for module in modules.split(",") if module.strip()), tuple(queues)
    registry.load(_named)


def modules() -> tuple[str, ...]:
    """The names of the catalogue's modules; empty if the stack does not name any."""
    from nexus.settings import settings

    return settings().catalogue or _named


def missing() -> Problem | None:
    """Why no catalogue is available; None when one is."""
    try:
        tasks()
    except Problem as problem:
        return problem
    return None


def tasks() -> "Mapping[str, Task[Any, Any]]":
    """The deployment's tasks by name, in order of declaration. Raises Problem if no catalogue is available.

    This process may have imported other catalogues, such as the network's beside a Django project's.
    """
    from nexus.errors import ConfigurationError
    from nexus.registry import registry

    if not modules():
        raise Problem(
            "The stack does not say which tasks it serves",
            "It has no output `Catalogue`.",
            "Add it to the template, or export NEXUS_CATALOGUE=package.module.",
        )
    try:
        return {name: task for name, task in registry.tasks().items() if registry.serves(name)}
    except ConfigurationError as error:
        do = "Run nexus where the application is installed, or add its folder to PYTHONPATH."
        raise Problem(f"The catalogue {', '.join(modules())} cannot be imported", str(error), do) from None


def served_by(queue: str) -> "Mapping[str, Task[Any, Any]]":
    """The tasks that a queue's function runs, including ping. Raises Problem if no catalogue is available."""
    return {name: task for name, task in tasks().items() if task.served_by(queue)}


def queues() -> tuple[str, ...]:
    """The stack's queues, most urgent first; sorted by name if no catalogue is available."""
    return tuple(sorted(_queues, key=lambda queue: (-(priority(queue) or 0), queue)))


def priority(queue: str) -> int | None:
    """A queue's priority; None if the catalogue does not give one."""
    from nexus.registry import registry

    return None if missing() else registry.priority(queue)


def upload_queue() -> str | None:
    """The queue whose function S3 invokes directly; None if uploads start no task, or it is unknown."""
    return None if missing() else next((task.queue for task in tasks().values() if task.on_upload), None)
