"""The PostgreSQL server of the Django example: which one counts as this checkout's, and what is left of it."""

import json
import socket
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest
from pytest_socket import enable_socket

from dev import postgres


def test_another_program_on_the_port_of_a_server_that_died_is_not_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "cloud_folder", lambda: tmp_path)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: nullcontext())
    left = tmp_path / "nexus-pg-1"
    (left / "data").mkdir(parents=True)
    (tmp_path / "postgres.json").write_text(json.dumps({"folder": str(left), "port": 5432}))

    assert postgres.running() is None
    assert postgres.stop() is False
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_cannot_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("initdb ended with 1")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(postgres, "_run", refused)
    with pytest.raises(OSError, match="initdb"):
        postgres.begin()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.programs
def test_a_server_runs_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "cloud_folder", lambda: tmp_path)
    enable_socket()
    assert postgres.running() is None
    started = postgres.start()
    try:
        assert postgres.start() == started == postgres.running()
    finally:
        assert postgres.stop() is True
    assert postgres.running() is None
    assert not Path(started.folder).exists()
