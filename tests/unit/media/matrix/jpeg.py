"""JPEG (ITU-T T.81 and T.871, Exif 3.0, Adobe's APP14)."""

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

import numpy as np
from PIL import Image

from samples.files import cmyk_profile, grey_profile, rgb_profile
from social.refusals import Code
from tests.support.matrix import VIPS, Matrix, each
from tests.support.raw_pictures import flat_jpeg, segment, with_segments
from tests.support.reference import DISPLAY_P3, Pixels, by_vips, linear, quarters, shown_as, turned

MATRIX: Final = Matrix(within=4)
feature: Final = MATRIX.feature
type File = tuple[bytes, Any]

JFIF: Final = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
PICTURE: Final = quarters(64, 64)
WHOLE: Final = ((1, 1), (1, 1), (1, 1))


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def ycc(pixels: Pixels) -> list[Pixels]:
    """Y, Cb and Cr of T.871."""
    red, green, blue = np.moveaxis(pixels[:, :, :3].astype(float), 2, 0)
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = light, 128 + (blue - light) / 1.772, 128 + (red - light) / 1.402
    return [plane.round().clip(0, 255).astype(int) for plane in planes]


def rgb(pixels: Pixels) -> list[Pixels]:
    return [pixels[:, :, channel].astype(int) for channel in range(pixels.shape[2])]


def encoded(picture: Image.Image, **options: Any) -> bytes:
    out = BytesIO()
    picture.save(out, "JPEG", quality=95, **options)
    return out.getvalue()


_FACTORS: Final = {
    "4:4:4": WHOLE,
    "4:2:2": ((2, 1), (1, 1), (1, 1)),
    "4:4:0": ((1, 2), (1, 1), (1, 1)),
    "4:2:0": ((2, 2), (1, 1), (1, 1)),
    "4:1:1": ((4, 1), (1, 1), (1, 1)),
    "4:1:0": ((4, 2), (1, 1), (1, 1)),
    "4:4:4 as 2x1": ((2, 1), (2, 1), (2, 1)),
    "Cb and Cr apart": ((2, 2), (2, 1), (1, 2)),
    "lower light than colour": ((1, 1), (2, 1), (2, 1)),
}


@feature("JPEG", "subsampling", "all that divides", list(_FACTORS), edges=4)
def subsampling(name: str) -> File:
    return flat_jpeg(ycc(PICTURE), _FACTORS[name], head=JFIF), PICTURE


@feature(
    "JPEG",
    "sides that are not a multiple of a block",
    "cut to size",
    each((1, 7, 9, 17, 33), ("4:4:4", "4:2:0")),
    edges=4,
)
def sizes(side: int, name: str) -> File:
    picture = np.full((side, side + 2, 3), (40, 60, 210))
    return flat_jpeg(ycc(picture), _FACTORS[name], head=JFIF), picture


_INKS: Final = 255 - np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255)]).astype(int)
_WITH_BLACK: Final = np.where(np.arange(64)[None, :, None] < 8, [0, 0, 0, 128], _INKS)
_IDEAL: Final = (255 - _WITH_BLACK[:, :, :3]) * (255 - _WITH_BLACK[:, :, 3:]) / 255
_INVERTED: Final = 255 - _WITH_BLACK
_SPACES: Final[dict[str, Callable[[], File]]] = {
    "grey": lambda: (flat_jpeg([PICTURE[:, :, 0]], WHOLE[:1], head=JFIF), np.dstack([PICTURE[:, :, 0]] * 3)),
    "grey with factors": lambda: (
        flat_jpeg([PICTURE[:, :, 0]], ((2, 2),), head=JFIF),
        np.dstack([PICTURE[:, :, 0]] * 3),
    ),
    "YCbCr by JFIF": lambda: (flat_jpeg(ycc(PICTURE), WHOLE, head=JFIF), PICTURE),
    "YCbCr by Adobe": lambda: (flat_jpeg(ycc(PICTURE), WHOLE, head=adobe(1)), PICTURE),
    "YCbCr by nothing": lambda: (flat_jpeg(ycc(PICTURE), WHOLE), PICTURE),
    "RGB by Adobe": lambda: (flat_jpeg(rgb(PICTURE), WHOLE, head=adobe(0)), PICTURE),
    "RGB by its names": lambda: (flat_jpeg(rgb(PICTURE), WHOLE, names=b"RGB"), PICTURE),
    "JFIF before Adobe": lambda: (flat_jpeg(ycc(PICTURE), WHOLE, head=JFIF + adobe(0)), PICTURE),
    "CMYK by Adobe": lambda: (flat_jpeg(rgb(_INVERTED), WHOLE + WHOLE[:1], head=adobe(0)), _IDEAL),
    "YCCK": lambda: (
        flat_jpeg([*ycc(255 - _INVERTED[:, :, :3]), _INVERTED[:, :, 3]], WHOLE + WHOLE[:1], head=adobe(2)),
        _IDEAL,
    ),
    "CMYK by nothing": lambda: (flat_jpeg(rgb(_INVERTED), WHOLE + WHOLE[:1]), _IDEAL),
}


@feature(
    "JPEG",
    "colours of the components",
    "all; inks are inverted, as browsers have it, and ideal without a profile",
    list(_SPACES),
)
def spaces(name: str) -> File:
    return _SPACES[name]()


_CODINGS: Final = {
    "extended (SOF1)": {"frame": 0xC1},
    "restart markers": {"interval": 3},
    "a scan for each component": {"apart": True},
    "quantisation of 16 bits": {"wide_tables": True, "frame": 0xC1},
    "height behind the pixels (DNL)": {"lines": 0},
}


@feature("JPEG", "coding", "as baseline", _CODINGS)
def codings(how: dict[str, Any]) -> File:
    return flat_jpeg(ycc(PICTURE), WHOLE, head=JFIF, **how), PICTURE


@feature(
    "JPEG",
    "progressive, optimised, every subsampling of an encoder",
    "as baseline",
    each((False, True), (0, 1, 2)),
    detail="progressive or not, 4:4:4, 4:2:2, 4:2:0",
    reference=VIPS,
    within=2,
)
def progressive(how: bool, factors: int) -> File:
    picture = Image.linear_gradient("L").resize((50, 40))
    colours = Image.merge("RGB", (picture, picture.rotate(180), Image.new("L", picture.size, 90)))
    file = encoded(colours, progressive=how, subsampling=factors, optimize=how)
    return file, by_vips(file)


@feature("JPEG", "12 bits", Code.JPEG_12_BIT)
def deep() -> bytes:
    return flat_jpeg(ycc(PICTURE), WHOLE, frame=0xC1, precision=12)


@feature("JPEG", "lossless, hierarchical", Code.JPEG_LOSSLESS, {"SOF3": 0xC3, "SOF5": 0xC5, "SOF7": 0xC7})
def lossless(frame: int) -> bytes:
    return flat_jpeg(ycc(PICTURE), WHOLE, frame=frame)


@feature("JPEG", "arithmetic coding", Code.JPEG_ARITHMETIC, {"SOF9": 0xC9, "SOF10": 0xCA})
def arithmetic(frame: int) -> bytes:
    return flat_jpeg(ycc(PICTURE), WHOLE, frame=frame)


# Orientation

UPRIGHT: Final = flat_jpeg(ycc(PICTURE), WHOLE)


def exif_segment(order: str, orientation: int, kind: int = 3, ifd1: int = 0) -> bytes:
    """EXIF with only the orientation, in IFD0 and, where asked for, in the thumbnail's IFD1."""

    def entry(value: int) -> bytes:
        wide = struct.pack(order + "I", value) if kind == 4 else struct.pack(order + "HH", value, 0)
        return struct.pack(order + "HHHI", 1, 0x0112, kind, 1) + wide

    mark = b"II" if order == "<" else b"MM"
    after = struct.pack(order + "I", 26) + entry(ifd1) + bytes(4) if ifd1 else bytes(4)
    return segment(0xE1, b"Exif\0\0" + mark + struct.pack(order + "HI", 42, 8) + entry(orientation) + after)


@feature("JPEG", "orientation in EXIF", "upright", each(range(1, 9), ("<", ">")), detail="1 to 8, in either byte order")
def orientation(number: int, order: str) -> File:
    return with_segments(UPRIGHT, exif_segment(order, number)), turned(PICTURE, number)


_XMP: Final = segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="3"/>')
_PLACES: Final = {
    "as a LONG": (exif_segment("<", 6, 4), 6),
    "behind JFIF": (JFIF + exif_segment(">", 6), 6),
    "in two EXIF, the first": (exif_segment("<", 6) + exif_segment("<", 3), 6),
    "in EXIF and XMP, EXIF's": (_XMP + exif_segment("<", 6), 6),
    "in XMP alone, ignored": (_XMP, 1),
    "of the thumbnail, ignored": (exif_segment("<", 1, ifd1=6), 1),
    "0, 9 and the like, ignored": (exif_segment("<", 9), 1),
    "broken EXIF, ignored": (segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"), 1),
}


@feature("JPEG", "orientation in another place, or twice", "one of them", _PLACES)
def places(segments: bytes, number: int) -> File:
    return with_segments(UPRIGHT, segments), turned(PICTURE, number)


# Colours


def icc(profile: bytes, step: int = 60_000, *, backwards: bool = False) -> bytes:
    pieces = [profile[at : at + step] for at in range(0, len(profile), step)]
    segments = [segment(0xE2, b"ICC_PROFILE\0" + bytes((n, len(pieces))) + piece) for n, piece in enumerate(pieces, 1)]
    return b"".join(reversed(segments) if backwards else segments)


_P3: Final = {"one segment": {}, "many": {"step": 100}, "many, in another order": {"step": 100, "backwards": True}}


@feature("JPEG", "profile", "converted to sRGB", _P3, within=5)
def profile(how: dict[str, Any]) -> File:
    return with_segments(UPRIGHT, icc(rgb_profile(), **how)), shown_as(PICTURE, DISPLAY_P3, linear)


@feature("JPEG", "profile of greys and of inks", "converted to sRGB", ("grey", "CMYK"), reference=VIPS, within=8)
def other_profiles(kind: str) -> File:
    if kind == "grey":
        file = with_segments(flat_jpeg([PICTURE[:, :, 0]], WHOLE[:1]), icc(grey_profile(1.0)))
    else:
        file = with_segments(flat_jpeg(rgb(_INVERTED), WHOLE + WHOLE[:1], head=adobe(0)), icc(cmyk_profile()))
    return file, by_vips(file)


_IGNORED: Final = {
    "profile for other colours": icc(grey_profile(1.0)),
    "broken profile": icc(b"junk" * 40),
    "half a profile": icc(rgb_profile()[:200]),
    "EXIF's colour space": segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0\1\xa0\3\0\1\0\0\0\xff\xff\0\0\0\0\0\0"),
    "shape of the pixels": segment(0xE0, b"JFIF\0\1\1\0\0\2\0\1\0\0"),
    "thumbnail (JFXX)": JFIF + segment(0xE0, b"JFXX\0\x13\1\1\0\0\0"),
    "IPTC, MPF, comment": segment(0xED, b"Photoshop 3.0\0") + segment(0xE2, b"MPF\0junk") + segment(0xFE, b"x"),
    "gain map's numbers": segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(64)),
    "broken Adobe": segment(0xEE, b"Adobe"),
}


@feature("JPEG", "what no pixel depends on, and what is broken there", "ignored", _IGNORED)
def ignored(segments: bytes) -> File:
    return with_segments(UPRIGHT, segments), PICTURE


_BEHIND: Final = {
    "no end marker": UPRIGHT[:-2],
    "half an end marker": UPRIGHT[:-1],
    "a gain map, an album (MPO)": UPRIGHT * 2,
    "a motion photo's clip": UPRIGHT + b"\0\0\0\x18ftypmp42" + bytes(99),
    "fill bytes": UPRIGHT.replace(b"\xff\xda", b"\xff\xff\xff\xda"),
}


@feature("JPEG", "the end", "the first picture is taken, the rest dropped", _BEHIND)
def ends(file: bytes) -> File:
    return file, PICTURE


@feature("JPEG", "file that ends within its pixels", Code.TRUNCATED, {"first scan": 0.7, "before it": 0.2})
def cut(share: float) -> bytes:
    return UPRIGHT[: int(len(UPRIGHT) * share)]
