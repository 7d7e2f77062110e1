"""Recognises a file by its first bytes: an accepted format, or the code for what it is instead."""

from enum import StrEnum
from typing import Final

from social.refusals import Code, Rejected


class Format(StrEnum):
    """The accepted formats, by Pillow's names (HEIC is HEIF there)."""

    JPEG = "JPEG"
    PNG = "PNG"
    GIF = "GIF"
    WEBP = "WEBP"
    AVIF = "AVIF"
    HEIF = "HEIF"


_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_ANY_CODEC = frozenset({b"mif1", b"mif2", b"mif3", b"msf1", b"miaf", b"heif"})
"""These mean "HEIF structure" and leave the codec to the compatible brands."""

_OTHERS: Final[tuple[tuple[bytes, Code], ...]] = (
    (b"II*\0\x10\0\0\0CR", Code.RAW),
    (b"IIRO", Code.RAW),
    (b"IIRS", Code.RAW),
    (b"IIU\0", Code.RAW),
    (b"FUJIFILMCCD-RAW", Code.RAW),
    (b"FOVb", Code.RAW),
    (b"\0MRM", Code.RAW),
    (b"II*\0", Code.TIFF),
    (b"MM\0*", Code.TIFF),
    (b"II+\0", Code.TIFF),
    (b"MM\0+", Code.TIFF),
    (b"BM", Code.BMP),
    (b"8BPS", Code.PHOTOSHOP),
    (b"%PDF", Code.PDF),
    (b"%!PS", Code.POSTSCRIPT),
    (b"\xc5\xd0\xd3\xc6", Code.POSTSCRIPT),
    (b"\0\0\1\0", Code.ICON),
    (b"\0\0\0\x0cjP  ", Code.JPEG_2000),
    (b"\xff\x4f\xff\x51", Code.JPEG_2000),
    (b"\xff\x0a", Code.JPEG_XL),
    (b"\0\0\0\x0cJXL ", Code.JPEG_XL),
    (b"\x1aE\xdf\xa3", Code.OTHER_CLIP),
    (b"FLV\1", Code.OTHER_CLIP),
    (b"\0\0\1\xba", Code.OTHER_CLIP),
    (b".RMF", Code.OTHER_CLIP),
    (b"OggS", Code.OTHER_CLIP),
    (b"ID3", Code.SOUND),
    (b"fLaC", Code.SOUND),
    (b"\xff\xfb", Code.SOUND),
    (b"\xff\xf3", Code.SOUND),
    (b"\xff\xf1", Code.SOUND),
    (b"#!AMR", Code.SOUND),
    (b"PK\3\4", Code.ARCHIVE),
    (b"Rar!", Code.ARCHIVE),
    (b"7z\xbc\xaf", Code.ARCHIVE),
    (b"\x1f\x8b", Code.ARCHIVE),
    (b"\xd0\xcf\x11\xe0", Code.ARCHIVE),
)
_SIGNS_OF_RAW = (b"NIKON", b"\xc6\x12\0\1", b"\x12\xc6\1\0")
"""In the head of a TIFF: the last two are the tag DNGVersion and its type, in either byte order."""
_BRANDS: Final = {
    b"crx ": Code.RAW,
    b"jxl ": Code.JPEG_XL,
    b"jp2 ": Code.JPEG_2000,
    **dict.fromkeys((b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "), Code.SOUND),
}


def sniff(source: bytes) -> Format | None:
    """The format that the first bytes prove, or None. Ignores names and Content-Types, which the sender controls.

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
        brands = compatible if major in _ANY_CODEC else {major}
        if brands & _AVIF_BRANDS:
            return Format.AVIF
        if brands & _HEIC_BRANDS or brands <= _ANY_CODEC:  # some HEICs state no codec; another codec is found later
            return Format.HEIF
    return None


def _compatible_brands(source: bytes) -> set[bytes]:
    end = min(int.from_bytes(source[:4]), len(source), 256)
    return {source[at : at + 4] for at in range(16, end - 3, 4)}


def unsupported(source: bytes) -> Rejected:
    """The refusal for a file that is neither an accepted picture nor a clip by its first bytes."""
    if not source:
        return Rejected(Code.EMPTY, "the upload is empty")
    return Rejected(_code_of(source), f"begins with the bytes {source[:16].hex(' ')}")


def _code_of(source: bytes) -> Code:
    head = source[:1024]
    for signature, code in _OTHERS:
        if source.startswith(signature):
            is_raw = code is Code.TIFF and any(sign in head for sign in _SIGNS_OF_RAW)
            return Code.RAW if is_raw else code
    if source[4:8] == b"ftyp":
        return _BRANDS.get(source[8:12], Code.HEIF_CODEC if source[8:12] in _ANY_CODEC else Code.OTHER_CLIP)
    if source.startswith(b"RIFF"):
        return Code.SOUND if source[8:12] == b"WAVE" else Code.UNKNOWN
    if source[:1] == b"G" and source[188:189] in (b"G", b""):  # the packets of an MPEG transport stream
        return Code.OTHER_CLIP if source[188:189] else Code.UNKNOWN
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text:
        return Code.SVG
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--")):
        return Code.HTML
    return Code.UNKNOWN
