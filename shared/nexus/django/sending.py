"""Enqueueing in ways that Django lacks: after the transaction commits, and many tasks at once."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from django.db import transaction
from django.tasks import task_backends

from nexus.django.backend import Backend
from nexus.django.tasks import AnyTask, TaskResult


def enqueue_on_commit(task: AnyTask, /, *args: Any, using: str | None = None, **kwargs: Any) -> None:
    """Enqueues the task once the transaction of the database `using` has committed; immediately if there is none.

    The default is `default`, as in Django's `transaction.on_commit`: name the database if the rows are in another.

    What could never be sent raises here: TypeError for arguments that the task does not take or that are not JSON,
    InvalidTask, InvalidMessage if they are too large. Nothing is sent if the transaction is rolled back. A send that
    fails after the commit raises SendFailed out of the commit, and Django then calls none of the later on_commit
    functions; if that is not acceptable, write the task into the outbox (`nexus.django.models.Outbox.add`).
    """
    backend = task.get_backend()
    if isinstance(backend, Backend):
        backend.runtime_task(task).signature(args, kwargs)
    transaction.on_commit(partial(task.enqueue, *args, **kwargs), using=using)


def enqueue_many(calls: Iterable[tuple[AnyTask, Sequence[Any], Mapping[str, Any]]]) -> Sequence[TaskResult]:
    """Enqueues (task, args, kwargs) of one backend, ten per request. Returns the results in order.

    Raises TypeError if they belong to several backends, or to one that is not this package's.
    """
    given = list(calls)
    aliases = {task.backend for task, _, _ in given}
    if not given:
        return []
    if len(aliases) > 1:
        raise TypeError(f"the tasks belong to several backends: {', '.join(sorted(aliases))}")
    backend = task_backends[aliases.pop()]
    if not isinstance(backend, Backend):
        raise TypeError(f"{type(backend).__name__} has no enqueue_many")
    return backend.enqueue_many(given)
