"""localemu, the second emulator, one for all tests of this folder."""

import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.local_cloud import _free_port
from ops.checkout import ROOT
from tests.support.patience import eventually


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A localemu of its own, on the loopback interface."""
    folder, port = tmp_path_factory.mktemp("localemu"), _free_port()
    url = f"http://127.0.0.1:{port}"
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    own = {"HOME": str(folder), "TMPDIR": str(folder), "GATEWAY_LISTEN": f"127.0.0.1:{port}", "DISABLE_EVENTS": "1"}
    with (folder / "log").open("wb") as log:
        command = [str(ROOT / ".venv-second" / "bin" / "python"), "-m", "localemu.runtime.main"]
        process = subprocess.Popen(command, cwd=folder, env=kept | own, stdout=log, stderr=log, start_new_session=True)
    try:
        eventually(lambda: answers(url, process, folder / "log"))
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        with urllib.request.urlopen(f"{url}/_localemu/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
