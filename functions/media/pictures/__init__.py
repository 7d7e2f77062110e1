"""Pictures: what a still or an animation is, whether it is accepted, and its renditions.

`supervisor` has a sandbox make them and believes nothing that it says; `worker` and what it imports are the only code
that reads, decodes, converts or encodes a picture. AWS, posts and runs do not belong here: the process that decodes may
have none of them. Clips belong to `video`, the reasons of a refusal to `social.refusals`.
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
