"""What a picture costs: our pipeline beside naive Pillow, libvips (pyvips) and sharp, on the same pictures in one run.

    make bench-media          (or: python -m bench.media.pictures [--pictures 20] [--rounds 5] [--plain])

Every way makes four WebP renditions and a blurhash from a 12-megapixel JPEG (bench/media/picture_ways.py, sharp.mjs),
in a process of its own, warm, and a new one each round. Every picture goes through all ways in turn, in a new order
each time, so that what else the machine does hits them alike. CPU is user and system time of the process, threads
included; ratios are medians of pairs, the same picture in the same round. Peak memory is the whole process's, SSIM is
of the 1080 rendition. Only the ratios travel to another machine.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Self

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / ".local" / "bench" / "pictures"
PEERS = ROOT / ".venv-bench"
PYVIPS = PEERS / "lib" / "python3.13" / "site-packages" / "pyvips"
SHARP_MODULE = ROOT / ".local" / "bench-node" / "node_modules" / "sharp"
SHARP = str(Path(__file__).with_name("sharp.mjs"))


def python(way: str, interpreter: str = sys.executable) -> list[str]:
    return [interpreter, "-m", "bench.media.picture_ways", way]


# As template.yaml sets it for the function: glibc would give each encoder's thread a heap of its own to keep.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}


WAYS: dict[str, list[str]] = {
    "ours": python("ours"),
    "naive Pillow: copy and LANCZOS for each": python("naive"),
    "pyvips, a thumbnail call a size (usual)": python("vips_usual", str(PEERS / "bin" / "python")),
    "pyvips, one decode and a cascade (best)": python("vips_best", str(PEERS / "bin" / "python")),
    "sharp, a pipeline a size (usual)": ["node", SHARP, "usual"],
    "sharp, one decode and a cascade (best)": ["node", SHARP, "best"],
}
OURS, NAIVE, VIPS_USUAL, VIPS_BEST, SHARP_USUAL, SHARP_BEST = WAYS


@dataclass
class Figures:
    """One way's figures: a value per picture and round, in the same order for all ways; SSIM once per picture."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    peak: float = 0.0
    ssim: list[float] = field(default_factory=list)

    @property
    def kib(self) -> float:
        return sum(self.bytes) / len(self.bytes) / 1024

    @property
    def alike(self) -> float:
        return sum(self.ssim) / len(self.ssim)

    def ratio(self, other: "Figures") -> float:
        """CPU relative to the other's: the median over the same pictures in the same rounds."""
        return median(mine / theirs for mine, theirs in zip(self.cpu, other.cpu, strict=True))

    def spread(self, other: "Figures", pictures: int) -> tuple[float, float]:
        """The lowest and the highest of the rounds' own ratios."""
        rounds = [
            median(a / b for a, b in zip(self.cpu[at : at + pictures], other.cpu[at : at + pictures], strict=True))
            for at in range(0, len(self.cpu), pictures)
        ]
        return min(rounds), max(rounds)


@dataclass(frozen=True)
class Reach:
    """A target: a figure of the run, and its bound."""

    what: str
    figure: Callable[[Mapping[str, Figures]], float]
    bound: float
    at_least: bool = False

    def kept(self, figure: float) -> bool:
        return figure >= self.bound if self.at_least else figure <= self.bound


REACHES = (
    Reach("naive Pillow's CPU, in units of ours", lambda f: f[NAIVE].ratio(f[OURS]), 4.5, at_least=True),
    Reach("pyvips as usually called, CPU in units of ours", lambda f: f[VIPS_USUAL].ratio(f[OURS]), 2, at_least=True),
    Reach("sharp as usually called, CPU in units of ours", lambda f: f[SHARP_USUAL].ratio(f[OURS]), 2, at_least=True),
    Reach("our CPU in units of pyvips at its best", lambda f: f[OURS].ratio(f[VIPS_BEST]), 1.1),
    Reach("SSIM below naive Pillow's", lambda f: f[NAIVE].alike - f[OURS].alike, 0.007),
    Reach("KiB out", lambda f: f[OURS].kib, 190),
    Reach("bytes out in units of naive Pillow's", lambda f: f[OURS].kib / f[NAIVE].kib, 190 / 188),
    Reach("peak MB", lambda f: f[OURS].peak, 80),
)


class Served:
    """The process of one way, kept warm for a round."""

    def __init__(self, way: str, command: list[str]) -> None:
        self._way = way
        environment = {**os.environ, **(ENVIRONMENT if way == OURS else {})}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.__exit__(None, None, None)  # closes its input, which ends it, and waits

    def ask(self, source: Path, keep: Path | None = None) -> dict[str, float]:
        """Renders one picture and returns the figures; writes its 1080 rendition to `keep`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        stdin.write(json.dumps({"path": str(source), "keep": keep and str(keep)}) + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise SystemExit(f"{self._way} has ended with {self._process.wait()}")
        told: dict[str, float] = json.loads(answer)
        return told


def measure(sources: list[Path], rounds: int, ways: Mapping[str, list[str]], kept: Path) -> dict[str, Figures]:
    figures = {way: Figures() for way in ways}
    order = list(ways)
    for number in track(range(rounds), "Rounds", transient=True):
        # New processes each round: a process's speed depends on its memory layout for its whole life.
        with ExitStack() as stack:
            served = {way: stack.enter_context(Served(way, command)) for way, command in ways.items()}
            for way in ways:
                served[way].ask(sources[0])  # imports, caches, tables
            for source in sources:
                random.Random(number * 100 + int(source.stem)).shuffle(order)
                for way in order:
                    keep = kept / f"{source.stem}-{list(ways).index(way)}.webp" if number == 0 else None
                    told = served[way].ask(source, keep)
                    row = figures[way]
                    row.cpu.append(told["cpu"])
                    row.wall.append(told["wall"])
                    row.peak = max(row.peak, told["peak"])
                    if keep:
                        row.bytes.append(int(told["bytes"]))
    for source in track(sources, "SSIM", transient=True):
        renditions = [str(kept / f"{source.stem}-{at}.webp") for at in range(len(ways))]
        command = [sys.executable, "-m", "bench.media.ssim", str(source), *renditions]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        for way, figure in zip(ways, done.stdout.split(), strict=True):
            figures[way].ssim.append(float(figure))
    return figures


def report(figures: Mapping[str, Figures], pictures: int, rounds: int) -> None:
    console = Console(width=None if sys.stdout.isatty() else 130)
    title = f"{pictures} pictures of 12 megapixels, medians of {rounds} rounds"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("way")
    for column in ("pictures/s", "CPU ms", "x ours", "rounds", "peak MB", "KiB out", "SSIM"):
        table.add_column(column, justify="right", no_wrap=True)
    ours = figures[OURS]
    for way, row in figures.items():
        low, high = row.spread(ours, pictures)
        table.add_row(
            way,
            f"{1000 / median(row.wall):.1f}",
            f"{median(row.cpu):.0f}",
            f"{row.ratio(ours):.2f}",
            f"{low:.2f}-{high:.2f}" if row is not ours else "",
            f"{row.peak:.0f}",
            f"{row.kib:.0f}",
            f"{row.alike:.4f}",
        )
    console.print(table)
    table = Table(box=None, pad_edge=False, show_header=False)
    for reach in REACHES:
        try:
            figure = reach.figure(figures)
        except KeyError:
            table.add_row(reach.what, "", "", "[yellow]not measured[/]")
            continue
        verdict = "[green]reached[/]" if reach.kept(figure) else "[red]MISSED[/]"
        bound = f"{'>=' if reach.at_least else '<='} {reach.bound:.4g}"
        table.add_row(reach.what, f"{figure:.3g}", bound, verdict)
    console.print()
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a picture costs, beside Pillow, libvips and sharp.")
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="the same pictures without their colour profile")
    options = parser.parse_args()
    ways = dict(WAYS)
    for missing, program in (("pyvips", PYVIPS), ("sharp", SHARP_MODULE)):
        if not program.exists():
            print(f"{missing} is left out: `make bench-media` installs it")
            ways = {way: command for way, command in ways.items() if not way.startswith(missing)}
    maker = [sys.executable, "-m", "bench.media.sources", str(PICTURES), str(options.pictures)]
    subprocess.run(maker, cwd=ROOT, check=True)
    sources = sorted((PICTURES / "plain" if options.plain else PICTURES).glob("*.jpg"))[: options.pictures]
    with tempfile.TemporaryDirectory() as folder:
        report(measure(sources, options.rounds, ways, Path(folder)), len(sources), options.rounds)


if __name__ == "__main__":
    main()
