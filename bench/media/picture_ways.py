"""The ways to make the same renditions that are measured in Python: ours, naive Pillow, and libvips by pyvips.

    python -m bench.media.picture_ways WAY

Serves one way from standard input, so that every way has a process of its own and its imports are not measured: a line
{"path": ..., "keep": folder or null} is answered with a line of CPU and wall milliseconds, bytes out and peak MB.

Each makes of one upload, upright and in sRGB, with nothing attached: a square of 150 pixels cut from the centre and the
widths 320, 640 and 1080 as WebP of quality 80, and a blurhash. libvips runs in .venv-bench, the others in .venv.
"""

import json
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "functions" / "media"))

from PIL import Image

from pictures.placeholder import blurhash

Made = dict[str, bytes]
"""Rendition's name to its file, and "blurhash" to its text."""
Way = Callable[[bytes], Made]

WIDTHS = (1080, 640, 320)
ANY_HEIGHT = 10_000_000


def ours() -> Way:
    from pictures.recipes import RECIPES
    from pictures.rendering import render

    recipes = [recipe for recipe in RECIPES if recipe.name in {"thumbnail", "w320", "w640", "w1080"}]

    def make(source: bytes) -> Made:
        rendered = render(source, recipes=recipes)
        return {"blurhash": rendered.placeholder.encode()} | {made.name: made.data for made in rendered.renditions}

    return make


def naive() -> Way:
    """As in tutorials: everything at full size, and each rendition from a copy of the whole picture."""
    from PIL import ImageOps

    def make(source: bytes) -> Made:
        picture = upright_srgb(Image.open(BytesIO(source)))
        renditions = {"thumbnail": ImageOps.fit(picture.copy(), (150, 150), Image.Resampling.LANCZOS)}
        for width in WIDTHS:
            size = width, round(picture.height * width / picture.width)
            renditions[f"w{width}"] = picture.copy().resize(size, Image.Resampling.LANCZOS)
        made = {"blurhash": blurhash(renditions["w320"]).encode()}
        for name, rendition in renditions.items():
            out = BytesIO()
            rendition.save(out, "WEBP", quality=80)
            made[name] = out.getvalue()
        return made

    return make


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


def vips_usual() -> Way:
    """One thumbnail call per size, as in libvips' documentation."""
    import pyvips

    def make(source: bytes) -> Made:
        colours = _vips_colours(source)

        def thumbnail(width: int, **options: object) -> "pyvips.Image":
            return pyvips.Image.thumbnail_buffer(source, width, size="down", **colours, **options)

        small = thumbnail(320, height=ANY_HEIGHT).copy_memory()
        return {
            "w1080": thumbnail(1080, height=ANY_HEIGHT).webpsave_buffer(Q=80, keep="none"),
            "w640": thumbnail(640, height=ANY_HEIGHT).webpsave_buffer(Q=80, keep="none"),
            "w320": small.webpsave_buffer(Q=80, keep="none"),
            "thumbnail": thumbnail(150, height=150, crop="centre").webpsave_buffer(Q=80, keep="none"),
            "blurhash": _vips_hash(small),
        }

    return make


def vips_best() -> Way:
    """The same ideas as ours in libvips: one decode that shrinks as it loads, a cascade, a lighter encoder setting."""
    import pyvips

    def make(source: bytes) -> Made:
        level = pyvips.Image.thumbnail_buffer(
            source, WIDTHS[0], height=ANY_HEIGHT, size="down", **_vips_colours(source)
        ).copy_memory()
        made = {}
        for width in WIDTHS:
            if width != level.width:
                level = level.resize(width / level.width).copy_memory()
            made[f"w{width}"] = level.webpsave_buffer(Q=80, effort=2, keep="none")
        square = level.thumbnail_image(150, height=150, crop="centre", size="down")
        made["thumbnail"] = square.webpsave_buffer(Q=80, effort=2, keep="none")
        return made | {"blurhash": _vips_hash(level)}

    return make


def _vips_colours(source: bytes) -> dict[str, str]:
    """Options to convert to sRGB, if there is a profile: without one, libvips would go through Lab and back."""
    import pyvips

    has_profile = pyvips.Image.new_from_buffer(source, "").get_typeof("icc-profile-data")
    return {"output_profile": "srgb"} if has_profile else {}


def _vips_hash(picture: Any) -> bytes:
    pixels = picture.thumbnail_image(32, height=24, size="force")
    return blurhash(Image.frombytes("RGB", (32, 24), pixels.write_to_memory())).encode()


WAYS: dict[str, Callable[[], Way]] = {
    "ours": ours,
    "naive": naive,
    "vips_usual": vips_usual,
    "vips_best": vips_best,
}


def peak_megabytes() -> float:
    """Peak memory of this program only. (ru_maxrss starts at the parent process's value.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def serve(make: Way) -> None:
    for line in sys.stdin:
        order = json.loads(line)
        source = Path(order["path"]).read_bytes()
        cpu, wall = time.process_time(), time.perf_counter()
        made = make(source)
        figures = {
            "cpu": (time.process_time() - cpu) * 1000,
            "wall": (time.perf_counter() - wall) * 1000,
            "bytes": sum(len(data) for name, data in made.items() if name != "blurhash"),
            "peak": peak_megabytes(),
            "blurhash": made["blurhash"].decode(),
        }
        if order["keep"]:
            Path(order["keep"]).write_bytes(made["w1080"])
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    serve(WAYS[sys.argv[1]]())
