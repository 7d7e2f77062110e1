"""WebP (RFC 9649)."""

import struct
from typing import Any, Final

import numpy as np
from PIL import Image

from samples.files import exif, grey_profile, rgb_profile
from social.refusals import Code
from tests.support.matrix import VIPS, Matrix, each
from tests.support.raw_pictures import anmf, riff, riff_chunk, riff_parts, vp8x
from tests.support.reference import DISPLAY_P3, Film, Pixels, by_vips, linear, played, quarters, shown_as, turned
from tests.support.stills import saved

MATRIX: Final = Matrix(within=0)
feature: Final = MATRIX.feature
type File = tuple[bytes, Any]

ICC, ALPHA, EXIF, ANIMATION = 0x20, 0x10, 0x08, 0x02
SIZE: Final = (32, 24)


def parts(pixels: Pixels, **options: Any) -> dict[bytes, bytes]:
    """The chunks of Pillow's file, by their names."""
    return riff_parts(saved(Image.fromarray(pixels.astype(np.uint8)), "WEBP", exact=True, method=4, **options))


def lossless(pixels: Pixels) -> tuple[bytes, bytes]:
    return b"VP8L", parts(pixels, lossless=True)[b"VP8L"]


def veiled(pixels: Pixels) -> Pixels:
    """With opacity that rises from the left to the right."""
    high, wide = pixels.shape[:2]
    return np.dstack([pixels, np.tile(np.linspace(0, 255, wide).astype(int), (high, 1))])


@feature("WebP", "lossy: sizes", "all", ("1x1", "3x5", "17x16", "33x31"), reference=VIPS, within=2)
def lossy(size: str) -> File:
    wide, high = map(int, size.split("x"))
    file = saved(Image.fromarray(quarters(wide, high)), "WEBP", quality=90)
    return file, by_vips(file)


@feature("WebP", "lossy: the hint to enlarge it", "ignored, as browsers do")
def hint() -> File:
    data = bytearray(parts(quarters(), quality=90)[b"VP8 "])
    plain = riff((b"VP8 ", bytes(data)))
    data[7] |= 0x40
    data[9] |= 0x80
    return riff((b"VP8 ", bytes(data))), by_vips(plain)


def few_colours(count: int) -> Pixels:
    y, x = np.mgrid[0:24, 0:32]
    return np.asarray(np.random.default_rng(count).integers(0, 256, (count, 3))[(x + 5 * y) % count])


@feature("WebP", "lossless: numbers of colours, and with that its transforms", "exact", [1, 2, 3, 16, 200, "many"])
def transforms(count: Any) -> File:
    pixels = quarters() if count == "many" else few_colours(int(count))
    return riff(lossless(pixels)), pixels


@feature("WebP", "lossless: opacity", "exact", ("simple", "extended", "extended, unannounced"))
def lossless_opacity(case: str) -> File:
    pixels = veiled(few_colours(200))
    head = {"simple": [], "extended": [vp8x(SIZE, ALPHA)], "extended, unannounced": [vp8x(SIZE, 0)]}[case]
    return riff(*head, lossless(pixels)), pixels


def alph(opacity: Pixels, kind: int) -> bytes:
    """An ALPH chunk without compression; 0: no filter, 1: from the left, 2: from above, 3: by gradient."""
    wide = np.pad(opacity.astype(int), ((1, 0), (1, 0)))
    left, above, corner = wide[1:, :-1], wide[:-1, 1:], wide[:-1, :-1]
    guess = (np.zeros_like(left), left, above, (left + above - corner).clip(0, 255))[kind].copy()
    if kind:  # the first line is guessed from the left, the first column from above
        guess[0], guess[1:, 0] = left[0], above[1:, 0]
    return bytes([kind << 2]) + ((opacity - guess) & 255).astype(np.uint8).tobytes()


@feature(
    "WebP",
    "lossy with opacity (`ALPH`), uncompressed: filters",
    "undone",
    {"none": 0, "left": 1, "above": 2, "gradient": 3},
    edges=2,
    within=8,
)
def filters(kind: int) -> File:
    pixels = veiled(quarters())
    colours = (b"VP8 ", parts(quarters(), quality=100)[b"VP8 "])
    return riff(vp8x(SIZE, ALPHA), (b"ALPH", alph(pixels[:, :, 3], kind)), colours), pixels


@feature(
    "WebP", "lossy with opacity, compressed", "its opacity", {"exact": 100, "reduced": 40}, reference=VIPS, within=2
)
def opacity(quality: int) -> File:
    file = saved(Image.fromarray(veiled(quarters()).astype(np.uint8)), "WEBP", quality=90, alpha_quality=quality)
    return file, by_vips(file)


PICTURE: Final = lossless(quarters())
_ORDERS: Final = {"behind": 1, "before": -1}


@feature(
    "WebP",
    "orientation in EXIF",
    "upright",
    each(range(1, 9), ("behind", "before")),
    detail="1 to 8, behind the pixels and before",
)
def orientation(number: int, where: str) -> File:
    block = exif(number).tobytes()
    chunks = [PICTURE, (b"EXIF", block if where == "behind" else block.removeprefix(b"Exif\0\0"))]
    return riff(vp8x(SIZE, EXIF), *chunks[:: _ORDERS[where]]), turned(quarters(), number)


@feature("WebP", "profile", "converted to sRGB", ("lossless", "lossy"), edges=2, within=8)
def profile(kind: str) -> File:
    picture = PICTURE if kind == "lossless" else (b"VP8 ", parts(quarters(), quality=100)[b"VP8 "])
    return riff(vp8x(SIZE, ICC), (b"ICCP", rgb_profile()), picture), shown_as(quarters(), DISPLAY_P3, linear)


_IGNORED: Final = {
    "XMP and its orientation": [(b"XMP ", b'<x tiff:Orientation="6"/>')],
    "broken EXIF": [(b"EXIF", b"Exif\0\0II*\0\xff\xff\xff\xff")],
    "broken profile": [(b"ICCP", b"junk" * 50)],
    "profile of greys": [(b"ICCP", grey_profile(1.0))],
    "unknown chunks": [(b"ABCD", bytes(99)), (b"\0\0\0\0", b"x")],
}


@feature(
    "WebP",
    "what no pixel depends on, and what is broken there",
    "ignored",
    [*_IGNORED, "bytes behind", "cut-off metadata"],
)
def ignored(case: str) -> File:
    if case == "bytes behind":
        return riff(PICTURE) + b"<html>", quarters()
    chunks = _IGNORED.get(case, [(b"EXIF", bytes(200))])
    file = riff(vp8x(SIZE, ICC | EXIF), *(chunks if case == "broken profile" else []), PICTURE, *chunks)
    return file[:-100] if case == "cut-off metadata" else file, quarters()


@feature("WebP", "file that ends within its pixels", Code.TRUNCATED, ("lossless", "lossy", "second frame"))
def cut(kind: str) -> bytes:
    if kind == "second frame":
        return reel([100, 100])[0][:-20]
    return riff(PICTURE if kind == "lossless" else (b"VP8 ", parts(quarters())[b"VP8 "]))[:-9]


# Animations


def patch(colour: tuple[int, int, int], wide: int = 16, high: int = 12) -> Pixels:
    """Half transparent, with an opaque middle and clear corners."""
    pixels = np.full((high, wide, 4), (*colour, 128), np.uint8)
    pixels[3:-3, 3:-3, 3] = 255
    pixels[:3, :3, 3] = 0
    return pixels


def frame(pixels: Pixels, place: tuple[int, int] = (0, 0), shown: int = 100, flags: int = 2) -> tuple[bytes, bytes]:
    high, wide = pixels.shape[:2]
    return anmf(riff_chunk(*lossless(pixels)), (wide, high), place, shown, flags)


def animation(
    *frames: tuple[bytes, bytes],
    background: bytes = b"\xff\xff\xff\xff",
    loops: int = 0,
    flags: int = ANIMATION | ALPHA,
) -> bytes:
    return riff(vp8x(SIZE, flags), (b"ANIM", background + struct.pack("<H", loops)), *frames)


def reel(times: list[int], **how: Any) -> tuple[bytes, list[Pixels]]:
    pixels = [patch((70 * number, 200, 30), 32, 24) for number in range(len(times))]
    return animation(*(frame(one, shown=time) for one, time in zip(pixels, times, strict=True)), **how), pixels


@feature(
    "WebP",
    "animation: disposal and blending of frames at an offset",
    "as the specification has it; the background is transparent",
    each(("keep", "clear"), ("blended", "replaced")),
    within=3,
)
def disposal(how: str, mixing: str) -> File:
    clear, blend = how == "clear", mixing == "blended"
    scene = [
        (patch((220, 30, 30), 32, 24), (0, 0), 0, 0),
        (patch((30, 180, 60)), (4, 6), clear, blend),
        (patch((40, 60, 210)), (12, 8), clear, blend),
        (patch((230, 210, 40)), (0, 12), 0, 1),
    ]
    frames = [frame(pixels, place, flags=cleared + 2 * (not over)) for pixels, place, cleared, over in scene]
    return animation(*frames), Film(played(scene, (24, 32)), [100] * 4)


@feature("WebP", "animation: delays", "in milliseconds; 10 and less are 100, as browsers show them; a minute at most")
def delays() -> File:
    file, frames = reel([0, 10, 11, 50, 16_000_000])
    return file, Film(frames, [100, 100, 11, 50, 60_000])


@feature("WebP", "animation: plays", "as many", {"forever": 0, "once": 1, "9": 9})
def plays(number: int) -> File:
    file, frames = reel([100, 200], loops=number)
    return file, Film(frames, [100, 200], number)


@feature("WebP", "animation: lossy and lossless frames, with opacity and without", "all", edges=3, within=8)
def mixed() -> File:
    drawn = parts(quarters(), quality=100)[b"VP8 "]
    opacity = np.full((24, 32), 200)
    bodies = [riff_chunk(b"VP8 ", drawn), riff_chunk(b"ALPH", alph(opacity, 0)) + riff_chunk(b"VP8 ", drawn)]
    frames = [*(anmf(body, SIZE, (0, 0), 100, 2) for body in bodies), frame(patch((9, 99, 200), 32, 24))]
    full = np.full((24, 32), 255)
    shown = [np.dstack([quarters(), full]), np.dstack([quarters(), opacity]), patch((9, 99, 200), 32, 24)]
    return animation(*frames), Film(shown, [100] * 3)


@feature("WebP", "animation: orientation and profile", "of every frame", within=3)
def turned_reel() -> File:
    shown = [patch((220, 100, 60), 32, 24), patch((60, 200, 90), 32, 24)]
    body = [
        vp8x(SIZE, ANIMATION | ALPHA | ICC | EXIF),
        (b"ICCP", rgb_profile()),
        (b"ANIM", bytes(6)),
        *map(frame, shown),
    ]
    wanted = [np.dstack([shown_as(one[:, :, :3], DISPLAY_P3, linear), one[:, :, 3]]) for one in shown]
    return riff(*body, (b"EXIF", exif(6).tobytes())), Film([turned(one, 6) for one in wanted], [100] * 2)


@feature("WebP", "animation of one frame, smaller than its canvas", "a still; the rest is transparent")
def one_frame() -> File:
    wanted = np.zeros((24, 32, 4), int)
    wanted[6:18, 4:20] = patch((30, 180, 60))
    return animation(frame(patch((30, 180, 60)), (4, 6))), wanted
