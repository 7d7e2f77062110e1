"""Composes the frames of a GIF or APNG as browsers and the specifications do.

Pillow's own readers fill unpainted areas with a background colour, blend half-transparent pixels wrongly, and blend
palette indexes. So each frame is given to them as a separate picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from PIL import Image

from pictures.colour import resizable
from pictures.formats import Format

KEEP, CLEAR, PREVIOUS = range(3)
MEMORY: Final = 28.0
"""Peak bytes per pixel, measured: the canvas before and after, a frame, and its conversion."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An area of the canvas, the milliseconds it is shown, and its pixels as a separate file.

    disposal: what happens to the area afterwards. over: blended with what is below instead of replacing it.
    """

    place: tuple[int, int, int, int]
    milliseconds: float
    disposal: int
    over: bool
    file: Sequence[bytes | memoryview]


class Animation(Image.Image):
    """Has Pillow's interface: `n_frames`, `seek`, `load`, `info` with `duration` and `loop` (plays, 0 is forever)."""

    def __init__(self, kind: Format, size: tuple[int, int], frames: Sequence[Frame], plays: int, mode: str) -> None:
        super().__init__()
        self._kind, self._canvas_size, self._frames, self._shown_mode = kind, size, frames, mode
        self.n_frames = len(frames)
        self.info = {"loop": plays}
        self._at, self._sought = -1, 0

    @property
    def size(self) -> tuple[int, int]:
        return self._canvas_size

    def seek(self, frame: int) -> None:
        self._sought = frame
        self.info["duration"] = self._frames[frame].milliseconds

    def load(self) -> Any:
        if self._sought < self._at or self._at < 0:
            self._at, self._base = -1, Image.new("RGBA", self._canvas_size)
        while self._at < self._sought:
            self._at += 1
            shown = self._put(self._frames[self._at]).convert(self._shown_mode)
            self.im, self._mode = shown.im, shown.mode
        return super().load()

    def _put(self, frame: Frame) -> Image.Image:
        with Image.open(BytesIO(b"".join(frame.file)), formats=(self._kind,)) as picture:
            pixels = resizable(picture).convert("RGBA")
        shown = self._base.copy()
        if frame.over:
            shown.alpha_composite(pixels, frame.place[:2])
        else:
            shown.paste(pixels, frame.place)
        if frame.disposal != PREVIOUS:
            self._base = shown
        if frame.disposal == CLEAR:
            self._base = shown.copy()
            self._base.paste((0, 0, 0, 0), frame.place)
        return shown
