"""JPEG (ITU T.81, JFIF, Exif): the frame and its scans, and the file without its metadata.

Data not needed for the pixels (EXIF, XMP, IPTC, MPF, gain maps, comments, and anything after the picture, such as the
clip of a motion photo) is removed before decoding, so broken metadata does not cause a refusal.
"""

import re
from struct import unpack_from

from pictures.exif import orientation_of
from pictures.formats import Format
from pictures.headers import Header, Source
from social.refusals import Code, Rejected

# A real marker: not a stuffed zero, not fill, not a restart marker inside a scan.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])", re.DOTALL)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2})
_LOSSLESS = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF})
_ARITHMETIC = frozenset({0xC9, 0xCA})
_EOI = b"\xff\xd9"
_LARGEST_PROFILE = 4 << 20


def read(source: bytes) -> Source:
    """Raises Rejected, and IndexError or struct.error if the file ends within a field."""
    width = height = components = frames = scans = 0
    samples = 0.0
    many_scans = False
    exif = b""
    profile: dict[int, bytes] = {}
    kept = [source[:2]]
    at, first_scan, end = 2, 0, -1
    while found := _MARKER.search(source, at):
        marker, start, at = found[1][0], found.start(), found.end()
        if marker == 0xD9:
            end = start
            break
        if marker in (0x01, 0xD8):
            continue
        (length,) = unpack_from(">H", source, at)
        body = source[at + 2 : at + length]
        if marker in _FRAMES:
            frames += 1
            body = _with_height(body, source, at)
            height, width, components = _frame(marker, body, frames)
            samples = _samples(body, components)
            many_scans = marker in _PROGRESSIVE
        if marker == 0xDA:
            first_scan = first_scan or start
            scans += 1
            # As in libjpeg: a decoder reads past the first scan only if that one is incomplete.
            many_scans = many_scans or source[at + 2] < components
            if not many_scans:
                end = source.find(_EOI, at)  # everything before it is entropy-coded data
                break
        elif marker == 0xE1 and not exif and body.startswith(b"Exif\0\0"):
            exif = body[6:]
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profile.setdefault(body[12], body[14:])
        if not first_scan and _needed(marker, body):
            kept.append(source[start : at + 2] + body)
        at += length
    if not scans or not components:
        raise Rejected(Code.TRUNCATED, "the JPEG file ends before its first scan")
    # All coefficients until the last scan, and all pixels if their presence must be checked.
    cost = (2 * samples if many_scans else 0.0) + (7.0 if end < 0 else 0.0)
    colours = b"".join(profile[number] for number in sorted(profile))
    return Source(
        Header(Format.JPEG, width, height, scans=scans, bytes_a_pixel=cost),
        b"".join([*kept, _scans(source[first_scan : end if end > 0 else len(source)], ended=end > 0), _EOI]),
        orientation=orientation_of(exif),
        profile=colours if 0 < len(colours) <= _LARGEST_PROFILE else None,
        ends_early=end < 0,
    )


def _scans(data: bytes, *, ended: bool) -> bytes:
    """The entropy-coded data, without half a marker at the end."""
    return data if ended else data.rstrip(b"\xff")


def _with_height(frame: bytes, source: bytes, at: int) -> bytes:
    """Fills in a frame's height from the marker after the first scan (DNL), which decoders ignore."""
    marker = source.find(b"\xff\xdc\0\4", at) if frame[1:3] == b"\0\0" else -1
    return frame if marker < 0 else frame[:1] + source[marker + 4 : marker + 6] + frame[3:]


def _frame(marker: int, body: bytes, number: int) -> tuple[int, int, int]:
    if marker in _LOSSLESS:
        raise Rejected(Code.JPEG_LOSSLESS, f"a lossless or hierarchical JPEG, SOF{marker - 0xC0}")
    if marker in _ARITHMETIC:
        raise Rejected(Code.JPEG_ARITHMETIC, "a JPEG with arithmetic coding")
    if number > 1:
        raise Rejected(Code.DAMAGED, "a JPEG with two frames")
    precision, height, width, components = unpack_from(">BHHB", body)
    if precision != 8:
        raise Rejected(Code.JPEG_12_BIT, f"a JPEG with {precision} bits a sample")
    return height, width, components


def _samples(body: bytes, components: int) -> float:
    """Samples per pixel over all components: 3 without subsampling, 1.5 for 4:2:0."""
    factors = [divmod(body[7 + 3 * number], 16) for number in range(components)]
    widest, highest = max((h for h, _ in factors), default=1), max((v for _, v in factors), default=1)
    return sum(h * v for h, v in factors) / max(1, widest * highest)


def _needed(marker: int, body: bytes) -> bool:
    """Whether the decoder needs the segment: two of the APPn define the colours; comments are never needed."""
    if marker == 0xEE:
        return body.startswith(b"Adobe") and len(body) >= 12
    if marker == 0xE0:
        return body.startswith(b"JFIF\0") and len(body) >= 14
    return marker not in range(0xE1, 0xF0) and marker != 0xFE


def with_tail(data: bytes, filler: int) -> bytes:
    """`data` with bytes of `filler` in place of the missing end of its last scan.

    A complete scan decodes to the same pixels whatever follows it; an incomplete one does not.
    """
    return data.removesuffix(_EOI) + bytes([filler]) * 4096 + _EOI
