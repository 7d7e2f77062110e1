"""The start of the local cloud: what it reports about the machine first, and that two starts do not mix."""

import fcntl
import os
import shutil
import signal
import tempfile
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev import local_cloud
from ops import checkout

Usage = namedtuple("Usage", "total used free")  # noqa: PYI024 - shutil's own
GIB = 1024**3


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_CLOUD_FOLDER", str(tmp_path))
    monkeypatch.delenv("NEXUS_CLOUD_SANDBOXES", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(local_cloud, "_launched", lambda _: checkout.Cloud(1, 4566))


def started_with(free: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code, and the warnings."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * GIB, 0, int(free)))
    return local_cloud.main(["start"]), capsys.readouterr().err


def test_only_a_lack_of_disk_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert started_with(4 * GIB, monkeypatch, capsys) == (0, "")

    code, said = started_with(2.5 * GIB, monkeypatch, capsys)

    assert code == 0
    assert said == (
        "The disk is short: 2.5 GB are free, and 16 sandboxes may take 3.9 GB. Free some, or start with a smaller "
        "NEXUS_CLOUD_SANDBOXES (5 or more).\n"
    )


def test_fewer_sandboxes_need_less_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NEXUS_CLOUD_SANDBOXES", "6")
    assert started_with(2.5 * GIB, monkeypatch, capsys) == (0, "")


@pytest.mark.parametrize("said", ["4", "many", "-1", "0"])
def test_an_invalid_number_of_sandboxes_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    monkeypatch.setenv("NEXUS_CLOUD_SANDBOXES", said)
    code, why = started_with(9 * GIB, monkeypatch, capsys)
    assert code == 1
    assert f"NEXUS_CLOUD_SANDBOXES: '{said}' is not a number, 5 or more" in why


def test_checkouts_choose_their_ports_one_after_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def launched(_port: int | None) -> checkout.Cloud:
        (lock,) = tmp_path.glob("*.lock")
        with lock.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return checkout.Cloud(1, 4566)

    monkeypatch.setattr(local_cloud, "_launched", launched)
    assert local_cloud.start() == checkout.Cloud(1, 4566)
    assert local_cloud.start() == checkout.Cloud(1, 4566), "the turn has ended"


def test_a_start_waits_for_a_cloud_that_is_starting_and_not_for_other_checkouts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns: list[str] = []

    @contextmanager
    def turn() -> Iterator[None]:
        turns.append("waited")
        yield

    monkeypatch.setattr(local_cloud, "running", lambda: checkout.Cloud(2, 4999))
    monkeypatch.setattr(local_cloud, "_turn", turn)
    monkeypatch.setattr(local_cloud, "_is_up", lambda _: True)
    assert (local_cloud.start(), turns) == (checkout.Cloud(2, 4999), [])
    monkeypatch.setattr(local_cloud, "_is_up", lambda _: False)
    assert (local_cloud.start(), turns) == (checkout.Cloud(2, 4999), ["waited"])


@pytest.mark.parametrize(
    ("given", "exported"),
    [
        ({}, "127.0.0.1"),
        ({"NO_PROXY": "corp.example"}, "corp.example,127.0.0.1"),
        ({"NO_PROXY": "corp.example", "no_proxy": "other.example"}, "other.example,127.0.0.1"),
        ({"no_proxy": "corp.example, 127.0.0.1"}, "corp.example, 127.0.0.1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_the_variables_of_the_local_cloud_go_past_a_proxy(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], exported: str
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert checkout.Cloud(1, 4566).exports()["no_proxy"] == exported


def test_a_cloud_that_does_not_end_is_not_reported_as_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(local_cloud, "running", lambda: checkout.Cloud(4711, 4566))
    monkeypatch.setattr(local_cloud, "SECONDS_TO_STOP", 0)
    monkeypatch.setattr(os, "killpg", lambda *given: sent.append(given))
    assert local_cloud.main(["stop"]) == 1
    assert "process 4711 has not ended" in capsys.readouterr().err
    assert sent == [(4711, signal.SIGTERM), (4711, signal.SIGKILL)]
