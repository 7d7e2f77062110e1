"""Makes a picture's renditions so that no picture can crash the task.

    pictures.render(Path("/tmp/upload"), Path("/tmp/out"), seconds=run.remaining - 20)

returns the renditions, or raises `Rejected` (the picture is at fault, permanently) or `Unfinished` (retry). A sandbox's
child decodes the bytes. Its output is trusted as little as the picture: names, types and keys are chosen here, and a
file of the wrong type is not published. What is published is a copy, which the child cannot write to.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shutil import copyfile
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
SECONDS: Final = 90.0
"""The most wall time for one picture: four times what the slowest accepted one takes (docs/media.md)."""
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
    on_made: Callable[[str, str, Rendition], None] | None = None,
) -> Published:
    """Makes the renditions of the picture in `source` as files in `folder`, which must exist.

    Args:
        seconds: wall time from now after which the work is stopped; after SECONDS it is in any case.
        on_known: called with the picture's properties before the renditions exist.
        on_made: called with the content hash, and each rendition's name and file, while the next ones are made.

    An exception in a callback stops the work.

    Raises Rejected if the picture is at fault, Unfinished if a retry may succeed.
    """
    recipes = recipes or Recipes()
    limits = replace(limits or Limits(), side=recipes.largest_side)
    wanted = (*recipes.stills, recipes.animated)
    drafts = [folder / f"{recipe.name}.draft" for recipe in wanted]
    known: list[Known] = []
    digest = ""
    renditions: dict[str, Rendition] = {}

    def announce(fields: dict[str, Any]) -> None:
        nonlocal digest
        known.append(sandbox.checked(Known.from_fields, fields))
        if on_known:
            on_known(known[-1])
        if not digest:  # by now the child is busy encoding
            with source.open("rb") as upload:
                digest = content_hash(upload, recipes.stills, recipes.animated)

    def take(fields: dict[str, Any]) -> None:
        name, rendition = sandbox.checked(lambda part: _copy_part(part, wanted, drafts), fields)
        if name in renditions or not known:
            raise Unfinished(f"invalid report by the decoder: {name} came twice, or too early")
        renditions[name] = rendition
        if on_made:
            on_made(digest, name, rendition)

    with ExitStack() as stack:
        upload = stack.enter_context(source.open("rb"))
        files = [upload, *(stack.enter_context(path.open("wb")) for path in drafts)]
        job = {"limits": asdict(limits), "recipes": asdict(recipes)}
        sandbox.run(
            WORKER,
            job,
            files,
            memory=MEMORY,
            output_bytes=OUTPUT_BYTES,
            seconds=min(seconds, SECONDS),
            on_known=announce,
            on_part=take,
        )
    if not known:
        raise Unfinished("the decoder did not report the picture's properties")
    names = [recipe.name for recipe in (wanted if known[-1].kind == "animation" else recipes.stills)]
    if set(names) != set(renditions):
        raise Unfinished(f"invalid report by the decoder: of {names} it made {sorted(renditions)}")
    return Published(known[-1], {name: renditions[name] for name in names}, digest)


def _copy_part(part: dict[str, Any], wanted: tuple[Recipe, ...], drafts: list[Path]) -> tuple[str, Rendition]:
    """A finished file's name and copy. Raises ValueError and the like if the report or the file is invalid."""
    number, width, height = part["number"], part["width"], part["height"]
    if type(number) is not int or not 0 <= number < len(wanted):
        raise ValueError(f"there is no file {number!r}")
    recipe = wanted[number]
    content_type, extension = TYPES[recipe.encoding]
    path = copyfile(drafts[number], drafts[number].with_suffix(f".{extension}"))
    with path.open("rb") as file:
        if sniff(file.read(64)) is not _FORMATS[recipe.encoding]:
            raise ValueError(f"{path.name} is not {content_type}")
    return recipe.name, Rendition(path, pixels(width), pixels(height), path.stat().st_size, content_type)
