"""The runtime's own client of DynamoDB and SQS: over a real socket, and compared with botocore's."""

import gzip
import json
import pwd
import random
import socket
import ssl
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore import exceptions as aws
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.retries import standard
from botocore.session import get_session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from pytest_socket import enable_socket

from dev import recorder
from nexus import clock
from nexus.aws import connections, encoding, sdk, slim, surroundings
from nexus.client import bounded
from nexus.clock import FrozenClock
from nexus.errors import ConfigurationError, SendFailed, TimeLimitExceeded
from nexus.settings import Settings, settings
from tests.support import own_catalogue as catalogue
from tests.support import wire
from tests.support.forks import in_a_child
from tests.support.patience import PATIENCE
from tests.support.wire import Server, refusal, response, serving

KEY = {"Key": {"id": {"S": "r-1"}}, "TableName": "runs"}
ITEM = {"Item": {"id": {"S": "r-1"}}}
RECORD = {"id": {"S": str(uuid.UUID(int=7))}, "status": {"S": "SUCCESS"}}


@pytest.fixture(autouse=True)
def slept(environment: None, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Allows sockets, and the slim client although moto is imported; returns the waits, which take no time."""
    enable_socket()
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(surroundings, "_answered_in_botocore", lambda: False)
    monkeypatch.delenv("NEXUS_CLIENT", raising=False)
    for name in (*surroundings.BOTOCORES, "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        for spelt in (name, name.lower()):
            monkeypatch.delenv(spelt, raising=False)
    for name in surroundings.FILES:
        monkeypatch.setenv(name, "/dev/null")
    surroundings.tls.cache_clear()
    return waits


type Set = Callable[..., None]


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Sets variables; None takes one away."""

    def give(**values: str | None) -> None:
        for name, value in values.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        settings.cache_clear()
        sdk.reset()

    return give


@pytest.fixture
def client(variables: Set) -> Callable[..., Any]:
    """The slim client of a server."""

    def make(server: Server, service: str = "dynamodb", **values: str) -> Any:
        patient = {"NEXUS_CONNECT_TIMEOUT": "30", "NEXUS_READ_TIMEOUT": "30", "NEXUS_ATTEMPTS": "3"}
        variables(**{"AWS_ENDPOINT_URL": server.url, **patient, **values})
        made = sdk.client(service)  # type: ignore[call-overload]
        assert isinstance(made, slim.Client)
        return made

    return make


type Make = Callable[..., Any]

# --- responses ---


def test_a_request_is_answered_and_its_connection_serves_the_next(client: Make) -> None:
    with serving(response(ITEM)) as server:
        dynamodb = client(server)
        responses = [dynamodb.get_item(**KEY) for _ in range(3)]
    about = responses[0]["ResponseMetadata"]
    assert responses[0]["Item"] == ITEM["Item"]
    assert (about["HTTPStatusCode"], about["RequestId"], about["RetryAttempts"]) == (200, "R-1", 0)
    assert [request.connection for request in server.requests] == [1, 1, 1]
    assert json.loads(server.requests[0].body) == KEY


@pytest.mark.parametrize(
    "said",
    [
        wire.byte_by_byte(response(ITEM)),
        b"HTTP/1.1 100 Continue\r\n\r\n" + response(ITEM),
        response(gzip.compress(json.dumps(ITEM).encode()), content_encoding="gzip"),
        response(ITEM, x_amz_crc32=str(zlib.crc32(json.dumps(ITEM).encode()))),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n" + json.dumps(ITEM).encode()[:4] + b"\r\n"
        b"%x\r\n" % (len(json.dumps(ITEM)) - 4) + json.dumps(ITEM).encode()[4:] + b"\r\n0\r\n\r\n",
    ],
    ids=["byte by byte", "100 first", "gzip", "checksum", "chunked"],
)
def test_a_complete_response_is_read_however_it_is_split(client: Make, said: wire.Response) -> None:
    with serving(said) as server:
        dynamodb = client(server)
        for _ in range(2):
            found = dynamodb.get_item(**KEY)
            assert (found["Item"], found["ResponseMetadata"]["RetryAttempts"]) == (ITEM["Item"], 0)


@pytest.mark.parametrize(
    "broken",
    [
        wire.reset,
        wire.then_close(b""),
        wire.then_close(b"HTTP/1.1 2"),
        wire.then_close(b"HTTP/1.1 200 OK\r\ncontent-le"),
        wire.then_close(b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps(ITEM).encode()),
        wire.then_close(response(ITEM)[:-3]),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        response(ITEM, length=9),
        response(b"<html>It works</html>"),
        response(b"null"),
        response(ITEM, x_amz_crc32="7"),
        response(b"no gzip", content_encoding="gzip"),
        response(gzip.compress(json.dumps(ITEM).encode())[:-9], content_encoding="gzip"),
        response(status=500),
        response(b"<html>Bad Gateway</html>", status=502),
        refusal("ServiceUnavailable", status=503),
        response(status=504),
        response(status=429),
        refusal("ProvisionedThroughputExceededException"),
    ],
    ids=lambda case: case.decode(errors="replace").splitlines()[0] if isinstance(case, bytes) else "",
)
def test_a_request_with_a_broken_response_is_sent_again(
    client: Make, slept: list[float], broken: wire.Response
) -> None:
    with serving(broken, response(ITEM)) as server:
        found = client(server).get_item(**KEY)
    assert (found["Item"], found["ResponseMetadata"]["RetryAttempts"]) == (ITEM["Item"], 1)
    assert len(server.requests) == 2
    assert len(slept) == 1


def test_extra_bytes_of_a_response_do_not_reach_the_next_request(client: Make) -> None:
    """The rest of a response must not be taken for the response to the next request."""
    with serving(response(ITEM) + response({"Item": {"id": {"S": "another"}}}), response(ITEM)) as server:
        dynamodb = client(server)
        assert [dynamodb.get_item(**KEY)["Item"] for _ in range(2)] == [ITEM["Item"]] * 2
    assert server.connections == 2


def test_contradictory_length_headers_are_a_broken_response(client: Make) -> None:
    """A proxy that believes one header and a client that believes the other would mix up two requests' responses."""
    smuggled = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    with serving(smuggled, response(ITEM)) as server:
        assert client(server).get_item(**KEY)["ResponseMetadata"]["RetryAttempts"] == 1
    assert server.connections == 2


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (wire.silence, aws.ReadTimeoutError),
        (wire.then_silence(response(ITEM)[:30]), aws.ReadTimeoutError),
        (wire.then_silence(response(ITEM)[:-1]), aws.ReadTimeoutError),
        (wire.reset, aws.ConnectionClosedError),
        (wire.then_close(b""), aws.ConnectionClosedError),
        (response(b"]"), aws.HTTPClientError),
    ],
    ids=["silence", "half a head", "half a body", "reset", "closed", "no JSON"],
)
def test_an_outage_raises_botocores_error_after_the_last_attempt(
    client: Make, said: wire.Response, error: type[Exception]
) -> None:
    with serving(said) as server:
        dynamodb = client(server, NEXUS_READ_TIMEOUT="0.05" if error is aws.ReadTimeoutError else "30")
        with pytest.raises(error) as raised:
            dynamodb.get_item(**KEY)
        server.has_accepted(1 if isinstance(said, bytes) else 3)
    assert sdk.is_outage(raised.value)
    assert sdk.is_of_aws(raised.value)


def test_an_unreachable_server_raises_botocores_error(client: Make) -> None:
    with serving(response()) as server:
        pass
    with pytest.raises(aws.EndpointConnectionError) as raised:
        client(server).get_item(**KEY)
    assert sdk.is_outage(raised.value)


def test_an_unknown_host_raises_botocores_error(variables: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    variables(AWS_ENDPOINT_URL="http://nowhere.invalid")
    with pytest.raises(aws.EndpointConnectionError):
        sdk.client("dynamodb").get_item(**KEY)  # type: ignore[arg-type]


# --- connections ---


def test_a_closed_connection_is_replaced_without_using_an_attempt(client: Make) -> None:
    with serving(wire.then_close(response(ITEM)), response(ITEM)) as server:
        dynamodb = client(server)
        dynamodb.get_item(**KEY)
        (kept,) = dynamodb.send.__self__._idle
        assert kept.stream.recv(1, socket.MSG_PEEK) == b""  # the server has closed it
        found = dynamodb.get_item(**KEY)
    assert found["ResponseMetadata"]["RetryAttempts"] == 0
    assert server.connections == 2


def test_a_connection_that_ends_during_a_request_uses_an_attempt(
    client: Make,
) -> None:
    with serving(response(ITEM), wire.reset, response(ITEM)) as server:
        dynamodb = client(server)
        dynamodb.get_item(**KEY)
        found = dynamodb.get_item(**KEY)
    assert found["ResponseMetadata"]["RetryAttempts"] == 1
    assert [request.connection for request in server.requests] == [1, 1, 2]


def test_connections_that_died_together_use_one_attempt(client: Make) -> None:
    """A gateway or firewall that drops idle connections drops all of them, and reports it at the next request."""
    together = threading.Barrier(3)

    def say(connection: wire.Connection) -> None:
        if len(server.requests) <= 3:
            together.wait(PATIENCE)
        elif server.requests[-1].connection <= 3:
            wire.reset(connection)
            return
        connection.sendall(response(ITEM))

    with serving(say) as server:
        dynamodb = client(server, NEXUS_ATTEMPTS="2")
        threads = [threading.Thread(target=lambda: dynamodb.get_item(**KEY)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = dynamodb.get_item(**KEY)
    assert found["ResponseMetadata"]["RetryAttempts"] == 1
    assert [request.connection for request in server.requests][4:] == [4]


def test_threads_use_their_own_connections_and_only_a_limited_number_is_kept(client: Make) -> None:
    together = threading.Barrier(20)

    def say(connection: wire.Connection) -> None:
        together.wait(PATIENCE)
        connection.sendall(response(ITEM))

    with serving(say) as server:
        dynamodb = client(server)
        threads = [threading.Thread(target=lambda: dynamodb.get_item(**KEY)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.connections == 20
        assert len(dynamodb.send.__self__._idle) == surroundings.CONNECTIONS


def test_an_interrupted_request_closes_its_connection(client: Make) -> None:
    """A time limit's signal interrupts any line; a response that arrives later is discarded."""
    with serving(response(ITEM)) as server:
        dynamodb = client(server)
        dynamodb.get_item(**KEY)
        (connection,) = dynamodb.send.__self__._idle

        class Alarmed:
            def __getattr__(self, name: str) -> Any:
                return getattr(sock, name)

            def sendall(self, said: bytes) -> None:
                sock.sendall(said)
                raise KeyboardInterrupt

        sock, connection.stream = connection.stream, Alarmed()
        with pytest.raises(KeyboardInterrupt):
            dynamodb.get_item(**KEY)
        assert not dynamodb.send.__self__._idle
        assert dynamodb.get_item(**KEY)["Item"] == ITEM["Item"]
    assert server.connections == 2


def test_a_signal_while_a_response_is_parsed_is_raised_and_not_retried(
    client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser turns whatever is raised in its callbacks into its own error."""

    def alarmed(*_: bytes) -> None:
        raise TimeLimitExceeded("task has used its 1 s")

    with serving(response(ITEM)) as server:
        dynamodb = client(server)
        with monkeypatch.context() as patched:
            patched.setattr(connections.Connection, "on_header", alarmed)
            with pytest.raises(TimeLimitExceeded, match="has used its 1 s"):
                dynamodb.get_item(**KEY)
        assert not dynamodb.send.__self__._idle
        assert dynamodb.get_item(**KEY)["Item"] == ITEM["Item"]
    assert len(server.requests) == 2


def test_a_forked_child_opens_its_own_connection(client: Make) -> None:
    with serving(response(ITEM)) as server:
        client(server).get_item(**KEY)

        def again() -> None:
            assert sdk.client("dynamodb").get_item(**KEY)["Item"] == ITEM["Item"]  # type: ignore[arg-type]

        assert in_a_child(again) == 0
        again()
    assert [request.connection for request in server.requests] == [1, 2, 1]


# --- TLS ---


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """authority.pem, and by it server.pem (key and certificate), the same without an authority's key identifier
    (lax.pem), and other.pem for another host.
    """
    folder, now = tmp_path_factory.mktemp("tls"), datetime.now(UTC)
    authority = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])

    identified = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())

    def certificate(key: ec.EllipticCurvePrivateKey, subject: str, *extensions: Any) -> bytes:
        builder = (
            x509.CertificateBuilder(name, x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    (folder / "authority.pem").write_bytes(
        certificate(authority, "authority", x509.BasicConstraints(True, None), usage, identified)
    )
    here, elsewhere = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")
    for file, host, *more in (("server", here, identified), ("lax", here), ("other", elsewhere, identified)):
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(host)])
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{file}.pem").write_bytes(private + certificate(key, file, names, *more))
    return folder


def _tls(certificates: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem")
    return context


@pytest.mark.parametrize(
    ("variable", "name"), [("AWS_CA_BUNDLE", "server"), ("REQUESTS_CA_BUNDLE", "server"), ("AWS_CA_BUNDLE", "lax")]
)
def test_a_server_is_verified_by_the_bundle_that_is_given(
    client: Make, certificates: Path, variable: str, name: str
) -> None:
    """As botocore verifies it: the certificates of a company's proxy are often not as strict as RFC 5280."""
    with serving(response(ITEM), tls=_tls(certificates, name)) as server:
        dynamodb = client(server, **{variable: str(certificates / "authority.pem")})
        assert [dynamodb.get_item(**KEY)["Item"] for _ in range(2)] == [ITEM["Item"]] * 2
        assert server.connections == 1
        assert sdk._botocore("dynamodb").get_item(**KEY)["Item"] == ITEM["Item"]


@pytest.mark.parametrize(("name", "bundle"), [("server", None), ("other", "authority.pem")])
def test_a_server_with_the_wrong_certificate_gets_no_request(
    client: Make, certificates: Path, name: str, bundle: str | None
) -> None:
    with serving(response(ITEM), tls=_tls(certificates, name)) as server:
        given = {"AWS_CA_BUNDLE": str(certificates / bundle)} if bundle else {}
        with pytest.raises(aws.SSLError):
            client(server, **given).get_item(**KEY)
    assert not server.requests


def test_an_unanswered_tls_handshake_raises_a_connect_timeout(
    client: Make, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(response(ITEM)) as server:
        silent = threading.Event()

        def say_nothing(_: Server, connection: wire.Connection, _number: int) -> None:
            silent.wait(PATIENCE)
            connection.close()

        monkeypatch.setattr(Server, "serve", say_nothing)
        server.tls = _tls(certificates, "server")  # so that its URL says https: it speaks none
        with pytest.raises(aws.ConnectTimeoutError):
            client(server, NEXUS_CONNECT_TIMEOUT="0.05").get_item(**KEY)
        silent.set()


# --- compared with botocore ---


@given(
    st.binary(max_size=50),
    st.one_of(st.none(), st.text("abcXYZ019+/=", min_size=1)),
    st.datetimes(datetime(2015, 1, 1), datetime(2060, 1, 1)),  # noqa: DTZ001 - as botocore takes it
    st.sampled_from(["dynamodb", "sqs"]),
    st.text("abcXYZ019+/=", min_size=1),
)
def test_a_signature_equals_botocores(
    body: bytes, token: str | None, moment: datetime, service: str, secret: str
) -> None:
    """At any time, including a wrong clock: AWS's refusal is then the same."""
    at = moment.strftime("%Y%m%dT%H%M%SZ")
    headers = {"Content-Type": "application/x-amz-json-1.0", "Host": "h:1", "User-Agent": "a", "X-Amz-Target": "T.Op"}
    headers |= {"X-Amzn-Trace-Id": "Root=1"} | ({"X-Amzn-Query-Mode": "true"} if service == "sqs" else {})
    theirs = AWSRequest("POST", "http://h:1/", dict(headers), body)
    theirs.context["timestamp"] = at
    signer: Any = SigV4Auth(Credentials("AKID", secret, token), service, "eu-west-1")
    signer._modify_request_before_signing(theirs)
    canonical = signer.canonical_request(theirs)
    signature = signer.signature(signer.string_to_sign(theirs, canonical), theirs)
    signer._inject_signature_to_request(theirs, signature)
    ours = slim.signed(headers, body, ("AKID", secret, token), ("eu-west-1", service), at)
    assert ours["Authorization"] == theirs.headers["Authorization"]
    assert ours.get("X-Amz-Security-Token") == theirs.headers.get("X-Amz-Security-Token")


REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("dynamodb", "get_item", KEY),
    ("dynamodb", "describe_table", {"TableName": "runs"}),
    ("dynamodb", "batch_execute_statement", {"Statements": [{"Statement": "SELECT 'é \u2028 😀' FROM x"}]}),
    ("dynamodb", "transact_write_items", {"TransactItems": [], "ClientRequestToken": "t"}),
    ("sqs", "get_queue_url", {"QueueName": "q"}),
    ("sqs", "send_message", {"QueueUrl": "http://q/1/q", "MessageBody": "é 😀", "DelaySeconds": 3}),
    (
        "sqs",
        "send_message_batch",
        {
            "QueueUrl": "http://q/1/q",
            "Entries": [
                {
                    "Id": "0",
                    "MessageBody": "b",
                    "MessageAttributes": {"a": {"DataType": "String", "StringValue": "v"}},
                    "MessageGroupId": "g",
                }
            ],
        },
    ),
    ("sqs", "receive_message", {"QueueUrl": "http://q/1/q", "MessageAttributeNames": ["All"], "WaitTimeSeconds": 1}),
    (
        "sqs",
        "change_message_visibility_batch",
        {"QueueUrl": "http://q/1/q", "Entries": [{"Id": "0", "ReceiptHandle": "r"}]},
    ),
]


def _both(server: Server, service: str, client: Make) -> tuple[Any, Any]:
    ours = client(server, service)
    return ours, sdk._botocore(service)


@pytest.mark.parametrize(("service", "method", "parameters"), REQUESTS, ids=[method for _, method, _ in REQUESTS])
def test_a_request_equals_botocores(client: Make, service: str, method: str, parameters: dict[str, Any]) -> None:
    with serving(response({})) as server:
        for one in _both(server, service, client):
            getattr(one, method)(**parameters)
    ours, theirs = server.requests
    assert json.loads(ours.body) == json.loads(theirs.body)
    unlike = {
        "authorization",
        "x-amz-date",
        "content-length",
        "amz-sdk-invocation-id",
        "amz-sdk-request",
        "accept-encoding",
    }
    # Powertools adds its own name once it has been imported.
    assert theirs.headers["user-agent"].startswith(ours.headers["user-agent"])
    unlike.add("user-agent")
    assert {n: v for n, v in ours.headers.items() if n not in unlike} == {
        n: v for n, v in theirs.headers.items() if n not in unlike
    }


ANSWERS: dict[str, tuple[str, bytes]] = {
    "an item": ("dynamodb", response({"Item": {"a": {"N": "1.5"}, "b": {"L": [{"NULL": True}]}}})),
    "messages": (
        "sqs",
        response({"Messages": [{"MessageId": "m", "Body": "b", "Attributes": {"SentTimestamp": "1"}}]}),
    ),
    "nothing": ("sqs", response(b"")),
    "a failed condition": (
        "dynamodb",
        refusal("ConditionalCheckFailedException", "The conditional request failed", Item={"id": {"S": "r-1"}}),
    ),
    "a cancelled transaction": (
        "dynamodb",
        refusal(
            "TransactionCanceledException", CancellationReasons=[{"Code": "ConditionalCheckFailed"}, {"Code": "None"}]
        ),
    ),
    "no table": ("dynamodb", refusal("ResourceNotFoundException")),
    "a refused statement": ("dynamodb", refusal("ValidationException")),
    "throttling": ("dynamodb", refusal("ThrottlingException")),
    "throughput": ("dynamodb", refusal("ProvisionedThroughputExceededException")),
    "too many requests": ("dynamodb", response(status=429)),
    "a replica's conflict": ("dynamodb", refusal("ReplicatedWriteConflictException")),
    "an error inside": ("dynamodb", refusal("InternalServerError", status=500)),
    "an error with a link": (
        "dynamodb",
        response({"__type": "AccessDeniedException:http://x/y#z", "Message": "M"}, 400),
    ),
    "an expired token": ("dynamodb", refusal("ExpiredTokenException")),
    "a clock that is wrong": (
        "dynamodb",
        refusal("InvalidSignatureException", "Signature expired: 2026 is now earlier"),
    ),
    "no JSON": ("sqs", response(b"<html>Bad Gateway</html>", 502)),
    "no answer inside": ("dynamodb", response(b"", 500)),
    "nothing at all": ("sqs", response(b"", 400)),
    "a redirect": ("sqs", response(b"", 307, location="http://elsewhere")),
    "no queue": (
        "sqs",
        refusal("QueueDoesNotExist", headers={"x_amzn_query_error": "AWS.SimpleQueueService.NonExistentQueue;Sender"}),
    ),
    "an error of SQS": ("sqs", refusal("InvalidMessageContents")),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_a_response_equals_botocores(client: Make, case: str) -> None:
    service, said = ANSWERS[case]
    method, parameters = (
        ("update_item", KEY) if service == "dynamodb" else ("receive_message", {"QueueUrl": "http://q/1/q"})
    )
    outcomes = []
    with serving(said) as server:
        for one in _both(server, service, client):
            before = len(server.requests)
            try:
                outcome = getattr(one, method)(**parameters)
            except aws.ClientError as error:
                outcome = {"raised": str(error), **error.response}
                is_said = sdk.is_missing(error), sdk.is_outage(error), sdk.is_refused(error), sdk.is_of_aws(error)
                outcome |= {"is": is_said, "operation": error.operation_name}
            about = outcome.pop("ResponseMetadata")
            outcome = {name: value for name, value in outcome.items() if name.lower() not in ("message", "__type")}
            kept = {name: about.get(name) for name in ("HTTPStatusCode", "RetryAttempts")}
            outcomes.append((outcome, kept, len(server.requests) - before))
    assert outcomes[0] == outcomes[1]


def test_retryable_errors_and_the_retry_quota_equal_botocores() -> None:
    transient: Any = standard.TransientRetryableChecker
    throttled: Any = standard.ThrottledRetryableChecker
    quota: Any = standard.RetryQuotaChecker
    assert set(slim.THROTTLES.split()) == set(throttled._THROTTLED_ERROR_CODES)
    conflicts = {"ReplicatedWriteConflictException"}  # DynamoDB's model calls it retryable
    known = set(slim.TRANSIENT.split()) | set(slim.THROTTLES.split())
    assert set(slim.TRANSIENT.split()) - conflicts <= set(transient._TRANSIENT_ERROR_CODES) <= known
    assert frozenset(transient._TRANSIENT_STATUS_CODES) == slim.TRANSIENT_STATUS
    assert quota._RETRY_COST == slim.RETRY_COST
    assert quota._THROTTLING_RETRY_COST == slim.THROTTLE_COST


def test_every_error_that_a_model_calls_retryable_is_retried() -> None:
    for service, methods in slim.METHODS.items():
        model = get_session().get_service_model(service)
        operations = {"".join(word.capitalize() for word in method.split("_")) for method in methods.split()}
        shapes = [shape for name in operations for shape in model.operation_model(name).error_shapes]
        retryable = {shape.name for shape in shapes if shape.metadata.get("retryable") is not None}
        assert retryable <= set(slim.TRANSIENT.split()) | set(slim.THROTTLES.split())


@pytest.mark.parametrize("service", ["dynamodb", "sqs"])
@pytest.mark.parametrize("throttled", [False, True])
def test_the_wait_before_a_retry_equals_botocores(
    client: Make, monkeypatch: pytest.MonkeyPatch, service: str, throttled: bool
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.4)
    detector: Any = SimpleNamespace(is_throttling_error_from_context=lambda _: throttled)
    backoff = standard.ExponentialBackoff(random=lambda: 0.4, service_name=service, throttling_detector=detector)
    with serving(response()) as server:
        ours = client(server, service)
    for tries, asked in product([0, 1, 4, 9], ["", "1500", "60000", "-3", "soon"]):
        received: Any = SimpleNamespace(headers={"x-amz-retry-after": asked} if asked else {})
        context: Any = standard.RetryContext(attempt_number=tries + 1, http_response=received)
        assert ours._wait(tries, throttled, asked) == pytest.approx(backoff.delay_amount(context)), (tries, asked)


def test_retries_have_a_quota_that_successes_give_back(client: Make, slept: list[float]) -> None:
    """A budget of 500 pays for 35 retries at 14, so that an outage does not cause a retry storm."""
    with serving(*[wire.then_close(b"")] * 40, response(ITEM)) as server:
        dynamodb = client(server, NEXUS_ATTEMPTS="10")
        for _ in range(4):
            with pytest.raises(aws.ConnectionClosedError):
                dynamodb.get_item(**KEY)
        assert (len(server.requests), len(slept)) == (39, 35)
        with pytest.raises(aws.ConnectionClosedError):
            dynamodb.get_item(**KEY)
        assert len(slept) == 35
        for _ in range(4):  # of the ten that were left, four more than fourteen
            dynamodb.get_item(**KEY)
        server.responses = [wire.then_close(b""), response(ITEM)]
        server.requests.clear()
        assert dynamodb.get_item(**KEY)["ResponseMetadata"]["RetryAttempts"] == 1


def test_the_trace_header_for_lambdas_loop_detection_is_sent(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "f")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-2;Parent=é;Sampled=1")
    with serving(response({})) as server:
        for one in _both(server, "sqs", client):
            one.get_queue_url(QueueName="q")
    ours, theirs = server.requests
    assert ours.headers["x-amzn-trace-id"] == theirs.headers["x-amzn-trace-id"]


def test_botocore_makes_requests_that_the_slim_client_lacks(client: Make) -> None:
    with serving(response({"Attributes": {"ApproximateNumberOfMessages": "3"}})) as server:
        sqs = client(server, "sqs")
        found = sqs.get_queue_attributes(QueueUrl="http://q/1/q", AttributeNames=["All"])
        assert found["Attributes"] == {"ApproximateNumberOfMessages": "3"}
        assert sqs.exceptions.PurgeQueueInProgress.__name__ == "PurgeQueueInProgress"
    assert "botocore" not in server.requests[0].headers["user-agent"].lower()


def test_every_method_is_one_of_botocores() -> None:
    for service, methods in slim.METHODS.items():
        theirs = boto3.client(service, region_name="eu-west-1")  # type: ignore[call-overload]
        assert {name for name in methods.split() if not hasattr(theirs, name)} == set()


# --- when it is used ---


@pytest.mark.parametrize("service", ["dynamodb", "sqs"])
def test_an_endpoint_is_that_of_botocore_or_none(variables: Set, service: str) -> None:
    session: Any = get_session()
    resolver = session._get_internal_component("endpoint_resolver")
    ours: dict[str, str | None] = {}
    theirs: dict[str, str | None] = {}
    for partition in session.get_available_partitions():
        for region in session.get_available_regions(service, partition):
            ours[region] = surroundings.plain_endpoint(service, Settings(region=region))
            host = resolver.construct_endpoint(service, region)["hostname"]
            theirs[region] = f"https://{host}" if partition in ("aws", "aws-us-gov") else None
    assert ours == theirs
    assert len([endpoint for endpoint in ours.values() if endpoint]) > 30


@pytest.mark.parametrize("region", ["eu-west-1", "us-gov-west-1"])
def test_a_clients_region_and_partition_equal_botocores(variables: Set, region: str) -> None:
    variables(AWS_REGION=region, AWS_ENDPOINT_URL=None)
    for service in slim.METHODS:
        ours, theirs = sdk.client(service).meta, sdk._botocore(service).meta  # type: ignore[call-overload]
        assert (
            (ours.region_name, ours.partition) == (theirs.region_name, theirs.partition) == (region, theirs.partition)
        )


@pytest.mark.parametrize(
    "given",
    [
        {"NEXUS_CLIENT": "boto3"},
        {"AWS_PROFILE": "p"},
        {"AWS_USE_FIPS_ENDPOINT": "true"},
        {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
        {"HTTPS_PROXY": "http://proxy:3128"},
        {"https_proxy": "http://proxy:3128"},
        {"AWS_REGION": "cn-north-1"},
        {"AWS_REGION": "cn-north-1", "AWS_ENDPOINT_URL": "https://vpce-1.dynamodb.cn-north-1.vpce.amazonaws.com.cn"},
        {"AWS_REGION": "us-iso-east-1"},
        {"AWS_REGION": "eu-west-1.evil.example"},
        {"AWS_REGION": None, "AWS_DEFAULT_REGION": None},
        {"AWS_SECRET_ACCESS_KEY": None},
        {"AWS_ENDPOINT_URL": "http://h/path"},
        {"AWS_ENDPOINT_URL": "http://user@h"},
        {"AWS_ENDPOINT_URL_DYNAMODB": "h:8000"},
        {"AWS_CA_BUNDLE": "/nowhere.pem"},
        {"AWS_CONFIG_FILE": __file__},
        {"AWS_SHARED_CREDENTIALS_FILE": __file__},
    ],
    ids=str,
)
def test_botocore_makes_the_requests_that_need_its_configuration(variables: Set, given: dict[str, str | None]) -> None:
    variables(AWS_ENDPOINT_URL=None)
    assert surroundings.plain_endpoint("dynamodb", settings()) == "https://dynamodb.eu-west-1.amazonaws.com"
    variables(**given)
    assert surroundings.plain_endpoint("dynamodb", settings()) is None


def test_a_user_without_a_home_directory_can_send(variables: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in many a container, and in a function."""

    def nobody(_: int) -> Any:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    variables(HOME=None, AWS_CONFIG_FILE=None, AWS_SHARED_CREDENTIALS_FILE=None, AWS_ENDPOINT_URL=None)
    assert surroundings.plain_endpoint("sqs", settings()) == "https://sqs.eu-west-1.amazonaws.com"


def test_an_endpoint_of_a_service_comes_before_that_of_all(variables: Set) -> None:
    variables(AWS_ENDPOINT_URL="http://all", AWS_ENDPOINT_URL_SQS="http://queues:1/")
    assert surroundings.plain_endpoint("sqs", settings()) == "http://queues:1/"
    assert surroundings.plain_endpoint("dynamodb", settings()) == "http://all"


def test_an_unknown_client_setting_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^NEXUS_CLIENT is 'http'"):
        Settings.read({"NEXUS_CLIENT": "http"})


def test_under_moto_the_client_is_botocores(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application's tests that use moto send nothing to AWS."""
    monkeypatch.undo()
    with mock_aws():
        boto3.client("sqs", region_name="eu-west-1").create_queue(QueueName="q")
        assert not isinstance(sdk.client("sqs"), slim.Client)
        assert sdk.client("sqs").get_queue_url(QueueName="q")["QueueUrl"].endswith("/q")


# --- credentials ---


def test_a_functions_credentials_are_read_from_the_environment(client: Make) -> None:
    with serving(response()) as server:
        client(server, AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="s", AWS_SESSION_TOKEN="the/token").get_item(**KEY)
    headers = server.requests[0].headers
    assert "Credential=AK/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "the/token"


def test_credentials_that_expire_are_refreshed_as_botocores_providers_do(
    client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[str] = []

    def fresh() -> dict[str, str]:
        handed.append(f"AK{len(handed)}")
        lasts = timedelta(minutes=1) if len(handed) == 1 else timedelta(hours=1)
        expiry = (datetime.now(UTC) + lasts).isoformat()
        return {"access_key": handed[-1], "secret_key": "s", "token": "t", "expiry_time": expiry}

    provided = RefreshableCredentials.create_from_metadata(fresh(), fresh, "test")
    monkeypatch.setattr("botocore.session.Session.get_credentials", lambda _: provided)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with serving(response()) as server:
        dynamodb = client(server)
        for _ in range(2):
            dynamodb.get_item(**KEY)
    assert [one.headers["authorization"].partition("/")[0][-3:] for one in server.requests] == ["AK1", "AK1"]


def test_missing_credentials_raise_botocores_error(variables: Set) -> None:
    variables(
        AWS_ACCESS_KEY_ID=None,
        AWS_SECRET_ACCESS_KEY=None,
        AWS_EC2_METADATA_DISABLED="true",
        AWS_ENDPOINT_URL="http://127.0.0.1:9",
    )
    with pytest.raises(aws.NoCredentialsError) as raised:
        sdk.client("dynamodb").get_item(**KEY)  # type: ignore[arg-type]
    assert sdk.is_misconfigured(raised.value)


@pytest.mark.parametrize(
    ("service", "method", "parameters"), [("dynamodb", "get_item", KEY), ("scheduler", "list_schedules", {})]
)
def test_missing_credentials_are_looked_up_again(variables: Set, service: Any, method: str, parameters: Any) -> None:
    """A metadata service that is slow or throttled at a process's first request must not stop all later ones.

    But a lookup may take seconds, so not every request makes one.
    """
    variables(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    found = iter([None, Credentials("AK", "s", "t")])
    provider = SimpleNamespace(load_credentials=lambda: next(found))
    sdk.session().register_component("credential_provider", provider)
    frozen = FrozenClock(0.0)

    with clock.use(frozen):
        for _ in range(2):
            with pytest.raises(aws.NoCredentialsError):
                getattr(sdk.client(service), method)(**parameters)
        frozen.sleep(sdk.SEARCH_AGAIN_AFTER)
        with pytest.raises(aws.EndpointConnectionError):
            getattr(sdk.client(service), method)(**parameters)


def test_a_line_end_in_a_credential_adds_no_header(client: Make) -> None:
    with serving(response()) as server:
        dynamodb = client(server, AWS_SESSION_TOKEN="token\r\nX-Evil: 1")
        with pytest.raises(aws.HTTPClientError, match="contains a line break"):
            dynamodb.get_item(**KEY)
    assert not server.requests


# --- sending ---


def test_a_send_makes_two_requests_on_kept_connections(client: Make) -> None:
    with serving(response({"QueueUrl": "http://q/1/q"})) as server:
        client(server)
        for _ in range(3):
            catalogue.send_note.delay(user_id="u-1", kind="like", text="hello")
    targets = [request.headers["x-amz-target"].partition(".")[2] for request in server.requests]
    assert targets == ["UpdateItem", "GetQueueUrl", "SendMessage"] + ["UpdateItem", "SendMessage"] * 2
    assert server.connections == 2  # one of DynamoDB's and one of SQS's


@pytest.mark.parametrize("chosen", ["", "boto3"])
def test_a_send_and_its_handle_are_the_same_by_either_client(variables: Set, chosen: str) -> None:
    said = [
        response({}),
        response({"QueueUrl": "http://q/1/q"}),
        response({"MessageId": "m"}),
        response({"Item": RECORD}),
    ]
    with serving(*said) as server:
        variables(AWS_ENDPOINT_URL=server.url, NEXUS_CLIENT=chosen)
        assert isinstance(sdk.client("sqs"), slim.Client) is not bool(chosen)
        handle = catalogue.send_note.apply_async({"user_id": "u-1", "kind": "k", "text": "t"}, task_id=uuid.UUID(int=7))
        assert (handle.status, handle.ready()) == ("SUCCESS", True)
    targets = [request.headers["x-amz-target"].partition(".")[2] for request in server.requests]
    assert targets[:4] == ["UpdateItem", "GetQueueUrl", "SendMessage", "GetItem"]
    sent = json.loads(server.requests[2].body)
    assert json.loads(sent["MessageBody"])["args"] == {"user_id": "u-1", "kind": "k", "text": "t"}


def test_a_send_returns_in_time_if_aws_never_responds(client: Make) -> None:
    with serving(wire.silence) as server:
        client(server, NEXUS_SEND_TIMEOUT="0.05", NEXUS_READ_TIMEOUT="30")
        with pytest.raises(SendFailed, match=r"AWS has not answered within 0.05 s \(NEXUS_SEND_TIMEOUT\)"):
            catalogue.send_note.delay(user_id="u-1", kind="like", text="hello")
    bounded._threads().shutdown()  # the thread that sends ends with its connection, and leaves the next test nothing
    bounded._threads.cache_clear()


def test_endless_slow_bytes_block_the_sending_thread_until_its_caller_gives_up(client: Make) -> None:
    """Each byte arrives within the read timeout; only the caller's own timeout ends such a response."""
    begun = threading.Event()

    def endless(connection: wire.Connection) -> None:
        begun.set()
        wire.endless(connection)

    with serving(endless) as server:
        client(server, NEXUS_READ_TIMEOUT="30")
        waiting, sending = bounded._start(partial(catalogue.send_note.delay, user_id="u-1", kind="like", text="hello"))
        assert begun.wait(PATIENCE)
        assert not sending.done()
        waiting.given_up(0.05)
        assert isinstance(sending.exception(PATIENCE), SendFailed)
    assert len(server.requests) == 1


def test_a_send_that_was_given_up_makes_no_further_request(client: Make) -> None:
    """The caller gives up during the first attempt; the response is a throttle, after which it would retry."""
    asked, given_up = threading.Event(), threading.Event()

    def throttle(connection: wire.Connection) -> None:
        asked.set()
        given_up.wait(PATIENCE)
        connection.sendall(refusal("ThrottlingException"))

    outcome: list[BaseException] = []

    def send(waiting: sdk.Wait) -> None:
        sdk.wait.set(waiting)
        try:
            sdk.client("dynamodb").get_item(**KEY)  # type: ignore[arg-type]
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is compared
            outcome.append(error)

    with serving(throttle) as server:
        client(server)
        waiting = sdk.Wait()
        thread = threading.Thread(target=send, args=(waiting,))
        thread.start()
        assert asked.wait(PATIENCE)
        waiting.over = True
        given_up.set()
        thread.join()
    assert [type(error) for error in outcome] == [aws.BotoCoreError]
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException"])
def test_a_refusal_is_an_applications_error(client: Make, code: str) -> None:
    with serving(refusal(code)) as server:
        client(server)
        with pytest.raises(ConfigurationError if "NotFound" in code else SendFailed, match=code):
            catalogue.send_note.delay(user_id="u-1", kind="like", text="hello")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    sdk.reset()
    surroundings.tls.cache_clear()


# --- other clients ---


def test_a_request_of_the_slim_clients_is_recorded_as_botocores_is(client: Make) -> None:
    noted: list[tuple[Any, ...]] = []
    with serving(response({}), refusal("ResourceNotFoundException")) as server:
        dynamodb = client(server)
        end = recorder.observe(lambda *asked: noted.append(asked))
        try:
            dynamodb.get_item(**KEY)
            with pytest.raises(aws.ClientError):
                dynamodb.get_item(**KEY)
        finally:
            end()
        with pytest.raises(aws.ClientError):
            dynamodb.get_item(**KEY)
    assert noted == [("dynamodb", "GetItem", KEY, ""), ("dynamodb", "GetItem", KEY, "ResourceNotFoundException")]


@pytest.mark.parametrize("value", [{"a": "\ud800"}, {"n": 2**70}, {"é": ["\u2028", None]}], ids=ascii)
def test_any_json_survives_a_round_trip(value: dict[str, Any]) -> None:
    assert json.loads(encoding.dumps(value)) == json.loads(encoding.line(value)) == value
    assert "\n" not in encoding.line({"text": "a\nb", "when": datetime(2026, 1, 1, tzinfo=UTC)})
