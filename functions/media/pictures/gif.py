"""GIF87a and GIF89a: the canvas and the frames."""

from struct import unpack_from

from pictures.formats import Format
from pictures.headers import Header, Source
from social.refusals import Code, Rejected


def read(source: bytes) -> Source:
    """The canvas is the logical screen, grown to hold the frames that reach beyond it, as decoders do.

    Raises Rejected, and IndexError or struct.error where the file ends within a field. One that ends where a terminator
    should follow is given it.
    """
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
        raise Rejected(Code.TRUNCATED, "the GIF file ends before its first frame")
    whole = at <= len(source) and source[at - 1 : at] == b"\x3b"
    return Source(Header(Format.GIF, width, height, frames=frames), source if whole else source + b"\0\x3b")


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(source: bytes, at: int) -> int:
    while at != len(source) and (size := source[at]):
        at += 1 + size
    return at + 1
