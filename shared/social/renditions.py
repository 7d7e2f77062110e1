"""What a page shows of a post's picture: the sources of a <picture> element, from the renditions that were made.

    *better, still = sources(post.media)
    for source in better:
        f'<source type="{source.type}" srcset="{source.srcset(url)}" sizes="...">'
    f'<img src="{url(still.largest.key)}" srcset="{still.srcset(url)}" sizes="...">'

A deployment chooses names, sizes and formats (docs/media.md), so this reads only what the post says of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from social.data.posts import Media, Rendition

TYPES: Final = ("image/avif", "image/webp", "image/jpeg")
"""Smallest files first. A browser that knows one of them knows those after it."""
_MOVING: Final = frozenset({"animated", "preview", "video"})


@dataclass(frozen=True, slots=True)
class Source:
    """Renditions of the whole picture, narrowest first, for browsers that know `type`; one a width."""

    type: str
    renditions: tuple[Rendition, ...]

    @property
    def largest(self) -> Rendition:
        """The widest rendition."""
        return self.renditions[-1]

    def srcset(self, url: Callable[[str], str]) -> str:
        """The attribute's value. `url` returns the address of a rendition's key."""
        return ", ".join(f"{url(one.key)} {one.width}w" for one in self.renditions)


def sources(media: Media) -> tuple[Source, ...]:
    """The sources of a post's picture or of a clip's poster, best first; the last is for the <img>. Empty if there are
    none.

    If a width was not made in a source's own type, the source has it in the next best type.
    """
    whole = [one for name, one in media.renditions.items() if name not in _MOVING and _is_whole(media, one)]
    made = [type_ for type_ in TYPES if any(one.content_type == type_ for one in whole)]
    found = []
    for at, type_ in enumerate(made):
        by_width: dict[int, Rendition] = {}
        for worse in reversed(made[at:]):
            by_width |= {one.width: one for one in whole if one.content_type == worse}
        found.append(Source(type_, tuple(by_width[width] for width in sorted(by_width))))
    return tuple(found)


def _is_whole(media: Media, one: Rendition) -> bool:
    """Whether a rendition shows all of the picture: it has its proportions, to a pixel.

    Posters have those of the clip's video, whose sides are even numbers.
    """
    shown = media.renditions.get("video", media)
    width, height = shown.width or one.width, shown.height or one.height
    return abs(one.width * height - one.height * width) <= max(width, height)
