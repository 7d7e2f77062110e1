"""Runs a job as the queue would, with its faults.

Sandboxes die between any two AWS requests, messages are delivered twice, invocations run out of time, pages have few
items, requests are throttled.
"""

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError
from moto.core.models import botocore_stubber

from nexus.aws import sdk, table
from nexus.envelope import Segment
from nexus.registry import registry
from nexus.testing import SandboxDied
from nexus.worker import Continued, FannedOut, Run


@contextmanager
def requests(before: Callable[[str], None]) -> Iterator[None]:
    """Calls `before` with the operation's name before each request to DynamoDB or S3; it may raise."""

    def hook(model: Any, **_: Any) -> None:
        before(model.name)

    hooked = [sdk.client("dynamodb"), sdk.client("s3")]
    for client in hooked:
        client.meta.events.register_first("before-call", hook)
    try:
        yield
    finally:
        for client in hooked:
            client.meta.events.unregister("before-call", hook)


@contextmanager
def small_pages(limit: int) -> Iterator[None]:
    """Limits every Query and Scan of DynamoDB to `limit` items."""

    def hook(params: dict[str, Any], **_: Any) -> None:
        params["Limit"] = min(limit, params.get("Limit", limit))

    events = sdk.client("dynamodb").meta.events
    names = ("provide-client-params.dynamodb.Query", "provide-client-params.dynamodb.Scan")
    for name in names:
        events.register_first(name, hook)
    try:
        yield
    finally:
        for name in names:
            events.unregister(name, hook)


class Queue:
    """Delivers a job's messages until all have succeeded.

    `dies` decides before each request whether the sandbox dies there; `twice` whether a message that succeeded is
    delivered again; `short` whether an invocation is out of time after its first page.
    """

    def __init__(
        self,
        dies: Callable[[], bool] = lambda: False,
        twice: Callable[[], bool] = lambda: False,
        short: Callable[[], bool] = lambda: False,
    ) -> None:
        self.dies, self.twice, self.short = dies, twice, short
        self.deaths = 0
        self.continued = 0
        self.runs = 0

    @classmethod
    def dying_at(cls, nth: int) -> "Queue":
        """A queue where the sandbox dies once, before the nth request, counted from 0."""
        requests = itertools.count()
        return cls(dies=lambda: next(requests) == nth)

    @classmethod
    def unreliable(cls, seed: int, one_in: int = 12) -> "Queue":
        """A queue with random, repeatable faults of every kind."""
        chance = random.Random(seed)
        queue = cls(twice=lambda: chance.random() < 0.2, short=lambda: chance.random() < 0.3)
        queue.dies = lambda: queue.deaths < 60 and chance.randrange(one_in) == 0
        return queue

    def run(self, function: Callable[..., Any], args: Mapping[str, Any] | None = None) -> Any:
        """Runs the job; returns its result."""
        task = registry.task_of(function)
        return self._deliver(task.name, task.check(args or {}), None, "00000000-0000-7000-8000-000000000001")

    def _deliver(self, name: str, args: Any, segment: Segment | None, run_id: str, *, part: bool = False) -> Any:
        joined = registry.implementation(name)
        work = joined.function_for(part=part)
        cursor: Mapping[str, Any] | None = None
        again = False
        while True:
            returned = self._invoke(work, args, segment=segment, cursor=cursor, run_id=run_id, name=name)
            match returned:
                case None:
                    continue
                case Continued(cursor):
                    self.continued += 1
                    assert self.continued < 5000, "continued without getting anywhere"
                    continue
                case FannedOut(segments, then):
                    total = len(segments)
                    parts = [
                        self._deliver(name, each, Segment(index=i, total=total), f"{run_id[:-4]}{i:04}", part=True)
                        for i, each in enumerate(segments)
                    ]
                    result = joined.reduced(parts)
                    if then is None:
                        return result
                    return joined.reduced(
                        [result, self._deliver(name, then, None, f"{run_id[:-12]}00000000p2{run_id[-2:]}", part=True)]
                    )
            if not again and self.twice():
                again, cursor = True, None
                continue
            return returned

    def _invoke(
        self, function: Callable[..., Any], args: Any, *, segment: Segment | None, cursor: Any, run_id: str, name: str
    ) -> Any:
        def before(operation: str) -> None:
            if self.dies():
                raise SandboxDied(operation)

        self.runs += 1
        limit = 0.0 if self.short() else 900.0
        run = Run(
            id=run_id,
            task=name,
            attempt=1,
            deadline=time.monotonic() + limit,
            limit=900.0,
            token="t",
            sent_at=time.time(),
            segment=segment,
            cursor=cursor,
        )
        run._shown = run._asked = (
            time.monotonic() + 3600
        )  # progress goes to the run's record, which no job's test reads
        try:
            with requests(before):
                return function(args, run)
        except SandboxDied:
            self.deaths += 1
            return None


@contextmanager
def throttled(one_in: int, seed: int) -> Iterator[dict[str, int]]:
    """DynamoDB refuses one request in `one_in` with ProvisionedThroughputExceeded. Yields their count."""
    chance, refused = random.Random(seed), {"requests": 0}

    def hook(request: Any, **_: Any) -> Any:
        if chance.randrange(one_in):
            return None
        refused["requests"] += 1
        # moto gets the request too, and must not make its writes.
        request.headers["X-Amz-Target"], request.body = "DynamoDB_20120810.ListTables", b"{}"
        return AWSResponse(request.url, 400, {"content-type": "application/x-amz-json-1.0"}, _Body(_SLOW_DOWN))  # type: ignore[arg-type]

    events = sdk.client("dynamodb").meta.events
    events.register_first("before-send.dynamodb", hook)
    try:
        yield refused
    finally:
        events.unregister("before-send.dynamodb", hook)


_SLOW_DOWN = json.dumps(
    {
        "__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
        "message": "The level of configured provisioned throughput for the table was exceeded",
    }
).encode()


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._content


def no_sleep(monkeypatch: Any) -> None:
    """Removes the delay of retries, botocore's too."""
    monkeypatch.setattr(table, "sleep", lambda _seconds: None)
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _seconds: None)


@contextmanager
def lost_answers(meanwhile: Callable[[], object] | None = None) -> Iterator[list[str]]:
    """Loses the response to every write's first try after moto has executed it, so that the SDK retries.

    With `meanwhile`, the first write's first try never arrives, and `meanwhile` is called instead. Yields the
    operations whose first try was lost. A repeated transaction is deduplicated by its token, as in DynamoDB, not moto.
    """
    lost: list[str] = []
    tried: set[bytes] = set()
    transacted: dict[str, Any] = {}
    elsewhere = False

    def hook(request: Any, **_: Any) -> Any:
        nonlocal elsewhere
        operation = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
        if operation not in _WRITES or elsewhere or (meanwhile is not None and lost):
            return None
        token = json.loads(request.body)["ClientRequestToken"] if operation == "TransactWriteItems" else ""
        if request.body in tried:
            return transacted.get(token)
        tried.add(request.body)
        lost.append(operation)
        if meanwhile is None:
            response = botocore_stubber("before-send", request)
            if token and response is not None and response.status_code == 200:
                transacted[token] = AWSResponse(request.url, 200, {}, _Body(b"{}"))  # type: ignore[arg-type]
        else:
            elsewhere = True
            meanwhile()
            elsewhere = False
        raise ConnectionClosedError(endpoint_url=request.url)

    events = sdk.client("dynamodb").meta.events
    events.register_first("before-send.dynamodb", hook)
    try:
        yield lost
    finally:
        events.unregister("before-send.dynamodb", hook)


_WRITES = frozenset(
    {"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "BatchExecuteStatement", "TransactWriteItems"}
)
