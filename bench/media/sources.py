"""The measured pictures: 12-megapixel JPEGs as phones write them, the same on every machine.

    python -m bench.media.sources COUNT        writes those that are missing

Variations of six painted scenes. All have a wide-gamut profile, as pictures of phones do; every other one is stored
rotated, with the orientation in its EXIF. Painting takes some seconds per picture, so they are kept.
"""

import subprocess
import sys
from pathlib import Path

from bench.tables import ROOT

FOLDER = ROOT / ".local" / "bench" / "pictures"
SCENES = ("lake", "alps", "dunes", "forest", "sea", "city")


def painted(count: int) -> list[Path]:
    """The first `count` pictures. Missing ones are painted in another process, which frees its memory."""
    subprocess.run([sys.executable, "-m", "bench.media.sources", str(count)], cwd=ROOT, check=True)
    return [FOLDER / f"{number:02}.jpg" for number in range(count)]


def write(number: int, path: Path) -> None:
    from PIL import Image

    from samples import files
    from samples.make import landscape

    upright = number % 2 == 1
    width, height = (3024, 4032) if upright else (4032, 3024)
    picture = landscape(SCENES[number % len(SCENES)], width, height, seed=100 + number)
    if upright:
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    exif = files.exif(orientation=6 if upright else 1, latitude=(52.0, 31.0, 12.0))
    part = path.with_suffix(".part")
    picture.save(part, "JPEG", quality=90, exif=exif, icc_profile=files.rgb_profile())
    part.rename(path)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for wanted in range(int(sys.argv[1])):
        if not (target := FOLDER / f"{wanted:02}.jpg").exists():
            write(wanted, target)
