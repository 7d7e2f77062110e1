"""Computes expected pictures independently of our code: with libvips, and the specifications' formulas in numpy."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyvips

type Pixels = np.ndarray[Any, np.dtype[Any]]
"""Height x width x 3 or 4 of 8 bits; the fourth is the opacity."""


@dataclass(frozen=True)
class Film:
    """An animation: frames, how many milliseconds each is shown, and how often all are (0 is forever)."""

    frames: Sequence[Pixels]
    milliseconds: Sequence[int]
    plays: int = 0


def by_vips(upload: bytes, **options: Any) -> Pixels:
    """The picture by libvips: upright, in sRGB."""
    image = pyvips.Image.new_from_buffer(upload, "", **options).autorot()
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="perceptual")
    return np.asarray(image.colourspace("srgb").cast("uchar").numpy())


def film_by_vips(upload: bytes) -> Film:
    """The animation by libvips: each frame as a viewer sees it."""
    image = pyvips.Image.new_from_buffer(upload, "", n=-1)
    high = image.get("page-height")
    pixels = image.colourspace("srgb").numpy()
    frames = [pixels[top : top + high] for top in range(0, image.height, high)]
    return Film(frames, image.get("delay"), image.get("loop"))


def turned(stored: Pixels, orientation: int) -> Pixels:
    """Stored pixels as a viewer sees them (Exif 3.0, tag 274: the positions of the first row and column)."""
    across = stored.swapaxes(0, 1)
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: across,
        6: across[:, ::-1],
        7: across[::-1, ::-1],
        8: across[::-1],
    }[orientation]


def quarters(wide: int = 32, high: int = 24) -> Pixels:
    """Red and green over blue and yellow, so that every rotation and mirroring differs."""
    pixels = np.empty((high, wide, 3), np.uint8)
    pixels[: high // 2, : wide // 2], pixels[: high // 2, wide // 2 :] = (220, 30, 30), (30, 180, 60)
    pixels[high // 2 :, : wide // 2], pixels[high // 2 :, wide // 2 :] = (40, 60, 210), (230, 210, 40)
    return pixels


def srgb(light: Pixels) -> Pixels:
    """Linear light, 0 to 1, to 8 bits of sRGB (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    return (255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).round()


def linear(codes: Pixels) -> Pixels:
    """sRGB codes, 0 to 1, to linear light."""
    return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def between(primaries: Sequence[float]) -> Pixels:
    """The matrix from linear light under primaries (x and y of red, green, blue and white) to BT.709's, D65 kept."""

    def to_xyz(numbers: Sequence[float]) -> Pixels:
        xy = np.array(numbers).reshape(4, 2)
        xyz = np.column_stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(axis=1)) / xy[:, 1]])
        return xyz[:3].T * np.linalg.solve(xyz[:3].T, xyz[3])

    return np.linalg.inv(to_xyz(BT709)) @ to_xyz(primaries)


BT709: Final = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
DISPLAY_P3: Final = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290)
BT2020: Final = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290)


def shown_as(codes: Pixels, primaries: Sequence[float], light: Callable[[Pixels], Pixels]) -> Pixels:
    """8-bit pixels with these primaries and this curve, as sRGB."""
    return srgb(light(codes / 255.0) @ between(primaries).T)


def played(frames: Iterable[tuple[Any, ...]], size: tuple[int, int]) -> list[Pixels]:
    """Composes frames of (pixels, (left, top), ..., disposal, blending) on a canvas, as APNG and WebP define it.

    disposal: 1 clears the place, 2 restores what was there before. blending: 1 puts the frame over it.
    """
    canvas = np.zeros((*size, 4))
    shown = []
    for number, (pixels, (left, top), *_, disposal, blending) in enumerate(frames):
        before = canvas.copy()
        place = canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        new = pixels.astype(float)
        if blending:
            over, under = new[:, :, 3:] / 255, place[:, :, 3:] / 255
            opacity = over + under * (1 - over)
            mixed = (new[:, :, :3] * over + place[:, :, :3] * under * (1 - over)) / np.maximum(opacity, 1e-9)
            new = np.dstack([mixed, 255 * opacity])
        place[:] = new
        shown.append(canvas.copy())
        if disposal == 1 or (disposal == 2 and number == 0):
            place[:] = 0
        elif disposal == 2:
            canvas = before
    return shown


def dynamic(codes: Pixels, transfer: int, primaries: Sequence[float]) -> Pixels:
    """The linear light under BT.709's primaries of HLG (18) or PQ (16) codes, 0 to 1 (BT.2100), where 203 cd/m2 are 1.

    A viewer shows light above 90 cd/m2 differently, since its screen does not reach it.
    """
    if transfer == 18:
        scene = np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        light = 1000 * scene * (scene @ (0.2627, 0.6780, 0.0593))[:, :, None] ** 0.2
    else:
        power = codes ** (32 / 2523)
        light = 10_000 * (np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)
    assert light.max() < 92
    return np.asarray(np.clip(light @ between(primaries).T / 203, 0, 1))
