"""A task as senders see it: its definition, with `delay` and `apply_async` as on Celery's tasks.

The client is imported by the first send: a function that only runs tasks starts without it.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Never

from typing_extensions import ParamSpec, TypeVar  # noqa: UP035 - typing's take a default from Python 3.13 on

from nexus.definitions import (
    Arguments,
    Budget,
    NoArguments,
    RateLimit,
    Result,
    RetryPolicy,
    Schedule,
    TaskDefinition,
    Unique,
)
from nexus.values import plain

if TYPE_CHECKING:
    from nexus.client import AsyncResult, Canvas, Group, Signature

__all__ = [
    "Arguments",
    "Budget",
    "NoArguments",
    "RateLimit",
    "Result",
    "RetryPolicy",
    "Schedule",
    "Task",
    "Unique",
]


A = TypeVar("A", bound=Arguments)
R = TypeVar("R", bound=Result)
P = ParamSpec("P", default=...)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Task(TaskDefinition[A, R], Generic[A, R, P]):
    """A task that can be sent.

    To a type checker the arguments of `delay` and its variants are those of the argument model's constructor (P), so a
    wrong name or type is an error before anything runs.
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str,
            queue: str,
            arguments: Callable[P, A],
            result: type[R],
            summary: str,
            time_limit: float = ...,
            retry: RetryPolicy = ...,
            schedule: Schedule | None = ...,
            unique: Unique | None = ...,
            rate_limit: RateLimit | None = ...,
            budget: Budget | None = ...,
            part: Any = ...,
            module: str | None = ...,
            on_upload: bool = ...,
            everywhere: bool = ...,
            sends_to: tuple[str, ...] = ...,
            sends_later: bool = ...,
            searchable: tuple[str, ...] = ...,
            secret: tuple[str, ...] = ...,
        ) -> None: ...

    def delay(self, *positional: P.args, **arguments: P.kwargs) -> "AsyncResult[R]":
        """Sends the task with these arguments. Raises InvalidMessage if they are invalid, before anything is sent."""
        return self.s(*positional, **arguments).delay()

    def apply_async(
        self,
        args: Mapping[str, Any] | A | None = None,
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
        queue: str | None = None,
        expires: float | datetime | None = None,
        retry: RetryPolicy | None = None,
        task_id: str | uuid.UUID | None = None,
        track: bool = True,
        group: str | None = None,
        link_error: "Canvas[Any] | Sequence[Canvas[Any]] | None" = None,
        **unknown: Never,
    ) -> "AsyncResult[R]":
        """Sends the task, like Celery's apply_async.

        `args` are the arguments by name, or an instance of their model.
        `countdown` seconds or an aware `eta` delay it (up to 15 minutes by SQS, beyond by a one-off schedule);
        `expires` (seconds from now, or an aware time) revokes it if an attempt, a retry included, would start later;
        `task_id` (a UUID) makes repeated sends one run, PENDING until a send succeeds; `track=False` saves the PENDING
        record (status is UNKNOWN until it starts); `queue` is checked against the catalogue; `group` (a tenant, a user)
        is its group in SQS's fair queue, also for its retries and dead letter; `link_error` is sent, once, if it ends
        as FAILURE (`then(tell, failure=the_failure())` takes the failure). Raises InvalidMessage, UnknownTask;
        SendFailed if AWS does not accept it or is not reached in time; ConfigurationError if there is no such stack, no
        region or no credentials.
        """
        if unknown.keys() & {"kwargs", *self.arguments.model_fields}:
            raise self._by_name(f"apply_async() has no {', '.join(unknown)}")
        if isinstance(args, Arguments):
            args = plain(args, self.name, exclude_defaults=True)
        elif not isinstance(args, Mapping | None):
            raise self._by_name(f"got a {type(args).__name__}")
        return self._signature(args or {}).apply_async(
            countdown=countdown,
            eta=eta,
            queue=queue,
            expires=expires,
            retry=retry,
            task_id=task_id,
            track=track,
            group=group,
            link_error=link_error,
            **unknown,
        )

    async def adelay(self, *positional: P.args, **arguments: P.kwargs) -> "AsyncResult[R]":
        """`delay` for a coroutine, without blocking the event loop."""
        from nexus.client import asynchronous

        return await asynchronous(self.delay)(*positional, **arguments)

    async def aapply_async(self, args: Mapping[str, Any] | A | None = None, **options: Any) -> "AsyncResult[R]":
        """`apply_async` for a coroutine, with the same options."""
        from nexus.client import asynchronous

        return await asynchronous(self.apply_async)(args, **options)

    def s(self, *positional: P.args, **arguments: P.kwargs) -> "Signature[R]":
        """A signature: the task with its arguments, checked and not yet sent; for send_many, group, chain and chord."""
        if positional:
            raise self._by_name("got positional arguments")
        return self._signature(arguments)

    def si(self, *positional: P.args, **arguments: P.kwargs) -> "Signature[R]":
        """The same as `s`: a signature never takes the previous result unless `then` says so."""
        return self.s(*positional, **arguments)

    def chunks(self, items: Iterable[Mapping[str, Any]], size: int) -> "Group":
        """A group of groups of `size` runs, one per item (its arguments by name); the result is a list of lists."""
        from nexus.client.canvas import chunks

        return chunks(self, items, size)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Never:
            from nexus.client.options import missing

            raise missing(self, name)

    def _signature(self, arguments: Mapping[str, Any]) -> "Signature[R]":
        from nexus.client import Signature

        return Signature.of(self, arguments)

    def _by_name(self, fault: str) -> TypeError:
        """The error for arguments in Celery's style, with what to write instead."""
        fields = self.arguments.model_fields
        names = [name for name, field in fields.items() if field.is_required()] or list(fields)[:1]
        named = ", ".join(f"{name}=..." for name in names)
        mapping = ", ".join(f'"{name}": ...' for name in names)
        return TypeError(
            f"{self.name}: {fault}; pass arguments by name: delay({named}) or apply_async({{{mapping}}}, countdown=...)"
        )
