"""What the worker reports about a picture before its renditions are made, and the validation of it."""

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

_PLACEHOLDER: Final = re.compile(r"[\w#$%*+,\-.:;=?@\[\]^{|}~]{28}", re.ASCII)
_COLOUR: Final = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A decoded picture's properties. Width and height are the original's, upright, in pixels.

    placeholder: a blurhash. dominant_colour: "#rrggbb".
    """

    kind: Literal["image", "animation"]
    width: int
    height: int
    placeholder: str
    dominant_colour: str

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "Known":
        """Raises ValueError or TypeError if our worker could not have sent it."""
        known = cls(**fields)
        if known.kind not in ("image", "animation"):
            raise ValueError(f"kind {known.kind!r}")
        if not _PLACEHOLDER.fullmatch(known.placeholder) or not _COLOUR.fullmatch(known.dominant_colour):
            raise ValueError(f"placeholder {known.placeholder!r}, colour {known.dominant_colour!r}")
        pixels(known.width), pixels(known.height)
        return known


def pixels(value: Any) -> int:
    """A picture's width or height. Raises ValueError if it is invalid."""
    if type(value) is not int or not 0 < value < 1 << 31:
        raise ValueError(f"{value!r} pixels")
    return value
