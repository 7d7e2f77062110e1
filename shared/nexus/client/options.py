"""How a task or a canvas is sent: the options, and the values allowed for each.

Errors name the option and its fault, and are raised before anything is sent.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import nan
from numbers import Real
from typing import TYPE_CHECKING, Any, TypedDict

from nexus import clock
from nexus.definitions import RetryPolicy, TaskDefinition
from nexus.errors import InvalidMessage, UnknownTask
from nexus.registry import registry
from nexus.settings import settings
from nexus.values import compact

if TYPE_CHECKING:
    from nexus.client.canvas import Canvas

LONGEST_DELAY = 100 * 366 * 86_400


class Options(TypedDict, total=False):
    """How a task is sent: see `nexus.tasks.Task.apply_async`.

    For a canvas, `countdown` and `eta` delay its first runs, `link_error` follows the canvas as a whole, and the rest
    apply to each of its tasks. `always` sends the step even if the one before it has failed, but not within a group
    that does not begin.
    """

    countdown: float | None
    eta: datetime | None
    queue: str | None
    expires: float | datetime | None
    retry: RetryPolicy | None
    group: str | None
    link_error: "Canvas[Any] | Sequence[Canvas[Any]] | None"
    always: bool


OF_THE_FIRST = frozenset({"countdown", "eta", "always"})
OF_THE_LAST = frozenset({"link_error"})
"""The options of a sequence that apply to its first or last part only; the others apply to every part."""

INSTEAD = {
    "link": "first | callback, or chain(first, callback)",
    "ignore_result": "task.apply_async(..., track=False)",
    "max_retries": "retry=RetryPolicy(max_retries=...)",
    "priority": "another queue= in the task's definition: the queue has the priority",
    "soft_time_limit": "time_limit= in the task's definition",
    "time_limit": "time_limit= in the task's definition",
    "clone": "the signature itself: it never changes",
    "freeze": ".delay() or .apply_async(task_id=...)",
    "get": ".delay().get()",
    "apply": ".delay(), with NEXUS_BACKEND=nexus.eager",
    "map": "group(task.s(...) for ...)",
    "starmap": "group(task.s(...) for ...)",
    "skew": "group(task.s(...).set(countdown=n) for n, ...)",
    "signature": "task.s(name=value)",
    "subtask": "task.s(name=value)",
    "delay_on_commit": "transaction.on_commit(lambda: task.delay(...)), or nexus.outbox.add(connection, task.s(...))",
    "AsyncResult": "nexus.AsyncResult(id)",
}


def known(options: Mapping[str, Any], where: str, *also: str) -> None:
    """Raises TypeError for an unknown option, with what to write instead. `also` are options that only `where` has."""
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        instead = ", ".join(f"{name} (write {INSTEAD[name]})" if name in INSTEAD else name for name in sorted(unknown))
        raise TypeError(f"{where}() has no {instead}; it has {', '.join((*Options.__annotations__, *also))}")


def missing(one: object, name: str) -> AttributeError:
    """The error for an attribute that a task or a canvas lacks, with what to write instead of Celery's."""
    instead = f": write {INSTEAD[name]}" if name in INSTEAD else ""
    return AttributeError(f"{type(one).__name__!r} object has no attribute {name!r}{instead}")


def fixed(options: Options) -> Options:
    """Turns `expires` in seconds into a time, so that all runs of a canvas expire together, whenever each is sent."""
    expires = options.get("expires")
    if expires is None or isinstance(expires, datetime):
        return options
    expires = seconds("expires", expires)
    return {**options, "expires": datetime.fromtimestamp(clock.now(), UTC) + timedelta(seconds=expires)}


def policy(retry: Any) -> str:
    """The retry policy as a run's record stores it. Raises TypeError."""
    if not isinstance(retry, RetryPolicy):
        raise TypeError(f"retry is {retry!r}: it must be a RetryPolicy")
    return compact([retry.max_retries, retry.base, retry.cap, sorted(retry.give_up_on)])


def given_id(task_id: str | uuid.UUID) -> str:
    """A caller-supplied run id in canonical form. Raises InvalidMessage."""
    try:
        return str(task_id if isinstance(task_id, uuid.UUID) else uuid.UUID(task_id))
    except (ValueError, TypeError, AttributeError):
        raise InvalidMessage("task_id: not a UUID", "task_id: not a UUID") from None


def seconds(name: str, value: Any) -> float:
    """A caller-supplied duration. Raises ValueError, naming it."""
    duration = float(value) if isinstance(value, Real) else nan
    if not abs(duration) <= LONGEST_DELAY:
        raise ValueError(f"{name} is {value!r}: it must be a number of seconds, at most a hundred years")
    return duration


def moment(name: str, value: Any) -> float:
    """A caller-supplied time, in seconds since 1970. Raises ValueError, naming it."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{name} is {value!r}: it must be a datetime with a time zone")
    when = value.timestamp()
    if when > clock.now() + LONGEST_DELAY:
        raise ValueError(f"{name} is {value!r}: it must be in at most a hundred years")
    return when


def queue_of(task: TaskDefinition[Any, Any], queue: str | None) -> str:
    """The queue to send to. Raises UnknownTask if this process knows that no function of the queue serves the task."""
    target = queue if queue is not None else task.queue or registry.queues()[-1]
    if not task.served_by(target) or (task.everywhere and target not in registry.queues()):
        raise UnknownTask(f"{task.name} is not served by queue {target!r}, but by {task.queue or registry.queues()}")
    if not registry.serves(task.name):
        named, stack = ", ".join(settings().catalogue), settings().stack or "in memory"
        raise UnknownTask(f"{task.name} is in no catalogue of this deployment ({stack}, NEXUS_CATALOGUE={named})")
    return target
