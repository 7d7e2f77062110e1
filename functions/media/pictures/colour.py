"""Converts pixels of any mode, profile or dynamic range to RGB or RGBA in sRGB."""

from functools import cache, lru_cache
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal

from PIL import Image
from PIL.ImageFilter import Color3DLUT

from colours.light import BT2020, PRIMARIES, cube, srgb_code

if TYPE_CHECKING:
    from PIL._imagingcms import CmsProfile
    from PIL.ImageCms import ImageCmsTransform

_CUBE_SIDE = 33
_SRGB_NAMES: Final = frozenset({
    "sRGB", "sRGB IEC61966-2.1", "sRGB IEC61966-2-1 black scaled", "sRGB2014", "sRGB built-in",
    "sRGB-elle-V2-srgbtrc.icc", "sRGB-elle-V4-srgbtrc.icc",
})  # fmt: skip
"""The descriptions of profiles that are sRGB, and need no transform. Others begin like these: `sRGB-elle-V2-g10.icc`,
which Krita embeds, is linear.
"""
_MOST_TAGS: Final = 100
"""As in Little CMS, which reads no more."""


def resizable(image: Image.Image) -> Image.Image:
    """Converts to a mode that can be resized smoothly: L, LA, RGB, RGBA or CMYK."""
    transparency = image.info.get("transparency")
    if image.mode.startswith("I"):
        if isinstance(transparency, int):
            return _grey_without(image, transparency)
        return _eight_bits(image)
    if isinstance(transparency, tuple) and max(transparency) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in transparency)  # 16 bits, as their pixels were
    if image.mode in {"1", "L"}:
        return image.convert("LA" if image.has_transparency_data else "L")
    if image.mode in {"LA", "RGBA", "CMYK"}:
        return image
    return _as(image, "RGBA" if image.has_transparency_data else "RGB")


def _eight_bits(grey: Image.Image) -> Image.Image:
    """16-bit grey as 8 bits. convert() alone clips at 255, which turns nearly everything white."""
    return grey.point(lambda value: value * (1 / 257) + 0.5).convert("L")


def _grey_without(grey: Image.Image, key: int) -> Image.Image:
    """16-bit grey as 8 bits, transparent where a sample equals the key."""
    apart = grey.point(lambda value: value * 1 - key).convert("L")  # 0 where equal, whatever wraps around elsewhere
    shown = _eight_bits(grey)
    shown.putalpha(apart.point([0] + [255] * 255))
    return shown


def widened(image: Image.Image) -> Image.Image:
    """Expands samples from 16-235 to 0-255; opacity stays."""
    table = [min(255, max(0, round((value - 16) * 255 / 219))) for value in range(256)]
    same = list(range(256))
    return image.point([value for band in image.getbands() for value in (same if band == "A" else table)])


def to_srgb(image: Image.Image, profile: bytes | None, light: tuple[int, int] | None = None) -> Image.Image:
    """RGB or RGBA in sRGB. A broken profile, or one for another colour model than the pixels', counts as sRGB.

    `light`: primaries and transfer function of a high dynamic range, which take precedence over a profile.
    """
    plain: Literal["RGB", "RGBA"] = "RGBA" if image.mode in {"LA", "RGBA"} else "RGB"
    if light:
        alpha = image.getchannel("A") if plain == "RGBA" else None
        primaries, transfer = light
        screen = _screen(primaries if primaries in PRIMARIES else BT2020, transfer)
        image = _as(image, plain).convert("RGB").filter(screen)
        if alpha:
            image.putalpha(alpha)
        return image
    if profile:
        # A grey picture may carry a colour profile: try both readings.
        for mode in dict.fromkeys(("L" if image.mode == "LA" else image.mode, plain)):
            if transform := _transform(profile, mode, "RGB" if mode in {"L", "CMYK"} else plain):
                if mode == "L" and plain == "RGBA":
                    grey, alpha = image.split()
                    image = _apply(transform, grey)
                    image.putalpha(alpha)
                    return image
                return _apply(transform, _as(image, mode))
    return _as(image, plain)


def _as(image: Image.Image, mode: str) -> Image.Image:
    """Converts unless the mode is the same: convert() would copy the whole picture."""
    return image if image.mode == mode else image.convert(mode)


def _apply(transform: "ImageCmsTransform", image: Image.Image) -> Image.Image:
    if transform.input_mode == transform.output_mode == "RGB":
        return transform.apply_in_place(image)  # the pixels are not shared with another picture
    converted = transform.apply(image)
    assert converted is not None
    return converted


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str, output: str) -> "ImageCmsTransform | None":
    """The transform from a profile to sRGB; None if not needed or not possible. Cached: cameras use few profiles."""
    from PIL import ImageCms  # loads Little CMS, so only for pictures with a profile

    try:
        embedded = ImageCms.ImageCmsProfile(BytesIO(_without_elements(profile)))
        if mode != "L" and ImageCms.getProfileDescription(embedded).strip() in _SRGB_NAMES:
            return None
        return ImageCms.buildTransform(embedded, _srgb(), mode, output, renderingIntent=ImageCms.Intent.PERCEPTUAL)
    except (OSError, ImageCms.PyCMSError, ValueError, TypeError):
        return None


def _without_elements(profile: bytes) -> bytes:
    """The profile without its chains of processing elements (D2B0 to D2B3): Little CMS would prefer them to its tables
    and curves, and a few kilobytes may hold a million, each applied to every node of the transform.
    """
    data = bytearray(profile)
    for at in range(132, 132 + 12 * min(int.from_bytes(profile[128:132]), _MOST_TAGS), 12):
        if data[at : at + 3] == b"D2B":
            data[at : at + 4] = b"none"
    return bytes(data)


@cache
def _srgb() -> "CmsProfile":
    from PIL import ImageCms

    return ImageCms.createProfile("sRGB")


@lru_cache(maxsize=4)
def _screen(primaries: int, transfer: int) -> Color3DLUT:
    table = chain.from_iterable(cube(transfer, primaries, _CUBE_SIDE, srgb_code))
    return Color3DLUT(_CUBE_SIDE, list(table))
