"""The operator's AWS clients, for services that functions never call. The rest are in `nexus.aws.sdk`."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal, overload, override

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_cloudformation.client import CloudFormationClient
    from mypy_boto3_cloudwatch.client import CloudWatchClient
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_iam.client import IAMClient
    from mypy_boto3_lambda.client import LambdaClient
    from mypy_boto3_logs.client import CloudWatchLogsClient
    from mypy_boto3_sts.client import STSClient

_lock = threading.Lock()

_patience = {"connect_timeout": 3, "read_timeout": 60, "attempts": 3, "log_attempts": 10}
"""A user waits at the terminal, so a wrong endpoint must fail within seconds.

CloudWatch Logs answers only 5 to 25 FilterLogEvents a second in an account, by region, and `nexus status` alone sends
more: its client slows down to what is answered, and tries more often.
"""


def hurry(*, connect_timeout: int, read_timeout: int, attempts: int) -> None:
    """Sets other timeouts and attempts, for a process that serves pages to people. Existing clients keep theirs."""
    _patience.update(
        connect_timeout=connect_timeout, read_timeout=read_timeout, attempts=attempts, log_attempts=attempts
    )


@overload
def client(service: Literal["cloudformation"]) -> "CloudFormationClient": ...
@overload
def client(service: Literal["cloudwatch"]) -> "CloudWatchClient": ...
@overload
def client(service: Literal["events"]) -> "EventBridgeClient": ...
@overload
def client(service: Literal["iam"]) -> "IAMClient": ...
@overload
def client(service: Literal["lambda"]) -> "LambdaClient": ...
@overload
def client(service: Literal["logs"]) -> "CloudWatchLogsClient": ...
@overload
def client(service: Literal["sts"]) -> "STSClient": ...
def client(service: str) -> Any:
    """The client of a service, created on first use and shared by all threads."""
    with _lock:
        return _client(service)


@lru_cache(maxsize=1)
def _session() -> "Session":
    from botocore.session import get_session

    return get_session()


@cache
def _client(service: str) -> Any:
    import os

    from botocore.config import Config

    from nexus.settings import settings

    attempts = _patience["log_attempts" if service == "logs" else "attempts"]
    return _session().create_client(
        service,
        region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or settings().region or None,
        config=Config(
            max_pool_connections=32,
            retries={
                "mode": "adaptive" if attempts > _patience["attempts"] else "standard",
                "max_attempts": attempts,
            },
            connect_timeout=_patience["connect_timeout"],
            read_timeout=_patience["read_timeout"],
        ),
    )


def session() -> "Session":
    """The Session from which the clients are created."""
    with _lock:
        return _session()


class Threads(ThreadPoolExecutor):
    """A pool whose work belongs to the change (`ops.audit`) of the caller that submits it."""

    @override
    def submit[**P, R](self, function: Callable[P, R], /, *args: P.args, **given: P.kwargs) -> "Future[R]":
        context = copy_context()
        return super().submit(lambda: context.run(function, *args, **given))


def in_background[R](function: Callable[[], R]) -> "Future[R]":
    """Runs a function in its own thread and returns its Future. The process does not wait for it when it exits."""
    made: Future[R] = Future()
    context = copy_context()

    def run() -> None:
        try:
            made.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - the caller that asks for the result gets it
            made.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return made


def in_parallel[T, R](function: Callable[[T], R], values: Sequence[T], threads: int = 16) -> list[R]:
    """Maps `function` over the values in threads, so that requests run concurrently. Returns the results in order."""
    if len(values) < 2:
        return [function(value) for value in values]
    with Threads(min(threads, len(values))) as pool:
        return list(pool.map(function, values))
