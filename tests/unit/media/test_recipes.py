"""The renditions that a deployment chooses: how they are written, what is wrong with them, and what is made."""

import re
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures.recipes import ANIMATED, MOST, RECIPES, BadRecipe, Recipe, Recipes, content_hash, read_recipes
from pictures.rendering import render
from tests.support.stills import gradient, opened, still
from tests.support.template import template

THE_DEFAULTS = (
    "thumbnail:150:square:jpeg,w320:320,w640:640,w1080:1080:avif,full:2048x2048:avif,w1080_jpeg:1080:jpeg,"
    "animated:720x720"
)


def test_a_deployment_without_settings_has_the_defaults() -> None:
    assert read_recipes("") == Recipes(RECIPES, ANIMATED)


def test_the_defaults_can_be_written_down() -> None:
    assert read_recipes(THE_DEFAULTS) == read_recipes("")


def test_a_recipe_has_a_size_a_format_a_quality_and_a_cut() -> None:
    found = read_recipes("tile:96:square:quality=60,hero:1600x900:avif,story:1080:jpeg:quality=90:tallest=1.778")

    assert found.stills == (
        Recipe("tile", 96, 96, square=True, quality=60),
        Recipe("hero", 1600, 900, encoding="AVIF", quality=65),
        Recipe("story", 1080, encoding="JPEG", quality=90, tallest=1.778),
    )
    assert found.animated == ANIMATED


def test_a_limit_of_a_recipe_may_be_reached() -> None:
    assert read_recipes("a:4096:tallest=0.1:quality=100,b:1:tallest=10:quality=1").stills == (
        Recipe("a", 4096, tallest=0.1, quality=100),
        Recipe("b", 1, tallest=10, quality=1),
    )
    assert len(read_recipes("a:1").stills) == 1
    assert len(read_recipes(",".join(f"w{width}:{width}" for width in range(1, MOST + 1))).stills) == MOST


def test_a_box_bounds_both_sides_of_a_whole_picture() -> None:
    assert Recipe("full", 2048, 2048).is_box
    assert not Recipe("wide", 2048).is_box
    assert not Recipe("thumbnail", 150, 150, square=True).is_box
    assert not Recipe("story", 1080, 1920, tallest=1.5).is_box


def test_the_largest_side_is_the_largest_that_any_recipe_bounds() -> None:
    assert Recipes((Recipe("a", 320), Recipe("b", 640), Recipe("c", 10, 480))).largest_side == 640
    assert Recipes((Recipe("a", 320), Recipe("c", 10, 480))).largest_side == 480


def test_a_content_hash_depends_on_the_file_and_on_the_recipes() -> None:
    def hash_of(data: bytes, recipes: Recipes) -> str:
        return content_hash(BytesIO(data), recipes.stills, recipes.animated)

    assert re.fullmatch("[0-9a-f]{32}", hash_of(b"a", Recipes()))
    chosen = [Recipes(), Recipes(stills=RECIPES[1:]), Recipes(animated=Recipe("animated", 480))]
    assert len({hash_of(data, recipes) for data in (b"a", b"b") for recipes in chosen}) == 6
    assert hash_of(b"a", Recipes()) == hash_of(b"a", read_recipes(""))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Tile:96", "'Tile': a name"),
        ("tile", "tile: width is ''"),
        ("tile:0", "tile: width is '0'"),
        ("tile:4097", "tile: width is '4097'"),
        ("tile:96x", "tile: height is ''"),
        ("tile:96xmany", "tile: height is 'many'"),
        ("tile:96:round", "tile: 'round' is not an option"),
        ("tile:96:quality=101", "tile: quality is '101'"),
        ("tile:96:tallest=tall", "tile: tallest is 'tall'"),
        ("tile:96:tallest=10.001", "tile: tallest is '10.001'"),
        ("tile:96:tallest=0.099", "tile: tallest is '0.099'"),
        ("tile:96:jpeg:webp", "tile: encoding is given twice"),
        ("tile:96x90:square", "tile: a square has one side"),
        ("tile:96:square:tallest=1", "tile: a square has one side"),
        ("tile:96,tile:97", "tile: the name is used twice"),
        ("tile:96,", "'': a name"),
        ("animated:480x480", "there are 0 recipes"),
        ("tile:96,animated:480:jpeg", "animated: an animation must be WebP"),
        ("tile:96,animated:480:square", "animated: an animation must be WebP"),
        ("tile:96,animated:480:tallest=1", "animated: an animation must be WebP"),
        (",".join(f"w{width}:{width}" for width in range(1, MOST + 2)), f"there are {MOST + 1} recipes"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_named_with_its_fault(text: str, fault: str) -> None:
    with pytest.raises(BadRecipe, match=re.escape(fault)):
        read_recipes(text)


def _pattern() -> re.Pattern[str]:
    return re.compile(template()["Parameters"]["Renditions"]["AllowedPattern"])


names = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
sizes = st.builds(
    lambda width, height: f"{width}x{height}" if height else f"{width}",
    st.integers(1, 4096),
    st.none() | st.integers(1, 4096),
)
options = st.lists(st.sampled_from(["jpeg", "quality=7", "quality=100", "tallest=0.75", "tallest=2"]), max_size=3)
recipes = st.builds(lambda name, size, more: ":".join((name, size, *more)), names, sizes, options)


@given(st.lists(recipes, max_size=4).map(",".join))
def test_cloudformation_takes_whatever_the_function_takes(text: str) -> None:
    try:
        read_recipes(text)
    except BadRecipe:
        return
    assert _pattern().fullmatch(text)


@pytest.mark.parametrize("text", ["", THE_DEFAULTS])
def test_cloudformation_takes_the_defaults(text: str) -> None:
    assert _pattern().fullmatch(text)


@pytest.mark.parametrize(
    "text", ["Tile:96", "tile", "tile:0", "tile:96x", "tile:96:round", "tile:96,", "tile: 96", "tile:96:quality=x"]
)
def test_cloudformation_refuses_a_slip_before_anything_is_deployed(text: str) -> None:
    assert not _pattern().fullmatch(text)


def test_the_chosen_recipes_are_rendered() -> None:
    chosen = read_recipes("tile:64:square:jpeg:quality=30,good:64:square:jpeg:quality=95,small:300x100:avif")

    made = {each.name: each for each in render(still("PNG", gradient(900, 600)), recipes=chosen.stills).renditions}

    assert {name: opened(each.data).size for name, each in made.items()} == {
        "tile": (64, 64),
        "good": (64, 64),
        "small": (150, 100),
    }
    assert len(made["tile"].data) < len(made["good"].data)
    assert opened(made["small"].data).format == "AVIF"


def test_a_jpeg_is_decoded_as_large_as_the_largest_rendition_that_is_chosen() -> None:
    (large,) = render(still("JPEG", gradient(3200, 2400)), recipes=(Recipe("w3000", 3000),)).renditions

    assert (large.width, large.height) == (3000, 2250)
    seen = opened(large.data).convert("RGB")
    wanted = gradient(3000, 2250)
    for place in ((10, 10), (1500, 1100), (2990, 2240)):
        shown, given_ = seen.getpixel(place), wanted.getpixel(place)
        assert isinstance(shown, tuple)
        assert isinstance(given_, tuple)
        assert max(abs(a - b) for a, b in zip(shown, given_, strict=True)) < 8
