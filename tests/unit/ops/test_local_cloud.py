"""What `make up` reports about the machine before it starts the local cloud."""

import shutil
from collections import namedtuple
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
    monkeypatch.setattr(local_cloud, "start", lambda: checkout.Cloud(1, 4566))


def started_with(free: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code, and the warnings."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * GIB, 0, int(free)))
    return local_cloud.main(["start"]), capsys.readouterr().err


def test_only_a_short_disk_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert started_with(4 * GIB, monkeypatch, capsys) == (0, "")

    code, said = started_with(2.5 * GIB, monkeypatch, capsys)

    assert code == 0
    assert said == (
        "The disk is short: 2.5 GB are free, and 16 sandboxes may take 3.9 GB. Free some, or start with a smaller "
        "NEXUS_CLOUD_SANDBOXES (5 or more).\n"
    )


def test_fewer_sandboxes_need_less(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NEXUS_CLOUD_SANDBOXES", "6")
    assert started_with(2.5 * GIB, monkeypatch, capsys) == (0, "")


@pytest.mark.parametrize("said", ["4", "many", "-1", "0"])
def test_a_number_that_would_not_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    monkeypatch.setenv("NEXUS_CLOUD_SANDBOXES", said)
    code, why = started_with(9 * GIB, monkeypatch, capsys)
    assert code == 1
    assert f"NEXUS_CLOUD_SANDBOXES: '{said}' is not a number, 5 or more" in why
