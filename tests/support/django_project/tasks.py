"""Tasks of the test project."""

import asyncio
from typing import Any

from django.tasks import TaskContext, task

from nexus.django import policy
from nexus.errors import Reject

calls: list[Any] = []


@task
def add(a: int, b: int = 1) -> int:
    """The sum of two numbers.

    They may be of any size.
    """
    calls.append((a, b))
    return a + b


@task(queue_name="emails")
def send_mail(to: str) -> str:
    calls.append(to)
    return f"sent to {to}"


@task(takes_context=True)
def attempt(context: "TaskContext[..., Any]", answer: str = "") -> dict[str, Any]:
    return {"attempt": context.attempt, "id": context.task_result.id, "answer": answer}


@task
async def later(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


class Broken(Exception):
    pass


@task
def fail(text: str = "it broke") -> None:
    calls.append(text)
    raise Broken(text)


@task
def leave() -> None:
    raise SystemExit("over")


@policy(max_attempts=4)
@task
def give_up() -> None:
    raise Reject("not to be tried again")


@policy(max_attempts=4, backoff=(0.0, 0.0))
@task(takes_context=True)
def flaky(context: "TaskContext[..., Any]", failures: int) -> str:
    """Fails so many times, and then succeeds."""
    if context.attempt <= failures:
        raise Broken(f"attempt {context.attempt}")
    return "at last"


@policy(secret=("password", "rest"))
@task(takes_context=True)
def secretive(context: "TaskContext[..., Any]", user: str, password: str = "", *rest: str) -> str:
    calls.append((user, password, *rest))
    if user == "nobody":
        raise Broken("there is no such user")
    return user


@task
def no_json() -> object:
    return object()


def plain() -> None:
    """No task."""
