"""GIF 87a and 89a."""

from typing import Any, Final

import numpy as np

from social.refusals import Code
from tests.support.matrix import VIPS, Matrix, each
from tests.support.raw_pictures import gif, gif_control, gif_frame, gif_loop
from tests.support.reference import Film, Pixels, film_by_vips

MATRIX: Final = Matrix(within=0)
feature: Final = MATRIX.feature
type File = tuple[bytes, Any]

SIZE: Final = (32, 24)
COLOURS: Final = np.array([(220, 30, 30), (30, 180, 60), (40, 60, 210), (230, 210, 40)] * 64)
PALETTE: Final = COLOURS[:4].astype(np.uint8).tobytes()
OTHER: Final = COLOURS[[3, 2, 1, 0]].astype(np.uint8).tobytes()


def stripes(count: int = 4, wide: int = 32, high: int = 24) -> Pixels:
    y, x = np.mgrid[0:high, 0:wide]
    return np.asarray((x // 3 + y // 5) % count)


def clear(colours: Pixels, holes: Pixels) -> Pixels:
    return np.dstack([colours, np.where(holes, 0, 255)])


@feature(
    "GIF",
    "colours of the table",
    "all",
    each((2, 4, 8, 16, 32, 64, 128, 256), ("global", "local")),
    detail="2 to 256, global or the frame's own",
)
def tables(count: int, which: str) -> File:
    table = np.random.default_rng(count).integers(0, 256, (count, 3))
    indices = np.arange(24 * 32).reshape(24, 32) % count
    packed, bits = table.astype(np.uint8).tobytes(), max(2, count.bit_length() - 1)
    frame = gif_frame(indices, palette=packed if which == "local" else b"", bits=bits)
    return gif([frame], SIZE, packed if which == "global" else PALETTE), table[indices]


@feature("GIF", "no table at all", "greys, as decoders have agreed on")
def no_table() -> File:
    return gif([gif_frame(stripes(256))], SIZE), np.dstack([stripes(256)] * 3)


@feature("GIF", "version", "both", ("87a", "89a"))
def version(name: str) -> File:
    return gif([gif_frame(stripes())], SIZE, PALETTE, name.encode()), COLOURS[stripes()]


@feature("GIF", "interlacing", "as without", ("32x24", "1x1", "5x3", "7x9"))
def interlaced(size: str) -> File:
    wide, high = map(int, size.split("x"))
    indices = stripes(4, wide, high)
    return gif([gif_frame(indices, interlaced=True)], (wide, high), PALETTE), COLOURS[indices]


@feature("GIF", "transparent colour", "is", {"0": 0, "3": 3, "beyond the table": 200})
def transparent(index: int) -> File:
    file = gif([gif_control(transparent=index), gif_frame(stripes())], SIZE, PALETTE)
    return file, clear(COLOURS[stripes()], stripes() == index) if index < 4 else COLOURS[stripes()]


@feature("GIF", "frame smaller than its canvas", "the rest is transparent, whatever the background's colour")
def offset() -> File:
    wanted = np.zeros((24, 32, 4), int)
    wanted[6:18, 5:21] = clear(COLOURS[stripes(4, 16, 12)], np.zeros((12, 16)))
    file = bytearray(gif([gif_frame(stripes(4, 16, 12), (5, 6))], SIZE, PALETTE))
    file[11] = 2  # the background
    return bytes(file), wanted


@feature("GIF", "frame that reaches beyond its canvas", "the canvas grows")
def beyond() -> File:
    wanted = np.zeros((30, 40, 4), int)
    wanted[6:30, 8:40] = clear(COLOURS[stripes()], np.zeros((24, 32)))
    return gif([gif_frame(stripes(), (8, 6))], SIZE, PALETTE), wanted


_IGNORED: Final = {
    "comment": b"\x21\xfe\x05Hello\0",
    "plain text": b"\x21\x01\x0c" + bytes(12) + b"\x05Hello\0",
    "XMP": b"\x21\xff\x0bXMP DataXMP\x03<x>\0",
    "profile": b"\x21\xff\x0bICCRGBG1012\x04junk\0",
    "unknown extension": b"\x21\x99\x01x\0",
}


@feature("GIF", "what no pixel depends on, shape of the pixels", "ignored", [*_IGNORED, "shape"])
def ignored(case: str) -> File:
    file = bytearray(gif([_IGNORED.get(case, b""), gif_frame(stripes())], SIZE, PALETTE))
    if case == "shape":
        file[12] = 113  # twice as wide as high
    return bytes(file), COLOURS[stripes()]


@feature(
    "GIF", "the end: missing terminator, bytes behind it", "ignored", ("no terminator", "no last block", "bytes behind")
)
def ends(case: str) -> File:
    file = gif([gif_frame(stripes())], SIZE, PALETTE)
    return {"no terminator": file[:-1], "no last block": file[:-2], "bytes behind": file + b"<html>"}[case], COLOURS[
        stripes()
    ]


@feature("GIF", "file that ends within its pixels", Code.TRUNCATED, ("first frame", "before it"))
def cut(case: str) -> bytes:
    return gif([gif_frame(stripes())], SIZE, PALETTE)[: -60 if case == "first frame" else 30]


# Animations

_DISPOSALS: Final = {"unsaid": 0, "keep": 1, "clear": 2, "previous": 3, "undefined (5)": 5}


def scene(disposal: int, **first: Any) -> bytes:
    return gif(
        [
            gif_loop(0),
            gif_control(1, 10),
            gif_frame(stripes(**first)),
            gif_control(disposal, 20, 1),
            gif_frame(stripes(4, 16, 12), (4, 6)),
            gif_control(disposal, 30, 2),
            gif_frame(stripes(3, 14, 9), (13, 9), OTHER),
            gif_control(1, 40),
            gif_frame(stripes(2, 8, 8)),
        ],
        SIZE,
        PALETTE,
    )


@feature(
    "GIF",
    "disposal of frames at an offset, tables of their own, transparent colours",
    "as browsers do",
    _DISPOSALS,
    reference=VIPS,
)
def disposal(number: int) -> File:
    file = scene(number)
    return file, film_by_vips(file)


@feature("GIF", "first frame smaller than its canvas, and cleared", "the rest stays transparent")
def small_first() -> File:
    shown = np.zeros((2, 24, 32, 4), int)
    shown[0, 2:22, 6:26] = clear(COLOURS[stripes(4, 20, 20)], np.zeros((20, 20)))
    shown[1, 3:12, 3:12] = clear(COLOURS[stripes(4, 9, 9)], np.zeros((9, 9)))
    first, second = gif_frame(stripes(4, 20, 20), (6, 2)), gif_frame(stripes(4, 9, 9), (3, 3))
    file = gif([gif_loop(0), gif_control(2, 10), first, gif_control(2, 10), second], SIZE, PALETTE)
    return file, Film(list(shown), [100, 100])


def reel(delays: list[int], *blocks: bytes) -> tuple[bytes, list[Pixels]]:
    frames = [
        (number, gif_control(1, delay) + gif_frame(np.full((24, 32), number % 4)))
        for number, delay in enumerate(delays)
    ]
    return gif([*blocks, *(frame for _, frame in frames)], SIZE, PALETTE), [
        clear(COLOURS[np.full((24, 32), number % 4)], np.zeros((24, 32))) for number, _ in frames
    ]


@feature("GIF", "delays", "in milliseconds; 10 and less are 100, as browsers show them; a minute at most")
def delays() -> File:
    file, frames = reel([0, 1, 2, 5, 7000], gif_loop(0))
    return file, Film(frames, [100, 100, 20, 50, 60_000])


@feature("GIF", "no control extension", "100 ms")
def uncontrolled() -> File:
    file = gif([gif_loop(0), *(gif_frame(np.full((24, 32), n)) for n in range(2))], SIZE, PALETTE)
    return file, Film(reel([0, 0])[1], [100, 100])


@feature("GIF", "loops", "as many plays", {
    "none": (b"", 1), "0": (gif_loop(0), 0), "1": (gif_loop(1), 2), "5": (gif_loop(5), 6),
    "65535": (gif_loop(65_535), 65_535),
    "ANIMEXTS": (gif_loop(3, b"ANIMEXTS1.0"), 4),
}, within=0)  # fmt: skip
def loops(block: bytes, plays: int) -> File:
    file, frames = reel([10, 20], block)
    return file, Film(frames, [100, 200], plays)


@feature("GIF", "two frames that are the same", "both times, as one frame or two")
def same() -> File:
    blocks = [gif_loop(0), *([gif_control(1, 10), gif_frame(stripes())] * 2), gif_control(1, 30), gif_frame(stripes(3))]
    shown = [clear(COLOURS[stripes(count)], np.zeros((24, 32))) for count in (4, 3)]
    return gif(blocks, SIZE, PALETTE), Film(shown, [200, 300])
