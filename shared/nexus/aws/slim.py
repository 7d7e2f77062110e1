"""DynamoDB and SQS clients for the dozen requests that the runtime makes, at a tenth of botocore's cost.

`nexus.aws.connections` makes the requests. This module adds the signature (version 4), the retries of the SDKs'
standard mode, and AWS's errors under botocore's names. To a caller the client behaves like botocore's: the same
methods, responses and errors. Methods it does not have go to botocore's own client.

If a response is lost, truncated or malformed, the request is sent again, and `RetryAttempts` counts it.
"""

import gzip
import hashlib
import hmac
import os
import random
import time
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlsplit

from botocore import exceptions as aws
from botocore.retries.quota import RetryQuota

from nexus import clock
from nexus.aws.connections import Connections, Response
from nexus.aws.encoding import dumps, loads
from nexus.aws.surroundings import USER_AGENT
from nexus.settings import Settings

if TYPE_CHECKING:
    from ssl import SSLContext

TARGETS = {"dynamodb": "DynamoDB_20120810", "sqs": "AmazonSQS"}
METHODS = {
    "dynamodb": "batch_execute_statement batch_get_item batch_write_item delete_item describe_table get_item put_item "
    "query scan transact_write_items update_item",
    "sqs": "change_message_visibility_batch delete_message_batch get_queue_url receive_message send_message "
    "send_message_batch",
}
_UNSIGNED = frozenset({"User-Agent", "X-Amzn-Trace-Id"})

# The SDKs' standard mode. A test compares these with botocore's.
THROTTLES = (
    "Throttling ThrottlingException ThrottledException RequestThrottledException TooManyRequestsException "
    "ProvisionedThroughputExceededException TransactionInProgressException RequestLimitExceeded "
    "BandwidthLimitExceeded LimitExceededException RequestThrottled SlowDown PriorRequestNotComplete "
    "EC2ThrottledException"
)
TRANSIENT = "RequestTimeout RequestTimeoutException ReplicatedWriteConflictException"
TRANSIENT_STATUS = frozenset({500, 502, 503, 504})
RETRY_COST, THROTTLE_COST = 14, 5
BASE_WAITS, THROTTLE_WAIT, LONGEST_WAIT, MORE_IF_ASKED = {"dynamodb": 0.025, "sqs": 0.05}, 1.0, 20.0, 5.0

type Credentials = tuple[str, str, str | None]  # access key, secret key, session token


def signed(
    headers: Mapping[str, str], body: bytes, credentials: Credentials, where: tuple[str, str], at: str
) -> dict[str, str]:
    """The headers of a POST to the root of a host, including its signature.

    `where` is the region and service, as the signature has them; `at` is the time (20261127T204512Z).
    """
    access_key, secret, token = credentials
    scope = f"{at[:8]}/{where[0]}/{where[1]}/aws4_request"
    made = {**headers, "X-Amz-Date": at}
    if token:
        made["X-Amz-Security-Token"] = token
    lines = sorted((name.lower(), value) for name, value in made.items() if name not in _UNSIGNED)
    names = ";".join(name for name, _ in lines)
    canonical = "".join(f"{name}:{value}\n" for name, value in lines)
    request = f"POST\n/\n\n{canonical}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.digest(_signing_key(secret, scope), text.encode(), "sha256").hex()
    credential = f"Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**made, "Authorization": f"AWS4-HMAC-SHA256 {credential}"}


@lru_cache(maxsize=8)
def _signing_key(secret: str, scope: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


class Client:
    """One service. `send(headers, body)` makes a request; a measurement can replace it.

    `credentials` returns those of each request, `check_abandoned` raises if the caller has stopped waiting, `fallback`
    returns botocore's own client; `announce` is called with an operation before its first request.
    """

    def __init__(
        self,
        service: str,
        endpoint: str,
        settings: Settings,
        *,
        tls: "SSLContext | None",
        credentials: Callable[[], Credentials],
        check_abandoned: Callable[[], object],
        fallback: Callable[[], Any],
        announce: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._credentials, self._check_abandoned, self._fallback, self._announce = (
            credentials,
            check_abandoned,
            fallback,
            announce,
        )
        partition, region = "aws-us-gov" if "-gov-" in settings.region else "aws", settings.region
        self.meta = SimpleNamespace(service=service, region_name=region, partition=partition, endpoint_url=endpoint)
        self.send: Callable[[Mapping[str, str], bytes], Response] = Connections(
            endpoint, settings, tls, check_abandoned
        ).post
        host = urlsplit(endpoint).netloc.removesuffix(":443" if tls else ":80")
        self._headers = {"Content-Type": "application/x-amz-json-1.0", "Host": host, "User-Agent": USER_AGENT}
        if service == "sqs":
            self._headers["X-Amzn-Query-Mode"] = "true"  # errors keep their original codes
        self._attempts, self._quota = settings.attempts, RetryQuota()

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS[self.meta.service].split():
            return getattr(self._fallback(), name)
        operation = "".join(word.capitalize() for word in name.split("_"))
        self.__dict__[name] = lambda **parameters: self.call(operation, parameters)
        return self.__dict__[name]

    def call(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Same as botocore's method. Raises ClientError, and what `Connections.post` raises."""
        body, cost, tries = dumps(parameters), 1, 0
        self._announce(operation)
        while True:
            self._check_abandoned()
            lost, result = None, dict[Any, Any](ResponseMetadata={})
            try:
                result = self._once(operation, body)
            except (aws.ConnectionError, aws.HTTPClientError) as error:
                lost = error
            about = result["ResponseMetadata"]
            about["RetryAttempts"], status = tries, about.get("HTTPStatusCode", 0)
            if 0 < status < 300:
                self._quota.release(cost)
                return result
            code = result.get("Error", {}).get("Code")
            throttled = code in THROTTLES.split() or status == 429
            again = bool(lost) or throttled or code in TRANSIENT.split() or status in TRANSIENT_STATUS
            ended = tries + 1 >= self._attempts
            cost = THROTTLE_COST if throttled else RETRY_COST
            if not again or ended or not self._quota.acquire(cost):
                if lost is not None:
                    raise lost
                about["MaxAttemptsReached"] = again and ended
                raise aws.ClientError(cast(Any, result), operation)
            clock.sleep(self._wait(tries, throttled, about.get("HTTPHeaders", {}).get("x-amz-retry-after", "")))
            tries += 1

    def _once(self, operation: str, body: bytes) -> dict[str, Any]:
        """One try: the operation's result, or an error in botocore's form."""
        headers = {**self._headers, "X-Amz-Target": f"{TARGETS[self.meta.service]}.{operation}"}
        trace = os.environ.get("_X_AMZN_TRACE_ID") if "AWS_LAMBDA_FUNCTION_NAME" in os.environ else None
        if trace:  # Lambda detects recursive loops by it
            headers["X-Amzn-Trace-Id"] = quote(trace, safe="-=;:+&[]{}\"',")
        where, at = (self.meta.region_name, self.meta.service), time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        response = self.send(signed(headers, body, self._credentials(), where, at), body)
        request_id = response.headers.get("x-amzn-requestid", "")
        about = {"RequestId": request_id, "HTTPStatusCode": response.status, "HTTPHeaders": response.headers}
        return {**read(response), "ResponseMetadata": about}

    def _wait(self, tries: int, throttled: bool, asked: str) -> float:
        base = THROTTLE_WAIT if throttled else BASE_WAITS[self.meta.service]
        wait = random.random() * min(LONGEST_WAIT, base * 2.0**tries)  # noqa: S311 - jitter
        return max(wait, min(int(asked) / 1000, wait + MORE_IF_ASKED)) if asked.isdecimal() else wait


def read(response: Response) -> dict[str, Any]:
    """The parsed response. Raises HTTPClientError for a success whose body is broken."""
    try:
        result = _body(response)
    except (ValueError, TypeError, EOFError, OSError, zlib.error) as error:
        if response.status < 300:
            raise aws.HTTPClientError(error=error) from error
        result = {"message": "" if response.status >= 500 else response.body.decode(errors="replace")}
    if response.status < 300:
        return result
    code = str(result.get("__type", response.status)).partition(":")[0].rpartition("#")[2]
    message = result.get("message", result.get("Message", ""))
    if not message and response.status >= 500:
        message = HTTPStatus(response.status).phrase if response.status in set(HTTPStatus) else ""
    refusal: dict[str, Any] = {"Message": message, "Code": code}
    known, _, kind = response.headers.get("x-amzn-query-error", "").partition(";")
    return {**result, "Error": {**refusal, "QueryErrorCode": code, "Type": kind, "Code": known} if known else refusal}


def _body(response: Response) -> dict[str, Any]:
    body, checksum = response.body, response.headers.get("x-amz-crc32")
    if checksum and int(checksum) != zlib.crc32(body):
        raise ValueError("the body does not match its checksum")
    if response.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return dict(loads(body)) if body else {}
