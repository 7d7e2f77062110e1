"""A Django task in the runtime's terms: its definition, its arguments, and its result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from inspect import Parameter, signature
from inspect import Signature as Parameters
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.tasks import Task as DjangoTask
from django.tasks import TaskResult as DjangoTaskResult
from django.tasks import TaskResultStatus
from django.tasks.base import TaskError
from django.utils import timezone
from django.utils.json import normalize_json
from django.utils.module_loading import import_string
from pydantic import Field

from nexus import clock
from nexus.client import Signature
from nexus.definitions import HIDDEN, Arguments, RateLimit, Result, RetryPolicy, Unique
from nexus.django import conf
from nexus.ids import made_at
from nexus.registry import registry
from nexus.runs import payloads
from nexus.runs.record import RunError, RunRecord
from nexus.tasks import Task as RuntimeTask

if TYPE_CHECKING:
    _Base = DjangoTask[..., Any]
else:
    _Base = DjangoTask

type AnyTask = DjangoTask[..., Any]
type TaskResult = DjangoTaskResult[..., Any]


class Call(Arguments):
    """The arguments of a Django task's call."""

    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)


class Returned(Result):
    """The return value of a Django task."""

    value: Any = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Definition(RuntimeTask[Call, Returned]):
    """The runtime's task for a Django task. `hidden` are its secret parameters; `positional` lists all parameter names
    by position, the last of which may stand for many (`*args`)."""

    hidden: frozenset[str] = frozenset()
    positional: tuple[str, ...] = ()

    def without_secrets(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The call for storing and showing: a secret parameter is hidden, however it is passed."""
        if not self.hidden:
            return arguments
        names = chain(self.positional, repeat(self.positional[-1] if self.positional else ""))
        args = [HIDDEN if name in self.hidden else value for name, value in zip(names, arguments.get("args", ()))]  # noqa: B905
        given = arguments.get("kwargs", {}).items()
        return {"args": args, "kwargs": {name: HIDDEN if name in self.hidden else value for name, value in given}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(_Base):
    """Django's task, with the runtime's policies. `@policy(...)` sets them; on Django 6.1, so does `@task(...)`.

    `max_attempts` counts all attempts: 1 by default, because only an idempotent task may be retried. `backoff` is
    (base, cap) in seconds of the waits between attempts. `time_limit` is in seconds per attempt. `unique` allows one
    live run with the same arguments; those by position and by name are not the same. `rate_limit` is how many runs
    start per second, across all workers. `secret` lists parameters whose values no run record, command or page shows;
    they exist only in the message.
    """

    max_attempts: int = 1
    backoff: tuple[float, float] = (60.0, 900.0)
    time_limit: float = 60.0
    unique: bool = False
    rate_limit: float | None = None
    secret: tuple[str, ...] = ()

    @property
    def parameters(self) -> Sequence[Parameter]:
        """The function's signature, without its context."""
        return list(_parameters(self.func, self.takes_context).parameters.values())

    @property
    def definition(self) -> Definition:
        """The runtime's task that sends this one to its queue."""
        return _definition(
            self.module_path,
            self.queue_name,
            (self.func.__doc__ or "").strip().partition("\n")[0],
            RetryPolicy(self.max_attempts - 1, *self.backoff),
            self.time_limit,
            Unique(("args", "kwargs")) if self.unique else None,
            None if self.rate_limit is None else RateLimit(self.rate_limit),
            frozenset(self.secret),
            tuple(one.name for one in self.parameters if one.kind in _POSITIONAL) if self.secret else (),
        )

    def signature(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Signature[Returned]:
        """The task with its arguments, checked.

        Raises TypeError if the function does not take them or they are not JSON, InvalidMessage if they are too large.
        """
        try:
            _parameters(self.func, self.takes_context).bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.module_path}: {error}") from None
        checked = [self._json(f"argument {number}", value) for number, value in enumerate(args, start=1)]
        named = {name: self._json(f"argument {name}", value) for name, value in kwargs.items()}
        definition = self.definition
        if registry.known(definition.name) is None:  # a web process has no catalogue, and must know what is secret
            registry.declare(conf.CATALOGUE, [replace(definition, everywhere=True)])
        return Signature.of(definition, {"args": checked, "kwargs": named})

    def _json(self, what: str, value: Any) -> Any:
        try:
            return normalize_json(value)
        except (TypeError, ValueError) as error:
            fault = f"{what} is not JSON ({error}): pass an id, a number or a string in its place"
            raise type(error)(f"{self.module_path}: {fault}") from None

    @property
    def due(self) -> datetime | None:
        """`run_after` as an aware time."""
        return None if self.run_after is None else aware(self.run_after)


@cache
def _definition(  # noqa: PLR0917 - the parameters are the cache key
    name: str,
    queue: str,
    summary: str,
    retry: RetryPolicy,
    time_limit: float,
    unique: Unique | None,
    rate_limit: RateLimit | None,
    hidden: frozenset[str],
    positional: tuple[str, ...],
) -> Definition:
    return Definition(
        name=name,
        queue=queue,
        arguments=Call,
        result=Returned,
        summary=summary,
        time_limit=time_limit,
        retry=retry,
        unique=unique,
        rate_limit=rate_limit,
        hidden=hidden,
        positional=positional,
        module=conf.CATALOGUE,
    )


@cache
def _parameters(func: Callable[..., Any], takes_context: bool) -> Parameters:
    """What callers of a task pass: its function's signature, without its context."""
    whole = signature(func)
    return whole.replace(parameters=list(whole.parameters.values())[int(takes_context) :])


_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)


def policy[T: AnyTask](
    *,
    max_attempts: int | None = None,
    backoff: tuple[float, float] | None = None,
    time_limit: float | None = None,
    unique: bool | None = None,
    rate_limit: float | None = None,
    secret: tuple[str, ...] | None = None,
) -> Callable[[T], T]:
    """A decorator above `@task` that sets these policies of `Task` on any version of Django.

    Raises TypeError for a task of another backend, InvalidTask for an invalid value.
    """
    given: dict[str, Any] = {
        "max_attempts": max_attempts,
        "backoff": backoff,
        "time_limit": time_limit,
        "unique": unique,
        "rate_limit": rate_limit,
        "secret": secret,
    }

    def set_policy(task: T) -> T:
        if not isinstance(task, DjangoTask):
            raise TypeError(f"{task!r} is not a task: @policy goes above @task")
        if not isinstance(task, Task):
            backend = type(task.get_backend()).__name__
            raise TypeError(f"{task.module_path}: {backend} has no policies: TASKS must name nexus.django.Backend")
        return replace(task, **{name: value for name, value in given.items() if value is not None})

    return set_policy


def find(path: str) -> AnyTask:
    """The task at a dotted path. Raises LookupError if its module may not contain tasks, or it is not a task."""
    if not conf.allows(path):
        raise LookupError(f"{path} is not in one of the modules that may contain tasks: {', '.join(conf.modules())}")
    try:
        found = import_string(path)
    except ImportError as error:
        raise LookupError(f"{path} cannot be imported: {error}") from error
    if not isinstance(found, DjangoTask):
        raise LookupError(f"{path} is a {type(found).__name__}, not a task")  # noqa: TRY004 - the name comes from data
    return found


STATUS = {
    "PENDING": TaskResultStatus.READY,
    "RETRY": TaskResultStatus.READY,
    "STARTED": TaskResultStatus.RUNNING,
    "SUCCESS": TaskResultStatus.SUCCESSFUL,
    "FAILURE": TaskResultStatus.FAILED,
    "REVOKED": TaskResultStatus.FAILED,
}


def result_of(task: AnyTask, record: RunRecord, backend: str) -> TaskResult:
    """A run's record as Django's result.

    `args` and `kwargs` are empty if they exceed 2 KiB, because the record does not store them then. An attempt's worker
    is named by the run and the attempt's number, by which `nexus logs` finds it.
    """
    call = record.args or {}
    started = shown_time(record.started_at)
    result: TaskResult = DjangoTaskResult(
        task=task,
        id=record.id,
        status=STATUS[record.status],
        enqueued_at=enqueued_at(record.id) or shown_time(record.sent_at),
        started_at=started,
        finished_at=shown_time(record.ended_at) if record.ended else None,
        last_attempted_at=started,
        args=list(call.get("args", ())),
        kwargs=dict(call.get("kwargs", {})),
        backend=backend,
        errors=[error_of(record.error)] if record.error else [],
        worker_ids=[f"{record.id}/{attempt}" for attempt in range(1, record.attempts + 1)],
    )
    if record.result is not None:
        object.__setattr__(result, "_return_value", payloads.load(record.result).get("value"))
    return result


def error_of(error: RunError) -> TaskError:
    """A run's error as Django's. Errors of the runtime itself become its TaskFailed."""
    path = error.path if "." in error.path else "nexus.errors.TaskFailed"
    return TaskError(exception_class_path=path, traceback=f"{error.traceback}{error}\n")


def enqueued_at(run_id: str) -> datetime | None:
    """When a run was enqueued, derived from its id: the same for its sender and for readers of its record."""
    return shown_time(made_at(run_id))


def shown_time(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as `timezone.now()` gives a time: naive and in TIME_ZONE without USE_TZ, else aware."""
    if seconds is None:
        return None
    moment = clock.date(seconds)
    return moment if django_settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())


def aware(moment: datetime) -> datetime:
    """A time from the project's code or database, aware: a naive one is in TIME_ZONE, whatever zone a request uses."""
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment, timezone.get_default_timezone())
