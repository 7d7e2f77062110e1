"""The task that every queue serves, regardless of the catalogue: `ping`."""

from pydantic import Field

from nexus.definitions import Arguments, Result, RetryPolicy
from nexus.registry import register
from nexus.tasks import Task


class Ping(Arguments):
    """What to return."""

    text: str = Field(default="pong", max_length=200)


class Pong(Result):
    """The reply, and what sent it."""

    text: str
    queue: str
    function: str


ping = Task(
    name="ping",
    queue="",
    arguments=Ping,
    result=Pong,
    summary="Replies at once. Every queue serves it.",
    time_limit=5,
    retry=RetryPolicy(max_retries=0),
    everywhere=True,
)

register(__name__)
