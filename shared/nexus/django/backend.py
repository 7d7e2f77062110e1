"""The backend for `django.tasks`: checks and enqueues tasks, and reads results."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any

from asgiref.sync import sync_to_async
from django.core import checks
from django.tasks import TaskResult as DjangoTaskResult
from django.tasks import TaskResultStatus
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued

from nexus.client import AsyncResult, asynchronous, send, send_many
from nexus.definitions import MOST_RETRIES
from nexus.django import conf
from nexus.django.tasks import AnyTask, Task, TaskResult, enqueued_at, find, result_of
from nexus.errors import LONGEST_WAIT, ConfigurationError
from nexus.runs.record import RunRecord
from nexus.settings import settings

WORKER_PACKAGE = "aws_lambda_powertools"
"""What running a task imports and sending one does not; it comes with the `worker` extra."""


def _are_waits(base: float, cap: float) -> bool:
    return 0 <= base <= cap <= LONGEST_WAIT


_RULES: Sequence[tuple[Callable[[Task], bool], str]] = (
    (
        lambda task: 1 <= task.max_attempts <= MOST_RETRIES + 1 and int(task.max_attempts) == task.max_attempts,
        f"max_attempts must be a whole number from 1 to {MOST_RETRIES + 1}.",
    ),
    (lambda task: 0 < task.time_limit <= 900, "time_limit must be over 0 and at most Lambda's 900 seconds."),
    (lambda task: _are_waits(*task.backoff), "backoff must be (base, cap) in seconds, such as (10, 600)."),
    (
        lambda task: task.rate_limit is None or 0 < task.rate_limit < inf,
        "rate_limit must be a number over 0, of runs a second.",
    ),
    (
        lambda task: (
            not task.secret
            or {*task.secret} <= {one.name for one in task.parameters if one.kind is not one.VAR_KEYWORD}
        ),
        "secret must be a tuple of names of the task's parameters.",
    ),
)
"""What must hold for a task's policies, and what says so."""


class Backend(BaseTaskBackend):
    """Tasks run on Lambda, from the SQS queue of their `queue_name`.

    A queue's priority is its concurrency, not an order within it, so tasks with a priority other than 0 are refused:
    use another queue. OPTIONS must be empty.
    """

    task_class = Task
    supports_defer = True
    supports_async_task = True
    supports_get_result = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, dict(params))
        self._fault: ConfigurationError | None = None
        try:
            conf.apply()
        except ConfigurationError as error:
            self._fault = error  # `manage.py check` makes this object too, and then reports the fault

    def validate_task(self, task: AnyTask) -> None:
        """Raises InvalidTask if the task cannot run here, by Django's own rules or the runtime's."""
        if self.queues and task.queue_name not in self.queues:
            known = ", ".join(sorted(self.queues))
            raise InvalidTask(f"Queue '{task.queue_name}' is not valid for backend {self.alias}: QUEUES has {known}.")
        super().validate_task(task)
        if not task.func.__qualname__.isidentifier():  # a lambda's or a class's function has no importable path
            raise InvalidTask("Task function must be defined at a module level.")
        if len(task.module_path) > 100 or not task.module_path.isascii():
            raise InvalidTask(f"{task.module_path} must be ASCII, and at most 100 characters.")
        if not isinstance(task, Task):
            return
        for holds, rule in _RULES:
            try:
                kept = holds(task)
            except (TypeError, ValueError, OverflowError):  # of another type, or not a number
                kept = False
            if not kept:
                raise InvalidTask(rule)

    def enqueue(self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Sends the task.

        Raises SendFailed if AWS does not accept it in time, TypeError for arguments that the task does not take or that
        are not JSON.
        """
        result = self._send(task, args, kwargs)
        task_enqueued.send(type(self), task_result=result)
        return result

    async def aenqueue(self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """`enqueue` for a coroutine, without blocking the event loop."""
        if settings().backend == conf.EAGER:
            # The task runs in the thread of the caller's own ORM calls, and sees what their transaction has written.
            result = await sync_to_async(self._send)(task, args, kwargs)
        else:
            result = await asynchronous(self._send)(task, args, kwargs)
        await task_enqueued.asend(type(self), task_result=result)
        return result

    def enqueue_many(self, calls: Iterable[tuple[AnyTask, Sequence[Any], Mapping[str, Any]]]) -> Sequence[TaskResult]:
        """Sends the tasks in order, ten per request. A task with `run_after` is refused. Raises like `enqueue`."""
        given = [(self.runtime_task(task), args, kwargs) for task, args, kwargs in calls]
        if any(task.run_after is not None for task, _, _ in given):
            raise InvalidTask("enqueue_many does not accept run_after: enqueue such a task by itself.")
        handles = send_many([task.signature(args, kwargs) for task, args, kwargs in given])
        results = [
            self._enqueued(task, handle.id, args, kwargs)
            for (task, args, kwargs), handle in zip(given, handles, strict=True)
        ]
        for result in results:
            task_enqueued.send(type(self), task_result=result)
        return results

    def get_result(self, result_id: str) -> TaskResult:
        """Raises TaskResultDoesNotExist if the run was never sent, has expired, or is not a task of this project."""
        self._require_settings()
        return self._found(AsyncResult(str(result_id)).record())

    async def aget_result(self, result_id: str) -> TaskResult:
        """`get_result` for a coroutine."""
        self._require_settings()
        return self._found(await AsyncResult(str(result_id)).arecord())

    def check(self, **_: Any) -> list[checks.CheckMessage]:
        """The messages of `manage.py check` about TASKS."""
        found: list[checks.CheckMessage] = []
        for queue in sorted(self.queues):
            if not queue or len(queue) > 40 or not all((c.isascii() and c.isalnum()) or c in "-_" for c in queue):
                hint = "SQS allows letters, digits, hyphens and underscores. The stack's name is put in front."
                fault = f"QUEUES of {self.alias}: {queue!r} is not a valid queue name"
                found.append(checks.Error(fault, hint, id="nexus.E004"))
        if not self.queues:
            fault = f"QUEUES of {self.alias} is empty"
            found.append(checks.Error(fault, "List the queue names: each is an SQS queue.", id="nexus.E005"))
        if self.options:
            names = ", ".join(self.options)
            found.append(checks.Warning(f"OPTIONS of {self.alias}: {names} has no effect", id="nexus.W001"))
        return found

    def runtime_task(self, task: AnyTask) -> Task:
        """The task with the runtime's policies. Raises InvalidTask if it cannot run here, ConfigurationError if NEXUS
        is invalid."""
        self._require_settings()
        self.validate_task(task)
        if not isinstance(task, Task):
            raise InvalidTask(f"{task.module_path} belongs to a backend other than {self.alias}.")
        if not conf.allows(task.module_path):
            raise InvalidTask(f"{task.module_path} is in no module that may contain tasks: see NEXUS and its MODULES.")
        if not isinstance(getattr(sys.modules.get(task.func.__module__), task.name, None), Task):
            raise InvalidTask(f"{task.module_path} is not a task: a task must have the name of its function.")
        return task

    def _require_settings(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _send(self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        sent = self.runtime_task(task)
        handle = send(sent.signature(args, kwargs), eta=sent.due)
        return self._enqueued(sent, handle.id, args, kwargs)

    def _enqueued(self, task: Task, run_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        return DjangoTaskResult(
            task=task,
            id=run_id,
            status=TaskResultStatus.READY,
            enqueued_at=enqueued_at(run_id),
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )

    def _found(self, record: RunRecord) -> TaskResult:
        if record.status == "UNKNOWN":
            raise TaskResultDoesNotExist(record.id)
        try:
            task = find(record.task)
        except LookupError as error:
            raise TaskResultDoesNotExist(f"{record.id}: {error}") from error
        return result_of(task, record, self.alias)


def runtime_task(task: AnyTask) -> Task:
    """The task as its backend sends it. Raises TypeError for another package's backend, InvalidTask."""
    backend = task.get_backend()
    if not isinstance(backend, Backend):
        raise TypeError(f"{task.module_path} uses {type(backend).__name__}, which is not nexus.django.Backend")
    return backend.runtime_task(task)


def faults_of_settings() -> Sequence[checks.CheckMessage]:
    """The messages of `manage.py check` about NEXUS."""
    from importlib.util import find_spec

    try:
        conf.apply()
        chosen = settings()
    except ConfigurationError as error:
        return [checks.Error(str(error), "See nexus.django.conf.", id="nexus.E001")]
    found: list[checks.CheckMessage] = []
    if not chosen.stack and not chosen.backend:
        hint = (
            'Name the stack, NEXUS = {"STACK": "myapp-prod", ...}, or set "EAGER": True to run tasks in this process.'
        )
        found.append(checks.Error("NEXUS has no STACK", hint, id="nexus.E002"))
    if chosen.backend == conf.EAGER and find_spec(WORKER_PACKAGE) is None:
        fault = f"NEXUS: EAGER runs tasks in this process, which needs {WORKER_PACKAGE}"
        found.append(checks.Error(fault, 'pip install "./shared[worker]", or name a STACK.', id="nexus.E006"))
    for module in conf.modules():
        try:
            there = find_spec(module) is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            found.append(checks.Error(f"NEXUS: MODULES: there is no module {module}", id="nexus.E003"))
    return found
