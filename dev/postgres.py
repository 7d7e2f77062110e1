"""A temporary PostgreSQL on a free port of 127.0.0.1, from Debian's package, for the Django example and tests.

    python -m dev.postgres start|stop|env

Its folder is temporary and its data is lost when it stops; .local/<cloud>/postgres.json says where it runs.
"""

import argparse
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ops.checkout import cloud_folder

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its folder, and its port on 127.0.0.1, 0 if it only has a socket in the folder."""

    folder: str
    port: int

    @property
    def address(self) -> str:
        """libpq's connection string."""
        where = f"host={HOST} port={self.port}" if self.port else f"host={self.folder}"
        return f"{where} user=postgres dbname=postgres"


def begin(*, tcp: bool = False) -> Server:
    """Creates a cluster in a temporary folder and starts it. Raises FileNotFoundError if PostgreSQL is missing."""
    folder = Path(tempfile.mkdtemp(prefix="nexus-pg-"))
    try:
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        port = _free_port() if tcp else 0
        listen = f"-c listen_addresses='{HOST}' -p {port}" if tcp else "-c listen_addresses=''"
        _run("initdb", folder, "--no-sync", "-A", "trust", "-U", "postgres", "-D", str(folder / "data"))
        options = f"{listen} -c unix_socket_directories='{folder}' -c fsync=off"
        _run("pg_ctl", folder, "-w", "-D", str(folder / "data"), "-l", str(folder / "log"), "-o", options, "start")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Server(str(folder), port)


def end(server: Server) -> None:
    """Stops it and removes its folder."""
    folder = Path(server.folder)
    _run("pg_ctl", folder, "-w", "-D", str(folder / "data"), "-m", "immediate", "stop")
    shutil.rmtree(folder)


@contextmanager
def temporary(*, tcp: bool = False) -> Iterator[Server]:
    """A server that runs for the duration of the block."""
    server = begin(tcp=tcp)
    try:
        yield server
    finally:
        end(server)


def start() -> Server:
    """Starts the checkout's server; returns the running one, if any."""
    found = running()
    if found is None:
        found = begin(tcp=True)
        cloud_folder().mkdir(parents=True, exist_ok=True)
        _note().write_text(json.dumps(asdict(found)))
    return found


def stop() -> bool:
    """Stops the checkout's server and removes its folder; False if none was running."""
    noted = _noted()
    if noted is None:
        return False
    found = running()
    if found is None:
        shutil.rmtree(noted.folder, ignore_errors=True)
    else:
        end(found)
    _note().unlink()
    return found is not None


def running() -> Server | None:
    """The checkout's server, if it runs. Another program may have taken the port of one that has ended."""
    noted = _noted()
    with suppress(OSError):
        if noted is not None:
            _run("pg_ctl", Path(noted.folder), "-D", str(Path(noted.folder) / "data"), "status")
            return noted
    return None


def _noted() -> Server | None:
    with suppress(FileNotFoundError, ValueError):
        return Server(**json.loads(_note().read_text()))
    return None


def _note() -> Path:
    return cloud_folder() / "postgres.json"


def _run(program: str, folder: Path, *arguments: str) -> None:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = programs[-1] / program if programs else Path(shutil.which(program) or "")
    if not found.is_file():
        raise FileNotFoundError("PostgreSQL is missing: `make .local/postgresql` installs it")
    user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run((found, *arguments), check=False, capture_output=True, text=True, cwd=folder, **user)
    if done.returncode:
        raise OSError(f"{program} ended with {done.returncode}: {done.stderr or done.stdout}")


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as found:
        return int(found.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. `env` prints the variable by which a process finds the server."""
    parser = argparse.ArgumentParser(prog="python -m dev.postgres", description="PostgreSQL for the Django example.")
    parser.add_argument("command", choices=("start", "stop", "env"))
    command = parser.parse_args(arguments).command
    if command == "stop":
        stop()
        return 0
    server = start() if command == "start" else running()
    if server is None:
        print("PostgreSQL does not run: `python -m dev.postgres start`", file=sys.stderr)
        return 1
    if command == "env":
        print(f"export DATABASE_HOST={HOST} DATABASE_PORT={server.port}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
