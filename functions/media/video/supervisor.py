"""Makes a clip's MP4, poster and preview so that no clip can crash the task.

    video.render(Path("/tmp/upload"), Path("/tmp/out"), seconds=run.remaining - 20)

returns a `Video`, or raises `Rejected` (the clip is at fault, permanently) or `Unfinished` (retry).

Only a sandbox's child decodes the clip. It writes into a folder that is discarded unless it succeeds, so there are no
partial renditions. Only the child imports PyAV (131 MB of libraries), so a picture's cold start does not pay for it.

The source is a file, which the caller has downloaded with a size limit. Presigned range requests would save that copy
but would give the least trusted process network access.
"""

import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import sandbox
from sandbox import Rendition, Unfinished
from social.refusals import Code, Rejected, megabytes
from video.job import OUTPUTS, POSTER, Limits, Made, size_from_fields
from video.rules import Container, container_of, promised_bytes

WORKER: Final = "video.worker"
"""The module whose `work` runs in the child."""
_SIGNATURES: Final = {
    ".mp4": re.compile(rb".{4}ftyp", re.DOTALL),
    ".webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    ".png": re.compile(rb"\x89PNG\r\n\x1a\n"),
}
"""The first bytes of each type: the worker's files are checked against them before publication."""

_REVISION: Final = b"nexus-video 5"
"""Change it with anything that changes the output: renditions' URLs are immutable and cached without an expiry."""


@dataclass(frozen=True, slots=True)
class Video:
    """A clip's renditions.

    Attributes:
        width, height: pixels of the source as displayed, rotation and pixel shape applied.
        duration: seconds, measured.
        frame_rate: frames a second of the source, on average.
        renditions: `video` (H.264/AAC MP4) and `preview` (animated WebP without sound, up to 3 s).
        poster: a PNG of the clip's representative frame, upright and as large as `video`, for `pictures` to make
            the `poster_*` renditions of.
        remuxed: the source was suitable and was copied, not re-encoded.
        content_hash: 32 hexadecimal digits that depend only on the source's bytes and on how they are rendered.
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
    on_known: Callable[[int, int], None] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Video:
    """Makes the renditions of the clip in `source` as files in `folder`, which must exist.

    Args:
        seconds: wall time from now after which the work is stopped.
        on_known: called with width and height as displayed, before a frame is decoded.
        on_progress: as for sandbox.run.

    Raises:
        Rejected: the clip is at fault, permanently.
        Unfinished: as for sandbox.run.

    After an exception `folder` is unchanged.
    """
    limits = limits or Limits()
    container = _admit(source, limits)
    announced = False

    def announce(fields: dict[str, Any]) -> None:
        nonlocal announced
        announced = True
        size = sandbox.checked(size_from_fields, fields)
        if on_known:
            on_known(*size)

    def advance(fraction: float) -> None:
        if not announced:
            raise Unfinished("invalid report by the decoder: progress before the clip's size")
        if on_progress:
            on_progress(fraction)

    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as name, ExitStack() as stack:
        partial = Path(name)
        mp4, webp, png = (partial / file for file in (OUTPUTS["video"][0], OUTPUTS["preview"][0], POSTER))
        opened = ((source, "rb"), (mp4, "wb"), (mp4, "rb"), (webp, "wb"), (png, "wb"))  # video.files.Files
        fields = sandbox.run(
            WORKER,
            {"container": container, "limits": asdict(limits)},
            [stack.enter_context(path.open(mode)) for path, mode in opened],
            memory=limits.memory,
            output_bytes=limits.output_bytes,
            seconds=seconds,
            on_known=announce,
            on_progress=advance,
        )
        if not announced:
            raise Unfinished("the decoder did not report the clip's size")
        return _publish(sandbox.checked(Made.from_fields, fields), source, partial, folder)


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
        if container is None:
            raise Rejected(Code.UNKNOWN, "not an MP4, MOV, WebM, Matroska, AVI or WMV file")
        promised = promised_bytes(file, container)
    if promised > size:
        raise Rejected(Code.TRUNCATED, f"it has {size} of the {promised} bytes that its header declares")
    return container


def _publish(made: Made, source: Path, partial: Path, folder: Path) -> Video:
    """Moves the finished files into the caller's folder, once all exist."""
    files = {name: folder / file for name, (file, _) in OUTPUTS.items()}
    sizes = {}
    for path in (folder / POSTER, *files.values()):
        written = partial / path.name
        with written.open("rb") as file:
            if not _SIGNATURES[path.suffix].match(file.read(16)):
                raise Unfinished(f"the decoder did not write {path.name}")
        sizes[path] = written.stat().st_size
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
