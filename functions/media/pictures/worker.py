"""The part of this package that processes a picture's bytes, in a sandbox's child (`sandbox`).

The server imports this module once, for all of its children. So everything that decoding may need is imported here: a
child can no longer open files.
"""

import encodings.utf_16_be  # noqa: F401 - see above
from dataclasses import asdict
from io import FileIO
from typing import Any

from PIL import Image, ImageCms, ImageOps, TiffImagePlugin  # noqa: F401 - see above

from pictures.formats import Format
from pictures.headers import Limits
from pictures.reading import register
from pictures.recipes import Recipes
from pictures.rendering import Rendition, render
from sandbox.report import Report, write_all

Image.preinit()
for each in Format:
    register(each)


def work(job: dict[str, Any], files: list[FileIO], report: Report) -> dict[str, Any]:
    """Renders the first of the files into the others, one for each recipe and one for an animation. Raises Rejected.

    Each file is reported once it is written.
    """
    source, *outputs = files
    recipes = Recipes.of_fields(job["recipes"])

    def write(number: int, rendition: Rendition) -> None:
        write_all(outputs[number], rendition.data)
        report.part({"number": number, "width": rendition.width, "height": rendition.height})

    render(
        source.readall(),
        Limits(**job["limits"]),
        recipes.stills,
        recipes.animated,
        on_known=lambda known: report.known(asdict(known)),
        on_made=write,
    )
    return {}
