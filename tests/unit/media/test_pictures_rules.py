"""The rules behind the renditions, for any size; the placeholder; and that a damaged file is refused at worst."""

from dataclasses import replace
from math import cos, isclose, pi

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pictures import rendering
from pictures.formats import Format
from pictures.headers import Header, Limits, Source, check
from pictures.placeholder import blurhash, dominant_colour
from pictures.reading import admit, open_picture
from pictures.recipes import ANIMATED, RECIPES, Recipe
from pictures.rendering import Pictures, fit, render, scaled
from samples import files
from social.refusals import Code, Rejected
from tests.support.stills import ANIMATIONS, BLUE, COLOURS, GREEN, RED, STILLS, gradient, plain, quarters, reel, still

# Limits

ROOMY = Limits(memory=10**15, pixels=10**12, frames=10**6, frame_pixels=10**12, scans=10**6, scan_pixels=10**12)
MILLION = Header(Format.GIF, 1000, 1000)
PHOTO = Header(Format.JPEG, 1000, 1000)


@pytest.mark.parametrize(
    ("limits", "allowed", "refused", "code", "reason"),
    [
        (
            replace(ROOMY, pixels=12_000_000),
            Header(Format.PNG, 4000, 3000),
            Header(Format.PNG, 4001, 3000),
            Code.TOO_MANY_PIXELS,
            "4001 x 3000 is over the limit of 12 megapixels",
        ),
        (
            replace(ROOMY, memory=9 << 20),
            Header(Format.PNG, 1024, 1024),
            Header(Format.PNG, 2048, 1024),
            Code.TOO_MANY_PIXELS,
            "2048 x 1024 PNG takes 18 MiB to decode, over the limit of 9",
        ),
        (
            replace(ROOMY, frames=10),
            replace(MILLION, frames=10),
            replace(MILLION, frames=11),
            Code.TOO_MANY_FRAMES,
            "11 frames, the limit is 10",
        ),
        (
            replace(ROOMY, frame_pixels=1_000_000),
            replace(MILLION, frames=1),
            replace(MILLION, frames=2),
            Code.TOO_MANY_FRAMES,
            "2 frames of 1000 x 1000 are 2 megapixels, the limit is 1",
        ),
        (
            replace(ROOMY, scans=12),
            replace(PHOTO, scans=12),
            replace(PHOTO, scans=13),
            Code.TOO_MANY_SCANS,
            "13 scans over 1000 x 1000 pixels; 12 at most, and 1e+06 megapixels",
        ),
        (
            replace(ROOMY, scan_pixels=10_000_000),
            replace(PHOTO, scans=10),
            replace(PHOTO, scans=11),
            Code.TOO_MANY_SCANS,
            "11 scans over 1000 x 1000 pixels; 1000000 at most, and 10 megapixels",
        ),
    ],
    ids=["pixels", "memory", "frames", "pixels of all frames", "scans", "pixels of all scans"],
)
def test_a_limit_may_be_reached_but_not_exceeded(
    limits: Limits, allowed: Header, refused: Header, code: Code, reason: str
) -> None:
    check(allowed, limits)
    with pytest.raises(Rejected) as raised:
        check(refused, limits)
    assert (raised.value.code, raised.value.detail) == (code, reason)


def test_the_limit_on_all_frames_is_not_for_stills_and_that_on_scans_begins_at_eleven() -> None:
    check(Header(Format.PNG, 2000, 2000), replace(ROOMY, frame_pixels=3_000_000))
    check(Header(Format.GIF, 1000, 1000, frames=3), replace(ROOMY, frame_pixels=3_000_000))
    check(Header(Format.JPEG, 1000, 1000, scans=11), replace(ROOMY, scan_pixels=11_000_000))
    check(Header(Format.JPEG, 2000, 2000, scans=10), replace(ROOMY, scan_pixels=3_000_000))


def test_a_picture_without_pixels_is_damaged() -> None:
    with pytest.raises(Rejected, match="no pixels: 0 x 5") as raised:
        check(Header(Format.PNG, 0, 5), ROOMY)
    assert raised.value.code == Code.DAMAGED


@pytest.mark.parametrize(
    ("width", "a_pixel"),
    [(4094, 8.0), (4095, 2.0), (8188, 2.0), (8189, 0.5), (16_376, 0.5), (16_377, 0.125), (60_000, 0.125)],
)
def test_a_jpegs_memory_is_estimated_at_the_scale_at_which_it_is_decoded(width: int, a_pixel: float) -> None:
    for turned in (Header(Format.JPEG, width, 100), Header(Format.JPEG, 100, width)):
        assert turned.memory(side=2048) == width * 100 * a_pixel
    several_scans = Header(Format.JPEG, width, 100, bytes_a_pixel=6.0)
    assert several_scans.memory(side=2048) == width * 100 * (6.0 + a_pixel)


def test_other_formats_memory_is_estimated_per_pixel() -> None:
    assert Header(Format.PNG, 100, 50).memory(side=2048) == 45_000
    assert Header(Format.AVIF, 100, 50, bytes_a_pixel=20.0).memory(side=2048) == 100_000


# Geometry

sides = st.one_of(
    st.integers(1, 70_000), st.integers(1, 400), st.sampled_from([1, 1079, 1080, 1081, 2048, 16_383, 65_535])
)
recipes = st.one_of(
    st.sampled_from([*RECIPES, ANIMATED]),
    st.builds(Recipe, st.just("any"), st.integers(1, 4000), st.integers(1, 4000)),
    st.builds(lambda edge: Recipe("square", edge, edge, square=True), st.integers(1, 4000)),
)


@given(width=sides, height=sides, recipe=recipes)
@example(width=30_000, height=1, recipe=RECIPES[4])
@example(width=1, height=30_000, recipe=RECIPES[3])
def test_a_rendition_fits_its_box_keeps_its_proportions_and_is_never_enlarged(
    width: int, height: int, recipe: Recipe
) -> None:
    scale = fit(width, height, recipe)
    across, down = scaled(width, height, scale)

    assert 0 < scale <= 1
    assert 1 <= across <= width
    assert 1 <= down <= height
    # To the nearest pixel, and a pixel at least.
    assert abs(across - width * scale) <= 0.5 or across == 1
    assert abs(down - height * scale) <= 0.5 or down == 1
    if recipe.square:
        assert min(across, down) == min(recipe.width, width, height)
    else:
        assert across <= recipe.width
        assert down <= recipe.height
        # As large as it may be: whole, or touching the box.
        assert scale == 1 or isclose(width * scale, recipe.width) or isclose(height * scale, recipe.height)


@given(width=sides, height=sides, recipe=recipes)
def test_landscape_and_portrait_are_fitted_alike(width: int, height: int, recipe: Recipe) -> None:
    turned = Recipe(recipe.name, recipe.height, recipe.width, recipe.square)

    assert fit(width, height, recipe) == fit(height, width, turned)


@given(width=sides, height=sides)
def test_every_rendition_can_be_encoded(width: int, height: int) -> None:
    for recipe in RECIPES:
        if not recipe.square:
            across, down = scaled(width, height, fit(width, height, recipe))
            assert max(across, down) <= 16_383


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("crop", [None, (10, 20, 40, 30)])
def test_an_upright_size_is_the_visible_one_turned_by_a_quarter_if_so_stored(
    orientation: int, crop: tuple[int, int, int, int] | None
) -> None:
    header = Header(Format.JPEG, 60, 50)
    view = rendering._View(Source(header, b"", orientation=orientation, crop=crop), header, plain(RED))
    assert view.box == (crop or (0, 0, 60, 50))
    width, height = (30, 10) if crop else (60, 50)
    assert view.size == ((width, height) if orientation < 5 else (height, width))


def numbered(width: int, height: int) -> Image.Image:
    """A picture whose pixels all differ: each is its place, (x, y, 0)."""
    picture = Image.new("RGB", (width, height))
    picture.putdata([(x, y, 0) for y in range(height) for x in range(width)])
    return picture


def places(picture: Image.Image) -> list[tuple[int, int]]:
    """Which pixels of a numbered picture these are: the first and the last."""
    corners = picture.getpixel((0, 0)), picture.getpixel((picture.width - 1, picture.height - 1))
    return [(int(corner[0]), int(corner[1])) for corner in corners if isinstance(corner, tuple)]


def test_a_square_is_the_middle_of_the_picture() -> None:
    assert places(rendering._centre(numbered(18, 4), 4)) == [(7, 0), (10, 3)]
    assert places(rendering._centre(numbered(4, 18), 4)) == [(0, 7), (3, 10)]
    assert places(rendering._centre(numbered(5, 5), 5)) == [(0, 0), (4, 4)]


def test_a_picture_that_is_too_tall_is_cut_to_its_middle() -> None:
    tall = numbered(4, 19)
    assert places(rendering._cut(tall, 2.0)) == [(0, 5), (3, 12)]
    assert places(rendering._cut(numbered(1, 5), 0.2)) == [(0, 2), (0, 2)]
    assert rendering._cut(tall, None) is tall
    assert rendering._cut(tall, 19 / 4) is tall


@pytest.mark.parametrize(
    ("kind", "size", "recipe", "master"),
    [
        # Half, a quarter and an eighth of a JPEG, rounded up, where that is 95% of what is wanted.
        ("JPEG", (801, 401), Recipe("box", 420, 420), (401, 201)),
        ("JPEG", (801, 401), Recipe("box", 424, 424), (424, 212)),
        ("JPEG", (801, 401), Recipe("box", 210, 210), (201, 101)),
        ("JPEG", (801, 401), Recipe("box", 105, 105), (101, 51)),
        ("JPEG", (801, 401), Recipe("box", 600, 600), (600, 300)),
        ("JPEG", (800, 400), Recipe("box", 400, 400), (400, 200)),
        ("PNG", (801, 401), Recipe("box", 420, 420), (420, 210)),
        # The side of a square, and a height or width that is given alone, are exact.
        ("JPEG", (800, 400), Recipe("square", 204, 204, square=True), (408, 204)),
        ("JPEG", (800, 400), Recipe("wide", 404), (404, 202)),
    ],
)
def test_a_jpegs_master_has_a_scale_of_the_decoder_if_that_is_large_enough(
    kind: str, size: tuple[int, int], recipe: Recipe, master: tuple[int, int]
) -> None:
    source = admit(still(kind, gradient(*size)), ROOMY)
    header, image = open_picture(source, ROOMY)
    assert rendering._master_size(rendering._View(source, header, image), (recipe,)) == master


def test_the_master_is_enough_for_every_rendition() -> None:
    source = admit(still("JPEG", gradient(800, 400)), ROOMY)
    header, image = open_picture(source, ROOMY)
    view = rendering._View(source, header, image)
    wanted = (Recipe("box", 410, 410), Recipe("square", 201, 201, square=True))
    assert rendering._master_size(view, wanted) == (410, 205)
    wanted = (Recipe("box", 410, 410), Recipe("square", 200, 200, square=True))
    assert rendering._master_size(view, wanted) == (400, 200)


@settings(max_examples=25)
@given(width=st.integers(1, 400), height=st.integers(1, 400), edge=st.integers(1, 200))
def test_renditions_have_the_sizes_that_were_announced(width: int, height: int, edge: int) -> None:
    wanted = (Recipe("square", edge, edge, square=True), Recipe("wide", 2 * edge), Recipe("boxed", edge, 3 * edge))

    made = render(still("PNG", quarters(width, height)), recipes=wanted)

    for recipe, rendition in zip(wanted, made.renditions, strict=True):
        size = scaled(width, height, fit(width, height, recipe))
        assert (rendition.width, rendition.height) == ((min(size),) * 2 if recipe.square else size)


# The placeholder

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~"


def number(text: str) -> int:
    value = 0
    for digit in text:
        value = value * 83 + ALPHABET.index(digit)
    return value


def linear(value: int) -> float:
    return value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4


def decoded(text: str, width: int, height: int) -> list[list[tuple[int, ...]]]:
    """The picture that a client draws from a blurhash, by the published decoder."""
    across, down = number(text[0]) % 9 + 1, number(text[0]) // 9 + 1
    loudest = (number(text[1]) + 1) / 166
    average = number(text[2:6])
    waves = [[linear(average >> shift & 255) for shift in (16, 8, 0)]]
    for at in range(6, len(text), 2):
        value = number(text[at : at + 2])
        parts = ((value // base % 19 - 9) / 9 for base in (361, 19, 1))
        waves.append([abs(part) * part * loudest for part in parts])

    def pixel(x: int, y: int) -> tuple[int, ...]:
        light = [0.0, 0.0, 0.0]
        for j in range(down):
            for i in range(across):
                wave = cos(pi * x * i / width) * cos(pi * y * j / height)
                light = [sum_ + part * wave for sum_, part in zip(light, waves[i + j * across], strict=True)]
        curve = (v * 12.92 if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in (max(0, v) for v in light))
        return tuple(min(255, round(v * 255)) for v in curve)

    return [[pixel(x, y) for x in range(width)] for y in range(height)]


def test_a_placeholder_is_a_hash_of_four_by_three_waves() -> None:
    assert blurhash(plain((0, 0, 0))) == "L00000fQfQfQfQfQfQfQfQfQfQfQ"
    assert len(blurhash(gradient(300, 200))) == 28


def test_a_placeholder_shows_what_is_where() -> None:
    drawn = decoded(blurhash(quarters(400, 300)), 16, 12)

    for (x, y), colour in zip(((3, 2), (12, 2), (3, 9), (12, 9)), COLOURS, strict=True):
        nearest = min(COLOURS, key=lambda other: sum((a - b) ** 2 for a, b in zip(drawn[y][x], other, strict=True)))
        assert nearest == colour


@settings(max_examples=25)
@given(colour=st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255)))
def test_a_plain_picture_has_its_own_colour(colour: tuple[int, int, int]) -> None:
    picture = plain(colour)

    assert dominant_colour(picture) == "#{:02x}{:02x}{:02x}".format(*colour)
    drawn = decoded(blurhash(picture), 4, 3)
    # The faintest wave that the format can tell still counts 1/166, which is most visible in the dark.
    assert all(abs(a - b) <= 2 for row in drawn for pixel in row for a, b in zip(pixel, colour, strict=True))


def test_a_placeholder_is_of_colours_without_transparency() -> None:
    with pytest.raises(ValueError, match="RGBA"):
        blurhash(gradient(10, 10, "RGBA"))


def test_the_dominant_colour_is_that_of_most_pixels_and_no_mixture() -> None:
    picture = plain(BLUE, 320, 240)
    picture.paste(RED, (0, 0, 120, 240))

    assert dominant_colour(picture) == "#283cd2"


def test_transparent_pixels_do_not_count_for_the_dominant_colour() -> None:
    picture = Image.new("RGBA", (320, 240), (*RED, 0))
    assert dominant_colour(picture) == "#ffffff"

    picture.paste((*GREEN, 255), (0, 0, 80, 240))
    assert dominant_colour(picture) == "#1eb43c"


def test_a_transparent_picture_has_a_placeholder_on_white() -> None:
    picture = Image.new("RGBA", (320, 240), (0, 0, 0, 0))

    made = render(still("PNG", picture))

    assert made.placeholder == blurhash(plain((255, 255, 255)))
    assert made.dominant_colour == "#ffffff"


# Damage

GOOD = (
    *(still(kind, gradient(48, 32)) for kind in STILLS),
    *(reel(kind, COLOURS[:3], (100, 100, 100)) for kind in ANIMATIONS),
    still("JPEG", gradient(48, 32), exif=files.exif(6, (52.0, 31.0, 12.0)), icc_profile=files.rgb_profile()),
    still("PNG", gradient(48, 32, "RGBA"), exif=files.exif(5), icc_profile=files.rgb_profile()),
    still("JPEG", gradient(48, 32, "CMYK"), icc_profile=files.cmyk_profile()),
)
SMALL = Limits(bytes=100_000, pixels=1_000_000, frames=50, frame_pixels=3_000_000, scans=20, scan_pixels=1_000_000)


@settings(max_examples=100)
@given(
    good=st.sampled_from(GOOD),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
    header_first=st.booleans(),
)
def test_a_damaged_file_is_rendered_or_refused_and_nothing_else(
    good: bytes, damage: list[tuple[float, int]], kept: float, header_first: bool
) -> None:
    source = bytearray(good)
    for where, value in damage:
        # Half of the time among the fields that the decoders trust.
        source[int(where * (min(200, len(source)) if header_first else len(source)))] = value
    source = source[: int(len(source) * kept)]

    try:
        made = render(bytes(source), SMALL)
    except Rejected as refused:
        assert refused.code in Code  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(made, Pictures)
        assert len(made.renditions) == len(RECIPES) + (made.kind == "animation")
