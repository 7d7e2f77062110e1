"""ICC profiles (ICC.1:2022, version 4) for colours that a file describes without a profile: cICP, nclx, gAMA, cHRM."""

import struct
from typing import Final

from colours.light import PRIMARIES, SRGB, Matrix, Triple, applied, to_xyz

_D50: Final[Triple] = (0.9642, 1.0, 0.8249)
_BRADFORD: Final[Matrix] = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_BRADFORD_BACK: Final[Matrix] = (
    (0.9869929, -0.1470543, 0.1599627),
    (0.4323053, 0.5183603, 0.0492912),
    (-0.0085287, 0.0400428, 0.9684867),
)
_POWERS: Final = {4: 2.2, 5: 2.8, 8: 1.0}


def of_code_points(primaries: int, transfer: int) -> bytes | None:
    """The profile for code points of ITU-T H.273; None if they are sRGB's, unknown, or a high dynamic range."""
    points = PRIMARIES.get(primaries if primaries != 2 else 1)
    if points is None or (transfer not in SRGB and transfer not in _POWERS):
        return None
    if primaries in (1, 2) and transfer in SRGB:
        return None
    return _rgb(points, _srgb_curve() if transfer in SRGB else _power(_POWERS[transfer]))


def of_gamma(gamma: float, points: tuple[float, ...] | None, *, grey: bool) -> bytes | None:
    """The profile for a PNG's gAMA, with its cHRM as x and y of white, red, green and blue.

    None if they are sRGB's or nonsense.
    """
    if not 0.1 <= gamma <= 10:
        return None
    exact = points is None or grey
    if exact and abs(gamma - 0.45455) < 0.005:
        return None
    curve = _power(1 / gamma)
    if grey:
        return _profile(b"GRAY", {b"kTRC": curve})
    try:
        return _rgb((*points[2:], *points[:2]) if points else PRIMARIES[1], curve)
    except (ZeroDivisionError, struct.error):
        return None


def _rgb(points: tuple[float, ...], curve: bytes) -> bytes:
    matrix = to_xyz(points)
    white = (points[6] / points[7], 1.0, (1 - points[6] - points[7]) / points[7])
    tags = {}
    for tag, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), zip(*matrix, strict=True), strict=True):
        tags[tag] = b"XYZ \0\0\0\0" + _fixed(*_adapted(column, white))
    return _profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def _adapted(colour: Triple, white: Triple) -> Triple:
    """A colour under one white as it looks under D50 (ICC.1, annex E)."""
    cone, source, target = (applied(_BRADFORD, vector) for vector in (colour, white, _D50))
    a, b, c = (value * to / of for value, of, to in zip(cone, source, target, strict=True))
    return applied(_BRADFORD_BACK, (a, b, c))


def _srgb_curve() -> bytes:
    return b"para\0\0\0\0\0\3\0\0" + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def _power(exponent: float) -> bytes:
    return b"para\0\0\0\0\0\0\0\0" + _fixed(exponent)


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _text(words: str) -> bytes:
    data = words.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"desc": _text("stated in the file"),
        b"cprt": _text("none"),
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50),
        **tags,
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"\0\0\0\0", 0x04400000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(*_D50)
    return header.ljust(128, b"\0") + table + body
