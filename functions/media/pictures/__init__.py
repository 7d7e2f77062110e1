"""Pictures: what a still or an animation is, whether it is accepted, and its renditions. Bytes in, bytes out.

Here belongs everything that reads, decodes, converts or encodes a picture. AWS, posts and runs do not: the process that
decodes may have none of them. Clips belong to `video`, the reasons of a refusal to `social.refusals`.
"""

from pictures.formats import Format, sniff, unsupported
from pictures.headers import Header, Limits
from pictures.rendering import ANIMATED, LIMITS, RECIPES, Pictures, Recipe, Rendition, inspect, render

__all__ = [
    "ANIMATED",
    "LIMITS",
    "RECIPES",
    "Format",
    "Header",
    "Limits",
    "Pictures",
    "Recipe",
    "Rendition",
    "inspect",
    "render",
    "sniff",
    "unsupported",
]
