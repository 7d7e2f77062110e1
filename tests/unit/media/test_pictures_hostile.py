"""Small files that a parser with a loop in a loop would read for minutes, and what they become.

Each takes less than a second of CPU time, and the limit on it is ten times that.
"""

import signal
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sandbox
from colours import icc
from colours.light import PRIMARIES
from pictures import supervisor
from pictures.rendering import Pictures, render
from samples import files
from social.refusals import Code, Rejected
from tests.support import raw_pictures as raw
from tests.support.isobmff import Item, auxc, box, clap, full, grid, ispe, overlay
from tests.support.reference import quarters
from tests.support.stills import COLOURS, RED, plain, reel, still
from tests.unit.media.matrix import heif as matrix

SIZE = 2 << 20
SECONDS = 10


def outcome(upload: bytes) -> Pictures | Code:
    """Fails, by an exception that no code here catches, if rendering takes too much CPU time."""

    def fail(*_: object) -> None:
        pytest.fail(f"more than {SECONDS} s of CPU time")

    assert len(upload) <= 1.05 * SIZE
    before = signal.signal(signal.SIGPROF, fail)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return render(upload)
    except Rejected as refusal:
        return refusal.code
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# AVIF and HEIC

HEAD = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
HANDLER = full(b"hdlr", 0, 0, bytes(4), b"pict", bytes(13))
PRIMARY = full(b"pitm", 0, 0, struct.pack(">H", 1))


def index(*boxes: bytes) -> bytes:
    return HEAD + full(b"meta", 0, 0, HANDLER, PRIMARY, *boxes)


def properties(*known: bytes, owned: bytes, items: int, wide: bool = False) -> bytes:
    return box(b"iprp", box(b"ipco", *known), full(b"ipma", 0, wide, struct.pack(">I", items), owned))


def associated(number: int, times: int) -> bytes:
    """Item 1 has one property 255 times, in each of `times` entries."""
    return (struct.pack(">HB", 1, 255) + bytes([number]) * 255) * times


def references(kind: bytes, *edges: tuple[int, list[int]]) -> bytes:
    return full(b"iref", 0, 0, *(box(kind, struct.pack(f">HH{len(to)}H", item, len(to), *to)) for item, to in edges))


def sharing(kind: str, count: int, whole: Callable[[int], Item]) -> bytes:
    """A picture of many parts that are the same bytes of the file."""
    part = matrix.item(kind, np.kron(quarters(64, 48), np.ones((32, 32, 1), np.uint8)))
    again = Item(part.kind, b"", part.properties, hidden=True, beyond=len(part.data))
    part.hidden = True
    return matrix.file(kind, *[again] * (count - 1), part, whole(count), primary=count + 1)


def layers(count: int) -> Item:
    to = range(1, count + 1)
    return Item(b"iovl", overlay(64, 48, *[(0, 0)] * count), [ispe(64, 48)], refs={b"dimg": [*to]})


def tiles(count: int) -> Item:
    to = range(1, count + 1)
    return Item(b"grid", grid(count // 20, 20, 640, 480), [ispe(640, 480)], refs={b"dimg": [*to]})


def nested(depth: int) -> bytes:
    """Overlays of four overlays, and so on: few items, and the last is made of 4 ** depth pictures."""
    items = [matrix.item("HEIC")] * 4
    for level in range(depth):
        places = [(0, 0)] * 4
        below = range(4 * level + 1, 4 * level + 5)
        items += [Item(b"iovl", overlay(64, 48, *places), [ispe(64, 48)], refs={b"dimg": [*below]})] * 4
    for one in items:
        one.hidden = True
    return matrix.file("HEIC", *items[:-4], replace(items[-1], hidden=False), primary=4 * depth + 1)


def sequence(tables: bytes) -> bytes:
    """An animated AVIF with other tables of its samples."""

    def changed(data: bytes, path: tuple[bytes, ...]) -> bytes:
        out, at = b"", 0
        while at < len(data):
            size, name = struct.unpack_from(">I4s", data, at)
            if not path and name in (b"stsc", b"stsz", b"stco"):
                out += tables if name == b"stco" else b""
            elif path and name == path[0]:
                out += box(name, changed(data[at + 8 : at + size], path[1:]))
            else:
                out += data[at : at + size]
            at += size
        return out

    return changed(reel("AVIF", COLOURS, (100,) * 4), (b"moov", b"trak", b"mdia", b"minf", b"stbl"))


def many_chunks(count: int, at: int = 0) -> bytes:
    """Chunks of one sample, each found by a search through a table whose other entries are of later chunks."""
    later = b"".join(struct.pack(">III", 1 << 31 | number, 1, 1) for number in range(count))
    file = sequence(
        full(b"stsc", 0, 0, struct.pack(">IIII", count + 1, 1, 1, 1), later)
        + full(b"stsz", 0, 0, struct.pack(">II", 39, 3 * count))
        + full(b"stco", 0, 0, struct.pack(f">{3 * count + 1}I", 3 * count, *[at] * 3 * count))
    )
    return file if at else many_chunks(count, file.index(b"mdat") + 4)


def parameter_sets(count: int) -> bytes:
    """Configurations of H.265 with one long set of zeros each."""
    one = bytes(22) + b"\1\x21" + struct.pack(">HH", 1, 60_000) + b"\x42\1\1" + bytes(59_997)
    numbers = bytes(range(1, count + 1))
    owned = struct.pack(">HB", 1, count) + numbers
    return index(properties(*[box(b"hvcC", one)] * count, owned=owned, items=1))


HEIFS: dict[str, tuple[Callable[[], bytes], Code]] = {
    "associations beyond their box": (
        lambda: index(
            box(b"iprp", box(b"ipco"), full(b"ipma", 0, 0, struct.pack(">I", 4096)) * 10_000),
            box(b"free", b"\xff" * (SIZE // 2)),
        ),
        Code.TRUNCATED,
    ),
    "a large property of many associations": (
        lambda: index(properties(auxc(bytes(SIZE // 2)), owned=associated(1, SIZE // 520), items=SIZE // 520)),
        Code.DAMAGED,
    ),
    "many crops": (
        lambda: index(
            properties(
                ispe(8, 8), *[clap(1, 1)] * 16_000, owned=struct.pack(">HBB", 1, 1, 1) + associated(2, 4000), items=4001
            )
        ),
        Code.DAMAGED,
    ),
    "a chain of parts in reverse order": (
        lambda: index(references(b"dimg", *((n, [n + 1]) for n in range(16_000, 0, -1)))),
        Code.DAMAGED,
    ),
    "parts in a circle": (lambda: index(references(b"dimg", (1, [2]), (2, [1]))), Code.DAMAGED),
    "more references than pictures have": (
        lambda: index(references(b"dimg", *((1, [*range(1, 10_000)]) for _ in range(100)))),
        Code.DAMAGED,
    ),
    "extents without bytes": (
        lambda: index(full(b"iloc", 0, 0, bytes(2), struct.pack(">H", 4096), struct.pack(">HHH", 1, 0, 65_535) * 4096)),
        Code.DAMAGED,
    ),
    "more boxes than pictures have": (lambda: index(box(b"free") * (SIZE // 8)), Code.DAMAGED),
    "more items than pictures have": (
        lambda: index(
            full(
                b"iinf",
                1,
                0,
                struct.pack(">I", 100_000),
                *(full(b"infe", 3, 0, struct.pack(">IH4s", n, 0, b"av01"), b"\0") for n in range(1, 90_000)),
            )
        ).replace(b"heic", b"avif"),
        Code.DAMAGED,
    ),
    "a length of a million bytes": (
        lambda: index(
            properties(box(b"av1C", bytes(4), b"\x7f" + b"\xff" * (SIZE - 200)), owned=associated(1, 1), items=1)
        ),
        Code.DAMAGED,
    ),
    "long parameter sets": (lambda: parameter_sets(33), Code.DAMAGED),
    "many parameter sets": (
        lambda: index(
            properties(
                box(b"hvcC", bytes(22), b"\1\x21", struct.pack(">H", 300), struct.pack(">H", 2) * 300),
                owned=struct.pack(">HBB", 1, 1, 1),
                items=1,
            )
        ),
        Code.DAMAGED,
    ),
    "two lists of properties": (lambda: index(box(b"iprp"), box(b"iprp")), Code.DAMAGED),
    "a box that extends beyond its own": (lambda: index(box(b"iprp", struct.pack(">I4s", 99, b"ipco"))), Code.DAMAGED),
    "layers that share their bytes": (lambda: sharing("HEIC", 400, layers), Code.TOO_MANY_PIXELS),
    "tiles that share their bytes": (lambda: sharing("HEIC", 400, tiles), Code.TOO_MANY_PIXELS),
    "overlays of overlays": (lambda: nested(8), Code.TOO_MANY_PIXELS),
    "overlays of overlays, deeper": (lambda: nested(9), Code.DAMAGED),
    "an overlay that only its data states": (
        lambda: matrix.file(
            "HEIC",
            matrix.item("HEIC"),
            Item(b"iovl", overlay(20_000, 20_000, (0, 0)), [ispe(64, 48)], refs={b"dimg": [1]}),
            primary=2,
        ),
        Code.TOO_MANY_PIXELS,
    ),
    "a sequence with many chunks": (lambda: many_chunks(SIZE // 24), Code.TOO_MANY_FRAMES),
    "many boxes before a sequence": (lambda: matrix.still("AVIF") + box(b"free") * 17_000 + box(b"moov"), Code.DAMAGED),
}


@pytest.mark.parametrize(("maker", "code"), HEIFS.values(), ids=HEIFS)
def test_an_index_that_takes_quadratic_time_is_refused(maker: Callable[[], bytes], code: Code) -> None:
    assert outcome(maker()) == code


def test_a_large_but_simple_index_is_read() -> None:
    metadata = [Item(b"mime", b"x", refs={b"cdsc": [1]}) for _ in range(900)]

    for kind in ("AVIF", "HEIC"):
        made = outcome(matrix.file(kind, matrix.item(kind), *metadata))

        assert isinstance(made, Pictures)
        assert (made.width, made.height) == (matrix.WIDE, matrix.HIGH)


# The other formats


def test_a_jpeg_of_many_frames_without_a_height_is_refused() -> None:
    frame = raw.segment(0xC0, struct.pack(">BHHB", 8, 0, 16, 1) + b"\1\x11\0")

    assert outcome(b"\xff\xd8" + frame * (SIZE // len(frame))) is Code.DAMAGED


@pytest.mark.parametrize("chunk", [files.png_chunk(b"PLTE", b""), files.png_chunk(b"tRNS", bytes(6))])
def test_an_apng_of_many_palettes_has_at_most_the_first(chunk: bytes) -> None:
    """Each frame is given to the decoder as a picture of its own, with what all of them share."""
    frames = [(np.full((8, 8, 3), number, np.uint8), (0, 0), 1, 10, 0, 0) for number in range(200)]

    made = outcome(raw.apng(frames, colours=raw.RGB, before=chunk * (SIZE // len(chunk))))

    assert isinstance(made, Pictures)
    assert made.frames == 200


def test_a_palette_of_megabytes_is_refused() -> None:
    samples = np.zeros((8, 8), np.uint8)
    palette = files.png_chunk(b"PLTE", bytes(SIZE))

    assert outcome(raw.png(samples, colours=raw.PALETTE, before=palette)) is Code.DAMAGED


def test_a_gif_of_more_frames_than_any_limit_is_refused_before_they_fill_the_memory() -> None:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\0"

    assert outcome(raw.gif([frame] * (SIZE // len(frame)), (9, 9), bytes(6))) is Code.TOO_MANY_FRAMES


def chain_of_elements(count: int) -> bytes:
    """A tag of an ICC profile: `count` times three power functions, in few bytes (ICC.1:2022, 10.16)."""
    curve = b"curf\0\0\0\0" + struct.pack(">HH", 1, 0) + b"parf\0\0\0\0" + struct.pack(">HH4f", 0, 0, 1.7, 1, 0, 0)
    curves = b"cvst\0\0\0\0" + struct.pack(">HH", 3, 3) + struct.pack(">II", 36, len(curve)) * 3 + curve
    places = struct.pack(">II", 16 + 8 * count, len(curves)) * count
    return b"mpet\0\0\0\0" + struct.pack(">HHI", 3, 3, count) + places + curves


def test_a_profiles_chain_of_elements_is_not_followed_and_its_curves_are(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = icc._profile
    elements = {b"D2B0": chain_of_elements(100_000)}
    monkeypatch.setattr(icc, "_profile", lambda space, tags: profile(space, {**tags, **elements}))
    linear = icc._rgb(PRIMARIES[1], icc._power(1))
    notes = files.png_chunk(b"iCCP", b"x\0\0" + zlib.compress(linear))

    made = outcome(raw.png(np.full((8, 8, 3), 55, np.uint8), before=notes))

    assert isinstance(made, Pictures)
    assert made.dominant_colour == "#808080"


def test_a_picture_with_the_most_comments_is_a_picture() -> None:
    comments = b"\xff\xfe\0\2" * (SIZE // 4)

    assert isinstance(outcome(raw.with_segments(still("JPEG", plain(RED)), comments)), Pictures)


def test_no_picture_has_all_of_the_functions_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def run(*_: object, seconds: float, **__: object) -> None:
        given.append(seconds)
        raise sandbox.Unfinished("too late")

    monkeypatch.setattr(sandbox, "run", run)
    source = tmp_path / "source"
    source.write_bytes(b"")

    for seconds in (600, 5):
        with pytest.raises(sandbox.Unfinished):
            supervisor.render(source, tmp_path, seconds=seconds)

    assert given == [supervisor.SECONDS, 5]
