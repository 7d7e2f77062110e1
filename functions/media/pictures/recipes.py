"""The renditions that a deployment makes of a picture, and the content hash that names them.

No decoder is loaded here.
"""

import re
from dataclasses import dataclass
from hashlib import file_digest, sha256
from io import BufferedIOBase
from typing import Any, Final, Literal

_REVISION: Final = b"nexus-pictures 6"
"""Change it with anything that changes the output: renditions' URLs are immutable and cached without an expiry."""

_WEBP_SIDE: Final = 16_383
LARGEST_SIDE: Final = 4096
"""The most pixels that a recipe may state: the function's memory is measured for it."""
MOST: Final = 24
"""The most recipes of a deployment: each is an open file in the sandbox and a request for every upload."""

type Encoding = Literal["WEBP", "JPEG", "AVIF"]
TYPES: Final[dict[Encoding, tuple[str, str]]] = {
    "WEBP": ("image/webp", "webp"),
    "JPEG": ("image/jpeg", "jpg"),
    "AVIF": ("image/avif", "avif"),
}
"""Content type, and extension without a dot."""
_QUALITY: Final[dict[Encoding, int]] = {"WEBP": 80, "JPEG": 80, "AVIF": 65}
"""Defaults if a recipe states no quality: WebP and AVIF have the same SSIM (bench/media/pictures.py)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One rendition to make: fit into width x height with proportions kept, or a centre square. Never enlarged.

    `tallest` is the most height / width; the excess is cropped above and below.
    """

    name: str
    width: int
    height: int = _WEBP_SIDE
    square: bool = False
    tallest: float | None = None
    encoding: Encoding = "WEBP"
    quality: int = 80

    @property
    def is_box(self) -> bool:
        """Whether it limits both sides of the whole picture. Pages do not rely on such a rendition's exact size."""
        return self.height < _WEBP_SIDE and not self.square and self.tallest is None


class BadRecipe(ValueError):
    """An invalid recipe: its name, the field, and the fault."""


RECIPES: Final = (
    # JPEG, so that mails can show it too.
    Recipe("thumbnail", 150, 150, square=True, encoding="JPEG"),
    Recipe("w320", 320),
    Recipe("w640", 640),
    # AVIF where it saves most bytes; programs without it take w640, or w1080_jpeg, which mails and link previews show.
    Recipe("w1080", 1080, encoding="AVIF", quality=65),
    Recipe("full", 2048, 2048, encoding="AVIF", quality=65),
    Recipe("w1080_jpeg", 1080, encoding="JPEG"),
)
"""Each is a request to S3 for every upload, the largest part of a picture's price: one size, one format."""
ANIMATED: Final = Recipe("animated", 720, 720, quality=70)
"""An animation's rendition beside its stills: sized for a phone's feed, since every frame is encoded."""


@dataclass(frozen=True, slots=True)
class Recipes:
    """All renditions of a deployment: the stills of every picture, and the animated one."""

    stills: tuple[Recipe, ...] = RECIPES
    animated: Recipe = ANIMATED

    @property
    def largest_side(self) -> int:
        """The largest bounded side of any recipe, in pixels."""
        return max(max(recipe.width, recipe.height % _WEBP_SIDE) for recipe in self.stills)

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> "Recipes":
        """The inverse of `dataclasses.asdict`, also after JSON."""
        return cls(tuple(Recipe(**each) for each in fields["stills"]), Recipe(**fields["animated"]))


def read_recipes(text: str) -> Recipes:
    """Parses a deployment's recipes, `name:WIDTH[xHEIGHT][:option...]`, comma-separated; the defaults if empty.

    Options are `square`, `tallest=0.75`, `webp`, `jpeg` or `avif`, and `quality=80`. The one named `animated` is
    an animation's rendition beside the stills. Raises BadRecipe if one is invalid.
    """
    if not text:
        return Recipes()
    made: dict[str, Recipe] = {}
    for part in text.split(","):
        recipe = _recipe(part)
        if recipe.name in made:
            raise BadRecipe(f"{recipe.name}: the name is used twice")
        made[recipe.name] = recipe
    animated = made.pop(ANIMATED.name, ANIMATED)
    if animated.encoding != "WEBP" or animated.square or animated.tallest:
        raise BadRecipe(f"{animated.name}: an animation must be WebP, and cannot be cropped")
    if not 1 <= len(made) <= MOST:
        raise BadRecipe(f"there are {len(made)} recipes for stills: 1 to {MOST} are allowed")
    return Recipes(tuple(made.values()), animated)


def _recipe(text: str) -> Recipe:
    name, *fields = text.split(":")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name):
        raise BadRecipe(f"{name!r}: a name must be up to 32 lower-case letters, digits and _, beginning with a letter")
    size, *options = fields or [""]
    width, _, height = size.partition("x")
    given: dict[str, Any] = {"width": _number(f"{name}: width", width, LARGEST_SIDE)}
    if height or "x" in size:
        given["height"] = _number(f"{name}: height", height, LARGEST_SIDE)
    for option in options:
        field, value = _option(name, option)
        if field in given and field != "height":
            raise BadRecipe(f"{name}: {field} is given twice")
        given[field] = value
    if given.get("square") and (given.setdefault("height", given["width"]) != given["width"] or "tallest" in given):
        raise BadRecipe(f"{name}: a square has one side, and takes no tallest")
    usual = ANIMATED.quality if name == ANIMATED.name else _QUALITY[given.get("encoding", "WEBP")]
    return Recipe(name, **{"quality": usual, **given})


def _option(name: str, option: str) -> tuple[str, Any]:
    word, stated, value = option.partition("=")
    match word:
        case "square" if not stated:
            return "square", True
        case "webp" | "jpeg" | "avif" if not stated:
            return "encoding", word.upper()
        case "quality":
            return "quality", _number(f"{name}: quality", value, 100)
        case "tallest":
            if not re.fullmatch(r"\d{1,2}(\.\d{1,3})?", value) or not 0.1 <= float(value) <= 10:
                raise BadRecipe(f"{name}: tallest is {value!r}: it must be a number from 0.1 to 10")
            return "tallest", float(value)
    known = "square, tallest=..., webp, jpeg, avif, quality=..."
    raise BadRecipe(f"{name}: {option!r} is not an option: {known}")


def _number(field: str, text: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= most:
        raise BadRecipe(f"{field} is {text!r}: it must be a whole number from 1 to {most}")
    return int(text)


def content_hash(upload: BufferedIOBase, recipes: tuple[Recipe, ...] = RECIPES, animated: Recipe = ANIMATED) -> str:
    """32 hexadecimal digits that depend only on the source's bytes and on how they are rendered."""
    digest = file_digest(upload, lambda: sha256(_REVISION + repr((recipes, animated)).encode()))
    return digest.hexdigest()[:32]
