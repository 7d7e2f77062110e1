"""The catalogue of a Django project: a function's NEXUS_CATALOGUE, and the value of its stack's output `Catalogue`.

Sets Django up from DJANGO_SETTINGS_MODULE, imports the modules that may contain tasks and their submodules, and
declares each task that uses this package's backend. A task may be enqueued to any queue of its backend, so every
queue's function serves them all.
"""

import asyncio
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import django
from django.apps import apps
from django.core.cache import caches
from django.db import connections
from django.tasks import TaskContext, task_backends
from django.tasks.signals import task_finished, task_started
from django.utils import timezone, translation
from django.utils.json import normalize_json

from nexus import clock
from nexus.django import conf
from nexus.django.backend import Backend
from nexus.django.calling import called
from nexus.django.tasks import AnyTask, Call, Returned, Task, find, result_of
from nexus.errors import ConfigurationError, InvalidMessage, Reject, UnknownTask
from nexus.registry import Implementation, registry
from nexus.runs.record import RunError, RunRecord
from nexus.settings import settings
from nexus.worker.run import Run

if not apps.ready:
    django.setup()


def backends() -> dict[str, Backend]:
    """This package's backends in TASKS, by alias."""
    found = {alias: task_backends[alias] for alias in task_backends}
    return {alias: backend for alias, backend in found.items() if isinstance(backend, Backend)}


def discovered() -> Iterator[Task]:
    """The tasks in the modules that may contain them, each at its own path: another name is for a changed one.

    Raises ConfigurationError if a module cannot be imported.
    """
    for module in dict.fromkeys(chain.from_iterable(map(_with_submodules, conf.modules()))):
        for name, value in list(vars(importlib.import_module(module)).items()):
            if isinstance(value, Task) and value.module_path == f"{module}.{name}":
                yield value


def _with_submodules(name: str) -> Iterator[str]:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"NEXUS: MODULES: {name} cannot be imported: {error}") from error
    yield name
    for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{name}."):
        yield found.name


def perform(call: Call, run: Run) -> Returned:
    """Calls a Django task's function. The worker runs this.

    Closes connections before and after, as Django does around a request, so that one that a database or cache closed
    while the sandbox was frozen is not reused. Deactivates a language or time zone that the task has activated. In
    eager mode all of these are the caller's and stay as they are. Sends task_started, and task_finished if no further
    attempt follows. What a receiver of task_finished raises is only logged: a retry would repeat work that is done.
    """
    task = find(run.task)
    record = RunRecord(
        id=run.id,
        status="STARTED",
        task=run.task,
        args={"args": call.args, "kwargs": call.kwargs},
        attempts=run.attempt,
        started_at=clock.now(),
    )
    result = result_of(task, record, task.backend)
    sender = type(task.get_backend())
    callers = _callers_connections()
    _close_old_connections(callers)
    if not settings().backend:
        caches.close_all()
    try:
        task_started.send(sender, task_result=result)
        before: tuple[Any, ...] = (TaskContext(task_result=result),) if task.takes_context else ()
        value = normalize_json(called(task, run, (*before, *call.args), call.kwargs))
    except (Exception, SystemExit, GeneratorExit, asyncio.CancelledError) as error:
        if not _tried_again(task, run, error):
            failed = replace(record, status="FAILURE", error=RunError.of(error), ended_at=clock.now())
            task_finished.send_robust(sender, task_result=result_of(task, failed, task.backend))
        raise
    else:
        ended = result_of(task, replace(record, status="SUCCESS", ended_at=clock.now()), task.backend)
        object.__setattr__(ended, "_return_value", value)
        task_finished.send_robust(sender, task_result=ended)
        return Returned(value=value)
    finally:
        _close_old_connections(callers)
        if not settings().backend:
            translation.deactivate()
            timezone.deactivate()


def _callers_connections() -> frozenset[str]:
    """The aliases of connections that are open before a task of eager mode: the caller may be reading from them."""
    if not settings().backend:
        return frozenset()
    return frozenset(one.alias for one in connections.all(initialized_only=True) if one.connection is not None)


def _close_old_connections(callers: frozenset[str]) -> None:
    """Like Django's own, but leaves the caller's connections alone, and those in a transaction, which is a test's."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block and connection.alias not in callers:
            connection.close_if_unusable_or_obsolete()


def _tried_again(task: AnyTask, run: Run, error: BaseException) -> bool:
    retryable = not isinstance(error, Reject | InvalidMessage | UnknownTask)
    return retryable and isinstance(task, Task) and task.definition.retry.retries(error, run.attempt)


conf.apply()
QUEUES = {queue: 5 for backend in backends().values() for queue in sorted(backend.queues)}
_tasks = [replace(task.definition, everywhere=True) for task in discovered()]
registry.declare(__name__, _tasks)
for _task in _tasks:
    registry.implement(Implementation(_task, perform))
