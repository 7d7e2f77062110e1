"""The tests' own pictures: small, exact, in every accepted format."""

import struct
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import pillow_heif
from PIL import Image

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 180, 60), (40, 60, 210), (230, 210, 40)
Colour = tuple[int, int, int]


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """One file of a format by Pillow's name for it; HEIF is HEIC, APNG and the animations want `append_images`."""
    out = BytesIO()
    if kind == "HEIF":
        heif = pillow_heif.from_pillow(picture)
        if "exif" in options:  # set at the end, so that an orientation is stored in the format's own way
            heif.info["exif"] = options.pop("exif").tobytes()
        heif.save(out, quality=90, enc_params={"preset": "ultrafast"}, **options)
    else:
        picture.save(out, kind, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    picture = Image.open(BytesIO(data))
    picture.load()
    return picture


def gradient(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Brighter to the right, greener to the bottom: smooth, and different everywhere."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, Image.new("L", (width, height), 90))).convert(mode)


def quarters(width: int, height: int) -> Image.Image:
    """Red and green over blue and yellow, so that every rotation and mirroring differs."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(GREEN, (width // 2, 0, width, height // 2))
    picture.paste(BLUE, (0, height // 2, width // 2, height))
    picture.paste(YELLOW, (width // 2, height // 2, width, height))
    return picture


def plain(colour: Colour, width: int = 64, height: int = 48) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def reel(kind: str, colours: Sequence[Colour], durations: Sequence[int], **options: Any) -> bytes:
    """An animation of plain frames, in milliseconds."""
    first, *others = [plain(colour) for colour in colours]
    if kind != "GIF":
        options.setdefault("lossless", True)
    if kind == "PNG":
        options.pop("lossless")
    return saved(first, kind, save_all=True, append_images=others, duration=list(durations), **options)


COLOURS = (RED, GREEN, BLUE, YELLOW)

STILLS = ("JPEG", "progressive JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF")
ANIMATIONS = ("PNG", "GIF", "WEBP", "AVIF")


def still(kind: str, picture: Image.Image, **options: Any) -> bytes:
    """One picture in one of STILLS."""
    if kind == "progressive JPEG":
        return saved(picture, "JPEG", progressive=True, quality=92, **options)
    if kind in {"JPEG", "WEBP", "AVIF"}:
        options.setdefault("quality", 92)
    if kind == "AVIF":
        options.setdefault("speed", 9)
    return saved(picture, kind, **options)


# Files with false headers, or that no library writes on request


def webp_of_one_colour(width: int, height: int) -> bytes:
    """A valid lossless WebP whose pixels take no bits: 32 bytes for any size up to 16,383 x 16,383.

    Specification: https://developers.google.com/speed/webp/docs/webp_lossless_bitstream_specification
    """
    bits, at = 0, 0

    def put(value: int, count: int) -> None:
        nonlocal bits, at
        bits |= value << at
        at += count

    put(width - 1, 14)
    put(height - 1, 14)
    put(0, 1 + 3 + 1 + 1 + 1)  # no alpha, version 0, no transform, no colour cache, one set of prefix codes
    for symbol in (180, 40, 40, 255, 0):  # green, red, blue, alpha, distance: each a code of one symbol
        put(0b001 if symbol < 2 else 0b101, 3)
        put(symbol, 1 if symbol < 2 else 8)
    stream = b"\x2f" + bits.to_bytes((at + 7) // 8, "little")
    stream += bytes(len(stream) & 1)
    return b"RIFF" + struct.pack("<I", 12 + len(stream)) + b"WEBPVP8L" + struct.pack("<I", len(stream)) + stream


def gif_of_tiny_frames(width: int, height: int, frames: int) -> bytes:
    """A large canvas on which every frame paints one pixel."""
    table = b"\0\0\0\xff\xff\xff"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + table + frame * frames + b"\x3b"


def with_stated_size(heif: bytes, width: int, height: int) -> bytes:
    """An AVIF or HEIC file with a false size: its `ispe` boxes are rewritten, its data is not."""
    box = heif.index(b"ispe")
    size = heif[box + 8 : box + 16]
    return heif.replace(b"ispe\0\0\0\0" + size, b"ispe\0\0\0\0" + struct.pack(">II", width, height))
