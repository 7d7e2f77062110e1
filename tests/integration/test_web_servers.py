"""A web server's workers continue while AWS accepts requests and never responds."""

import http.client
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import PATIENCE, eventually

ROOT = Path(__file__).parents[2]
GUNICORN = (sys.executable, "-m", "gunicorn", "--timeout", "30", "--graceful-timeout", "30", "--bind")
APPLICATION = "tests.support.web_application"


@pytest.fixture
def _point_at_the_cloud() -> None:
    """These tests have their own cloud, which never responds."""


class Silence:
    """A server that accepts every connection, reads, and never answers."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.connections: list[socket.socket] = []
        self.met = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            self.met.set()

    def close(self) -> None:
        """Ends every connection, and refuses what comes after."""
        if self.listener.fileno() < 0:
            return
        self.listener.shutdown(socket.SHUT_RDWR)  # close() alone would leave the thread accepting
        self.listener.close()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def silence() -> Iterator[Silence]:
    silent = Silence()
    yield silent
    silent.close()


class Connection(http.client.HTTPConnection):
    """HTTP over a socket in the file system, whose name nobody else can have taken."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


@contextmanager
def served(command: tuple[str, ...], path: Path, cloud: str, **variables: str) -> Iterator[Callable[[str], str]]:
    """A web server that listens on `path`; gives what asks it for a page."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "NEXUS_"))},
        "PYTHONPATH": f"{ROOT / 'shared'}:{ROOT}",
        "AWS_ENDPOINT_URL": cloud,
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "NEXUS_STACK": "nexus-silent",
        "NEXUS_ACCOUNT_ID": "123456789012",
        "NEXUS_CATALOGUE": "tests.support.own_catalogue",
        **variables,
    }

    def ask(page: str) -> str:
        connection = Connection(path)
        try:
            connection.request("GET", page)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def up() -> bool:
        assert server.poll() is None, log.read_text()
        try:
            return ask("/") == "alive"
        except OSError:
            return False

    log = path.with_suffix(".log")
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
        try:
            eventually(up)
            yield ask
        finally:
            server.terminate()
            try:
                server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()
                raise


@pytest.mark.parametrize("worker", ["sync", "gthread", "gevent"])
def test_a_gunicorn_worker_survives_an_unresponsive_aws(tmp_path: Path, silence: Silence, worker: str) -> None:
    """Gunicorn kills a worker that is held up for 30 s, and the request would end without an answer."""
    path = tmp_path / "web.sock"
    command = (*GUNICORN, f"unix:{path}", "--worker-class", worker, f"{APPLICATION}:wsgi")
    with served(command, path, silence.url) as ask, ThreadPoolExecutor() as users:
        sent = [users.submit(ask, "/send") for _ in range(3)]
        for answer in sent:
            assert re.match(r"SendFailed: not sent: .*(within 4.5 s|[Tt]imeout)", answer.result())
        assert ask("/") == "alive"
    assert "WORKER TIMEOUT" not in path.with_suffix(".log").read_text()


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_other_requests_are_answered_while_one_waits_for_aws(tmp_path: Path, silence: Silence, worker: str) -> None:
    path = tmp_path / "web.sock"
    command = (*GUNICORN, f"unix:{path}", "--worker-class", worker, "--threads", "4", f"{APPLICATION}:wsgi")
    _others_are_answered(command, path, silence, "/send")


@pytest.mark.parametrize("page", ["/send", "/get"])
def test_the_loop_of_uvicorn_is_never_blocked(tmp_path: Path, silence: Silence, page: str) -> None:
    path = tmp_path / "web.sock"
    command = (sys.executable, "-m", "uvicorn", "--uds", str(path), f"{APPLICATION}:asgi")
    _others_are_answered(command, path, silence, page)


def test_a_view_of_uvicorn_is_answered_although_aws_is_not(tmp_path: Path, silence: Silence) -> None:
    path = tmp_path / "web.sock"
    command = (sys.executable, "-m", "uvicorn", "--uds", str(path), f"{APPLICATION}:asgi")
    with served(command, path, silence.url) as ask:
        assert ask("/send").startswith("SendFailed: not sent: ")


def _others_are_answered(command: Any, path: Path, silence: Silence, page: str) -> None:
    """The one that waits has all the time in the world: it ends because AWS closes, after the others were answered."""
    patient = {"NEXUS_SEND_TIMEOUT": "600", "NEXUS_READ_TIMEOUT": "600"}
    with served(command, path, silence.url, **patient) as ask, ThreadPoolExecutor() as users:
        waiting = users.submit(ask, page)
        assert silence.met.wait(PATIENCE)
        assert [ask("/") for _ in range(5)] == ["alive"] * 5
        assert not waiting.done()
        silence.close()
        assert "Error" in waiting.result() or "SendFailed" in waiting.result()
