"""Makes a picture's renditions so that no picture can crash the task.

    pictures.render(Path("/tmp/upload"), Path("/tmp/out"), seconds=run.remaining - 20)

returns the renditions, or raises `Rejected` (the picture is at fault, permanently) or `Unfinished` (retry). A sandbox's
child decodes the bytes. Its output is trusted as little as the picture: names, types and keys are decided here, and a
file that is not of its type is not published.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import sandbox
from pictures.formats import Format, sniff
from pictures.headers import Limits
from pictures.job import Known, pixels
from pictures.recipes import TYPES, Recipe, Recipes, content_hash
from sandbox import Rendition, Unfinished

WORKER: Final = "pictures.worker"
MEMORY: Final = 1_750 << 20
"""Bytes of private memory: the decoding limit of headers.Limits, the file twice, and the decoders themselves. With the
function and the server it stays under 2 GB."""
OUTPUT_BYTES: Final = 256 << 20
"""Bytes of any one rendition: an animation of a thousand frames is far smaller."""
_FORMATS: Final = {"WEBP": Format.WEBP, "JPEG": Format.JPEG, "AVIF": Format.AVIF}


@dataclass(frozen=True, slots=True)
class Published:
    """A picture's renditions as files. content_hash: pictures.recipes.content_hash of the source."""

    known: Known
    renditions: Mapping[str, Rendition]
    content_hash: str


def render(
    source: Path,
    folder: Path,
    *,
    seconds: float,
    limits: Limits | None = None,
    recipes: Recipes | None = None,
    on_known: Callable[[Known], None] | None = None,
) -> Published:
    """Makes the renditions of the picture in `source` as files in `folder`, which must exist.

    Args:
        seconds: wall time from now after which the work is stopped.
        on_known: called with the picture's properties before the renditions exist. An exception in it stops the work.

    Raises Rejected if the picture is at fault, Unfinished if a retry may succeed.
    """
    recipes = recipes or Recipes()
    limits = replace(limits or Limits(), side=recipes.largest_side)
    wanted = (*recipes.stills, recipes.animated)
    paths = [folder / f"{recipe.name}.{TYPES[recipe.encoding][1]}" for recipe in wanted]
    known: list[Known] = []

    def hear(fields: dict[str, Any]) -> None:
        known.append(_believed(Known.from_fields, fields))
        if on_known:
            on_known(known[-1])

    with ExitStack() as stack:
        upload = stack.enter_context(source.open("rb"))
        files = [upload, *(stack.enter_context(path.open("wb")) for path in paths)]
        job = {"limits": asdict(limits), "recipes": asdict(recipes)}
        said = sandbox.run(WORKER, job, files, memory=MEMORY, output_bytes=OUTPUT_BYTES, seconds=seconds, on_known=hear)
    if not known:
        raise Unfinished("the decoder says nothing of the picture that it has made")
    made = wanted if known[-1].kind == "animation" else recipes.stills
    renditions = _believed(lambda told: dict(_published(told, made, paths)), said)
    with source.open("rb") as upload:
        return Published(known[-1], renditions, content_hash(upload, recipes.stills, recipes.animated))


def _believed[T](check: Callable[[dict[str, Any]], T], said: dict[str, Any]) -> T:
    try:
        return check(said)
    except (KeyError, TypeError, ValueError) as error:
        raise Unfinished(f"the decoder talks nonsense: {error}") from error


def _published(said: Mapping[str, Any], made: tuple[Recipe, ...], paths: list[Path]) -> Iterator[tuple[str, Rendition]]:
    for recipe, path, (width, height) in zip(made, paths[: len(made)], said["sizes"], strict=True):
        content_type, _ = TYPES[recipe.encoding]
        with path.open("rb") as file:
            if sniff(file.read(64)) is not _FORMATS[recipe.encoding]:
                raise ValueError(f"{path.name} is no {content_type}")
        yield recipe.name, Rendition(path, pixels(width), pixels(height), path.stat().st_size, content_type)
