"""Makes the sample media for `make run`: believable pictures of our own, and a few files that mean harm.

`python samples/make.py [FOLDER]` writes them into .samples/ (ignored by git) and prints their names. They are
computed, the same on every machine with the same libraries; existing files stay, so a second call
costs nothing.
"""

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    import av

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from samples import files  # noqa: E402 - found through the line above, when started as a script

FOLDER = ROOT / ".samples"

Plane = NDArray[Any]  # floats
Colour = tuple[float, float, float]


# Scenes. A picture is an array of floats, height x width x 3, from 0 to 1.


def noise(height: int, width: int, cells: tuple[float, float], rng: np.random.Generator, octaves: int = 6) -> Plane:
    """Fractal value noise from 0 to 1: random grids of ever more cells (down, across) at ever less weight."""
    total: Plane = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        down, across = (
            min(side, max(2, int(n * 2**octave) + 2)) for side, n in zip((height, width), cells, strict=True)
        )
        grid = Image.fromarray(rng.random((down, across), np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    low, high = total.min(), total.max()
    scaled: Plane = (total - low) / (high - low)
    return scaled


def blend(below: Plane, above: Plane | Colour, cover: Plane) -> Plane:
    """`above` over `below`, by its cover from 0 to 1."""
    return below + (np.asarray(above, np.float32) - below) * cover[..., None]


def sky(
    height: int, width: int, top: Colour, bottom: Colour, sun: tuple[float, float], rng: np.random.Generator
) -> Plane:
    """A gradient with a sun at (x, y) in parts of the size, its glow, and clouds that it lights."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width
    picture = np.asarray(top, np.float32) + (np.asarray(bottom, np.float32) - top) * (y / 0.62).clip(0, 1)[..., None]
    away = np.hypot((x - sun[0]) * width / height, y - sun[1])
    picture = blend(picture, (1.0, 0.86, 0.62), np.exp(-away * 3.2) * 0.75)
    clouds = noise(height, width, (9, 3), rng, 7)
    cover = ((clouds - 0.5) * 4).clip(0, 1) * (1 - y * 1.1).clip(0, 1)
    lit = blend(
        np.broadcast_to(np.asarray([0.93, 0.92, 0.95], np.float32), picture.shape), (1.0, 0.78, 0.6), np.exp(-away * 2)
    )
    picture = blend(picture, lit - (clouds[..., None] - 0.6).clip(0, 1) * 0.7, cover * 0.85)
    return blend(picture, (1.0, 0.97, 0.88), ((0.035 - away) * 160).clip(0, 1))


def ridges(picture: Plane, colours: tuple[Colour, Colour], base: float, rise: float, rng: np.random.Generator) -> Plane:
    """Five mountain ranges, from the far and hazy one to the near and dark one, lit from the left."""
    height, width = picture.shape[:2]
    rows = np.arange(height, dtype=np.float32)[:, None]
    for layer in range(5):
        near = layer / 4
        outline = noise(2, width, (1, 2.0 + layer * 1.7), rng, 9)[0]
        top = height * (base + near * 0.2 - rise * (1 - near * 0.55) * outline)
        rock = noise(height, width, (26 - 3 * layer, 18 + 6 * layer), rng, 6)
        light = np.diff(rock, axis=1, prepend=rock[:, :1]) * width / 70
        colour = np.asarray(colours[0], np.float32) * (1 - near) + np.asarray(colours[1], np.float32) * near
        shade = colour * (0.72 + 0.4 * rock[..., None] + (0.1 + 0.25 * near) * light[..., None].clip(-1, 1))
        mist = ((rows - top) / (height * 0.3)).clip(0, 1) * (1 - near) * 0.55
        shade = blend(shade, colours[0], mist)
        picture = blend(picture, shade, ((rows - top) / 1.5).clip(0, 1))
    return picture


def lake(picture: Plane, shore: float, rng: np.random.Generator) -> Plane:
    """Water from `shore` (in parts of the height) down: a darker mirror of what is above, with ripples that widen."""
    height, width = picture.shape[:2]
    line = int(height * shore)
    depth = np.arange(height - line, dtype=np.float32)[:, None] / (height - line)
    ripples = noise(height - line, width, (60, 7), rng, 4) - 0.5
    rows = line - 1 - np.arange(height - line)[:, None] * 0.9 + ripples * height * 0.05 * (0.1 + depth)
    across = np.arange(width)[None, :] + ripples * width * 0.012 * depth
    mirror = picture[rows.clip(0, line - 1).astype(np.int32), across.clip(0, width - 1).astype(np.int32)]
    water = blend(mirror * 0.82, (0.03, 0.11, 0.16), 0.15 + 0.5 * depth + ripples * 0.15)
    return np.concatenate([picture[:line], water])


def meadow(picture: Plane, start: float, colours: tuple[Colour, Colour], rng: np.random.Generator) -> Plane:
    """Rolling ground with blades of grass or ripples of sand, finer with distance."""
    height, width = picture.shape[:2]
    rows = np.arange(height, dtype=np.float32)[:, None]
    for layer in range(3):
        top = height * (start + 0.11 * layer - 0.06 * noise(2, width, (1, 1.5 + layer), rng, 5)[0])
        grain = noise(height, width, (90 - 20 * layer, 60 + 40 * layer), rng, 5)
        broad = noise(height, width, (6, 3), rng, 3)
        ground = blend(
            np.asarray(colours[0], np.float32) * (0.55 + 0.9 * grain[..., None]), colours[1], broad * 0.8 * grain
        )
        picture = blend(picture, ground * (1.05 - 0.15 * layer), ((rows - top) / 2).clip(0, 1))
    return picture


def city(height: int, width: int, rng: np.random.Generator) -> Plane:
    """A skyline by night, its windows lit, and blurred lamps in front."""
    night = sky(height, width, (0.01, 0.02, 0.07), (0.16, 0.1, 0.22), (0.78, 0.16), rng)
    picture = night * np.asarray([0.6, 0.65, 0.9], np.float32)
    image = to_image(picture, rng, grain=0)
    draw = ImageDraw.Draw(image)
    unit = max(2, width // 260)
    for layer, shade in enumerate(((34, 30, 58), (20, 19, 38), (9, 9, 18))):
        left = -unit * 4
        while left < width:
            wide, tall = int(rng.integers(9, 26)) * unit, int(height * (0.2 + rng.random() * 0.36 - layer * 0.06))
            draw.rectangle((left, height - tall, left + wide, height), fill=shade)
            for top in range(height - tall + unit * 2, height, unit * 3):
                for window in range(left + unit, left + wide - unit, unit * 2):
                    if rng.random() < 0.24 + 0.1 * layer:
                        glow = (255, int(rng.integers(170, 225)), int(rng.integers(90, 170)))
                        draw.rectangle((window, top, window + unit - 1, top + unit), fill=glow)
            left += wide + int(rng.integers(0, 4)) * unit
    lamps = Image.new("RGB", image.size)
    pen = ImageDraw.Draw(lamps)
    for _ in range(46):
        x, y, r = rng.random() * width, height * (0.72 + 0.26 * rng.random()), unit * (4 + 9 * rng.random())
        tint = [(255, 176, 84), (255, 92, 70), (120, 190, 255), (255, 226, 170)][int(rng.integers(4))]
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(c * (0.25 + 0.45 * rng.random())) for c in tint))
    lamps = lamps.filter(ImageFilter.GaussianBlur(unit))
    glow_plane = np.asarray(lamps, np.float32) / 255
    lit: Plane = 1 - (1 - np.asarray(image, np.float32) / 255) * (1 - glow_plane)
    return lit


def to_image(picture: Plane, rng: np.random.Generator, grain: float = 0.012) -> Image.Image:
    """8-bit RGB, with the grain of a sensor."""
    if grain:
        picture = picture + rng.normal(0, grain, picture.shape[:2]).astype(np.float32)[..., None]
    return Image.fromarray((picture.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def landscape(name: str, width: int, height: int, seed: int = 1) -> Image.Image:
    """One of the scenes: lake, alps, dunes, forest, sea or city.

    Large ones are painted at half their size and enlarged under full-size grain, which is how sharp a phone's are too.
    """
    rng = np.random.default_rng(seed)
    if width * height > 2_500_000:
        small = np.asarray(landscape(name, width // 2, height // 2, seed), np.float32) / 255
        planes = [Image.fromarray(small[..., channel]) for channel in range(3)]
        large = [np.asarray(plane.resize((width, height), Image.Resampling.LANCZOS)) for plane in planes]
        return to_image(np.dstack(large), rng, grain=0.02)
    if name == "city":
        return to_image(city(height, width, rng), rng)
    tops: dict[str, tuple[Colour, Colour, tuple[float, float]]] = {
        "lake": ((0.2, 0.36, 0.62), (0.98, 0.72, 0.55), (0.68, 0.34)),
        "alps": ((0.12, 0.36, 0.72), (0.7, 0.84, 0.95), (0.2, 0.12)),
        "dunes": ((0.32, 0.5, 0.76), (0.98, 0.86, 0.7), (0.8, 0.3)),
        "forest": ((0.5, 0.62, 0.7), (0.9, 0.92, 0.86), (0.4, 0.2)),
        "sea": ((0.14, 0.1, 0.32), (0.98, 0.48, 0.3), (0.5, 0.46)),
    }
    top, bottom, sun = tops[name]
    picture = sky(height, width, top, bottom, sun, rng)
    if name == "lake":
        picture = ridges(picture, ((0.62, 0.52, 0.6), (0.1, 0.13, 0.15)), 0.5, 0.3, rng)
        picture = lake(picture, 0.64, rng)
    elif name == "alps":
        picture = ridges(picture, ((0.72, 0.8, 0.9), (0.2, 0.26, 0.28)), 0.55, 0.42, rng)
        picture = meadow(picture, 0.72, ((0.18, 0.34, 0.1), (0.82, 0.76, 0.3)), rng)
    elif name == "dunes":
        picture = meadow(picture, 0.55, ((0.86, 0.62, 0.38), (0.62, 0.36, 0.2)), rng)
    elif name == "forest":
        picture = ridges(picture, ((0.66, 0.74, 0.72), (0.06, 0.16, 0.1)), 0.48, 0.25, rng)
        picture = meadow(picture, 0.8, ((0.08, 0.2, 0.07), (0.3, 0.36, 0.1)), rng)
    else:
        picture = lake(picture, 0.52, rng)
    return to_image(picture, rng)


def sticker(size: int) -> Image.Image:
    """A balloon with a soft shadow, on nothing: RGBA."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    y = y + 0.1
    inside = ((0.3 - np.hypot(x, y * 0.9)) * size / 2).clip(0, 1)
    angle = np.arctan2(x, 0.34 - np.abs(y) * 0.2) * 9
    stripes = (np.sin(angle) * 20).clip(0, 1)[..., None]
    colour = stripes * np.asarray([0.93, 0.27, 0.2], np.float32) + (1 - stripes) * np.asarray(
        [0.99, 0.86, 0.5], np.float32
    )
    shine = np.exp(-((x + 0.1) ** 2 + (y + 0.12) ** 2) * 40)[..., None]
    colour = colour * (1.05 - 1.6 * (x * 0.6 + y * 0.7)[..., None].clip(0, 1)) + shine * 0.35
    shadow = np.exp(-(((x - 0.02) / 0.2) ** 2 + ((y - 0.52) / 0.028) ** 2)) * 0.45
    basket = ((np.abs(x) < 0.05) & (np.abs(y - 0.41) < 0.04)).astype(np.float32)
    ropes = ((np.abs(np.abs(x) - (0.05 + (0.37 - y) * 0.55)) < 0.003) & (y > 0.24) & (y < 0.38)).astype(np.float32)
    colour = (
        colour * inside[..., None]
        + np.asarray([0.35, 0.2, 0.1], np.float32) * ((basket + ropes) * (1 - inside))[..., None]
    )
    alpha = np.maximum(np.maximum(inside, basket), np.maximum(ropes, shadow))
    return Image.fromarray((np.dstack([colour, alpha]).clip(0, 1) * 255).astype(np.uint8), "RGBA")


def waves(width: int, height: int, count: int) -> list[Image.Image]:
    """A loop of the moon over moving water."""
    rng = np.random.default_rng(11)
    base = sky(height, width, (0.02, 0.04, 0.14), (0.24, 0.24, 0.42), (0.6, 0.3), rng)
    still = lake(base, 0.5, np.random.default_rng(12))
    line = height // 2
    rows = np.arange(height - line, dtype=np.float32)[:, None]
    frames = []
    for number in range(count):
        phase = number / count * 2 * np.pi
        shift = (np.sin(rows / (1.5 + rows / 30) - phase) * (1 + rows / 12)).astype(np.int32)
        across = (np.arange(width)[None, :] + shift).clip(0, width - 1)
        frame = still.copy()
        frame[line:] = (
            still[line:][np.arange(height - line)[:, None], across] * (1 + 0.2 * np.sin(rows / 3 - phase))[..., None]
        )
        frames.append(Image.fromarray((frame.clip(0, 1) * 255).astype(np.uint8)))
    return frames


# The files


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _lake() -> bytes:
    """As a phone writes it: 12 megapixels, held upright, so stored lying; a wide gamut; and the place in its EXIF."""
    upright = landscape("lake", 3024, 4032, 3)
    place = files.exif(orientation=6, latitude=(52.0, 31.0, 12.0))
    return _saved(
        upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=place, icc_profile=files.rgb_profile()
    )


def _heic() -> bytes:
    import pillow_heif  # development only: it carries the x265 encoder, the functions have only a decoder

    out = BytesIO()
    heif = pillow_heif.from_pillow(landscape("dunes", 1440, 1080, 4))
    heif.save(out, quality=70)
    return out.getvalue()


def _scan() -> bytes:
    """An X-ray's kind of file: 16 bits of grey."""
    grey = np.asarray(landscape("alps", 1400, 1000, 6).convert("L"), np.uint16) * np.uint16(257)
    return _saved(Image.fromarray(grey), "PNG")


def _gif() -> bytes:
    first, *others = waves(480, 320, 24)
    return _saved(first, "GIF", save_all=True, append_images=others, duration=80, loop=0)


def _clip() -> bytes:
    """Four seconds of the sea with its sound, as a camera writes them: H.264 and AAC at a high rate, a place in the
    tags."""
    import av

    out = BytesIO()
    frames, rate, seconds = waves(1920, 1080, 50), 25, 4
    with av.open(out, "w", format="mp4") as clip:
        clip.metadata["location"] = "+52.5200+013.4050/"
        video = clip.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "14"})
        video.width, video.height, video.pix_fmt = 1920, 1080, "yuv420p"
        sound = clip.add_stream("aac", rate=48_000, layout="mono")
        for number in range(rate * seconds):
            picture = np.asarray(frames[number % len(frames)])
            clip.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        clip.mux(video.encode())
        for start in range(0, 48_000 * seconds, sound.frame_size):
            clip.mux(sound.encode(_surf(start, sound.frame_size)))
        clip.mux(sound.encode())
    return out.getvalue()


def _surf(start: int, samples: int) -> "av.AudioFrame":
    """Noise that swells and ebbs every two seconds."""
    import av

    time = (start + np.arange(samples)) / 48_000
    noise = np.random.default_rng(start).standard_normal(samples)
    swell = 0.06 + 0.05 * np.sin(time * np.pi)
    frame = av.AudioFrame.from_ndarray((noise * swell).astype(np.float32)[None, :], "fltp", "mono")
    frame.sample_rate, frame.pts = 48_000, start
    return frame


def _cut_short() -> bytes:
    whole = _saved(landscape("sea", 1200, 800, 8), "JPEG", quality=85)
    return whole[: len(whole) * 2 // 3]


_HTML = b"<!doctype html><title>hello</title><script>alert(document.cookie)</script>" + b"<p>" * 100
_SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><circle r="9"/></svg>'

SAMPLES: dict[str, Callable[[], bytes]] = {
    "lake-at-dawn.jpg": _lake,
    "alps.jpg": lambda: _saved(landscape("alps", 4000, 3000, 5), "JPEG", quality=88, exif=files.exif()),
    "city-by-night.jpg": lambda: _saved(landscape("city", 3000, 2000, 7), "JPEG", quality=88, progressive=True),
    "dunes.heic": _heic,
    "forest.avif": lambda: _saved(landscape("forest", 2400, 1600, 9), "AVIF", quality=70, speed=9),
    "sunset.webp": lambda: _saved(landscape("sea", 2000, 1333, 10), "WEBP", quality=85, method=2),
    "poster-in-cmyk.jpg": lambda: _saved(
        landscape("sea", 1500, 2000, 13).convert("CMYK"), "JPEG", quality=88, icc_profile=files.cmyk_profile()
    ),
    "sticker.png": lambda: _saved(sticker(900), "PNG"),
    "scan-16-bit.png": _scan,
    "waves.gif": _gif,
    "sea.mp4": _clip,
    "hostile/cut-short.jpg": _cut_short,
    "hostile/page.jpg": lambda: _HTML,
    "hostile/logo.png": lambda: _SVG,
    "hostile/playlist.mp4": lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "hostile/bomb.png": lambda: files.png_bomb(50_000, 50_000),
    "hostile/scans.jpg": lambda: files.scan_bomb(landscape("lake", 800, 600, 2), 306),
}
"""Name to maker. The names under hostile/ end up refused."""


def make(folder: Path = FOLDER) -> list[Path]:
    """Writes what is missing and gives back the paths of all of it, in the order of SAMPLES."""
    paths = []
    for name, maker in SAMPLES.items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            part.write_bytes(maker())
            part.rename(path)
        paths.append(path)
    return paths


if __name__ == "__main__":
    for made in make(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        print(f"{made.stat().st_size:>12,}  {made}")
