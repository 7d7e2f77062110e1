"""The function's side of a sandbox: starts the server, sends it jobs, and does not trust the results."""

import atexit
import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from sandbox.confinement import Bounds, close_memory
from sandbox.report import UNAVAILABLE
from social.refusals import Code, Rejected

if TYPE_CHECKING:
    from _typeshed import HasFileno

SERVER: Final = "sandbox.server"
PRELOADED: Final = ("pictures.worker",)
"""What the server imports for its children. Only a clip's child imports FFmpeg (131 MB of libraries)."""
MALLOC: Final = {
    "MALLOC_ARENA_MAX": "1",  # no heap for every thread of an encoder
    # A child starts without memory of its own. It reuses what it frees, so the kernel need not clear pages twice.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
"""glibc's settings: with the defaults, a picture takes a tenth more CPU in a child than in a warm process."""
PROGRESS_STEP: Final = 0.05
"""Each progress report may cost the caller a write, so a job has at most twenty."""

MOST_KNOWN: Final = 2
"""The most "known" reports, which may cost a write too: an APNG with a broken animation is read twice."""

MOST_PARTS: Final = 32
"""The most "part" reports, each a request of the caller: no job has more files."""

# The signals of a crashing decoder. SIGKILL is not included: it means that memory ran out, or that an operator sent it.
_CRASHES: Final = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGABRT,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGSYS,
    signal.SIGTRAP,
}
_MESSAGE_LIMIT: Final = 1 << 20
_DETAIL_LIMIT: Final = 2000
"""The most characters of what a child says about a failure: they go to the log and the run's record."""
_REPLY_SECONDS: Final = 30.0

_logger = logging.getLogger(__name__)


class Unfinished(Exception):
    """The work could not be finished, through no known fault of the upload: a retry may succeed."""


class OutOfTime(Unfinished):
    """It was stopped: the deadline passed, or the system killed the child."""


class Unavailable(Unfinished):
    """The server failed, or a child before it had the upload's bytes, or the disk was full."""


@dataclass(frozen=True, slots=True)
class Rendition:
    """A finished file. Width and height in pixels, as displayed."""

    path: Path
    width: int
    height: int
    bytes: int
    content_type: str


def run(
    work: str,
    job: Mapping[str, Any],
    files: "Sequence[HasFileno]",
    *,
    memory: int,
    output_bytes: int,
    seconds: float,
    on_known: Callable[[dict[str, Any]], None] | None = None,
    on_part: Callable[[dict[str, Any]], None] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Runs `work(job, files, report)` of a module in a separate child. Returns its report, which must be validated.

    Args:
        work: the module's name.
        job: its input, as JSON.
        files: the open files to read and write. The child has no others.
        memory: the limit of private memory, in bytes.
        output_bytes: the limit of any one file, in bytes.
        seconds: wall time from now after which it is stopped.
        on_known: called with what the work reports before it is done, unvalidated.
        on_part: called with what it reports of each file that it has finished, unvalidated. It can still write to it.
        on_progress: called with a fraction that rises from 0 to 1 in steps of PROGRESS_STEP or more.

    An exception in a callback stops the work.

    Raises:
        Rejected: the bytes are at fault, permanently.
        OutOfTime: the deadline passed, or the system killed the child.
        Unavailable: the server failed, or the child before it began the work, or the disk was full.
        Unfinished: the child failed without a verdict on the bytes, or its report is invalid.
    """
    deadline = time.monotonic() + seconds
    bounds = Bounds(memory, output_bytes, max(1.0, seconds) * (os.process_cpu_count() or 1))
    message = json.dumps({"work": work, "job": job, "bounds": asdict(bounds)}).encode()
    result: dict[str, Any] | Rejected | None = None
    shown, known, parts = 0.0, 0, 0
    with _turn, tempfile.TemporaryFile() as log, ExitStack() as stack:
        server = start()
        pipe = stack.enter_context(_report_pipe())
        descriptors = [pipe.writer, log.fileno(), *(file.fileno() for file in files)]
        with server.child(message, descriptors) as child:
            pipe.close_writer()
            for sent in _messages(pipe.reader, deadline):
                match sent:
                    case float():
                        if on_progress and round(sent - shown, 3) >= PROGRESS_STEP:
                            on_progress(sent)
                            shown = sent
                    case _Known():
                        known += 1
                        if known > MOST_KNOWN:
                            raise Unfinished("the decoder sends too many reports")
                        if on_known:
                            on_known(sent.fields)
                    case _Part():
                        parts += 1
                        if parts > MOST_PARTS:
                            raise Unfinished("the decoder sends too many reports")
                        if on_part:
                            on_part(sent.fields)
                    case _:
                        result = sent
        if isinstance(result, Rejected):
            raise result
        if result is not None and child.status == 0:
            return result
        raise _failure(child.status, log, seconds)


# --- the server --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Child:
    """A child's exit status: its exit code, or the negative number of the signal that killed it."""

    status: int = 0


class _Server:
    """The process that forks, and the socket to it."""

    def __init__(self) -> None:
        with contextlib.suppress(PermissionError):  # as on Lambda; the server finds the same, and that is logged
            close_memory()  # before any other process starts that could read it
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        modules = str(Path(__file__).resolve().parents[1])
        # A fresh environment: the function's has credentials. -P and the explicit path let it import what this process
        # can, and nothing from the current folder.
        environment = {
            "PYTHONPATH": os.pathsep.join([modules, *(entry for entry in sys.path if Path(entry).is_absolute())]),
            **MALLOC,
            **{name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        }
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-m", SERVER, str(there.fileno()), *PRELOADED],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=environment,
                pass_fds=[there.fileno()],
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._layers_logged = False

    @contextlib.contextmanager
    def child(self, message: bytes, descriptors: Sequence[int]) -> Iterator[_Child]:
        """A running child, which does not outlive the block. Raises Unfinished if the server has died."""
        child = _Child()
        try:
            socket.send_fds(self._here, [message], descriptors)
        except OSError as error:
            raise self._died(str(error)) from error
        if not self._layers_logged:
            self._log_missing_layers()
        try:
            yield child
        finally:
            child.status = self._end()

    def _log_missing_layers(self) -> None:
        for layer, number in self._receive().items():
            # Logged once per sandbox: the rest of the confinement works without it.
            _logger.warning("decoders run without %s: %s (%s)", layer, os.strerror(number), os.uname().release)
        self._layers_logged = True

    def _end(self) -> int:
        try:
            self._here.send(b".")
        except OSError as error:
            raise self._died(str(error)) from error
        return int(self._receive()["status"])

    def _receive(self) -> dict[str, Any]:
        self._here.settimeout(_REPLY_SECONDS)
        try:
            text = self._here.recv(1 << 16)
        except OSError as error:
            raise self._died(str(error)) from error
        if not text:
            raise self._died("it has closed its socket")
        reply: dict[str, Any] = json.loads(text)
        return reply

    def _died(self, why: str) -> Unavailable:
        stop()
        return Unavailable(f"the decoders' server has ended with {self._process.returncode}: {why}")

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        """Ends the server, and any running child with it."""
        self._here.close()
        self._process.kill()
        self._process.wait()


_turn = threading.RLock()
"""The server runs one child at a time."""
_running: list[_Server] = []


def start() -> _Server:
    """Returns the server, starting it if necessary. Called early, it is ready when the upload has been downloaded."""
    with _turn:
        if _running and _running[0].ended:  # between two invocations: that costs no attempt
            stop()
        if not _running:
            _running.append(_Server())
            atexit.register(stop)
        return _running[0]


def stop() -> None:
    """Ends the server; the next job starts a new one."""
    with _turn:
        while _running:
            _running.pop().close()


# --- the child's messages ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Pipe:
    reader: int
    writer: int
    _open: bool = True

    def close_writer(self) -> None:
        if self._open:
            self._open = False
            os.close(self.writer)


@contextlib.contextmanager
def _report_pipe() -> Iterator[_Pipe]:
    pipe = _Pipe(*os.pipe())
    try:
        yield pipe
    finally:
        pipe.close_writer()
        os.close(pipe.reader)


@dataclass(frozen=True, slots=True)
class _Known:
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Part:
    fields: dict[str, Any]


type _Message = float | _Known | _Part | dict[str, Any] | Rejected


def _messages(pipe: int, deadline: float) -> Iterator[_Message]:
    """The child's messages, one per line, until it closes its end or the deadline passes."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and selector.select(left):
            chunk = os.read(pipe, 65536)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _MESSAGE_LIMIT:
                raise Unfinished("the decoder sends too many reports")
            yield from map(_parse, lines)


def _parse(line: bytes) -> _Message:
    try:
        match json.loads(line):
            case {"progress": float() as fraction} if 0 <= fraction <= 1:
                return fraction
            case {"rejected": {"code": str() as code, "detail": str() as detail, "limit": int() | None as limit}}:
                return Rejected(Code(code), detail[:_DETAIL_LIMIT], limit)  # it may quote the file
            case {"known": dict() as fields}:
                return _Known(fields)
            case {"part": dict() as fields}:
                return _Part(fields)
            case {"made": dict() as fields}:
                return fields
    except (ValueError, RecursionError) as error:
        raise Unfinished(f"invalid report by the decoder: {error}") from error
    raise Unfinished(f"invalid report by the decoder: {line[:80]!r}")


def checked[T](check: Callable[[dict[str, Any]], T], fields: dict[str, Any]) -> T:
    """Returns check(fields) of what a child reported. Raises Unfinished if the report is invalid."""
    try:
        return check(fields)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Unfinished(f"invalid report by the decoder: {error}") from error


def _failure(status: int, log: IO[bytes], seconds: float) -> Exception:
    """The exception for a child that ended without a result or a refusal."""
    if -status in _CRASHES:
        return Rejected(Code.DECODER_CRASHED, f"the file crashes the decoder ({signal.Signals(-status).name})")
    if -status in (signal.SIGKILL, signal.SIGXCPU):
        return OutOfTime(f"stopped: over {seconds:.0f} seconds, or killed by the system")
    log.seek(max(0, log.seek(0, os.SEEK_END) - _DETAIL_LIMIT))
    kind = Unavailable if status == UNAVAILABLE else Unfinished
    return kind(f"the decoder ended with {status}: {log.read().decode(errors='replace').strip()}")
