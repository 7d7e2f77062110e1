"""What is decided about a clip by arithmetic holds for every clip, not just for those at hand."""

from fractions import Fraction
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from video.rules import brightness, container_of, fit, score, square_pixels, turn_of

ONE = 1 << 16


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "mov"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "mov"),
        (b"\0\0\x10\0moov\0\0\0\x6cmvhd", "mov"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "mov"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1\x42\xf7\x81\1\x42\xf2\x81\4\x42\xf3\x81\x08\x42\x82\x84webm", "matroska"),
        (b"RIFF\0\0\1\0AVI LIST", "avi"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
    ],
)
def test_the_five_kinds_of_file_are_told_by_their_first_bytes(head: bytes, container: str) -> None:
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
        b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\1\x42\x82\x88matroska",
        b"RIFF\0\0\1\0WAVEfmt ",
        b"RIFF\0\0\1\0WEBPVP8 ",
        b"ID3\4\0\0\0\0\0\0",
        b"\x47\x40\x11\x10\0\x42\xf0",
    ],
)
def test_playlists_pictures_sound_and_other_formats_are_not_video(head: bytes) -> None:
    assert container_of(head) is None


@given(st.binary(max_size=80))
def test_any_bytes_have_an_answer(head: bytes) -> None:
    assert container_of(head) in {None, "mov", "matroska", "avi", "asf"}


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
    ("abcd", "filters", "swapped"),
    [
        ((ONE, 0, 0, ONE), (), False),
        ((-ONE, 0, 0, ONE), (("hflip", ""),), False),
        ((-ONE, 0, 0, -ONE), (("hflip", ""), ("vflip", "")), False),
        ((ONE, 0, 0, -ONE), (("vflip", ""),), False),
        ((0, ONE, -ONE, 0), (("transpose", "dir=clock"),), True),
        ((0, -ONE, ONE, 0), (("transpose", "dir=cclock"),), True),
        ((0, ONE, ONE, 0), (("transpose", "dir=cclock_flip"),), True),
        ((0, -ONE, -ONE, 0), (("transpose", "dir=clock_flip"),), True),
    ],
)
def test_the_eight_orientations_have_each_their_filter(
    abcd: tuple[int, int, int, int], filters: tuple[tuple[str, str], ...], swapped: bool
) -> None:
    a, b, c, d = abcd
    assert turn_of(pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)) == (filters, swapped)


@given(st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=9, max_size=9))
def test_a_senseless_matrix_still_gives_some_orientation(matrix: list[int]) -> None:
    filters, swapped = turn_of(pack("=9i", *matrix))
    assert swapped == any(name == "transpose" for name, _ in filters)


def test_no_matrix_is_upright() -> None:
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


@given(st.lists(st.binary(min_size=12, max_size=12), min_size=1, max_size=12))
def test_a_score_is_never_negative_and_does_not_depend_on_mirroring(rows: list[bytes]) -> None:
    assert score(rows) >= 0
    assert score([row[::-1] for row in rows]) == pytest.approx(score(rows))
    assert score(rows[::-1]) == pytest.approx(score(rows))


def test_brightness_goes_from_black_to_white() -> None:
    assert brightness([bytes([16] * 8)]) == 0
    assert brightness([bytes([235] * 8)]) == 1
