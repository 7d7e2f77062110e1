"""Decisions about a clip by pure arithmetic, without decoders or processes."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from operator import sub
from struct import unpack
from typing import BinaryIO, Final, Literal

Container = Literal["mov", "matroska", "avi", "asf"]
"""The allowed demuxers, by FFmpeg's names: MP4 and MOV, WebM and Matroska, AVI, WMV."""

_NOT_CLIPS: Final = {
    # pictures
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"hevx",
    b"hevm",
    b"hevs",
    b"mif1",
    b"mif2",
    b"mif3",
    b"miaf",
    b"msf1",
    b"heif",
    b"avif",
    b"avis",
    b"jxl ",
    b"jp2 ",
    b"crx ",
    # sound
    b"M4A ",
    b"M4B ",
    b"M4P ",
    b"F4A ",
    b"F4B ",
}
_QUICKTIME_ATOMS: Final = {b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_ASF_HEADER: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_UNBOUNDED: Final = {b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"}
"""Segment and Cluster, the elements of a WebM file that may have an unknown size."""
_MOST_ELEMENTS: Final = 200_000
"""Of a WebM, or boxes of an MP4: more than twice what 300 seconds of 240 frames and 50 packets of sound have."""
_BEYOND: Final = 1 << 40
"""Behind the end of any file: a box or an element may have 2**64 bytes, too far to seek to."""
_ASF_PROPERTIES: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_HEAD: Final = 4096
"""Bytes in which the properties are searched."""

# Values of ITU-T H.273, which FFmpeg uses as they are.
RGB: Final = 0
BT709: Final = 1
UNSPECIFIED: Final = 2
BT601: Final = 5
KNOWN_MATRICES: Final = frozenset({BT709, 4, BT601, 6, 7, 9})
KNOWN_PRIMARIES: Final = frozenset({BT709, *range(4, 13), 22})
KNOWN_CURVES: Final = frozenset({BT709, *range(4, 9), *range(11, 19)})
"""What FFmpeg's filters accept. They fail at others: reserved numbers, YCgCo, logarithmic curves."""
TV_RANGE: Final = 1
FULL_RANGE: Final = 2

BLACK: Final = 0.06
"""Mean brightness, 0 to 1, below which a frame looks black."""


def container_of(head: bytes) -> Container | None:
    """Recognises the container from the first 64 bytes or more of a file; None if it is not an accepted one.

    Never uses the name, the content type, or FFmpeg's own probing, which knows 300 formats, some of which (HLS,
    concat, SDP) open other files and URLs.
    """
    if head[4:8] == b"ftyp":
        return None if head[8:12] in _NOT_CLIPS else "mov"
    if head[4:8] in _QUICKTIME_ATOMS:
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3" and (b"webm" in head[:64] or b"matroska" in head[:64]):
        return "matroska"  # Chrome calls its recordings WebM, also those of H.264, whose file says "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith(_ASF_HEADER):
        return "asf"
    return None


def promised_bytes(file: BinaryIO, container: Container) -> int:
    """The least size that the file's header implies, 0 if it does not say. A shorter file is truncated."""
    match container:
        case "mov":
            return _end_of_boxes(file)
        case "matroska":
            return _end_of_elements(file)
        case "avi":  # the size of the first RIFF chunk
            size = int.from_bytes(_read_at(file, 0)[4:8], "little")
            return size + 8 if size < 0xFFFFFFFF else 0
        case "asf":
            return _length_of_asf(_read_at(file, 0, _ASF_HEAD))


def _length_of_asf(head: bytes) -> int:
    """The size in the File Properties Object (ASF specification, 3.2), unless it is marked as a broadcast."""
    place = head.find(_ASF_PROPERTIES)
    if place < 0 or int.from_bytes(head[place + 88 : place + 92], "little") & 1:
        return 0
    return int.from_bytes(head[place + 40 : place + 48], "little")


def _end_of_elements(file: BinaryIO) -> int:
    """Where the last element of a WebM file ends (RFC 8794 and 9559); 0 if there is something else, or no known end.

    A browser records without knowing the final size of the Segment and its Clusters: the elements inside have sizes.
    """
    at = 0
    for _ in range(_MOST_ELEMENTS):
        head = _read_at(file, at)
        if not head:
            return at
        id_length = _ebml_length(head, 0)
        body = at + id_length + _ebml_length(head, id_length)
        if id_length > 4 or body - at > len(head):
            return body if id_length <= 4 else 0
        size, length = _ebml_size(head, id_length), body - at - id_length
        unknown = size == (1 << 7 * length) - 1
        if unknown and head[:id_length] not in _UNBOUNDED:
            return 0
        at = body if unknown else body + size
    return 0


def _ebml_length(head: bytes, at: int) -> int:
    return 9 - head[at].bit_length() if at < len(head) else 9


def _ebml_size(head: bytes, at: int) -> int:
    length = _ebml_length(head, at)
    return int.from_bytes(head[at : at + length]) & (1 << 7 * length) - 1


def _end_of_boxes(file: BinaryIO) -> int:
    """Where the last box of an MP4 or MOV file ends by its header; 0 if there is other data between boxes, or if there
    are too many boxes."""
    at = 0
    for _ in range(_MOST_ELEMENTS):
        head = _read_at(file, at)
        if len(head) < 8:
            return at
        size = int.from_bytes(head[:4])
        if size == 1:
            size = int.from_bytes(head[8:])
        if size < 8 or not head[4:8].isalnum():
            return 0
        at += size
    return 0


def _read_at(file: BinaryIO, at: int, size: int = 16) -> bytes:
    file.seek(min(at, _BEYOND))
    return file.read(size)


def fit(width: float, height: float, long_side: int, short_side: int) -> tuple[int, int]:
    """The largest even size within the box and the source that keeps its shape: never enlarged, at least 2 x 2."""
    scale = min(1.0, long_side / max(width, height), short_side / min(width, height))
    return max(2, int(width * scale + 1e-6) // 2 * 2), max(2, int(height * scale + 1e-6) // 2 * 2)


def turn_of(matrix: bytes | None) -> tuple[tuple[tuple[str, str], ...], bool]:
    """The filters that set a frame upright, and whether they swap width and height.

    `matrix` is a display matrix as in ISO/IEC 14496-12 (8.5.3): nine 32-bit integers, of which a, b, c, d at 0, 1, 3, 4
    map a stored pixel to x' = ax + cy, y' = bx + dy. Any other transform becomes the nearest turn or mirroring.
    """
    if not matrix:
        return (), False
    a, b, _, c, d = unpack("=5i", matrix[:20])
    if abs(b) > abs(a):
        direction = {(True, False): "clock", (False, True): "cclock", (True, True): "cclock_flip"}
        return (("transpose", f"dir={direction.get((b > 0, c > 0), 'clock_flip')}"),), True
    return tuple((name, "") for name, value in (("hflip", a), ("vflip", d)) if value < 0), False


def crop_of(side_data: bytes | None) -> tuple[int, int, int, int]:
    """The crop of a clean aperture or a WebM's PixelCrop: (left, top, right, bottom), never less than stated.

    Rounded up to whole chroma samples, which are two pixels wide: a partial one would be shown entirely.
    """
    if not side_data:
        return 0, 0, 0, 0
    top, bottom, left, right = (cut + cut % 2 for cut in unpack("=4I", side_data[:16]))
    return left, top, right, bottom


def square_pixels(width: int, height: int, aspect: Fraction | None) -> tuple[float, float]:
    """The size of a frame with square pixels, by shrinking one side: enlarging would invent pixels."""
    if not aspect or not Fraction(1, 8) <= aspect <= 8:
        return width, height
    return (width, height / float(aspect)) if aspect > 1 else (width * float(aspect), height)


def matrix_of(colorspace: int, lines: int) -> int:
    """The colour matrix of a frame. If it states no known one, this is BT.709 from 720 lines up, as in browsers."""
    if colorspace in KNOWN_MATRICES:
        return colorspace
    return BT709 if lines >= 720 else BT601


def score(rows: Sequence[bytes]) -> float:
    """How well a frame represents its clip: 0 for black, white or flat; higher for sharper and better lit.

    Sharpness is the mean square of the second differences along rows and columns, the energy of the modified Laplacian
    (Nayar and Nakagawa, IEEE PAMI 1994), which blur and fades both lower. `rows` are the luma plane's, 16 (black) to
    235 (white), of a frame scaled to about 320 pixels.
    """
    light = brightness(rows)
    exposure = max(0.0, min(1.0, (light - BLACK) / 0.14, (1 - BLACK - light) / 0.14))
    if not exposure or len(rows) < 3 or len(rows[0]) < 3:
        return 0.0
    # Slices, map and sumprod run at the speed of C: 3 ms for 320 x 180.
    down = [list(map(sub, below, row)) for row, below in pairwise(rows)]
    across = [list(map(sub, row[1:], row)) for row in rows]
    energy = sum(_square(map(sub, second, first)) for first, second in pairwise(down))
    energy += sum(_square(map(sub, slope[1:], slope)) for slope in across)
    return exposure * energy / (len(rows) * len(rows[0]))


def _square(values: Iterable[int]) -> int:
    numbers = list(values)
    return int(math.sumprod(numbers, numbers))


def brightness(rows: Sequence[bytes]) -> float:
    """Mean brightness of a luma plane's rows, 0 (black) to 1 (white)."""
    return (sum(map(sum, rows)) / max(1, sum(map(len, rows))) - 16) / 219
