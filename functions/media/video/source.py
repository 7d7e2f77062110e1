"""Admits a clip, or refuses it by its header, before decoding.

Runs only in the worker's process: this is the first code that passes the clip to a C library.
"""

import os
from dataclasses import dataclass
from fractions import Fraction
from io import FileIO
from typing import Final

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.rational import AVRational
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from colours.light import is_wide
from social.refusals import Code, Rejected
from video.files import Reader
from video.job import Limits
from video.rules import Container, crop_of, fit, matrix_of, square_pixels, turn_of

# The clip chooses the decoder, so only these are allowed: what phones, cameras, editors and browsers write.
VIDEO_CODECS: Final = frozenset(
    {
        "h264",
        "hevc",
        "vp8",
        "vp9",
        "av1",
        "libdav1d",
        "mpeg4",
        "msmpeg4v1",
        "msmpeg4v2",
        "msmpeg4",
        "wmv1",
        "wmv2",
        "wmv3",
        "vc1",
        "mjpeg",
        "h263",
        "prores",
    }
)
AUDIO_CODECS: Final = frozenset(
    {
        "aac",
        "mp2",
        "mp2float",
        "mp3",
        "mp3float",
        "ac3",
        "eac3",
        "opus",
        "libopus",
        "vorbis",
        "flac",
        "alac",
        "wmav1",
        "wmav2",
        "wmapro",
        "amrnb",
        "amrwb",
        "pcm_s16le",
        "pcm_s16be",
        "pcm_s24le",
        "pcm_s24be",
        "pcm_s32le",
        "pcm_s32be",
        "pcm_u8",
        "pcm_f64le",
        "adpcm_ms",
        "adpcm_ima_wav",
        "adpcm_ima_qt",
        "dca",
        "pcm_f32le",
        "pcm_alaw",
        "pcm_mulaw",
    }
)

LONG_SIDE: Final = 1280
SHORT_SIDE: Final = 720
"""The box of the `video` rendition (720p), landscape or portrait as the clip."""
MOST_CHANNELS: Final = 24
"""Those of 22.2. FFmpeg's filters fail at 32."""
MAX_FRAME_RATE: Final = 60
"""The rendition's maximum frame rate; extra frames are dropped."""
COPIED_BIT_RATE: Final = 5_000_000
"""The maximum bit rate at which an otherwise suitable clip is copied: the encoder's ceiling, sound, and a little."""


ENCODING_WORK: Final = 1.3
"""The cost to scale and encode a pixel of the rendition, in decoded pixels; measured, as the two below."""
MAPPING_WORK: Final = 3.0
"""The same for mapping a wide gamut or high dynamic range to a screen."""
DEINTERLACING_WORK: Final = 1.7
"""The same for a stored pixel of an interlaced frame."""


@dataclass(frozen=True, slots=True)
class Clip:
    """An admitted source. Sizes in pixels, times in seconds.

    Attributes:
        width, height: of the source as displayed.
        crop: (left, top, right, bottom) to remove from a frame, in its pixels.
        stored: size of the rendition's frames before they are turned upright.
        target: the same after `turn`, the filters (name, arguments) that do it. `swapped`: they swap width and height.
        rate: frames a second by the header, 0 if it does not say.
        declared: the duration in the header, which may be wrong.
        origin: time of the first packet.
        matrix: of the colours of frames that state none.
        frame_work: the cost of a frame of the rendition, in decoded pixels.
        suits: the streams can be copied to the rendition unchanged.
    """

    container: InputContainer
    video: VideoStream
    audio: AudioStream | None
    width: int
    height: int
    crop: tuple[int, int, int, int]
    stored: tuple[int, int]
    target: tuple[int, int]
    turn: tuple[tuple[str, str], ...]
    swapped: bool
    rate: Fraction
    declared: float | None
    origin: float
    matrix: int
    frame_work: float
    suits: bool


def admit(source: FileIO, container_format: Container, limits: Limits, *, sound: bool = True) -> Clip:
    """Opens the source and checks its header against the limits. Without `sound` it is a clip that has none.

    Raises Rejected if it exceeds the limits.
    """
    container = _open(source, container_format, limits)
    if len(container.streams) > limits.streams:
        raise Rejected(Code.TOO_MANY_STREAMS, f"more than {limits.streams} streams")
    video = _picture_of(container)
    audio = _sound_of(container) if sound else None
    for stream in container.streams:
        if stream is not video and stream is not audio:
            stream.discard = Discard.all

    check_size(video.width, video.height, limits)
    rate = _fraction(video.average_rate) or Fraction(0)
    if rate > limits.frame_rate + 1:  # cameras' times jitter, as does the average of them
        if container_format == "mov":  # its index has every frame; others state a rate, which the frames will show
            raise Rejected(
                Code.FRAME_RATE_TOO_HIGH,
                f"{float(rate):.0f} frames a second, over {limits.frame_rate:.0f}",
                round(limits.frame_rate),
            )
        rate = Fraction(0)
    declared = _declared(container, video, audio)
    check_length(declared or 0, limits)
    _check_index(video, audio, source)

    pixel = _fraction(video.sample_aspect_ratio) or _fraction(video.codec_context.sample_aspect_ratio) or Fraction(1)
    crop = left, top, right, bottom = crop_of(video.codec_context.coded_side_data.get("frame_cropping"))
    if left + right >= video.width or top + bottom >= video.height:
        crop = left, top, right, bottom = 0, 0, 0, 0
    check_size(video.width - left - right, video.height - top - bottom, limits)
    shape = square_pixels(video.width - left - right, video.height - top - bottom, pixel)
    stored = fit(*shape, LONG_SIDE, SHORT_SIDE)
    mapped = is_wide(video.codec_context.color_trc, video.codec_context.color_primaries)
    frame_work = stored[0] * stored[1] * (ENCODING_WORK + MAPPING_WORK * mapped)
    a_second = float(rate) * video.width * video.height + min(float(rate), MAX_FRAME_RATE) * frame_work
    check_work((declared or 0) * a_second, limits)
    turn, swapped = turn_of(video.codec_context.coded_side_data.get("display_matrix"))
    coded = _fraction(video.codec_context.sample_aspect_ratio) or 1  # Chrome follows this, others the container
    as_it_is = not turn and stored == (video.width, video.height) and coded == 1
    return Clip(
        container=container,
        video=video,
        audio=audio,
        width=round(shape[1] if swapped else shape[0]),
        height=round(shape[0] if swapped else shape[1]),
        crop=crop,
        stored=stored,
        target=(stored[1], stored[0]) if swapped else stored,
        turn=turn,
        swapped=swapped,
        rate=rate,
        declared=declared,
        origin=(container.start_time or 0) / 1_000_000,
        matrix=matrix_of(video.codec_context.colorspace, video.height),
        frame_work=frame_work,
        suits=as_it_is and container_format == "mov" and _copies(container, video, audio, rate, declared),
    )


def check_size(width: int, height: int, limits: Limits) -> None:
    """Raises Rejected for a frame that is too large, or too small to see."""
    if not width * height:
        raise Rejected(Code.TOO_MANY_PIXELS, "the size of its frames cannot be determined, or is far over the limit")
    if width * height > limits.pixels:
        raise Rejected(
            Code.TOO_MANY_PIXELS, f"{width}x{height} is over the limit of {limits.pixels / 1e6:.1f} megapixels a frame"
        )
    if min(width, height) < limits.least_side:
        raise Rejected(
            Code.TOO_SMALL,
            f"{width}x{height} is under the limit of {limits.least_side} pixels a side",
            limits.least_side,
        )


def check_length(seconds: float, limits: Limits) -> None:
    """Raises Rejected for a clip that is too long."""
    if seconds > limits.seconds:
        most = round(limits.seconds)
        raise Rejected(Code.TOO_LONG, f"it lasts {seconds:.0f} seconds or more, over the limit of {most}", most)


def check_work(pixels: float, limits: Limits) -> None:
    """Raises Rejected for a clip that would take too much work."""
    if pixels > limits.work:
        needed = f"as much work as decoding {pixels / 1e9:.0f} gigapixels"
        raise Rejected(Code.TOO_MUCH_WORK, f"{needed}, over the limit of {limits.work / 1e9:.0f}")


def _open(source: FileIO, container_format: Container, limits: Limits) -> InputContainer:
    def refuse(url: str, _flags: int, _options: dict[str, str]) -> None:
        raise Rejected(Code.DAMAGED, f"it refers to another file, {url!r}")

    options = {
        "max_streams": str(limits.streams),
        "protocol_whitelist": "none",
        "codec_whitelist": ",".join(sorted(VIDEO_CODECS | AUDIO_CODECS)),
        # Sizes somewhat over the limit are still reported, for the reason; beyond that FFmpeg reports 0 x 0.
        "max_pixels": str(8 * limits.pixels),
        "probesize": str(4 << 20),
        # The decoders that probe the first frames are closed again: threads would only cost memory.
        "threads": "1",
    }
    try:
        return av.open(
            Reader(source), "r", format=container_format, options=options, io_open=refuse, buffer_size=1 << 18
        )
    except MemoryError as error:
        # libavformat's error for too many; an index of gigabytes ends here too.
        raise Rejected(Code.TOO_MANY_STREAMS, f"more than {limits.streams} streams, or an index without end") from error
    except (av.FFmpegError, OSError) as error:  # the latter from a seek to before the file's start
        raise Rejected(Code.DAMAGED, f"cannot be read as {container_format}: {error.strerror}") from error


def _picture_of(container: InputContainer) -> VideoStream:
    stills = Disposition.attached_pic | Disposition.timed_thumbnails
    moving = [stream for stream in container.streams.video if not stream.disposition & stills]
    if not moving:
        raise Rejected(Code.NO_VIDEO, "there is no video in it")
    if _codec_of(moving[0]) not in VIDEO_CODECS:
        raise Rejected(Code.CLIP_CODEC, f"video encoded as {_codec_of(moving[0])}")
    return moving[0]


def _sound_of(container: InputContainer) -> AudioStream | None:
    """The first decodable audio stream: phones add a spatial one that nothing else reads.

    A clip without decodable sound is shown without sound.
    """
    decodable = (stream for stream in container.streams.audio if _codec_of(stream) in AUDIO_CODECS)
    return next((stream for stream in decodable if stream.codec_context.channels <= MOST_CHANNELS), None)


def _codec_of(stream: VideoStream | AudioStream) -> str:
    context: av.CodecContext | None = stream.codec_context  # PyAV's types do not say that it may be None
    return context.name if context else "something unknown"


def _declared(container: InputContainer, video: VideoStream, audio: AudioStream | None) -> float | None:
    """The shorter of the container's duration and that of the streams used: other streams may be longer.

    None if only the container states one, and it may be another stream's, such as a Matroska's subtitles.
    """
    used = [stream for stream in (video, audio) if stream is not None]
    spans = [float(stream.duration * stream.time_base) for stream in used if stream.duration]
    if not spans and len(container.streams) > len(used):
        return None
    # A WebM's and a WMV's header counts from zero, also where the first packet comes later.
    start = max(0, container.start_time or 0) if container.format.name in {"matroska", "asf"} else 0
    length = (container.duration or 0) - start
    whole = [length / 1_000_000] if length > 0 else []
    return min([max(spans), *whole] if spans else whole, default=None)


def _check_index(video: VideoStream, audio: AudioStream | None, source: FileIO) -> None:
    """Raises Rejected if the container's index shows that the end of the file is missing."""
    here = source.tell()
    size = source.seek(0, os.SEEK_END)
    source.seek(here)  # the demuxer continues from there
    for stream in (video, audio):
        if stream is not None and len(stream.index_entries):
            last = stream.index_entries[-1]
            if last.pos + last.size > size:
                raise Rejected(Code.TRUNCATED, f"the file ends at byte {size}, but its index continues")


def _copies(
    container: InputContainer, video: VideoStream, audio: AudioStream | None, rate: Fraction, declared: float | None
) -> bool:
    """Whether every player accepts these streams in an MP4, at a bit rate suitable for a phone's connection."""
    picture = video.codec_context
    return (
        picture.name == "h264"
        and picture.pix_fmt == "yuv420p"
        and not is_wide(picture.color_trc, picture.color_primaries)
        and (picture.extradata or b"").startswith(b"\x01")  # not Annex B
        and 0 < rate <= MAX_FRAME_RATE + 1
        and declared is not None
        and 8 * (container.size or 0) <= COPIED_BIT_RATE * max(1.0, declared)
        and (audio is None or (audio.codec_context.name == "aac" and audio.codec_context.channels <= 2))
    )


def _fraction(value: AVRational | None) -> Fraction | None:
    return Fraction(value.numerator, value.denominator) if value and value.denominator else None
