"""The AWS clients: low level, one Session, created on first use and kept for the life of the sandbox.

DynamoDB and SQS use our own client (`nexus.aws.slim`) where the environment's variables alone say how to reach them.
Otherwise, or if NEXUS_CLIENT is boto3, they use botocore. Methods, responses and errors are the same.

Four Sessions would make startup 50 % more expensive than one does. Botocore does not validate parameters (validation
costs half of a BatchWriteItem): this package builds the requests, and the tests check them against the service's
responses.
"""

import math
import os
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, overload

from nexus import clock
from nexus.aws import surroundings, usage
from nexus.aws.surroundings import CONNECTIONS, USER_AGENT
from nexus.errors import NexusError
from nexus.settings import settings

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_scheduler.client import EventBridgeSchedulerClient
    from mypy_boto3_sesv2.client import SESV2Client
    from mypy_boto3_sqs.client import SQSClient


_making = threading.Lock()
"""A Session is not thread-safe; its clients are."""


@dataclass(slots=True)
class Wait:
    """A caller that waits for the requests made in this context. `over` is set when it gives up; no request follows.

    `run_ids` are the runs that it sends and that AWS has not accepted yet, in order, once they are known.
    """

    over: bool = False
    run_ids: dict[str, None] = field(default_factory=dict)


wait: ContextVar[Wait | None] = ContextVar("wait", default=None)


def threads() -> int:
    """How many of a send's requests may be made at once: in parallel if a caller waits for it."""
    return 1 if wait.get() is None else CONNECTIONS


def accepted(run_ids: Iterable[str]) -> None:
    """Lets a caller that waits know which runs AWS has accepted, in case it gives up on the rest."""
    waiting = wait.get()
    if waiting is not None:
        for run_id in run_ids:
            waiting.run_ids.pop(run_id, None)


SEARCH_AGAIN_AFTER = 5.0
"""Seconds until credentials that were not found are searched for again. A search may take seconds, and other requests
wait for it.
"""

_found_none_at = -math.inf


@lru_cache(maxsize=1)
def _session() -> "Session":
    from botocore.session import get_session

    return get_session()


class Throttled(NexusError):
    """DynamoDB refused the same request, or the rest of a batch, for half a minute: try again later."""


@overload
def client(service: Literal["dynamodb"]) -> "DynamoDBClient": ...
@overload
def client(service: Literal["sqs"]) -> "SQSClient": ...
@overload
def client(service: Literal["s3"]) -> "S3Client": ...
@overload
def client(service: Literal["sesv2"]) -> "SESV2Client": ...
@overload
def client(service: Literal["scheduler"]) -> "EventBridgeSchedulerClient": ...
@overload
def client(service: Literal["secretsmanager"]) -> Any: ...
def client(service: str) -> Any:
    """The shared client of a service, created on first use by any thread.

    AWS_REGION and AWS_ENDPOINT_URL locate the service, as for any AWS tool; `Settings.memory` keeps it in this process.
    """
    with _making:
        return _client_in_memory(service) if settings().memory else _client(service)


@cache
def _client_in_memory(service: str) -> Any:
    from botocore.config import Config

    from nexus.aws import memory

    signed = "s3v4" if service == "s3" else None
    made = memory.make_client(_session(), service, Config(parameter_validation=False, signature_version=signed))
    usage.watch(service, made)
    return made


@cache
def _client(service: str) -> Any:
    return _slim(service) or _botocore(service)


@cache
def _botocore(service: str) -> Any:
    from botocore.config import Config

    from nexus.aws import plain_json

    patience = settings()
    _credentials()  # a client made without any would never find them
    # By default botocore presigns S3 URLs with signature version 2 and the global host: buckets created since 2020
    # refuse the former, and the latter redirects, which no browser's upload follows.
    made = _session().create_client(
        service,
        region_name=region(),
        config=Config(
            user_agent=USER_AGENT,
            signature_version="s3v4" if service == "s3" else None,
            parameter_validation=False,
            max_pool_connections=CONNECTIONS,
            # A SendEmail without a response may still have sent the mail: SES has no idempotency token.
            retries={"mode": "standard", "total_max_attempts": 1 if service == "sesv2" else patience.attempts},
            connect_timeout=3 if service == "sesv2" else patience.connect_timeout,
            read_timeout=7 if service == "sesv2" else patience.read_timeout,
            s3={"addressing_style": "auto" if os.environ.get("AWS_ENDPOINT_URL") else "virtual"},
        ),
    )
    if service == "dynamodb":
        plain_json.install(made)
    usage.watch(service, made)
    made.meta.events.register("needs-retry", _raise_own)
    if patience.send_timeout:
        made.meta.events.register("before-send", lambda **_: _check_abandoned())
    return made


def _slim(service: str) -> Any:
    """The slim client of a service; None where only botocore knows how to reach AWS."""
    endpoint = surroundings.plain_endpoint(service, settings())
    if endpoint is None:
        return None
    from nexus.aws import slim

    return slim.Client(
        service,
        endpoint,
        settings(),
        tls=surroundings.tls() if endpoint.startswith("https:") else None,
        credentials=surroundings.credentials(_found_credentials),
        check_abandoned=_check_abandoned,
        fallback=partial(_other, service),
        announce=_announced,
    )


def _credentials() -> Any:
    """Botocore's credentials. Raises NoCredentialsError, and searches again later: a role's may not be there yet."""
    global _found_none_at  # noqa: PLW0603 - state of the process, as its clients are
    if clock.monotonic() - _found_none_at >= SEARCH_AGAIN_AFTER:
        found = _session().get_credentials()
        if found is not None:
            return found
        _found_none_at = clock.monotonic()
    from botocore.exceptions import NoCredentialsError

    raise NoCredentialsError


def _found_credentials() -> Any:
    with _making:
        return _credentials()


def announce(to: Callable[[str], None]) -> None:
    """From now on, calls `to` with the name of each operation (`SendMessage`) before its request is sent.

    For botocore clients, this affects only those created later.
    """
    if to not in _listeners:
        _listeners.append(to)
    _session().register("before-call", _on_botocore_call, unique_id="nexus.announce")


_listeners: list[Callable[[str], None]] = []


def _announced(operation: str) -> None:
    for listener in _listeners:
        listener(operation)


def _on_botocore_call(**event: Any) -> None:
    _announced(event["model"].name)


def _other(service: str) -> Any:
    with _making:
        return _botocore(service)


def _check_abandoned() -> None:
    waiting = wait.get()
    if waiting is not None and waiting.over:
        from botocore.exceptions import BotoCoreError

        raise BotoCoreError


def _raise_own(caught_exception: Exception | None = None, **_: Any) -> None:
    """Botocore wraps every exception raised during a request, even a time limit's, and would repeat the request."""
    reason = getattr(caught_exception, "kwargs", {}).get("error")
    if isinstance(reason, NexusError):
        raise reason


def region() -> str | None:
    """The region of the settings, else the profile's; None when neither is set."""
    return settings().region or _session().get_config_variable("region")


def session() -> "Session":
    """The shared Session, which a startup check uses to find the region and the credentials."""
    with _making:
        return _session()


def is_missing(error: Exception) -> bool:
    """Whether this AWS error means that the table, queue or schedule group does not exist."""
    from botocore.exceptions import ClientError

    return isinstance(error, ClientError) and error.response["Error"]["Code"] in (
        "ResourceNotFoundException",
        "AWS.SimpleQueueService.NonExistentQueue",
    )


def is_no_object(error: Exception) -> bool:
    """Whether this S3 error means that the object, or that version of it, does not exist.

    S3 reports "forbidden" instead to a caller that may not list the bucket, which no function may without a prefix.
    """
    from botocore.exceptions import ClientError

    return isinstance(error, ClientError) and error.response["Error"]["Code"] in _NO_OBJECT


_NO_OBJECT = frozenset(
    {"NoSuchKey", "NoSuchVersion", "NotFound", "404", "AccessDenied", "403", "MethodNotAllowed", "405"}
)
"""405 is the response for a version that is a delete marker."""


def is_outage(error: BaseException) -> bool:
    """Whether AWS could not be reached, throttled or failed: any request may fail now, and the same one succeed later.

    A quota (ServiceQuotaExceededException) stops only requests of its kind.
    """
    from botocore import exceptions as e

    if isinstance(error, e.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
        code = error.response["Error"]["Code"]
        return bool(status >= 500) or "Throttl" in code or ("Exceeded" in code and "Quota" not in code)
    return isinstance(error, e.HTTPClientError | e.ConnectionError | Throttled)


def is_misconfigured(error: Exception) -> bool:
    """Whether botocore had no region, no credentials or no usable configuration file, and sent nothing."""
    from botocore import exceptions as e

    return isinstance(
        error,
        e.NoRegionError
        | e.InvalidRegionError
        | e.NoCredentialsError
        | e.PartialCredentialsError
        | e.ProfileNotFound
        | e.ConfigNotFound
        | e.ConfigParseError
        | e.InvalidConfigError,
    )


def is_refused(error: Exception) -> bool:
    """Whether AWS does not recognise this process's credentials, or they lack the permission."""
    from botocore.exceptions import ClientError

    return isinstance(error, ClientError) and error.response["Error"]["Code"] in _REFUSED


_REFUSED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)


def is_of_aws(error: BaseException) -> bool:
    """Whether the error came from AWS, which was unreachable or refused, and not from the calling code."""
    from botocore.exceptions import BotoCoreError, ClientError

    return isinstance(error, BotoCoreError | ClientError | Throttled)


def reset() -> None:
    """Forgets every client: for tests that change the endpoint."""
    global _found_none_at  # noqa: PLW0603
    _found_none_at = -math.inf
    _client.cache_clear()
    _botocore.cache_clear()
    _session.cache_clear()


def _after_fork() -> None:
    """A child shares neither its parent's connections nor the locks that the parent's other threads held."""
    global _making
    _making, usage.lock = threading.Lock(), threading.Lock()
    reset()


os.register_at_fork(after_in_child=_after_fork)
