"""MP4, MOV, WebM, AVI and WMV, and the codecs in them (ISO/IEC 14496-12, ITU-T H.273)."""

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np

from social.refusals import Code
from tests.support.clips import KINDS, MOV, MP4, WEBM, Kind
from tests.support.footage import RATE, WEIGHTS, Seen, coded, edited, shot, with_box, with_elements
from tests.support.isobmff import box, clap
from tests.support.matrix import Matrix, each, off
from tests.support.reference import BT2020, DISPLAY_P3, Pixels, between, dynamic, quarters

MATRIX: Final = Matrix(within=12, edges=4)
feature: Final = MATRIX.feature
PICTURE: Final = quarters(64, 48)
SOFT: Final = (90 + PICTURE.astype(int) // 3).astype(np.uint8)
BY_NAME: Final = {kind.suffix[1:].upper().replace("WEBM", "WebM"): kind for kind in KINDS}


def made(of: str) -> Kind:
    """A kind by its muxer, the codec of its pictures and that of its sound."""
    return Kind("", *of.split())


H265: Final = made("mp4 libx265 aac")
VP9: Final = WEBM
UNSTATED: Final = made("mov mpeg4 aac")
PRORES: Final = made("mov prores_ks pcm_s16le")


@dataclass(frozen=True)
class Wanted:
    """What must come out, as far as it is said: the picture of video, poster and preview; times of frames in seconds;
    how long it lasts; the matrix that the video states; and the sound, as the frequency of each channel (0 for none) or
    () for no sound at all. No video contains a frame that is not shown."""

    picture: Pixels | None = None
    times: Any = None
    seconds: float | None = None
    sound: tuple[int, ...] | None = None
    silent_until: float = 0.0
    copied: bool | None = None
    matrix: int | None = None

    def faults(self, seen: Seen, within: float, edges: int) -> list[str]:
        """What is otherwise, in words."""
        found = []
        for name, pixels in seen.pictures.items():
            if self.picture is None or (name == "preview" and max(self.picture.shape[:2]) > 320):
                continue
            away = off(pixels, self.picture, edges) if pixels.shape[:2] == self.picture.shape[:2] else pixels.shape
            if isinstance(away, tuple) or away > (within if name != "preview" else within + 12):
                found.append(f"{name}: {away}")
        if self.times is not None and not (
            len(self.times) == len(seen.times) and np.allclose(self.times, seen.times, atol=0.002)
        ):
            found.append(f"times: {[round(time, 3) for time in seen.times]}")
        if self.seconds is not None and abs(seen.seconds - self.seconds) > 0.06:
            found.append(f"seconds: {seen.seconds}")
        if abs(seen.lasts - seen.seconds) > 0.06:
            found.append(f"lasts {seen.lasts}, and says {seen.seconds}")
        if self.copied is not None and seen.copied != self.copied:
            found.append(f"copied: {seen.copied}")
        if self.matrix is not None and seen.matrix != self.matrix:
            found.append(f"matrix: {seen.matrix}")
        if seen.held != len(seen.times):
            found.append(f"contains {seen.held} frames, and shows {len(seen.times)}")
        if seen.primaries in (9, 11, 12):
            found.append(f"primaries: {seen.primaries}")
        return found + (self._sound_faults(seen) if self.sound is not None else [])

    def _sound_faults(self, seen: Seen) -> list[str]:
        if seen.sound is None:
            return ["no sound"] if self.sound else []
        heard, wanted = [], self.sound or ()
        for channel in seen.sound:
            late = channel[int((self.silent_until + 0.1) * seen.sound_rate) :][: seen.sound_rate // 2]
            strength = np.abs(np.fft.rfft(late))
            loud = np.sqrt((late**2).mean()) > 0.02
            heard.append(round(float(strength.argmax()) * seen.sound_rate / len(late)) if loud else 0)
        early = seen.sound[:, : int(max(0, self.silent_until - 0.05) * seen.sound_rate)]
        wrong = len(heard) != len(wanted) or any(abs(a - b) > 12 for a, b in zip(heard, wanted, strict=True))
        return [f"sound: {heard}"] * wrong + ["sound too early"] * bool(early.size and np.abs(early).max() > 0.1)


type File = tuple[bytes, Wanted]


# Colours


@feature(
    "MP4",
    "matrix and range",
    "followed",
    each(WEIGHTS, ("limited", "full")),
    detail="BT.709, FCC, BT.470, BT.601, SMPTE 240M, BT.2020; limited and full",
)
def matrices(matrix: int, extent: str) -> File:
    full_range = extent == "full"
    planes = coded(SOFT, matrix, full_range=full_range)
    layout = "yuvj420p" if full_range else "yuv420p"
    return shot(MP4, planes, layout, colorspace=matrix, color_range=1 + full_range), Wanted(SOFT)


@feature(
    "MP4, MOV, WebM",
    "range by codec",
    "followed",
    {"H.265": (H265, "yuv420p"), "VP9": (VP9, "yuv420p"), "MJPEG": (made("mov mjpeg aac"), "yuvj420p")},
)
def ranges(kind: Kind, layout: str) -> File:
    return shot(kind, coded(PICTURE, full_range=True), layout, color_range=2, colorspace=6), Wanted(PICTURE)


@feature(
    "MP4, MOV",
    "no matrix",
    "BT.601's, and BT.709's from 720 lines on, as browsers have it; stated in the video unless that is a copy",
    {
        "copied": (MP4, (64, 48), 5, 2),
        "wide": (UNSTATED, (1280, 48), 5, 5),
        "718 lines": (UNSTATED, (64, 718), 5, 5),
        "720 lines": (UNSTATED, (64, 720), 1, 1),
        "shrunk to 532 lines": (UNSTATED, (1920, 800), 1, 1),
    },
)
def unstated(kind: Kind, size: tuple[int, int], matrix: int, stated: int) -> File:
    shown = (1280, 532) if size == (1920, 800) else size
    return shot(kind, coded(quarters(*size), matrix)), Wanted(quarters(*shown), matrix=stated)


@feature(
    "MP4",
    "a matrix that FFmpeg does not convert",
    "as if there were none",
    {"YCgCo": 8, "BT.2020 of constant luminance": 10, "ICtCp": 14},
)
def other_matrices(matrix: int) -> File:
    return shot(H265, coded(PICTURE), colorspace=matrix), Wanted(PICTURE, matrix=5)


@feature("MP4", "RGB (identity matrix)", "shown", {"small": (64, 48), "720 lines": (64, 720)})
def rgb(wide: int, high: int) -> File:
    picture = quarters(wide, high)
    planes = [picture[:, :, channel] for channel in (1, 2, 0)]
    return shot(H265, planes, "gbrp", colorspace=0), Wanted(picture, matrix=1)


_GAMUTS: Final = {
    "BT.709": (1, 1, None),
    "BT.601": (6, 6, None),
    "Display P3": (12, 1, DISPLAY_P3),
    "BT.2020": (9, 14, BT2020),
}


@feature("MP4", "primaries", "converted to BT.709's", _GAMUTS, within=20)
def primaries(number: int, transfer: int, points: Any) -> File:
    wanted = SOFT if points is None else 255 * np.clip((SOFT / 255) ** 2.4 @ between(points).T, 0, 1) ** (1 / 2.4)
    return shot(H265, coded(SOFT, 1), colorspace=1, color_primaries=number, color_trc=transfer), Wanted(wanted)


_UNKNOWN: Final = {
    **{f"primaries {number}": (number, 1) for number in (0, 3, 99)},
    **{f"curve {number}": (1, number) for number in (0, 3, 9, 10, 99)},
}


@feature("MOV", "reserved primaries and curves, and logarithmic curves", "as if there were none", _UNKNOWN)
def unknown_colours(primaries: int, curve: int) -> File:
    clip = shot(made("mov mpeg4 aac"), coded(SOFT, 1), colorspace=1, color_primaries=1, color_trc=1)
    at = clip.index(b"nclc") + 4
    return clip[:at] + struct.pack(">HH", primaries, curve) + clip[at + 4 :], Wanted(SOFT, matrix=1)


@feature(
    "MP4",
    "other curves: gamma 2.2 and 2.8, linear",
    "passed on with its name in the video; unchanged in the poster",
    {"gamma 2.2": 4, "gamma 2.8": 5, "linear": 8},
)
def curves(transfer: int) -> File:
    return shot(H265, coded(SOFT, 1), colorspace=1, color_primaries=1, color_trc=transfer), Wanted(SOFT)


@feature(
    "MP4, MOV, WebM",
    "HLG and PQ",
    "darker tones as they are; brighter ones are rolled off",
    each(("H.265", "AV1"), ("HLG", "PQ")),
    within=20,
)
def high_range(codec: str, name: str) -> File:
    transfer, kind = (
        {"HLG": 18, "PQ": 16}[name],
        {"H.265": H265, "AV1": made("webm libsvtav1 libopus")}[codec],
    )
    codes = 60 + PICTURE.astype(int) // 5
    clip = shot(kind, coded(codes, 9, bits=10), "yuv420p10le", colorspace=9, color_primaries=9, color_trc=transfer)
    return clip, Wanted(255 * dynamic(codes / 255, transfer, BT2020) ** (1 / 2.4))


_LAYOUTS: Final = {
    "H.264 4:2:0": (MP4, "yuv420p", 8),
    "H.264 4:2:2": (MP4, "yuv422p", 8),
    "H.264 4:4:4": (MP4, "yuv444p", 8),
    "H.264 grey": (MP4, "gray", 8),
    "H.264 10 bits": (MP4, "yuv420p10le", 10),
    "H.265 10 bits": (H265, "yuv420p10le", 10),
    "H.265 12 bits 4:4:4": (H265, "yuv444p12le", 12),
    "VP9 4:4:4": (VP9, "yuv444p", 8),
    "AV1 10 bits": (made("webm libsvtav1 libopus"), "yuv420p10le", 10),
    "ProRes 4:2:2": (PRORES, "yuv422p10le", 10),
    "ProRes 4:4:4": (PRORES, "yuv444p10le", 10),
}


@feature("MP4, MOV, WebM", "subsampling and bits", "become 4:2:0 and 8 bits", _LAYOUTS)
def layouts(kind: Kind, layout: str, bits: int) -> File:
    picture = np.dstack([PICTURE[:, :, 0]] * 3) if layout == "gray" else PICTURE
    return shot(kind, coded(picture, bits=bits)[: 1 if layout == "gray" else 3], layout), Wanted(picture)


@feature(
    "MP4",
    "place of the colours' samples",
    "half a pixel is not distinguished",
    {"left": 1, "centre": 2, "top left": 3},
    edges=6,
)
def siting(place: int) -> File:
    return shot(MP4, coded(PICTURE), options={"x264-params": f"chromaloc={place - 1}"}), Wanted(PICTURE)


@feature(
    "MOV, WebM",
    "opacity",
    "dropped: the colours beneath it are shown",
    {"ProRes 4:4:4:4": (PRORES, "yuva444p10le", 10), "VP9": (VP9, "yuva420p", 8)},
)
def opacity(kind: Kind, layout: str, bits: int) -> File:
    veil = np.full((48, 64), 40 << bits - 8)
    return shot(kind, [*coded(PICTURE, bits=bits), veil], layout), Wanted(PICTURE)


# Geometry

ONE: Final = 1 << 16
_TURNS: Final = {
    # a, b, c, d of ISO/IEC 14496-12, 8.5.3: a stored pixel (x, y) is shown at (ax + cy, bx + dy).
    "upright": (1, 0, 0, 1),
    "mirrored": (-1, 0, 0, 1),
    "half turn": (-1, 0, 0, -1),
    "mirrored down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "turn right": (0, 1, -1, 0),
    "transversed": (0, -1, -1, 0),
    "turn left": (0, -1, 1, 0),
}


def placed(stored: Pixels, a: int, b: int, c: int, d: int) -> Pixels:
    """By the matrix itself, pixel by pixel."""
    high, wide = stored.shape[:2]
    y, x = np.mgrid[0:high, 0:wide]
    right, down = a * x + c * y, b * x + d * y
    shown = np.empty((high, wide, 3) if a else (wide, high, 3), np.uint8)
    shown[down - down.min(), right - right.min()] = stored
    return shown


def display(a: float, b: float, c: float, d: float) -> tuple[int, ...]:
    return *(round(value * ONE) for value in (a, b, 0, c, d, 0, 0, 0)), 1 << 30


@feature("MP4, MOV", "display matrix", "upright", each(("MP4", "MOV"), _TURNS), detail=", ".join(_TURNS))
def turns(kind: str, name: str) -> File:
    return shot(BY_NAME[kind], coded(PICTURE), matrix=display(*_TURNS[name])), Wanted(placed(PICTURE, *_TURNS[name]))


@feature(
    "MP4",
    "display matrix that turns by another angle, or enlarges",
    "the nearest quarter turn, without enlarging",
    {"10 degrees": (0.985, 0.174, -0.174, 0.985), "twice": (2.0, 0.0, 0.0, 2.0)},
)
def odd_turns(*numbers: float) -> File:
    return shot(MP4, coded(PICTURE), matrix=display(*numbers)), Wanted(PICTURE)


@feature("WebM", "rotation in its projection", "upright", ("turn right", "half turn", "turn left"))
def projections(name: str) -> File:
    return shot(WEBM, coded(PICTURE), matrix=display(*_TURNS[name])), Wanted(placed(PICTURE, *_TURNS[name]))


_SHAPES: Final = {
    "4:3": (Fraction(4, 3), 64, 36),
    "3:4": (Fraction(3, 4), 48, 48),
    "1:1": (Fraction(1), 64, 48),
    "2:1": (Fraction(2), 64, 24),
}


@feature(
    "MP4, MOV, WebM, AVI, WMV",
    "shape of the pixels",
    "made square by shrinking",
    each(BY_NAME, _SHAPES),
    detail=", ".join(_SHAPES),
)
def shapes(kind: str, name: str) -> File:
    aspect, wide, high = _SHAPES[name]
    clip = shot(BY_NAME[kind], coded(PICTURE), aspect=aspect)
    if kind == "WebM":
        clip = with_elements(clip, (b"\x54\xb0", int(64 * aspect)), (b"\x54\xba", 48))
    return clip, Wanted(quarters(wide, high))


_SQUARE: Final = box(b"pasp", struct.pack(">II", 1, 1))


@feature(
    "MP4",
    "shape of the pixels stated by container and codec",
    "the container's, or the codec's where it is alone",
    {
        "codec alone": (b"free", 36),
        "both, different": (b"pasp", 48),
    },
)
def two_shapes(name: bytes, high: int) -> File:
    clip = shot(MP4, coded(PICTURE), aspect=Fraction(4, 3))
    at = clip.index(b"pasp")
    return clip[:at] + name + _SQUARE[8:] + clip[at + 12 :], Wanted(quarters(64, high), copied=False)


@feature("MP4", "display matrix of the whole movie", "upright", ("turn right", "half turn"))
def movie_turns(name: str) -> File:
    clip = shot(MP4, coded(PICTURE))
    at = clip.index(b"mvhd") + 40
    matrix = struct.pack(">9i", *display(*_TURNS[name]))
    return clip[:at] + matrix + clip[at + 36 :], Wanted(placed(PICTURE, *_TURNS[name]))


@feature("MP4", "shape of the pixels and a quarter turn", "square, then turned")
def turned_shape() -> File:
    clip = shot(MP4, coded(PICTURE), aspect=Fraction(4, 3), matrix=display(*_TURNS["turn right"]))
    return clip, Wanted(placed(quarters(64, 36), *_TURNS["turn right"]))


@feature(
    "MP4, WebM",
    "odd sides, and sides that are not a multiple of a block",
    "even",
    each(("MP4", "WebM"), ("50x38", "66x34")),
)
def sides(kind: str, size: str) -> File:
    wide, high = map(int, size.split("x"))
    return shot(BY_NAME[kind], coded(quarters(wide, high))), Wanted(quarters(wide, high))


@feature("MP4, MOV", "`clap`", "cropped", each(("MP4", "MOV"), ("alone", "and turned")))
def apertures(kind: str, case: str) -> File:
    turn = _TURNS["turn right" if case == "and turned" else "upright"]
    clip = shot(BY_NAME[kind], coded(PICTURE), matrix=display(*turn))
    path = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
    return with_box(clip, path, clap(40, 24, -2, 4)), Wanted(placed(PICTURE[16:40, 10:50], *turn))


@feature("WebM", "PixelCrop", "cropped, to whole samples of the colours")
def pixel_crop() -> File:
    cut = {b"\x54\xaa": 8, b"\x54\xbb": 15, b"\x54\xcc": 10, b"\x54\xdd": 13}  # bottom, top, left, right
    size = (b"\x54\xb0", 64 - 23), (b"\x54\xba", 48 - 23)
    return with_elements(shot(WEBM, coded(PICTURE)), *cut.items(), *size), Wanted(PICTURE[16:40, 10:50])


@feature(
    "MP4",
    "interlacing",
    "one frame for two fields",
    {"top first": (MP4, True), "bottom first": (MP4, False)},
    edges=6,
    within=30,
)
def fields(kind: Kind, top_first: bool) -> File:
    def drawn(moment: int) -> Pixels:
        pixels = np.full((48, 64, 3), (60, 60, 60))
        pixels[:, 4 + 4 * moment : 20 + 4 * moment] = 200, 200, 200
        return pixels

    def frame(number: int) -> list[Pixels]:
        first, second = drawn(2 * number), drawn(2 * number + 1)
        woven = first.copy()
        woven[1 if top_first else 0 :: 2] = second[1 if top_first else 0 :: 2]
        return coded(woven)

    params = f"{'tff' if top_first else 'bff'}=1:interlaced=1"
    return shot(kind, frame, options={"x264-params": params}), Wanted(drawn(0), times=np.arange(6) / RATE, copied=False)


# Time


@feature(
    "MP4, MOV, WebM, AVI, WMV",
    "frame rates",
    "kept; at most 60",
    each(BY_NAME, (10, 24, 50, 60)),
    detail="10, 24, 50, 60",
)
def rates(kind: str, rate: int) -> File:
    return shot(BY_NAME[kind], coded(PICTURE), rate=rate, times=range(12)), Wanted(times=np.arange(12) / rate)


@feature("MP4, MOV, WebM", "uneven times", "kept", ("MP4", "MOV", "WebM"))
def uneven(kind: str) -> File:
    times = [0, 1, 2, 8, 9, 20]
    return shot(BY_NAME[kind], coded(PICTURE), times=times), Wanted(times=np.array(times) / RATE)


@feature(
    "MP4, MOV, WebM, AVI",
    "frames that are coded in another order (B-frames)",
    "in their order",
    {
        "MP4": MP4,
        "MOV": MOV,
        "AVI": made("avi libx264 mp2"),
        "MP4, H.265": H265,
    },
)
def reordered(kind: Kind) -> File:
    def moving(number: int) -> list[Pixels]:
        return coded(np.roll(PICTURE, 3 * number, axis=1))

    options = {"x265-params": "qp=4:log-level=none:bframes=3"} if kind is H265 else {"preset": "fast", "bf": "3"}
    return shot(kind, moving, options=options, times=range(12)), Wanted(PICTURE, times=np.arange(12) / RATE)


def colours(number: int) -> list[Pixels]:
    """Distinguishable frames: each is lighter."""
    return coded(np.full((48, 64, 3), 20 + 18 * number))


def lightness(number: int) -> Pixels:
    return np.full((48, 64, 3), 20 + 18 * number)


_CUTS: Final = ("cut at the start", "cut at the end")


@feature(
    "MP4, MOV",
    "edit list",
    "played by it; nothing at the start is left out. What it cuts away is not published",
    each(("MP4", "MOV"), ("begins with nothing", "whole", *_CUTS), ("a key frame each", "one key frame")),
    detail="begins with nothing, whole, cut at the start, cut at the end; at a key frame and between two",
)
def edits(kind: str, case: str, keys: str) -> File:
    options = {"g": "1" if keys == "a key frame each" else "12", "bf": "0"}
    clip = shot(BY_NAME[kind], colours, times=range(12), options=options)
    frame = 12288 // RATE
    edit = {
        "begins with nothing": ((250, -1), (500, 0)),
        "cut at the start": ((250, 6 * frame),),
        "cut at the end": ((250, 0),),
        "whole": ((500, 0),),
    }[case]
    times = {"cut at the start": np.arange(6) / RATE, "cut at the end": np.arange(6) / RATE}
    first = 6 if case == "cut at the start" else 0
    return edited(clip, *edit), Wanted(lightness(first), times.get(case, np.arange(12) / RATE))


@feature(
    "MP4",
    "index at the end, at the front, in fragments",
    "read",
    {"end": "", "front": "+faststart", "fragments": "+frag_keyframe+empty_moov+default_base_moof"},
)
def indices(flags: str) -> File:
    return shot(MP4, coded(PICTURE), muxer_options={"movflags": flags} if flags else {}), Wanted(
        PICTURE, np.arange(6) / RATE
    )


# Sound

_LAYOUTS_OF_SOUND: Final = {"mono": 1, "stereo": 2, "2.1": 3, "quad": 4, "5.1": 6, "7.1": 8}


def tones(
    channels: int, seconds: float = 1.0, rate: int = 48_000, only: int | None = None, start: float = 0.0
) -> Pixels:
    """A tone of its own in each channel, 400 Hz and 200 more for each."""
    time = np.arange(int(seconds * rate)) / rate
    heard = [
        np.sin(2 * np.pi * (400 + 200 * n) * time) * 0.4 * (time >= start) * (only in (None, n))
        for n in range(channels)
    ]
    return np.array(heard)


def sounding(kind: Kind, *sounds: Pixels, **how: Any) -> bytes:
    return shot(kind, coded(PICTURE), times=range(RATE), sounds=sounds, **how)


@feature("MP4", "channels of the sound", "mono stays, the rest becomes stereo", ("mono", "stereo"))
def channels(layout: str) -> File:
    count = _LAYOUTS_OF_SOUND[layout]
    return sounding(MP4, tones(count), sound_layout=layout), Wanted(sound=tuple(400 + 200 * n for n in range(count)))


_PLACES: Final = {
    "left": (0, (400, 0)),
    "right": (1, (0, 600)),
    "centre": (2, (800, 800)),
    "back left": (4, (1200, 0)),
    "back right": (5, (0, 1400)),
}


@feature("MOV", "a sound of 5.1 in one channel", "is in the same place", _PLACES)
def surround(channel: int, wanted: tuple[int, ...]) -> File:
    kind = made("mov libx264 pcm_s16le")
    return sounding(kind, tones(6, only=channel), sound_layout="5.1(side)"), Wanted(sound=wanted)


@feature("MOV", "samples a second", "48,000 at most", (8000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000))
def sound_rates(rate: int) -> File:
    kind = made("mov libx264 pcm_s16le")
    return sounding(kind, tones(1, rate=rate), sound_rate=rate), Wanted(sound=(400,))


_SOUNDS: Final = [
    "mp4 libx264 aac",
    "mp4 libx264 libmp3lame",
    "mp4 libx264 ac3",
    "mp4 libx264 eac3",
    "mov libx264 alac",
    "mp4 libx264 flac",
    "mp4 libx264 libopus",
    "webm libvpx-vp9 libopus",
    "mov libx264 pcm_s16be",
    "mov libx264 pcm_s24le",
    "mov libx264 pcm_s32le",
    "mov libx264 pcm_f32le",
    "mov libx264 pcm_alaw",
    "avi mpeg4 pcm_u8",
    "avi mpeg4 adpcm_ms",
    "avi mpeg4 mp2",
    "asf wmv2 wmav2",
    "asf wmv2 wmav1",
]
_SOUNDS_TOLD: Final = (
    "AAC, MP3, AC-3, E-AC-3, ALAC, FLAC, Opus, PCM of 8 to 32 bits and of floats, A-law, ADPCM, MP2, WMA"
)


@feature("MP4, MOV, WebM, AVI, WMV", "codec of the sound", "becomes AAC", _SOUNDS, detail=_SOUNDS_TOLD)
def sound_codecs(of: str) -> File:
    return sounding(made(of), tones(1)), Wanted(sound=(400,))


@feature(
    "MP4, WebM, AVI",
    "sound that begins in silence, and two tracks",
    "in time; the first track",
    each(("MP4", "WebM", "AVI"), ("late", "two tracks")),
)
def tracks(kind: str, case: str) -> File:
    if case == "late":
        return sounding(BY_NAME[kind], tones(1, start=0.5)), Wanted(sound=(400,), silent_until=0.5)
    return sounding(BY_NAME[kind], tones(1), tones(2)[1:]), Wanted(sound=(400,))


@feature("MP4", "no sound", "none")
def mute() -> File:
    return shot(MP4, coded(PICTURE)), Wanted(sound=())


# Codecs and containers

_CODECS: Final = [
    "mp4 libx264 aac",
    "mp4 libx265 aac",
    "mp4 libsvtav1 aac",
    "mp4 mpeg4 aac",
    "mp4 libvpx-vp9 aac",
    "webm libvpx libopus",
    "webm libvpx-vp9 libopus",
    "webm libsvtav1 libopus",
    "matroska libx264 libopus",
    "matroska libx265 aac",
    "avi libx264 mp2",
    "avi mpeg4 mp2",
    "avi msmpeg4v2 mp2",
    "avi msmpeg4 mp2",
    "avi h263p mp2",
    "asf wmv1 wmav2",
    "asf wmv2 wmav2",
]
_CODECS_TOLD: Final = "H.264, H.265, AV1, MPEG-4, VP9, VP8, MS MPEG-4, H.263, WMV 1 and 2"


@feature(
    *(
        "MP4, MOV, WebM, MKV, AVI, WMV",
        "codec of the pictures",
        "becomes H.264; copied where it is that and suits",
        _CODECS,
    ),
    detail=_CODECS_TOLD,
    within=20,
)
def codecs(of: str) -> File:
    return shot(made(of), coded(PICTURE)), Wanted(PICTURE, copied=of == "mp4 libx264 aac")


_REFUSED: Final = {
    "Animation": "mov qtrle aac gray",
    "uncompressed": "avi rawvideo mp2 yuv420p",
    "HuffYUV": "avi huffyuv mp2 yuv422p",
    "FFV1": "avi ffv1 mp2 yuv420p",
    "MPEG-2": "mp4 mpeg2video aac yuv420p",
}


@feature("MP4, MOV, AVI", "other codecs", Code.CLIP_CODEC, _REFUSED)
def other_codecs(of: str) -> bytes:
    kind, _, layout = of.rpartition(" ")
    return shot(made(kind), coded(PICTURE)[: 1 if layout == "gray" else 3], layout)


@feature(
    "FLV, MPEG-TS, MPEG-PS",
    "all",
    Code.OTHER_CLIP,
    {"FLV": ("flv", "flv"), "TS": ("mpegts", "mpeg2video"), "PS": ("mpeg", "mpeg1video")},
)
def other_containers(muxer: str, codec: str) -> bytes:
    return shot(Kind("", muxer, codec, "mp2"), coded(PICTURE))


_BRANDS: Final = (b"isom", b"mp41", b"mp42", b"avc1", b"M4V ", b"3gp4", b"qt  ", b"f4v ", b"MSNV", b"XAVC", b"zzzz")


@feature("MP4, MOV", "brands", "any that is not a picture's or a sound's", {brand.decode(): brand for brand in _BRANDS})
def brands(brand: bytes) -> File:
    clip = shot(MP4, coded(PICTURE))
    return clip[:8] + brand + clip[12:], Wanted(PICTURE)


@feature("MOV", "first atom, where it is not `ftyp`", "read", ("pnot", "wide", "free", "skip"))
def first_atoms(name: str) -> File:
    clip = shot(MOV, coded(PICTURE))
    return clip[:4] + name.encode() + clip[8:], Wanted(PICTURE)


def _ended(clip: bytes) -> bytes:
    return clip[: len(clip) * 2 // 3]


@feature(
    "MP4, MOV, WebM, MKV, AVI, WMV",
    "file that ends early",
    Code.TRUNCATED,
    {**BY_NAME, "MKV": made("matroska libx264 aac")},
)
def cut(kind: Kind) -> bytes:
    return _ended(shot(kind, coded(PICTURE), times=range(48)))
