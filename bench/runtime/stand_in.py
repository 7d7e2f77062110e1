"""A DynamoDB and an SQS small enough that what is measured is the caller: the run record's requests, answered at once.

It evaluates the conditions that the runtime writes, in both of DynamoDB's languages, so a claim that should be refused
is refused; it knows no other statement. `serve` answers over HTTP from a process of its own; `attach` answers inside
the caller's, from botocore's before-send hook, and keeps account of the CPU seconds that are its own.
"""

import hashlib
import io
import json
import re
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support import partiql

Attributes = dict[str, Any]
"""An item in DynamoDB's JSON."""

KEYS: Mapping[str, tuple[str, ...]] = defaultdict(lambda: ("id",))
"""The key of the run table, whatever its name."""


class Unknown(Exception):
    """A request that the runtime is not known to make."""


@dataclass(slots=True)
class StandIn:
    """Items by table and id, messages by queue, and how often each operation was asked for."""

    tables: dict[str, dict[str, Attributes]] = field(default_factory=dict)
    queues: dict[str, list[str]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, target: str, body: bytes) -> tuple[int, bytes]:
        """Status and body for one request; `target` is its X-Amz-Target header."""
        operation = target.rpartition(".")[2]
        with self.lock:
            self.requests[operation] += 1
            status, value = self._operations()[operation](json.loads(body))
        return status, json.dumps(value, separators=(",", ":")).encode()

    def _operations(self) -> Mapping[str, Callable[[Any], tuple[int, Any]]]:
        return {
            "BatchExecuteStatement": self._batch_execute,
            "UpdateItem": self._update_item,
            "GetItem": self._get_item,
            "GetQueueUrl": lambda asked: (200, {"QueueUrl": f"http://queue/{asked['QueueName']}"}),
            "SendMessage": self._send,
            "SendMessageBatch": self._send_batch,
            "ReceiveMessage": self._receive,
        }

    # --- DynamoDB ---

    def _table(self, name: str) -> dict[str, Attributes]:
        return self.tables.setdefault(name, {})

    def _get_item(self, asked: Any) -> tuple[int, Any]:
        item = self._table(asked["TableName"]).get(asked["Key"]["id"]["S"])
        return 200, {"Item": item} if item else {}

    def _batch_execute(self, asked: Any) -> tuple[int, Any]:
        return 200, {"Responses": [self._statement(statement) for statement in asked["Statements"]]}

    def _statement(self, asked: Any) -> dict[str, Any]:
        write = partiql.read(asked["Statement"], asked["Parameters"], KEYS)
        table = self._table(write.table)
        if write.insert:
            key = write.set["id"]["S"]
            if key in table:
                return {"Error": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"}}
            table[key] = write.set
            return {"TableName": write.table}
        key = write.key["id"]["S"]
        standing = table.get(key)
        if standing is None or not all(_holds(standing, *test) for test in write.when):
            error = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
            return {"Error": {**error, **({"Item": standing} if standing else {})}}
        table[key] = {name: value for name, value in (standing | write.set).items() if name not in write.remove}
        return {"TableName": write.table, "Item": table[key]}

    def _update_item(self, asked: Any) -> tuple[int, Any]:
        table, key = self._table(asked["TableName"]), asked["Key"]["id"]["S"]
        names, values = asked.get("ExpressionAttributeNames", {}), asked.get("ExpressionAttributeValues", {})
        item = table.get(key, {})
        for term in filter(None, asked.get("ConditionExpression", "").split(" AND ")):
            if not _holds(item, *_test(term, names, values)):
                kind = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"
                refusal = {"__type": kind, "message": "The conditional request failed"}
                return 400, {**refusal, **({"Item": item} if item else {})}
        changed = {"id": {"S": key}, **item}
        for clause in re.split(r" (?=REMOVE )", asked["UpdateExpression"]):
            verb, _, terms = clause.partition(" ")
            for term in terms.split(", "):
                if verb == "SET":
                    name, _, value = term.partition(" = ")
                    changed[names[name]] = values[value]
                elif verb == "REMOVE":
                    changed.pop(names[term], None)
                else:
                    raise Unknown(asked["UpdateExpression"])
        table[key] = changed
        return 200, {"Attributes": changed}

    # --- SQS ---

    def _queue(self, url: str) -> list[str]:
        return self.queues.setdefault(url, [])

    def _accept(self, url: str, body: str) -> dict[str, str]:
        self._queue(url).append(body)
        return {"MessageId": str(uuid.uuid4()), "MD5OfMessageBody": hashlib.md5(body.encode()).hexdigest()}

    def _send(self, asked: Any) -> tuple[int, Any]:
        return 200, self._accept(asked["QueueUrl"], asked["MessageBody"])

    def _send_batch(self, asked: Any) -> tuple[int, Any]:
        taken = [{"Id": e["Id"], **self._accept(asked["QueueUrl"], e["MessageBody"])} for e in asked["Entries"]]
        return 200, {"Successful": taken}

    def _receive(self, asked: Any) -> tuple[int, Any]:
        """For the measurement's own use: no visibility timeout, what is received is gone."""
        queue, count = self._queue(asked["QueueUrl"]), asked["MaxNumberOfMessages"]
        taken = queue[:count]
        del queue[:count]
        return 200, {"Messages": [{"MessageId": str(uuid.uuid4()), "ReceiptHandle": "r", "Body": b} for b in taken]}


def _test(term: str, names: Mapping[str, str], values: Mapping[str, Any]) -> tuple[str, str, Any]:
    """(attribute, test, value) of one term of a ConditionExpression."""
    if absent := re.fullmatch(r"attribute_not_exists\((#\w+)\)", term):
        return names[absent[1]], "missing", None
    if equal := re.fullmatch(r"(#\w+) = (:\w+)", term):
        return names[equal[1]], "=", values[equal[2]]
    raise Unknown(term)


def _holds(item: Attributes, attribute: str, test: str, value: Any) -> bool:
    if test == "missing":
        return attribute not in item
    if test == "=":
        return bool(item.get(attribute) == value)
    raise Unknown(test)


# --- in a process of its own ---


def serve(stand_in: StandIn) -> None:
    """Serves on a free port of 127.0.0.1, which is printed, until standard input ends. GET gives the counts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._reply(*stand_in.answer(self.headers["X-Amz-Target"], body))

        def do_GET(self) -> None:
            self._reply(200, json.dumps(stand_in.requests).encode())

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response_only(status)
            for name, value in _headers(body).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


def _headers(body: bytes) -> dict[str, str]:
    return {
        "Content-Type": "application/x-amz-json-1.0",
        "Content-Length": str(len(body)),
        "x-amzn-RequestId": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEF",
        "Date": "Sun, 22 Nov 2026 12:00:00 GMT",
        "Connection": "keep-alive",
    }


# --- in the caller's process ---


@dataclass(slots=True)
class Attached:
    """Answers a client's requests before they leave; `seconds` of CPU are the stand-in's own."""

    stand_in: StandIn
    seconds: float = 0.0

    def attach(self, client: Any) -> None:
        client.meta.events.register("before-send.*.*", self._answer)

    def _answer(self, request: Any, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse
        from botocore.compat import HTTPHeaders

        began = time.thread_time()
        body = request.body
        status, answer = self.stand_in.answer(
            request.headers["X-Amz-Target"].decode(), body if isinstance(body, bytes) else str(body).encode()
        )
        response = AWSResponse(request.url, status, HTTPHeaders.from_dict(_headers(answer)), _Raw(answer))
        self.seconds += time.thread_time() - began
        return response


class _Raw(io.BytesIO):
    """What botocore reads of a urllib3 response."""

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.getvalue()


if __name__ == "__main__":
    serve(StandIn())
