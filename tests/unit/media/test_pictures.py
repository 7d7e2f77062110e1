"""What an accepted picture becomes: upright, in sRGB, stripped, never enlarged, the same bytes every time."""

import zlib
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin

from colours import icc
from colours.light import PRIMARIES
from pictures import rendering
from pictures.colour import _transform
from pictures.recipes import RECIPES, Recipe, content_hash
from pictures.rendering import Pictures, Rendition, render
from samples import files
from tests.support.stills import (
    ANIMATIONS,
    BLUE,
    COLOURS,
    GREEN,
    RED,
    STILLS,
    YELLOW,
    Colour,
    gradient,
    opened,
    plain,
    quarters,
    reel,
    saved,
    still,
)

NAMES = [recipe.name for recipe in RECIPES]
MAIL = (
    Recipe("mail_lead", 1080, tallest=0.75, encoding="JPEG"),
    Recipe("mail_square", 224, 224, square=True, encoding="JPEG"),
)
"""As docs/mail.md suggests them."""


def named(made: Pictures, name: str) -> Rendition:
    return next(rendition for rendition in made.renditions if rendition.name == name)


def shown(made: Pictures, name: str) -> Image.Image:
    return opened(named(made, name).data)


def distance(one: Any, other: Any) -> int:
    """The largest difference in any channel."""
    return max(abs(int(a) - int(b)) for a, b in zip(one, other, strict=True))


def centre(picture: Image.Image) -> Any:
    return picture.getpixel((picture.width // 2, picture.height // 2))


def alpha(picture: Image.Image, x: int, y: int) -> int:
    value: Any = picture.getchannel("A").getpixel((x, y))
    return int(value)


# Formats and sizes


@pytest.mark.parametrize("kind", STILLS)
def test_every_accepted_format_becomes_every_rendition(kind: str) -> None:
    source = gradient(1200, 900)

    made = render(still(kind, source))

    assert (made.kind, made.width, made.height, made.frames) == ("image", 1200, 900, 1)
    assert made.format == kind.removeprefix("progressive ")
    assert [(r.name, r.width, r.height, r.content_type, r.extension) for r in made.renditions] == [
        ("thumbnail", 150, 150, "image/jpeg", "jpg"),
        ("w320", 320, 240, "image/webp", "webp"),
        ("w640", 640, 480, "image/webp", "webp"),
        ("w1080", 1080, 810, "image/avif", "avif"),
        ("full", 1200, 900, "image/avif", "avif"),
        ("w1080_jpeg", 1080, 810, "image/jpeg", "jpg"),
    ]
    for rendition in made.renditions:
        picture = opened(rendition.data)
        assert picture.size == (rendition.width, rendition.height)
        assert Image.MIME[str(picture.format)] == rendition.content_type
        assert picture.mode == "RGB"
    # GIF has 256 colours to draw a gradient with.
    seen = np.asarray(shown(made, "w320"), np.int16) - np.asarray(source.resize((320, 240)), np.int16)
    assert np.abs(seen).mean() < (9 if kind == "GIF" else 4)


@pytest.mark.parametrize(
    ("size", "lead", "square"),
    [
        ((3000, 2000), (1080, 720), 224),
        ((900, 1600), (900, 675), 224),
        ((2000, 400), (1080, 216), 224),
        ((160, 120), (160, 120), 120),
        ((1, 300), (1, 1), 1),
    ],
)
def test_a_mail_gets_pictures_that_need_no_cropping(size: tuple[int, int], lead: tuple[int, int], square: int) -> None:
    """A lead at most three quarters as high as wide, and the middle of the picture as a square."""
    stripes = plain(RED, *size)
    width, height = size
    stripes.paste(BLUE, (0, round(height * 0.45), width, round(height * 0.55) + 1))
    made = render(still("PNG", stripes), recipes=MAIL)
    assert (named(made, "mail_lead").width, named(made, "mail_lead").height) == lead
    assert (named(made, "mail_square").width, named(made, "mail_square").height) == (square, square)
    for name in ("mail_lead", "mail_square"):
        assert distance(centre(shown(made, name)), BLUE) < 40, "the middle stays the middle"


@pytest.mark.parametrize("size", [(1200, 900), (150, 150)])
def test_renditions_are_finished_in_a_fixed_order(size: tuple[int, int]) -> None:
    upload, finished = still("PNG", gradient(*size)), list[str]()
    made = render(upload, on_made=lambda number, rendition: finished.append(f"{number} {rendition.name}"))
    in_order = [f"{number} {rendition.name}" for number, rendition in enumerate(made.renditions)]
    largest_first = ["full", "w1080", "w1080_jpeg", "w640", "w320", "thumbnail"]
    if size == (150, 150):
        largest_first = ["w320", "w640", "w1080", "full", "w1080_jpeg", "thumbnail"]  # none is larger: as listed
    assert finished == sorted(in_order, key=lambda one: largest_first.index(one.split()[1]))


def test_a_picture_that_needs_no_crop_is_encoded_only_once_for_the_mail() -> None:
    made = render(still("JPEG", gradient(1200, 900)), recipes=(*RECIPES, *MAIL))
    assert named(made, "mail_lead").data == named(made, "w1080_jpeg").data


def test_the_format_is_what_the_bytes_say_and_an_album_of_jpegs_is_its_first_picture() -> None:
    album = saved(plain(RED), "MPO", save_all=True, append_images=[plain(BLUE)])

    made = render(album)

    assert (made.kind, made.format, made.frames) == ("image", "JPEG", 1)
    assert distance(centre(shown(made, "w320")), RED) < 8


@pytest.mark.parametrize(
    ("size", "full", "w640"),
    [
        ((4200, 2100), (2048, 1024), (640, 320)),
        ((1500, 3000), (1024, 2048), (640, 1280)),
        ((700, 500), (700, 500), (640, 457)),
    ],
)
def test_the_compressed_version_is_capped_at_its_long_side_and_widths_at_their_width(
    size: tuple[int, int], full: tuple[int, int], w640: tuple[int, int]
) -> None:
    made = render(still("JPEG", plain(GREEN, *size)))

    assert (made.width, made.height) == size
    assert (named(made, "full").width, named(made, "full").height) == full
    assert (named(made, "w640").width, named(made, "w640").height) == w640


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize(
    ("size", "full"),
    [
        ((4032, 3024), (2016, 1512)),  # half of it is 2% short: decoded at half its size, and taken as it is
        ((3891, 2919), (1946, 1460)),  # half of it is 5% short, and half a pixel more
        ((3888, 2916), (2048, 1536)),  # more than 5%
        ((8064, 6048), (2016, 1512)),
        ((4097, 3073), (2048, 1536)),  # half of it is a pixel more
    ],
)
def test_a_jpeg_within_a_box_may_be_a_twentieth_smaller(
    size: tuple[int, int], full: tuple[int, int], upright: bool
) -> None:
    recipes = (Recipe("w1080", 1080), Recipe("full", 2048, 2048))
    source = still("JPEG", plain(GREEN, *size), exif=files.exif(1 if upright else 6))

    made = render(source, recipes=recipes)

    assert (named(made, "full").width, named(made, "full").height) == (full if upright else full[::-1])
    assert named(made, "w1080").width == 1080
    assert distance(centre(shown(made, "full")), GREEN) < 8


@pytest.mark.parametrize(
    "wanted", [Recipe("w2040", 2040), Recipe("tile", 1600, 1600, square=True), Recipe("big", 4032, 4032)]
)
def test_a_recipe_that_states_its_size_or_a_larger_box_gets_it(wanted: Recipe) -> None:
    made = render(still("JPEG", plain(GREEN, 4032, 3024)), recipes=(wanted, Recipe("full", 2048, 2048)))

    assert named(made, wanted.name).width == wanted.width
    assert (named(made, "full").width, named(made, "full").height) == (2048, 1536)


@pytest.mark.parametrize("kind", STILLS)
def test_nothing_is_enlarged(kind: str) -> None:
    made = render(still(kind, gradient(100, 60)))

    sizes = {rendition.name: (rendition.width, rendition.height) for rendition in made.renditions}
    assert sizes == dict.fromkeys(NAMES, (100, 60)) | {"thumbnail": (60, 60)}
    assert named(made, "w320").data == named(made, "w640").data
    assert named(made, "w1080").data == named(made, "full").data


def test_a_picture_of_one_pixel_is_accepted() -> None:
    made = render(still("PNG", plain(RED, 1, 1)))

    assert {(r.width, r.height) for r in made.renditions} == {(1, 1)}
    assert made.dominant_colour == "#dc1e1e"


def test_the_thumbnail_is_cut_from_the_centre() -> None:
    banner = plain(RED, 900, 300)
    banner.paste(GREEN, (300, 0, 600, 300))
    banner.paste(BLUE, (600, 0, 900, 300))

    for picture in (banner, banner.transpose(Image.Transpose.ROTATE_90)):
        thumbnail = np.asarray(shown(render(still("PNG", picture)), "thumbnail"), np.int16)
        assert thumbnail.shape == (150, 150, 3)
        assert np.abs(thumbnail[4:-4, 4:-4] - np.array(GREEN)).max() < 16


@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000), (16_384, 3)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_extremely_thin_picture_has_renditions_of_at_least_one_pixel(kind: str, size: tuple[int, int]) -> None:
    made = render(still(kind, plain(BLUE, *size)))

    for rendition in made.renditions:
        assert 1 <= rendition.width <= 16_383
        assert 1 <= rendition.height <= 16_383
        assert opened(rendition.data).size == (rendition.width, rendition.height)
    assert max(named(made, "full").width, named(made, "full").height) == 2048


@pytest.mark.parametrize("kind", STILLS)
def test_rendering_the_same_bytes_twice_gives_the_same_result(kind: str) -> None:
    source = still(kind, gradient(700, 500))

    assert render(source) == render(source)


def test_the_content_hash_names_the_source_and_how_it_is_rendered() -> None:
    source, other = still("PNG", plain(RED)), still("PNG", plain(BLUE))

    hashes = [
        content_hash(BytesIO(source)),
        content_hash(BytesIO(other)),
        content_hash(BytesIO(source), recipes=RECIPES[:4]),
        content_hash(BytesIO(source), animated=Recipe("animated", 480, 480)),
    ]

    assert len(set(hashes)) == 4
    assert all(len(text) == 32 and int(text, 16) >= 0 for text in hashes)


def test_memory_that_runs_out_is_not_the_pictures_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(rendering, "_shrink", exhausted)

    with pytest.raises(MemoryError):
        render(still("PNG", plain(RED)))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("PIL.Image.Image.save", "Failed to encode image: Encoding of color planes failed"),
        ("threading.Thread.start", "can't start new thread"),
    ],
)
def test_a_failed_encoder_is_out_of_memory_and_the_picture_not_damaged(
    what: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise RuntimeError(says)

    source = still("PNG", plain(RED))
    monkeypatch.setattr(what, exhausted)

    with pytest.raises(MemoryError):
        render(source)


# Orientation

VISUAL_SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
"""Where the first row and the first column of the stored picture are seen (Exif 2.32, tag 274)."""


def stored_as(upright: Image.Image, orientation: int) -> Image.Image:
    pixels = np.asarray(upright)
    row, column = VISUAL_SIDES[orientation]
    if row in {"left", "right"}:
        pixels = pixels.swapaxes(0, 1)
    if row in {"bottom", "right"}:
        pixels = pixels[::-1]
    if column in {"bottom", "right"}:
        pixels = pixels[:, ::-1]
    return Image.fromarray(np.ascontiguousarray(pixels))


def assert_same_quarters(picture: Image.Image) -> None:
    """Every pixel, except those that compression mixes: a JPEG's block along the seams."""
    found, wanted = (np.asarray(one, np.int16) for one in (picture, quarters(*picture.size)))
    away = np.abs(found - wanted).max(axis=2)
    height, width = away.shape
    away[height // 2 - 12 : height // 2 + 12] = 0
    away[:, width // 2 - 12 : width // 2 + 12] = 0
    assert away.max() < 24


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", VISUAL_SIDES)
def test_all_eight_orientations_end_upright(kind: str, orientation: int) -> None:
    stored = stored_as(quarters(400, 240), orientation)

    made = render(still(kind, stored, exif=files.exif(orientation)))

    assert (made.width, made.height) == (400, 240)
    for name in NAMES:
        assert_same_quarters(shown(made, name))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", VISUAL_SIDES)
def test_a_picture_that_is_shrunk_while_it_is_decoded_ends_upright_too(kind: str, orientation: int) -> None:
    source = still(kind, stored_as(quarters(1300, 2700), orientation), exif=files.exif(orientation))

    made = render(source, recipes=RECIPES[:3])

    assert (made.width, made.height) == (1300, 2700)
    for name in NAMES[:3]:
        assert_same_quarters(shown(made, name))


@pytest.mark.parametrize("exif", [files.exif(0), files.exif(9), b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"junk"])
def test_an_orientation_that_means_nothing_is_upright(exif: Any) -> None:
    made = render(still("JPEG", quarters(400, 240), exif=exif))

    assert (made.width, made.height) == (400, 240)
    assert_same_quarters(shown(made, "full"))


# Metadata

SECRET = b"Potsdamer Platz 1"


def told_everything(kind: str) -> bytes:
    """A picture with a place in its EXIF, a profile, XMP, and a comment where the format has one."""
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + SECRET + b"</x:xmpmeta>"
    exif = files.exif(latitude=(52.0, 31.0, 12.0))
    exif[0x010E] = SECRET.decode()
    everything: dict[str, Any] = {"exif": exif, "icc_profile": files.rgb_profile(), "xmp": xmp}
    if kind in {"JPEG", "progressive JPEG"}:
        everything["comment"] = SECRET
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", SECRET.decode())
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        del everything["xmp"]
        everything["pnginfo"] = text
    if kind == "GIF":
        everything = {"comment": SECRET}
    picture = gradient(500, 300)
    if kind == "HEIF":
        everything = {"exif": exif}
    return still(kind, picture, **everything)


def chunks(webp: bytes) -> set[bytes]:
    at, names = 12, set()
    while at < len(webp):
        names.add(webp[at : at + 4])
        size = int.from_bytes(webp[at + 4 : at + 8], "little")
        at += 8 + size + (size & 1)
    return names


def markers(jpeg: bytes) -> set[int]:
    at, found = 2, set()
    while jpeg[at + 1] != 0xDA:
        found.add(jpeg[at + 1])
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return found


@pytest.mark.parametrize("kind", STILLS)
def test_no_rendition_reveals_where_or_by_whom_it_was_taken(kind: str) -> None:
    source = told_everything(kind)
    assert SECRET in source or kind == "PNG"  # whose text chunks may be packed

    made = render(source)

    for rendition in made.renditions:
        assert SECRET not in rendition.data
        assert not {"exif", "icc_profile", "xmp", "comment"} & set(opened(rendition.data).info)
        if rendition.extension == "webp":
            assert chunks(rendition.data) <= {b"VP8 ", b"VP8L"}
        elif rendition.extension == "avif":
            assert not [box for box in (b"Exif", b"mime", b"prof", b"rICC") if box in rendition.data[:1024]]
        else:
            assert markers(rendition.data) == {0xE0, 0xDB, 0xC2, 0xC4}  # JFIF, tables, frame
            assert b"ICC_PROFILE" not in rendition.data


@pytest.mark.parametrize("kind", ANIMATIONS)
def test_no_rendition_of_an_animation_has_metadata(kind: str) -> None:
    added: dict[str, Any] = {"comment": SECRET} if kind == "GIF" else {"exif": files.exif(latitude=(52.0, 31.0, 12.0))}
    if kind != "GIF":
        added["icc_profile"] = files.rgb_profile()

    made = render(reel(kind, COLOURS, (100, 100, 100, 100), **added))

    for rendition in made.renditions:
        if rendition.extension == "webp":
            assert not chunks(rendition.data) & {b"EXIF", b"XMP ", b"ICCP"}
        assert SECRET not in rendition.data


def test_bytes_after_a_picture_are_in_no_rendition() -> None:
    made = render(still("JPEG", gradient(300, 200)) + b"<script>alert(1)</script>")

    assert all(b"<script>" not in rendition.data for rendition in made.renditions)


# Colour


def from_lab(lightness: float, a: float, b: float) -> Colour:
    """CIE Lab under D50 to sRGB (CIE 15, and the Bradford-adapted matrix of IEC 61966-2-1)."""
    y = (lightness + 16) / 116
    x, z = y + a / 500, y - b / 200
    white = (0.9642, 1.0, 0.8249)
    xyz = [
        w * (f**3 if f > 6 / 29 else 3 * (6 / 29) ** 2 * (f - 4 / 29)) for f, w in zip((x, y, z), white, strict=True)
    ]
    matrix = ((3.1339, -1.6169, -0.4906), (-0.9788, 1.9161, 0.0335), (0.0719, -0.2290, 1.4052))
    return encoded(*(sum(m * v for m, v in zip(row, xyz, strict=True)) for row in matrix))


def encoded(*linear: float) -> Colour:
    red, green, blue = (
        round(255 * (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055))
        for v in (min(1.0, max(0.0, value)) for value in linear)
    )
    return red, green, blue


@pytest.mark.parametrize(
    ("display_p3", "srgb"),
    [((234, 51, 35), (255, 0, 0)), ((117, 251, 76), (0, 255, 0)), ((128, 128, 128), (128, 128, 128))],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_wide_gamut_becomes_srgb(kind: str, display_p3: Colour, srgb: Colour) -> None:
    made = render(still(kind, plain(display_p3), icc_profile=files.rgb_profile()))

    for name in NAMES:
        assert distance(centre(shown(made, name)), srgb) <= 16


def test_the_purest_red_of_a_wide_gamut_becomes_that_of_srgb() -> None:
    made = render(still("PNG", plain((255, 0, 0)), icc_profile=files.rgb_profile()))

    assert distance(centre(shown(made, "full")), (255, 0, 0)) <= 8


@pytest.mark.parametrize(
    ("inks", "lab"),
    [((0, 0, 0, 0), (100, 0, 0)), ((0, 255, 0, 0), (48, 74, -3)), ((0, 255, 255, 0), (47, 68, 48))],
    ids=["paper", "magenta", "red"],
)
def test_cmyk_is_converted_by_its_profile(inks: tuple[int, int, int, int], lab: tuple[float, float, float]) -> None:
    source = still("JPEG", Image.new("CMYK", (64, 48), inks), icc_profile=files.cmyk_profile())

    made = render(source)

    for name in NAMES:
        assert distance(centre(shown(made, name)), from_lab(*lab)) <= 14


def test_cmyk_without_a_profile_is_converted_as_ideal_inks() -> None:
    made = render(still("JPEG", Image.new("CMYK", (64, 48), (0, 255, 255, 0))))

    assert distance(centre(shown(made, "full")), (255, 0, 0)) <= 8


def test_sixteen_bits_of_grey_keep_their_greys() -> None:
    greys = np.linspace(0, 65_535, 256).astype(np.uint16)
    source = saved(Image.fromarray(np.repeat(np.repeat(greys[None, :], 64, 0), 2, 1)), "PNG")

    picture = np.asarray(shown(render(source), "full").convert("L"), np.int16)

    wanted = np.repeat(np.arange(256), 2)
    assert np.abs(picture[32] - wanted).max() <= 4


def test_sixteen_bits_of_colour_keep_their_colours() -> None:
    row = b"\0" + b"".join(value.to_bytes(2) for value in (0xDC00, 0x1E00, 0x1E00)) * 64
    source = b"\x89PNG\r\n\x1a\n" + files.png_chunk(b"IHDR", bytes((0, 0, 0, 64, 0, 0, 0, 48, 16, 2, 0, 0, 0)))
    source += files.png_chunk(b"IDAT", zlib.compress(row * 48)) + files.png_chunk(b"IEND", b"")

    assert distance(centre(shown(render(source), "full")), RED) <= 6


def test_a_grey_profile_is_followed() -> None:
    """Light in proportion to the value, which sRGB's curve is not."""
    source = still("PNG", Image.new("L", (64, 48), 55), icc_profile=files.grey_profile(1.0))

    assert distance(centre(shown(render(source), "full")), encoded(*[55 / 255] * 3)) <= 6


@pytest.mark.parametrize("name", ["sRGB-elle-V2-g10.icc", "sRGB, linear", "Linear"])
def test_a_linear_profile_with_a_name_like_srgbs_is_followed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    described = icc._text
    monkeypatch.setattr(icc, "_text", lambda _: described(name))
    linear = icc._rgb(PRIMARIES[1], icc._power(1))

    made = render(still("PNG", plain((55, 55, 55)), icc_profile=linear))

    assert distance(centre(shown(made, "full")), (128, 128, 128)) <= 4


def test_an_srgb_profile_takes_no_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: Any, **__: Any) -> None:
        raise AssertionError("a transform")

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    monkeypatch.setattr(ImageCms, "buildTransform", build)
    _transform.cache_clear()

    made = render(still("PNG", plain(RED), icc_profile=profile))

    assert distance(centre(shown(made, "full")), RED) <= 6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_of_a_png_is_read(mode: str) -> None:
    made = render(still("PNG", gradient(80, 60).convert(mode)))

    assert all(opened(rendition.data).mode == "RGB" for rendition in made.renditions)


@pytest.mark.parametrize(
    "profile", [b"", b"no profile", files.rgb_profile()[:200], files.cmyk_profile(), bytes(132)], ids=len
)
def test_a_broken_profile_or_another_colours_counts_as_srgb(profile: bytes) -> None:
    made = render(still("PNG", quarters(200, 120), icc_profile=profile))

    assert_same_quarters(shown(made, "full"))


# Transparency


def sticker(width: int = 200, height: int = 120) -> Image.Image:
    """Opaque red in the left half, half transparent black in the third quarter, nothing in the last."""
    picture = Image.new("RGBA", (width, height), (*RED, 255))
    picture.paste((0, 0, 0, 128), (width // 2, 0, width * 3 // 4, height))
    picture.paste((0, 0, 0, 0), (width * 3 // 4, 0, width, height))
    return picture


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "HEIF"])
def test_transparency_is_kept_or_flattened_on_white_in_jpegs(kind: str) -> None:
    made = render(still(kind, sticker()))

    for name in ("w320", "full"):
        picture = shown(made, name)
        assert picture.mode == "RGBA"
        for x, opacity in ((50, 255), (125, 128), (190, 0)):
            assert abs(alpha(picture, x, 60) - opacity) <= 8
        assert distance(picture.getpixel((50, 60)), (*RED, 255)) <= 16
    flat = shown(made, "w1080_jpeg")
    for x, colour in ((50, RED), (125, (127, 127, 127)), (190, (255, 255, 255))):
        assert distance(flat.getpixel((x, 60)), colour) <= 14


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palettes_transparent_colour_stays_transparent(kind: str) -> None:
    picture = Image.new("P", (200, 120), 0)
    picture.putpalette([*RED, *GREEN, *BLUE])
    picture.paste(1, (100, 0, 200, 120))

    made = render(still(kind, picture, transparency=1))

    assert alpha(shown(made, "full"), 160, 60) == 0
    assert distance(shown(made, "full").getpixel((40, 60)), (*RED, 255)) <= 10
    assert distance(shown(made, "w1080_jpeg").getpixel((160, 60)), (255, 255, 255)) <= 8


def test_a_transparent_grey_stays_transparent() -> None:
    grey = Image.new("L", (200, 120), 200)
    grey.paste(40, (100, 0, 200, 120))

    for picture, transparent in ((grey, 40), (grey.convert("I;16"), 40)):
        made = render(still("PNG", picture, transparency=transparent))
        assert alpha(shown(made, "full"), 160, 60) == 0


def test_an_opaque_picture_with_an_alpha_channel_loses_it() -> None:
    made = render(still("PNG", plain(GREEN).convert("RGBA")))

    assert shown(made, "full").mode == "RGB"


# Animations


def durations(animation: Image.Image) -> list[int]:
    """Milliseconds of each frame, as they are played."""
    shown_for = []
    for frame in range(getattr(animation, "n_frames", 1)):
        animation.seek(frame)
        animation.load()
        shown_for.append(round(animation.info["duration"]))
    return shown_for


@pytest.mark.parametrize("kind", ANIMATIONS)
def test_an_animation_stays_one_and_gets_stills_of_its_first_frame(kind: str) -> None:
    made = render(reel(kind, COLOURS, (50, 120, 200, 330)))

    assert (made.kind, made.frames) == ("animation", 4)
    assert [rendition.name for rendition in made.renditions] == [*NAMES, "animated"]
    for name in NAMES:
        picture = opened(named(made, name).data)
        assert getattr(picture, "n_frames", 1) == 1
        assert distance(centre(picture), RED) <= 10
    animation = Image.open(BytesIO(named(made, "animated").data))
    assert (animation.format, animation.size) == ("WEBP", (64, 48))
    assert durations(animation) == [50, 120, 200, 330]
    for frame, colour in enumerate(COLOURS):
        animation.seek(frame)
        assert distance(centre(animation.convert("RGB")), colour) <= 10


def test_frames_that_no_browser_shows_as_short_as_they_say_are_shown_for_a_tenth_of_a_second() -> None:
    made = render(reel("GIF", COLOURS, (0, 10, 20, 100)))

    assert durations(Image.open(BytesIO(named(made, "animated").data))) == [100, 100, 20, 100]


def test_a_frame_that_says_it_lasts_for_hours_is_shown_for_a_minute() -> None:
    made = render(reel("WEBP", COLOURS, (16_000_000, 59_000, 100, 100)))

    assert durations(Image.open(BytesIO(named(made, "animated").data))) == [60_000, 59_000, 100, 100]


@pytest.mark.parametrize(
    ("kind", "options", "loop"),
    [
        ("GIF", {}, 1),
        ("GIF", {"loop": 0}, 0),
        ("GIF", {"loop": 2}, 3),
        ("WEBP", {"loop": 2}, 2),
        ("PNG", {"loop": 4}, 4),
    ],
)
def test_an_animation_is_played_as_often_as_its_source(kind: str, options: dict[str, int], loop: int) -> None:
    made = render(reel(kind, COLOURS, (100, 100, 100, 100), **options))

    assert Image.open(BytesIO(named(made, "animated").data)).info["loop"] == loop


def test_an_apng_with_a_cover_shows_its_first_frame_and_not_the_cover() -> None:
    cover, *frames = (plain(colour) for colour in (YELLOW, RED, GREEN))
    source = saved(cover, "PNG", save_all=True, append_images=frames, default_image=True, duration=[100, 100])

    made = render(source)

    assert (made.kind, made.frames) == ("animation", 2)
    assert distance(centre(shown(made, "full")), RED) <= 10
    assert durations(Image.open(BytesIO(named(made, "animated").data))) == [100, 100]


def test_a_gif_of_small_changes_is_put_together() -> None:
    frames = [plain(RED, 60, 40) for _ in range(4)]
    for number, frame in enumerate(frames):
        frame.paste(GREEN, (number * 10, 0, number * 10 + 10, 10))
    source = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)

    animation = Image.open(BytesIO(named(render(source), "animated").data))

    for number in range(4):
        animation.seek(number)
        assert distance(animation.convert("RGB").getpixel((number * 10 + 5, 5)), GREEN) <= 40
        assert distance(animation.convert("RGB").getpixel((50, 30)), RED) <= 10


def test_a_large_animation_is_reduced_and_keeps_its_transparency() -> None:
    frames = []
    for number in range(3):
        frame = Image.new("RGBA", (1000, 500), (0, 0, 0, 0))
        ImageDraw.Draw(frame).ellipse((250, 50, 750, 450), fill=(*COLOURS[number], 255))
        frames.append(frame)

    made = render(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=90, lossless=True))

    animation = Image.open(BytesIO(named(made, "animated").data))
    assert animation.size == (720, 360)
    for number in range(3):
        animation.seek(number)
        picture = animation.convert("RGBA")
        assert distance(centre(picture), (*COLOURS[number], 255)) <= 12
        assert alpha(picture, 3, 3) == 0


def test_an_animation_of_one_frame_is_a_picture() -> None:
    assert render(still("GIF", plain(RED))).kind == "image"


def test_larger_renditions_have_larger_files() -> None:
    made = render(still("JPEG", gradient(1600, 1200)))

    for names in (("w320", "w640"), ("w1080", "full")):
        sizes = [len(named(made, name).data) for name in names]
        assert all(small < large for small, large in pairwise(sizes))
