"""The MP4 of a clip: its frames upright and encoded as H.264, its sound as AAC, or both copied unchanged."""

from array import array
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from typing import Final, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.filter import Graph
from av.filter.context import FilterContext
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from colours.light import BT709, BT2020, PRIMARIES, cube, is_wide, screen_code
from video.files import Files, Reader, Writer
from video.rules import FULL_RANGE, KNOWN_CURVES, KNOWN_PRIMARIES, TV_RANGE, UNSPECIFIED
from video.source import MAX_FRAME_RATE, Clip

CLOCK: Final = 90_000
"""Ticks a second of the rendition: every usual frame rate's period is a whole number of them."""
TICK: Final = Fraction(1, CLOCK)
ENCODER: Final = {
    # A constant quality, under a ceiling that a telephone's connection carries and that bounds the file's size.
    "preset": "veryfast",
    "crf": "26",
    "maxrate": "4000k",
    "bufsize": "8000k",
    "profile": "high",
    # A constant, since x264's output depends on it. Under a ceiling its threads may still differ by a few bytes from
    # run to run: each frame's size depends on what it knows of those that are being encoded beside it.
    "threads": "4",
}
KEY_FRAME_SECONDS: Final = 5
_PERIOD: Final = CLOCK // MAX_FRAME_RATE
_EARLY: Final = _PERIOD // 8
"""How early a frame may come: a WebM's times are rounded to milliseconds."""
_UNITS: Final = "1-5|7|8|10|11"
"""Of a copied clip's H.264: pictures, parameter sets, and the ends of sequences (ITU-T H.264, table 7-1)."""
_CUBE_LEVEL: Final = 6
"""A side of 36 colours."""
_MAPPED, _CUBE = "gbrpf32le", "rgb48le"
"""Of mapped frames and of the cube: planar formats of whole numbers have their planes exchanged by `haldclut`."""
AUDIO_RATES: Final = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000)
AUDIO_BITS_PER_CHANNEL: Final = 64_000

# Evaluated late: at run time PyAV's class takes no parameter.
type AnyPacket = Packet[Stream]
type VideoPackets = list[Packet[VideoStream]]


class CopyFailed(Exception):
    """The source's packets cannot be copied: the muxer rejects them or they look wrong. They must be re-encoded."""


class Upright:
    """Converts the clip's frames to the rendition's (upright, its size, yuv420p), even if these change halfway."""

    def __init__(
        self,
        stored: tuple[int, int],
        turn: tuple[tuple[str, str], ...],
        crop: tuple[int, int, int, int] = (0, 0, 0, 0),
        matrix: int = BT709,
    ) -> None:
        self._stored, self._turn, self._crop, self._matrix = stored, turn, crop, str(matrix)
        self._graph: Graph | None = None
        self._input: FilterContext
        self._interlaced = False
        self._made_for: tuple[object, ...] = ()

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """`frame` has its time in ticks of CLOCK, and so have the frames that come out."""
        self._interlaced = self._interlaced or frame.interlaced_frame  # some of a clip's frames may be
        shape = (
            *(frame.width, frame.height, frame.format.name, self._interlaced),
            *(frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries),
        )
        if shape != self._made_for:
            yield from self.flush()
            self._graph, self._made_for = self._build(frame), shape
        self._input.push(frame)
        yield from _pulled(cast("Graph", self._graph))

    def flush(self) -> Iterator[VideoFrame]:
        if self._graph is not None:
            self._input.push(None)
            yield from _pulled(self._graph)
            self._graph = None

    def _build(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        width, height = self._stored
        self._input = _source(graph, frame)
        nodes = [self._input]
        if self._interlaced:
            nodes.append(graph.add("bwdif", mode="send_frame", deint="interlaced"))
            nodes.append(graph.add("settb", f"1/{CLOCK}"))  # bwdif halves the time base
        left, top, right, bottom = self._crop
        if any(self._crop):
            nodes.append(graph.add("crop", f"iw-{left + right}:ih-{top + bottom}:{left}:{top}"))
        wide = is_wide(frame.color_trc, frame.color_primaries)
        matrix = {} if wide else {"out_color_matrix": self._matrix}  # wide colours get it with their mapping
        nodes.append(graph.add("scale", w=str(width), h=str(height), flags="bicubic", out_range="tv", **matrix))
        mapper = graph.add("haldclut", clut="first") if wide else None
        if mapper:  # after the scaling, on fewer pixels
            coded = graph.add("scale", out_color_matrix=self._matrix, out_range="tv")
            nodes += [graph.add("format", _MAPPED), mapper, coded]
        nodes += [graph.add(name, arguments or None) for name, arguments in self._turn]
        # A frame's side data (matrix, position, light) describes the source and has been used by now.
        nodes += [graph.add("sidedata", mode="delete"), graph.add("format", "yuv420p"), graph.add("buffersink")]
        for node, following in pairwise(nodes):
            node.link_to(following)
        if not mapper:
            graph.configure()
            return graph
        screen = _screen(frame.color_trc, frame.color_primaries)
        colours = _source(graph, screen)
        colours.link_to(mapper, 0, 1)
        graph.configure()
        colours.push(screen)
        colours.push(None)
        return graph


def _source(graph: Graph, frame: VideoFrame) -> FilterContext:
    return graph.add(
        "buffer",
        video_size=f"{frame.width}x{frame.height}",
        pix_fmt=frame.format.name,
        time_base=f"1/{CLOCK}",
        pixel_aspect="1/1",
        colorspace=str(frame.colorspace),
        range=str(frame.color_range),
    )


def _screen(transfer: int, primaries: int) -> VideoFrame:
    """The lookup table from the clip's colours to an ordinary screen's, as a picture for `haldclut`.

    FFmpeg's own conversion clips highlights, or takes six seconds to prepare if it does not.
    """
    samples = array("H")
    for colour in cube(transfer, primaries if primaries in PRIMARIES else BT2020, _CUBE_LEVEL**2, screen_code):
        samples.extend(round(65535 * value) for value in colour)
    side = _CUBE_LEVEL**3
    frame = VideoFrame(side, side, _CUBE)
    content, out = samples.tobytes(), frame.planes[0]
    rows = (content[start : start + 6 * side] for start in range(0, len(content), 6 * side))
    out.update(b"".join(row.ljust(out.line_size, b"\0") for row in rows))
    frame.pts, frame.time_base = 0, TICK
    frame.color_range = FULL_RANGE
    return frame


def _pulled(graph: Graph) -> Iterator[VideoFrame]:
    with suppress(BlockingIOError, EOFError):
        while True:
            yield graph.vpull()


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
            # The muxer reopens only its own file, to move the index.
            io_open=lambda _url, _flags, _options: Reader(files.mp4_again),
            buffer_size=1 << 18,
        )
        self._sound: Sound | None = None
        self._copies: dict[int, tuple[Stream, BitStreamFilterContext | None]] = {}
        if copy:
            film = self._out.add_stream_from_template(clip.video, opaque=True)
            # H.264 carries notes beside the pictures (SEI, and types for any purpose), where drones and some cameras
            # store their position. What comes out has start codes, and so has its configuration: from that, the muxer
            # knows to write lengths.
            without_notes = BitStreamFilterContext(f"filter_units=pass_types={_UNITS}", clip.video, film)
            self._copies[clip.video.index] = film, without_notes
            if clip.audio is not None:
                self._copies[clip.audio.index] = self._out.add_stream_from_template(clip.audio, opaque=True), None
        else:
            self._picture = self._add_picture()
            if clip.audio is not None:
                self._sound = Sound(clip.audio, self._out)
        self._last = -1
        self._wanted = -1
        self._due = 0
        self._thins = not 0 < clip.rate <= MAX_FRAME_RATE + 1

    @property
    def matrix(self) -> int:
        """Of the rendition. It is always stated: players would guess it by the rendition's size, not the source's."""
        source = self._clip.video.codec_context
        is_rgb = source.format is not None and source.format.is_rgb
        return BT709 if is_rgb or is_wide(source.color_trc, source.color_primaries) else self._clip.matrix

    def _add_picture(self) -> VideoStream:
        clip = self._clip
        rate = min(clip.rate, Fraction(MAX_FRAME_RATE)) or Fraction(30)
        stream = self._out.add_stream("libx264", rate, dict(ENCODER), time_base=TICK)
        stream.width, stream.height = clip.target
        stream.pix_fmt = "yuv420p"
        stream.gop_size = max(1, round(rate * KEY_FRAME_SECONDS))
        source, context = clip.video.codec_context, stream.codec_context
        context.color_range = TV_RANGE
        context.colorspace = self.matrix
        if is_wide(source.color_trc, source.color_primaries):
            context.color_primaries = context.color_trc = BT709
        else:
            primaries, curve = source.color_primaries, source.color_trc
            context.color_primaries = primaries if primaries in KNOWN_PRIMARIES else UNSPECIFIED
            context.color_trc = curve if curve in KNOWN_CURVES else UNSPECIFIED
        return stream

    def wants(self, ticks: int) -> bool:
        """Whether to take a frame of this time: it must follow the last one, with at most 60 frames a second."""
        if ticks <= self._wanted or (self._thins and ticks < self._due - _EARLY):
            return False
        self._wanted, self._due = ticks, max(self._due, ticks - ticks % _PERIOD) + _PERIOD
        return True

    def encode(self, frame: VideoFrame) -> None:
        if frame.pts is None or frame.pts <= self._last:
            return
        self._last = frame.pts
        frame.time_base = TICK
        frame.pict_type = 0  # the rendition chooses its own key frames
        self._mux_picture(self._picture.encode(frame))

    def add_sound(self, frame: AudioFrame) -> None:
        if self._sound is not None:
            self._sound.push(frame)

    def copy(self, packet: AnyPacket) -> None:
        """Copies the source's packet. Raises CopyFailed if an MP4 cannot hold it."""
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

    def finish(self, end: int) -> None:
        """Finishes the file. `end`: when the last encoded frame is no longer shown, in ticks of CLOCK."""
        if not self._copies:
            self._mux_picture(self._picture.encode(None), end)
            if self._sound is not None:
                self._sound.finish()
        self._out.close()

    def _mux_picture(self, packets: VideoPackets, end: int = 0) -> None:
        for packet in packets:
            # Only the last frame's matters: the next one ends any other.
            packet.duration = max(end - cast("int", packet.pts), 1)
            self._out.mux(packet)
