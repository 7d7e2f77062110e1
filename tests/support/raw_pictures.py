"""Builds PNG, GIF, WebP and JPEG files from their parts, for features that no library writes on request."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from samples.files import png_chunk

type Samples = np.ndarray[Any, np.dtype[Any]]
"""Height x width x channels, or height x width."""

# PNG (W3C, third edition)

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png(
    samples: Samples,
    depth: int = 8,
    colours: int = RGB,
    *,
    interlaced: bool = False,
    line_filter: int = 0,
    before: bytes = b"",
    after: bytes = b"",
    pieces: int = 1,
) -> bytes:
    """`before` and `after` are chunks around the pixels, which are spread over so many IDAT chunks."""
    high, wide = samples.shape[:2]
    header = struct.pack(">IIBBBBB", wide, high, depth, colours, 0, 0, interlaced)
    packed = scanlines(samples, depth, interlaced=interlaced, line_filter=line_filter)
    step = -(-len(packed) // pieces)
    data = b"".join(png_chunk(b"IDAT", packed[at : at + step]) for at in range(0, len(packed), step))
    return SIGNATURE + png_chunk(b"IHDR", header) + before + data + after + png_chunk(b"IEND", b"")


def scanlines(samples: Samples, depth: int = 8, *, interlaced: bool = False, line_filter: int = 0) -> bytes:
    """The compressed pixels of a PNG, as in IDAT and fdAT."""
    passes = [samples[y::down, x::right] for y, x, down, right in _ADAM7] if interlaced else [samples]
    raw = b""
    for part in passes:
        lines = [_packed(line, depth) for line in part if part.size]
        width = max(1, samples[0, 0].size * depth // 8)
        for line, above in zip(lines, [bytes(len(line)) for line in lines[:1]] + lines, strict=False):
            raw += bytes([line_filter]) + _filtered(line, above, width, line_filter)
    return zlib.compress(raw)


def _packed(line: Samples, depth: int) -> bytes:
    flat = line.reshape(-1)
    if depth >= 8:
        return flat.astype(">u2" if depth == 16 else "u1").tobytes()
    bits = (flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype("u1").reshape(-1)).tobytes()


def _filtered(line: bytes, above: bytes, width: int, kind: int) -> bytes:
    left, corner = bytes(width) + line, bytes(width) + above
    return bytes((x - _guess(kind, *near)) & 255 for x, *near in zip(line, left, above, corner, strict=False))


def _guess(kind: int, left: int, above: int, corner: int) -> int:
    paeth = min(
        (abs(above - corner), 0, left), (abs(left - corner), 1, above), (abs(left + above - 2 * corner), 2, corner)
    )
    return (0, left, above, (left + above) // 2, paeth[2])[kind]


def apng(frames: Sequence[tuple[Samples, tuple[int, int], int, int, int, int]], plays: int = 0, **still: Any) -> bytes:
    """Frames of (pixels, (left, top), delay's numerator, denominator, disposal, blending); RGBA unless `still` says."""
    before, after, number = b"", b"", 0
    for samples, (left, top), numerator, denominator, disposal, blending in frames:
        high, wide = samples.shape[:2]
        place = struct.pack(">5IHHBB", number, wide, high, left, top, numerator, denominator, disposal, blending)
        if number:
            data = struct.pack(">I", number + 1) + scanlines(samples, still.get("depth", 8))
            after += png_chunk(b"fcTL", place) + png_chunk(b"fdAT", data)
        else:
            before = png_chunk(b"acTL", struct.pack(">II", len(frames), plays)) + png_chunk(b"fcTL", place)
        number += 2 if number else 1
    before = still.pop("before", b"") + before
    return png(frames[0][0], colours=still.pop("colours", RGBA), before=before, after=after, **still)


# GIF (89a)


def gif(blocks: Iterable[bytes], size: tuple[int, int], palette: bytes = b"", version: bytes = b"89a") -> bytes:
    """`palette`: the global table's red, green and blue, of 2, 4, 8 ... 256 colours."""
    flags = 0x80 | (len(palette) // 3).bit_length() - 2 if palette else 0
    return b"GIF" + version + struct.pack("<HHBBB", *size, flags, 0, 0) + palette + b"".join(blocks) + b"\x3b"


def gif_control(disposal: int = 0, delay: int = 0, transparent: int | None = None) -> bytes:
    """A graphic control extension; the delay is in hundredths of a second."""
    flags = disposal << 2 | (transparent is not None)
    return b"\x21\xf9\x04" + struct.pack("<BHB", flags, delay, transparent or 0) + b"\0"


def gif_loop(times: int, name: bytes = b"NETSCAPE2.0") -> bytes:
    return b"\x21\xff\x0b" + name + b"\x03\x01" + struct.pack("<H", times) + b"\0"


def gif_frame(
    indices: Samples, place: tuple[int, int] = (0, 0), palette: bytes = b"", bits: int = 8, *, interlaced: bool = False
) -> bytes:
    """Uncompressed LZW: a clear code before the width of the codes would grow."""
    high, wide = indices.shape
    flags = (0x80 | (len(palette) // 3).bit_length() - 2 if palette else 0) | 0x40 * interlaced
    if interlaced:
        indices = np.concatenate([indices[0::8], indices[4::8], indices[2::4], indices[1::2]])
    codes: list[int] = []
    for at, index in enumerate(indices.reshape(-1)):
        if at % (2**bits - 2) == 0:
            codes.append(1 << bits)
        codes.append(int(index))
    value = shift = 0
    for code in [*codes, (1 << bits) + 1]:
        value |= code << shift
        shift += bits + 1
    data = value.to_bytes(-(-shift // 8), "little")
    blocks = b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255))
    return b"\x2c" + struct.pack("<HHHHB", *place, wide, high, flags) + palette + bytes([bits]) + blocks + b"\0"


# WebP (RFC 9649)


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(riff_chunk(*chunk) for chunk in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) & 1)


def riff_parts(webp: bytes) -> dict[bytes, bytes]:
    """The first chunk of each name."""
    parts: dict[bytes, bytes] = {}
    at = 12
    while at < len(webp):
        (size,) = struct.unpack_from("<I", webp, at + 4)
        parts.setdefault(webp[at : at + 4], webp[at + 8 : at + 8 + size])
        at += 8 + size + (size & 1)
    return parts


def vp8x(size: tuple[int, int], flags: int) -> tuple[bytes, bytes]:
    return b"VP8X", bytes([flags, 0, 0, 0]) + b"".join((side - 1).to_bytes(3, "little") for side in size)


def anmf(pixels: bytes, size: tuple[int, int], place: tuple[int, int], shown: int, flags: int) -> tuple[bytes, bytes]:
    """A frame of the chunks in `pixels`. `flags`: 1 clears its place afterwards, 2 replaces instead of blending."""
    numbers = (place[0] // 2, place[1] // 2, size[0] - 1, size[1] - 1, shown)
    return b"ANMF", b"".join(number.to_bytes(3, "little") for number in numbers) + bytes([flags]) + pixels


# JPEG (ITU-T T.81)


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG file with segments behind its first marker."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


_CATEGORIES = segment(0xC4, b"\0" + bytes((0, 0, 0, 15, *[0] * 12)) + bytes(range(15)))
_END_OF_BLOCK = segment(0xC4, b"\x10" + bytes((1, *[0] * 15)) + b"\0")


def flat_jpeg(
    planes: Sequence[Samples],
    factors: Sequence[tuple[int, int]],
    *,
    names: bytes = b"\1\2\3\4",
    head: bytes = b"",
    frame: int = 0xC0,
    precision: int = 8,
    interval: int = 0,
    apart: bool = False,
    lines: int | None = None,
    wide_tables: bool = False,
) -> bytes:
    """A baseline JPEG whose blocks of 8 x 8 are each of one colour: the means of the planes, all of the full size.

    Args:
        factors: horizontal and vertical, of each component. names: their identifiers.
        head: segments behind the first marker.
        interval: MCUs between restart markers.
        apart: each component has a scan of its own.
        lines: the height that the frame's header states. wide_tables: quantisation with 16 bits.
    """
    high, wide = planes[0].shape
    most_wide, most_high = (max(factor[axis] for factor in factors) for axis in (0, 1))
    across, down = -(-wide // (8 * most_wide)), -(-high // (8 * most_high))
    levels = [_levels(*each, (most_wide, most_high), (across, down)) for each in zip(planes, factors, strict=True)]
    quantisation = struct.pack(">64H", *[8] * 64) if wide_tables else bytes([8] * 64)
    components = b"".join(bytes((name, h << 4 | v, 0)) for name, (h, v) in zip(names, factors, strict=False))
    size = struct.pack(">BHHB", precision, high if lines is None else lines, wide, len(planes))
    out = b"\xff\xd8" + head + segment(0xDB, bytes([0x10 * wide_tables]) + quantisation)
    out += segment(frame, size + components) + _CATEGORIES + _END_OF_BLOCK
    out += segment(0xDD, struct.pack(">H", interval)) if interval else b""
    for scan in [[n] for n in range(len(planes))] if apart else [list(range(len(planes)))]:
        out += segment(0xDA, bytes([len(scan)]) + b"".join(bytes((names[n], 0)) for n in scan) + b"\0\x3f\0")
        out += _entropy([levels[n] for n in scan], [factors[n] for n in scan], (across, down), interval)
    return out + (segment(0xDC, struct.pack(">H", high)) if lines == 0 else b"") + b"\xff\xd9"


def _levels(plane: Samples, factor: tuple[int, int], most: tuple[int, int], mcus: tuple[int, int]) -> Samples:
    """The DC coefficient of every block, quantised by 8: with that it is the mean, less half of the range."""
    tall, broad = 8 * most[1] // factor[1], 8 * most[0] // factor[0]
    rows, columns = mcus[1] * factor[1], mcus[0] * factor[0]
    below, beside = rows * tall - plane.shape[0], columns * broad - plane.shape[1]
    full = np.pad(plane.astype(int), ((0, max(0, below)), (0, max(0, beside))), mode="edge")
    return (
        full[: rows * tall, : columns * broad].reshape(rows, tall, columns, broad).mean(axis=(1, 3)).round().astype(int)
        - 128
    )


def _entropy(levels: list[Samples], factors: list[tuple[int, int]], mcus: tuple[int, int], interval: int) -> bytes:
    if len(levels) == 1:  # the blocks of a scan of one component follow each other
        mcus, factors = levels[0].shape[::-1], [(1, 1)]
    out, bits, last = b"", "", [0] * len(levels)
    for number in range(mcus[0] * mcus[1]):
        if interval and number and number % interval == 0:
            out += _stuffed(bits) + bytes((0xFF, 0xD0 + (number // interval - 1) % 8))
            bits, last = "", [0] * len(levels)
        row, column = divmod(number, mcus[0])
        for which, ((h, v), plane) in enumerate(zip(factors, levels, strict=True)):
            for level in plane[row * v : (row + 1) * v, column * h : (column + 1) * h].reshape(-1):
                change, last[which] = int(level) - last[which], int(level)
                size = abs(change).bit_length()
                bits += (
                    f"{size:04b}" + (f"{change if change > 0 else change + 2**size - 1:0{size}b}" if size else "") + "0"
                )
    return out + _stuffed(bits)


def _stuffed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0") if bits else b""
