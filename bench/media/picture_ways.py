"""The measured ways to make the deployed renditions in Python: ours, naive Pillow, and libvips with pyvips.

    python -m bench.media.picture_ways WAY

Serves one way on standard input and output, so that each way has its own process and imports are not measured. For a
line {"path": ..., "keep": folder or null, "shift": 0} it prints a line with CPU milliseconds, output bytes and peak
MB. `shift` is added to every recipe's quality.

Each way makes the renditions of `pictures.recipes.RECIPES` from an upload, in the same formats, upright, in sRGB and
without metadata, and a blurhash. libvips runs in .venv-bench, the others in .venv.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from bench.processes import peak_megabytes
from pictures.placeholder import blurhash
from pictures.recipes import RECIPES, Recipe

Made = dict[str, bytes]
"""Rendition's name to its file, and "blurhash" to its text."""
Recipes = tuple[Recipe, ...]
Way = Callable[[bytes, Recipes], Made]


def ours(source: bytes, recipes: Recipes) -> Made:
    from pictures.rendering import render

    rendered = render(source, recipes=recipes)
    return {"blurhash": rendered.placeholder.encode()} | {made.name: made.data for made in rendered.renditions}


def naive(source: bytes, recipes: Recipes) -> Made:
    """As in tutorials: everything at full size, each rendition from a copy of the whole picture, default options."""
    from PIL import ImageOps

    picture = upright_srgb(Image.open(BytesIO(source)))
    made = {}
    small = picture
    for recipe in recipes:
        shown = picture.copy()
        if recipe.square:
            shown = ImageOps.fit(shown, (recipe.width, recipe.height), Image.Resampling.LANCZOS)
        else:
            shown.thumbnail((recipe.width, recipe.height), Image.Resampling.LANCZOS, reducing_gap=None)
        out = BytesIO()
        shown.save(out, recipe.encoding, quality=recipe.quality)
        made[recipe.name] = out.getvalue()
        small = shown if recipe.width == 320 else small
    return made | {"blurhash": blurhash(small).encode()}


def upright_srgb(stored: Image.Image) -> Image.Image:
    """The whole picture upright and in sRGB, from all its pixels."""
    from PIL import ImageCms, ImageOps

    profile = stored.info.get("icc_profile")
    picture = ImageOps.exif_transpose(stored).convert("RGB")
    if not profile:
        return picture
    embedded, srgb = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(picture, embedded, srgb, outputMode="RGB")
    assert converted is not None
    return converted


EFFORT: dict[str, dict[str, Any]] = {
    "WEBP": {"effort": 2},
    "AVIF": {"effort": 0, "tune": "ssim"},
    "JPEG": {"interlace": True, "optimize_coding": True},
}
"""The settings of our encoders, by libvips' names. Tuned for SSIM like ours, its AVIF is nearly ours byte for byte; its
default takes more CPU time and has a lower SSIM."""


def vips_best(source: bytes, recipes: Recipes) -> Made:
    """One decode that shrinks as it loads, a cascade, lighter encoder settings."""
    import pyvips

    largest = max(recipe.width for recipe in recipes)
    master = pyvips.Image.thumbnail_buffer(source, largest, height=largest, size="down", **_vips_colours(source))
    return _vips_cascade(master.copy_memory(), recipes)


def vips_half(source: bytes, recipes: Recipes) -> Made:
    """The same with our rule for the decoder's scale: half the size, if that is nearly large enough."""
    import pyvips

    stored = pyvips.Image.new_from_buffer(source, "")
    long, largest = max(stored.width, stored.height), max(recipe.width for recipe in recipes)
    if not 0.95 * largest <= -(-long // 2) <= largest:
        return vips_best(source, recipes)
    master = pyvips.Image.jpegload_buffer(source, shrink=2).autorot()
    if colours := _vips_colours(source):
        master = master.icc_transform(colours["output_profile"], embedded=True)
    return _vips_cascade(master.copy_memory(), recipes)


def _vips_cascade(level: Any, recipes: Recipes) -> Made:
    made = {}
    for recipe in sorted(recipes, key=lambda recipe: (recipe.square, -recipe.width)):
        if recipe.square:
            shown = level.thumbnail_image(recipe.width, height=recipe.height, crop="centre", size="down")
        else:
            if recipe.width < level.width:
                level = level.resize(recipe.width / level.width).copy_memory()
            shown = level
        made[recipe.name] = _vips_save(shown, recipe)
    return made | {"blurhash": _vips_hash(level)}


def _vips_save(picture: Any, recipe: Recipe) -> bytes:
    options = EFFORT[recipe.encoding]
    match recipe.encoding:
        case "WEBP":
            data = picture.webpsave_buffer(Q=recipe.quality, keep="none", **options)
        case "JPEG":
            data = picture.jpegsave_buffer(Q=recipe.quality, keep="none", **options)
        case _:
            data = picture.heifsave_buffer(Q=recipe.quality, compression="av1", keep="none", **options)
    return bytes(data)


def _vips_colours(source: bytes) -> dict[str, str]:
    """Options to convert to sRGB, if there is a profile: without one, libvips would go through Lab and back."""
    import pyvips

    has_profile = pyvips.Image.new_from_buffer(source, "").get_typeof("icc-profile-data")
    return {"output_profile": "srgb"} if has_profile else {}


def _vips_hash(picture: Any) -> bytes:
    pixels = picture.thumbnail_image(32, height=24, size="force")
    return blurhash(Image.frombytes("RGB", (32, 24), pixels.write_to_memory())).encode()


WAYS: dict[str, Way] = {
    "ours": ours,
    "naive": naive,
    "vips_best": vips_best,
    "vips_half": vips_half,
}


def serve(make: Way) -> None:
    for line in sys.stdin:
        order = json.loads(line)
        source = Path(order["path"]).read_bytes()
        recipes = tuple(replace(recipe, quality=recipe.quality + order["shift"]) for recipe in RECIPES)
        began = time.process_time()
        made = make(source, recipes)
        figures = {
            "cpu": (time.process_time() - began) * 1000,
            "bytes": sum(len(data) for name, data in made.items() if name != "blurhash"),
            "peak": peak_megabytes(),
        }
        if order["keep"]:
            for recipe in RECIPES:
                Path(order["keep"], recipe.name).write_bytes(made[recipe.name])
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    serve(WAYS[sys.argv[1]])
