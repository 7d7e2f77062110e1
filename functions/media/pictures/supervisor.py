"""A picture becomes its renditions, and no picture can take the task along.

    pictures.render(Path("/tmp/upload"), Path("/tmp/out"), seconds=run.remaining - 20)

gives what was made, or says no in one of two ways: `Rejected` (the picture is at fault, for good), `Unfinished` (try
again). The bytes are decoded in a sandbox's child. What comes back is believed as little as the picture: names, types
and addresses are decided here, and a file that is not of its type is not published.
"""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import sandbox
from pictures.formats import Format, sniff
from pictures.headers import Limits
from pictures.recipes import ANIMATED, RECIPES, content_hash
from sandbox import Rendition, Unfinished

WORKER: Final = "pictures.worker"
MEMORY: Final = 1_750 << 20
"""Bytes of private memory: what headers.Limits lets decoding take, the file twice, and the decoders themselves. With
the function and the server beside it, it stays under 2 GB."""
OUTPUT_BYTES: Final = 256 << 20
"""Of any one rendition: an animation of a thousand frames is far smaller."""
_TYPES: Final = {"WEBP": ("image/webp", "webp", Format.WEBP), "JPEG": ("image/jpeg", "jpg", Format.JPEG)}
_PLACEHOLDER: Final = re.compile(r"[\w#$%*+,\-.:;=?@\[\]^{|}~]{28}", re.ASCII)
_COLOUR: Final = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class Published:
    """What a picture became, as files. Width and height are the original's, upright, in pixels.

    placeholder: a blurhash. dominant_colour: "#rrggbb". content_hash: pictures.recipes.content_hash of the source.
    """

    kind: Literal["image", "animation"]
    width: int
    height: int
    placeholder: str
    dominant_colour: str
    renditions: Mapping[str, Rendition]
    content_hash: str


def render(source: Path, folder: Path, *, seconds: float, limits: Limits | None = None) -> Published:
    """Makes the renditions of the picture in `source` as files in `folder` (which must exist).

    `seconds`: wall time from now after which the work is stopped. Raises Rejected or Unfinished.
    """
    recipes = (*RECIPES, ANIMATED)
    paths = [folder / f"{recipe.name}.{_TYPES[recipe.encoding][1]}" for recipe in recipes]
    with ExitStack() as stack:
        upload = stack.enter_context(source.open("rb"))
        files = [upload, *(stack.enter_context(path.open("wb")) for path in paths)]
        job = {"limits": asdict(limits or Limits())}
        said = sandbox.run(WORKER, job, files, memory=MEMORY, output_bytes=OUTPUT_BYTES, seconds=seconds)
    with source.open("rb") as upload:
        digest = content_hash(upload)
    try:
        return _published(said, paths, digest)
    except (KeyError, TypeError, ValueError) as error:
        raise Unfinished(f"the decoder talks nonsense: {error}") from error


def _published(said: Mapping[str, Any], paths: list[Path], digest: str) -> Published:
    kind, placeholder, colour = said["kind"], said["placeholder"], said["dominant_colour"]
    if kind not in ("image", "animation"):
        raise ValueError(f"kind {kind!r}")
    if not _PLACEHOLDER.fullmatch(placeholder) or not _COLOUR.fullmatch(colour):
        raise ValueError(f"placeholder {placeholder!r}, colour {colour!r}")
    recipes = RECIPES if kind == "image" else (*RECIPES, ANIMATED)
    renditions = {}
    for recipe, path, (width, height) in zip(recipes, paths[: len(recipes)], said["sizes"], strict=True):
        content_type, _, format_ = _TYPES[recipe.encoding]
        with path.open("rb") as file:
            if sniff(file.read(64)) is not format_:
                raise ValueError(f"{path.name} is no {content_type}")
        renditions[recipe.name] = Rendition(path, _pixels(width), _pixels(height), path.stat().st_size, content_type)
    return Published(kind, _pixels(said["width"]), _pixels(said["height"]), placeholder, colour, renditions, digest)


def _pixels(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 31:
        raise ValueError(f"{value!r} pixels")
    return value
