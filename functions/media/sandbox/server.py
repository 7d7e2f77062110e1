"""The server that forks a child for each upload: `python -m sandbox.server SOCKET MODULE...`.

The function starts it, with an environment without credentials. It answers on the socket: first with the missing layers
of the confinement, then, for each job, with the child's exit status. A job is one message: JSON, and the descriptors of
the report, the log and the work's files.

It imports MODULES, so that forks are cheap, while it has nothing else to do: before the first job arrives, or while a
first job runs that needs none of them.

The server has one thread and never reads an upload. It ends with the function.
"""

import errno
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import FileIO
from pathlib import Path
from typing import Any, Final, NoReturn

from sandbox.confinement import Bounds, confine, probe, supervise
from sandbox.report import UNAVAILABLE, Report
from social.refusals import Code, Rejected

MOST_FILES: Final = 32
MESSAGE_BYTES: Final = 1 << 16


def main() -> None:
    """Serves until the function's end of the socket is closed."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    missing = probe()
    if "prctl" not in missing:
        supervise()
    channel.send(json.dumps(missing).encode())
    preloaded = sys.argv[2:]
    while True:
        if not _is_waiting(channel):
            _load(preloaded)
        message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, MOST_FILES)
        if not message:
            return
        job = json.loads(message)
        if job["work"] in preloaded:
            _load(preloaded)
        child = os.fork()
        if child == 0:
            channel.close()
            _work(job, descriptors, missing)
        for descriptor in descriptors:
            os.close(descriptor)
        _load(preloaded)  # while a child runs that does not need them
        channel.recv(1)  # until the function has read the whole report, has timed out or has ended
        status = _end(child)
        with suppress(BrokenPipeError):
            channel.send(json.dumps({"status": status}).encode())


def _is_waiting(channel: socket.socket) -> bool:
    """Whether a job is waiting, or the function has ended."""
    return bool(select.select([channel], [], [], 0)[0])


def _load(modules: Sequence[str]) -> None:
    """Imports the modules, once."""
    if all(name in sys.modules for name in modules):
        return
    for name in modules:
        import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page it touches


def _end(child: int) -> int:
    """Kills a child with all its descendants, and returns its exit status."""
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    # It may not have its own process group yet. A child that has ended keeps its exit status.
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(ChildProcessError):
        while True:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):  # only then is the list read, which some kernels lack
                for orphan in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                    os.kill(int(orphan), signal.SIGKILL)
                os.waitpid(-1, 0)
    return status


def _work(job: dict[str, Any], descriptors: list[int], missing: dict[str, int]) -> NoReturn:
    """The child: does one job and exits. An unexpected error leaves a traceback in the job's log."""
    code = UNAVAILABLE
    try:
        os.setsid()
        pipe, log, *rest = descriptors
        for stream in (1, 2):
            os.dup2(log, stream)
        work = import_module(job["work"]).work
        files = [FileIO(each, _mode(each)) for each in rest]
        bounds = Bounds(**job["bounds"])
        confine(bounds, missing)
        report = Report(pipe)
        code = 1
        try:
            report.made(work(job["job"], files, report))
        except Rejected as refusal:
            report.refuse(refusal)
        except (MemoryError, BlockingIOError):  # the latter if a thread has no memory for its stack
            needed = f"it needs more than {bounds.memory >> 20} MiB to decode"
            report.refuse(Rejected(Code.TOO_MUCH_MEMORY, needed))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                code = UNAVAILABLE
            if error.errno != errno.EFBIG:
                raise
            made = f"its output exceeds {bounds.output_bytes >> 20} MiB"
            report.refuse(Rejected(Code.OUTPUT_TOO_LARGE, made))
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, a fork of the server must not continue as a second server
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def _mode(descriptor: int) -> str:
    access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    return {os.O_RDONLY: "r", os.O_WRONLY: "w"}.get(access, "r+")


if __name__ == "__main__":
    main()
