"""Sums by user, stored in S3 by the segments of one scan and merged by range of users: the shuffle of a MapReduce.

An object has a header of ranges + 1 offsets (8 bytes each, big-endian) and then one JSON text for each range, so
a merge reads only its own range. A folder's `complete.json` lists its objects, and objects it does not list are
ignored; its `rows` is the number of rows counted.
"""

import struct
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from nexus.aws.table import in_threads
from social.data import objects

type Sums = dict[str, dict[str, Any]]
"""By kind (followers, following, posts, stored) and user."""

_OFFSET = struct.Struct(">Q")


def range_of(user_id: str, ranges: int) -> int:
    """The range that a user falls into."""
    return zlib.crc32(user_id.encode()) % ranges


def write(folder: str, sums: Mapping[str, Mapping[str, Any]], ranges: int) -> str:
    """Writes sums to a uniquely named object and returns its key."""
    key = f"{folder}/{uuid.uuid4().hex}"
    objects.put("archive", key, encode(sums, ranges))
    return key


def complete(folder: str, keys: Sequence[str], rows: int) -> None:
    """Writes the folder's list: these objects, with this number of rows. A repeat replaces the list."""
    whole = {"objects": list(keys), "rows": rows}
    objects.put("archive", f"{folder}/complete.json", orjson.dumps(whole), "application/json")


def rows(folders: Sequence[str], threads: int) -> int:
    """The number of rows counted in these folders. Raises LookupError if one is not complete."""
    return sum(in_threads(lambda folder: int(_whole(folder)["rows"]), folders, threads))


def _whole(folder: str) -> dict[str, Any]:
    whole: dict[str, Any] = orjson.loads(objects.get("archive", f"{folder}/complete.json"))
    return whole


def merged(folders: Iterable[str], number: int) -> Sums:
    """The sums of one range over all objects of the folders. Raises LookupError if a folder is not complete."""
    total: Sums = {}
    for folder in folders:
        for key in _whole(folder)["objects"]:
            header = objects.get("archive", key, number * _OFFSET.size, (number + 2) * _OFFSET.size)
            first, end = (_OFFSET.unpack_from(header, place)[0] for place in (0, _OFFSET.size))
            if first < end:
                add(total, orjson.loads(objects.get("archive", key, first, end)))
    return total


def encode(sums: Mapping[str, Mapping[str, Any]], ranges: int) -> bytes:
    """An object's bytes; a range without users takes none."""
    split: list[dict[str, dict[str, Any]]] = [{} for _ in range(ranges)]
    for kind, values in sums.items():
        for user_id, value in values.items():
            split[range_of(user_id, ranges)].setdefault(kind, {})[user_id] = value
    texts = [orjson.dumps(part) if part else b"" for part in split]
    offset = (ranges + 1) * _OFFSET.size
    header = [_OFFSET.pack(offset)]
    for text in texts:
        offset += len(text)
        header.append(_OFFSET.pack(offset))
    return b"".join([*header, *texts])


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
