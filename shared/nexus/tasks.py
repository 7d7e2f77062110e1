"""A task as its senders see it: its definition, with `delay` and `apply_async` as Celery's tasks have them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nexus.client import AsyncResult, Signature, send
from nexus.definitions import (
    Arguments,
    NoArguments,
    Queue,
    RateLimit,
    Result,
    RetryPolicy,
    Schedule,
    TaskDefinition,
    Unique,
)

__all__ = [
    "Arguments",
    "NoArguments",
    "Queue",
    "RateLimit",
    "Result",
    "RetryPolicy",
    "Schedule",
    "Task",
    "Unique",
]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Task[A: Arguments, R: Result](TaskDefinition[A, R]):
    """A task that can be sent."""

    def delay(self, **arguments: Any) -> AsyncResult[R]:
        """Sends the task with these arguments. Raises InvalidMessage before anything is sent if they do not fit."""
        return self.apply_async(arguments)

    def apply_async(
        self,
        args: Mapping[str, Any] | A | None = None,
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
        queue: str | None = None,
        expires: float | datetime | None = None,
        retry: RetryPolicy | None = None,
        task_id: str | None = None,
        track: bool = True,
    ) -> AsyncResult[R]:
        """Sends the task, as Celery's apply_async does.

        `countdown` seconds or an aware `eta` delay it (up to 15 minutes by SQS, beyond by a one-off schedule);
        `expires` (seconds from now, or an aware time) revokes it if it has not started by then; `task_id` (a UUID)
        makes sending twice one run; `track=False` saves the PENDING record (status is UNKNOWN until it starts); `queue`
        is checked against the catalogue. Raises InvalidMessage, UnknownTask; SendFailed when AWS does not take it or is
        not reached; ConfigurationError when there is no such stack.
        """
        return send(
            self.s(**_as_dict(args)),
            countdown=countdown,
            eta=eta,
            queue=queue,
            expires=expires,
            retry=retry,
            task_id=task_id,
            track=track,
        )

    def s(self, **arguments: Any) -> Signature[R]:
        """A signature: the task with its arguments, checked and not yet sent; for send_many, group, chain and chord."""
        return Signature.of(self, arguments)


def _as_dict(args: Mapping[str, Any] | Arguments | None) -> dict[str, Any]:
    if args is None:
        return {}
    if isinstance(args, Arguments):
        return args.model_dump(mode="json", exclude_defaults=True)
    return dict(args)
