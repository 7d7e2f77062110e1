"""Builders of the parts that no library writes on request: colour profiles, GPS data, files that lie about their size.

Shared by the sample media, the tests and the benchmarks. Everything is deterministic.
"""

import struct
import zlib
from io import BytesIO

from PIL import Image

# ICC profiles (ICC.1:2022), as small as colour management accepts them.

_D50 = (0.9642, 1.0, 0.8249)
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
"""The primaries of what phones record, as XYZ under D50."""

# Lab of the sixteen full overprints of a web offset press, in the order of the bits C, M, Y, K.
_OVERPRINTS = [
    (100, 0, 0), (16, 0, 0), (89, -5, 93), (14, 0, 10), (48, 74, -3), (9, 10, 0), (47, 68, 48), (8, 8, 5),
    (55, -37, -50), (10, -5, -8), (50, -65, 27), (9, -8, 4), (24, 22, -46), (7, 4, -8), (23, 0, 0), (5, 0, 0),
]  # fmt: skip


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _srgb_curve() -> bytes:
    return b"para\0\0\0\0\0\3\0\0" + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    name = b"Made for tests"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" + bytes(78),
        b"cprt": b"text\0\0\0\0Public domain\0",
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50),
        **tags,
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x04200000, kind, space, connection)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(*_D50)
    return header.ljust(128, b"\0") + table + body


def rgb_profile(primaries: tuple[tuple[float, float, float], ...] = DISPLAY_P3) -> bytes:
    """A display's profile with the given primaries and the tone curve of sRGB."""
    tags = {
        tag: b"XYZ \0\0\0\0" + _fixed(*xyz) for tag, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)
    }
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _srgb_curve()))


def grey_profile(gamma: float) -> bytes:
    """A grey scale with one power curve."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": b"para\0\0\0\0\0\0\0\0" + _fixed(gamma)})


def cmyk_profile() -> bytes:
    """A printing press, coarsely: the sixteen overprints of four inks, and straight lines between them."""
    ramp = bytes(range(256))
    grid = b"".join(bytes((round(lum * 2.55), a + 128, b + 128)) for lum, a, b in _OVERPRINTS)
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + ramp * 4 + grid + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


# Metadata


def exif(orientation: int = 1, latitude: tuple[float, float, float] | None = None) -> Image.Exif:
    """What a phone writes: a maker, an orientation, and the place in degrees, minutes and seconds where given."""
    data = Image.Exif()
    data[0x010F] = "Nexus Sample Works"
    data[0x0112] = orientation
    if latitude:
        data[0x8825] = {1: "N", 2: latitude, 3: "E", 4: (13.0, 22.0, 39.0), 29: "2026:11:22"}
    return data


# Files that lie


def png_chunk(name: bytes, data: bytes) -> bytes:
    """One PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb(width: int, height: int) -> bytes:
    """A whole and valid one-bit PNG of zeros: 50,000 x 50,000 pixels are 304 kB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    block = row * 500
    packed = [packer.compress(block) for _ in range(height // 500)]
    packed.append(packer.compress(row * (height % 500)))
    packed.append(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header), png_chunk(b"IDAT", b"".join(packed)), png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def scan_bomb(picture: Image.Image, scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are `scans`: each costs a pass over the picture."""
    out = BytesIO()
    picture.save(out, "JPEG", progressive=True, quality=50)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    have = data[data.index(b"\xff\xda") :].count(b"\xff\xda")
    return data[:-2] + data[last:-2] * (scans - have) + b"\xff\xd9"
