"""Builds HEIF files (ISO/IEC 14496-12 and 23008-12) around encoded pictures, box by box."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from io import BytesIO
from itertools import pairwise
from typing import Any, Final

import av
import numpy as np
import pyvips
from PIL import Image

type Plane = np.ndarray[Any, np.dtype[Any]]

_ESSENTIAL: Final = frozenset({b"av1C", b"hvcC", b"clap", b"irot", b"imir", b"lsel", b"a1op"})


def box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), name) + body


def full(name: bytes, version: int, flags: int, *content: bytes) -> bytes:
    return box(name, struct.pack(">I", version << 24 | flags), *content)


@dataclass
class Item:
    """`properties` are boxes, in the order in which they are to be applied; `refs` go to other items' numbers."""

    kind: bytes
    data: bytes
    properties: Sequence[bytes] = ()
    refs: Mapping[bytes, Sequence[int]] = field(default_factory=dict)
    hidden: bool = False
    beyond: int = 0
    """The number of bytes by which the index overstates its size."""


def heif(
    items: Sequence[Item],
    major: bytes = b"heic",
    brands: Sequence[bytes] = (b"mif1", b"miaf"),
    *,
    primary: int = 1,
    version: int = 0,
    inside: bool = False,
    extents: int = 1,
    meta: bytes = b"",
    between: bytes = b"",
    behind: bytes = b"",
) -> bytes:
    """Items are numbered from 1 on. `version` of their locations; `inside` puts the data into the index (idat).

    meta: more boxes of the index; between and behind: before and after the data.
    """

    def index(start: int) -> bytes:
        infos = b"".join(
            full(
                b"infe",
                2,
                item.hidden,
                struct.pack(">HH4s", number, 0, item.kind),
                b"\0",
                b"x\0" * (item.kind == b"mime"),
            )
            for number, item in enumerate(items, 1)
        )
        boxes = [
            full(b"hdlr", 0, 0, bytes(4), b"pict", bytes(13)),
            full(b"pitm", 0, 0, struct.pack(">H", primary)),
            _locations(items, version, 0 if inside else start, extents, inside=inside),
            full(b"iinf", 0, 0, struct.pack(">H", len(items)), infos),
            box(b"iprp", *_properties(items)),
            meta,
        ]
        refs = [
            box(kind, struct.pack(f">HH{len(to)}H", number, len(to), *to))
            for number, item in enumerate(items, 1)
            for kind, to in item.refs.items()
        ]
        boxes += [full(b"iref", 0, 0, *refs)] if refs else []
        boxes += [box(b"idat", *(item.data for item in items))] if inside else []
        return full(b"meta", 0, 0, *boxes)

    head = box(b"ftyp", major, bytes(4), major, *brands)
    start = len(head) + len(index(0)) + len(between) + 8
    return head + index(start) + between + (b"" if inside else box(b"mdat", *(item.data for item in items))) + behind


def _locations(items: Sequence[Item], version: int, start: int, extents: int, *, inside: bool) -> bytes:
    version = max(version, int(inside))
    rows = b""
    for number, item in enumerate(items, 1):
        size = len(item.data) + item.beyond
        pieces = [size * n // extents for n in range(extents + 1)]
        rows += struct.pack(">I" if version == 2 else ">H", number) + (
            struct.pack(">H", int(inside)) if version else b""
        )
        rows += struct.pack(">HH", 0, extents)
        rows += b"".join(struct.pack(">II", start + a, b - a) for a, b in pairwise(pieces))
        start += len(item.data)
    count = struct.pack(">I" if version == 2 else ">H", len(items))
    return full(b"iloc", version, 0, b"\x44\0", count, rows)


def _properties(items: Sequence[Item]) -> tuple[bytes, bytes]:
    known: list[bytes] = []
    table = b""
    for number, item in enumerate(items, 1):
        table += struct.pack(">HB", number, len(item.properties))
        for one in item.properties:
            if one not in known:
                known.append(one)
            table += bytes([known.index(one) + 1 | 0x80 * (one[4:8] in _ESSENTIAL)])
    return box(b"ipco", *known), full(b"ipma", 0, 0, struct.pack(">I", len(items)), table)


# Properties


def ispe(wide: int, high: int) -> bytes:
    return full(b"ispe", 0, 0, struct.pack(">II", wide, high))


def nclx(primaries: int, transfer: int, matrix: int, *, full_range: bool = True) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, 0x80 * full_range))


def prof(profile: bytes) -> bytes:
    return box(b"colr", b"prof", profile)


def irot(quarter_turns_left: int) -> bytes:
    return box(b"irot", bytes([quarter_turns_left]))


def imir(axis: int) -> bytes:
    """0 mirrors top to bottom, 1 left to right."""
    return box(b"imir", bytes([axis]))


def clap(wide: Fraction | int, high: Fraction | int, right: Fraction | int = 0, down: Fraction | int = 0) -> bytes:
    """The size, and the offset of its centre from the picture's."""
    numbers = [part for value in (wide, high, right, down) for part in Fraction(value).as_integer_ratio()]
    return box(b"clap", struct.pack(">IIIIiIiI", *numbers))


def auxc(urn: bytes) -> bytes:
    return full(b"auxC", 0, 0, urn + b"\0")


def grid(rows: int, columns: int, wide: int, high: int) -> bytes:
    return bytes([0, 0, rows - 1, columns - 1]) + struct.pack(">HH", wide, high)


def overlay(wide: int, high: int, *places: tuple[int, int], fill: tuple[int, int, int, int] = (0, 0, 0, 0)) -> bytes:
    return b"\0\0" + struct.pack(">4HHH", *fill, wide, high) + b"".join(struct.pack(">hh", *place) for place in places)


# Encoded pictures


def found(file: bytes, name: bytes) -> bytes:
    """The first box of a name, whole."""
    at = file.index(name) - 4
    return file[at : at + int.from_bytes(file[at : at + 4])]


def hevc(planes: Sequence[Plane], layout: str, **context: int) -> tuple[bytes, bytes]:
    """Losslessly: the configuration (hvcC) and the data. `layout` is FFmpeg's name of it; sides of 16 at least."""
    out, (high, wide) = BytesIO(), planes[0].shape
    with av.open(out, "w", format="mp4") as container:
        options = {"preset": "ultrafast", "x265-params": "lossless=1:log-level=none:bframes=0:info=0"}
        stream = container.add_stream("libx265", 25, options)
        stream.width, stream.height, stream.pix_fmt = wide, high, layout
        frame = av.VideoFrame(wide, high, layout)
        for where in (stream.codec_context, frame):
            for name, value in context.items():
                setattr(where, name, value)
        for plane, samples in zip(frame.planes, planes, strict=True):
            rows = samples.astype("<u2" if layout.endswith("le") else "u1")
            plane.update(b"".join(row.tobytes().ljust(plane.line_size, b"\0") for row in rows))
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file = out.getvalue()
    return found(file, b"hvcC"), found(file, b"mdat")[8:]


@cache
def av1(
    pixels: bytes, wide: int, high: int, subsampling: str = "4:4:4", *, full_range: bool = True
) -> tuple[bytes, bytes]:
    """RGB nearly losslessly, with BT.601's matrix: the configuration (av1C) and the data."""
    out, picture = BytesIO(), Image.frombytes("RGB", (wide, high), pixels)
    where = "full" if full_range else "limited"
    picture.save(out, "AVIF", quality=100, speed=9, subsampling=subsampling, range=where)
    return found(out.getvalue(), b"av1C"), found(out.getvalue(), b"mdat")[8:]


def deep_avif(pixels: Plane, bits: int, subsampling: str) -> bytes:
    """A file by libvips of RGB with 10 or 12 bits, given in 16."""
    picture = pyvips.Image.new_from_array(pixels.astype(np.uint16), interpretation="rgb16")
    return bytes(picture.heifsave_buffer(compression="av1", bitdepth=bits, Q=100, effort=0, subsample_mode=subsampling))
