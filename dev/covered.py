"""Reports how much of each package the tests execute: `python -m dev.covered`, by `make coverage`.

Reads what the tests' processes recorded (dev/measure.py) and prints each package's share of executed lines. If a share
is under its floor, it fails and lists the lines that no test executes. coverage.py decides which lines count, with the
exclusions of `[tool.coverage.report]` in pyproject.toml.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coverage import Coverage

from dev.measure import FOLDER, FUNCTION, LAYER

ROOT: Final = Path(__file__).resolve().parent.parent

FLOORS: Final = {"shared/nexus": 97, "shared/social": 95, "functions": 95, "ops": 90}
"""The least percentage of lines that the tests must execute; each folder of functions/ must reach it by itself."""

NOTED: Final = ROOT / FOLDER


@dataclass(frozen=True, slots=True)
class File:
    """A module: its number of lines that count, and those that no test executed, as text ("12-14, 30")."""

    name: str
    lines: int
    missed: int
    text: str


def packages() -> dict[str, int]:
    """The floor of each package and of each function's folder."""
    functions = sorted(path for path in (ROOT / "functions").iterdir() if any(path.glob("*.py")))
    found = {name: floor for name, floor in FLOORS.items() if name != "functions"}
    return found | {f"functions/{path.name}": FLOORS["functions"] for path in functions}


def executed(folder: Path) -> dict[str, set[int]]:
    """The executed lines of each source file."""
    lines: defaultdict[str, set[int]] = defaultdict(set)
    for noted in folder.glob("*.jsonl"):
        for text in noted.read_text().splitlines():
            if not text.endswith("}"):
                continue  # its process was killed while it wrote
            for name, numbers in json.loads(text).items():
                for source in _sources(name):
                    lines[str(source)].update(numbers)
    return lines


def _sources(name: str) -> Iterator[Path]:
    """The file of the repository that a module was loaded from, or was built from."""
    if name.startswith(LAYER):
        yield ROOT / "shared" / name.removeprefix(LAYER)
    elif name.startswith(FUNCTION):
        yield from (ROOT / "functions").glob(f"*/{name.removeprefix(FUNCTION)}")
    else:
        yield Path(name)


def files(package: str, measured: Coverage) -> Iterator[File]:
    """Every module of a package, including those that no process imported."""
    for path in sorted((ROOT / package).rglob("*.py")):
        _, statements, _, missing, text = measured.analysis2(str(path))
        yield File(str(path.relative_to(ROOT)), len(statements), len(missing), text)


def report(folder: Path, *, everything: bool = False) -> Iterator[tuple[str, bool]]:
    """Lines to print, each with whether it says that a package is under its floor."""
    measured = Coverage(data_file=None, config_file=ROOT / "pyproject.toml")
    data = measured.get_data()
    data.add_lines(executed(folder))
    found_in = {package: list(files(package, measured)) for package in packages()}
    data.close(force=True)
    for package, floor in packages().items():
        found = found_in[package]
        lines, missed = sum(file.lines for file in found), sum(file.missed for file in found)
        share = 100 * (lines - missed) / max(1, lines)
        low = share < floor
        yield f"  {package:<22} {share:5.1f} % of {lines:,} lines" + (f", less than {floor} %" if low else ""), low
        if low or everything:
            yield from ((f"    {file.name}: {file.text}", False) for file in found if file.missed)


def main(arguments: Sequence[str]) -> int:
    """The command line; its exit code. `--all` lists the missed lines of packages above their floors too."""
    if not any(NOTED.glob("*.jsonl")):
        print(f"{NOTED} is empty: run tests with NEXUS_COVERAGE={ROOT}, as `make test` does", file=sys.stderr)
        return 2
    failed = False
    for line, low in report(NOTED, everything="--all" in arguments):
        print(line)
        failed |= low
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
