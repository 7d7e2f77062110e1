"""Makes the tests' clips, tiny and exact, with the library that will read them."""

import math
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from PIL import Image

Paint = Callable[[int, int, int], bytes]
"""(frame number, width, height) -> RGB pixels."""


def texture(number: int, width: int, height: int) -> bytes:
    """Sharp squares of eight pixels that move to the right."""
    light, dark = bytes((220, 200, 60)) * 8, bytes((30, 60, 160)) * 8
    rows = []
    for y in range(height):
        tiles = -(-width // 16) + 1
        row = (light + dark) * tiles if y // 8 % 2 else (dark + light) * tiles
        offset = 3 * (number % 16)
        rows.append(row[offset : offset + 3 * width])
    return b"".join(rows)


def plain(colour: tuple[int, int, int]) -> Paint:
    return lambda number, width, height: bytes(colour) * (width * height)


def quarters(number: int, width: int, height: int) -> bytes:
    """Red, green over blue, white, so that any rotation or mirroring shows."""
    left, right = width // 2, width - width // 2
    top = bytes((255, 0, 0)) * left + bytes((0, 255, 0)) * right
    bottom = bytes((0, 0, 255)) * left + bytes((255, 255, 255)) * right
    return top * (height // 2) + bottom * (height - height // 2)


@dataclass(frozen=True)
class Kind:
    """A container and its usual codecs."""

    suffix: str
    muxer: str
    video: str
    audio: str


MP4 = Kind(".mp4", "mp4", "libx264", "aac")
MOV = Kind(".mov", "mov", "libx264", "aac")
WEBM = Kind(".webm", "webm", "libvpx-vp9", "libopus")
AVI = Kind(".avi", "avi", "mpeg4", "mp2")
WMV = Kind(".wmv", "asf", "wmv2", "wmav2")
KINDS = (MP4, MOV, WEBM, AVI, WMV)

_FAST = {
    "libx264": {"preset": "ultrafast", "g": "12"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}


def make_clip(
    path: Path,
    kind: Kind = MP4,
    *,
    size: tuple[int, int] = (64, 48),
    frames: int = 24,
    rate: int = 24,
    times: Iterable[int] | None = None,
    paint: Paint = texture,
    sound: Callable[[float], float] | None = lambda seconds: math.sin(seconds * 440 * math.tau) / 2,
    matrix: tuple[int, ...] | None = None,
    pixel_aspect: Fraction | None = None,
    metadata: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    muxer_options: Mapping[str, str] | None = None,
    more_sounds: int = 0,
    transfer: int | None = None,
) -> Path:
    """Writes a clip. `times` are the frames' in ticks of 1/rate, one after the other by default; `matrix` is a display
    matrix; `sound` gives a sample from -1 to 1, or None for a silent clip without an audio stream. With a
    `transfer` function the stream says that it is BT.2020."""
    with av.open(str(path), "w", format=kind.muxer, options=dict(muxer_options or {})) as out:
        out.metadata.update(metadata or {})
        encoding = {**_FAST.get(kind.video, {}), **(options or {})}
        picture = cast("av.VideoStream", out.add_stream(kind.video, rate, encoding))
        picture.width, picture.height = size
        picture.pix_fmt = "yuv420p"
        if pixel_aspect:
            picture.codec_context.sample_aspect_ratio = pixel_aspect
        if matrix:
            picture.set_display_matrix(matrix)
        if transfer:
            context = picture.codec_context
            context.color_trc, context.color_primaries, context.colorspace = transfer, 9, 9
        voices = [
            cast("av.AudioStream", out.add_stream(kind.audio, 48_000)) for _ in range((sound is not None) + more_sounds)
        ]
        for voice in voices:
            voice.codec_context.bit_rate = 64_000
        for number, time in zip(range(frames), times or range(frames), strict=False):
            image = Image.frombytes("RGB", size, paint(number, *size))
            frame = cast("VideoFrame", VideoFrame.from_image(image)).reformat(format="yuv420p")  # type: ignore[no-untyped-call]
            frame.pts, frame.time_base = time, Fraction(1, rate)
            out.mux(picture.encode(frame))
        out.mux(picture.encode(None))
        for voice in voices:
            resampler = av.AudioResampler(
                format=voice.format, layout=voice.layout, rate=48_000, frame_size=voice.frame_size
            )
            for heard in (*resampler.resample(_sound(frames / rate, sound)), *resampler.resample(None)):
                out.mux(voice.encode(heard))
            out.mux(voice.encode(None))
    return path


def _sound(seconds: float, sound: Callable[[float], float] | None) -> AudioFrame:
    samples = round(seconds * 48_000)
    values = array("f", (sound(number / 48_000) if sound else 0.0 for number in range(samples)))
    frame = AudioFrame(format="flt", layout="mono", samples=samples)
    frame.planes[0].update(values.tobytes())
    frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
    return frame


def sound_only(path: Path) -> Path:
    with av.open(str(path), "w", format="mp4") as out:
        voice = out.add_stream("aac", 48_000)
        resampler = av.AudioResampler(format=voice.format, layout=voice.layout, rate=48_000, frame_size=1024)
        for heard in (*resampler.resample(_sound(0.5, math.sin)), *resampler.resample(None)):
            out.mux(voice.encode(heard))
        out.mux(voice.encode(None))
    return path
