"""The messages between the parent and the worker: the limits for a clip, and the finished files."""

from dataclasses import dataclass
from typing import Any, Final

OUTPUTS: Final = {"video": ("video.mp4", "video/mp4"), "preview": ("preview.webp", "image/webp")}
POSTER: Final = "poster.png"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for a clip. A clip over any of them is rejected, with the limit in the reason."""

    bytes: int = 256 << 20
    """Size of the source. The function's /tmp must hold this and the renditions (about 0.6 MB a second) at once."""
    seconds: float = 300.0
    """Play time, as measured: the container's declared duration can only cause an earlier refusal."""
    pixels: int = 4096 * 2304
    """Width x height of one frame: 4K, with room for cinema's."""
    least_side: int = 16
    """The least width and height in pixels: H.264 has macroblocks of 16, and anything smaller is not visible."""
    frame_rate: float = 240.0
    """Frames a second, as telephones record slow motion. Over 60, frames are left out of the rendition."""
    work: int = 64_000_000_000
    """Pixels that are decoded, and for each frame of the rendition Clip.frame_work: 225 s of 4K at 30 frames a second,
    174 s where it is HDR. Even a clip within the limit of seconds can be more work than one invocation can do.
    """
    streams: int = 16
    """Phones write up to eight (picture, sound, and sensors that are dropped)."""
    memory: int = 1 << 30
    """Bytes of private memory that the worker may take (RLIMIT_DATA)."""
    output_bytes: int = 512 << 20
    """Bytes of any one file that the worker may write (RLIMIT_FSIZE)."""


def size_from_fields(fields: dict[str, Any]) -> tuple[int, int]:
    """Width and height as displayed, from the worker's report before decoding. Raises ValueError or KeyError."""
    width, height = fields["width"], fields["height"]
    if type(width) is not int or type(height) is not int or not 0 < min(width, height) <= max(width, height) < 1 << 31:
        raise ValueError(f"{width!r} x {height!r} pixels")
    return width, height


@dataclass(frozen=True, slots=True)
class Made:
    """The worker's report of its finished files. `renditions`: name to width and height."""

    width: int
    height: int
    duration: float
    frame_rate: float
    remuxed: bool
    renditions: dict[str, tuple[int, int]]

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "Made":
        """Raises ValueError, TypeError or OverflowError if invalid: Python's JSON allows infinities and NaN."""
        made = cls(**fields)
        sizes = {name: (int(width), int(height)) for name, (width, height) in dict(made.renditions).items()}
        if set(sizes) != set(OUTPUTS):
            raise ValueError(f"renditions {sorted(sizes)}")
        numbers = (
            made.width,
            made.height,
            made.duration,
            made.frame_rate,
            *(n for size in sizes.values() for n in size),
        )
        if not all(0 <= number < 1 << 31 for number in numbers):
            raise ValueError(f"numbers {numbers}")
        return cls(
            int(made.width), int(made.height), float(made.duration), float(made.frame_rate), bool(made.remuxed), sizes
        )
