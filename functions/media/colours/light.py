"""Converts wide-gamut or high-dynamic-range codes to those of an ordinary screen, as a 3D lookup table.

The code points are those of ITU-T H.273, which AVIF, HEIC, PNG (cICP) and every video codec use. A screen's white is
203 cd/m2, the reference white of ITU-R BT.2408: light below the knee is unchanged, and brighter light is
rolled off by the EETF of ITU-R BT.2390 (5.4.1) instead of being clipped. It is applied to the brightest of red, green
and blue, and the others follow in proportion, so that hues stay.
"""

from collections.abc import Callable, Iterator
from functools import cache
from math import exp
from typing import Final

PQ: Final = 16
HLG: Final = 18
HDR: Final = frozenset({PQ, HLG})
SRGB: Final = frozenset({1, 6, 13, 14, 15})
"""Transfer functions that screens show with one curve: BT.709's, BT.601's, sRGB's and BT.2020's."""
BT709: Final = 1
BT2020: Final = 9

_WIDE: Final = frozenset({BT2020, 11, 12})
"""BT.2020's primaries and P3's. Those of older televisions are close to BT.709's."""

WHITE: Final = 203.0
"""cd/m2"""
PEAK: Final = 1000.0
"""The peak brightness of masters and of HLG's nominal display (BT.2100), in cd/m2."""
_D65: Final = (0.3127, 0.3290)

PRIMARIES: Final[dict[int, tuple[float, ...]]] = {
    # x and y of red, green, blue and white
    1: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_D65),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *_D65),
    6: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, *_D65),
    7: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, *_D65),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),
}

type Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
type Triple = tuple[float, float, float]

_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_HLG_LUMA: Final = (0.2627, 0.6780, 0.0593)


def is_wide(transfer: int, primaries: int) -> bool:
    """Whether the codes must be converted for an ordinary screen: the source's light or colours exceed its range."""
    return transfer in HDR or primaries in _WIDE


def pq_light(code: float) -> float:
    """cd/m2 of a PQ code from 0 to 1 (BT.2100, table 4)."""
    power = code ** (1 / _M2)
    return float(10_000 * (max(0.0, power - _C1) / (_C2 - _C3 * power)) ** (1 / _M1))


def pq_code(light: float) -> float:
    """The PQ code, 0 to 1, of cd/m2."""
    power = (light / 10_000) ** _M1
    return float(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)


def hlg_scene(code: float) -> float:
    """The scene light, 0 to 1, of an HLG code (BT.2100, table 5)."""
    return code * code / 3 if code <= 0.5 else (exp((code - _C) / _A) + _B) / 12


def roll_off(light: float, transfer: int) -> float:
    """The light on a screen of WHITE, both in cd/m2: BT.2390's EETF, extended for PQ above PEAK."""
    # HLG ends at PEAK; for PQ the top 6% of the screen's light is reserved for masters above it.
    white = pq_code(WHITE if transfer == HLG else 0.94 * WHITE)
    code, peak = pq_code(light), pq_code(PEAK)
    if code > peak:
        return pq_light(white + (code - peak) / (1 - peak) * (pq_code(WHITE) - white))
    code, top = code / peak, white / peak
    knee = 1.5 * top - 0.5
    if code < knee:
        return light
    t = (code - knee) / (1 - knee)
    hermite = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    return pq_light(hermite * peak)


def screen_code(light: float) -> float:
    """The code of a television, 0 to 1, for its light (BT.1886)."""
    return float(light ** (1 / 2.4))


def srgb_code(light: float) -> float:
    """The code of a monitor, 0 to 1, for its light (IEC 61966-2-1)."""
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def cube(transfer: int, primaries: int, side: int, encode: Callable[[float], float]) -> Iterator[Triple]:
    """Yields side x side x side colours, 0 to 1 under BT.709's primaries: red changes fastest, then green.

    Args:
        transfer: PQ, HLG, or anything else for an ordinary curve, where only the primaries are converted.
    """
    codes = [step / (side - 1) for step in range(side)]
    convert = between(primaries, BT709)
    if transfer == PQ:
        axis = [pq_light(code) / WHITE for code in codes]
    elif transfer == HLG:
        axis = [hlg_scene(code) for code in codes]
    else:
        axis = [code**2.4 for code in codes]
    luma = _HLG_LUMA if primaries == BT2020 else to_xyz(PRIMARIES[primaries])[1]
    curve = cache(lambda light: roll_off(WHITE * light, transfer) / WHITE / light if light else 1.0)
    for blue in axis:
        for green in axis:
            for red in axis:
                scale = 1.0
                if transfer == HLG:  # the system gamma of a display of 1,000 cd/m2
                    brightness = luma[0] * red + luma[1] * green + luma[2] * blue
                    scale = brightness**0.2 * PEAK / WHITE
                if transfer in HDR:
                    scale *= curve(round(scale * max(red, green, blue), 5))
                lights = (red * scale, green * scale, blue * scale)
                r, g, b = (
                    encode(min(1.0, max(0.0, row[0] * lights[0] + row[1] * lights[1] + row[2] * lights[2])))
                    for row in convert
                )
                yield r, g, b


@cache
def between(source: int, target: int) -> Matrix:
    """The matrix from linear light under one set of primaries to another with the same white."""
    return _product(_inverse(to_xyz(PRIMARIES[target])), to_xyz(PRIMARIES[source]))


def to_xyz(points: tuple[float, ...]) -> Matrix:
    """The matrix from linear RGB to CIE XYZ, from eight numbers: x and y of red, green, blue and white.

    Raises ZeroDivisionError if the points do not span a triangle.
    """
    (xr, yr, xg, yg, xb, yb, xw, yw) = points
    columns = [(x / y, 1.0, (1 - x - y) / y) for x, y in ((xr, yr), (xg, yg), (xb, yb))]
    plain: Matrix = tuple(zip(*columns, strict=True))  # type: ignore[assignment]
    white = (xw / yw, 1.0, (1 - xw - yw) / yw)
    strength = applied(_inverse(plain), white)
    rows = [tuple(value * part for value, part in zip(row, strength, strict=True)) for row in plain]
    return tuple(rows)  # type: ignore[return-value]


def applied(matrix: Matrix, vector: Triple) -> Triple:
    """matrix x vector"""
    a, b, c = (row[0] * vector[0] + row[1] * vector[1] + row[2] * vector[2] for row in matrix)
    return a, b, c


def _product(one: Matrix, other: Matrix) -> Matrix:
    columns = [applied(one, column) for column in zip(*other, strict=True)]
    return tuple(zip(*columns, strict=True))  # type: ignore[return-value]


def _inverse(matrix: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return (
        ((e * i - f * h) / det, (c * h - b * i) / det, (b * f - c * e) / det),
        ((f * g - d * i) / det, (a * i - c * g) / det, (c * d - a * f) / det),
        ((d * h - e * g) / det, (b * g - a * h) / det, (a * e - b * d) / det),
    )
