"""What a picture is, read from its first bytes and its markers, so that nothing hostile is ever decoded to find out.

Pure functions over bytes. A few kilobytes can unpack into gigabytes of pixels, minutes of CPU or ten thousand frames;
everything that the limits speak of stands in plain fields of the six formats, and is read here without a decoder.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from struct import unpack_from

from social.refusals import Rejected


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one upload may ask of us. Pixels are width x height as stored; frame pixels are frames x pixels."""

    bytes: int = 50 * 1024 * 1024
    pixels: int = 50_000_000
    frames: int = 1_000
    frame_pixels: int = 300_000_000
    scans: int = 100
    """Scans of a JPEG. Encoders write 10 or fewer; each one costs a pass over every coefficient of the picture."""
    scan_pixels: int = 1_000_000_000
    """Scans x pixels of a JPEG: the bound of the CPU time that decoding can take."""


class Format(StrEnum):
    """The accepted formats, by the names under which Pillow knows them (HEIC is HEIF there)."""

    JPEG = "JPEG"
    PNG = "PNG"
    GIF = "GIF"
    WEBP = "WEBP"
    AVIF = "AVIF"
    HEIF = "HEIF"


@dataclass(frozen=True, slots=True)
class Header:
    """Width and height in pixels as stored, before the EXIF orientation; frames of an animation; scans of a JPEG."""

    format: Format
    width: int
    height: int
    frames: int = 1
    scans: int = 1


_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"BM", "a BMP image"),
    (b"8BPS", "a Photoshop document"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript document"),
    (b"\0\0\1\0", "an icon"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"PK\3\4", "a ZIP archive"),
)


def sniff(source: bytes) -> Format | None:
    """The format that the first bytes prove, or None. Names and Content-Types are the sender's word and never asked.

    The first 64 bytes of an object are enough.
    """
    if source.startswith(b"\xff\xd8\xff"):
        return Format.JPEG
    if source.startswith(b"\x89PNG\r\n\x1a\n"):
        return Format.PNG
    if source.startswith((b"GIF87a", b"GIF89a")):
        return Format.GIF
    if source.startswith(b"RIFF") and source[8:12] == b"WEBP":
        return Format.WEBP
    if source[4:8] == b"ftyp":
        major, compatible = source[8:12], _compatible_brands(source)
        # mif1 and msf1 say "HEIF structure" and leave the codec to the compatible brands.
        brands = compatible if major in (b"mif1", b"msf1") else {major}
        if brands & _AVIF_BRANDS:
            return Format.AVIF
        if brands & _HEIC_BRANDS:
            return Format.HEIF
    return None


def _compatible_brands(source: bytes) -> set[bytes]:
    end = min(int.from_bytes(source[:4]), len(source), 256)
    return {source[at : at + 4] for at in range(16, end - 3, 4)}


ACCEPTED = "a picture (JPEG, PNG, GIF, WebP, AVIF, HEIC) nor a clip (MP4, MOV, WebM, AVI, WMV)"
"""What an upload may be: what is no clip by its first bytes comes here."""


def read_header(source: bytes) -> Header | None:
    """The header of a JPEG, PNG, GIF or WebP; None for AVIF and HEIC, whose own libraries parse it without decoding.

    Raises Rejected for anything else, and where the header is broken or cut short.
    """
    kind = sniff(source)
    if kind is None:
        raise unsupported(source)
    reader = _READERS.get(kind)
    if reader is None:
        return None
    try:
        return reader(source)
    except (struct.error, IndexError):
        raise Rejected("truncated", f"the {kind} file ends in the middle of its structure") from None


def largest_item(source: bytes, kind: Format) -> Header | None:
    """The largest size that an AVIF or HEIC file states for any of its images (ISO/IEC 23008-12, `ispe`).

    What is shown may be a small cut from it, and would be decoded whole all the same.
    """
    sizes = [unpack_from(">II", source, found.end()) for found in _ISPE.finditer(source, 0, len(source) - 8)]
    if not sizes:
        return None
    return Header(kind, *max(sizes, key=lambda size: size[0] * size[1]))


_ISPE = re.compile(rb"ispe\0\0\0\0")


def check(header: Header, limits: Limits) -> None:
    """Raises Rejected where the header goes beyond the limits."""
    pixels = header.width * header.height
    if not pixels:
        raise Rejected("damaged", f"the picture has no pixels: {header.width} x {header.height}")
    if pixels > limits.pixels:
        size = f"{header.width} x {header.height} is {pixels / 1e6:.1f} megapixels"
        raise Rejected("too_many_pixels", f"{size}, the limit is {limits.pixels / 1e6:g}")
    if header.frames > limits.frames:
        raise Rejected("too_many_frames", f"{header.frames} frames, the limit is {limits.frames}")
    if header.frames > 1 and header.frames * pixels > limits.frame_pixels:
        total = f"{header.frames * pixels / 1e6:.0f} megapixels"
        size = f"{header.frames} frames of {header.width} x {header.height} are {total}"
        raise Rejected("too_many_frames", f"{size}, the limit is {limits.frame_pixels / 1e6:g}")
    if header.scans > limits.scans or (header.scans > 10 and header.scans * pixels > limits.scan_pixels):
        size = f"{header.scans} scans over {header.width} x {header.height} pixels"
        raise Rejected("too_many_scans", f"{size}; {limits.scans} at most, and {limits.scan_pixels / 1e6:g} megapixels")


def unsupported(source: bytes) -> Rejected:
    """The refusal of what is no accepted picture by its first bytes, and is no clip either."""
    if not source:
        return Rejected("empty", "the upload is empty")
    return Rejected("unsupported", f"neither {ACCEPTED} but {_describe(source)}")


def _describe(source: bytes) -> str:
    for signature, name in _OTHERS:
        if source.startswith(signature):
            return name
    if source[4:8] == b"ftyp":
        return f"an ISO media file of brand {source[8:12].decode('ascii', 'replace').strip()!r}"
    text = source[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text:
        return "an SVG document"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--")):
        return "an HTML document"
    return f"a file that begins with the bytes {source[:8].hex(' ')}"


# A marker that means something: not a stuffed zero, not fill, not one of the restart markers inside a scan.
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])", re.DOTALL)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})


def _jpeg(source: bytes) -> Header:
    """ITU T.81: segments of a marker and a length up to the first scan, then entropy-coded data between scans."""
    width = height = components = scans = 0
    many_scans = False
    at = 2
    while found := _JPEG_MARKER.search(source, at):
        marker, at = found[1][0], found.end()
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):
            continue
        (length,) = unpack_from(">H", source, at)
        if marker in _JPEG_FRAMES:
            height, width, components = unpack_from(">HHB", source, at + 3)
            many_scans = marker in _JPEG_PROGRESSIVE
        elif marker == 0xDA:
            scans += 1
            # As in libjpeg: a decoder reads beyond the first scan only if that one left something out.
            if scans == 1 and source[at + 2] >= components and not many_scans:
                break
        at += length
    if not scans or not components:
        raise Rejected("truncated", "the JPEG file ends before its first scan")
    return Header(Format.JPEG, width, height, scans=scans)


def _png(source: bytes) -> Header:
    if source[12:16] != b"IHDR":
        raise Rejected("damaged", "the PNG file does not begin with its header")
    width, height = unpack_from(">II", source, 16)
    frames = 1
    for name, at, _ in _png_chunks(source):
        if name == b"acTL":
            (frames,) = unpack_from(">I", source, at)
        elif name == b"IDAT":
            break
    return Header(Format.PNG, width, height, frames=max(1, frames))


def _png_chunks(source: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 8
    while at < len(source):
        (length,) = unpack_from(">I", source, at)
        yield source[at + 4 : at + 8], at + 8, length
        at += 12 + length


def _gif(source: bytes) -> Header:
    """GIF89a: the canvas is the logical screen, grown to hold the frames that reach beyond it, as decoders do."""
    width, height, flags = unpack_from("<HHB", source, 6)
    at = 13 + _colour_table(flags)
    frames = 0
    while at < len(source):
        block = source[at]
        at += 1
        if block == 0x3B:
            break
        if block == 0x2C:
            left, top, frame_width, frame_height, flags = unpack_from("<HHHHB", source, at)
            width, height = max(width, left + frame_width), max(height, top + frame_height)
            frames += 1
            at = _after_sub_blocks(source, at + 10 + _colour_table(flags))
        elif block == 0x21:
            at = _after_sub_blocks(source, at + 1)
    if not frames:
        raise Rejected("truncated", "the GIF file ends before its first frame")
    return Header(Format.GIF, width, height, frames=frames)


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(source: bytes, at: int) -> int:
    while size := source[at]:
        at += 1 + size
    return at + 1


def _webp(source: bytes) -> Header:
    width = height = frames = 0
    animated = False
    (riff_size,) = unpack_from("<I", source, 4)
    if riff_size + 8 > len(source):
        raise Rejected("truncated", f"the WebP file says {riff_size + 8} bytes and has {len(source)}")
    for name, at in _riff_chunks(source, riff_size + 8):
        if name == b"VP8X":
            animated = bool(source[at] & 0x02)
            width, height = (1 + int.from_bytes(source[at + 4 + 3 * n : at + 7 + 3 * n], "little") for n in (0, 1))
        elif name == b"ANMF":
            frames += 1
        elif name == b"VP8 " and not width:
            width, height = (side & 0x3FFF for side in unpack_from("<HH", source, at + 6))
        elif name == b"VP8L" and not width:
            (bits,) = unpack_from("<I", source, at + 1)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return Header(Format.WEBP, width, height, frames=max(1, frames) if animated else 1)


def _riff_chunks(source: bytes, end: int) -> Iterator[tuple[bytes, int]]:
    at = 12
    while at + 8 <= end:
        (size,) = unpack_from("<I", source, at + 4)
        yield source[at : at + 4], at + 8
        at += 8 + size + (size & 1)


_READERS = {Format.JPEG: _jpeg, Format.PNG: _png, Format.GIF: _gif, Format.WEBP: _webp}
