"""Starts and stops the local cloud (ministack), as an endpoint for `sam deploy` and every AWS tool.

    python -m dev.local_cloud start|stop|status|env

One process, only on the loopback interface, with IAM enforced. All its files are under .local/cloud, or the
folder that NEXUS_CLOUD_FOLDER names: `make test` has a separate cloud. Its state is in memory, so a stop loses it and
the next `make up` deploys again. `ops.checkout` finds it when it runs.
"""

import argparse
import fcntl
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from ops.checkout import (
    ACCOUNT_ID,
    HOST,
    REGION,
    ROOT,
    Cloud,
    cloud_folder,
    lock_file,
    running,
    shell_lines,
    take_lock,
)

INTERPRETER: Final = ROOT / ".venv-cloud" / "bin" / "python"

USUAL_PORT: Final = 4566
SECONDS_TO_START: Final = 60
SECONDS_TO_STOP: Final = 10

USUAL_SANDBOXES: Final = 16
FEWEST_SANDBOXES: Final = 5
SANDBOX_BYTES: Final = 250 * 1024**2
"""Disk space of a sandbox: its function's code and the layer, unpacked."""


_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks no proxy of the environment for an address of this machine."""

_started: dict[int, subprocess.Popen[bytes]] = {}
"""The clouds started by this process: children that it must reap."""


class CloudError(Exception):
    """The local cloud cannot be started or stopped; the message says why."""


def start(port: int | None = None) -> Cloud:
    """Starts the cloud and waits until it responds; returns the running one, if any.

    Listens on `port`, else NEXUS_CLOUD_PORT, else 4566, and on any free port if 4566 is taken. Raises CloudError if it
    is not installed, does not come up, or a setting is invalid.
    """
    if (cloud := running()) and _is_up(cloud):
        return cloud
    with _turn():
        return running() or _launched(port)


@contextmanager
def _turn() -> Iterator[None]:
    """One start at a time: two checkouts that start together would choose one port, and take one cloud for both."""
    with (Path(tempfile.gettempdir()) / f"nexus-cloud-{os.getuid()}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _launched(port: int | None) -> Cloud:
    if not INTERPRETER.exists():
        raise CloudError("the local cloud is not installed: run `make setup`")
    value = os.environ.get("NEXUS_CLOUD_PORT", "")
    if value and not value.isdecimal():
        raise CloudError(f"NEXUS_CLOUD_PORT: {value!r} is not a port's number")
    chosen = port or int(value or 0) or (USUAL_PORT if _is_free(USUAL_PORT) else _free_port())
    if not _is_free(chosen):
        raise CloudError(f"port {chosen} is taken: set another one in NEXUS_CLOUD_PORT")

    folder = cloud_folder()
    log_file, scratch = folder / "cloud.log", folder / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    (folder / "deployed").unlink(missing_ok=True)  # make's record of the last deployment: a new cloud is empty
    with lock_file().open("a") as lock, log_file.open("wb") as log:
        deadline = time.monotonic() + SECONDS_TO_STOP
        while not take_lock(lock.fileno()):  # a process that asks whether the cloud runs holds it for a moment
            if time.monotonic() > deadline:
                raise CloudError(f"another process holds {lock.name}: end it")
            time.sleep(0.01)
        lock.truncate(0)
        process = subprocess.Popen(
            [INTERPRETER, "-P", ROOT / "dev" / "emulator.py"],
            env=_environment(chosen, folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )
        _started[process.pid] = process
        cloud = Cloud(process.pid, chosen)
        json.dump(asdict(cloud), lock)
    deadline = time.monotonic() + SECONDS_TO_START
    while not _is_up(cloud):
        if process.poll() is not None:
            raise CloudError(f"it ended with exit code {process.returncode}: see {log_file}")
        if time.monotonic() > deadline:
            stop()
            raise CloudError(f"it did not respond within {SECONDS_TO_START} s: see {log_file}")
        time.sleep(0.1)
    return cloud


def sandboxes() -> int:
    """The maximum number of sandboxes: NEXUS_CLOUD_SANDBOXES, else 16. Raises CloudError if it is invalid."""
    value = os.environ.get("NEXUS_CLOUD_SANDBOXES") or str(USUAL_SANDBOXES)
    if not value.isdecimal() or int(value) < FEWEST_SANDBOXES:
        raise CloudError(f"NEXUS_CLOUD_SANDBOXES: {value!r} is not a number, {FEWEST_SANDBOXES} or more")
    return int(value)


def short_of_disk() -> str | None:
    """A message if the disk has less space than the sandboxes may need, else None. Raises CloudError."""
    free, most = shutil.disk_usage(cloud_folder()).free, sandboxes()
    if free >= most * SANDBOX_BYTES:
        return None
    return (
        f"The disk is short: {free / 1024**3:.1f} GB are free, and {most} sandboxes may take "
        f"{most * SANDBOX_BYTES / 1024**3:.1f} GB. Free some, or start with a smaller NEXUS_CLOUD_SANDBOXES "
        f"({FEWEST_SANDBOXES} or more)."
    )


def stop() -> bool:
    """Ends the cloud and its functions. False if none was running. Raises CloudError if it does not end."""
    cloud = running()
    if cloud is None:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(cloud.pid, number)
        deadline = time.monotonic() + SECONDS_TO_STOP
        while running() is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        if running() is None:
            break
    else:
        raise CloudError(f"process {cloud.pid} has not ended {SECONDS_TO_STOP} s after it was killed")
    if child := _started.pop(cloud.pid, None):
        child.wait()
    shutil.rmtree(cloud_folder() / "tmp", ignore_errors=True)
    return True


def architecture() -> str:
    """This machine's architecture, by Lambda's name: arm64 or x86_64."""
    return "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"


def _environment(port: int, folder: Path) -> dict[str, str]:
    """A clean environment for the cloud: functions inherit it and must see no more than in Lambda."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "NEXUS_REQUESTS", "NEXUS_CLIENT")
        if name in os.environ
    }
    return kept | {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": HOST,
        "AUTH": "true",
        "MINISTACK_REGION": REGION,
        "MINISTACK_ACCOUNT_ID": ACCOUNT_ID,
        # BIND_HOST does not cover these two, which would listen on every interface.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "LAMBDA_EXECUTOR": "local",
        "LAMBDA_ACCOUNT_CONCURRENCY": "0",  # nothing is throttled: invocations wait for a sandbox
        "NEXUS_CLOUD_SANDBOXES": str(sandboxes()),
        "PERSIST_STATE": "0",
        "STATE_DIR": str(folder / "state"),
        "S3_DATA_DIR": str(folder / "s3"),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONUTF8": "1",
        "LOG_LEVEL": "INFO",
    }


def _is_up(cloud: Cloud) -> bool:
    try:
        with _DIRECT.open(f"{cloud.endpoint}/_ministack/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m dev.local_cloud", description="The local cloud")
    parser.add_argument("command", choices=["start", "stop", "status", "env"])
    command = parser.parse_args(arguments).command
    if command == "start":
        try:
            if short := short_of_disk():
                print(short, file=sys.stderr)
            cloud: Cloud | None = start()
        except CloudError as error:
            print(f"The local cloud does not start: {error}", file=sys.stderr)
            return 1
    elif command == "stop":
        try:
            print("The local cloud has stopped" if stop() else "No local cloud was running")
        except CloudError as error:
            print(f"The local cloud does not stop: {error}", file=sys.stderr)
            return 1
        return 0
    else:
        cloud = running()
    if cloud is None:
        print("The local cloud is not running: `make up` starts it", file=sys.stderr)
        return 1
    if command == "env":
        print(shell_lines(cloud.exports()))
    else:
        print(f"The local cloud runs at {cloud.endpoint} (process {cloud.pid})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
