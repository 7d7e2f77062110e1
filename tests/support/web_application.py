"""A web application that sends a task while a request waits, for a WSGI or an ASGI server."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from botocore.exceptions import BotoCoreError

from nexus import AsyncResult, NexusError, ping
from nexus.builtin import Pong

TEXT = [(b"content-type", b"text/plain")]


def wsgi(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """/send sends a task and returns the outcome; every other path responds at once."""
    reply = "alive"
    if environ["PATH_INFO"] == "/send":
        try:
            reply = ping.delay().id
        except NexusError as error:
            reply = f"{type(error).__name__}: {error}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [reply.encode()]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """The same; /get fetches a result."""
    reply = "alive"
    try:
        if scope["path"] == "/send":
            reply = (await ping.adelay()).id
        elif scope["path"] == "/get":
            reply = await AsyncResult[Pong]("0189d6b0-0000-7000-8000-000000000001").astatus()
    except (NexusError, BotoCoreError) as error:
        reply = f"{type(error).__name__}: {error}"
    await send({"type": "http.response.start", "status": 200, "headers": TEXT})
    await send({"type": "http.response.body", "body": reply.encode()})
