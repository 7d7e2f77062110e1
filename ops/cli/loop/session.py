"""The session of `nexus dev`: it pauses the queues, starts the workers' server, replaces the workers after a change of
the files, and resumes the queues at the end.

The queues that it has paused are in a file, which it keeps locked. So a session that was killed leaves a note, and the
next one of the same stack resumes those queues too.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from nexus.backend.transport import queue_url
from nexus.settings import settings
from ops import checkout, control, health, versions
from ops.aws import in_parallel
from ops.cli import output
from ops.cli.loop.lifeline import RELOAD, RERUN
from ops.deployment import Deployment
from ops.problems import REPAIR, Problem

LOOK: Final = 1000
"""Milliseconds between two checks that the server is still running."""

PAUSE: Final = 50
"""Milliseconds without another write after which a change counts as complete: editors write files in steps."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a worker needs to know about its queue and function."""

    url: str
    arn: str
    handler: str
    environment: Mapping[str, str]
    path: Sequence[str]


@dataclass(frozen=True, slots=True)
class Config:
    """What the server and the workers need. `again`: run what is in `last.json` first."""

    region: str
    queues: Mapping[str, Served]
    again: bool


class Workers(Protocol):
    """The part of the server's process that a watch needs."""

    def poll(self) -> int | None: ...

    def send_signal(self, sig: int) -> None: ...


def run(where: Deployment, queues: Sequence[str], code: Path, replay: Mapping[str, Any] | None = None) -> None:
    """Runs the queues' messages until Ctrl-C. `code` is the folder functions/; `replay` is a run to begin with.

    Raises Problem if another session has the stack, every queue is paused, or the server ends.
    """
    signal.signal(signal.SIGHUP, signal.default_int_handler)  # a closed terminal ends it like Ctrl-C
    with (
        suppress(KeyboardInterrupt),
        _noted(where.stack) as note,
        tempfile.TemporaryDirectory(prefix="nexus-dev-") as name,
        _taken(where, queues, note) as taken,
    ):
        folder = Path(name)
        if replay is not None:
            (folder / "last.json").write_text(json.dumps(replay))
        served = dict(zip(taken, in_parallel(lambda queue: _served(queue, code), taken), strict=True))
        config = Config(where.region, served, again=replay is not None)
        (folder / "config.json").write_text(json.dumps(asdict(config)))
        output.note(
            f"{', '.join(taken)} of {where.stack} run here, from {code}; `nexus status` calls them paused. "
            "Ctrl-C gives them back."
        )
        with _server(folder) as server:
            watch([code, *_shared()], server, folder / "last.json", code)


# --- the queues ---


@contextmanager
def _noted(stack: str) -> Iterator[Path]:
    """The file that names the paused queues, locked for this session. Raises Problem if another one has it."""
    path = checkout.cloud_folder() / f"dev-{stack}.json"
    with path.open("a+") as file:
        if not checkout.take_lock(file.fileno()):
            raise Problem(f"Another `nexus dev` runs on {stack}", do="End it with Ctrl-C first.")
        yield path


@contextmanager
def _taken(where: Deployment, queues: Sequence[str], note: Path) -> Iterator[Sequence[str]]:
    """Pauses the queues, and resumes them at the end. A queue that someone else has paused is left alone."""
    left = set(json.loads(note.read_text() or "[]")) & set(where.queues)
    states = dict(zip(queues, in_parallel(_state, queues), strict=True))
    taken = [queue for queue in queues if states[queue] != "Disabled" or queue in left]
    for queue in queues:
        if queue not in taken:
            output.note(f"{queue} is already paused and is left alone: `nexus resume {queue}`.")
    if not taken:
        raise Problem("There is no queue to run", "All are paused.", "`nexus resume QUEUE` starts one again.")
    note.write_text(json.dumps(sorted(left.union(taken))))
    _resume(where, sorted(left.difference(taken)))
    try:
        in_parallel(control.pause, taken)
        yield taken
    finally:
        with _undisturbed():
            _resume(where, taken)
            note.write_text("[]")


def _resume(where: Deployment, queues: Sequence[str]) -> None:
    in_parallel(lambda queue: control.resume(queue, where.reserved(queue)), queues)
    if queues:
        output.note(f"{', '.join(queues)} run in {where.stack} again.")


def _state(queue: str) -> str:
    source = health.event_source(queue)
    if source is None:
        raise Problem(f"{queue} has no event source", do=REPAIR)
    return str(source["State"])


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Within the block Ctrl-C is ignored."""
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _served(queue: str, code: Path) -> Served:
    found = versions.configuration(queue)
    source = health.event_source(queue)
    own = code / queue
    return Served(
        url=queue_url(settings().queue_name(queue)),
        arn=str(source["EventSourceArn"]) if source else "",
        handler=str(found["Handler"]),
        environment=found.get("Environment", {}).get("Variables", {}),
        path=[str(own if own.is_dir() else code), *map(str, _shared())],
    )


def _shared() -> Sequence[Path]:
    """The folder shared/ that this process runs from; none if the packages are installed."""
    import nexus

    folder = Path(nexus.__file__).resolve().parents[1]
    return [] if "site-packages" in folder.parts else [folder]


# --- the processes ---


@contextmanager
def _server(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The server of the workers, ended with the block."""
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "ops.cli.loop.server", str(folder), str(reading)]
    server = subprocess.Popen(command, pass_fds=[reading])
    os.close(reading)
    try:
        yield server
    finally:
        end(server)
        os.close(writing)


def end(server: "subprocess.Popen[bytes]") -> None:
    """Ends the server after the message that is running; a second Ctrl-C kills what still runs."""
    while server.poll() is None:
        try:
            server.terminate()
            server.wait()
        except KeyboardInterrupt:
            output.note("Killed. The message that was running comes back in an hour.")


def watch(
    paths: Sequence[Path],
    server: Workers,
    last: Path,
    code: Path,
    changes: Iterable[set[tuple[Any, str]]] | None = None,
) -> None:
    """Replaces the workers whenever a file has changed, until Ctrl-C. Raises Problem if the server ends."""
    if changes is None:
        import watchfiles

        changes = watchfiles.watch(*paths, step=PAUSE, rust_timeout=LOOK, yield_on_timeout=True)
    try:
        for changed in changes:
            if server.poll() is not None:
                raise Problem("The workers' server has ended", f"Its exit code is {server.poll()}.")
            if changed:
                names = _named(changed, paths)
                output.note(f"{', '.join(names[:3])}{' ...' if names[3:] else ''} changed")
                server.send_signal(RERUN if _concerns(changed, last, code) else RELOAD)
    except KeyboardInterrupt:
        output.note("Ending after the current run, if any; Ctrl-C again kills it.")


def _named(changed: Iterable[tuple[Any, str]], paths: Sequence[Path]) -> list[str]:
    """The changed files, without the temporary files of editors and sed, which have no suffix."""
    names = sorted(_short(Path(path), paths) for _, path in changed)
    return [name for name in names if Path(name).suffix] or names


def _short(path: Path, within: Sequence[Path]) -> str:
    folder = next((folder for folder in within if path.is_relative_to(folder)), path.parent)
    return str(path.relative_to(folder.parent))


def _concerns(changed: Iterable[tuple[Any, str]], last: Path, code: Path) -> bool:
    """Whether the last message's code may have changed: not if all the changes are in other queues' folders."""
    queue = json.loads(last.read_text())["queue"] if last.exists() else ""
    own = code / queue
    return not own.is_dir() or any(
        Path(path).is_relative_to(own) or not Path(path).is_relative_to(code) for _, path in changed
    )
