"""Makes an uploaded picture's renditions: bytes in, bytes out, no AWS.

render() works in this order; each step exists because the obvious way costs more or leaks something:

1. The header is checked against the limits before decoding (headers), and the decoder is opened only for the format
   that the first bytes prove.
2. JPEGs are decoded at 1/2, 1/4 or 1/8 of their size if that is enough or nearly so (the DCT does the scaling), and
   everything is resized once, to the largest rendition: the master. Orientation and colour are corrected there, on
   fewer pixels.
3. Each other rendition is made from the next larger one, so it costs a fraction of that one.
4. Encoding runs in parallel with resizing: Pillow releases the GIL. Metadata, above all GPS, is already dropped. One
   encoder at a time: AVIF's takes 25 bytes a pixel, and 2 GB of Lambda are 1.2 processors.

The same bytes give the same renditions, byte for byte, with the same libraries; `recipes.content_hash` names them.
"""

import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Final

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from pictures.colour import resizable, to_srgb, widened
from pictures.formats import Format
from pictures.headers import Header, Limits, Source
from pictures.job import Known
from pictures.placeholder import blurhash, dominant_colour
from pictures.reading import DECODER_ERRORS, admit, fault, open_picture
from pictures.recipes import ANIMATED, RECIPES, TYPES, Recipe
from social.refusals import Rejected

Size = tuple[int, int]

LIMITS: Final = Limits()
NEARLY: Final = 0.95
"""The smallest a rendition within a box may be, relative to its full size, if that avoids decoding a JPEG at twice the
scale: half of a 12-megapixel photo is 2016 pixels wide, and the resize from 4032 to 2048 would cost a third of all.
"""


@dataclass(frozen=True, slots=True)
class Rendition:
    """One finished file. Width and height in pixels; `extension` without a dot."""

    name: str
    data: bytes
    width: int
    height: int
    content_type: str
    extension: str


type OnKnown = Callable[[Known], None]
type OnMade = Callable[[int, Rendition], None]


@dataclass(frozen=True, slots=True)
class _Callbacks:
    """The functions that render() calls with the picture's properties and with each finished rendition."""

    known: OnKnown
    made: OnMade


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures(Known):
    """All renditions of a picture."""

    format: Format
    frames: int
    renditions: tuple[Rendition, ...]


def render(
    upload: bytes,
    limits: Limits = LIMITS,
    recipes: Iterable[Recipe] = RECIPES,
    animated: Recipe = ANIMATED,
    *,
    on_known: OnKnown = lambda _: None,
    on_made: OnMade = lambda _, __: None,
) -> Pictures:
    """Every rendition of one picture, in the order of `recipes`. Calls `on_known` before they are made.

    Calls `on_made` with each one's place in that order: a picture's while the next are encoded, always in the same
    sequence; an animation's at the end, since its stills are made again if its frames turn out to be broken.

    An animation gets `animated` too, and its stills are of its first frame; an APNG with a broken animation is a still.
    All names are always present: a small picture's renditions have its own size and are encoded once.
    Raises Rejected. MemoryError and the like are not the picture's fault, and propagate.
    """
    recipes = tuple(recipes)
    source, callbacks = admit(upload, limits), _Callbacks(on_known, on_made)
    try:
        return _render(source, limits, recipes, animated, callbacks)
    except Rejected:
        if source.header.format is not Format.PNG or source.header.frames == 1:
            raise
    return _render(admit(upload, limits, animated=False), limits, recipes, animated, callbacks)


def _render(
    source: Source, limits: Limits, recipes: tuple[Recipe, ...], animated: Recipe, callbacks: _Callbacks
) -> Pictures:
    with warnings.catch_warnings():
        # Pillow only warns about odd metadata; our own limits are stricter than those it warns about.
        warnings.simplefilter("ignore")
        header, image = open_picture(source, limits)
        try:
            return _renditions(_View(source, header, image), recipes, animated, callbacks)
        except DECODER_ERRORS as error:
            if isinstance(error, OSError) and error.errno:  # the system's, such as a full disk: decoders state none
                raise
            raise fault(source, error) from error


@dataclass(frozen=True, slots=True)
class _View:
    """An opened picture and how to display it."""

    source: Source
    header: Header
    image: Image.Image

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The visible box of the stored pixels."""
        return self.source.crop or (0, 0, self.header.width, self.header.height)

    @property
    def size(self) -> Size:
        """Width and height of the visible area, upright."""
        left, top, right, bottom = self.box
        return _upright(right - left, bottom - top, self.source.orientation)


def _renditions(view: _View, recipes: tuple[Recipe, ...], animated: Recipe, callbacks: _Callbacks) -> Pictures:
    header, image = view.header, view.image
    width, height = view.size
    master = _shrink(view, _master_size(view, recipes))
    if header.frames == 1:
        image.close()
    with ThreadPoolExecutor(max_workers=1) as encoder:
        stills, smallest = _stills(master, (width, height), recipes, encoder)
        known = Known(
            kind="animation" if header.frames > 1 else "image",
            width=width,
            height=height,
            placeholder=blurhash(_flatten(smallest)),
            dominant_colour=dominant_colour(smallest),
        )
        callbacks.known(known)  # while the encoder runs
        if header.frames == 1:
            for still in stills:
                callbacks.made(recipes.index(still.recipe), still.result())
        renditions = [still.result() for still in sorted(stills, key=lambda still: recipes.index(still.recipe))]
    if header.frames > 1:
        renditions.append(_animate(view, animated))
        for number, rendition in enumerate(renditions):
            callbacks.made(number, rendition)
    return Pictures(**asdict(known), format=header.format, frames=header.frames, renditions=tuple(renditions))


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Geometry


def fit(width: int, height: int, recipe: Recipe) -> float:
    """The scale, at most 1, at which width x height fits the recipe's box, or its short side the square's edge."""
    if recipe.square:
        return min(1.0, recipe.width / min(width, height))
    return min(1.0, recipe.width / width, recipe.height / height)


def scaled(width: int, height: int, scale: float) -> Size:
    """The size at a scale, in whole pixels, at least one."""
    return max(1, round(width * scale)), max(1, round(height * scale))


def _master_size(view: _View, recipes: tuple[Recipe, ...]) -> Size:
    """The size of the largest rendition: as its recipe has it, or a scale of the JPEG decoder that is nearly that."""
    width, height = view.size
    sizes = [scaled(width, height, fit(width, height, recipe)) for recipe in recipes]
    largest = max(sizes)
    if isinstance(view.image, JpegImageFile):
        for scale in (8, 4, 2):
            decoded = -(-width // scale), -(-height // scale)
            enough = [
                min(have / want for have, want in zip(decoded, size, strict=True)) >= (NEARLY if recipe.is_box else 1)
                for recipe, size in zip(recipes, sizes, strict=True)
            ]
            if decoded < largest and all(enough):
                return decoded
    return largest


def _upright(width: int, height: int, orientation: int) -> Size:
    """Converts between stored and displayed size, in either direction."""
    return (height, width) if orientation >= 5 else (width, height)


# Pixels


def _shrink(view: _View, size: Size) -> Image.Image:
    """The picture at `size`, upright, in sRGB, as RGB or RGBA, with nothing attached."""
    source, image = view.source, view.image
    target = _upright(*size, source.orientation)
    drafted = _draft(image, target) if isinstance(image, JpegImageFile) else None
    image.load()
    pixels = resizable(image)
    if drafted and pixels.size == target:
        pixels = pixels.copy()  # detached from its decoder
    else:
        box = drafted or view.box
        # The gap lets a much larger picture be reduced by an integer factor first; 3 is indistinguishable from none.
        pixels = pixels.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    if source.orientation in _TRANSPOSE:
        pixels = pixels.transpose(_TRANSPOSE[source.orientation])
    if source.narrow:
        pixels = widened(pixels)
    pixels = to_srgb(pixels, source.profile, source.light)
    if pixels.mode == "RGBA" and pixels.getchannel("A").getextrema() == (255, 255):
        pixels = pixels.convert("RGB")
    pixels.info.clear()
    return pixels


def _draft(image: JpegImageFile, target: Size) -> tuple[float, float, float, float] | None:
    """Chooses the smallest scale of the decoder that is enough for `target`. Returns the box of the picture in it."""
    # Pillow compares whole pixels, rounded down, with a picture that it rounds up.
    exact = next((s for s in (8, 4, 2) if (-(-image.width // s), -(-image.height // s)) == target), None)
    request = (max(1, image.width // exact), max(1, image.height // exact)) if exact else target
    drafted = image.draft(None, request)
    return drafted[1] if drafted else None


def _flatten(image: Image.Image) -> Image.Image:
    """On a white background, for formats without transparency."""
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
    master: Image.Image, original: Size, recipes: tuple[Recipe, ...], encoder: ThreadPoolExecutor
) -> tuple[list[_Still], Image.Image]:
    """The recipes' renditions of the master, as they come out of the encoder, and the smallest uncropped picture."""
    encodings: dict[tuple[Size, bool, str, int], Future[bytes]] = {}
    stills: list[_Still] = []
    levels = [master]

    # Largest first, so that the longest encoding overlaps with the cascade; squares once all levels exist.
    for recipe in sorted(recipes, key=lambda recipe: (recipe.square, -fit(*original, recipe))):
        size = min(scaled(*original, fit(*original, recipe)), master.size)
        if recipe.square:
            edge = min(size)
            level = next(level for level in reversed(levels) if min(level.size) >= edge)
            picture = _centre(level, edge)
        else:
            if size != levels[-1].size:
                levels.append(levels[-1].resize(size, Image.Resampling.LANCZOS))
            picture = _cut(levels[-1], recipe.tallest)
        key = (picture.size, picture is not levels[-1], recipe.encoding, recipe.quality)
        if key not in encodings:
            # One thread for all: Pillow keeps the options of save() in the picture, which two recipes may share.
            try:
                encodings[key] = encoder.submit(_encode, picture, recipe)
            except RuntimeError as error:  # the thread has no memory for its stack
                raise MemoryError from error
        stills.append(_Still(recipe, picture.size, encodings[key]))
    return stills, levels[-1]


def _centre(picture: Image.Image, edge: int) -> Image.Image:
    """The largest centre square of the picture, resized to edge x edge."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return picture.resize((edge, edge), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def _cut(picture: Image.Image, tallest: float | None) -> Image.Image:
    """Crops a picture higher than `tallest` times its width to its middle; returns others unchanged."""
    height = picture.height if tallest is None else max(1, round(picture.width * tallest))
    if picture.height <= height:
        return picture
    top = (picture.height - height) // 2
    return picture.crop((0, top, picture.width, top + height))


def _encode(picture: Image.Image, recipe: Recipe) -> bytes:
    """Raises MemoryError for what an encoder raises: valid pixels lack nothing else, and libaom does not name it."""
    try:
        return _encoded(picture, recipe)
    except DECODER_ERRORS as error:
        raise MemoryError from error


def _encoded(picture: Image.Image, recipe: Recipe) -> bytes:
    out = BytesIO()
    match recipe.encoding:
        case "JPEG":
            _flatten(picture).save(out, "JPEG", quality=recipe.quality, progressive=True, optimize=True)
        case "WEBP":
            # Method 4, Pillow's default, takes twice the time for 2% fewer bytes.
            picture.save(out, "WEBP", quality=recipe.quality, method=2)
        case "AVIF":
            # Speed 8 takes 2 to 3 times the time for 6% fewer bytes. Tuned for SSIM, one quality serves all pictures.
            tuned = {"tune": "ssim"}
            picture.save(out, "AVIF", quality=recipe.quality, speed=9, max_threads=1, autotiling=False, advanced=tuned)
    return out.getvalue()


def _rendition(recipe: Recipe, data: bytes, size: Size) -> Rendition:
    content_type, extension = TYPES[recipe.encoding]
    return Rendition(recipe.name, data, *size, content_type, extension)


# Animations


def _animate(view: _View, recipe: Recipe) -> Rendition:
    """All frames as one animated WebP, with the source's durations and loop count."""
    header, image = view.header, view.image
    size = scaled(*view.size, fit(*view.size, recipe))
    durations = [0] * header.frames

    def frame(number: int) -> Image.Image:
        image.seek(number)
        picture = _shrink(view, size)
        shown = image.info.get("duration", 0)
        # Browsers show frames of 10 ms or less for 100 ms, and GIFs with 0 rely on that.
        # At most a minute: longer is bogus, and a thousand of them must fit in 31 bits of milliseconds.
        durations[number] = min(round(shown), 60_000) if shown > 10 else 100
        return picture

    reel = _Reel(frame, header.frames)
    out = BytesIO()
    # The encoder reads a frame's duration after the frame itself, when the list has it.
    loops = int(image.info.get("loop", 0))
    reel.save(out, "WEBP", save_all=True, quality=recipe.quality, method=2, duration=durations, loop=loops)
    return _rendition(recipe, out.getvalue(), size)


class _Reel(Image.Image):
    """An animation for Pillow's encoder, read forwards with one frame in memory at a time."""

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
