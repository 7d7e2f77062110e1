"""HTTP over kept connections: one request, its complete response, or botocore's error.

Responses are parsed by httptools (llhttp, Node's parser), which takes a third of the CPU of http.client, whose headers
go through the mail parser, and a twentieth of its import time. It opens no socket and starts no thread, so forking is
safe.
"""

import select
import socket
import ssl
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from botocore import exceptions as aws
from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from nexus.aws.surroundings import CONNECTIONS
from nexus.settings import Settings

LOST = (OSError, HttpParserError, HttpParserUpgrade)
"""The errors of a response that cannot be read."""


class Response(NamedTuple):
    """A complete HTTP response. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """A connection, used by one thread at a time. Closed after any exception."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream, self.may_be_kept = stream, False
        self._parser = HttpResponseParser(self)

    def exchange(self, request: bytes, check_abandoned: Callable[[], object]) -> Response:
        """Sends a request and reads its response. Raises `LOST`.

        Before each read it calls `check_abandoned`, which raises if the caller has stopped waiting.
        """
        self._headers, self._body, self._whole = dict[str, str](), list[bytes](), False
        self.stream.sendall(request)  # head and body at once: two sends cost a sixth more
        while not self._whole:
            check_abandoned()
            if not (some := self.stream.recv(65536)):
                raise ConnectionError("the response was cut short")
            self._parser.feed_data(some)
        return Response(self._parser.get_status_code(), self._headers, b"".join(self._body))

    @property
    def is_silent(self) -> bool:
        """Whether no bytes have arrived: unsolicited bytes usually mean that the server has closed the connection."""
        poller = select.poll()
        poller.register(self.stream, select.POLLIN)
        return not poller.poll(0)

    # The parser calls these. If a signal handler raises in them, its exception is the context of the
    # HttpParserCallbackError.

    def on_message_begin(self) -> None:
        if self._whole:
            raise HttpParserError("bytes after the end of the response")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        self._whole = self._parser.get_status_code() >= 200  # "100 Continue" is an interim response
        self.may_be_kept = self._parser.should_keep_alive()


class Connections:
    """Connections to one host, kept between requests."""

    def __init__(
        self, endpoint: str, settings: Settings, tls: ssl.SSLContext | None, check_abandoned: Callable[[], object]
    ) -> None:
        url = urlsplit(endpoint)
        self._host, self._port = str(url.hostname), url.port or (443 if tls else 80)
        self._endpoint, self._settings, self._tls, self._check_abandoned = endpoint, settings, tls, check_abandoned
        self._idle: list[Connection] = []
        weakref.finalize(self, _close, self._idle)

    def post(self, headers: Mapping[str, str], body: bytes) -> Response:
        """Makes one request. Raises botocore's HTTP errors; after any exception the connection is not reused."""
        request = _head(headers, len(body)) + body
        connection, keep = self._kept() or self._connected(), False
        try:
            response = connection.exchange(request, self._check_abandoned)
            keep = connection.may_be_kept and len(self._idle) < CONNECTIONS
        except LOST as error:
            reason = (error.__context__ or error) if isinstance(error, HttpParserCallbackError) else error
            if not isinstance(reason, LOST):
                raise reason from None  # TimeLimitExceeded or KeyboardInterrupt
            _close(self._idle)  # what drops one idle connection (a gateway, a frozen sandbox) drops all of them
            kind = aws.ReadTimeoutError if isinstance(reason, TimeoutError) else aws.ConnectionClosedError
            raise kind(endpoint_url=self._endpoint, error=reason) from error
        finally:
            self._idle.append(connection) if keep else connection.stream.close()
        return response

    def _connected(self) -> Connection:
        stream = None
        try:
            stream = socket.create_connection((self._host, self._port), self._settings.connect_timeout)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                stream = self._tls.wrap_socket(stream, server_hostname=self._host)
            stream.settimeout(self._settings.read_timeout)
        except OSError as error:
            if stream is not None:
                stream.close()
            kind: Any = aws.SSLError if isinstance(error, ssl.SSLError) else aws.EndpointConnectionError
            kind = aws.ConnectTimeoutError if isinstance(error, TimeoutError) else kind
            raise kind(endpoint_url=self._endpoint, error=error) from error
        return Connection(stream)

    def _kept(self) -> Connection | None:
        """The most recently used connection that is still open, or None."""
        while True:
            try:
                connection = self._idle.pop()  # checking first would race with other threads
            except IndexError:
                return None
            if connection.is_silent:
                return connection
            connection.stream.close()


def _close(connections: list[Connection]) -> None:
    with suppress(IndexError):  # checking first would race with other threads
        while True:
            connections.pop().stream.close()


def _head(headers: Mapping[str, str], length: int) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    head = f"POST / HTTP/1.1\r\n{''.join(lines)}Content-Length: {length}\r\n\r\n"
    if not head.isascii() or head.count("\n") != len(lines) + 3:
        raise aws.HTTPClientError(
            error="a header's value, such as a credential, contains a line break or a non-ASCII character"
        )
    return head.encode()
