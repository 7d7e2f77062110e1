"""Compares the cost of a picture: our pipeline, naive Pillow, libvips (pyvips) and sharp, on the same pictures.

    make bench-media          (or: python -m bench.media.pictures [--pictures 4] [--rounds 3] [--only photographs])

Each way makes the deployed renditions (pictures.recipes.RECIPES, in their formats) and a blurhash
(bench/media/picture_ways.py, sharp.mjs) in its own process, which is warm and replaced each round; libvips and sharp
use one thread. The pictures are painted ones of 12 megapixels and real photographs (bench/media/photos). All ways
process a picture one after the other, in a new order each time, so that other load affects them equally. CPU is the
process's user and system time; ratios are medians of pairs, the same picture in the same round. Peak memory is that of
the whole process. SSIM is the mean over the renditions that show the whole picture.

At the same quality the ways differ in bytes and in SSIM. So each also runs with all qualities lower and higher, and its
bytes at our SSIM, and its SSIM at our bytes, are interpolated.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from math import exp, log
from pathlib import Path
from statistics import mean, median
from typing import Self

from rich.progress import track

from bench import tables
from bench.media.sources import painted
from bench.tables import ROOT
from pictures.recipes import RECIPES

PHOTOGRAPHS = sorted(Path(__file__).with_name("photos").glob("*.jpg"))
SHARP = ["node", str(Path(__file__).with_name("sharp.mjs"))]
GIVEN = json.dumps([asdict(recipe) for recipe in RECIPES])
SHIFTS = (0, -8, 8)
"""Added to every quality; the first is the one that is timed."""


def python(way: str, interpreter: str = sys.executable) -> list[str]:
    return [interpreter, "-m", "bench.media.picture_ways", way]


PEERS_PYTHON = str(ROOT / ".venv-bench" / "bin" / "python")
SHARP_MODULE = ROOT / ".local" / "bench-node" / "node_modules" / "sharp"

# Our process as the decoders' server sets it: otherwise glibc keeps a heap for each thread.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "VIPS_CONCURRENCY": "1"}


WAYS: dict[str, list[str]] = {
    "ours": python("ours"),
    "naive Pillow: copy and LANCZOS for each": python("naive"),
    "pyvips, one decode and a cascade": python("vips_best", PEERS_PYTHON),
    "pyvips, the same, and half the scale where that is nearly enough": python("vips_half", PEERS_PYTHON),
    "sharp, one decode and a cascade": [*SHARP, GIVEN],
}
OURS = "ours"


@dataclass
class Figures:
    """One way's figures: a value per picture and round, in the same order for all ways.

    `bytes` and `ssim` have a value per picture for each of SHIFTS.
    """

    cpu: list[float] = field(default_factory=list)
    peak: float = 0.0
    bytes: dict[int, list[int]] = field(default_factory=lambda: {shift: [] for shift in SHIFTS})
    ssim: dict[int, list[float]] = field(default_factory=lambda: {shift: [] for shift in SHIFTS})

    @property
    def kib(self) -> float:
        return mean(self.bytes[0]) / 1024

    @property
    def alike(self) -> float:
        return mean(self.ssim[0])

    def ratio(self, other: "Figures") -> float:
        """CPU relative to the other's: the median over the same pictures in the same rounds."""
        return median(mine / theirs for mine, theirs in zip(self.cpu, other.cpu, strict=True))

    def kib_at(self, ssim: float) -> float:
        """The KiB for an SSIM, interpolated from the two nearest shifts, or extrapolated."""
        return exp(_line(ssim, [(mean(self.ssim[shift]), log(mean(self.bytes[shift]) / 1024)) for shift in SHIFTS]))

    def ssim_at(self, kib: float) -> float:
        """The SSIM at this size."""
        points = [(log(mean(self.bytes[shift]) / 1024), mean(self.ssim[shift])) for shift in SHIFTS]
        return _line(log(kib), points)


def _line(x: float, points: list[tuple[float, float]]) -> float:
    low, middle, high = sorted(points)
    (x0, y0), (x1, y1) = (low, middle) if x < middle[0] else (middle, high)
    return y0 + (x - x0) * (y1 - y0) / (x1 - x0)


class Served:
    """The process of one way, kept warm for a round."""

    def __init__(self, way: str, command: list[str]) -> None:
        self._way = way
        pipe, environment = subprocess.PIPE, {**os.environ, **ENVIRONMENT}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.__exit__(None, None, None)  # closes its input, which ends it, and waits

    def ask(self, source: Path, keep: Path | None = None, shift: int = 0) -> dict[str, float]:
        """Renders one picture and returns the figures; writes its renditions into `keep`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        stdin.write(json.dumps({"path": str(source), "keep": keep and str(keep), "shift": shift}) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise SystemExit(f"{self._way} has ended with {self._process.wait()}")
        reply: dict[str, float] = json.loads(line)
        return reply


def measure(sources: list[Path], rounds: int) -> dict[str, Figures]:
    """Times each way, then compares the renditions of each at all qualities with their originals."""
    figures = {way: Figures() for way in WAYS}
    print(f"\n{len(sources)} pictures, {rounds} rounds")
    order = list(WAYS)
    for number in track(range(rounds), "Rounds", transient=True):
        # New processes each round: a process's speed depends on its memory layout for its whole life.
        with ExitStack() as stack:
            served = {way: stack.enter_context(Served(way, command)) for way, command in WAYS.items()}
            for way in WAYS:
                served[way].ask(sources[0])  # imports, caches, tables
            for at, source in enumerate(sources):
                random.Random(number * 100 + at).shuffle(order)
                for way in order:
                    reply = served[way].ask(source)
                    figures[way].cpu.append(reply["cpu"])
                    figures[way].peak = max(figures[way].peak, reply["peak"])
    with ExitStack() as stack:
        kept = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        served = {way: stack.enter_context(Served(way, command)) for way, command in WAYS.items()}
        for source in track(sources, "Qualities", transient=True):
            for at, way in enumerate(WAYS):
                for shift in SHIFTS:
                    folder = kept / source.stem / f"{at} {shift}"
                    folder.mkdir(parents=True)
                    figures[way].bytes[shift].append(int(served[way].ask(source, folder, shift)["bytes"]))
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=2))
        for compared in pool.map(lambda source: _compared(source, kept), sources):
            for at, way in enumerate(WAYS):
                for shift in SHIFTS:
                    figures[way].ssim[shift].append(compared[f"{at} {shift}"])
    return figures


def _compared(source: Path, kept: Path) -> dict[str, float]:
    """The mean SSIM of each folder's renditions."""
    folders = sorted((kept / source.stem).iterdir())
    names = [recipe.name for recipe in RECIPES if not recipe.square]
    files = [str(folder / name) for folder in folders for name in names]
    command = [sys.executable, "-m", "bench.media.ssim", str(source), *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    scores = [float(figure) for figure in done.stdout.split()]
    return {folder.name: mean(scores[at * len(names) :][: len(names)]) for at, folder in enumerate(folders)}


def table(figures: Mapping[str, Figures]) -> str:
    """The columns "at our SSIM" and "at our KiB" are interpolated to the quality at which the way matches ours."""
    ours = figures[OURS]
    header = ("way", "CPU ms", "x ours", "peak MB", "KiB out", "SSIM", "KiB at our SSIM", "SSIM at our KiB")
    rows = []
    for way, row in figures.items():
        same = row is ours
        rows.append(
            (
                f"**{way}**" if same else way,
                f"{median(row.cpu):.0f}",
                f"{row.ratio(ours):.2f}",
                f"{row.peak:.0f}",
                f"{row.kib:.0f}",
                f"{row.alike:.4f}",
                f"{row.kib if same else row.kib_at(ours.alike):.0f}",
                f"{row.alike if same else row.ssim_at(ours.kib):.4f}",
            )
        )
    return tables.markdown(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares the cost of a picture with Pillow, libvips and sharp.")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("painted", "photographs"))
    options = parser.parse_args()
    if missing := [str(path) for path in (Path(PEERS_PYTHON), SHARP_MODULE) if not path.exists()]:
        sys.exit(f"{' and '.join(missing)}: missing, `make bench-media` installs them")
    if options.only != "photographs":
        tables.show("pictures-painted", table(measure(painted(options.pictures), options.rounds)))
    if options.only != "painted":
        tables.show("pictures-photographs", table(measure(PHOTOGRAPHS, options.rounds)))


if __name__ == "__main__":
    main()
