"""AVIF and HEIC (ISO/IEC 14496-12 and 23008-12, AV1 in HEIF, ITU-T H.273)."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any, Final

import numpy as np
from PIL import Image

from samples.files import exif, rgb_profile
from social.refusals import Code
from tests.support.isobmff import (
    Item,
    auxc,
    av1,
    box,
    clap,
    deep_avif,
    full,
    grid,
    heif,
    hevc,
    imir,
    irot,
    ispe,
    nclx,
    overlay,
    prof,
)
from tests.support.matrix import VIPS, Matrix, each
from tests.support.reference import BT2020, DISPLAY_P3, Film, Pixels, by_vips, dynamic, linear, quarters, shown_as, srgb
from tests.support.stills import COLOURS, reel, saved
from tests.unit.media.matrix.jpeg import ycc

MATRIX: Final = Matrix(within=4, edges=1)
feature: Final = MATRIX.feature
type File = tuple[bytes, Any]

KINDS: Final = ("AVIF", "HEIC")
BOTH: Final = "AVIF, HEIC"
WIDE, HIGH = 64, 48
PICTURE: Final = quarters(WIDE, HIGH)
SRGB: Final = nclx(1, 13, 5)
ALPHA: Final = auxc(b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha")


@cache
def _hevc(pixels: bytes, wide: int, high: int) -> tuple[bytes, bytes]:
    return hevc(ycc(np.frombuffer(pixels, np.uint8).reshape(high, wide, 3)), "yuv444p")


def item(kind: str, pixels: Pixels = PICTURE, *properties: bytes, **how: Any) -> Item:
    high, wide = pixels.shape[:2]
    configuration, data = (av1 if kind == "AVIF" else _hevc)(pixels.astype(np.uint8).tobytes(), wide, high)
    return Item(b"av01" if kind == "AVIF" else b"hvc1", data, [ispe(wide, high), configuration, *properties], **how)


def file(kind: str, *items: Item, **how: Any) -> bytes:
    return heif(items, b"avif" if kind == "AVIF" else b"heic", **how)


def still(kind: str, *properties: bytes, **how: Any) -> bytes:
    return file(kind, item(kind, PICTURE, SRGB, *properties), **how)


# Turning and cropping


@feature(
    BOTH,
    "`irot` and `imir`",
    "turned to the left, then mirrored",
    each(KINDS, range(4), ("", 0, 1)),
    detail="0 to 3 quarter turns, with and without each mirror image",
)
def turns(kind: str, quarter_turns: int, axis: int | str) -> File:
    wanted = np.rot90(PICTURE, quarter_turns)
    if axis != "":
        wanted = wanted[:, ::-1] if axis else wanted[::-1]
    mirror = [imir(int(axis))] if axis != "" else []
    return still(kind, irot(quarter_turns), *mirror), wanted


_CROPS: Final = {
    "middle": (clap(32, 24), (16, 12, 48, 36)),
    "corner": (clap(20, 10, -22, 19), (0, 38, 20, 48)),
    "one pixel": (clap(1, 1, Fraction(1, 2), Fraction(1, 2)), (32, 24, 33, 25)),
    "between pixels": (clap(Fraction(41, 2), Fraction(31, 2)), (22, 17, 42, 31)),
    "whole": (clap(64, 48), (0, 0, 64, 48)),
    "beyond the picture": (clap(80, 48), (0, 0, 64, 48)),
    "divided by zero": (clap(32, 24)[:12] + bytes(4) + clap(32, 24)[16:], (0, 0, 64, 48)),
}


@feature(
    BOTH,
    "`clap`",
    "cropped, to the inside of a pixel; ignored where it is nonsense",
    each(KINDS, _CROPS),
    detail=", ".join(_CROPS),
)
def crops(kind: str, name: str) -> File:
    aperture, (left, top, right, bottom) = _CROPS[name]
    return still(kind, aperture), PICTURE[top:bottom, left:right]


@feature(
    BOTH,
    "`clap`, `irot` and `imir`",
    "in this order",
    each(KINDS, range(4), (0, 1)),
    detail="every turn with each mirror image",
)
def cropped_and_turned(kind: str, quarter_turns: int, axis: int) -> File:
    wanted = np.rot90(PICTURE[8:44, 10:50], quarter_turns)
    return still(kind, clap(40, 36, -2, 2), irot(quarter_turns), imir(axis)), wanted[:, ::-1] if axis else wanted[::-1]


@feature("HEIC", "`imir` listed before `irot`", "mirrored, then turned", ("alone", "with clap"))
def mirrored_first(case: str) -> File:
    crop, seen = ([clap(40, 36, -2, 2)], PICTURE[8:44, 10:50]) if case == "with clap" else ([], PICTURE)
    return still("HEIC", *crop, imir(1), irot(1)), np.rot90(seen[:, ::-1])


@feature("AVIF", "`imir` listed before `irot`, which the standard forbids", "turned, then mirrored, as browsers do")
def forbidden_order() -> File:
    return still("AVIF", imir(1), irot(1)), np.rot90(PICTURE)[:, ::-1]


def exif_item(number: int) -> Item:
    return Item(b"Exif", bytes(4) + exif(number).tobytes().removeprefix(b"Exif\0\0"), refs={b"cdsc": [1]})


@feature(
    BOTH,
    "orientation in EXIF",
    "ignored, as the standard says: `irot` and `imir` count",
    each(KINDS, ("alone", "with irot")),
)
def exif_orientation(kind: str, case: str) -> File:
    turn = [irot(1)] if case == "with irot" else []
    return file(kind, item(kind, PICTURE, SRGB, *turn), exif_item(3)), np.rot90(PICTURE, len(turn))


# Samples

_LAYOUTS: Final = {
    "4:0:0, 8": "gray",
    "4:2:0, 8": "yuv420p",
    "4:4:4, 8": "yuv444p",
    "4:2:0, 10": "yuv420p10le",
    "4:2:2, 10": "yuv422p10le",
    "4:4:4, 10": "yuv444p10le",
    "4:2:0, 12": "yuv420p12le",
    "4:4:4, 12": "yuv444p12le",
}


def halved(plane: Pixels, across: int, down: int) -> Pixels:
    high, wide = plane.shape
    return np.asarray(plane.reshape(high // down, down, wide // across, across).mean(axis=(1, 3)).round().astype(int))


@feature("HEIC", "subsampling and bits", "all; more than 8 bits become 8", _LAYOUTS, edges=3)
def heic_samples(layout: str) -> File:
    scale = 16 if "12le" in layout else 4 if "10le" in layout else 1
    across, down = {"420": (2, 2), "422": (2, 1)}.get(layout[3:6], (1, 1))
    light, *colours = (plane * scale for plane in ycc(PICTURE))
    planes = [light] if layout == "gray" else [light, *(halved(plane, across, down) for plane in colours)]
    configuration, data = hevc(planes, layout)
    wanted = np.dstack([light] * 3) if layout == "gray" else PICTURE
    return file("HEIC", Item(b"hvc1", data, [ispe(WIDE, HIGH), configuration, SRGB])), wanted


@feature("AVIF", "subsampling", "all", ("4:0:0", "4:2:0", "4:2:2", "4:4:4"), edges=3, within=5)
def avif_samples(subsampling: str) -> File:
    picture = np.dstack([PICTURE[:, :, 0]] * 3) if subsampling == "4:0:0" else PICTURE
    configuration, data = av1(picture.tobytes(), WIDE, HIGH, subsampling)
    return file("AVIF", Item(b"av01", data, [ispe(WIDE, HIGH), configuration, SRGB])), picture


@feature(
    "AVIF",
    "10 and 12 bits",
    "8 bits",
    {f"{bits}, {name}": (bits, how) for bits in (10, 12) for name, how in (("4:4:4", "off"), ("4:2:0", "on"))},
    edges=3,
    within=5,
)
def avif_bits(bits: int, subsampling: str) -> File:
    return deep_avif(PICTURE.astype(int) * 257, bits, subsampling), PICTURE


_WEIGHTS: Final = {
    "BT.709": (1, 0.2126, 0.0722),
    "FCC": (4, 0.3, 0.11),
    "BT.601": (6, 0.299, 0.114),
    "SMPTE 240M": (7, 0.212, 0.087),
    "BT.2020": (9, 0.2627, 0.0593),
}


def read_as(planes: Sequence[Pixels], red: float, blue: float, *, full_range: bool = True) -> Pixels:
    """Y, Cb and Cr as RGB, by the weights of a matrix (H.273, 8.3)."""
    light, cb, cr = (plane.astype(float) for plane in planes)
    if full_range:
        cb, cr = (cb - 128) / 255, (cr - 128) / 255
    else:
        light, cb, cr = (light - 16) * 255 / 219, (cb - 128) / 224, (cr - 128) / 224
    r, b = light / 255 + 2 * (1 - red) * cr, light / 255 + 2 * (1 - blue) * cb
    return np.dstack([r, (light / 255 - red * r - blue * b) / (1 - red - blue), b]).clip(0, 1) * 255


SOFT: Final = (100 + PICTURE.astype(int) // 5).astype(np.uint8)
"""Colours that are colours by every matrix."""


@feature(BOTH, "`nclx`: matrix", "followed", each(KINDS, _WEIGHTS), detail=", ".join(_WEIGHTS))
def matrices(kind: str, name: str) -> File:
    number, red, blue = _WEIGHTS[name]
    return file(kind, item(kind, SOFT, nclx(1, 13, number))), read_as(ycc(SOFT), red, blue)


@feature(BOTH, "`nclx`: identity matrix", "followed", KINDS)
def identity(kind: str) -> File:
    light, cb, cr = ycc(SOFT)
    return file(kind, item(kind, SOFT, nclx(1, 13, 0))), np.dstack([cr, light, cb])


@feature(BOTH, "`nclx`: limited range", "widened", KINDS)
def limited(kind: str) -> File:
    if kind == "AVIF":
        configuration, data = av1(PICTURE.tobytes(), WIDE, HIGH, full_range=False)
        return file(
            kind, Item(b"av01", data, [ispe(WIDE, HIGH), configuration, nclx(1, 13, 6, full_range=False)])
        ), PICTURE
    return file(kind, item(kind, SOFT, nclx(1, 13, 6, full_range=False))), read_as(
        ycc(SOFT), 0.299, 0.114, full_range=False
    )


_CURVES: Final = {
    "Display P3": (12, 13, DISPLAY_P3, linear),
    "BT.2020": (9, 13, BT2020, linear),
    "linear": (9, 8, BT2020, lambda codes: codes),
    "gamma 2.2": (12, 4, DISPLAY_P3, lambda codes: codes**2.2),
    "gamma 2.8": (12, 5, DISPLAY_P3, lambda codes: codes**2.8),
}


@feature(
    BOTH, "`nclx`: primaries and curve", "converted to sRGB", each(KINDS, _CURVES), detail=", ".join(_CURVES), within=5
)
def curves(kind: str, name: str) -> File:
    primaries, transfer, points, curve = _CURVES[name]
    return file(kind, item(kind, SOFT, nclx(primaries, transfer, 6))), shown_as(SOFT, points, curve)


@feature(
    BOTH,
    "profile, and `nclx` beside it",
    "the profile is followed, with the matrix of the other",
    each(KINDS, ("alone", "first", "second")),
    within=5,
)
def profiles(kind: str, place: str) -> File:
    red, blue = _WEIGHTS["BT.709"][1:]
    colours = {
        "alone": [prof(rgb_profile())],
        "first": [prof(rgb_profile()), nclx(1, 13, 1)],
        "second": [nclx(1, 13, 1), prof(rgb_profile())],
    }[place]
    seen = uncoloured(kind)[1] if place == "alone" else read_as(ycc(SOFT), red, blue)
    return file(kind, item(kind, SOFT, *colours)), shown_as(seen, DISPLAY_P3, linear)


@feature(BOTH, "no `colr`", "sRGB with BT.601's matrix; range as the codec has it", KINDS)
def uncoloured(kind: str) -> File:
    light, cb, cr = ycc(SOFT)
    return file(kind, item(kind, SOFT)), SOFT if kind == "AVIF" else read_as(
        (light, cb, cr), 0.299, 0.114, full_range=False
    )


_DARK: Final = (60 + PICTURE.astype(int) // 5).astype(np.uint8)
"""Codes of colours that a screen can show by either curve."""


@feature(
    BOTH,
    "`nclx`: HLG and PQ",
    "darker tones as they are; brighter ones are rolled off",
    each(KINDS, ("HLG", "PQ", "PQ of unknown primaries")),
    within=10,
)
def high_range(kind: str, name: str) -> File:
    transfer, primaries = {"HLG": (18, 9), "PQ": (16, 9)}.get(name, (16, 2))
    seen = read_as(ycc(_DARK), *_WEIGHTS["BT.2020"][1:])
    return file(kind, item(kind, _DARK, nclx(primaries, transfer, 9))), srgb(dynamic(seen / 255, transfer, BT2020))


# Derived pictures


def tiles(kind: str, wide: int, high: int) -> tuple[Pixels, list[Item]]:
    """A picture of 128 x 128, and its four tiles."""
    picture = quarters(128, 128)
    picture[10:30, 50:90] = 10, 20, 30
    pieces = [picture[y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64)]
    return picture[:high, :wide], [item(kind, piece, SRGB, hidden=True) for piece in pieces]


@feature(BOTH, "`grid`", "put together", each(KINDS, ("whole", "cut to size", "turned and cropped")))
def grids(kind: str, case: str) -> File:
    wide, high = (128, 128) if case == "whole" else (110, 84)
    wanted, pieces = tiles(kind, wide, high)
    turn = [clap(80, 60), irot(1)] if case == "turned and cropped" else []
    if turn:
        wanted = np.rot90(wanted[12:72, 15:95])
    whole = Item(b"grid", grid(2, 2, wide, high), [ispe(wide, high), SRGB, *turn], {b"dimg": [2, 3, 4, 5]})
    return file(kind, whole, *pieces), wanted


@feature(
    BOTH,
    "`colr` of the tiles alone",
    "converted to sRGB",
    each(KINDS, ("profile", "nclx")),
    within=5,
)
def coloured_tiles(kind: str, case: str) -> File:
    colours = [prof(rgb_profile()), nclx(1, 13, 6)] if case == "profile" else [nclx(12, 13, 6)]
    soft = (60 + quarters(128, 128).astype(int) // 2).astype(np.uint8)
    pieces = [item(kind, soft[y : y + 64, x : x + 64], *colours, hidden=True) for y in (0, 64) for x in (0, 64)]
    whole = Item(b"grid", grid(2, 2, 128, 128), [ispe(128, 128)], {b"dimg": [2, 3, 4, 5]})
    return file(kind, whole, *pieces), shown_as(soft, DISPLAY_P3, linear)


@feature("HEIC", "`iovl`", "put together")
def overlays() -> File:
    wanted = np.full((60, 80, 3), (10, 200, 30))
    wanted[6:54, 10:74] = PICTURE
    places = overlay(80, 60, (10, 6), fill=(10 * 257, 200 * 257, 30 * 257, 65535))
    whole = Item(b"iovl", places, [ispe(80, 60), SRGB], {b"dimg": [2]})
    return file("HEIC", whole, item("HEIC", PICTURE, SRGB, hidden=True)), wanted


@feature("HEIC", "`iden`", "its picture, turned")
def identities() -> File:
    whole = Item(b"iden", b"", [ispe(WIDE, HIGH), irot(1)], {b"dimg": [2]})
    return file("HEIC", whole, item("HEIC", PICTURE, SRGB, hidden=True)), np.rot90(PICTURE)


@feature("AVIF", "`iovl`, `iden`", Code.HEIF_CODEC, ("iovl", "iden"))
def avif_derived(kind: str) -> bytes:
    data = overlay(WIDE, HIGH, (0, 0)) if kind == "iovl" else b""
    whole = Item(kind.encode(), data, [ispe(WIDE, HIGH), SRGB], {b"dimg": [2]})
    return file("AVIF", whole, item("AVIF", PICTURE, SRGB, hidden=True))


# Opacity

VEIL: Final = np.tile(np.where(np.arange(WIDE) < 40, 255, 96), (HIGH, 1))
VEILED: Final = np.dstack([PICTURE, VEIL])


def veil(kind: str, opacity: Pixels = VEIL, *properties: bytes) -> Item:
    grey = item(kind, np.dstack([opacity] * 3))
    return Item(
        grey.kind,
        grey.data,
        [*(properties or grey.properties[:1]), grey.properties[1], ALPHA],
        {b"auxl": [1]},
        hidden=True,
    )


@feature(
    BOTH, "opacity in a picture of its own", "its opacity", each(KINDS, ("", "turned and cropped")), edges=3, within=5
)
def opacity(kind: str, case: str) -> File:
    turn = [clap(40, 32), irot(3)] if case == "turned and cropped" else []
    wanted = np.rot90(VEILED[8:40, 12:52], 3) if turn else VEILED
    return file(kind, item(kind, PICTURE, SRGB, *turn), veil(kind)), wanted


@feature("HEIC", "opacity of half the size", "enlarged", edges=3, within=5)
def small_opacity() -> File:
    return file("HEIC", item("HEIC", PICTURE, SRGB), veil("HEIC", VEIL[::2, ::2])), VEILED


@feature("AVIF", "opacity of half the size", Code.DAMAGED)
def forbidden_opacity() -> bytes:
    return file("AVIF", item("AVIF", PICTURE, SRGB), veil("AVIF", VEIL[::2, ::2]))


@feature("HEIC", "opacity by HEVC's own name", "its opacity", edges=3, within=5)
def hevc_opacity() -> File:
    mask = veil("HEIC")
    mask.properties = [*mask.properties[:-1], auxc(b"urn:mpeg:hevc:2015:auxid:1")]
    return file("HEIC", item("HEIC", PICTURE, SRGB), mask), VEILED


@feature("AVIF", "opacity without a size", "its opacity", edges=3, within=5)
def unsized() -> File:
    mask = veil("AVIF")
    mask.properties = mask.properties[1:]
    return file("AVIF", item("AVIF", PICTURE, SRGB), mask), VEILED


@feature(BOTH, "colours premultiplied by it (`prem`)", "undone", KINDS, edges=3, within=6)
def premultiplied(kind: str) -> File:
    dark = (PICTURE * (VEIL / 255)[:, :, None]).round().astype(np.uint8)
    return file(kind, item(kind, dark, SRGB, refs={b"prem": [2]}), veil(kind)), VEILED


# Boxes

_BOXES: Final[dict[str, dict[str, Any]]] = {
    "iloc 1": {"version": 1},
    "iloc 2": {"version": 2},
    "in idat": {"inside": True},
    "in three pieces": {"extents": 3},
    "unknown boxes": {"meta": box(b"abcd", bytes(9)), "between": box(b"uuid", bytes(99)), "behind": box(b"free", b"x")},
    "bytes behind": {"behind": b"\0\0\0\0<html>"},
    "half a box behind": {"behind": b"\0\0\0\1free"},
    "64 bits of length": {"between": b"\0\0\0\1free" + bytes(7) + b"\x18" + bytes(8)},
    "another file behind": {"behind": still("HEIC", irot(1))},
}


@feature(BOTH, "where boxes and pixels stand", "read", each(KINDS, _BOXES), detail=", ".join(_BOXES))
def boxes(kind: str, name: str) -> File:
    return still(kind, **_BOXES[name]), PICTURE


@feature(BOTH, "the picture meant (`pitm`)", "is taken", KINDS)
def meant(kind: str) -> File:
    return file(kind, item(kind, SOFT, SRGB), item(kind, PICTURE, SRGB), primary=2), PICTURE


_BRANDS: Final = {
    "avif": ("AVIF", b"avif", b"mif1"),
    "mif1, avif": ("AVIF", b"mif1", b"avif"),
    "heic": ("HEIC", b"heic", b"mif1"),
    "mif1, heic": ("HEIC", b"mif1", b"heic"),
    "heix": ("HEIC", b"heix", b"mif1"),
    "miaf, avif": ("AVIF", b"miaf", b"avif"),
    "mif2, heic": ("HEIC", b"mif2", b"heic"),
    "mif1 of HEVC": ("HEIC", b"mif1", b"mif1"),
}


@feature(BOTH, "brands", "recognised", list(_BRANDS))
def brands(name: str) -> File:
    kind, major, brand = _BRANDS[name]
    return heif([item(kind, PICTURE, SRGB)], major, [brand]), PICTURE


_HARMLESS: Final = {
    "pasp": box(b"pasp", bytes((0, 0, 0, 2, 0, 0, 0, 1))),
    "no pixi": b"",
    "wrong pixi": full(b"pixi", 0, 0, b"\1\x08"),
    "unknown property": box(b"abcd", b"x"),
    "clli and mdcv": box(b"clli", bytes(4)) + b"",
    "broken profile": prof(b"junk" * 40),
}


@feature(BOTH, "properties that no pixel depends on", "ignored", each(KINDS, _HARMLESS), detail=", ".join(_HARMLESS))
def properties(kind: str, name: str) -> File:
    return still(kind, *filter(None, [_HARMLESS[name]])), PICTURE


GAIN: Final = Item(b"tmap", b"\0" + bytes(61), [ispe(WIDE, HIGH), nclx(9, 16, 9)], {b"dimg": [1, 3]})
_NOTES: Final = {
    "EXIF": [exif_item(6)],
    "broken EXIF": [Item(b"Exif", b"\xff" * 9, refs={b"cdsc": [1]})],
    "empty EXIF": [Item(b"Exif", b"", refs={b"cdsc": [1]})],
    "EXIF beyond the file": [Item(b"Exif", b"x" * 9, refs={b"cdsc": [1]}, beyond=999)],
    "2 MB of XMP": [Item(b"mime", b"<x>" * 700_000, refs={b"cdsc": [1]})],
    "unknown item": [Item(b"abcd", b"x" * 9)],
    "thumbnail that is broken": [Item(b"hvc1", b"junk", [ispe(8, 8)], {b"thmb": [1]})],
    "depth map that is broken": [
        Item(b"hvc1", b"junk", [ispe(8, 8), auxc(b"urn:mpeg:hevc:2015:auxid:2")], {b"auxl": [1]})
    ],
    "gain map": [GAIN, Item(b"hvc1", b"junk", [ispe(8, 8)], hidden=True)],
    "huge gain map": [GAIN, Item(b"hvc1", b"junk", [ispe(60_000, 60_000)], hidden=True)],
    "Apple's gain map": [
        Item(b"hvc1", b"junk", [ispe(8, 8), auxc(b"urn:com:apple:photo:2020:aux:hdrgainmap")], {b"auxl": [1]})
    ],
}


@feature(
    BOTH,
    "metadata, thumbnails, depth and gain maps, whole or broken",
    "ignored",
    each(KINDS, _NOTES),
    detail=", ".join(_NOTES),
)
def notes(kind: str, name: str) -> File:
    others = [
        Item(
            b"av01" if one.kind == b"hvc1" and kind == "AVIF" else one.kind,
            one.data,
            one.properties,
            one.refs,
            one.hidden,
            one.beyond,
        )
        for one in _NOTES[name]
    ]
    alternatives = (
        box(b"grpl", full(b"altr", 0, 0, bytes((0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1))))
        if "gain map" in name
        else b""
    )
    brands = (b"mif1", b"miaf", b"tmap") if alternatives else (b"mif1", b"miaf")
    return file(kind, item(kind, PICTURE, SRGB), *others, meta=alternatives, brands=brands), PICTURE


@feature(
    "HEIC", "JPEG, H.264, VVC, JPEG 2000 or no codec inside", Code.HEIF_CODEC, ("jpeg", "avc1", "vvc1", "j2k1", "unci")
)
def codecs(name: str) -> bytes:
    return heif([Item(name.encode(), bytes(99), [ispe(WIDE, HIGH)])], b"mif1", [b"heic"])


@feature(BOTH, "file that ends within its pixels or its index", Code.TRUNCATED, each(KINDS, ("pixels", "index")))
def cut(kind: str, where: str) -> bytes:
    whole = still(kind)
    return whole[:-40] if where == "pixels" else whole[:200]


# Sequences


@feature("HEIC", "image sequence without a still", Code.HEIF_SEQUENCE)
def sequence() -> bytes:
    return box(b"ftyp", b"hevc", bytes(4), b"msf1", b"hevc") + box(b"moov", bytes(99)) + box(b"mdat", bytes(99))


@feature("AVIF", "animation", "frames, times and plays", within=6, edges=0)
def animation() -> File:
    shown = [np.full((48, 64, 4), (*colour, 255)) for colour in COLOURS]
    return reel("AVIF", COLOURS, (50, 120, 200, 330)), Film(shown, [50, 120, 200, 330])


@feature("AVIF", "animation with opacity", "frame by frame", within=8, edges=0)
def veiled_animation() -> File:
    frames = [
        np.dstack([np.full((48, 64, 3), colour), np.full((48, 64), opacity)]).astype(np.uint8)
        for colour, opacity in zip(COLOURS, (255, 128, 0, 60), strict=True)
    ]
    first, *others = (Image.fromarray(frame) for frame in frames)
    return saved(first, "AVIF", save_all=True, append_images=others, duration=100, quality=100), Film(frames, [100] * 4)


@feature("AVIF", "a file of another library", "as it reads it", ("8", "10", "12"), reference=VIPS, within=5, edges=0)
def by_another(bits: str) -> File:
    written = deep_avif(PICTURE.astype(int) * 257, int(bits), "off")
    return written, by_vips(written)
