"""WebP (RIFF container, RFC 9649): canvas, frames, and the file without its metadata."""

import struct
from collections.abc import Iterator
from struct import unpack_from
from typing import Final

from pictures.exif import orientation_of
from pictures.formats import Format
from pictures.headers import Header, Source
from social.refusals import Code, Rejected

_PIXELS: Final = frozenset({b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"ANIM", b"ANMF"})
_NOTES: Final = frozenset({b"ICCP", b"EXIF"})
_KEPT_FLAGS: Final = 0x12  # alpha and animation; the others announce metadata
_LARGEST_PROFILE: Final = 4 << 20


def read(source: bytes) -> Source:
    """Raises Rejected, and struct.error or IndexError if the file ends within a field."""
    width = height = frames = 0
    animated = False
    kept: list[bytes] = []
    notes: dict[bytes, bytes] = {}
    for name, data in _chunks(source):
        if name == b"VP8X":
            animated = bool(data[0] & 0x02)
            width, height = (1 + int.from_bytes(data[4 + 3 * n : 7 + 3 * n], "little") for n in (0, 1))
            data = bytes([data[0] & _KEPT_FLAGS]) + data[1:]  # noqa: PLW2901
        elif name == b"ANMF":
            frames += 1
        elif name == b"VP8 " and not width:
            width, height = (side & 0x3FFF for side in unpack_from("<HH", data, 6))
        elif name == b"VP8L" and not width:
            (bits,) = unpack_from("<I", data, 1)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        if name in _PIXELS:
            kept.append(name + struct.pack("<I", len(data)) + data + bytes(len(data) & 1))
        elif name in _NOTES:
            notes.setdefault(name, data)
    (size,) = unpack_from("<I", source, 4)
    if animated and size + 8 > len(source):
        raise Rejected(Code.TRUNCATED, f"the animated WebP file declares {size + 8} bytes and has {len(source)}")
    if not kept or not width:
        raise Rejected(Code.TRUNCATED, "the WebP file ends before its pixels")
    body = b"WEBP" + b"".join(kept)
    profile = notes.get(b"ICCP", b"")
    return Source(
        Header(Format.WEBP, width, height, frames=max(1, frames) if animated else 1),
        b"RIFF" + struct.pack("<I", len(body)) + body,
        orientation=orientation_of(notes.get(b"EXIF", b"")),
        profile=profile if 0 < len(profile) <= _LARGEST_PROFILE else None,
    )


def _chunks(source: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields (name, data). Skips truncated metadata; raises Rejected for truncated pixels."""
    (size,) = unpack_from("<I", source, 4)
    at, end = 12, min(size + 8, len(source))
    while at + 8 <= end:
        name = source[at : at + 4]
        (length,) = unpack_from("<I", source, at + 4)
        data = source[at + 8 : at + 8 + length]
        if len(data) == length:
            yield name, data
        elif name in _PIXELS:
            raise Rejected(Code.TRUNCATED, f"the WebP file ends within its chunk {name!r}")
        at += 8 + length + (length & 1)
