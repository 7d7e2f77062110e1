"""Where a picture's CPU time goes: our pipeline by stages, on the pictures of bench/media/pictures.py.

    python -m bench.media.picture_stages [--rounds 5]

The pipeline runs as it is, with a clock around its steps: each one's processor time in its own thread, without the
steps inside it. The figures are medians over the rounds, and then means over the pictures.
"""

import argparse
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any
from unittest.mock import patch

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from bench import tables
from bench.media.pictures import PHOTOGRAPHS
from bench.media.sources import painted
from pictures import rendering
from pictures.recipes import RECIPES, Recipe


def encoding(_: Any, recipe: Recipe) -> str:
    return f"`{recipe.name}` as {recipe.encoding}"


STEPS: list[tuple[str | Callable[..., str], Any, str]] = [
    ("header", rendering, "admit"),
    ("decode", JpegImageFile, "load"),
    ("resizes", Image.Image, "resize"),
    ("orientation", Image.Image, "transpose"),
    ("colour profile", rendering, "to_srgb"),
    ("placeholder and colour", rendering, "blurhash"),
    ("placeholder and colour", rendering, "dominant_colour"),
    (encoding, rendering, "_encode"),
]
"""A step's name, or what gives it from the arguments, and the function."""
REST = "everything else"


class Clock:
    """Milliseconds of processor time by step."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._inside = threading.local()

    def around(self, step: str | Callable[..., str], work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            outer = getattr(self._inside, "spent", 0.0)
            self._inside.spent, began = 0.0, time.thread_time()
            try:
                return work(*args, **options)
            finally:
                spent = (time.thread_time() - began) * 1000
                self.spent[step if isinstance(step, str) else step(*args)] += spent - self._inside.spent
                self._inside.spent = outer + spent

        return timed


def stages(upload: bytes) -> dict[str, float]:
    clock = Clock()
    patches = [patch.object(owner, name, clock.around(step, getattr(owner, name))) for step, owner, name in STEPS]
    for each in patches:
        each.start()
    try:
        began = time.process_time()
        rendering.render(upload)
        total = (time.process_time() - began) * 1000
    finally:
        for each in patches:
            each.stop()
    return {**clock.spent, REST: total - sum(clock.spent.values())}


def measured(sources: list[Path], rounds: int) -> dict[str, float]:
    """Milliseconds by step: the mean over the pictures of each one's median."""
    pictures = []
    for source in sources:
        upload = source.read_bytes()
        stages(upload)  # imports, caches, tables
        taken = [stages(upload) for _ in range(rounds)]
        pictures.append({step: median(one[step] for one in taken) for step in taken[0]})
    return {step: mean(picture.get(step, 0.0) for picture in pictures) for step in set().union(*pictures)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Where a picture's CPU time goes.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    columns = [measured(sources, rounds) for sources in (painted(4), PHOTOGRAPHS)]
    order = [*dict.fromkeys(step for step, _, _ in STEPS if isinstance(step, str))]
    order += [*(encoding(None, recipe) for recipe in RECIPES), REST]
    rows = [[step, *(f"{taken.get(step, 0):.0f}" for taken in columns)] for step in order]
    rows.append(["**all**", *(f"**{sum(taken.values()):.0f}**" for taken in columns)])
    tables.show("pictures-stages", tables.markdown(("CPU ms", "painted", "photographs"), rows))


if __name__ == "__main__":
    main()
