"""The AWS clients: low level, one Session, made when first asked for and kept for the life of the sandbox.

Four Sessions cost half as much start-up again as one. Parameters are not validated by botocore (it costs half of a
BatchWriteItem): what is sent is built by this package and held to the service's own answer by the tests.
"""

import threading
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal, overload

from nexus.errors import NexusError

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_scheduler.client import EventBridgeSchedulerClient
    from mypy_boto3_sesv2.client import SESV2Client
    from mypy_boto3_sqs.client import SQSClient

CONNECTIONS = 16
USER_AGENT = "nexus-tasks/0.1"
"""In place of botocore's own, which it puts together anew, twice, for each request: an eighth of a request's CPU."""


_making = threading.Lock()
"""A Session is not made for threads; its clients are."""


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
    """The one client of a service, made when first asked for, by any thread.

    AWS_REGION and AWS_ENDPOINT_URL say where, as for any AWS tool.
    """
    with _making:
        return _client(service)


@cache
def _client(service: str) -> Any:
    import os

    from botocore.config import Config

    from nexus.aws import plain_json

    # Left alone, botocore presigns for S3 with signature version 2 and the global host: buckets made since 2020 refuse
    # the one, and the other answers with a redirect, which no browser's upload follows.
    made = _session().create_client(
        service,
        region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        config=Config(
            user_agent=USER_AGENT,
            signature_version="s3v4" if service == "s3" else None,
            parameter_validation=False,
            max_pool_connections=CONNECTIONS,
            # A SendEmail whose answer was lost may have been a mail: SES knows no token by which a repeat is the same.
            retries={"mode": "standard", "total_max_attempts": 1 if service == "sesv2" else 5},
            connect_timeout=3 if service == "sesv2" else 5,
            read_timeout=7 if service == "sesv2" else 30,
            s3={"addressing_style": "auto" if os.environ.get("AWS_ENDPOINT_URL") else "virtual"},
        ),
    )
    if service == "dynamodb":
        plain_json.install(made)
    return made


def is_missing(error: Exception) -> bool:
    """Whether AWS says by this error that there is no such table, queue or schedule group."""
    from botocore.exceptions import ClientError

    return isinstance(error, ClientError) and error.response["Error"]["Code"] in (
        "ResourceNotFoundException",
        "AWS.SimpleQueueService.NonExistentQueue",
    )


def is_outage(error: BaseException) -> bool:
    """Whether AWS could not be reached, throttled or failed: the same request may go through later."""
    from botocore.exceptions import ClientError, HTTPClientError

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
        code = error.response["Error"]["Code"]
        return bool(status >= 500) or "Throttl" in code or "Exceeded" in code
    return isinstance(error, HTTPClientError | Throttled)


def reset() -> None:
    """Forgets every client: for tests that change the endpoint."""
    _client.cache_clear()
    _session.cache_clear()
