"""Runs one task in a Lambda container with `sam local invoke`, against the local cloud: `make invoke TASK=name`.

The container is AWS's own image of the runtime, which the local cloud does not use. It cannot reach the loopback
interface that the local cloud listens on, so a relay on Docker's bridge forwards its connections.
"""

import argparse
import ipaddress
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console

from dev import demo
from dev.build import BUILT
from dev.local_cloud import architecture
from nexus.registry import registry
from ops.checkout import ROOT, Cloud, running
from samples.make import make
from social.data import posts

SAM: Final = ROOT / ".venv-sam" / "bin" / "sam"
IMAGE: Final = f"public.ecr.aws/lambda/python:3.13-{architecture()}"
CHUNK: Final = 1 << 16


class InvokeError(Exception):
    """An invocation in a container is not possible; the message says what is missing."""


def invoke(task: str, event: Path | None = None) -> int:
    """Runs a task's function on an event and shows its response. Returns SAM's exit code. Raises InvokeError."""
    if registry.known(task) is None:
        raise InvokeError(f"There is no task {task!r}. The tasks are {', '.join(sorted(registry.tasks()))}")
    event = event or ROOT / "events" / f"{task}.json"
    if not event.is_file():
        raise InvokeError(f"There is no {event}: name an existing one with EVENT=")
    if _docker("info") is None:
        raise InvokeError("This runs functions in Docker, but no Docker daemon responds. `make up` needs no Docker")
    cloud = running()
    if cloud is None:
        raise InvokeError("The local cloud is not running: `make up` starts it")
    os.environ.update(cloud.exports())
    lay_ground()
    here = ["--skip-pull-image"] if _docker("image", "inspect", IMAGE) is not None else []
    with _relay(cloud.port, _bridge()) as endpoint:
        command: list[str | Path] = [
            *(SAM, "local", "invoke", f"{registry.task(task).queue.title()}Function"),
            *("--template-file", _template(), "--event", event, "--env-vars", _variables(cloud, endpoint)),
            *("--region", cloud.exports()["AWS_REGION"], *here),
            *("--parameter-overrides", f"Stage=local Architecture={architecture()}"),
        ]
        environment = os.environ | {"SAM_CLI_TELEMETRY": "0"}
        del environment["AWS_ENDPOINT_URL"]  # the container has its own; SAM itself needs none
        return subprocess.run(command, env=environment, check=False).returncode


def lay_ground() -> None:
    """Creates what events/ refer to, if `make run` has not: the users, and one uploaded picture."""
    demo.register()
    if posts.get("demo-alps") is None:
        demo.process(Console(stderr=True), [path for path in make() if path.name == "alps.jpg"])


def _docker(*arguments: str) -> str | None:
    """Docker's output, or None if it is missing or fails."""
    try:
        return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _bridge() -> str:
    """This machine's address on Docker's default network."""
    networks = json.loads(_docker("network", "inspect", "bridge") or "[]")
    for network in networks:
        for block in network["IPAM"]["Config"]:
            if ipaddress.ip_network(block["Subnet"]).version == 4:
                return block.get("Gateway") or str(next(ipaddress.ip_network(block["Subnet"]).hosts()))
    raise InvokeError("Docker has no bridge network")


def _template() -> Path:
    """The built template plus the one variable that a deployed function must not have: SAM only sets declared ones."""
    text = (BUILT / "template.yaml").read_text()
    name = "NEXUS_STACK:"
    before, found, after = text.partition(name)
    indent = before[before.rfind("\n") + 1 :]
    if not found or indent.strip():
        raise InvokeError("The built template is not as expected: `make build`")
    path = BUILT / "invoke.yaml"
    path.write_text(f'{before}AWS_ENDPOINT_URL: ""\n{indent}{name}{after}')
    return path


def _variables(cloud: Cloud, endpoint: str) -> Path:
    """Writes SAM's variables file with the stack's real name and account, which SAM would invent."""
    values = {name: value for name, value in cloud.exports().items() if name.startswith("NEXUS_")}
    path = BUILT / "invoke-variables.json"
    path.write_text(json.dumps({"Parameters": values | {"AWS_ENDPOINT_URL": endpoint}}))
    return path


@contextmanager
def _relay(port: int, address: str) -> Iterator[str]:
    """Forwards connections from `address` to a port of the loopback interface. Yields the URL to use instead."""
    with socket.create_server((address, 0)) as server:

        def accept() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:  # the server is closed
                    return
                callee = socket.create_connection(("127.0.0.1", port))
                for source, target in ((caller, callee), (callee, caller)):
                    threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://{address}:{server.getsockname()[1]}"


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m dev.invoke", description="Run one task in a Lambda container")
    parser.add_argument("task")
    parser.add_argument("event", nargs="?", type=Path, help="a file (default: events/<task>.json)")
    given = parser.parse_args(arguments)
    try:
        return invoke(given.task, given.event)
    except InvokeError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
