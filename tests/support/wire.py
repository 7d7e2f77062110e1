"""A server on a real socket with scripted responses, byte by byte where that matters."""

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.patience import eventually

type Connection = socket.socket | ssl.SSLSocket
type Response = bytes | Callable[[Connection], None]
"""A response to a request, or an action on its connection."""


@dataclass(frozen=True, slots=True)
class Request:
    """A received request. Header names are in lower case."""

    connection: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Server:
    """`responses` are used in turn, then the last one repeats. `requests` are those received completely."""

    responses: Sequence[Response]
    port: int = 0
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def has_accepted(self, connections: int) -> None:
        """Waits for this many accepted connections, since a client may close one before. Raises if there are more."""
        eventually(lambda: self.connections >= connections, every=0.01)
        assert self.connections == connections

    def serve(self, connection: Connection, number: int) -> None:
        with connection:
            while (request := _request(connection, number)) is not None:
                self.requests.append(request)
                response = self.responses[min(len(self.requests), len(self.responses)) - 1]
                if callable(response):
                    response(connection)
                else:
                    connection.sendall(response)


@contextmanager
def serving(*responses: Response, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Serves each connection in its own thread until the block ends, which ends the connections too."""
    accepted: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(responses, listener.getsockname()[1], tls)

    def serve(connection: socket.socket, number: int) -> None:
        with suppress(OSError):
            server.serve(tls.wrap_socket(connection, server_side=True) if tls else connection, number)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server.connections += 1
                accepted.append(connection)
                threading.Thread(target=serve, args=(connection, server.connections), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in accepted:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _request(connection: Connection, number: int) -> Request | None:
    read = b""
    while b"\r\n\r\n" not in read:
        read += (some := connection.recv(65536))
        if not some:
            return None
    head, _, body = read.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST / HTTP/1.1", lines[0]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return Request(number, headers, body)


# --- responses ---


def response(value: Any = None, status: int = 200, length: int | None = None, **headers: str) -> bytes:
    """A response. A value other than bytes is sent as JSON; `length` overrides the true Content-Length."""
    body = value if isinstance(value, bytes) else json.dumps({} if value is None else value).encode()
    given = {"content-type": "application/x-amz-json-1.0", "x-amzn-requestid": "R-1"}
    given |= {name.replace("_", "-"): text for name, text in headers.items()}
    lines = "".join(f"{name}: {text}\r\n" for name, text in given.items())
    stated = len(body) if length is None else length
    return f"HTTP/1.1 {status} Said\r\n{lines}content-length: {stated}\r\n\r\n".encode() + body


def refusal(
    code: str, message: str = "no", status: int = 400, *, headers: Mapping[str, Any] | None = None, **also: Any
) -> bytes:
    """An error response as AWS sends it."""
    return response({"__type": f"com.amazonaws#{code}", "message": message, **also}, status, **(headers or {}))


def reset(connection: Connection) -> None:
    """Ends the connection as a crash does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def silence(connection: Connection) -> None:
    """Sends nothing until the client disconnects."""
    connection.recv(1)


def then_close(content: bytes) -> Callable[[Connection], None]:
    """Sends this and closes the connection."""

    def send(connection: Connection) -> None:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_RDWR)

    return send


def byte_by_byte(content: bytes) -> Callable[[Connection], None]:
    """Sends it one byte at a time."""

    def send(connection: Connection) -> None:
        for place in range(len(content)):
            connection.sendall(content[place : place + 1])

    return send


def endless(connection: Connection) -> None:
    """Begins a response whose headers never end: a byte every few milliseconds, until the client disconnects."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
    while not threading.Event().wait(0.002):
        connection.sendall(b"x")


def then_silence(content: bytes) -> Callable[[Connection], None]:
    """Sends this, then nothing until the client disconnects."""

    def send(connection: Connection) -> None:
        connection.sendall(content)
        silence(connection)

    return send
