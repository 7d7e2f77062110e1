"""An uploaded picture becomes its renditions: bytes in, bytes out, and no AWS.

render() does, in this order, and each step exists because the obvious way costs more or leaks something:

1. The header is checked against the limits before anything is decoded (headers), and the decoder is opened for
   the one format that the first bytes prove.
2. JPEGs are decoded at 1/2, 1/4 or 1/8 of their size where that is enough (the DCT does the scaling), and everything
   is resized once, to the largest rendition: the master. Orientation and colour are corrected there, on fewer pixels.
3. The other renditions are cut from the next larger one, so each costs a fraction of the one before.
4. Encoding runs beside the resizing: Pillow releases the GIL. Metadata has been dropped by then, GPS above all.

The same bytes give the same renditions, byte for byte, with the same libraries; `content_hash` names them.
"""

import struct
import warnings
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from hashlib import sha256
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from pictures.headers import Format, Header, Limits, check, largest_item, read_header, sniff
from pictures.placeholder import blurhash, dominant_colour
from social.refusals import Rejected

if TYPE_CHECKING:
    from PIL._imagingcms import CmsProfile
    from PIL.ImageCms import ImageCmsTransform

Kind = Literal["image", "animation"]
Size = tuple[int, int]

LIMITS = Limits()

_REVISION = b"nexus-pictures 2"
"""Change it with anything that changes the output: the renditions' addresses are immutable and cached for ever. Those
of a clip's posters have the video package's own in them."""

_WEBP_SIDE = 16_383


@dataclass(frozen=True, slots=True)
class Recipe:
    """One rendition to make: fit into width x height with its proportions kept, or a centre square. Never enlarged.

    `tallest` cuts off, above and below, what a picture is higher than so many times its width.
    """

    name: str
    width: int
    height: int = _WEBP_SIDE
    square: bool = False
    tallest: float | None = None
    encoding: Literal["WEBP", "JPEG"] = "WEBP"


RECIPES: tuple[Recipe, ...] = (
    Recipe("thumbnail", 150, 150, square=True),
    Recipe("w320", 320),
    Recipe("w640", 640),
    Recipe("w1080", 1080),
    Recipe("full", 2048, 2048),
    Recipe("w1080_jpeg", 1080, encoding="JPEG"),
    # For mail, which knows no cropping (docs/mail.md): twice the pixels of their places in the digest.
    Recipe("mail_lead", 1080, tallest=0.75, encoding="JPEG"),
    Recipe("mail_square", 224, 224, square=True, encoding="JPEG"),
)
ANIMATED = Recipe("animated", 720, 720)
"""What an animation gets beside its stills: the long side of a phone's feed, since every frame is encoded."""


@dataclass(frozen=True, slots=True)
class Rendition:
    """One finished file. Width and height in pixels; `extension` without a dot."""

    name: str
    data: bytes
    width: int
    height: int
    content_type: str
    extension: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """All that a picture became. Width and height are the original's, upright, in pixels.

    placeholder: a blurhash. dominant_colour: "#rrggbb".
    content_hash: 32 hexadecimal digits that depend on the source's bytes and on how they are rendered, nothing else.
    """

    kind: Kind
    format: Format
    width: int
    height: int
    frames: int
    placeholder: str
    dominant_colour: str
    renditions: tuple[Rendition, ...]
    content_hash: str


def inspect(source: bytes, limits: Limits = LIMITS) -> Header:
    """Format, stored size and frames, without decoding a pixel. Raises Rejected for all that this shows."""
    return _open(source, limits)[0]


def render(
    source: bytes, limits: Limits = LIMITS, recipes: Iterable[Recipe] = RECIPES, animated: Recipe = ANIMATED
) -> Pictures:
    """Every rendition of one picture, in the order of `recipes`.

    An animation gets `animated` too, and its stills are of its first frame.
    All names are always there: a small picture's renditions are its own size, encoded once.
    Raises Rejected(code, reason) with the code empty, unsupported, truncated, damaged, too_many_bytes, too_many_pixels,
    too_many_frames or too_many_scans. MemoryError and the like are not the picture's fault, and pass.
    """
    recipes = tuple(recipes)
    with warnings.catch_warnings():
        # Pillow warns about odd metadata and goes on; the limits that it warns about are our own, and stricter.
        warnings.simplefilter("ignore")
        header, image = _open(source, limits)
        try:
            return _render(source, header, image, recipes, animated)
        except _DECODER_ERRORS as error:
            truncated = "truncated" in str(error).lower()
            reason = f"the {header.format} data cannot be decoded: {str(error) or 'it contradicts itself'}"
            raise Rejected("truncated" if truncated else "damaged", reason) from error


def _render(source: bytes, header: Header, image: ImageFile, recipes: tuple[Recipe, ...], animated: Recipe) -> Pictures:
    # An APNG may begin with a still for those who know only PNG.
    first = 1 if getattr(image, "default_image", False) else 0
    if header.frames > 1:
        image.seek(first)
    orientation = _orientation(image)
    width, height = _upright(header.width, header.height, orientation)

    size = _master_size(width, height, recipes)
    master = _shrink(image, (header.width, header.height), size, orientation)
    if header.frames == 1:
        image.close()
    with ThreadPoolExecutor(max_workers=2) as encoders:
        stills, smallest = _stills(master, (width, height), recipes, encoders)
        opaque = _flatten(smallest)
        placeholder, colour = blurhash(opaque), dominant_colour(smallest)
        renditions = [still.result() for still in stills]
    if header.frames > 1:
        renditions.append(_animate(image, header, first, orientation, animated))
    return Pictures(
        kind="animation" if header.frames > 1 else "image",
        format=header.format,
        width=width,
        height=height,
        frames=header.frames,
        placeholder=placeholder,
        dominant_colour=colour,
        renditions=tuple(renditions),
        content_hash=sha256(_REVISION + repr((recipes, animated)).encode() + source).hexdigest()[:32],
    )


# Opening


_PLUGINS = {
    Format.JPEG: "PIL.JpegImagePlugin",
    Format.PNG: "PIL.PngImagePlugin",
    Format.GIF: "PIL.GifImagePlugin",
    Format.WEBP: "PIL.WebPImagePlugin",
    Format.AVIF: "PIL.AvifImagePlugin",
}

_STILL = {Format.JPEG, Format.HEIF}
"""Several pictures in one of these are views of the same scene, an album or a depth map; the first is the picture."""

# What Pillow's decoders raise on files that lie, seen by mutating good ones. MemoryError is left out on purpose.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError, ArithmeticError, AssertionError,
    struct.error, zlib.error,
)  # fmt: skip


def _open(source: bytes, limits: Limits) -> tuple[Header, ImageFile]:
    if len(source) > limits.bytes:
        raise Rejected("too_many_bytes", f"{len(source):,} bytes, the limit is {limits.bytes:,}")
    header = read_header(source)
    kind = header.format if header is not None else sniff(source)
    assert kind is not None
    if stated := header or largest_item(source, kind):
        check(stated, limits)  # before the decoder: libwebp reserves the whole canvas as soon as it is opened
    _register(kind)
    _register(Format.WEBP)  # which is what is written
    try:
        image = Image.open(BytesIO(source), formats=(kind,))
        frames = 1 if kind in _STILL else getattr(image, "n_frames", 1)
    except Image.DecompressionBombError as error:  # reached only where our limit is above Pillow's
        raise Rejected("too_many_pixels", str(error)) from error
    except _DECODER_ERRORS as error:
        raise Rejected("damaged", f"the {kind} file cannot be opened: {error}") from error
    opened = Header(kind, *image.size, frames=frames - getattr(image, "default_image", False))
    if header is not None:
        opened = replace(opened, scans=header.scans)
        if kind is Format.GIF:  # Pillow grows the canvas only when it meets the frame that needs it
            opened = replace(opened, width=header.width, height=header.height)
    check(opened, limits)
    return opened, image


@cache
def _register(kind: Format) -> None:
    """Import the one plugin needed: Image.open would import all of Pillow's for a format that it has not met yet."""
    if kind is Format.HEIF:
        import pi_heif

        pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    else:
        import_module(_PLUGINS[kind])


_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: ImageFile) -> int:
    """The EXIF orientation, 1 to 8; 1 for a broken one. AVIF's own rotation arrives as one, HEIC's is done by now."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(_ORIENTATION, 1)
    except _DECODER_ERRORS:
        return 1
    return orientation if orientation in _TRANSPOSE else 1


# Geometry


def fit(width: int, height: int, recipe: Recipe) -> float:
    """The scale, at most 1, at which width x height fits the recipe's box, or its short side the square's edge."""
    if recipe.square:
        return min(1.0, recipe.width / min(width, height))
    return min(1.0, recipe.width / width, recipe.height / height)


def scaled(width: int, height: int, scale: float) -> Size:
    """The size at a scale, in whole pixels and never less than one."""
    return max(1, round(width * scale)), max(1, round(height * scale))


def _master_size(width: int, height: int, recipes: Iterable[Recipe]) -> Size:
    return scaled(width, height, max(fit(width, height, recipe) for recipe in recipes))


def _upright(width: int, height: int, orientation: int) -> Size:
    """The size as seen from the size as stored, and the other way round."""
    return (height, width) if orientation >= 5 else (width, height)


# Pixels


def _shrink(image: Image.Image, stored: Size, size: Size, orientation: int) -> Image.Image:
    """The picture at `size`, upright, in sRGB, as RGB or RGBA, with nothing attached. `stored` is its canvas."""
    target = _upright(*size, orientation)
    drafted = image.draft(None, target) if isinstance(image, JpegImageFile) else None
    image.load()
    profile = image.info.get("icc_profile")
    pixels = _resizable(image)
    if drafted is None and pixels.size != stored:
        pixels = pixels.crop((0, 0, *stored))  # a GIF's canvas, which has not grown yet
    box = drafted[1] if drafted else (0, 0, *stored)
    # The gap lets a much larger picture be averaged by whole numbers first; 3 is indistinguishable from none.
    pixels = pixels.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    if orientation in _TRANSPOSE:
        pixels = pixels.transpose(_TRANSPOSE[orientation])
    pixels = _to_srgb(pixels, profile)
    if pixels.mode == "RGBA" and pixels.getchannel("A").getextrema() == (255, 255):
        pixels = pixels.convert("RGB")
    pixels.info.clear()
    return pixels


def _resizable(image: Image.Image) -> Image.Image:
    """In a mode that can be resized smoothly: L, LA, RGB, RGBA or CMYK."""
    transparency = image.info.get("transparency")
    if image.mode.startswith("I"):
        # convert() cuts 16 bits off at 255, which turns nearly everything white.
        image = image.point(lambda value: value * (1 / 257) + 0.5).convert("L")
        if isinstance(transparency, int):
            image.info["transparency"] = transparency // 257
    elif isinstance(transparency, tuple) and max(transparency) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in transparency)  # 16 bits, as their pixels were
    if image.mode in {"1", "L"}:
        return image.convert("LA" if image.has_transparency_data else "L")
    if image.mode in {"LA", "RGBA", "CMYK"}:
        return image
    return _as(image, "RGBA" if image.has_transparency_data else "RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB or RGBA in sRGB. A profile that is broken, or for another kind of colour than the pixels, counts as sRGB."""
    plain: Literal["RGB", "RGBA"] = "RGBA" if image.mode in {"LA", "RGBA"} else "RGB"
    if profile:
        # A grey picture may carry a profile of colours: both ways of reading it are tried.
        for mode in dict.fromkeys(("L" if image.mode == "LA" else image.mode, plain)):
            if transform := _transform(profile, mode, "RGB" if mode in {"L", "CMYK"} else plain):
                if mode == "L" and plain == "RGBA":
                    grey, alpha = image.split()
                    image = _apply(transform, grey)
                    image.putalpha(alpha)
                    return image
                return _apply(transform, _as(image, mode))
    return _as(image, plain)


def _as(image: Image.Image, mode: str) -> Image.Image:
    """convert() to a picture's own mode copies all of it."""
    return image if image.mode == mode else image.convert(mode)


def _apply(transform: "ImageCmsTransform", image: Image.Image) -> Image.Image:
    converted = transform.apply(image)
    assert converted is not None
    return converted


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str, output: str) -> "ImageCmsTransform | None":
    """From the profile to sRGB; None where none is needed or can be had. Cameras use few profiles, so they are kept."""
    from PIL import ImageCms  # Little CMS only for pictures that carry a profile

    try:
        embedded = ImageCms.ImageCmsProfile(BytesIO(profile))
        if mode != "L" and ImageCms.getProfileDescription(embedded).startswith("sRGB"):
            return None
        return ImageCms.buildTransform(embedded, _srgb(), mode, output, renderingIntent=ImageCms.Intent.PERCEPTUAL)
    except (OSError, ImageCms.PyCMSError, ValueError, TypeError):
        return None


@cache
def _srgb() -> "CmsProfile":
    from PIL import ImageCms

    return ImageCms.createProfile("sRGB")


def _flatten(image: Image.Image) -> Image.Image:
    """On white, for what knows no transparency."""
    if image.mode == "RGB":
        return image
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    return page


# Renditions


@dataclass(frozen=True, slots=True)
class _Still:
    recipe: Recipe
    size: Size
    encoding: Future[bytes]

    def result(self) -> Rendition:
        return _rendition(self.recipe, self.encoding.result(), self.size)


def _stills(
    master: Image.Image, original: Size, recipes: tuple[Recipe, ...], encoders: ThreadPoolExecutor
) -> tuple[list[_Still], Image.Image]:
    """What the recipes make of the master, in their order and being encoded; and the smallest uncropped picture."""
    encodings: dict[tuple[Size, bool, str], Future[bytes]] = {}
    stills: dict[str, _Still] = {}
    levels = [master]

    # Largest first, so that encoders have the longest work while the cascade goes on; squares once all levels exist.
    for recipe in sorted(recipes, key=lambda recipe: (recipe.square, -fit(*original, recipe))):
        size = scaled(*original, fit(*original, recipe))
        if recipe.square:
            edge = min(size)
            level = next(level for level in reversed(levels) if min(level.size) >= edge)
            picture = _centre(level, edge)
        else:
            if size != levels[-1].size:
                levels.append(levels[-1].resize(size, Image.Resampling.LANCZOS))
            picture = _cut(levels[-1], recipe.tallest)
        key = (picture.size, picture is not levels[-1], recipe.encoding)
        if key not in encodings:
            encodings[key] = encoders.submit(_encode, picture, recipe.encoding)
        stills[recipe.name] = _Still(recipe, picture.size, encodings[key])
    return [stills[recipe.name] for recipe in recipes], levels[-1]


def _centre(picture: Image.Image, edge: int) -> Image.Image:
    """The largest centre square of the picture, resized to edge x edge."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return picture.resize((edge, edge), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def _cut(picture: Image.Image, tallest: float | None) -> Image.Image:
    """The middle of a picture that is higher than `tallest` times its width; any other as it is."""
    height = picture.height if tallest is None else max(1, round(picture.width * tallest))
    if picture.height <= height:
        return picture
    top = (picture.height - height) // 2
    return picture.crop((0, top, picture.width, top + height))


def _encode(picture: Image.Image, encoding: str) -> bytes:
    out = BytesIO()
    if encoding == "JPEG":
        _flatten(picture).save(out, "JPEG", quality=80, progressive=True, optimize=True)
    else:
        # Method 4, Pillow's default, takes twice the time for 2% fewer bytes.
        picture.save(out, "WEBP", quality=80, method=2)
    return out.getvalue()


def _rendition(recipe: Recipe, data: bytes, size: Size) -> Rendition:
    content_type, extension = {"WEBP": ("image/webp", "webp"), "JPEG": ("image/jpeg", "jpg")}[recipe.encoding]
    return Rendition(recipe.name, data, *size, content_type, extension)


# Animations


def _animate(image: ImageFile, header: Header, first: int, orientation: int, recipe: Recipe) -> Rendition:
    """All frames as one animated WebP, as long and as often as the source plays them."""
    upright = _upright(header.width, header.height, orientation)
    size = scaled(*upright, fit(*upright, recipe))
    durations = [0] * header.frames

    def frame(number: int) -> Image.Image:
        image.seek(first + number)
        picture = _shrink(image, (header.width, header.height), size, orientation)
        shown = image.info.get("duration", 0)
        # Browsers show frames of 10 ms and less for 100 ms; GIFs that say 0 are made with that in mind.
        # A minute at most: what is longer is a lie, and a thousand of them have to fit in 31 bits of milliseconds.
        durations[number] = min(round(shown), 60_000) if shown > 10 else 100
        return picture

    reel = _Reel(frame, header.frames)
    out = BytesIO()
    # The encoder asks for a frame's duration after the frame itself, when the list knows it.
    reel.save(out, "WEBP", save_all=True, quality=70, method=2, duration=durations, loop=_loop(image, header))
    return _rendition(recipe, out.getvalue(), size)


def _loop(image: ImageFile, header: Header) -> int:
    """How often a WebP shall play, 0 for ever. A GIF says how often it shall be repeated, and nothing for once."""
    if header.format is not Format.GIF:
        return int(image.info.get("loop", 0))
    repeats = image.info.get("loop")
    return 1 if repeats is None else min(repeats + 1, 65_535) if repeats else 0


class _Reel(Image.Image):
    """An animation as Pillow's encoder walks through it, forwards, with one frame in memory at a time."""

    def __init__(self, frame: Callable[[int], Image.Image], n_frames: int) -> None:
        super().__init__()
        self.n_frames = n_frames
        self._frame = frame
        self._at = -1
        self.seek(0)

    def seek(self, frame: int) -> None:
        if frame > self._at:
            picture = self._frame(frame)
            self.im, self._mode, self._size = picture.im, picture.mode, picture.size
            self._at = frame

    def tell(self) -> int:
        return self._at
