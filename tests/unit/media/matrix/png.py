"""PNG and APNG (W3C, third edition)."""

import struct
import zlib
from typing import Any, Final

import numpy as np

from samples.files import exif, grey_profile, png_chunk, rgb_profile
from social.refusals import Code
from tests.support.matrix import VIPS, Matrix, each
from tests.support.raw_pictures import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, SIGNATURE, apng, png, scanlines
from tests.support.reference import (
    BT709,
    BT2020,
    DISPLAY_P3,
    Film,
    Pixels,
    by_vips,
    dynamic,
    linear,
    played,
    quarters,
    shown_as,
    srgb,
    turned,
)

MATRIX: Final = Matrix()
feature: Final = MATRIX.feature
_KINDS: Final = {
    "grey": (GREY, 1, (1, 2, 4, 8, 16)), "colours": (RGB, 3, (8, 16)), "palette": (PALETTE, 1, (1, 2, 4, 8)),
    "grey and alpha": (GREY_ALPHA, 2, (8, 16)), "colours and alpha": (RGBA, 4, (8, 16)),
}  # fmt: skip
_COMBINATIONS: Final = {f"{kind} {depth}": (kind, depth) for kind, (*_, depths) in _KINDS.items() for depth in depths}
_TOLD: Final = "; ".join(f"{kind} {', '.join(map(str, depths))}" for kind, (*_, depths) in _KINDS.items())
type File = tuple[bytes, Any]


def ramp(depth: int = 8, channels: int = 3, wide: int = 32, high: int = 24) -> Pixels:
    """Every channel rises in its own direction, over the whole range."""
    y, x = np.mgrid[0:high, 0:wide]
    ways = [x / (wide - 1), y / (high - 1), (x + y) / (wide + high - 2), 1 - x / (wide - 1)]
    if channels == 2:
        ways[1] = ways[3]
    return np.dstack([(way * (2**depth - 1)).round() for way in ways[:channels]]).astype(int)


def plte(count: int) -> bytes:
    return png_chunk(
        b"PLTE", bytes(c for n in range(count) for c in (n * 255 // (count - 1), 255 - n % 250, n * 7 % 256))
    )


def compared(file: bytes) -> File:
    return file, by_vips(file)


def of_kind(kind: str, depth: int, **how: Any) -> bytes:
    colours, channels, _ = _KINDS[kind]
    before = plte(2**depth) if kind == "palette" else b""
    return png(ramp(depth, channels), depth, colours, before=before + how.pop("before", b""), **how)


@feature("PNG", "colour type and bits a sample", "all; 16 bits become 8", _COMBINATIONS, detail=_TOLD, reference=VIPS)
def depths(kind: str, depth: int) -> File:
    return compared(of_kind(kind, depth))


@feature("PNG", "Adam7 interlacing", "as without", _COMBINATIONS, detail=_TOLD, reference=VIPS)
def interlaced(kind: str, depth: int) -> File:
    return compared(of_kind(kind, depth, interlaced=True))


@feature("PNG", "interlacing of pictures smaller than a pass", "as without", ("1x1", "2x1", "3x5", "5x2"), within=0)
def small(size: str) -> File:
    wide, high = map(int, size.split("x"))
    pixels = quarters()[8 : 8 + high, 14 : 14 + wide]
    return png(pixels, interlaced=True), pixels


@feature("PNG", "line filters", "undone", {"none": 0, "sub": 1, "up": 2, "average": 3, "Paeth": 4}, within=0)
def filters(kind: int) -> File:
    return png(ramp(), line_filter=kind), ramp()


@feature(
    "PNG",
    "colour key (`tRNS`)",
    "its pixels are transparent",
    ("grey 1", "grey 2", "grey 4", "grey 8", "grey 16", "colours 8", "colours 16"),
)
def colour_key(case: str) -> File:
    kind, depth = _COMBINATIONS[case]
    samples = ramp(depth, _KINDS[kind][1])
    samples[4:12, 4:12] = samples[20, 30]
    key = samples[20, 30]
    wanted = np.dstack(
        [samples * 255 / (2**depth - 1)] * (3 // samples.shape[2]) + [255 * (samples != key).any(axis=2)]
    )
    return png(samples, depth, _KINDS[kind][0], before=png_chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))), wanted


@feature(
    "PNG",
    "colour key with more bits than a sample",
    "its lower bits count",
    ("grey 1", "grey 2", "grey 4", "grey 8", "colours 8"),
)
def wide_key(case: str) -> File:
    file, wanted = colour_key(case)
    at = file.index(b"tRNS")
    size = int.from_bytes(file[at - 4 : at])
    above = 0xFF << _COMBINATIONS[case][1] & 0xFFFF
    key = [value | above for value in struct.unpack(f">{size // 2}H", file[at + 4 : at + 4 + size])]
    chunk = png_chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    return file[: at - 4] + chunk + file[at - 4 + len(chunk) :], wanted


def close_key(kind: str) -> tuple[bytes, Pixels]:
    """Two halves that differ from each other in the lower 8 bits, the first of them transparent."""
    colours, channels, _ = _KINDS[kind]
    samples = np.full((24, 32, channels), 0x7F10)
    samples[:, 16:] = 0x7F40
    key = struct.pack(f">{channels}H", *samples[0, 0])
    return png(samples, 16, colours, before=png_chunk(b"tRNS", key)), np.repeat([[0] * 16 + [255] * 16], 24, 0)


@feature("PNG", "grey key of 16 bits beside a grey that differs in the lower 8", "that grey stays")
def close_grey() -> File:
    file, opacity = close_key("grey")
    return file, np.dstack([np.full((24, 32), 127)] * 3 + [opacity])


@feature(
    "PNG",
    "colour key of 16 bits beside a colour that differs in the lower 8",
    "both are transparent: compared in 8 bits",
)
def close_colour() -> File:
    return close_key("colours")[0], np.zeros((24, 32, 4))


@feature(
    "PNG",
    "opacity of a palette's colours (`tRNS`)",
    "theirs; those without are opaque",
    each((1, 2, 4, 8), ("all", "few")),
    reference=VIPS,
)
def palette_opacity(depth: int, which: str) -> File:
    count = 2**depth if which == "all" else 2 ** (depth - 1)
    return compared(of_kind("palette", depth, before=png_chunk(b"tRNS", bytes(n * 255 // count for n in range(count)))))


@feature("PNG", "palette shorter than its bits", "its colours", within=0)
def short_palette() -> File:
    indices = ramp(8, 1) * 4 // 255
    colours = [(10, 20, 30), (200, 30, 40), (30, 200, 40), (30, 40, 200), (250, 240, 230)]
    return png(indices, 8, PALETTE, before=png_chunk(b"PLTE", bytes(sum(colours, ())))), np.array(colours)[
        indices[:, :, 0]
    ]


@feature("PNG", "pixels in many `IDAT`", "as in one", ("2", "9", "empty ones"), within=0)
def pieces(case: str) -> File:
    empty = case == "empty ones"
    nothing = png_chunk(b"IDAT", b"")
    return png(
        ramp(), pieces=3 if empty else int(case), before=nothing if empty else b"", after=nothing if empty else b""
    ), ramp()


# Colours


def gama(value: int) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", value))


def chrm(points: tuple[float, ...]) -> bytes:
    return png_chunk(b"cHRM", struct.pack(">8I", *(round(1e5 * value) for value in (*points[6:], *points[:6]))))


def iccp(profile: bytes) -> bytes:
    return png_chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))


def cicp(*numbers: int) -> bytes:
    return png_chunk(b"cICP", bytes(numbers))


SRGB_CHUNK: Final = png_chunk(b"sRGB", b"\0")
P3_PROFILE: Final = rgb_profile()
SOFT: Final = 40 + ramp() * 175 // 255
"""Colours inside of every gamut."""


@feature(
    "PNG", "`gAMA`", "converted to sRGB", {"1.0": 100_000, "1/1.8": 55_556, "1/2.2": 45_455, "1/2.6": 38_462}, within=3
)
def gamma(value: int) -> File:
    wanted = SOFT if value == 45_455 else srgb((SOFT / 255) ** (100_000 / value))
    return png(SOFT, before=gama(value)), wanted


@feature("PNG", "`gAMA` of a grey picture", "converted to sRGB", ("grey", "grey and alpha"), within=3)
def grey_gamma(kind: str) -> File:
    samples = ramp(8, _KINDS[kind][1])
    wanted = np.dstack([srgb(samples[:, :, :1] / 255)] * 3 + [samples[:, :, 1:]])
    return png(samples, 8, _KINDS[kind][0], before=gama(100_000)), wanted


@feature(
    "PNG",
    "`gAMA` with `cHRM`",
    "converted to sRGB",
    {"BT.709": (BT709,), "Display P3": (DISPLAY_P3,), "BT.2020": (BT2020,)},
    within=3,
)
def chromaticities(points: tuple[float, ...]) -> File:
    return png(SOFT, before=gama(45_455) + chrm(points)), shown_as(SOFT, points, lambda codes: codes**2.2)


@feature("PNG", "profile (`iCCP`)", "converted to sRGB", ("colours", "palette", "colours and alpha"), within=3)
def profile(kind: str) -> File:
    wanted = shown_as(SOFT, DISPLAY_P3, linear)
    if kind == "palette":
        entries = SOFT[:, 12]
        wanted = wanted[:, 12][np.mgrid[0:24, 0:32][0]]
        return png(
            np.mgrid[0:24, 0:32][0],
            8,
            PALETTE,
            before=iccp(P3_PROFILE) + png_chunk(b"PLTE", bytes(entries.reshape(-1).tolist())),
        ), wanted
    opacity = [ramp()[:, :, :1]] * (kind != "colours")
    return png(np.dstack([SOFT, *opacity]), 8, _KINDS[kind][0], before=iccp(P3_PROFILE)), np.dstack([wanted, *opacity])


@feature("PNG", "profile of a grey picture", "converted to sRGB", ("grey", "grey and alpha"), reference=VIPS, within=3)
def grey_profiles(kind: str) -> File:
    return compared(of_kind(kind, 8, before=iccp(grey_profile(1.0))))


_P3: Final = lambda: shown_as(SOFT, DISPLAY_P3, linear)  # noqa: E731
_ORDER: Final = {
    "sRGB over gAMA": (gama(100_000) + chrm(BT2020) + SRGB_CHUNK, lambda: SOFT),
    "iCCP over sRGB": (SRGB_CHUNK + gama(100_000) + iccp(P3_PROFILE), _P3),
    "cICP over iCCP": (cicp(12, 13, 0, 1) + iccp(grey_profile(1.0)) + SRGB_CHUNK, _P3),
    "cICP of sRGB over iCCP": (cicp(1, 13, 0, 1) + iccp(P3_PROFILE), lambda: SOFT),
    "cHRM alone": (chrm(BT2020), lambda: SOFT),
    "behind the pixels": (b"", lambda: SOFT),
}


@feature("PNG", "several of `cICP`, `iCCP`, `sRGB`, `gAMA`", "the first of them in this order", _ORDER, within=3)
def order(chunks: bytes, wanted: Any) -> File:
    return png(SOFT, before=chunks, after=b"" if chunks else gama(100_000)), wanted()


_CURVES: Final = {13: linear, 8: lambda codes: codes, 4: lambda codes: codes**2.2, 5: lambda codes: codes**2.8}
_CODED: Final = {
    "Display P3": (DISPLAY_P3, 12, 13),
    "BT.2020 and linear": (BT2020, 9, 8),
    "gamma 2.2": (BT709, 1, 4),
    "gamma 2.8": (BT709, 1, 5),
}


@feature("PNG", "`cICP`", "converted to sRGB; BT.709's curve is shown as sRGB's", [*_CODED, "BT.709"], within=3)
def code_points(case: str) -> File:
    points, primaries, transfer = _CODED.get(case, (BT709, 1, 1))
    wanted = shown_as(SOFT, points, _CURVES[transfer]) if case in _CODED else SOFT
    return png(SOFT, before=cicp(primaries, transfer, 0, 1)), wanted


@feature(
    "PNG",
    "`cICP` of HLG and PQ",
    "darker tones as they are; brighter ones are rolled off",
    {"HLG": 18, "PQ": 16},
    within=20,
)
def high_range(transfer: int) -> File:
    codes = 70 + ramp() * 30 // 255
    return png(codes, before=cicp(9, transfer, 0, 1)), srgb(dynamic(codes / 255, transfer, BT2020))


@feature("PNG", "`cICP` of narrow range", "widened", within=3)
def narrow() -> File:
    samples = 16 + ramp() * 219 // 255
    return png(samples, before=cicp(1, 13, 0, 0)), (samples - 16) * 255 / 219


# Orientation, and what changes nothing


@feature(
    "PNG",
    "orientation (`eXIf`)",
    "upright",
    each(range(1, 9), ("before the pixels", "behind")),
    detail="1 to 8, before the pixels and behind",
    within=0,
)
def orientation(number: int, place: str) -> File:
    block = png_chunk(b"eXIf", exif(number).tobytes().removeprefix(b"Exif\0\0"))
    where = {"before the pixels": "before", "behind": "after"}[place]
    return png(quarters(), **{where: block}), turned(quarters(), number)  # type: ignore[arg-type]


_EXIF: Final = exif(6).tobytes()
_TEXT_EXIF: Final = b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(_EXIF), _EXIF.hex().encode())
_IGNORED: Final = {
    "bKGD": png_chunk(b"bKGD", b"\0\xff" * 3),
    "pHYs": png_chunk(b"pHYs", struct.pack(">IIB", 1, 2, 0)),
    "sBIT": png_chunk(b"sBIT", b"\5\6\5"),
    "hIST and sPLT": png_chunk(b"sPLT", b"x\0\x08" + bytes(6)),
    "PLTE of colours": plte(16),
    "mDCV and cLLI": png_chunk(b"mDCV", bytes(24)) + png_chunk(b"cLLI", bytes(8)),
    "private chunks": png_chunk(b"caBX", bytes(99)) + png_chunk(b"prVt", b"x"),
    "text and XMP": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation>6</tiff:Orientation>"),
    "EXIF in text": png_chunk(b"tEXt", _TEXT_EXIF),
    "2 MB of text": png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 << 20))),
    "2 MB of profile": iccp(bytes(2 << 20)),
    "broken profile": iccp(b"no profile"),
    "profile that does not unpack": png_chunk(b"iCCP", b"x\0\0junk"),
    "wrong checksum": (png_chunk(b"tEXt", b"a\0b")[:-1] + b"\0" + gama(100_000)[:-1] + b"\0",),
    "wrong lengths": b"".join(png_chunk(name, b"12345") for name in (b"sRGB", b"gAMA", b"cHRM", b"tRNS", b"cICP")),
}  # fmt: skip


@feature("PNG", "what no pixel depends on, and what is broken there", "ignored", _IGNORED, within=0)
def ignored(chunks: bytes) -> File:
    return png(ramp(), before=chunks), ramp()


@feature(
    "PNG", "the end: missing `IEND`, bytes behind it", "ignored", ("no IEND", "half an IEND", "bytes behind"), within=0
)
def ends(case: str) -> File:
    file = png(ramp())
    return {"no IEND": file[:-12], "half an IEND": file[:-5], "bytes behind": file + b"<html>"}[case], ramp()


@feature("PNG", "file that ends within its pixels", Code.TRUNCATED)
def cut() -> bytes:
    return png(ramp())[:-40]


@feature("PNG", "compressed pixels that are whole and too few", "black for the rest", within=0)
def too_few() -> File:
    file, less = png(ramp()), png(ramp()[:20])
    wanted = ramp()
    wanted[20:] = 0
    return file[:33] + less[33:], wanted


@feature(
    "PNG",
    "what the format forbids",
    Code.DAMAGED,
    (
        "bits of the colour type",
        "wrong checksum of the pixels",
        "a critical chunk unknown",
        "no palette",
        "width of zero",
    ),
)
def forbidden(case: str) -> bytes:
    file = png(ramp())
    return {
        "bits of the colour type": file[:24]
        + b"\5"
        + file[25:29]
        + struct.pack(">I", zlib.crc32(file[12:24] + b"\5" + file[25:29]))
        + file[33:],
        "wrong checksum of the pixels": file[:-20] + bytes([file[-20] ^ 1]) + file[-19:],
        "a critical chunk unknown": png(ramp(), before=png_chunk(b"CgBI", bytes(4))),
        "no palette": png(ramp(8, 1), 8, PALETTE),
        "width of zero": SIGNATURE + png_chunk(b"IHDR", bytes(7) + b"\1\x08\2\0\0\0") + file[33:],
    }[case]


# APNG


def disc(colour: tuple[int, int, int, int], wide: int = 16, high: int = 12) -> Pixels:
    """A half transparent picture of one colour with an opaque middle and clear corners."""
    pixels = np.full((high, wide, 4), colour, np.uint8)
    pixels[3:-3, 3:-3, 3] = 255
    pixels[:3, :3, 3] = 0
    return pixels


@feature(
    "APNG",
    "disposal and blending of frames at an offset",
    "as the specification has it",
    each(("keep", "clear", "previous"), ("source", "over")),
    within=3,
)
def disposal(how: str, blending: str) -> File:
    kept, blended = ("keep", "clear", "previous").index(how), ("source", "over").index(blending)
    frames = [
        (disc((220, 30, 30, 128), 32, 24), (0, 0), 1, 10, 0, 0),
        (disc((30, 180, 60, 128)), (4, 6), 1, 10, kept, blended),
        (disc((40, 60, 210, 128)), (13, 9), 1, 10, kept, blended),
        (disc((230, 210, 40, 128)), (0, 12), 1, 10, 0, 1),
    ]
    return apng(frames), Film(played(frames, (24, 32)), [100] * 4)


def reel(times: list[tuple[int, int]], **how: Any) -> tuple[bytes, list[Pixels]]:
    frames = [(disc((80 * n, 200, 30, 255), 32, 24), (0, 0), *time, 0, 0) for n, time in enumerate(times)]
    return apng(frames, **how), played(frames, (24, 32))


@feature("APNG", "delays", "in milliseconds; 10 and less are 100, as browsers show them; a minute at most")
def delays() -> File:
    file, frames = reel([(1, 20), (5, 0), (0, 1), (1, 100), (70, 1)])
    return file, Film(frames, [50, 50, 100, 100, 60_000])


@feature("APNG", "plays", "as many", {"forever": 0, "once": 1, "7": 7})
def plays(number: int) -> File:
    file, frames = reel([(1, 10), (1, 5)], plays=number)
    return file, Film(frames, [100, 200], number)


@feature("APNG", "first frame that disposes of itself to what was before it", "cleared")
def first_previous() -> File:
    frames = [(disc((220, 30, 30, 128), 32, 24), (0, 0), 1, 10, 2, 0), (disc((30, 180, 60, 128)), (4, 6), 1, 10, 0, 1)]
    return apng(frames), Film(played(frames, (24, 32)), [100] * 2)


@feature("APNG", "orientation and gamma", "of every frame", within=3)
def turned_reel() -> File:
    block = png_chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")) + gama(100_000)
    file, frames = reel([(1, 10), (1, 10)], before=block)
    wanted = [np.dstack([srgb(frame[:, :, :3] / 255), frame[:, :, 3]]) for frame in frames]
    return file, Film([turned(frame, 6) for frame in wanted], [100] * 2)


@feature(
    "APNG",
    "an animation of one frame, or a broken one",
    "the still",
    (
        "one frame",
        "one frame behind a cover",
        "one broken frame behind a cover",
        "wrong numbers",
        "frame beyond the canvas",
        "second frame missing",
    ),
)
def one_frame(case: str) -> File:
    file, frames = reel([(1, 10)] * (1 if case == "one frame" else 2))
    if "cover" in case:
        control = png_chunk(b"fcTL", struct.pack(">5IHHBB", 0, 32, 24, 0, 0, 1, 1, 0, 0))
        pixels = b"broken" if "broken" in case else scanlines(disc((9, 9, 9, 255), 32, 24))
        behind = control + png_chunk(b"fdAT", struct.pack(">I", 1) + pixels)
        start = png_chunk(b"acTL", struct.pack(">II", 1, 0))
        file = png(frames[0].astype(int), 8, RGBA, before=start, after=behind)
    if case == "wrong numbers":
        file = png(
            frames[0].astype(int),
            8,
            RGBA,
            before=png_chunk(b"acTL", struct.pack(">II", 2, 0))
            + png_chunk(b"fcTL", struct.pack(">5IHHBB", 9, 32, 24, 0, 0, 1, 1, 0, 0)),
        )
    if case == "frame beyond the canvas":
        file = apng(
            [(disc((1, 2, 3, 255), 32, 24), (0, 0), 1, 10, 0, 0), (disc((9, 9, 9, 255)), (30, 30), 1, 10, 0, 0)]
        )
        frames = [disc((1, 2, 3, 255), 32, 24)]
    if case == "second frame missing":
        at = file.index(b"fcTL", file.index(b"IDAT")) - 4
        file = file[:at] + png_chunk(b"IEND", b"")
    return file, frames[0]
