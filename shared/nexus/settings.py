"""The environment variables that the runtime reads, as one typed model, and the resource names derived from them.

Physical names derive from the stack's name by convention, so that a web application, a function and an operator all
find the same queue without asking CloudFormation, and no role needs a circular reference. `nexus env` prints the
variables for a shell.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from nexus.errors import ConfigurationError

PATIENCE = {
    "connect_timeout": "NEXUS_CONNECT_TIMEOUT",
    "read_timeout": "NEXUS_READ_TIMEOUT",
    "attempts": "NEXUS_ATTEMPTS",
    "send_timeout": "NEXUS_SEND_TIMEOUT",
}
IN_MEMORY = {"NEXUS_STACK": "memory", "NEXUS_ACCOUNT_ID": "000000000000"}
"""The parts of resource names that are used when tables and buckets are in memory."""

IN_A_FUNCTION = {"connect_timeout": 5.0, "read_timeout": 30.0, "attempts": 5, "send_timeout": 0.0}


@dataclass(frozen=True, slots=True)
class Settings:
    """Which deployment this process uses, and what it serves.

    `stack` (NEXUS_STACK) is the CloudFormation stack's name, `account_id` (NEXUS_ACCOUNT_ID) the account's twelve
    digits (part of the globally unique bucket names), `region` (AWS_REGION, else AWS_DEFAULT_REGION) the AWS region,
    `catalogue` (NEXUS_CATALOGUE) the modules that declare tasks, `queue` (NEXUS_QUEUE) the queue that a function
    serves, `run_days` (NEXUS_RUN_DAYS) how long a run record is kept, `backend` (NEXUS_BACKEND) the module of a backend
    other than AWS, `functions` (NEXUS_FUNCTIONS) the folder of the tasks' code in eager mode, `client` (NEXUS_CLIENT)
    is "boto3" to use botocore for DynamoDB and SQS. Another backend without a stack means `memory`: tables, buckets and
    mail are in this process's memory too.

    A request to AWS has `connect_timeout` (NEXUS_CONNECT_TIMEOUT) seconds to connect, `read_timeout`
    (NEXUS_READ_TIMEOUT) for the response, and `attempts` (NEXUS_ATTEMPTS) in all; a send has `send_timeout`
    (NEXUS_SEND_TIMEOUT) seconds for all its requests. The defaults suit a producer, which must not hold up a web
    request. A function (NEXUS_QUEUE is set) waits longer, and only its own time limit bounds its sends (0).
    """

    stack: str = ""
    account_id: str = ""
    region: str = ""
    catalogue: tuple[str, ...] = ()
    queue: str = ""
    run_days: int = 7
    backend: str = ""
    functions: str = ""
    client: str = ""
    memory: bool = False
    connect_timeout: float = 1.0
    read_timeout: float = 2.0
    attempts: int = 2
    send_timeout: float = 4.5

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Reads the settings from an environment. Raises ConfigurationError, naming the variable and its fault."""
        days = environment.get("NEXUS_RUN_DAYS", "7")
        if not days.isdecimal() or int(days) < 1:
            raise ConfigurationError(f"NEXUS_RUN_DAYS is {days!r}: it must be a whole number of days, 1 or more")
        modules = environment.get("NEXUS_CATALOGUE", "").split(",")
        client = environment.get("NEXUS_CLIENT", "")
        if client not in ("", "boto3"):
            raise ConfigurationError(
                f"NEXUS_CLIENT is {client!r}: set it to boto3, or leave it empty for the runtime's own client"
            )
        memory = bool(environment.get("NEXUS_BACKEND")) and not environment.get("NEXUS_STACK")
        if memory:
            environment = {**environment, **IN_MEMORY}
        return cls(
            stack=environment.get("NEXUS_STACK", ""),
            account_id=environment.get("NEXUS_ACCOUNT_ID", ""),
            region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION", ""),
            catalogue=tuple(module.strip() for module in modules if module.strip()),
            queue=environment.get("NEXUS_QUEUE", ""),
            run_days=int(days),
            backend=environment.get("NEXUS_BACKEND", ""),
            functions=environment.get("NEXUS_FUNCTIONS", ""),
            client=client,
            memory=memory,
            **_patience(environment),
        )

    @property
    def deployment(self) -> str:
        """The stack's name. Raises ConfigurationError if there is none."""
        if not self.stack:
            raise ConfigurationError(
                "NEXUS_STACK is not set: it names the stack that `sam deploy` made, e.g. nexus-prod"
            )
        return self.stack

    @property
    def served_queue(self) -> str:
        """The queue that this function serves. Raises ConfigurationError if there is none."""
        if not self.queue:
            raise ConfigurationError("NEXUS_QUEUE is not set: it names the queue that this function serves")
        return self.queue

    def queue_name(self, queue: str) -> str:
        return f"{self.deployment}-{queue}"

    def dead_letter_queue_name(self, queue: str) -> str:
        return f"{self.deployment}-{queue}-dead"

    def function_name(self, queue: str) -> str:
        return f"{self.deployment}-{queue}"

    def table(self, entity: str) -> str:
        return f"{self.deployment}-{entity}"

    def bucket(self, purpose: str) -> str:
        if not self.account_id:
            raise ConfigurationError("NEXUS_ACCOUNT_ID is not set: bucket names contain the account's twelve digits")
        return f"{self.deployment}-{purpose}-{self.account_id}"


def _patience(environment: Mapping[str, str]) -> dict[str, Any]:
    """How long to wait for AWS. Raises ConfigurationError, naming the variable and its fault."""
    usual = IN_A_FUNCTION if environment.get("NEXUS_QUEUE") else {}
    found: dict[str, Any] = dict(usual)
    for field, variable in PATIENCE.items():
        text = environment.get(variable)
        if not text:
            continue
        whole = field == "attempts"
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = 0
        if not (1 <= value <= 10 if whole else 0 < value <= 900):
            wanted = "a whole number from 1 to 10" if whole else "seconds, more than 0 and at most 900"
            raise ConfigurationError(f"{variable} is {text!r}: {wanted}")
        found[field] = value
    return found


_defaults: dict[str, str] = {}


def configure(variables: Mapping[str, str]) -> bool:
    """Sets variables for which the environment has no value, replacing those set before. Returns whether any changed.

    For frameworks with their own settings. Reset a backend that was created before (`nexus.backend.reset`).
    """
    if dict(variables) == _defaults:
        return False
    _defaults.clear()
    _defaults.update(variables)
    settings.cache_clear()
    return True


class _Lookup:
    def __call__(self) -> Settings:
        """The settings of this process, read on first use and then kept. Raises ConfigurationError."""
        return _elsewhere.get() or _own()

    def cache_clear(self) -> None:
        """Makes the next use read them again."""
        _own.cache_clear()


@lru_cache(maxsize=1)
def _own() -> Settings:
    return Settings.read(_replaced[-1] if _replaced else variables())


_elsewhere: ContextVar[Settings | None] = ContextVar("settings of another stack", default=None)
settings = _Lookup()


@contextmanager
def another_stack(name: str) -> Iterator[None]:
    """Within the block, for this thread or coroutine, every name is of that stack, in the same account and region.

    This lets a process of one stack send another stack's tasks and read its tables. In memory there is only one.
    """
    here = settings()
    token = _elsewhere.set(replace(here, stack=here.stack if here.memory else name, catalogue=()))
    try:
        yield
    finally:
        _elsewhere.reset(token)


def variables() -> Mapping[str, str]:
    """The environment's variables, plus those of `configure`."""
    return {**_defaults, **os.environ}


_replaced: list[Mapping[str, str]] = []


@contextmanager
def use(environment: Mapping[str, str]) -> Iterator[None]:
    """Uses these variables within the block, in place of the process's own."""
    _replaced.append(environment)
    settings.cache_clear()
    try:
        yield
    finally:
        _replaced.pop()
        settings.cache_clear()
