"""GIF87a and GIF89a: the canvas and the frames."""

from struct import pack, unpack_from
from typing import Final

from pictures.canvas import CLEAR, KEEP, MEMORY, PREVIOUS, Animation, Frame
from pictures.formats import Format
from pictures.headers import Header, Source
from social.refusals import Code, Rejected

_LOOPS: Final = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_MOST_FRAMES: Final = 65_536
"""More than any limit allows: each one takes a kilobyte here."""
_DISPOSALS: Final = {2: CLEAR, 3: PREVIOUS}


class _Blocks:
    """Parses a file's blocks. Raises IndexError or struct.error if it ends within a field."""

    def __init__(self, source: bytes) -> None:
        self.width, self.height, flags = unpack_from("<HHB", source, 6)
        self.head = source[10 : 13 + _table_size(flags)]
        self.frames: list[Frame] = []
        self.plays = 1
        self._view = memoryview(source)
        self._control = b"\0\0\0\0"
        at = 10 + len(self.head)
        self.ended = False
        while at < len(source) and not self.ended:
            block, at = source[at], at + 1
            if block == 0x3B:
                self.ended = True
            elif block == 0x2C:
                at = self._frame(source, at)
            elif block == 0x21:
                self._extension(source, at)
                at = _after_sub_blocks(source, at + 1)
        self.ended = self.ended and at <= len(source)

    def _extension(self, source: bytes, at: int) -> None:
        if source[at : at + 2] == b"\xf9\4":
            self._control = source[at + 2 : at + 6].ljust(4, b"\0")
        elif source[at : at + 2] == b"\xff\x0b" and source[at + 2 : at + 13] in _LOOPS and source[at + 14] == 1:
            (times,) = unpack_from("<H", source, at + 15)
            self.plays = min(times + 1, 65_535) if times else 0

    def _frame(self, source: bytes, at: int) -> int:
        if len(self.frames) == _MOST_FRAMES:
            raise Rejected(Code.TOO_MANY_FRAMES, f"more than {_MOST_FRAMES} frames")
        left, top, width, height, flags = unpack_from("<HHHHB", source, at)
        self.width, self.height = max(self.width, left + width), max(self.height, top + height)
        end = _after_sub_blocks(source, at + 9 + _table_size(flags) + 1)
        flag, delay, _ = unpack_from("<BHB", self._control)
        head = b"GIF89a" + pack("<HH", width, height) + self.head
        control = b"\x21\xf9\4" + self._control + b"\0"
        alone = (head, control, b"\x2c\0\0\0\0", self._view[at + 4 : end], b"\0\x3b")
        disposal = _DISPOSALS.get(flag >> 2 & 7, KEEP)
        place = left, top, left + width, top + height
        self.frames.append(Frame(place, 10.0 * delay, disposal, over=True, file=alone))
        self._control = b"\0\0\0\0"
        return end


def read(source: bytes) -> Source:
    """The canvas is the logical screen, enlarged to hold frames that extend beyond it, as decoders do.

    Adds a missing terminator at the end. Raises Rejected, and IndexError or struct.error if the file ends within a
    field.
    """
    blocks = _Blocks(source)
    if not blocks.frames:
        raise Rejected(Code.TRUNCATED, "the GIF file ends before its first frame")
    header = Header(Format.GIF, blocks.width, blocks.height, frames=len(blocks.frames), bytes_a_pixel=_memory(blocks))
    return Source(header, source if blocks.ended else source + b"\0\x3b")


def opened(source: Source) -> Animation | None:
    """The frames to compose; None for a single frame that fills its canvas."""
    blocks = _Blocks(source.data)
    if _memory(blocks) is None:
        return None
    frames = [frame for frame in blocks.frames if frame.place[0] < frame.place[2] and frame.place[1] < frame.place[3]]
    return Animation(Format.GIF, (blocks.width, blocks.height), frames, blocks.plays, "RGBA")


def _memory(blocks: _Blocks) -> float | None:
    return None if [frame.place for frame in blocks.frames] == [(0, 0, blocks.width, blocks.height)] else MEMORY


def _table_size(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(source: bytes, at: int) -> int:
    while at != len(source) and (size := source[at]):
        at += 1 + size
    return at + 1
