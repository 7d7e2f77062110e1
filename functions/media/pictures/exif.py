"""Reads the orientation from EXIF, the only field we use."""

from struct import error, unpack_from

_TAG = 0x0112


def orientation_of(exif: bytes) -> int:
    """The orientation, 1 to 8, of an EXIF block in TIFF form; 1 if it is absent, broken or out of range."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (at,) = unpack_from(order + "I", exif, 4)
        (entries,) = unpack_from(order + "H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * min(entries, 1000), 12):
            tag, kind = unpack_from(order + "HH", exif, entry)
            if tag == _TAG:
                # The type should be SHORT; LONG occurs too.
                (value,) = unpack_from(order + ("I" if kind == 4 else "H"), exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except error:
        pass
    return 1
