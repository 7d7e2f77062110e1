"""This checkout and the local cloud that runs in it: where it is, and the variables that point any AWS tool at it.

`dev.local_cloud` starts and stops it. A lock that its process holds shows whether it is running. The process id would
not: it may have been reused.
"""

import fcntl
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
HOST: Final = "127.0.0.1"
STACK: Final = "nexus-local"
REGION: Final = "eu-west-1"
ACCOUNT_ID: Final = "000000000000"


@dataclass(frozen=True, slots=True)
class Cloud:
    """A running local cloud: its process id and the port it listens on."""

    pid: int
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def exports(self) -> dict[str, str]:
        """The variables that point any AWS tool, and nexus itself, at this cloud, with an administrator's rights."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            # The emulator treats this key as the account's root user, which no policy restricts.
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "NEXUS_STACK": STACK,
            "NEXUS_ACCOUNT_ID": ACCOUNT_ID,
            # An emulator on a busy machine is slower than AWS.
            "NEXUS_READ_TIMEOUT": "30",
            "NEXUS_SEND_TIMEOUT": "60",
            "no_proxy": _without_proxy(HOST),
        }


def _without_proxy(host: str) -> str:
    """The hosts for which programs ask no proxy: the environment's, and this one. `no_proxy` precedes `NO_PROXY`."""
    hosts = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return hosts if host in hosts.split(",") else ",".join(filter(None, (hosts, host)))


def cloud_folder() -> Path:
    """The folder for everything the local cloud writes: .local/cloud, or the one that NEXUS_CLOUD_FOLDER names."""
    folder = ROOT / ".local" / os.environ.get("NEXUS_CLOUD_FOLDER", "cloud")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def lock_file() -> Path:
    """The file that a running cloud keeps locked, with its process id and port."""
    return cloud_folder() / "cloud.json"


def take_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Takes the lock; False when a running cloud holds it. It is released when the last process closes the file."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def running() -> Cloud | None:
    """The running cloud that this checkout started, or None."""
    try:
        with lock_file().open() as file:
            if take_lock(file.fileno(), fcntl.LOCK_SH):  # shared: another process that asks is not the cloud
                return None
            return Cloud(**json.loads(file.read()))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def shell_lines(variables: Mapping[str, str]) -> str:
    """`export NAME=value` lines for `eval "$(...)"`."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
