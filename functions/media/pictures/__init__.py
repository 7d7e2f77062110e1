"""Pictures: recognises, accepts or refuses stills and animations, and makes their renditions.

`supervisor` runs a sandbox for this and does not trust its output. Only `worker` and its imports read, decode, convert
or encode a picture. AWS, posts and runs do not belong here: the decoding process must not have access to them. Clips
belong to `video`, the reasons for a refusal to `social.refusals`.
"""

from pictures.formats import sniff, unsupported
from pictures.headers import Limits
from pictures.job import Known
from pictures.recipes import BadRecipe, Recipes, read_recipes
from pictures.supervisor import Published, render

__all__ = [
    "BadRecipe",
    "Known",
    "Limits",
    "Published",
    "Recipes",
    "read_recipes",
    "render",
    "sniff",
    "unsupported",
]
