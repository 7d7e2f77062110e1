"""The frames of an APNG (W3C PNG, third edition, 13)."""

import struct
from struct import unpack_from

from pictures import png
from pictures.canvas import PREVIOUS, Animation, Frame
from pictures.formats import Format
from pictures.headers import Source
from social.refusals import Code, Rejected


def opened(source: Source) -> Animation:
    """Opens the animation without decoding. Raises Rejected if its parts do not fit together."""
    size = source.header.width, source.header.height
    ihdr = b""
    shared: list[bytes] = []
    controls: list[bytes] = []
    pixels: list[list[bytes]] = []
    count = plays = parts = 0
    for one in png.chunks(source.data):
        if one.name in (b"fcTL", b"fdAT"):
            if one.data[:4] != parts.to_bytes(4):
                raise Rejected(Code.DAMAGED, f"part {parts} of the APNG is in the wrong place")
            parts += 1
        match one.name:
            case b"IHDR":
                ihdr = one.data
            case b"PLTE" | b"tRNS":
                shared.append(one.raw)
            case b"acTL":
                count, plays = unpack_from(">II", one.data)
            case b"fcTL":
                controls.append(one.data)
                pixels.append([])
            case b"IDAT" if controls:  # without a control before it, the still is not one of the frames
                pixels[-1].append(one.raw)
            case b"fdAT":
                pixels[-1].append(png.chunk(b"IDAT", one.data[4:]))
    if len(controls) != count or not all(pixels):
        raise Rejected(Code.TRUNCATED, f"the APNG declares {count} frames, but some are missing")
    frames = [
        _frame(control, size, (png.SIGNATURE, png.chunk(b"IHDR", control[4:12] + ihdr[8:]), *shared, *data, png.END))
        for control, data in zip(controls, pixels, strict=True)
    ]
    # Greyscale stays greyscale: its profile is a greyscale profile.
    return Animation(Format.PNG, size, frames, plays, "RGBA" if ihdr[9] & 2 else "LA")


def _frame(control: bytes, canvas: tuple[int, int], file: tuple[bytes, ...]) -> Frame:
    width, height, left, top, numerator, denominator, disposal, blending = struct.unpack(">4IHHBB", control[4:])
    place = left, top, left + width, top + height
    if not width * height or place[2] > canvas[0] or place[3] > canvas[1] or disposal > PREVIOUS or blending > 1:
        raise Rejected(Code.DAMAGED, "a frame of the APNG extends beyond its canvas")
    return Frame(place, 1000 * numerator / (denominator or 100), disposal, blending == 1, file)
