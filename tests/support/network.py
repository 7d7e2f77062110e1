"""The network's own tasks, without those that other tests declare in the same process."""

from collections.abc import Mapping
from typing import Any

from nexus.builtin import ping
from nexus.tasks import Task
from social import catalogue


def tasks() -> Mapping[str, Task[Any, Any]]:
    """The tasks of social.catalogue, and ping."""
    declared = [value for value in vars(catalogue).values() if isinstance(value, Task)]
    return {task.name: task for task in [*declared, ping]}


def served_by(queue: str) -> Mapping[str, Task[Any, Any]]:
    """The tasks that a queue's function serves."""
    return {name: task for name, task in tasks().items() if task.served_by(queue)}
