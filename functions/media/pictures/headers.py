"""What a picture's header says before decoding, and the limits on it.

A few kilobytes can unpack into gigabytes of pixels, minutes of CPU or ten thousand frames. All limited values are plain
fields of the six formats, which the modules beside this one read without a decoder.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final

from pictures.formats import Format
from social.refusals import Code, Rejected


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for one upload. Pixels are width x height as stored; frame pixels are frames x pixels."""

    bytes: int = 100 * 1024 * 1024
    memory: int = 1_500 << 20
    """Peak bytes for decoding, by Header.memory(): what is left of 2 GB beside the runtime and the file."""
    pixels: int = 220_000_000
    """For any format: the largest phone sensors have 200 million."""
    frames: int = 1_000
    frame_pixels: int = 300_000_000
    scans: int = 100
    """Scans of a JPEG. Encoders write 10 or fewer; each one costs a pass over every coefficient of the picture."""
    side: int = 2048
    """Pixels of the largest rendition's long side: a JPEG is decoded at 1/2, 1/4 or 1/8 if that leaves enough."""
    scan_pixels: int = 1_000_000_000
    """Scans x pixels of a JPEG with more than 10 scans: bounds the CPU time of decoding."""


_BYTES_A_PIXEL: Final = {Format.PNG: 9.0, Format.GIF: 9.0, Format.WEBP: 18.0, Format.AVIF: 12.0, Format.HEIF: 12.0}
"""Peak bytes per pixel of the whole picture, with transparency, as measured (docs/media.md)."""
DEEP: Final = 20.0
"""The same for AVIF and HEIC of more than 8 bits."""


@dataclass(frozen=True, slots=True)
class Header:
    """Width and height in pixels as stored, before any orientation or crop; frames of an animation; scans of a JPEG.

    bytes_a_pixel: memory for decoding each, if the format alone does not say. For a JPEG it is the coefficients that a
    decoder keeps until the last scan, 0 for a JPEG with one scan.
    """

    format: Format
    width: int
    height: int
    frames: int = 1
    scans: int = 1
    bytes_a_pixel: float | None = None

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def memory(self, side: int) -> float:
        """Peak bytes for decoding, without the file itself. `side` is Limits.side."""
        if self.format is not Format.JPEG:
            return self.pixels * (self.bytes_a_pixel or _BYTES_A_PIXEL[self.format])
        scale = 1
        while scale < 8 and ceil(max(self.width, self.height) / (2 * scale)) >= side:
            scale *= 2
        return self.pixels * ((self.bytes_a_pixel or 0.0) + 8.0 / scale**2)


def check(header: Header, limits: Limits) -> None:
    """Raises Rejected if the header exceeds the limits."""
    size = f"{header.width} x {header.height}"
    if not header.pixels:
        raise Rejected(Code.DAMAGED, f"the picture has no pixels: {size}")
    if header.pixels > limits.pixels:
        raise Rejected(Code.TOO_MANY_PIXELS, f"{size} is over the limit of {limits.pixels / 1e6:g} megapixels")
    if (memory := header.memory(limits.side)) > limits.memory:
        needed = f"{size} {header.format} takes {memory / 2**20:.0f} MiB to decode"
        raise Rejected(Code.TOO_MANY_PIXELS, f"{needed}, over the limit of {limits.memory / 2**20:.0f}")
    if header.frames > limits.frames:
        raise Rejected(Code.TOO_MANY_FRAMES, f"{header.frames} frames, the limit is {limits.frames}")
    if header.frames > 1 and header.frames * header.pixels > limits.frame_pixels:
        total = f"{header.frames} frames of {size} are {header.frames * header.pixels / 1e6:.0f} megapixels"
        raise Rejected(Code.TOO_MANY_FRAMES, f"{total}, the limit is {limits.frame_pixels / 1e6:g}")
    if header.scans > limits.scans or (header.scans > 10 and header.scans * header.pixels > limits.scan_pixels):
        most = f"{limits.scans} at most, and {limits.scan_pixels / 1e6:g} megapixels"
        raise Rejected(Code.TOO_MANY_SCANS, f"{header.scans} scans over {size} pixels; {most}")


@dataclass(frozen=True, slots=True)
class Source:
    """A picture ready for its decoder.

    Attributes:
        data: the file without parts that could break a decoder or that we drop anyway; its pixels are untouched.
        orientation: as in EXIF, 1 to 8.
        profile: an ICC profile, or None.
        light: primaries and transfer function (ITU-T H.273) of a high dynamic range, which no profile can express.
        narrow: the samples are limited range, 16 to 235.
        crop: (left, top, right, bottom) of the visible area, in stored pixels.
        ends_early: the last bytes are missing, so the decoded pixels must be checked.
    """

    header: Header
    data: bytes
    orientation: int = 1
    profile: bytes | None = None
    light: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None
    narrow: bool = False
    ends_early: bool = False
