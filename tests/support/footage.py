"""Makes clips of one exact picture in any sample layout, inserts boxes into them, and reads a clip's renditions."""

import struct
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from PIL import Image

import pictures
import video
from social.refusals import Code, Rejected
from tests.support.clips import Kind
from tests.support.isobmff import box, found
from tests.support.reference import Pixels

RATE: Final = 24
WEIGHTS: Final = {
    1: (0.2126, 0.0722),
    4: (0.3, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""Of red and blue, by the matrix's number (H.273, table 4)."""
_FAST: Final[dict[str, dict[str, str]]] = {
    "libx264": {"preset": "ultrafast", "qp": "4"},
    "libx264rgb": {"preset": "ultrafast", "qp": "4"},
    "libx265": {"preset": "ultrafast", "x265-params": "qp=4:log-level=none:bframes=0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "4", "b": "0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "4", "b": "2000k"},
    "libsvtav1": {"preset": "12", "crf": "10"},
    "mpeg4": {"qscale": "1", "qmin": "1", "flags": "qscale"},
}


def coded(pixels: Pixels, matrix: int = 6, *, full_range: bool = False, bits: int = 8) -> list[Pixels]:
    """Y, Cb and Cr (H.273, 8.3)."""
    red, blue = WEIGHTS[matrix]
    r, g, b = np.moveaxis(pixels.astype(float) / 255, 2, 0)
    light = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - light) / (2 - 2 * blue), (r - light) / (2 - 2 * red)
    if full_range:
        planes = 255 * light, 128 + 255 * cb, 128 + 255 * cr
    else:
        planes = 16 + 219 * light, 128 + 224 * cb, 128 + 224 * cr
    return [(plane * 2 ** (bits - 8)).round().astype(int).clip(0, 2**bits - 1) for plane in planes]


def decoded(planes: Sequence[Pixels], matrix: int) -> Pixels:
    """The 8-bit RGB of limited-range Y, Cb and Cr; the colour planes may be subsampled."""
    red, blue = WEIGHTS[matrix]
    light = (planes[0].astype(float) - 16) / 219
    high, wide = light.shape
    cb, cr = (((plane.astype(float) - 128) / 224).repeat(2, 0).repeat(2, 1)[:high, :wide] for plane in planes[1:])
    r, b = light + (2 - 2 * red) * cr, light + (2 - 2 * blue) * cb
    return np.asarray(np.dstack([r, (light - red * r - blue * b) / (1 - red - blue), b]).clip(0, 1) * 255)


def shot(
    kind: Kind,
    planes: Sequence[Pixels] | Callable[[int], Sequence[Pixels]],
    layout: str = "yuv420p",
    *,
    times: Iterable[int] = range(6),
    rate: int = RATE,
    options: Mapping[str, str] | None = None,
    muxer_options: Mapping[str, str] | None = None,
    matrix: Sequence[int] | None = None,
    aspect: Fraction | None = None,
    sounds: Sequence[Pixels] = (),
    sound_rate: int = 48_000,
    sound_layout: str = "mono",
    **context: int,
) -> bytes:
    """A clip. `planes` are of the full size, and are halved as the layout has it; `times` in ticks of 1/rate.

    sounds: for each track, samples from -1 to 1, a row for each channel. context: what the codec says of its colours.
    """
    of = planes if callable(planes) else lambda _number: planes
    high, wide = of(0)[0].shape
    with (
        tempfile.NamedTemporaryFile() as out,
        av.open(out.name, "w", format=kind.muxer, options=dict(muxer_options or {})) as container,
    ):
        stream = cast(
            "av.VideoStream", container.add_stream(kind.video, rate, {**_FAST.get(kind.video, {}), **(options or {})})
        )
        stream.width, stream.height, stream.pix_fmt = wide, high, layout
        stream.metadata["title"] = "room for the elements of with_elements"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix:
            stream.set_display_matrix(tuple(matrix))
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        voices = [cast("av.AudioStream", container.add_stream(kind.audio, sound_rate)) for _ in sounds]
        for voice in voices:
            voice.codec_context.layout = sound_layout
            voice.codec_context.bit_rate = 64_000 * len(sounds[0])
        for number, time in enumerate(times):
            frame = _frame(of(number), layout, wide, high)
            for name, value in context.items():
                if name in ("color_range", "colorspace", "color_primaries", "color_trc"):
                    setattr(frame, name, value)
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for voice, samples in zip(voices, sounds, strict=True):
            resampler = av.AudioResampler(
                format=voice.format, layout=sound_layout, rate=sound_rate, frame_size=voice.frame_size
            )
            for heard in (*resampler.resample(_sound(samples, sound_layout, sound_rate)), *resampler.resample(None)):
                container.mux(voice.encode(heard))
            container.mux(voice.encode(None))
        container.close()
        return Path(out.name).read_bytes()


def _frame(planes: Sequence[Pixels], layout: str, wide: int, high: int) -> av.VideoFrame:
    frame = av.VideoFrame(wide, high, layout)
    for plane, samples in zip(frame.planes, planes, strict=False):
        down, across = samples.shape[0] // plane.height, samples.shape[1] // plane.width
        less = samples.reshape(plane.height, down, plane.width, across).mean(axis=(1, 3)).round()
        rows = less.astype("<u2" if layout.endswith("le") else "u1")
        plane.update(b"".join(row.tobytes().ljust(plane.line_size, b"\0") for row in rows))
    return frame


def _sound(samples: Pixels, layout: str, rate: int) -> AudioFrame:
    frame = AudioFrame(format="fltp", layout=layout, samples=samples.shape[1])
    for plane, channel in zip(frame.planes, samples, strict=True):
        plane.update(channel.astype("<f4").tobytes())
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return frame


def with_box(clip: bytes, path: Sequence[bytes], new: bytes, at: int = 0) -> bytes:
    """An MP4 or MOV, its index at its end, with a box at the end of the first box of a path, or `at` bytes into it."""
    starts, start, end = [], 0, len(clip)
    for name in path:
        start = clip.index(name, start, end) - 4
        starts.append(start)
        end = start + int.from_bytes(clip[start : start + 4])
    place = starts[-1] + 8 + at if at else end
    longer = bytearray(clip[:place] + new + clip[place:])
    for start in starts:
        longer[start : start + 4] = struct.pack(">I", int.from_bytes(longer[start : start + 4]) + len(new))
    return bytes(longer)


def with_elements(webm: bytes, *elements: tuple[bytes, int]) -> bytes:
    """A WebM whose Video element has more numbers, in the space of its track's name (RFC 9559)."""
    more = b"".join(name + b"\x82" + value.to_bytes(2) for name, value in elements)
    named = webm.index(b"\x53\x6e", webm.index(b"\xae"))
    room = 3 + (webm[named + 2] & 0x7F)
    more += b"\xec" + bytes([0x80 | room - len(more) - 2]) + bytes(room - len(more) - 2)  # Void
    start = webm.index(b"\xe0", named + room)
    length = 9 - webm[start + 1].bit_length()
    size = int.from_bytes(webm[start + 1 : start + 1 + length]) & (1 << 7 * length) - 1
    head = b"\xe0" + (size + room | 1 << 7 * length).to_bytes(length)
    return webm[:named] + webm[named + room : start] + head + more + webm[start + 1 + length :]


def edited(clip: bytes, *edits: tuple[int, int]) -> bytes:
    """A clip with an edit list of (duration in ticks of the movie, first tick of the track or -1 for nothing)."""
    clip = clip.replace(b"edts", b"free")
    rows = b"".join(struct.pack(">IiI", *edit, 1 << 16) for edit in edits)
    elst = box(b"elst", bytes(4), struct.pack(">I", len(edits)), rows)
    return with_box(clip, (b"moov", b"trak"), box(b"edts", elst), at=clip.index(b"mdia") - clip.index(b"trak") - 8)


@dataclass(frozen=True)
class Seen:
    """A clip's renditions as read back: the first frame, times in seconds; `sound` has a row for each channel.

    held: how many frames the video's file contains, shown or not. matrix: the video's, as stated. seconds: as
    reported; lasts: as the file has it.
    """

    pictures: Mapping[str, Pixels]
    times: Sequence[float]
    seconds: float
    lasts: float
    sound: Pixels | None
    sound_rate: int
    copied: bool
    primaries: int
    matrix: int
    held: int


def filmed(upload: bytes) -> Seen | Code:
    """The renditions that the clips' pipeline makes from a file."""
    with tempfile.TemporaryDirectory() as name:
        folder, source = Path(name), Path(name) / "upload"
        source.write_bytes(upload)
        try:
            if video.container_of(upload[:64]) is None:
                return pictures.unsupported(upload).code
            made = video.render(source, folder, seconds=600)
        except Rejected as refused:
            return refused.code
        path = made.renditions["video"].path
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        with av.open(str(path), options={"ignore_editlist": "1"}) as container:
            held = sum(1 for _ in container.decode(video=0))
        assert all(kind in (1, 5, 6, 7, 8) for kind in units(path))
        scale, ticks = struct.unpack(">II", found(path.read_bytes(), b"mvhd")[20:28])
        sound, rate = _heard(path)
        first = frames[0]
        planes = [
            np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
            for plane in first.planes
        ]
        with Image.open(made.renditions["preview"].path) as preview, Image.open(made.poster) as poster:
            shown = {
                "video": decoded(
                    planes, first.colorspace if first.colorspace in WEIGHTS else 1 if first.height >= 720 else 6
                ),
                "poster": np.asarray(poster.convert("RGB")),
                "preview": np.asarray(preview.convert("RGB")),
            }
        return Seen(
            pictures=shown,
            times=[frame.time for frame in frames],
            seconds=made.duration,
            lasts=ticks / scale,
            sound=sound,
            sound_rate=rate,
            copied=made.remuxed,
            primaries=first.color_primaries,
            matrix=first.colorspace,
            held=held,
        )


def units(path: Path) -> list[int]:
    """The types of an MP4's H.264 units. Raises AssertionError if their lengths are not there (ISO/IEC 14496-15)."""
    types = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        configuration = stream.codec_context.extradata or b""
        assert configuration[0] == 1
        size = (configuration[4] & 3) + 1
        for packet in container.demux(stream):
            content, at = bytes(packet), 0
            while at < len(content):
                types.append(content[at + size] & 31)
                at += size + int.from_bytes(content[at : at + size])
            assert at == len(content), f"{at} of {len(content)} bytes"
    return types


def _heard(path: Path) -> tuple[Pixels | None, int]:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None, 0
        frames = list(container.decode(audio=0))
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1), frames[0].sample_rate
