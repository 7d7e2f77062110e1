"""A run table and SQS queues that respond at once, so that only the caller is measured.

DynamoDB is that of `bench.jobs.stand_in`, which evaluates conditions, so a claim that should be refused is refused.
`started` responds over HTTP from a separate process. `Attached` responds in the caller's process, in place of the
client's connections, and counts its own CPU seconds.
"""

import hashlib
import json
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bench.jobs import stand_in as dynamodb
from bench.tables import ROOT
from nexus.aws.connections import Response
from tests.support.template import STACK


def _run_table() -> dynamodb.StandIn:
    return dynamodb.StandIn([dynamodb.Table(f"{STACK}-task-runs", ("id",), ())])


@dataclass(slots=True)
class StandIn:
    """The run table, messages by queue, and the number of requests by operation."""

    runs: dynamodb.StandIn = field(default_factory=_run_table)
    queues: dict[str, list[str]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def respond(self, target: str, body: bytes) -> tuple[int, bytes]:
        """Status and body for one request; `target` is its X-Amz-Target header."""
        service, _, operation = target.rpartition(".")
        with self.lock:
            self.requests[operation] += 1
            if service.startswith("DynamoDB"):
                value = self.runs.respond(operation, json.loads(body))
                status = 400 if "__type" in value else 200
            else:
                status, value = self.queue_operations[operation](json.loads(body))
        return status, json.dumps(value, separators=(",", ":")).encode()

    @property
    def queue_operations(self) -> Mapping[str, Callable[[Any], tuple[int, Any]]]:
        return {
            "GetQueueUrl": lambda asked: (200, {"QueueUrl": f"http://queue/{asked['QueueName']}"}),
            "SendMessage": self._send,
            "SendMessageBatch": self._send_batch,
            "ReceiveMessage": self._receive,
            "ChangeMessageVisibilityBatch": lambda asked: (
                200,
                {"Successful": [{"Id": e["Id"]} for e in asked["Entries"]]},
            ),
        }

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
        """For the measurement only: no visibility timeout; received messages are deleted."""
        queue, count = self._queue(asked["QueueUrl"]), asked["MaxNumberOfMessages"]
        taken = queue[:count]
        del queue[:count]
        return 200, {"Messages": [{"MessageId": str(uuid.uuid4()), "ReceiptHandle": "r", "Body": b} for b in taken]}


# --- in a separate process ---


@contextmanager
def started() -> Iterator[int]:
    """Starts one in a separate process. Yields its port."""
    command = [sys.executable, "-m", "bench.runtime.stand_in"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()


def serve(stand_in: StandIn) -> None:
    """Serves on a free port of 127.0.0.1, which is printed, until standard input ends. GET gives the counts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._reply(*stand_in.respond(self.headers["X-Amz-Target"], body))

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
    """Responds to a client's requests before they are sent; `seconds` is the stand-in's own CPU time."""

    stand_in: StandIn
    seconds: float = 0.0

    def attach(self, client: Any) -> None:
        client.send = self._respond

    def _respond(self, headers: Mapping[str, str], body: bytes) -> Response:
        began = time.thread_time()
        status, response = self.stand_in.respond(headers["X-Amz-Target"], body)
        self.seconds += time.thread_time() - began
        return Response(status, {name.lower(): value for name, value in _headers(response).items()}, response)


if __name__ == "__main__":
    serve(StandIn())
