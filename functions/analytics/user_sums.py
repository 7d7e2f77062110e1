"""Sums by user, stored in S3 and merged by a hash of the user: the shuffle of a MapReduce.

A writer of sums divides its users into columns. An object has the texts of its columns in order; a column's
text is JSON, a line for each batch of sums. Where a column begins is kept with the object's key (`Stored`), so that a
merge reads its own column with one request. A folder's `complete.json` lists its objects, and objects it does not list
are ignored; its `rows` is the number of rows counted. A phase that reads many folders has their lists gathered into one
object first (`gather`).
"""

import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import orjson

from nexus.aws.table import in_threads
from nexus.errors import Reject
from social.data import objects

type Sums = dict[str, dict[str, Any]]
"""By kind (followers, following, posts, stored) and user."""

READS_AT_ONCE = 16
BYTES_AT_ONCE = 32 * 1024 * 1024
"""Bytes to read before adding them up and checking the time."""

OBJECT_BYTES = 128 * 1024 * 1024
"""The size in bytes at which a writer writes an object: more than the sums of most segments of a scan."""


def hash_of(user_id: str) -> int:
    """A user's place in every division into columns."""
    return zlib.crc32(user_id.encode())


@dataclass(frozen=True, slots=True)
class Chunk:
    """One column of one object: its bytes from `first` to before `end`."""

    key: str
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Stored:
    """An object, and where each of its columns begins; the last offset is its size."""

    key: str
    offsets: Sequence[int]

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Stored":
        key, offsets = values
        return cls(key, offsets)

    def values(self) -> list[Any]:
        """For JSON."""
        return [self.key, list(self.offsets)]

    def chunk(self, column: int) -> Chunk:
        return Chunk(self.key, self.offsets[column], self.offsets[column + 1])


# --- writing ---------------------------------------------------------------------------------------------------------


class Writer:
    """Writes sums to uniquely named objects in a folder. `column_of` maps a user's hash to one of `columns`."""

    def __init__(
        self, folder: str, columns: int, column_of: Callable[[int], int], written: Iterable[Sequence[Any]] = ()
    ) -> None:
        self.folder = folder
        self._column_of = column_of
        self._texts: list[list[bytes]] = [[] for _ in range(columns)]
        self._held = 0
        self._written = [Stored.of(values) for values in written]

    def add(self, sums: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds sums, and writes an object once they reach OBJECT_BYTES."""
        for texts, part in zip(self._texts, self._split(sums), strict=True):
            if part:
                texts.append(orjson.dumps(part))
                self._held += len(texts[-1])
        if self._held >= OBJECT_BYTES:
            self._write()

    def _split(self, sums: Mapping[str, Mapping[str, Any]]) -> list[Sums]:
        split: list[Sums] = [{} for _ in self._texts]
        for kind, values in sums.items():
            for user_id, value in values.items():
                split[self._column_of(hash_of(user_id))].setdefault(kind, {})[user_id] = value
        return split

    def _write(self) -> None:
        key = f"{self.folder}/{uuid.uuid4().hex}"
        columns = [b"\n".join(texts) for texts in self._texts]
        self._texts, self._held = [[] for _ in columns], 0
        objects.put("archive", key, b"".join(columns))
        self._written.append(Stored(key, list(accumulate(map(len, columns), initial=0))))

    def flush(self) -> list[list[Any]]:
        """Writes what is left. Returns every object of the folder, as the cursor and the folder's list have them."""
        if self._held:
            self._write()
        return [stored.values() for stored in self._written]

    def complete(self, rows: int = 0) -> None:
        """Writes what is left, and the folder's list, with this number of rows. A repeat replaces the list."""
        whole = {"objects": self.flush(), "rows": rows}
        objects.put("archive", f"{self.folder}/complete.json", orjson.dumps(whole), "application/json")


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gathered:
    """The lists of several folders, stored under `key`, and the rows and bytes of each folder, in their order."""

    key: str
    rows: Sequence[int]
    bytes: Sequence[int]


def gather(work: str, folders: Sequence[str]) -> Gathered:
    """Stores the lists of these folders as one new object. Raises Reject if one has expired."""
    lists = list(in_threads(_list_of, folders, READS_AT_ONCE))
    key = f"{work}/gathered/{uuid.uuid4().hex}"
    objects.put("archive", key, orjson.dumps([one["objects"] for one in lists]), "application/json")
    sizes = [sum(offsets[-1] for _, offsets in one["objects"]) for one in lists]
    return Gathered(key, [int(one["rows"]) for one in lists], sizes)


def _list_of(folder: str) -> dict[str, Any]:
    whole: dict[str, Any] = orjson.loads(_read(f"{folder}/complete.json"))
    return whole


def _read(key: str, first: int | None = None, end: int | None = None) -> bytes:
    """An object, or a part of it. Raises Reject if it has expired, as when a dead letter is sent again late."""
    try:
        return objects.get("archive", key, first, end)
    except LookupError as error:
        raise Reject(f"partial sums have expired ({error}): send the task again") from None


def chunks(gathered: str, first: int, end: int, column: int) -> list[Chunk]:
    """A column's chunks in the folders from `first` to before `end` of those gathered; none without users."""
    folders = orjson.loads(_read(gathered))[first:end]
    found = (Stored.of(values).chunk(column) for folder in folders for values in folder)
    return [chunk for chunk in found if chunk.first < chunk.end]


def batches(wanted: Sequence[Chunk]) -> Iterator[Sequence[Chunk]]:
    """Divides chunks into batches to be read at once: BYTES_AT_ONCE, or one chunk that is larger."""
    batch: list[Chunk] = []
    size = 0
    for chunk in wanted:
        length = chunk.end - chunk.first
        if batch and size + length > BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(chunk)
        size += length
    if batch:
        yield batch


def fetch(batch: Sequence[Chunk]) -> Iterator[Sums]:
    """The sums in a batch of chunks, a part at a time, in order."""
    for text in in_threads(lambda chunk: _read(chunk.key, chunk.first, chunk.end), batch, READS_AT_ONCE):
        yield from map(orjson.loads, text.split(b"\n"))


def add(total: Sums, part: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds a part to the total: numbers are summed, stored values are copied."""
    for kind, values in part.items():
        into = total.setdefault(kind, {})
        if kind == "stored" or not into:
            into.update(values)
        else:
            get = into.get
            for user_id, number in values.items():
                into[user_id] = get(user_id, 0) + number


def held(sums: Mapping[str, Mapping[str, Any]]) -> int:
    """The number of sums."""
    return sum(map(len, sums.values()))
