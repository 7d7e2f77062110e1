"""Reads the file of a back-fill row by row, and remembers beside it how far it has come.

A file is CSV with a header, or JSON lines, in UTF-8. `FILE.nexus-backfill` holds the number of rows that are done, for
the stack and the file (by size and time) that they are of; it goes when all are done.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ops.problems import usage

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True, slots=True)
class Position:
    """How many rows of a file are done, and of which file, into which stack, as which kind of row."""

    stack: str
    kind: str
    size: int
    modified: int
    done: int = 0


class Source:
    """An open file; `read` bytes of `size` so far. Iterating gives rows; a line that is not JSON gives an empty one."""

    def __init__(self, path: Path, file: BinaryIO, form: str) -> None:
        self.path, self.form = path, form
        self.size, self.read = path.stat().st_size, 0
        self._file = file

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        if self.form == "csv":
            yield from csv.DictReader(self._lines())
            return
        for line in self._lines():
            if line.strip():
                yield _json(line)

    def _lines(self) -> Iterator[str]:
        for line in self._file:
            first, self.read = self.read == 0, self.read + len(line)
            yield line.decode("utf-8-sig" if first else "utf-8", "replace")


def _json(line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}  # every field is missing, which its fault says
    return row if isinstance(row, dict) else {}


def form_of(path: Path) -> str:
    """The format by the file's name. Raises Problem."""
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise usage(f"{path.name} is neither .csv nor .jsonl", do="Rename it, or give --format.")
    return form


def remembered(path: Path, stack: str, kind: str) -> Position:
    """Where an earlier back-fill of the same file stopped; at the beginning when there was none."""
    status = path.stat()
    here = Position(stack, kind, status.st_size, status.st_mtime_ns)
    try:
        before = Position(**json.loads(_beside(path).read_text()))
    except (FileNotFoundError, TypeError, ValueError):
        return here
    return before if asdict(before) | {"done": 0} == asdict(here) else here


def remember(path: Path, position: Position) -> None:
    """Notes the position; a death in the middle leaves the note before."""
    new = _beside(path).with_suffix(".new")
    new.write_text(json.dumps(asdict(position)))
    new.replace(_beside(path))


def forget(path: Path) -> None:
    """All rows are done."""
    _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.nexus-backfill")
