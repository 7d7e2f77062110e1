"""What is refused, with which code, and that nothing was decoded to find out."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from PIL import Image, ImageFile

import pictures
import social
from pictures import reading, sniff
from pictures.formats import Format
from pictures.headers import DEEP, Header, Limits, check
from pictures.reading import admit, open_picture
from pictures.rendering import LIMITS, render
from pictures.supervisor import MEMORY
from samples import files
from social.refusals import Code, Rejected
from tests.support.isobmff import Item, av1, heif, ispe
from tests.support.stills import (
    ANIMATIONS,
    COLOURS,
    RED,
    STILLS,
    gif_of_tiny_frames,
    gradient,
    plain,
    reel,
    saved,
    still,
    webp_of_one_colour,
    with_stated_size,
)


def refusal(source: bytes, limits: Limits = LIMITS) -> Rejected:
    """How an upload is refused, which must be the same before and in rendering, with a reason for a person."""
    with pytest.raises(Rejected) as refused:
        render(source, limits)
    assert refused.value.code in Code
    assert "0x" not in refused.value.detail
    assert "<" not in refused.value.reason
    return refused.value


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be decoded: neither by the common way in nor by those that formats have of their own."""

    def decode(*args: Any) -> None:
        raise AssertionError("decoded")

    def all_below(kind: type[ImageFile.ImageFile]) -> Iterator[type[ImageFile.ImageFile]]:
        yield kind
        for special in kind.__subclasses__():
            yield from all_below(special)

    for kind in Format:
        reading.register(kind)
    for image_file in all_below(ImageFile.ImageFile):  # type: ignore[type-abstract]
        if "load" in vars(image_file):
            monkeypatch.setattr(image_file, "load", decode)


@pytest.fixture
def no_opening(no_decoding: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even opened: libwebp reserves the whole canvas there."""

    def opened(*args: Any, **options: Any) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(Image, "open", opened)


# What it is


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(%pipe%id) (r) file\n"


@pytest.mark.usefixtures("no_opening")
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'<?xml version="1.0"?>\n<!-- a --><svg xmlns="http://www.w3.org/2000/svg"><script/></svg>', "svg"),
        (b"\xef\xbb\xbf <svg onload='alert(1)'/>", "svg"),
        (b"<!doctype html><script>alert(1)</script>", "html"),
        (saved(plain(RED), "tiff"), "tiff"),
        (b"MM\0*\0\0\0\x08", "tiff"),
        (saved(plain(RED), "bmp"), "bmp"),
        (saved(plain(RED), "ICO"), "icon"),
        (saved(plain(RED), "JPEG2000"), "jpeg_2000"),
        (EPS, "postscript"),
        (b"%PDF-1.7\n1 0 obj\n", "pdf"),
        (b"8BPS\0\1", "photoshop"),
        (b"PK\3\4\x14\0", "archive"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "other_clip"),
        (b"#EXTM3U\n", "unknown"),
        (b"\0" * 100, "unknown"),
        (b"\xff", "unknown"),
        (b"II*\0\x10\0\0\0CR\2\0", "raw"),
        (b"II*\0\x08\0\0\0" + bytes(200) + b"NIKON CORPORATION\0", "raw"),
        (b"II*\0\x08\0\0\0\1\0" + pack("<HHI4B", 50706, 1, 4, 1, 4, 0, 0), "raw"),
        (b"MM\0*\0\0\0\x08\0\1" + pack(">HHI4B", 50706, 1, 4, 1, 4, 0, 0), "raw"),
        (b"FUJIFILMCCD-RAW 0201", "raw"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw"),
        (b"\xff\x0a\x7f\0", "jpeg_xl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "jpeg_xl"),
        (b"\x1aE\xdf\xa3\x88B\x82\x85other", "other_clip"),
        (b"ID3\4\0\0", "sound"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "sound"),
        (b"FLV\1\5\0\0\0\x09", "other_clip"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1jpeg", "heif_codec"),
    ],
)
def test_a_file_that_is_not_an_accepted_picture_is_refused_with_its_code(content: bytes, code: str) -> None:
    assert refusal(content).code == code


def test_an_empty_upload_is_refused_as_such() -> None:
    assert refusal(b"").code == "empty"


@pytest.mark.parametrize("kind", STILLS)
def test_the_first_sixty_four_bytes_identify_an_accepted_picture(kind: str) -> None:
    assert sniff(still(kind, plain(RED))[:64]) == kind.removeprefix("progressive ")


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", Format.HEIF),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", Format.AVIF),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc", Format.HEIF),
        (b"\0\0\0\x14ftypmif1\0\0\0\0mif1", Format.HEIF),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1jpeg", None),
        (b"\0\0\0\x18ftypqt  \0\0\0\0qt  heic", None),
        (b"RIFF\0\0\0\0WAVE", None),
    ],
)
def test_the_brands_of_a_heif_file_decide_by_whom_it_is_read(head: bytes, found: Format | None) -> None:
    assert sniff(head) == found


@pytest.mark.parametrize("kind", [str(kind) for kind in Format])
def test_only_the_decoder_of_the_detected_format_is_tried(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    by_pillow = Image.open

    def opened(source: Any, formats: Any) -> Any:
        asked.append(formats)
        return by_pillow(source, formats=formats)

    monkeypatch.setattr(Image, "open", opened)

    render(still(kind, plain(RED)))

    assert asked == [(kind,)]


# How much it asks for


@pytest.mark.usefixtures("no_opening")
@pytest.mark.parametrize(
    "bomb",
    [
        lambda: files.png_bomb(50_000, 50_000),
        lambda: files.png_bomb(15_000, 13_000),
        lambda: webp_of_one_colour(13_340, 13_340),
        lambda: still("JPEG", plain(RED)).replace(b"\0\x11\x08\0\x30\0\x40", b"\0\x11\x08\xff\xff\xff\xff"),
        lambda: gif_of_tiny_frames(60_000, 60_000, 1),
        lambda: with_stated_size(still("AVIF", plain(RED)), 12_000, 14_000),
        lambda: with_stated_size(still("AVIF", plain(RED)), 14_000, 14_000),
        lambda: with_stated_size(still("HEIF", plain(RED)), 12_000, 14_000),
    ],
    ids=["png", "png-195", "webp-178", "jpeg", "gif", "avif-168", "avif-196", "heic-168"],
)
def test_a_decompression_bomb_is_refused(bomb: Callable[[], bytes]) -> None:
    source = bomb()
    assert len(source) < 310_000

    refused = refusal(source)

    assert refused.code == "too_many_pixels"


@pytest.mark.usefixtures("no_opening")
@pytest.mark.parametrize("kind", STILLS)
def test_the_pixel_limit_holds_for_every_format(kind: str) -> None:
    source = still(kind, plain(RED, 64, 48))

    # HEVC codes whole blocks: 48 rows are stored as 64 and cut.
    stored = 64 * 64 if kind == "HEIF" else 64 * 48
    assert refusal(source, Limits(pixels=stored - 1)).code == "too_many_pixels"


def claiming_avif(data: bytes, **how: Any) -> bytes:
    """An AVIF that states a small size, in `ispe` and in its configuration."""
    small, _ = av1(plain(RED).tobytes(), 64, 48)
    return heif([Item(b"av01", data, [ispe(64, 48), small])], b"avif", **how)


@pytest.mark.usefixtures("no_opening")
def test_the_size_of_an_avif_is_what_its_pieces_say_put_together() -> None:
    (_, small), (_, large) = (av1(plain(RED, *size).tobytes(), *size) for size in ((64, 48), (640, 480)))
    data = large[:1] + small[1:] + large[1:]  # what follows the first piece belongs to no picture
    file = claiming_avif(data, extents=2)
    start, half = file.index(data), len(data) // 2
    apart = file.replace(pack(">II", start, half), pack(">II", start, 1)).replace(
        pack(">II", start + half, len(data) - half),
        pack(">II", start + len(small), len(large) - 1),
    )

    assert refusal(apart, Limits(pixels=640 * 480 - 1)).code == "too_many_pixels"


@pytest.mark.usefixtures("no_opening")
def test_av1_whose_size_is_not_at_its_beginning_is_refused() -> None:
    _, large = av1(plain(RED, 640, 480).tobytes(), 640, 480)
    padding = b"\x7a\x7d" + bytes(125)

    refused = refusal(claiming_avif(padding + large))

    assert (refused.code, refused.detail) == ("damaged", "AV1 that does not begin with its sequence header")


@pytest.mark.parametrize("kind", STILLS)
def test_a_picture_exactly_at_the_limits_is_accepted(kind: str) -> None:
    source = still(kind, plain(RED, 64, 64))

    made = render(source, Limits(bytes=len(source), pixels=64 * 64, frames=1, frame_pixels=1, scans=10, scan_pixels=1))

    assert (made.width, made.height) == (64, 64)


PHONES = [(8192, 6144), (8160, 6144), (9248, 6936), (12_000, 9000), (16_320, 12_240)]
"""What telephones of 50, 64, 108 and 200 megapixels store."""


@pytest.mark.parametrize(
    ("most", "header"),
    [
        (200, Header(Format.JPEG, 0, 0)),
        (200, Header(Format.JPEG, 0, 0, scans=10, bytes_a_pixel=3.0)),  # progressive, 4:2:0
        (108, Header(Format.JPEG, 0, 0, scans=10, bytes_a_pixel=13.0)),  # 4:4:4, and no end
        (108, Header(Format.PNG, 0, 0)),
        (108, Header(Format.GIF, 0, 0)),
        (64, Header(Format.WEBP, 0, 0)),
        (108, Header(Format.AVIF, 0, 0)),
        (64, Header(Format.AVIF, 0, 0, bytes_a_pixel=DEEP)),
        (108, Header(Format.HEIF, 0, 0)),
        (64, Header(Format.HEIF, 0, 0, bytes_a_pixel=DEEP)),
    ],
    ids=lambda value: f"{value.format}, {value.bytes_a_pixel}" if isinstance(value, Header) else None,
)
def test_the_photos_of_every_telephone_that_memory_holds_are_taken(most: int, header: Header) -> None:
    """bytes_a_pixel are the measured peaks (docs/media.md), and the sum of them stays under what the child may take."""
    for width, height in PHONES:
        phone = replace(header, width=width, height=height)
        if width * height < (most + 1) * 1_000_000:
            check(phone, Limits())
        elif phone.format is not Format.JPEG:
            with pytest.raises(Rejected):
                check(phone, Limits())
    assert Limits().memory < MEMORY


@pytest.mark.usefixtures("no_opening")
def test_a_file_over_the_byte_limit_is_refused_whatever_it_is() -> None:
    source = still("PNG", gradient(200, 200))

    assert refusal(source, Limits(bytes=len(source) - 1)).code == "too_many_bytes"
    assert refusal(b"not even a picture", Limits(bytes=10)).code == "too_many_bytes"


@pytest.mark.usefixtures("no_opening")
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (gif_of_tiny_frames(4000, 4000, 10_000), "10000 frames, the limit is 1000"),
        (gif_of_tiny_frames(4000, 4000, 20), "20 frames of 4000 x 4000 are 320 megapixels, the limit is 300"),
    ],
)
def test_an_animation_that_would_take_minutes_is_refused(source: bytes, reason: str) -> None:
    refused = refusal(source)

    assert (refused.code, refused.detail) == ("too_many_frames", reason)


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("kind", ANIMATIONS)
def test_the_frame_limits_hold_for_every_animation(kind: str) -> None:
    source = reel(kind, COLOURS, (100, 100, 100, 100))

    assert refusal(source, Limits(frames=3)).code == "too_many_frames"
    assert refusal(source, Limits(frame_pixels=4 * 64 * 48 - 1)).code == "too_many_frames"
    most = Limits(frames=4, frame_pixels=4 * 64 * 48)
    assert open_picture(admit(source, most), most)[0].frames == 4


@pytest.mark.usefixtures("no_opening")
def test_an_apng_has_the_number_of_frames_that_it_declares() -> None:
    source = reel("PNG", COLOURS, (100, 100, 100, 100))
    announced = re.search(rb"acTL(....)", source, re.DOTALL)
    assert announced

    refused = refusal(source.replace(announced[1], (4_000_000).to_bytes(4), 1))

    assert refused.code == "too_many_frames"


@pytest.mark.usefixtures("no_opening")
def test_a_jpeg_of_endless_scans_is_refused() -> None:
    refused = refusal(files.scan_bomb(gradient(600, 400), 306))

    assert refused.code == "too_many_scans"
    assert "306 scans" in refused.detail


def test_the_scans_that_encoders_write_are_accepted() -> None:
    scans = [admit(still(kind, gradient(600, 400)), LIMITS).header.scans for kind in ("JPEG", "progressive JPEG")]

    assert scans[0] == 1
    assert 5 < scans[1] <= 10


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (Header(Format.JPEG, 5000, 4000, scans=50), None),
        (Header(Format.JPEG, 5000, 4000, scans=51), "too_many_scans"),
        (Header(Format.JPEG, 8000, 6000, scans=10), None),
        (Header(Format.JPEG, 10, 10, scans=100), None),
        (Header(Format.JPEG, 10, 10, scans=101), "too_many_scans"),
        (Header(Format.PNG, 0, 10), "damaged"),
        (Header(Format.GIF, 16_000, 10_000), None),
        (Header(Format.GIF, 20_000, 10_000), "too_many_pixels"),
        # What telephones write: 50, 64, 108 and 200 megapixels.
        (Header(Format.JPEG, 16_320, 12_240), None),
        (Header(Format.JPEG, 16_320, 12_240, bytes_a_pixel=6), None),
        (Header(Format.HEIF, 12_000, 9_000), None),
        (Header(Format.HEIF, 9_248, 6_936, bytes_a_pixel=DEEP), None),
        (Header(Format.AVIF, 9_248, 6_936, bytes_a_pixel=DEEP), None),
        (Header(Format.WEBP, 9_248, 6_936), None),
        (Header(Format.PNG, 9_248, 6_936), None),
        (Header(Format.WEBP, 16_320, 12_240), "too_many_pixels"),
        (Header(Format.HEIF, 16_320, 12_240), "too_many_pixels"),
        (Header(Format.JPEG, 20_000, 15_000), "too_many_pixels"),
        (Header(Format.GIF, 10, 10, frames=1_001), "too_many_frames"),
    ],
)
def test_a_picture_at_a_limit_is_accepted_and_one_over_it_refused(header: Header, code: str | None) -> None:
    if code is None:
        check(header, LIMITS)
    else:
        with pytest.raises(Rejected) as refused:
            check(header, LIMITS)
        assert refused.value.code == code


# What is broken


@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("kind", STILLS)
def test_a_truncated_picture_is_refused_wherever_it_ends(kind: str, part: float) -> None:
    # Noise, so that every part of the file is needed.
    picture = Image.effect_noise((160, 120), 90).convert("RGB")
    source = still(kind, picture)

    refused = refusal(source[: int(len(source) * part)])

    assert refused.code in {"truncated", "damaged"}


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ANIMATIONS)
def test_a_truncated_animation_is_refused(kind: str, part: float) -> None:
    frames = [Image.effect_noise((80, 60), 60 + 20 * number).convert("RGB") for number in range(4)]
    source = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)

    assert refusal(source[: int(len(source) * part)]).code in {"truncated", "damaged"}


@pytest.mark.parametrize(
    "source",
    [
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\0\x10JFIF\0",
        b"\xff\xd8\xff\xd9",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + files.png_chunk(b"IEND", b""),
        b"GIF89a",
        b"GIF89a\x10\0\x10\0\0\0\0;",
        b"RIFF\x04\0\0\0WEBP",
        b"RIFF\xff\xff\0\0WEBPVP8L",
        b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    ],
    ids=repr,
)
def test_a_signature_with_nothing_behind_it_is_refused(source: bytes) -> None:
    assert refusal(source).code in {"truncated", "damaged"}


def test_a_picture_followed_by_a_web_page_is_a_picture() -> None:
    assert render(still("JPEG", plain(RED)) + b"<html><script>alert(1)</script>").format == "JPEG"


# What the largest accepted picture takes

MEASURE = """
import sys
from pathlib import Path
from pictures.rendering import render
made = render(Path(sys.argv[1]).read_bytes())
status = Path("/proc/self/status").read_text()
print(made.width * made.height, int(status.partition("VmHWM:")[2].split()[0]))
"""


@pytest.mark.programs
@pytest.mark.parametrize(
    ("maker", "least"),
    [
        (lambda: webp_of_one_colour(11_000, 7_900), 86_000_000),
        (lambda: files.png_bomb(15_000, 11_600), 170_000_000),
        (lambda: still("JPEG", plain(RED, 16_320, 12_240)), 199_000_000),
        (lambda: still("progressive JPEG", plain(RED, 16_320, 12_240), subsampling=0), 199_000_000),
    ],
    ids=["WEBP", "PNG", "JPEG", "progressive JPEG"],
)
def test_the_largest_accepted_picture_leaves_room_in_the_functions_memory(
    maker: Callable[[], bytes], least: int, tmp_path: Path
) -> None:
    """2 GB, of which the runtime has 150 MB. AVIF and HEIC take too long to make here: bench-media measures them."""
    upload = tmp_path / "upload"
    upload.write_bytes(maker())

    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(upload)],
        env={"PYTHONPATH": f"{Path(pictures.__file__).parents[1]}:{Path(social.__file__).parents[1]}"},
        capture_output=True,
        text=True,
        check=True,
    )

    pixels, kilobytes = map(int, measured.stdout.split())
    assert pixels >= least
    assert kilobytes < 1_850 * 1024


def test_the_generated_large_picture_is_a_valid_webp() -> None:
    picture = Image.open(BytesIO(webp_of_one_colour(30, 20)))

    assert (picture.size, picture.convert("RGB").getpixel((29, 19))) == ((30, 20), (40, 180, 40))
