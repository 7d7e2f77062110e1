"""What a client shows while a picture loads, small enough to be part of the post: a blurhash and one colour.

Blurhash and not thumbhash, because every mobile and web toolkit has a decoder for it. Algorithm and alphabet:
https://github.com/woltapp/blurhash/blob/master/Algorithm.md
"""

from math import copysign, cos, pi, sqrt, sumprod

from PIL import Image

__all__ = ["blurhash", "dominant_colour"]

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~"
_COMPONENTS = (4, 3)
_SAMPLE = (32, 24)
"""Pixels for computing the hash: far more than its 4 x 3 waves need, so that more would not change it."""
_LINEAR = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in range(256)]
_WAVES_X = [[cos(pi * i * (x + 0.5) / _SAMPLE[0]) for x in range(_SAMPLE[0])] for i in range(_COMPONENTS[0])]
_WAVES_Y = [[cos(pi * j * (y + 0.5) / _SAMPLE[1]) for y in range(_SAMPLE[1])] for j in range(_COMPONENTS[1])]


def blurhash(picture: Image.Image) -> str:
    """The 28 characters of a 4 x 3 blurhash of an RGB picture of any size. Raises ValueError for another mode."""
    if picture.mode != "RGB":
        raise ValueError(f"blurhash needs RGB, not {picture.mode}")
    samples = picture.resize(_SAMPLE, Image.Resampling.BOX).tobytes()
    width, height = _SAMPLE
    channels = []
    for channel in range(3):
        light = [_LINEAR[value] for value in samples[channel::3]]
        rows = [light[y * width : (y + 1) * width] for y in range(height)]
        # The cosine transform is separable: along the rows first, then along the columns of the result.
        along_x = [[sumprod(row, wave) for row in rows] for wave in _WAVES_X]
        channels.append([sumprod(column, wave) for wave in _WAVES_Y for column in along_x])
    # The average counts once and every wave twice (the cosine's normalisation), as in the reference encoder.
    factors = list(zip(*channels, strict=True))
    average = [value / (width * height) for value in factors[0]]
    waves = [[2 * value / (width * height) for value in factor] for factor in factors[1:]]

    loudest = max(abs(value) for factor in waves for value in factor)
    scale = max(0, min(82, int(loudest * 166 - 0.5)))
    loudest = (scale + 1) / 166
    digits = [_base83((_COMPONENTS[0] - 1) + (_COMPONENTS[1] - 1) * 9, 1), _base83(scale, 1)]
    red, green, blue = (_to_srgb(value) for value in average)
    digits.append(_base83((red << 16) + (green << 8) + blue, 4))
    for factor in waves:
        red, green, blue = (max(0, min(18, int(_signed_root(value / loudest) * 9 + 9.5))) for value in factor)
        digits.append(_base83(red * 361 + green * 19 + blue, 2))
    return "".join(digits)


def dominant_colour(picture: Image.Image) -> str:
    """The most common colour of an RGB or RGBA picture, as "#rrggbb": the mean of the fullest of 8 x 8 x 8 boxes.

    Pixels less than half opaque do not count; if no pixel counts, the colour is white, as the page behind them.
    """
    samples = picture.convert("RGBA").resize(_SAMPLE, Image.Resampling.BOX).tobytes()
    boxes: dict[int, list[tuple[int, int, int]]] = {}
    for red, green, blue, alpha in zip(samples[0::4], samples[1::4], samples[2::4], samples[3::4], strict=True):
        if alpha >= 128:
            boxes.setdefault((red >> 5 << 6) + (green >> 5 << 3) + (blue >> 5), []).append((red, green, blue))
    if not boxes:
        return "#ffffff"
    fullest = max(boxes.items(), key=lambda box: (len(box[1]), -box[0]))[1]
    red, green, blue = (round(sum(channel) / len(fullest)) for channel in zip(*fullest, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _to_srgb(light: float) -> int:
    light = max(0.0, min(1.0, light))
    return int((light * 12.92 if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055) * 255 + 0.5)


def _signed_root(value: float) -> float:
    return copysign(sqrt(abs(value)), value)


def _base83(value: int, length: int) -> str:
    return "".join(_ALPHABET[value // 83**place % 83] for place in range(length - 1, -1, -1))
