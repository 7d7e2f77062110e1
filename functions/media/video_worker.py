"""Why this file exists: the half of video.py that touches the clip's bytes, in a process that may crash, hang or die.

video.render() starts it as `python -m video_worker JOB`. It opens the source and its outputs, gives up the right to
open anything else, and then reads the clip once. In that one pass each packet is copied, or decoded, scaled and encoded
again, and the frames that go by are offered to the poster and the preview. What it has to say goes to its standard
output, a JSON object a line: {"progress": 0.4}, then {"made": {...}} or {"rejected": {"code", "reason"}}.
"""

import errno
import json
import math
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from io import FileIO
from pathlib import Path
from typing import Any, Final, cast

import av

# PyAV imports these when it first meets such a stream: by then this process has lost the right to open their files.
import av.sidedata.sidedata
import av.subtitles.codeccontext
import av.subtitles.stream
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.filter import Graph
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rejected import Rejected
from video import OUTPUTS, POSTER, Job, Limits
from video_rules import BLACK, brightness, fit, score
from video_source import MAX_FRAME_RATE, Clip, Reader, admit, check_length, check_size, check_work

CLOCK: Final = 90_000
"""Ticks a second of the rendition: every usual frame rate's period is a whole number of them."""
ENCODER: Final = {
    # A constant quality, under a ceiling that a telephone's connection carries and that bounds the file's size.
    "preset": "veryfast",
    "crf": "26",
    "maxrate": "4000k",
    "bufsize": "8000k",
    "profile": "high",
    # A constant, since x264's output depends on it: the same clip gives the same bytes on any machine.
    "threads": "4",
}
TICK: Final = Fraction(1, CLOCK)
MILLISECOND: Final = Fraction(1, 1000)
KEY_FRAME_SECONDS: Final = 5
AUDIO_RATES: Final = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000)
AUDIO_BITS_PER_CHANNEL: Final = 64_000

PREVIEW_SIDE: Final = 320
PREVIEW_RATE: Final = 10
PREVIEW_SECONDS: Final = 3
DECODER_THREADS: Final = 2
"""At most: each holds a frame more, and one of 4K in 10 bits has 25 MB. A Lambda of 2 GB has less than two cores."""
POSTER_CANDIDATES: Final = 8
"""How many frames of a clip that is only copied are decoded for its poster, before its key frames must do."""

# Values of ITU-T H.273, which FFmpeg uses as they are.
_BT709, _UNSPECIFIED, _BT601, _BT2020 = 1, 2, 5, 9
_HDR_TRANSFERS: Final = (16, 18)
_TV_RANGE: Final = 1
_FULL_RANGE: Final = 2

type Luma = list[bytes]
# Evaluated late: at run time PyAV's class takes no parameter.
type AnyPacket = Packet[Stream]
type VideoPackets = list[Packet[VideoStream]]


@dataclass(frozen=True, slots=True)
class Files:
    """All that this process will ever have open. `mp4_again` reads what `mp4` wrote, to move the index to the front."""

    source: FileIO
    mp4: FileIO
    mp4_again: FileIO
    webp: FileIO
    png: FileIO

    @classmethod
    def open(cls, job: Job) -> "Files":
        folder = Path(job.folder)
        mp4, webp = (folder / OUTPUTS[name][0] for name in ("video", "preview"))
        return cls(
            source=FileIO(job.source),
            mp4=FileIO(mp4, "w"),
            mp4_again=FileIO(mp4),
            webp=FileIO(webp, "w"),
            png=FileIO(folder / POSTER, "w"),
        )


class Writer:
    """What PyAV needs of an open file to write it anew."""

    def __init__(self, file: FileIO) -> None:
        file.seek(0)
        file.truncate()
        self._write, self.seek, self.tell = file.write, file.seek, file.tell

    def write(self, data: bytes) -> int:
        # A file near its limit takes a part, and the muxer would not notice.
        rest = memoryview(data)
        while rest:
            rest = rest[self._write(rest) :]
        return len(data)


class CopyFailed(Exception):
    """The muxer refuses the source's own packets: they must be encoded again."""


class Report:
    """The worker's one way to say something."""

    def __init__(self) -> None:
        self._fraction = 0.0
        self._next = 0.0

    def progress(self, fraction: float) -> None:
        """Says it twice a second at most, and never backwards."""
        if fraction > self._fraction and time.monotonic() >= self._next:
            self._fraction = fraction
            self._next = time.monotonic() + 0.5
            self.say({"progress": round(min(fraction, 1.0), 3)})

    def say(self, message: dict[str, Any]) -> None:
        os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


def confine(job: Job) -> None:
    """Leaves this process nothing to reach for.

    RLIMIT_NOFILE of 0 is the sandbox: what is open stays usable, and no call can make another descriptor, for a file, a
    socket or a pipe, whatever code runs by then. It needs no privilege, namespace or system call filter, which Lambda
    does not give. The other limits bound memory, processor time and disk.
    """
    seconds = math.ceil(job.seconds)
    for limit, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_DATA, job.limits.memory, job.limits.memory),
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_FSIZE, job.limits.output_bytes, job.limits.output_bytes),
        (resource.RLIMIT_NOFILE, 0, 0),
    ):
        resource.setrlimit(limit, (soft, hard))


class Upright:
    """Makes the rendition's frames (upright, its size, yuv420p) of the clip's, even when these change halfway."""

    def __init__(self, stored: tuple[int, int], turn: tuple[tuple[str, str], ...]) -> None:
        self._stored, self._turn = stored, turn
        self._graph: Graph | None = None
        self._made_for: tuple[object, ...] = ()

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """`frame` has its time in ticks of CLOCK, and so have the frames that come out."""
        shape = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, frame.color_trc)
        if shape != self._made_for:
            yield from self.flush()
            self._graph, self._made_for = self._build(frame), shape
        graph = cast("Graph", self._graph)
        graph.vpush(frame)
        yield from _pulled(graph)

    def flush(self) -> Iterator[VideoFrame]:
        if self._graph is not None:
            self._graph.vpush(None)
            yield from _pulled(self._graph)
            self._graph = None

    def _build(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        width, height = self._stored
        size = {"w": str(width), "h": str(height), "flags": "bicubic"}
        nodes = [
            graph.add(
                "buffer",
                video_size=f"{frame.width}x{frame.height}",
                pix_fmt=frame.format.name,
                time_base=f"1/{CLOCK}",
                pixel_aspect="1/1",
                colorspace=str(frame.colorspace),
                range=str(frame.color_range),
            )
        ]
        if frame.interlaced_frame:
            nodes.append(graph.add("bwdif", mode="send_frame", deint="interlaced"))
        if frame.color_trc in _HDR_TRANSFERS or frame.color_primaries == _BT2020:
            # Mapped to the colours of an ordinary screen after the scaling: it costs 50 ms on a frame of 1080p.
            colours = {"out_color_matrix": "bt709", "out_transfer": "bt709", "out_primaries": "bt709"}
            nodes += [graph.add("scale", **size), graph.add("scale", out_range="tv", **colours)]
        else:
            nodes.append(graph.add("scale", out_range="tv", **size))
        nodes += [graph.add(name, arguments or None) for name, arguments in self._turn]
        nodes += [graph.add("format", "yuv420p"), graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()
        return graph


def _pulled(graph: Graph) -> Iterator[VideoFrame]:
    with suppress(BlockingIOError, EOFError):
        while True:
            yield graph.vpull()


def _matrix_of(frame: VideoFrame) -> int:
    """The matrix of a frame's colours. Where it is not told, players take BT.709 from 720 lines up, and so do we."""
    if frame.colorspace != _UNSPECIFIED:
        return frame.colorspace
    return _BT709 if max(frame.width, frame.height) >= 1280 else _BT601


def _luma(frame: VideoFrame) -> Luma:
    plane = frame.planes[0]
    content = bytes(plane)
    return [content[start : start + frame.width] for start in range(0, frame.height * plane.line_size, plane.line_size)]


class Preview:
    """The first three seconds that are not black, kept in memory (30 small frames, 3 MB) until they are written."""

    def __init__(self, target: tuple[int, int]) -> None:
        self.size = fit(*target, PREVIEW_SIDE, PREVIEW_SIDE)
        self.full = False
        self._frames: list[tuple[int, VideoFrame]] = []
        self._start = self._due = -math.inf
        self._dark = True

    def due(self, seconds: float) -> bool:
        self.full = self.full or (not self._dark and seconds >= self._start + PREVIEW_SECONDS)
        return seconds >= self._due and not self.full

    def offer(self, small: VideoFrame, luma: Luma, seconds: float) -> None:
        if self._dark:
            self._frames.clear()
            self._start = seconds
            self._dark = brightness(luma) < BLACK
        # Set only when written: a frame that needed no scaling is the very one that goes to the encoder.
        self._frames.append((round((seconds - self._start) * 1000), small))
        # The next place on the grid, so that a rate which ten does not divide is not sampled ever later.
        self._due = self._start + math.floor((seconds - self._start) * PREVIEW_RATE + 1 + 1e-6) / PREVIEW_RATE - 1e-6

    def write(self, file: FileIO) -> None:
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
    """The best of some frames of the rendition, which lie ever further apart: a long clip has few more than a short."""

    def __init__(self) -> None:
        self._best: VideoFrame | None = None
        self._score = -1.0
        self._due = -math.inf
        self.candidates = 0

    def due(self, seconds: float) -> bool:
        return seconds >= self._due

    @property
    def good(self) -> bool:
        """Some frame is neither black nor flat, and several have been looked at."""
        return self._score > 0 and self.candidates >= POSTER_CANDIDATES

    def offer(self, frame: VideoFrame, luma: Luma, seconds: float) -> None:
        self.candidates += 1
        self._due = seconds + max(0.5, 0.15 * seconds)
        points = score(luma)
        if points > self._score:
            self._best, self._score = frame, points

    def write(self, file: FileIO) -> None:
        """As a PNG, which pictures.py takes. Raises Rejected where there has been no frame at all."""
        if self._best is None:
            raise Rejected("no_frames", "not one frame of it can be decoded")
        frame = self._best.reformat(
            format="rgb24",
            src_colorspace=_matrix_of(self._best),
            src_color_range=_TV_RANGE,
            dst_color_range=_FULL_RANGE,
        )
        encoder = av.VideoCodecContext.create("png", "w")
        encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "rgb24"
        encoder.time_base = TICK
        encoder.options = {"compression_level": "1", "pred": "sub"}
        for packet in (*encoder.encode(frame), *encoder.encode(None)):
            file.write(bytes(packet))


class Sound:
    """Decoded sound, encoded as AAC: at most two channels and 48 kHz, silence where the source has gaps."""

    def __init__(self, source: AudioStream, out: OutputContainer) -> None:
        context = source.codec_context
        rate = context.sample_rate if context.sample_rate in AUDIO_RATES else AUDIO_RATES[0]
        self._layout = "mono" if context.channels == 1 else "stereo"
        self._out = out
        self._stream = out.add_stream("aac", rate)
        self._stream.codec_context.layout = self._layout
        self._stream.codec_context.bit_rate = AUDIO_BITS_PER_CHANNEL * (1 if self._layout == "mono" else 2)
        self._rate = rate
        self._graph: Graph | None = None
        self._made_for: tuple[object, ...] = ()

    def push(self, frame: AudioFrame) -> None:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate, frame.time_base)
        if shape != self._made_for:
            self._flush_graph()
            self._graph, self._made_for = self._build(frame, first=not self._made_for), shape
        graph = cast("Graph", self._graph)
        graph.push(frame)
        self._encode(graph)

    def finish(self) -> None:
        self._flush_graph()
        self._out.mux(self._stream.encode(None))

    def _build(self, frame: AudioFrame, *, first: bool) -> Graph:
        graph = Graph()
        nodes = (
            graph.add_abuffer(
                sample_rate=frame.sample_rate,
                format=frame.format.name,
                layout=frame.layout.name,
                time_base=Fraction(frame.time_base.numerator, frame.time_base.denominator),
            ),
            graph.add("aresample", f"{self._rate}:async=1000" + (":first_pts=0" if first else "")),
            graph.add("aformat", f"sample_fmts=fltp:sample_rates={self._rate}:channel_layouts={self._layout}"),
            graph.add("abuffersink"),
        )
        graph.link_nodes(*nodes).configure()
        graph.set_audio_frame_size(1024)
        return graph

    def _flush_graph(self) -> None:
        if self._graph is not None:
            self._graph.push(None)
            self._encode(self._graph)
            self._graph = None

    def _encode(self, graph: Graph) -> None:
        with suppress(BlockingIOError, EOFError):
            while True:
                self._out.mux(self._stream.encode(cast("AudioFrame", graph.pull())))


class Film:
    """The MP4: H.264 and AAC, the index in front (so that it plays while it loads), and no metadata."""

    def __init__(self, clip: Clip, files: Files, *, copy: bool) -> None:
        self._clip = clip
        self._out = av.open(
            Writer(files.mp4),
            "w",
            format="mp4",
            options={"movflags": "+faststart"},
            # The muxer asks for its own file again, and for nothing else, to move the index.
            io_open=lambda _url, _flags, _options: Reader(files.mp4_again),
            buffer_size=1 << 18,
        )
        self._sound: Sound | None = None
        self._copies: dict[int, tuple[Stream, BitStreamFilterContext | None]] = {}
        if copy:
            # H.264 carries notes beside the pictures (SEI), where drones and some cameras write their position.
            without_notes = BitStreamFilterContext("filter_units=remove_types=6", clip.video)
            self._copies[clip.video.index] = self._out.add_stream_from_template(clip.video, opaque=True), without_notes
            if clip.audio is not None:
                self._copies[clip.audio.index] = self._out.add_stream_from_template(clip.audio, opaque=True), None
        else:
            self._picture = self._add_picture()
            if clip.audio is not None:
                self._sound = Sound(clip.audio, self._out)
        self._last = -1
        self._least_gap = CLOCK / MAX_FRAME_RATE * 0.75 if clip.rate > MAX_FRAME_RATE + 1 else 0

    def _add_picture(self) -> VideoStream:
        clip = self._clip
        rate = min(clip.rate, Fraction(MAX_FRAME_RATE)) or Fraction(30)
        stream = self._out.add_stream("libx264", rate, dict(ENCODER), time_base=TICK)
        stream.width, stream.height = clip.target
        stream.pix_fmt = "yuv420p"
        stream.gop_size = max(1, round(rate * KEY_FRAME_SECONDS))
        source, context = clip.video.codec_context, stream.codec_context
        context.color_range = _TV_RANGE
        if source.color_trc in _HDR_TRANSFERS or source.color_primaries == _BT2020:
            context.colorspace = context.color_primaries = context.color_trc = _BT709
        elif source.colorspace:  # 0 is RGB, which the rendition is not
            context.colorspace, context.color_primaries = source.colorspace, source.color_primaries
            context.color_trc = source.color_trc
        return stream

    def wants(self, ticks: int) -> bool:
        """Whether a frame of this time has a place after the last: not before it, and not too soon."""
        return ticks > self._last and (self._last < 0 or ticks - self._last >= self._least_gap)

    def encode(self, frame: VideoFrame) -> None:
        if frame.pts is None or frame.pts <= self._last:
            return
        self._last = frame.pts
        frame.time_base = TICK
        frame.pict_type = 0  # the source's key frames are not ours
        self._mux_picture(self._picture.encode(frame))

    def hear(self, frame: AudioFrame) -> None:
        if self._sound is not None:
            self._sound.push(frame)

    def copy(self, packet: AnyPacket) -> None:
        """Writes the source's own packet. Raises CopyFailed where an MP4 cannot have it."""
        stream, notes_filter = self._copies[packet.stream.index]
        shift = round(self._clip.origin / packet.time_base)
        try:
            for out in notes_filter.filter(packet) if notes_filter else [packet]:
                if out.dts is None or out.pts is None:
                    raise CopyFailed
                out.pts, out.dts = out.pts - shift, out.dts - shift
                out.stream = stream
                self._out.mux(out)
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError) as error:
            raise CopyFailed from error

    def abandon(self) -> None:
        with suppress(av.FFmpegError, ValueError):
            self._out.close()

    def finish(self) -> None:
        if not self._copies:
            self._mux_picture(self._picture.encode(None))
            if self._sound is not None:
                self._sound.finish()
        self._out.close()

    def _mux_picture(self, packets: VideoPackets) -> None:
        for packet in packets:
            if not packet.duration:
                packet.duration = round(CLOCK / (self._clip.rate or 30))
            self._out.mux(packet)


class Pass:
    """One reading of the clip from its start to its end, which makes everything."""

    def __init__(self, clip: Clip, files: Files, limits: Limits, report: Report, *, copy: bool) -> None:
        self._clip, self._files, self._limits, self._report, self._copy = clip, files, limits, report, copy
        self._film = Film(clip, files, copy=copy)
        self._upright = Upright(clip.stored, clip.turn)
        self._poster = Poster()
        self._preview = Preview(clip.target)
        self._frames = 0
        self._pixels = 0
        self._samples = 0
        self._packets = 0
        self._errors = 0
        self._first = math.inf
        self._last = -math.inf
        self._end = 0.0
        decoder = clip.video.codec_context
        decoder.thread_type = "AUTO"
        decoder.thread_count = min(os.process_cpu_count() or 1, DECODER_THREADS)
        decoder.options = {"max_pixels": str(limits.pixels)}
        if decoder.name == "libdav1d":
            decoder.options |= {"max_frame_delay": "1"}  # its own threads, each with frames of their own

    def run(self) -> dict[str, Any]:
        """Returns what video.render() is told."""
        clip = self._clip
        try:
            for packet in _packets(clip):
                self._take(packet)
        except CopyFailed:
            self._film.abandon()
            raise
        for frame in self._upright.flush():
            self._film.encode(frame)
        self._check_end()
        self._poster.write(self._files.png)
        self._film.finish()
        self._preview.write(self._files.webp)
        span = self._last - self._first
        return {
            "width": clip.width,
            "height": clip.height,
            "duration": round(self._end, 3),
            "frame_rate": round((self._frames - 1) / span, 3) if span > 0 else float(clip.rate),
            "remuxed": self._copy,
            "renditions": {"video": clip.target, "preview": self._preview.size},
        }

    def _take(self, packet: AnyPacket) -> None:
        clip = self._clip
        is_picture = packet.stream.index == clip.video.index
        if packet.size:
            self._packets += 1
            self._errors += packet.is_corrupt
            self._show_progress(packet)
        if is_picture:
            for frame in self._decoded(packet):
                self._see(cast("VideoFrame", frame))
        elif not self._copy:
            for frame in self._decoded(packet):
                self._hear(cast("AudioFrame", frame))
        if self._copy and packet.size:
            if packet.pts is None:
                raise CopyFailed
            tick = float(packet.time_base)
            start = packet.pts * tick - clip.origin
            self._end = max(self._end, start + (packet.duration or 0) * tick)
            check_length(self._end, self._limits)
            if is_picture:
                self._count(start, clip.width * clip.height)
            self._film.copy(packet)

    def _decoded(self, packet: AnyPacket) -> list[Any]:
        try:
            return packet.decode()
        except MemoryError:
            raise
        except EOFError:
            return []
        except (av.FFmpegError, ValueError):
            self._errors += 1
            return []

    def _see(self, frame: VideoFrame) -> None:
        clip = self._clip
        seconds = self._end if frame.pts is None else frame.time - clip.origin
        check_size(frame.width, frame.height, self._limits)
        if self._copy:
            self._offer(frame, seconds)
            if self._preview.full and self._poster.good:
                clip.video.codec_context.skip_frame = "NONKEY"
            return
        self._count(seconds, frame.width * frame.height)
        length = frame.duration * float(frame.time_base) or 1 / float(clip.rate or 30)
        self._end = max(self._end, seconds + length)
        check_length(self._end, self._limits)
        ticks = round(seconds * CLOCK)
        if ticks >= 0 and self._film.wants(ticks):
            frame.pts, frame.time_base = ticks, TICK
            for upright in self._upright.push(frame):
                self._offer(upright, seconds)
                self._film.encode(upright)

    def _hear(self, frame: AudioFrame) -> None:
        self._samples += frame.samples
        if frame.pts is not None:
            seconds = frame.pts * float(frame.time_base) - self._clip.origin
            self._end = max(self._end, seconds + frame.samples / frame.sample_rate)
            frame.pts -= round(self._clip.origin / float(frame.time_base))
        # Sound that all claims the same moment is counted by its samples.
        check_length(max(self._end, self._samples / frame.sample_rate - 1), self._limits)
        self._film.hear(frame)

    def _count(self, seconds: float, pixels: int) -> None:
        self._frames += 1
        self._pixels += pixels
        self._first, self._last = min(self._first, seconds), max(self._last, seconds)
        check_work(self._pixels, self._limits)
        if self._frames > self._limits.frame_rate * (max(self._end, seconds) + 1):
            raise Rejected(
                "frame_rate_too_high",
                f"{self._frames} frames in {self._end:.1f} seconds, over {self._limits.frame_rate:.0f} a second",
            )

    def _offer(self, upright: VideoFrame, seconds: float) -> None:
        for_poster, for_preview = self._poster.due(seconds), self._preview.due(seconds)
        if not (for_poster or for_preview):
            return
        width, height = self._preview.size
        # WebP knows one matrix of colours, BT.601's.
        small = upright.reformat(
            width,
            height,
            "yuv420p",
            src_colorspace=_matrix_of(upright),
            dst_colorspace=_BT601,
            dst_color_range=_TV_RANGE,
            interpolation="AREA",
        )
        luma = _luma(small)
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
            raise Rejected("no_frames", "not one frame of it can be decoded")
        if self._errors > max(2, 0.05 * self._packets):
            raise Rejected("broken", f"{self._errors} of its {self._packets} packets cannot be decoded")
        declared = self._clip.declared
        if declared and self._end < 0.98 * declared - 0.25:
            raise Rejected("truncated", f"it says that it lasts {declared:.1f} seconds, and ends at {self._end:.1f}")


def _packets(clip: Clip) -> Iterator[AnyPacket]:
    """Every packet of the two streams, then an empty one for each, which drains its decoder."""
    try:
        yield from clip.container.demux(*filter(None, (clip.video, clip.audio)))
    except MemoryError:
        raise
    except (av.FFmpegError, OSError) as error:
        raise Rejected("truncated", f"it cannot be read to its end: {error.strerror}") from error


def work(files: Files, job: Job, report: Report) -> dict[str, Any]:
    """Reads the clip once, or twice where it looked as if it could be copied and cannot. Raises Rejected."""
    clip = admit(files.source, job.container, job.limits)
    if clip.suits:
        try:
            return Pass(clip, files, job.limits, report, copy=True).run()
        except CopyFailed:
            clip = admit(files.source, job.container, job.limits)
    return Pass(clip, files, job.limits, report, copy=False).run()


def main() -> None:
    """Does the job of the first argument, and says how it ended. Anything unforeseen ends in a traceback."""
    job = Job.from_json(sys.argv[1])
    report = Report()
    files = Files.open(job)
    confine(job)
    try:
        report.say({"made": work(files, job, report)})
    except Rejected as refusal:
        report.say({"rejected": {"code": refusal.code, "reason": refusal.reason}})
    except (MemoryError, BlockingIOError):  # the latter from a thread that finds no memory for its stack
        limit = job.limits.memory >> 20
        report.say({"rejected": {"code": "too_much_memory", "reason": f"it needs more than {limit} MiB to decode"}})
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        limit = job.limits.output_bytes >> 20
        report.say({"rejected": {"code": "output_too_large", "reason": f"it becomes more than {limit} MiB"}})


if __name__ == "__main__":
    main()
