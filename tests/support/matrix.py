"""The matrix of formats and features: a file of each kind, what must come out of it, and the table that says so.

A feature is one row of the table in docs/media.md. It names the function that makes its files, one for each of its
cases, each with what an independent reference says of it: another library, or a computation of the specification's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import product
from typing import Any, Final

import numpy as np
import pyvips
from PIL import Image

from pictures.recipes import Recipe
from pictures.rendering import render
from social.refusals import Code, Rejected, sentence

type Pixels = np.ndarray[Any, np.dtype[Any]]
"""Height x width x 3 or 4 of 8 bits; the fourth is the opacity."""

VIPS: Final = "libvips"
COMPUTED: Final = "computed"


@dataclass(frozen=True)
class Film:
    """An animation: frames, how many milliseconds each is shown, and how often all are (0 for ever)."""

    frames: Sequence[Pixels]
    milliseconds: Sequence[int]
    plays: int = 0


@dataclass(frozen=True, repr=False)
class Feature:
    """One row. `make` gives a file and what must come out; of a feature that is refused, `outcome` is the code.

    within: how far any channel may be off. edges: how many pixels beside an edge are not compared, where the format
    itself mixes neighbours.
    """

    format: str
    name: str
    outcome: str | Code
    make: Callable[..., Any]
    cases: Mapping[str, tuple[Any, ...]]
    reference: str = COMPUTED
    within: int = 2
    edges: int = 0
    told: str = ""
    """The cases in words, where there are too many to name."""

    def row(self) -> str:
        refused = isinstance(self.outcome, Code)
        comes = f"refused, `{self.outcome}`: {sentence(self.outcome)}" if refused else self.outcome
        held = "" if refused else f"{self.reference}, {self.within}"
        return (
            f"| {self.format} | {self.name} | {self.told or ', '.join(filter(None, self.cases))} | {comes} | {held} |"
        )


@dataclass
class Matrix:
    """The rows of one family of formats."""

    features: list[Feature] = field(default_factory=list)

    def feature(
        self, format_: str, name: str, outcome: str | Code, cases: Any = ("",), **how: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Adds the decorated maker. `cases`: names, which the maker gets; or names and the maker's arguments."""
        named = cases if isinstance(cases, Mapping) else {case: (case,) if case else () for case in cases}

        def add(make: Callable[..., Any]) -> Callable[..., Any]:
            self.features.append(Feature(format_, name, outcome, make, named, **how))
            return make

        return add


def each(*choices: Sequence[Any]) -> dict[str, tuple[Any, ...]]:
    """Every combination of the choices, by its words."""
    return {" ".join(map(str, picked)): picked for picked in product(*choices)}


def pictured(upload: bytes) -> Pixels | Film | Code:
    """What the pictures' pipeline makes of a file, when what it writes is encoded without loss."""
    try:
        made = render(upload, recipes=(Recipe("full", 2048, 2048),))
    except Rejected as refused:
        return refused.code
    image = Image.open(BytesIO(made.renditions[-1].data))
    if made.kind == "image":
        return np.asarray(image)
    frames, shown = [], []
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        frames.append(np.asarray(image.convert("RGBA")))
        shown.append(round(image.info["duration"]))
    return Film(frames, shown, int(image.info["loop"]))


def by_vips(upload: bytes, **options: Any) -> Pixels:
    """The picture by libvips: upright, in sRGB."""
    image = pyvips.Image.new_from_buffer(upload, "", **options).autorot()
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="perceptual")
    return np.asarray(image.colourspace("srgb").cast("uchar").numpy())


def film_by_vips(upload: bytes) -> Film:
    """The animation by libvips: each frame as its canvas is to be seen."""
    image = pyvips.Image.new_from_buffer(upload, "", n=-1)
    high = image.get("page-height")
    pixels = image.colourspace("srgb").numpy()
    frames = [pixels[top : top + high] for top in range(0, image.height, high)]
    return Film(frames, image.get("delay"), image.get("loop"))


def off(seen: Pixels, wanted: Pixels, edges: int = 0) -> float:
    """The largest difference of any channel, both premultiplied by their opacity."""
    assert seen.shape[:2] == wanted.shape[:2], f"{seen.shape} instead of {wanted.shape}"
    one, other = _premultiplied(seen), _premultiplied(wanted)
    away = np.abs(one - other).max(axis=2)
    if edges:
        around = np.pad(other, ((edges, edges), (edges, edges), (0, 0)), mode="edge")
        high, wide = away.shape
        shifts = [around[y : y + high, x : x + wide] for y in range(2 * edges + 1) for x in range(2 * edges + 1)]
        away = away[(np.max(shifts, axis=0) - np.min(shifts, axis=0)).max(axis=2) < 24]
        assert away.size, "nothing is left to compare"
    return float(away.max())


def _premultiplied(pixels: Pixels) -> Pixels:
    deep = pixels.astype(np.float64)
    if deep.ndim == 2:
        deep = deep[:, :, None]
    if deep.shape[2] in (2, 4):
        deep[:, :, :-1] *= deep[:, :, -1:] / 255
        return deep if deep.shape[2] == 4 else deep[:, :, [0, 0, 0, 1]]
    colours = deep if deep.shape[2] == 3 else deep.repeat(3, axis=2)
    return np.dstack([colours, np.full(deep.shape[:2], 255.0)])


def turned(stored: Pixels, orientation: int) -> Pixels:
    """What is seen of stored pixels (Exif 3.0, tag 274): where their first row and their first column stand."""
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
    """Red and green over blue and yellow: every turn and mirroring of it differs."""
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
    """8 bits under primaries and a curve, as sRGB."""
    return srgb(light(codes / 255.0) @ between(primaries).T)
