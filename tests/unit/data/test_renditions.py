"""The sources of a <picture> element, from a post's renditions."""

import pytest

from pictures.recipes import RECIPES
from pictures.rendering import render
from social.data.posts import Media, Rendition
from social.renditions import sources
from tests.support.stills import gradient, still
from video.rules import fit
from video.source import LONG_SIDE, SHORT_SIDE


def rendition(key: str, width: int, height: int, kind: str) -> Rendition:
    return Rendition(key=key, width=width, height=height, bytes=1, content_type=f"image/{kind}")


def media(**renditions: Rendition) -> Media:
    return Media(status="ready", kind="image", width=4000, height=3000, renditions=renditions)


def test_a_browser_gets_each_width_in_the_best_format_that_it_knows() -> None:
    made = render(still("JPEG", gradient(2400, 1800)))
    stored = {
        one.name: Rendition(
            key=f"{one.name}.{one.extension}",
            width=one.width,
            height=one.height,
            bytes=len(one.data),
            content_type=one.content_type,
        )
        for one in made.renditions
    }

    avif, webp, jpeg = sources(Media(status="ready", kind="image", width=2400, height=1800, renditions=stored))

    assert avif.type == "image/avif"
    assert avif.srcset("https://cdn/{}".format) == (
        "https://cdn/w320.webp 320w, https://cdn/w640.webp 640w, https://cdn/w1080.avif 1080w, "
        "https://cdn/full.avif 2048w"
    )
    assert webp.type == "image/webp"
    assert webp.srcset(str) == "w320.webp 320w, w640.webp 640w, w1080_jpeg.jpg 1080w"
    assert (jpeg.type, jpeg.srcset(str), jpeg.largest.key) == ("image/jpeg", "w1080_jpeg.jpg 1080w", "w1080_jpeg.jpg")


def test_squares_and_moving_pictures_are_left_out() -> None:
    only = sources(
        media(
            thumbnail=rendition("t", 150, 150, "webp"),
            animated=rendition("a", 720, 540, "webp"),
            w640=rendition("w", 640, 480, "webp"),
        )
    )
    assert [(source.type, source.srcset(str)) for source in only] == [("image/webp", "w 640w")]


@pytest.mark.parametrize(
    "size",
    [(1170, 2532), (1320, 2868), (886, 1920), (1918, 1078), (1920, 1080)],
    ids=lambda size: "{} x {}".format(*size),
)
def test_a_clip_has_all_of_its_posters_although_the_sides_of_its_video_are_cut_to_even_ones(
    size: tuple[int, int],
) -> None:
    width, height = fit(*size, LONG_SIDE, SHORT_SIDE)
    made = render(still("PNG", gradient(width, height)))
    posters = {
        f"poster_{one.name}": Rendition(
            key=one.name, width=one.width, height=one.height, bytes=1, content_type=one.content_type
        )
        for one in made.renditions
    }
    film = Rendition(key="video", width=width, height=height, bytes=1, content_type="video/mp4")
    clip = Media(status="ready", kind="video", width=size[0], height=size[1], renditions={"video": film, **posters})

    avif, webp, jpeg = sources(clip)

    widths = sorted({posters[f"poster_{recipe.name}"].width for recipe in RECIPES if not recipe.square})
    assert [one.width for one in avif.renditions] == widths
    assert [one.key for one in jpeg.renditions] == ["w1080_jpeg"]
    assert {one.key for one in webp.renditions} <= {"w320", "w640", "w1080_jpeg"}


def test_a_small_picture_has_one_width() -> None:
    small = {"w320": rendition("a", 100, 75, "webp"), "full": rendition("b", 100, 75, "avif")}
    assert [source.srcset(str) for source in sources(media(**small))] == ["b 100w", "a 100w"]


def test_a_post_without_renditions_has_no_sources() -> None:
    assert sources(Media(status="processing")) == ()
