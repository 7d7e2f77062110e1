"""PNG and APNG (W3C, third edition): header, colours, and the file without chunks that do not affect pixels.

Generators put megabytes of prompts into text chunks, and editors write broken profiles. Needed chunks are checked here;
unneeded ones, and broken optional ones, never reach the decoder.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import unpack_from
from typing import Final

from colours import icc
from colours.light import HDR
from pictures.canvas import MEMORY
from pictures.exif import orientation_of
from pictures.formats import Format
from pictures.headers import Header, Source
from social.refusals import Code, Rejected

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PIXELS: Final = frozenset({b"IHDR", b"PLTE", b"IDAT"})
_ANIMATION: Final = frozenset({b"acTL", b"fcTL", b"fdAT"})
_LARGEST_PROFILE: Final = 4 << 20
_NOTES: Final = frozenset({b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf"})
_LARGEST_PALETTE: Final = 3 * 256
_KEY_BYTES: Final = {0: 2, 2: 6}


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk with readable data."""

    name: bytes
    data: bytes
    raw: bytes
    """The raw chunk from the file, or its corrected form."""


def read(source: bytes, *, animated: bool = True) -> Source:
    """Raises Rejected, and struct.error if the header is truncated. `animated`=False takes the still of an APNG."""
    if source[12:16] != b"IHDR":
        raise Rejected(Code.DAMAGED, "the PNG file does not begin with its header")
    width, height, depth, colours = unpack_from(">IIBB", source, 16)
    kept: list[bytes] = [SIGNATURE]
    notes: dict[bytes, bytes] = {}
    frames = pixels = 0
    seen = set[bytes]()
    ends_early = True
    for one in chunks(source):
        if one.name == b"IEND":
            ends_early = False
            break
        if one.name == b"acTL" and animated and not pixels:
            (frames,) = unpack_from(">I", one.data)
        pixels += one.name == b"IDAT"
        if one.name in (b"PLTE", b"tRNS"):  # the first counts, and only it: an APNG repeats it in each frame
            if one.name not in seen:
                kept.append(_palette(one, colours) if one.name == b"PLTE" else _transparency(one, depth, colours))
        elif one.name in _PIXELS or (animated and one.name in _ANIMATION):
            kept.append(one.raw)
        elif not one.name[0] & 0x20:
            raise Rejected(Code.DAMAGED, f"the PNG file has a critical chunk {one.name!r}")
        elif one.name in _NOTES and (not pixels or one.name == b"eXIf"):  # colour chunks after the pixels are too late
            notes.setdefault(one.name, one.data)
        seen.add(one.name)
    if not pixels:
        raise Rejected(Code.TRUNCATED, "the PNG file ends before its pixels")
    if animated and frames <= 1 and seen & _ANIMATION:
        return read(source, animated=False)  # Pillow would count the still as a frame
    coding = notes.get(b"cICP", b"")
    return Source(
        Header(Format.PNG, width, height, frames=max(1, frames), bytes_a_pixel=MEMORY if frames > 1 else None),
        b"".join([*kept, END]),
        orientation=orientation_of(notes.get(b"eXIf", b"")),
        profile=_profile(notes, grey=not colours & 2),
        light=(coding[0], coding[1]) if len(coding) == 4 and coding[1] in HDR else None,
        ends_early=ends_early,
        narrow=len(coding) == 4 and not coding[3],
    )


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))


END: Final = chunk(b"IEND", b"")


def _palette(given: Chunk, colours: int) -> bytes:
    """A PLTE chunk for the decoder: empty where it is only a suggestion. Raises Rejected if it is too long."""
    if colours != 3:
        return b""
    if len(given.data) > _LARGEST_PALETTE:
        raise Rejected(Code.DAMAGED, f"the PNG file has a palette of {len(given.data)} bytes")
    return given.raw


def _transparency(given: Chunk, depth: int, colours: int) -> bytes:
    """A tRNS chunk for the decoder: empty if it has the wrong length, and scaled like Pillow's samples.

    Only as many bits of a key count as a sample has.
    """
    if colours == 3:
        return given.raw if len(given.data) <= 256 else b""
    if len(given.data) != _KEY_BYTES.get(colours):
        return b""
    key = [value & (1 << depth) - 1 for value in unpack_from(f">{len(given.data) // 2}H", given.data)]
    if depth in (2, 4):
        key = [value * 255 // ((1 << depth) - 1) for value in key]
    return chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))


def chunks(source: bytes) -> Iterator[Chunk]:
    """The usable chunks. Skips a broken optional chunk; raises Rejected for a broken required one."""
    at = len(SIGNATURE)
    while at + 8 <= len(source):
        (length,) = unpack_from(">I", source, at)
        name, end = source[at + 4 : at + 8], at + 8 + length
        optional = bool(name[:1] and name[0] & 0x20)
        data = source[at + 8 : end]
        raw = source[at : end + 4]
        if len(data) < length:
            if optional and name not in _ANIMATION:
                return
            raise Rejected(Code.TRUNCATED, f"the PNG file ends within its chunk {name!r}")
        if len(raw) < 12 + length:  # all of the data, but not all of the checksum
            raw = source[at:end] + struct.pack(">I", zlib.crc32(name + data))
        # Checking a chunk that is dropped would waste time.
        good = name in _PIXELS or name in _ANIMATION or zlib.crc32(name + data) == unpack_from(">I", raw, 8 + length)[0]
        if good or not optional:
            yield Chunk(name, data, raw)
        at = end + 4


def _profile(notes: dict[bytes, bytes], *, grey: bool) -> bytes | None:
    """The profile, by the specification's precedence: cICP, iCCP, sRGB, gAMA with cHRM. Unreadable means sRGB."""
    if len(coding := notes.get(b"cICP", b"")) == 4 and not grey:
        return icc.of_code_points(coding[0], coding[1])
    if packed := notes.get(b"iCCP"):
        name, _, rest = packed.partition(b"\0")
        unpacker = zlib.decompressobj()
        try:
            profile = unpacker.decompress(rest[1:], _LARGEST_PROFILE)
        except zlib.error:
            return None
        return profile if name and unpacker.eof else None
    if len(notes.get(b"sRGB", b"")) == 1:
        return None
    if len(gamma := notes.get(b"gAMA", b"")) == 4:
        points = notes.get(b"cHRM", b"")
        whites = tuple(value / 100_000 for value in unpack_from(">8I", points)) if len(points) == 32 else None
        return icc.of_gamma(unpack_from(">I", gamma)[0] / 100_000, whites, grey=grey)
    return None
