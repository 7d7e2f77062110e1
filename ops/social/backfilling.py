"""Reads a backfill file row by row and keeps its position in a file beside it.

A file is CSV with a header, or JSON lines, in UTF-8. `FILE.nexus-backfill` holds the number of finished rows, with the
stack and the file (size and time) they belong to; it is deleted when all are done.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ops.problems import Problem, usage

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True, slots=True)
class Position:
    """How many rows are done, of which file, into which stack, as which kind of row."""

    stack: str
    kind: str
    size: int
    modified: int
    done: int = 0


class Source:
    """An open file; `read` of `size` bytes so far. Iterating yields rows; a line that is not JSON is an empty row.

    Raises Problem at a line that cannot be CSV. Bytes that are not UTF-8 make the fields that hold them invalid.
    """

    def __init__(self, path: Path, file: BinaryIO, form: str) -> None:
        self.path, self.form = path, form
        self.size, self.read = path.stat().st_size, 0
        self._file = file

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        if self.form == "csv":
            rows = csv.DictReader(self._lines())
            try:
                yield from rows
            except csv.Error as error:
                why = f"{error}. A quotation mark that is not closed, or not doubled, joins all the lines after it."
                do = "Correct the file and repeat the command: rows that are written already stay."
                raise Problem(f"{self.path.name} is not CSV near line {rows.line_num}", why, do) from None
            return
        for line in self._lines():
            if line.strip():
                yield _json(line)

    def _lines(self) -> Iterator[str]:
        for line in self._file:
            first, self.read = self.read == 0, self.read + len(line)
            yield line.decode("utf-8-sig" if first else "utf-8", "surrogateescape")


def _json(line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}  # its error then says that every field is missing
    return row if isinstance(row, dict) else {}


def form_of(path: Path) -> str:
    """The format, from the file's name. Raises Problem if the name has no known suffix."""
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise usage(f"{path.name} is neither .csv nor .jsonl", do="Rename it, or give --format.")
    return form


def remembered(path: Path, stack: str, kind: str) -> Position:
    """Where an earlier backfill of the same file stopped; the beginning if there was none."""
    status = path.stat()
    here = Position(stack, kind, status.st_size, status.st_mtime_ns)
    try:
        before = Position(**json.loads(_beside(path).read_text()))
    except (FileNotFoundError, TypeError, ValueError):
        return here
    return before if asdict(before) | {"done": 0} == asdict(here) else here


def remember(path: Path, position: Position) -> None:
    """Saves the position atomically; a crash leaves the previous one."""
    new = _beside(path).with_suffix(".new")
    new.write_text(json.dumps(asdict(position)))
    new.replace(_beside(path))


def forget(path: Path) -> None:
    """Deletes the saved position, when all rows are done."""
    _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.nexus-backfill")
