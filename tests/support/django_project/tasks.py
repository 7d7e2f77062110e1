"""Tasks of the test project."""

import asyncio
import threading
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.db import connection
from django.tasks import TaskContext, task
from django.utils import timezone, translation

from nexus.django import policy
from nexus.errors import Reject, TimeLimitExceeded

calls: list[Any] = []
held, over = threading.Event(), threading.Event()
"""The test sets the first to release `blocking`; `blocking` sets the second when it ends."""


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


@policy(time_limit=1.0)
@task
async def endless() -> None:
    """Runs until it is stopped, and reports that."""
    try:
        while True:
            calls.append("on")
            await asyncio.sleep(0.01)
    finally:
        calls.append("ended")


@policy(time_limit=1.0)
@task
async def blocking() -> None:
    """Blocks its event loop until the test releases it; no timeout of the loop itself can end that."""
    calls.append("on")
    try:
        held.wait(600)
        calls.append("off")
        await asyncio.sleep(0)
        calls.append("never")
    finally:
        over.set()


@policy(time_limit=1.0)
@task
def slow_query() -> None:
    """Runs a query that takes an hour."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(3600)")


@policy(time_limit=1.0)
@task
def slow_query_given_up() -> str:
    """Ends with a result of its own when its time is over."""
    try:
        slow_query.func()
    except TimeLimitExceeded:
        return "given up"
    return "done"


@policy(time_limit=1.0)
@task
async def slow_query_on_a_loop() -> None:
    """The same from a coroutine."""
    await sync_to_async(slow_query.func)()


@task
def one_query() -> int:
    """Queries the database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 42")
        return int(cursor.fetchone()[0])


@task
def remember() -> int:
    """The cache that this task uses, by its id: with it, its connections."""
    calls.append(caches["default"])  # kept, so that no other can have its id
    return id(caches["default"])


@task
def speak(language: str = "") -> str:
    """Activates a language and a time zone, as for a user's mail. Those in which it began."""
    before = f"{translation.get_language()} {timezone.get_current_timezone_name()}"
    if language:
        translation.activate(language)
        timezone.activate("Asia/Tokyo")
    return before


@task
async def speak_on_a_loop(language: str = "") -> str:
    """The same from a coroutine."""
    return str(speak.func(language))


@task
def count_users() -> int:
    """The number of users that this task's connection sees."""
    return int(get_user_model().objects.count())


@task
async def one_query_on_a_loop() -> int:
    """The same from a coroutine."""
    return await sync_to_async(one_query.func)()


class Broken(Exception):
    pass


@task
def fail(text: str = "it broke") -> None:
    calls.append(text)
    raise Broken(text)


@task
def leave() -> None:
    raise SystemExit("over")


@task
def interrupted() -> None:
    raise KeyboardInterrupt("by hand")


@task
def raise_unlike(module: str, name: str) -> None:
    """Raises an exception whose class is not at the path that it names."""
    raise type(name, (Exception,), {"__module__": module})("it broke")


@task
def fail_of_a_failure() -> None:
    raise ValueError(ValueError("it broke"))


@policy(max_attempts=4)
@task
def give_up() -> None:
    raise Reject("not to be tried again")


@policy(max_attempts=4, backoff=(0.0, 0.0))
@task(takes_context=True)
def flaky(context: "TaskContext[..., Any]", failures: int) -> str:
    """Fails this many times, and then succeeds."""
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


by_another_name = task(plain)


def café() -> None:  # noqa: PLC2401
    """No task, because SQS does not take its name."""
