"""Turns an upload's bytes into a picture that is safe to decode: checks its header, cleans it and opens it."""

import struct
import zlib
from functools import cache
from hashlib import sha256
from importlib import import_module
from io import BytesIO
from typing import Final

from PIL import Image

from pictures import apng, gif, heif, jpeg, png, webp
from pictures.formats import Format, sniff, unsupported
from pictures.headers import Header, Limits, Source, check
from social.refusals import Code, Rejected, megabytes

_PLUGINS: Final = {
    Format.JPEG: "PIL.JpegImagePlugin",
    Format.PNG: "PIL.PngImagePlugin",
    Format.GIF: "PIL.GifImagePlugin",
    Format.WEBP: "PIL.WebPImagePlugin",
    Format.AVIF: "PIL.AvifImagePlugin",
}

_STILL: Final = frozenset({Format.JPEG, Format.HEIF})
"""Several pictures in one such file are views of the same scene, an album or a depth map; the first is the picture."""

# What Pillow's decoders raise on malformed files, found by mutating good ones. MemoryError is omitted on purpose.
DECODER_ERRORS: Final = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError, ArithmeticError, AssertionError,
    struct.error, zlib.error,
)  # fmt: skip


def admit(upload: bytes, limits: Limits, *, animated: bool = True) -> Source:
    """Checks the picture's header without decoding. Raises Rejected for any fault found there.

    `animated`=False takes the still of an APNG whose animation is broken.
    """
    if len(upload) > limits.bytes:
        raise Rejected(Code.TOO_MANY_BYTES, f"{len(upload):,} bytes for a picture", megabytes(limits.bytes))
    kind = sniff(upload)
    if kind is None:
        raise unsupported(upload)
    try:
        match kind:
            case Format.JPEG:
                source = jpeg.read(upload)
            case Format.PNG:
                source = png.read(upload, animated=animated)
            case Format.GIF:
                source = gif.read(upload)
            case Format.WEBP:
                source = webp.read(upload)
            case _:
                source = heif.read(upload, kind)
    except (struct.error, IndexError) as error:
        raise Rejected(Code.TRUNCATED, f"the {kind} file ends in the middle of its structure: {error}") from None
    check(source.header, limits)  # before the decoder: libwebp allocates the whole canvas on opening
    return source


def open_picture(source: Source, limits: Limits) -> tuple[Header, Image.Image]:
    """Opens the decoder for the recognised format; returns its header (size and frames) and image. Raises Rejected."""
    stated = source.header
    register(stated.format)
    register(Format.WEBP)  # the output format
    try:
        image = _put_together(source) or Image.open(BytesIO(source.data), formats=(stated.format,))
        frames = 1 if stated.format in _STILL else getattr(image, "n_frames", 1)
    except DECODER_ERRORS as error:
        raise fault(source, error) from error
    header = Header(
        stated.format,
        *image.size,
        frames=max(1, frames),
        scans=stated.scans,
        bytes_a_pixel=stated.bytes_a_pixel,
    )
    check(header, limits)
    if source.ends_early and stated.format is Format.JPEG and not _has_all_scans(source.data):
        raise Rejected(Code.TRUNCATED, "the JPEG file ends within its scans")
    return header, image


def _put_together(source: Source) -> Image.Image | None:
    """An animation whose frames are composed here; None if its decoder composes them."""
    if source.header.format is Format.GIF:
        return gif.opened(source)
    return apng.opened(source) if source.header.format is Format.PNG and source.header.frames > 1 else None


def fault(source: Source, error: BaseException) -> Rejected:
    """The refusal for a decoder's exception."""
    words = str(error).partition("<_io")[0].strip() or "it is inconsistent"
    cut = source.ends_early or any(word in words.lower() for word in ("truncated", "end of file", "insufficient data"))
    return Rejected(Code.TRUNCATED if cut else Code.DAMAGED, f"the {source.header.format} data: {words}")


def _has_all_scans(data: bytes) -> bool:
    """Whether a JPEG without its last marker has all its pixels: they then do not depend on what follows."""
    seen = set()
    for filler in (0x55, 0xAA):
        try:
            with Image.open(BytesIO(jpeg.with_tail(data, filler)), formats=(Format.JPEG,)) as image:
                seen.add(sha256(image.tobytes()).digest())
        except DECODER_ERRORS:
            return False
    return len(seen) == 1


@cache
def register(kind: Format) -> None:
    """Imports the one plugin needed: Image.open would import all of Pillow's for a format not registered yet."""
    # The limits of this package are already checked; Pillow's own is 179 megapixels.
    Image.MAX_IMAGE_PIXELS = None
    if kind is Format.HEIF:
        import pi_heif

        pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    else:
        import_module(_PLUGINS[kind])
