"""Writes the measured pictures: twenty 12-megapixel JPEGs as phones write them, the same on every machine.

    python -m bench.media.sources FOLDER COUNT        writes what is missing

Variations of six painted scenes. All have a wide-gamut profile, as pictures of phones do; every other one is stored
rotated, with the orientation in its EXIF. plain/ has a copy of each without the profile. Painting takes some seconds
per picture, so they are kept.
"""

import sys
from pathlib import Path

from PIL import Image

from samples import files
from samples.make import landscape

SCENES = ("lake", "alps", "dunes", "forest", "sea", "city")


def write(number: int, folder: Path) -> None:
    upright = number % 2 == 1
    width, height = (3024, 4032) if upright else (4032, 3024)
    picture = landscape(SCENES[number % len(SCENES)], width, height, seed=100 + number)
    if upright:
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    exif = files.exif(orientation=6 if upright else 1, latitude=(52.0, 31.0, 12.0))
    # The file that is checked for is written last, and atomically.
    picture.save(folder / "plain" / f"{number:02}.jpg", quality=90, exif=exif)
    part = folder / "part"
    picture.save(part, "JPEG", quality=90, exif=exif, icc_profile=files.rgb_profile())
    part.rename(folder / f"{number:02}.jpg")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    (target / "plain").mkdir(parents=True, exist_ok=True)
    for wanted in range(int(sys.argv[2])):
        if not (target / f"{wanted:02}.jpg").exists():
            write(wanted, target)
