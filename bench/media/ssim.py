"""How similar a rendition is to its original: SSIM of the luma (Wang et al. 2004), 1 for the same picture.

    python -m bench.media.ssim ORIGINAL RENDITION...      prints one figure a rendition

The reference is the original: upright, in sRGB, and reduced from all its pixels to the rendition's size with LANCZOS.
Window, constants and weights are the paper's: a Gaussian of 11 pixels with sigma 1.5, K1 0.01, K2 0.03.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.media.picture_ways import upright_srgb

Plane = NDArray[Any]  # float32

_TAPS = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2)).astype(np.float32)
_TAPS /= _TAPS.sum()


def ssim(one: Plane, other: Plane) -> float:
    """The SSIM of two planes of the same size, with values from 0 to 255."""
    mean_one, mean_other = _blur(one), _blur(other)
    squares = mean_one**2, mean_other**2, mean_one * mean_other
    variance_one, variance_other = _blur(one * one) - squares[0], _blur(other * other) - squares[1]
    covariance = _blur(one * other) - squares[2]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * squares[2] + c1) * (2 * covariance + c2)
    return float((above / ((squares[0] + squares[1] + c1) * (variance_one + variance_other + c2))).mean())


def _blur(plane: Plane) -> Plane:
    height, width = plane.shape
    rows: Plane = sum(tap * plane[at : height - 10 + at] for at, tap in enumerate(_TAPS))
    blurred: Plane = sum(tap * rows[:, at : width - 10 + at] for at, tap in enumerate(_TAPS))
    return blurred


def luma(picture: Image.Image) -> Plane:
    return np.asarray(picture.convert("RGB").convert("L"), np.float32)


if __name__ == "__main__":
    with Image.open(Path(sys.argv[1])) as stored:
        whole = upright_srgb(stored)
    reduced: dict[tuple[int, int], Plane] = {}
    for rendition in sys.argv[2:]:
        with Image.open(Path(rendition)) as shown:
            if shown.size not in reduced:
                reduced[shown.size] = luma(whole.resize(shown.size, Image.Resampling.LANCZOS))
            print(f"{ssim(reduced[shown.size], luma(shown)):.5f}")
