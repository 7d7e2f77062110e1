"""Measures what the sandbox adds to a picture's cost: renditions in this process and in a sandbox's child, alternately.

    python -m bench.media.sandbox_cost [--pictures 20] [--rounds 5]

Both are warm, and both read the upload from a file and end with renditions in files. CPU is user and system time of all
processes: this one, the sandbox's server and its children. The system counts it in ticks of 10 ms, so the figure is the
sum over all pictures. Only the ratio is comparable between machines.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import pictures
import sandbox
from bench.media.sources import painted
from bench.processes import cpu_seconds
from pictures.recipes import content_hash
from pictures.rendering import render

BOUND = 1.05


def here(source: Path, folder: Path) -> None:
    """Renders without a sandbox."""
    with source.open("rb") as upload:
        content_hash(upload)
    for made in render(source.read_bytes()).renditions:
        (folder / f"{made.name}.{made.extension}").write_bytes(made.data)


def there(source: Path, folder: Path) -> None:
    """Renders as the function does."""
    pictures.render(source, folder, seconds=600)


def cpu(server: int) -> float:
    """CPU seconds of this process, and of the server with the children it has reaped."""
    return time.process_time() + cpu_seconds(server, children=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures what the sandbox adds to a picture's cost.")
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sources = painted(options.pictures)
    server = sandbox.start().pid
    spent = {here: 0.0, there: 0.0}
    with tempfile.TemporaryDirectory() as name:
        for way in spent:
            way(sources[0], Path(name))  # imports, caches, tables
        for number in range(options.rounds):
            for at, source in enumerate(sources):
                for way in (here, there) if (number + at) % 2 else (there, here):
                    before = cpu(server)
                    way(source, Path(name))
                    spent[way] += cpu(server) - before
    sandbox.stop()
    alone, apart = (1000 * seconds / (options.rounds * len(sources)) for seconds in spent.values())
    ratio = apart / alone
    print(f"{alone:.0f} ms of CPU in the process, {apart:.0f} in the sandbox")
    print(f"{ratio:.3f} times, {'reached' if ratio <= BOUND else 'MISSED'}: at most {BOUND}")
    return 0 if ratio <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
