"""The part of this package that processes the clip's bytes, in a sandbox's child, which may crash or hang.

It reads the clip once. In that pass each packet is copied, or decoded, scaled and re-encoded (video.film), and the
frames are offered to the poster and the preview (video.stills).

Two threads share the work of encoding: one reads, decodes and scales, the other offers, encodes and writes. PyAV
releases the GIL in all of these, and the codecs have threads of their own; a bounded queue between the two keeps a slow
frame of one from stopping the other. Poster and preview are encoded beside the film's last frames.
"""

import heapq
import math
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from io import FileIO
from typing import Any, Final, cast

import av

# PyAV imports these at the first such stream, when this process can no longer open their files.
import av.sidedata.sidedata
import av.subtitles.codeccontext
import av.subtitles.stream
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from sandbox.report import Report
from social.refusals import Code, Rejected
from video.ahead import ahead
from video.files import Files
from video.film import CLOCK, TICK, AnyPacket, CopyFailed, Film, Upright
from video.job import Limits
from video.rules import BT601, KNOWN_CURVES, KNOWN_MATRICES, KNOWN_PRIMARIES, RGB, TV_RANGE, UNSPECIFIED
from video.source import DEINTERLACING_WORK, Clip, admit, check_length, check_size, check_work
from video.stills import Poster, Preview, luma_of

DECODER_THREADS: Final = 2
"""The most threads: each holds one more frame, 25 MB for 4K in 10 bits. A 2 GB Lambda has less than two cores."""
FRAMES_AHEAD: Final = 8
"""How many frames of the rendition, or of sound, wait for the encoder: 1.4 MB each at most."""
SOUND_SAMPLED: Final = 100
"""The first packets of sound, by which it is dropped or kept. Later, dropping it would mean to encode all twice."""
PRIMING: Final = 3
"""How many packets of sound before its start a decoder may need: encoders of AAC add 1,024 to 2,112 samples."""

type Step = Callable[[], None]
"""The next action of the outputs: to encode a frame, or to copy a packet."""


class SoundFailed(Exception):
    """Most of the sound cannot be decoded: the clip is shown without."""


class Pass:
    """One pass over the clip, which makes all outputs.

    The generators below run in the reading thread: they read, decode, scale, check and count. The steps that they yield
    run in the other one, and touch only the outputs. A copied clip needs so little work that it has one thread.
    """

    def __init__(self, clip: Clip, files: Files, limits: Limits, report: Report, *, copy: bool) -> None:
        self._clip, self._files, self._limits, self._report, self._copy = clip, files, limits, report, copy
        self._film = Film(clip, files, copy=copy)
        self._upright = Upright(clip.stored, clip.turn, clip.crop, self._film.matrix)
        self._poster = Poster()
        self._preview = Preview(clip.target)
        # AVI has only packet times, in decoding order: frames take them in display order.
        self._by_order = clip.container.format.name == "avi"
        self._times: list[int] = []
        self._frames = 0
        self._work = 0.0
        self._samples = 0
        self._packets: Counter[int] = Counter()
        self._errors: Counter[int] = Counter()
        self._first = math.inf
        self._last = -math.inf
        self._end = self._pictures_end = 0.0
        decoder = clip.video.codec_context
        decoder.thread_type = "AUTO"
        decoder.thread_count = min(os.process_cpu_count() or 1, DECODER_THREADS)
        decoder.options = {"max_pixels": str(limits.pixels)}
        if decoder.name == "libdav1d":
            decoder.options |= {"max_frame_delay": "1"}  # dav1d's own threads each hold frames

    def run(self) -> dict[str, Any]:
        """Returns the report for video.render()."""
        clip = self._clip
        steps = self._steps() if self._copy else ahead(self._steps(), FRAMES_AHEAD)
        with closing(steps):
            try:
                for step in steps:
                    step()
                self._check_end()
            except (CopyFailed, SoundFailed):
                self._film.abandon()
                raise
        with ThreadPoolExecutor() as beside:
            poster = beside.submit(self._poster.write, self._files.png)
            preview = beside.submit(self._preview.write, self._files.webp)
            self._film.finish(round(self._pictures_end * CLOCK))
        poster.result()
        preview.result()
        span = self._last - self._first
        return {
            "width": clip.width,
            "height": clip.height,
            "duration": round(self._end, 3),
            "frame_rate": round((self._frames - 1) / span, 3) if span > 0 else float(clip.rate),
            "remuxed": self._copy,
            "renditions": {"video": clip.target, "preview": self._preview.size},
        }

    def _steps(self) -> Generator[Step]:
        for packet in _packets(self._clip):
            yield from self._take(packet)
        for frame in self._upright.flush():
            yield partial(self._film.encode, frame)

    def _take(self, packet: AnyPacket) -> Iterator[Step]:
        clip = self._clip
        is_picture = packet.stream.index == clip.video.index
        if packet.size:
            self._show_progress(packet)
        if self._copy and packet.has_sidedata("new_extradata"):
            raise CopyFailed  # a second sample description, as of clips that were joined: Chrome plays only the first
        if is_picture:
            self._errors[packet.stream.index] += packet.is_corrupt
            if self._copy and packet.is_discard:
                raise CopyFailed  # an edit list cuts it away, and a copy would contain it
            if self._by_order and packet.size and packet.dts is not None:
                heapq.heappush(self._times, packet.dts)
            for frame in self._decoded(packet):
                if self._by_order and self._times:
                    frame.pts = heapq.heappop(self._times)
                yield from self._see(cast("VideoFrame", frame))
        else:
            yield from self._hear(packet)
        if self._copy and packet.size:
            if packet.pts is None:
                raise CopyFailed
            tick = float(packet.time_base)
            start, length = packet.pts * tick - clip.origin, (packet.duration or 0) * tick
            if packet.is_discard and not -PRIMING * length <= start < 0:
                return  # sound that an edit list cuts away
            self._end = max(self._end, start + length)
            check_length(self._end, self._limits)
            if is_picture:
                self._count(start, clip.width * clip.height)
            yield partial(self._film.copy, packet)

    def _hear(self, packet: AnyPacket) -> Iterator[Step]:
        frames = self._decoded(packet)  # of a copied clip only as a check: 0.5 ms of CPU a second
        if not self._copy:
            yield from map(self._encode_sound, frames)
        self._check_sound()

    def _decoded(self, packet: AnyPacket) -> list[Any]:
        self._packets[packet.stream.index] += bool(packet.size)
        try:
            return packet.decode()
        except MemoryError:
            raise
        except EOFError:
            return []
        except (av.FFmpegError, ValueError):
            self._errors[packet.stream.index] += 1
            return []

    def _see(self, frame: VideoFrame) -> Iterator[Step]:
        clip = self._clip
        seconds = self._end if frame.pts is None else frame.time - clip.origin
        check_size(frame.width, frame.height, self._limits)
        _state_colours(frame, clip.matrix)
        if self._copy:
            if frame.interlaced_frame:
                raise CopyFailed
            yield partial(self._offer, frame, seconds)
            if self._preview.full and self._poster.good:
                clip.video.codec_context.skip_frame = "NONKEY"
            return
        self._count(seconds, frame.width * frame.height * (1 + DEINTERLACING_WORK * frame.interlaced_frame))
        length = frame.duration * float(frame.time_base) or 1 / float(clip.rate or 30)
        self._pictures_end = max(self._pictures_end, seconds + length)
        self._end = max(self._end, seconds + length)
        check_length(self._end, self._limits)
        ticks = round(seconds * CLOCK)
        if ticks >= 0 and self._film.wants(ticks):
            self._work += clip.frame_work
            frame.pts, frame.time_base = ticks, TICK
            for upright in self._upright.push(frame):
                yield partial(self._show, upright, seconds)

    def _encode_sound(self, frame: AudioFrame) -> Step:
        self._samples += frame.samples
        if frame.pts is not None:
            seconds = frame.pts * float(frame.time_base) - self._clip.origin
            self._end = max(self._end, seconds + frame.samples / frame.sample_rate)
            frame.pts -= round(self._clip.origin / float(frame.time_base))
        # Sound whose packets all have the same timestamp is timed by its samples.
        check_length(max(self._end, self._samples / frame.sample_rate - 1), self._limits)
        return partial(self._film.add_sound, frame)

    def _count(self, seconds: float, work: float) -> None:
        self._frames += 1
        self._work += work
        self._first, self._last = min(self._first, seconds), max(self._last, seconds)
        check_work(self._work, self._limits)
        if self._frames > self._limits.frame_rate * (max(self._end, seconds) + 1):
            raise Rejected(
                Code.FRAME_RATE_TOO_HIGH,
                f"{self._frames} frames in {self._end:.1f} seconds, over {self._limits.frame_rate:.0f} a second",
                round(self._limits.frame_rate),
            )

    def _show(self, upright: VideoFrame, seconds: float) -> None:
        self._offer(upright, seconds)
        self._film.encode(upright)

    def _offer(self, upright: VideoFrame, seconds: float) -> None:
        for_poster, for_preview = self._poster.due(seconds), self._preview.due(seconds)
        if not (for_poster or for_preview):
            return
        width, height = self._preview.size
        # WebP has only one colour matrix, BT.601's.
        small = upright.reformat(
            width,
            height,
            "yuv420p",
            dst_colorspace=BT601,
            dst_color_range=TV_RANGE,
            interpolation="AREA",
        )
        luma = luma_of(small)
        if for_poster:
            self._poster.offer(upright, luma, seconds)
        if for_preview:
            self._preview.offer(small, luma, seconds)

    def _show_progress(self, packet: AnyPacket) -> None:
        if self._clip.declared and packet.pts is not None:
            self._report.progress((packet.pts * float(packet.time_base) - self._clip.origin) / self._clip.declared)
        else:
            self._report.progress(self._files.source.tell() / max(1, self._clip.container.size or 1))

    def _check_end(self) -> None:
        if not self._frames:
            raise Rejected(Code.DAMAGED, "none of its frames can be decoded")
        errors, packets = (counted[self._clip.video.index] for counted in (self._errors, self._packets))
        if errors > max(2, 0.05 * packets):
            raise Rejected(Code.DAMAGED, f"{errors} of its {packets} pictures cannot be decoded")
        self._check_sound(at_end=True)
        declared = self._clip.declared
        if declared and self._end < 0.98 * declared - 0.25:
            raise Rejected(Code.TRUNCATED, f"it declares {declared:.1f} seconds, but ends at {self._end:.1f}")

    def _check_sound(self, *, at_end: bool = False) -> None:
        if (sound := self._clip.audio) is None:
            return
        errors, packets = self._errors[sound.index], self._packets[sound.index]
        if packets < SOUND_SAMPLED and not at_end:
            return
        if errors > packets / 2 and packets <= SOUND_SAMPLED:
            raise SoundFailed
        if errors and self._copy:
            raise CopyFailed  # a browser stops at such a packet; encoded again, it is silence


def _state_colours(frame: VideoFrame, matrix: int) -> None:
    """Replaces what the frame states of its colours where FFmpeg cannot follow it."""
    if frame.colorspace not in KNOWN_MATRICES:
        frame.colorspace = RGB if frame.format.is_rgb else matrix
    if frame.color_primaries not in KNOWN_PRIMARIES:
        frame.color_primaries = UNSPECIFIED
    if frame.color_trc not in KNOWN_CURVES:
        frame.color_trc = UNSPECIFIED


def _packets(clip: Clip) -> Iterator[AnyPacket]:
    """Every packet of the two streams, then an empty one for each, which drains its decoder."""
    try:
        yield from clip.container.demux(*filter(None, (clip.video, clip.audio)))
    except MemoryError:
        raise
    except (av.FFmpegError, OSError) as error:
        raise Rejected(Code.TRUNCATED, f"it cannot be read to its end: {error.strerror}") from error


def work(job: dict[str, Any], files: list[FileIO], report: Report) -> dict[str, Any]:
    """Reads the clip once, and again if it seemed copyable but is not, or if its sound fails. Raises Rejected."""
    clip_files, container, limits = Files(*files), job["container"], Limits(**job["limits"])
    clip = admit(clip_files.source, container, limits)
    report.known({"width": clip.width, "height": clip.height})
    copy, sound = clip.suits, True
    while True:
        try:
            return Pass(clip, clip_files, limits, report, copy=copy).run()
        except CopyFailed:
            copy = False
        except SoundFailed:
            sound = False
        clip = admit(clip_files.source, container, limits, sound=sound)
