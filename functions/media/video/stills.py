"""The frames that represent a clip: one as its poster, three seconds as its preview."""

import math
from fractions import Fraction
from io import FileIO
from typing import Final

import av
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane

from sandbox.report import write_all
from social.refusals import Code, Rejected
from video.files import Writer
from video.rules import BLACK, FULL_RANGE, TV_RANGE, brightness, fit, score

PREVIEW_SIDE: Final = 320
PREVIEW_RATE: Final = 10
PREVIEW_SECONDS: Final = 3
MILLISECOND: Final = Fraction(1, 1000)
POSTER_CANDIDATES: Final = 8
"""How many frames of a copied clip are decoded for its poster; after that, only key frames."""

type Luma = list[bytes]


def rows_of(plane: VideoPlane, size: int) -> Luma:
    """The rows of a plane, `size` bytes each, without FFmpeg's padding."""
    content = memoryview(plane)
    return [bytes(content[start : start + size]) for start in range(0, plane.height * plane.line_size, plane.line_size)]


def luma_of(frame: VideoFrame) -> Luma:
    """The rows of a frame's brightness."""
    return rows_of(frame.planes[0], frame.width)


class Preview:
    """The first three seconds that are not black, kept in memory (30 small frames, 3 MB) until they are written."""

    def __init__(self, target: tuple[int, int]) -> None:
        self.size = fit(*target, PREVIEW_SIDE, PREVIEW_SIDE)
        self.full = False
        self._frames: list[tuple[int, VideoFrame]] = []
        self._start = self._due = -math.inf
        self._dark = True
        self._beginning: list[tuple[int, VideoFrame]] = []
        self._began = 0.0

    def due(self, seconds: float) -> bool:
        self.full = self.full or (not self._dark and seconds >= self._start + PREVIEW_SECONDS)
        return seconds >= self._due and not self.full

    def offer(self, small: VideoFrame, luma: Luma, seconds: float) -> None:
        if self._dark:
            self._offer_dark(small, seconds)
            self._frames.clear()
            self._start = seconds
            self._dark = brightness(luma) < BLACK
        # Set only when written: an unscaled frame is the same object that goes to the encoder.
        self._frames.append((round((seconds - self._start) * 1000), small))
        # The next point on the grid, so that rates not divisible by ten do not drift.
        self._due = self._start + math.floor((seconds - self._start) * PREVIEW_RATE + 1 + 1e-6) / PREVIEW_RATE - 1e-6

    def _offer_dark(self, small: VideoFrame, seconds: float) -> None:
        """Keeps the clip's start, in case all of it is dark."""
        if not self._beginning:
            self._began = seconds
        if seconds < self._began + PREVIEW_SECONDS:
            self._beginning.append((round((seconds - self._began) * 1000), small))

    def write(self, file: FileIO) -> None:
        if self._dark:
            self._frames = self._beginning
        with av.open(Writer(file), "w", format="webp", options={"loop": "0"}) as out:
            options = {"quality": "50", "compression_level": "2"}
            stream = out.add_stream("libwebp_anim", PREVIEW_RATE, options, time_base=MILLISECOND)
            stream.width, stream.height = self.size
            stream.pix_fmt = "yuv420p"
            for milliseconds, frame in self._frames:
                frame.pts, frame.time_base = milliseconds, MILLISECOND
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))


class Poster:
    """The best of sampled frames of the rendition. Their distance grows, so a long clip has few more."""

    def __init__(self) -> None:
        self._best: VideoFrame | None = None
        self._score = -1.0
        self._due = -math.inf
        self.candidates = 0

    def due(self, seconds: float) -> bool:
        return seconds >= self._due

    @property
    def good(self) -> bool:
        """Whether several frames were sampled, and one is neither black nor flat."""
        return self._score > 0 and self.candidates >= POSTER_CANDIDATES

    def offer(self, frame: VideoFrame, luma: Luma, seconds: float) -> None:
        self.candidates += 1
        self._due = seconds + max(0.5, 0.15 * seconds)
        points = score(luma)
        if points > self._score:
            self._best, self._score = frame, points

    def write(self, file: FileIO) -> None:
        """Writes a PNG for `pictures`. Raises Rejected if there was no frame."""
        if self._best is None:
            raise Rejected(Code.DAMAGED, "none of its frames can be decoded")
        best = self._best
        rgb = best.reformat(
            format="rgb24",
            src_color_range=TV_RANGE,
            dst_color_range=FULL_RANGE,
        )
        # A frame with only the pixels: the encoder would write a display matrix as an orientation to apply.
        frame = VideoFrame(rgb.width, rgb.height, "rgb24")
        line = frame.planes[0].line_size
        frame.planes[0].update(b"".join(row.ljust(line, b"\0") for row in rows_of(rgb.planes[0], 3 * rgb.width)))
        encoder = av.VideoCodecContext.create("png", "w")
        encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "rgb24"
        encoder.time_base = MILLISECOND
        encoder.options = {"compression_level": "1", "pred": "sub"}
        for packet in (*encoder.encode(frame), *encoder.encode(None)):
            write_all(file, bytes(packet))
