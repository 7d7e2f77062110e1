"""Temporary files go with their process, however it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from social import scratch

OWNER = """
import sys
from pathlib import Path
from social import scratch
held = scratch.folder()
(Path(held.name) / "clip").write_bytes(b"x" * 1000)
print(held.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A /tmp of this test's own, in a process that has not used it yet."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    scratch._own.cache_clear()
    yield tmp_path
    scratch._own.cache_clear()


def owner(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """Another process, and the folder that it uses."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(place), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_process_is_removed_when_the_next_process_makes_its_first(place: Path) -> None:
    process, left = owner(place)
    assert (left / "clip").exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (left / "clip").exists(), "nobody has removed it yet"

    with scratch.folder() as name:
        assert Path(name).is_dir()
        assert list(place.iterdir()) == [Path(name).parent]


def test_the_files_of_a_process_that_is_at_work_stay(place: Path) -> None:
    process, theirs = owner(place)
    with scratch.folder() as name:
        assert (theirs / "clip").exists()
        assert theirs.parent != Path(name).parent
    process.communicate()
    assert not theirs.parent.exists(), "it removes its own when it ends"


def test_stale_folders_are_removed_and_other_files_kept(place: Path) -> None:
    (place / f"{scratch.PREFIX}stale").mkdir()
    (place / f"{scratch.PREFIX}stale" / "source").write_bytes(b"x")
    (place / "another-programs").mkdir()
    with scratch.folder() as first, scratch.folder() as second:
        assert {path.name for path in place.iterdir()} == {"another-programs", Path(first).parent.name}
        assert first != second
    assert list(Path(first).parent.iterdir()) == []


def test_a_leftover_that_cannot_be_deleted_does_not_fail_the_task(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink, stuck, gone = os.unlink, place / f"{scratch.PREFIX}a" / "stuck", place / f"{scratch.PREFIX}b"
    for path in (stuck.parent, gone):
        path.mkdir()
    stuck.write_bytes(b"x")

    def refusing(path: Any, **also: Any) -> None:
        if Path(path).name == stuck.name:
            raise PermissionError(path)
        unlink(path, **also)

    monkeypatch.setattr(os, "unlink", refusing)
    with scratch.folder() as name:
        assert Path(name).is_dir()
    assert stuck.exists()
    assert not gone.exists()


def test_a_folder_that_another_process_removes_before_it_is_locked_is_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = scratch._lock, list[Path]()

    def late(path: Path) -> int | None:
        if not taken:
            taken.append(path)
            path.rmdir()
        return lock(path)

    monkeypatch.setattr(scratch, "_lock", late)
    with scratch.folder() as name:
        assert Path(name).is_dir()
    assert taken != [Path(name).parent]
