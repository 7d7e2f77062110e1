"""What is decided about a clip by arithmetic holds for every clip, not just for those at hand."""

from fractions import Fraction
from io import BytesIO
from pathlib import Path
from struct import pack
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures import formats
from video import rules
from video.rules import (
    brightness,
    container_of,
    crop_of,
    fit,
    matrix_of,
    promised_bytes,
    score,
    square_pixels,
    turn_of,
)

ONE = 1 << 16


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "mov"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "mov"),
        (b"\0\0\x10\0moov\0\0\0\x6cmvhd", "mov"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "mov"),
        (b"\0\0\0\x14pnot" + bytes(12), "mov"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1\x42\xf7\x81\1\x42\xf2\x81\4\x42\xf3\x81\x08\x42\x82\x84webm", "matroska"),
        (b"\x1a\x45\xdf\xa3" + bytes(56) + b"webm", "matroska"),
        (b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\1\x42\x82\x88matroska", "matroska"),
        (b"RIFF\0\0\1\0AVI LIST", "avi"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
    ],
)
def test_the_five_kinds_of_file_are_identified_by_their_first_bytes(head: bytes, container: str) -> None:
    assert container_of(head) == container


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\n",
        b"<?xml version='1.0'?><MPD></MPD>",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"\0\0\0\x1cftypavif\0\0\0\0avifmif1",
        b"\x1a\x45\xdf\xa3\x88\x42\x82\x85other",
        b"\x1a\x45\xdf\xa3" + bytes(57) + b"webm",
        b"RIFF\0\0\1\0WAVEfmt ",
        b"LIST\0\0\1\0AVI ",
        b"RIFF\0\0\1\0WEBPVP8 ",
        b"ID3\4\0\0\0\0\0\0",
        b"\x47\x40\x11\x10\0\x42\xf0",
    ],
)
def test_playlists_pictures_sound_and_other_formats_are_not_video(head: bytes) -> None:
    assert container_of(head) is None


@pytest.mark.parametrize(
    "brand", sorted(formats._HEIC_BRANDS | formats._AVIF_BRANDS | formats._ANY_CODEC | set(formats._BRANDS))
)
def test_no_brand_of_a_picture_a_raw_photo_or_sound_is_a_clips(brand: bytes) -> None:
    assert container_of(b"\0\0\0\x18ftyp" + brand + bytes(4) + brand) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_a_known_container_or_none(head: bytes) -> None:
    assert container_of(head) in {None, "mov", "matroska", "avi", "asf"}


# The size that a header implies

EBML = bytes.fromhex("1a45dfa3")
SEGMENT = bytes.fromhex("18538067")
CLUSTER = bytes.fromhex("1f43b675")
UNKNOWN = bytes.fromhex("01ffffffffffffff")


def test_an_avi_says_the_size_of_its_first_chunk() -> None:
    def of(size: int) -> int:
        return promised_bytes(BytesIO(b"RIFF" + pack("<I", size) + b"AVI LIST"), "avi")

    assert [of(0), of(1000), of(0x7000_0000), of(0xFFFF_FFFE)] == [8, 1008, 0x7000_0008, 0x1_0000_0006]
    assert of(0xFFFF_FFFF) == 0


def asf(before: int, size: int, flags: int, guid: bytes = rules._ASF_PROPERTIES) -> BytesIO:
    return BytesIO(bytes(before) + guid + b"\6" * 24 + pack("<Q", size) + b"\6" * 40 + pack("<I", flags) + b"\6" * 20)


@pytest.mark.parametrize("before", [0, 30, 200])
def test_a_wmv_says_its_size_unless_it_is_a_broadcast(before: int) -> None:
    size = 0x0102_0304_0506_0708
    assert promised_bytes(asf(before, size, flags=0b10), "asf") == size
    assert promised_bytes(asf(before, size, flags=0b11), "asf") == 0
    assert promised_bytes(asf(before, size, flags=0b10, guid=bytes(16)), "asf") == 0


@pytest.mark.parametrize(
    ("file", "end"),
    [
        (b"", 0),
        (EBML + b"\x84webm", 9),
        (EBML + b"\x84webm" + SEGMENT + b"\x40\x05" + bytes(5), 20),
        (EBML + b"\x84webm" + SEGMENT + b"\xe5" + bytes(101), 115),
        # Recorded by a browser: the elements within have sizes, the last of which was not written in full.
        (EBML + b"\x80" + SEGMENT + UNKNOWN + CLUSTER + b"\xff" + b"\xa3\x81x" + b"\xa3\x85x", 32),
        (EBML + b"\x80" + SEGMENT + UNKNOWN, 17),
        (b"\xa3\xfe" + bytes(126), 128),
        (b"\xa3\x85", 7),
        # Cut within an element's header: at least the rest of the longest header is missing.
        (EBML + b"\x80\xa3", 15),
        (EBML + b"\x80" + SEGMENT, 18),
        (EBML + b"\x80" + SEGMENT + UNKNOWN[:4], 17),
        # Not elements: no size is known for this one, and an id has at most four bytes.
        (EBML + b"\x80\xa3\xff" + bytes(20), 0),
        (EBML + b"\x80" + b"\x08aaaa\x81" + bytes(20), 0),
        (EBML + b"\x80\x08aaaa\x81x", 0),
        (EBML + b"\x80" + bytes(30), 0),
    ],
)
def test_a_webm_ends_with_its_last_element(file: bytes, end: int) -> None:
    assert promised_bytes(BytesIO(file), "matroska") == end


@pytest.mark.parametrize(
    ("kind", "head", "promised"),
    [
        ("mov", b"\0\0\0\1mdat" + pack(">Q", 1 << 62), 1 << 62),
        ("mov", b"\0\0\0\1mdat" + pack(">Q", (1 << 64) - 1), (1 << 64) - 1),
        ("matroska", b"\xa3" + b"\x01" + b"\xff" * 6 + b"\xfe", 9 + (1 << 56) - 2),
    ],
)
def test_a_header_with_an_impossible_length_promises_it_without_an_error(
    kind: Literal["mov", "matroska"], head: bytes, promised: int, tmp_path: Path
) -> None:
    (tmp_path / "clip").write_bytes(head + bytes(100))

    with (tmp_path / "clip").open("rb") as file:
        assert promised_bytes(file, kind) == promised


def test_no_more_than_the_maximum_of_elements_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_MOST_ELEMENTS", 3)
    assert promised_bytes(BytesIO(b"\xa3\x80" * 2), "matroska") == 4
    assert promised_bytes(BytesIO(b"\xa3\x80" * 3), "matroska") == 0
    assert promised_bytes(BytesIO(box(8, b"free") * 2), "mov") == 16
    assert promised_bytes(BytesIO(box(8, b"free") * 3), "mov") == 0


def box(size: int, kind: bytes) -> bytes:
    return pack(">I", size) + kind + bytes(size - 8)


@pytest.mark.parametrize(
    ("file", "end"),
    [
        (b"", 0),
        (box(16, b"ftyp") + box(8, b"free") + box(300, b"moov"), 324),
        (box(16, b"ftyp") + box(8, b"free"), 24),
        (box(16, b"ftyp") + pack(">I", 1 << 20) + b"mdat", 16 + (1 << 20)),
        (pack(">I", 1) + b"mdat" + pack(">Q", 0x0102_0304_0506_0708) + bytes(8), 0x0102_0304_0506_0708),
        (pack(">I", 0x0102_0304) + b"mdat" + bytes(8), 0x0102_0304),
        # Less than a box's header at the end belongs to none.
        (box(16, b"ftyp") + b"\0\0\0\x10fre", 16),
        # A size of 0, "to the end", gives no length; less than 8 is too small for a box, and other data has no size.
        (box(16, b"ftyp") + pack(">I", 0) + b"mdat" + b"\x01" * 8, 0),
        (box(16, b"ftyp") + pack(">I", 7) + b"mdat", 0),
        (box(16, b"ftyp") + box(16, b"\0ree"), 0),
        (box(16, b"ftyp") + box(16, b"fre\0"), 0),
    ],
)
def test_an_mp4_ends_with_its_last_box(file: bytes, end: int) -> None:
    assert promised_bytes(BytesIO(file), "mov") == end


# Geometry and colour


@given(st.integers(16, 8192), st.integers(16, 8192))
def test_a_rendition_is_even_within_its_box_never_enlarged_and_keeps_its_shape(width: int, height: int) -> None:
    made = fit(width, height, 1280, 720)

    assert max(made) <= 1280
    assert min(made) <= 720
    assert made[0] <= width
    assert made[1] <= height
    assert made[0] % 2 == made[1] % 2 == 0
    scale = min(1, 1280 / max(width, height), 720 / min(width, height))
    assert abs(made[0] - max(2, width * scale)) <= 2
    assert abs(made[1] - max(2, height * scale)) <= 2


@pytest.mark.parametrize(
    ("source", "made"),
    [((1920, 1080), (1280, 720)), ((1080, 1920), (720, 1280)), ((3840, 2160), (1280, 720)), ((2000, 2000), (720, 720))],
)
def test_the_usual_sizes_become_720p_lying_or_standing(source: tuple[int, int], made: tuple[int, int]) -> None:
    assert fit(*source, 1280, 720) == made


@pytest.mark.parametrize(
    ("source", "made"), [((1, 1), (2, 2)), ((2, 2), (2, 2)), ((3, 5), (2, 4)), ((101, 60), (100, 60))]
)
def test_the_smallest_clips_lose_a_pixel_at_most_and_have_two(source: tuple[int, int], made: tuple[int, int]) -> None:
    assert fit(*source, 1280, 720) == made


@pytest.mark.parametrize(
    ("abcd", "filters", "swapped"),
    [
        ((ONE, 0, 0, ONE), (), False),
        ((-ONE, 0, 0, ONE), (("hflip", ""),), False),
        ((-ONE, 0, 0, -ONE), (("hflip", ""), ("vflip", "")), False),
        ((ONE, 0, 0, -ONE), (("vflip", ""),), False),
        ((-1, 0, 0, -1), (("hflip", ""), ("vflip", "")), False),
        ((0, 0, 0, 0), (), False),
        ((0, ONE, -ONE, 0), (("transpose", "dir=clock"),), True),
        ((0, -ONE, ONE, 0), (("transpose", "dir=cclock"),), True),
        ((0, ONE, ONE, 0), (("transpose", "dir=cclock_flip"),), True),
        ((0, -ONE, -ONE, 0), (("transpose", "dir=clock_flip"),), True),
    ],
)
def test_each_of_the_eight_orientations_has_its_filter(
    abcd: tuple[int, int, int, int], filters: tuple[tuple[str, str], ...], swapped: bool
) -> None:
    a, b, c, d = abcd
    assert turn_of(pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)) == (filters, swapped)


@given(st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=9, max_size=9))
def test_a_matrix_of_any_numbers_gives_an_orientation(matrix: list[int]) -> None:
    filters, swapped = turn_of(pack("=9i", *matrix))
    assert swapped == any(name == "transpose" for name, _ in filters)


def test_a_clip_without_a_matrix_is_not_turned() -> None:
    assert turn_of(None) == ((), False)


@given(st.integers(16, 4096), st.integers(16, 4096), st.fractions(0, 100, max_denominator=1000))
def test_making_pixels_square_never_enlarges_a_side(width: int, height: int, aspect: Fraction) -> None:
    made_width, made_height = square_pixels(width, height, aspect)

    assert made_width <= width
    assert made_height <= height
    if Fraction(1, 8) <= aspect <= 8:
        assert made_width / made_height == pytest.approx(float(width * aspect / height))
    else:
        assert (made_width, made_height) == (width, height)


@pytest.mark.parametrize(
    ("aspect", "made"),
    [
        (None, (800, 400)),
        (Fraction(0), (800, 400)),
        (Fraction(1, 9), (800, 400)),
        (Fraction(1, 8), (100, 400)),
        (Fraction(1), (800, 400)),
        (Fraction(8, 5), (800, 250)),
        (Fraction(8), (800, 50)),
        (Fraction(17, 2), (800, 400)),
    ],
)
def test_pixels_up_to_eight_times_as_long_as_wide_are_accepted(
    aspect: Fraction | None, made: tuple[float, float]
) -> None:
    assert square_pixels(800, 400, aspect) == made


def test_a_crop_is_rounded_up_to_whole_chroma_samples() -> None:
    assert crop_of(None) == (0, 0, 0, 0)
    assert crop_of(pack("=5I", 1, 2, 3, 8, 9)) == (4, 2, 8, 2)


@pytest.mark.parametrize(
    ("stated", "lines", "matrix"),
    [
        (rules.UNSPECIFIED, 720, rules.BT709),
        (rules.UNSPECIFIED, 719, rules.BT601),
        (rules.RGB, 1080, rules.BT709),
        (8, 480, rules.BT601),
        (9, 1080, 9),
        (rules.BT709, 240, rules.BT709),
    ],
)
def test_the_colour_matrix_is_the_stated_one_or_the_usual_one_of_the_size(stated: int, lines: int, matrix: int) -> None:
    assert matrix_of(stated, lines) == matrix


# The best frame


def _rows(values: list[list[int]]) -> list[bytes]:
    return [bytes(row) for row in values]


def _checks(light: int, dark: int, size: int) -> list[list[int]]:
    return [[light if (x // size + y // size) % 2 else dark for x in range(48)] for y in range(32)]


def _blurred(rows: list[list[int]]) -> list[list[int]]:
    return [
        [(row[max(0, x - 1)] + row[x] + row[min(len(row) - 1, x + 1)]) // 3 for x in range(len(row))] for row in rows
    ]


def test_a_black_a_white_and_a_flat_frame_score_nothing() -> None:
    for value in (16, 20, 235, 120):
        assert score(_rows([[value] * 48] * 32)) == 0


def test_a_dark_frame_with_little_noise_is_black() -> None:
    rows = _rows([[16 + (x * y) % 5 for x in range(48)] for y in range(32)])
    assert score(rows) == 0


def test_blur_and_fading_lower_the_score() -> None:
    sharp = _checks(200, 40, 4)
    soft = _blurred(_blurred(sharp))
    faded = _checks(60, 20, 4)

    assert score(_rows(sharp)) > 2 * score(_rows(soft)) > 0
    assert score(_rows(sharp)) > 2 * score(_rows(faded))


SPOT = [[100, 100, 100], [100, 120, 100], [100, 100, 100]]


def test_a_score_is_the_mean_square_of_the_second_differences() -> None:
    # Around the spot, the slope changes by 40 from above to below, and as much from left to right.
    assert score(_rows(SPOT)) == pytest.approx((40**2 + 40**2) / 9)
    assert score(_rows([row[:2] for row in SPOT])) == 0
    assert score(_rows(SPOT[:2])) == 0
    assert score([]) == 0


@pytest.mark.parametrize("light", [32, 40, 55, 195, 210, 218])
def test_a_frame_counts_less_the_nearer_it_is_to_black_or_white(light: int) -> None:
    rows = _rows([[light + value - 100 for value in row] for row in SPOT])
    distance = min(brightness(rows) - 0.06, 0.94 - brightness(rows))
    assert 0 < distance < 0.14
    assert score(rows) == pytest.approx(score(_rows(SPOT)) * distance / 0.14)


@given(st.lists(st.binary(min_size=12, max_size=12), min_size=1, max_size=12))
def test_a_score_is_never_negative_and_does_not_depend_on_mirroring(rows: list[bytes]) -> None:
    assert score(rows) >= 0
    assert score([row[::-1] for row in rows]) == pytest.approx(score(rows))
    assert score(rows[::-1]) == pytest.approx(score(rows))


def test_brightness_goes_from_black_to_white() -> None:
    assert brightness([bytes([16] * 8)]) == 0
    assert brightness([bytes([235] * 8)]) == 1
    assert brightness([bytes([235])]) == 1
