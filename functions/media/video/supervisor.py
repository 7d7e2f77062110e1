"""A clip becomes an MP4, a poster and a preview, and no clip can take the task along.

    video.render(Path("/tmp/upload"), Path("/tmp/out"), seconds=run.remaining - 20)

gives a `Video`, or says no in one of two ways: `Rejected` (the clip is at fault, for good), `Unfinished` (try again).

The bytes are somebody else's, and a decoder is a million lines of C. So nothing of the clip is decoded here:
video.worker does that in a process of its own, which gets no credentials, may open no file or socket once it has
its input and outputs, has a ceiling on memory, processor time and file size, and is killed with its whole group at the
deadline. It writes into a folder that is thrown away unless it ends well, so there are no partial renditions. PyAV
(131 MB of libraries) is imported there and only there: a cold start for a picture pays nothing for video.

The source is a file, which the caller has downloaded with a limit on its bytes. Reading it over presigned range
requests would save that copy, and would give the process that is least trusted a network.
"""

import contextlib
import hashlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from social.refusals import Code, Rejected, megabytes
from video.job import OUTPUTS, POSTER, Job, Limits, Made
from video.rules import Container, container_of, end_of_boxes, promised_bytes

WORKER = "video.worker"
"""The module that runs as the worker."""

# What a crashing decoder dies of. SIGKILL is not here: that is the system's memory running out, or an operator.
_CRASHES: Final = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGABRT,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGSYS,
    signal.SIGTRAP,
}
_REVISION: Final = b"nexus-video 2"
"""Change it with anything that changes the output: the renditions' addresses are immutable and cached for ever."""
PROGRESS_STEP: Final = 0.05
"""Each report may cost the caller a write, so a clip has at most twenty."""
_MESSAGE_LIMIT: Final = 1 << 20
_LOG_TAIL: Final = 2000


class Unfinished(Exception):
    """The clip could not be finished this time, through no known fault of its own: try again later."""


@dataclass(frozen=True, slots=True)
class Rendition:
    """A finished file. Width and height in pixels, as displayed."""

    path: Path
    width: int
    height: int
    bytes: int
    content_type: str


@dataclass(frozen=True, slots=True)
class Video:
    """What a clip became.

    Attributes:
        width, height: pixels of the source as displayed, rotation and pixel shape applied.
        duration: seconds, measured.
        frame_rate: frames a second of the source, on average.
        renditions: `video` (H.264/AAC MP4) and `preview` (animated WebP without sound, up to 3 s).
        poster: a PNG of the frame that stands for the clip, as upright and as large as `video`, for `pictures` to make
            the `poster_*` renditions of.
        remuxed: the source suited as it was, and was copied and not encoded again.
        content_hash: 32 hexadecimal digits that depend on the source's bytes and on how they are rendered, and on
            nothing else.
    """

    width: int
    height: int
    duration: float
    frame_rate: float
    renditions: Mapping[str, Rendition]
    poster: Path
    remuxed: bool
    content_hash: str
    kind: Literal["video"] = "video"


def render(
    source: Path,
    folder: Path,
    *,
    seconds: float,
    limits: Limits | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Video:
    """Makes the renditions of the clip in `source` as files in `folder` (which must exist).

    Args:
        seconds: wall time from now after which the work is stopped.
        on_progress: called with a fraction that rises from 0 to 1 in steps of PROGRESS_STEP or more. What it raises
            stops the work.

    Raises:
        Rejected: the clip is at fault, and the same bytes would be again.
        Unfinished: the deadline came first, or the worker was killed or failed without a word about the clip.

    Whatever is raised, `folder` is left as it was.
    """
    limits = limits or Limits()
    deadline = time.monotonic() + seconds
    container = _admit(source, limits)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial, tempfile.TemporaryFile() as log:
        cpu_seconds = max(1.0, seconds) * (os.process_cpu_count() or 1)
        job = Job(str(source.resolve()), str(Path(partial).resolve()), container, cpu_seconds, limits)
        answer: Made | Rejected | None = None
        shown = 0.0
        with _worker(job, log) as worker:
            for message in _messages(worker, deadline):
                if not isinstance(message, float):
                    answer = message
                elif on_progress and round(message - shown, 3) >= PROGRESS_STEP:
                    on_progress(message)
                    shown = message
            worker.wait(timeout=max(0.1, deadline - time.monotonic()))
        if isinstance(answer, Rejected):
            raise answer
        if answer and worker.returncode == 0:
            return _publish(answer, source, Path(partial), folder)
        raise _failure(worker.returncode, log, seconds)


def _admit(source: Path, limits: Limits) -> Container:
    size = source.stat().st_size
    if size == 0:
        raise Rejected(Code.EMPTY, "the file is empty")
    if size > limits.bytes:
        raise Rejected(
            Code.TOO_MANY_BYTES, f"{size} bytes are over the limit of {limits.bytes}", megabytes(limits.bytes)
        )
    with source.open("rb") as file:
        head = file.read(4096)
        container = container_of(head)
        promised = end_of_boxes(file) if container == "mov" else promised_bytes(head)
    if container is None:
        raise Rejected(Code.UNKNOWN, "not an MP4, MOV, WebM, AVI or WMV file")
    if promised > size:
        raise Rejected(Code.TRUNCATED, f"it has {size} of the {promised} bytes that it says it has")
    return container


@contextlib.contextmanager
def _worker(job: Job, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Starts the worker in a process group of its own, and leaves none of it alive."""
    here = str(Path(__file__).resolve().parents[1])
    # A fresh environment, so that the function's credentials are not where the decoder is. -P and the explicit path let
    # it import what this process can, and nothing from the current folder.
    environment = {
        "PYTHONPATH": os.pathsep.join([here, *(entry for entry in sys.path if Path(entry).is_absolute())]),
        "MALLOC_ARENA_MAX": "2",
        **{name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
    }
    worker = subprocess.Popen(
        [sys.executable, "-s", "-P", "-m", WORKER, job.to_json()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=job.folder,
        env=environment,
        start_new_session=True,
    )
    try:
        yield worker
    except subprocess.TimeoutExpired:
        pass  # out of time, or it has answered and does not end: it is killed either way
    finally:
        # Even when it has ended: what it may have forked is in its group still.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        if worker.stdout:
            worker.stdout.close()


def _messages(worker: subprocess.Popen[bytes], deadline: float) -> Iterator[float | Made | Rejected]:
    """What the worker says, a line at a time, until it closes its end or the deadline is over."""
    assert worker.stdout is not None
    pipe = worker.stdout.fileno()
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and selector.select(left):
            chunk = os.read(pipe, 65536)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _MESSAGE_LIMIT:
                raise Unfinished("the worker does not stop talking")
            yield from map(_understood, lines)


def _understood(line: bytes) -> float | Made | Rejected:
    """One message. What the decoder's process says is believed as little as the clip itself."""
    try:
        match json.loads(line):
            case {"progress": int() | float() as fraction}:
                return float(fraction)
            case {"rejected": {"code": str() as code, "detail": str() as detail, "limit": int() | None as limit}}:
                return Rejected(Code(code), detail, limit)
            case {"made": dict() as fields}:
                return Made.from_fields(fields)
    except (ValueError, TypeError) as error:
        raise Unfinished(f"the worker talks nonsense: {error}") from error
    raise Unfinished(f"the worker talks nonsense: {line[:80]!r}")


def _failure(status: int, log: IO[bytes], seconds: float) -> Exception:
    """Why a worker that made nothing and refused nothing has ended."""
    if -status in _CRASHES:
        return Rejected(Code.DECODER_CRASHED, f"the clip crashes the decoder ({signal.Signals(-status).name})")
    if -status in (signal.SIGKILL, signal.SIGXCPU):
        return Unfinished(f"stopped: over {seconds:.0f} seconds, or killed by the system")
    log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL))
    return Unfinished(f"the worker ended with {status}: {log.read().decode(errors='replace').strip()}")


def _publish(made: Made, source: Path, partial: Path, folder: Path) -> Video:
    """Moves the finished files into the caller's folder: all of them, and only when all are there."""
    files = {name: folder / file for name, (file, _) in OUTPUTS.items()}
    sizes = {}
    for path in (folder / POSTER, *files.values()):
        written = partial / path.name
        sizes[path] = written.stat().st_size if written.is_file() and not written.is_symlink() else 0
        if not sizes[path]:
            raise Unfinished(f"the worker left no {path.name}")
    with source.open("rb") as content:
        digest = hashlib.file_digest(content, lambda: hashlib.sha256(_REVISION))
    for path in sizes:
        (partial / path.name).replace(path)
    return Video(
        width=made.width,
        height=made.height,
        duration=made.duration,
        frame_rate=made.frame_rate,
        renditions={
            name: Rendition(path, *made.renditions[name], sizes[path], OUTPUTS[name][1]) for name, path in files.items()
        },
        poster=folder / POSTER,
        remuxed=made.remuxed,
        content_hash=digest.hexdigest()[:32],
    )
