"""What is made of a picture, and the name that its content and this give it. No decoder is loaded here."""

from dataclasses import dataclass
from hashlib import file_digest, sha256
from io import BufferedIOBase
from typing import Final, Literal

_REVISION: Final = b"nexus-pictures 3"
"""Change it with anything that changes the output: the renditions' addresses are immutable and cached for ever. Those
of a clip's posters have the video package's own in them."""

_WEBP_SIDE: Final = 16_383


@dataclass(frozen=True, slots=True)
class Recipe:
    """One rendition to make: fit into width x height with its proportions kept, or a centre square. Never enlarged.

    `tallest` cuts off, above and below, what a picture is higher than so many times its width.
    """

    name: str
    width: int
    height: int = _WEBP_SIDE
    square: bool = False
    tallest: float | None = None
    encoding: Literal["WEBP", "JPEG"] = "WEBP"


RECIPES: tuple[Recipe, ...] = (
    Recipe("thumbnail", 150, 150, square=True),
    Recipe("w320", 320),
    Recipe("w640", 640),
    Recipe("w1080", 1080),
    Recipe("full", 2048, 2048),
    Recipe("w1080_jpeg", 1080, encoding="JPEG"),
    # For mail, which knows no cropping (docs/mail.md): twice the pixels of their places in the digest.
    Recipe("mail_lead", 1080, tallest=0.75, encoding="JPEG"),
    Recipe("mail_square", 224, 224, square=True, encoding="JPEG"),
)
ANIMATED = Recipe("animated", 720, 720)
"""What an animation gets beside its stills: the long side of a phone's feed, since every frame is encoded."""


def content_hash(upload: BufferedIOBase, recipes: tuple[Recipe, ...] = RECIPES, animated: Recipe = ANIMATED) -> str:
    """32 hexadecimal digits that depend on the source's bytes and on how they are rendered, and on nothing else."""
    digest = file_digest(upload, lambda: sha256(_REVISION + repr((recipes, animated)).encode()))
    return digest.hexdigest()[:32]
