"""The matrix of formats and features: a file of each kind, its expected result, and the table in the docs.

A feature is one row of the table in docs/media.md. It names the function that makes its files, one for each of its
cases, each with what an independent reference says of it: another library, or a computation of the specification's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import product
from typing import Any, Final

import numpy as np
from PIL import Image

from pictures.recipes import Recipe
from pictures.rendering import render
from social.refusals import Code, Rejected, sentence
from tests.support.reference import Film, Pixels

VIPS: Final = "libvips"
COMPUTED: Final = "computed"


@dataclass(frozen=True, repr=False)
class Feature:
    """One row. `make` returns a file and its expected result; for a refused feature, `outcome` is the code.

    within: how far any channel may be off. edges: how many pixels beside an edge are not compared, where the format
    itself mixes neighbours.
    """

    format: str
    name: str
    outcome: str | Code
    make: Callable[..., Any]
    cases: Mapping[str, tuple[Any, ...]]
    within: int
    edges: int
    reference: str = COMPUTED
    detail: str = ""
    """A description of the cases, if there are too many to name."""

    def row(self) -> str:
        refused = isinstance(self.outcome, Code)
        comes = f"refused, `{self.outcome}`: {sentence(self.outcome)}" if refused else self.outcome
        held = "" if refused else f"{self.reference}, {self.within}"
        return (
            f"| {self.format} | {self.name} | {self.detail or ', '.join(filter(None, self.cases))} | {comes} | {held} |"
        )


@dataclass
class Matrix:
    """The rows of one family of formats, with the tolerance of most of them."""

    within: int = 2
    edges: int = 0
    features: list[Feature] = field(default_factory=list)

    def feature(
        self, format_: str, name: str, outcome: str | Code, cases: Any = ("",), **how: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Adds the decorated maker. `cases`: names, which the maker gets; or names and the maker's arguments."""
        named = cases if isinstance(cases, Mapping) else {str(case): case or () for case in cases}
        named = {case: given if isinstance(given, tuple) else (given,) for case, given in named.items()}

        tolerated = {"within": self.within, "edges": self.edges, **how}

        def add(make: Callable[..., Any]) -> Callable[..., Any]:
            self.features.append(Feature(format_, name, outcome, make, named, **tolerated))
            return make

        return add


def each(*choices: Iterable[Any]) -> dict[str, tuple[Any, ...]]:
    """Every combination of the choices, by name."""
    return {" ".join(map(str, picked)): picked for picked in product(*choices)}


def pictured(upload: bytes) -> Pixels | Film | Code:
    """The picture that the pipeline makes from a file, with lossless encoders."""
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
