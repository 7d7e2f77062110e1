"""Pictures as people have them: metadata that is broken, tails that are missing, crops that must stay."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from colours.light import HLG, PQ
from pictures.formats import sniff
from pictures.headers import Limits
from pictures.reading import admit
from pictures.rendering import LIMITS, render
from samples import files
from social.refusals import Rejected
from tests.support.clips import Kind, make_clip
from tests.support.stills import COLOURS, RED, gradient, opened, plain, quarters, reel, saved, still, with_stated_size
from video.rules import container_of

type Edit = Callable[[bytes], bytes]


def png_with(*chunks: tuple[bytes, bytes], source: bytes | None = None) -> bytes:
    """A PNG with more chunks before its pixels."""
    whole = source or still("PNG", quarters(120, 80))
    at = whole.index(b"IDAT") - 4
    return whole[:at] + b"".join(files.png_chunk(name, data) for name, data in chunks) + whole[at:]


def full(upload: bytes, limits: Limits = LIMITS) -> Any:
    made = render(upload, limits)
    rendition = next(rendition for rendition in made.renditions if rendition.name == "full")
    return np.asarray(opened(rendition.data).convert("RGB"), np.int16)


def looks_as(upload: bytes, plain_one: bytes) -> bool:
    one, other = full(upload), full(plain_one)
    return one.shape == other.shape and int(np.abs(one - other).max()) < 3


def flipped(chunk: bytes) -> bytes:
    return chunk[:9] + bytes([chunk[9] ^ 1]) + chunk[10:]


# Metadata refuses no picture


BIG = zlib.compress(bytes(2 << 20))


@pytest.mark.parametrize(
    "chunk",
    [
        files.png_chunk(b"zTXt", b"Comment\0\0" + BIG),
        files.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BIG),
        files.png_chunk(b"iCCP", b"icc\0\0" + BIG),
        files.png_chunk(b"iCCP", b"icc\0\0junk"),
        files.png_chunk(b"sRGB", b""),
        files.png_chunk(b"gAMA", b"\0"),
        files.png_chunk(b"cHRM", b"\0\0"),
        files.png_chunk(b"cICP", b"\1"),
        files.png_chunk(b"pHYs", b""),
        files.png_chunk(b"tIME", b"\0"),
        files.png_chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
        flipped(files.png_chunk(b"tEXt", b"prompt\0a cat")),
        flipped(files.png_chunk(b"gAMA", struct.pack(">I", 100_000))),
        files.png_chunk(b"acTL", struct.pack(">II", 5, 0)),
    ],
    ids=lambda chunk: repr(chunk[4:20]),
)
def test_no_ancillary_chunk_refuses_a_png(chunk: bytes) -> None:
    good = still("PNG", quarters(120, 80))
    at = good.index(b"IDAT") - 4

    assert looks_as(good[:at] + chunk + good[at:], good)


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe1\0\x0aExif\0\0II",
        b"\xff\xe2\0\x10MPF\0MM\0*\0\0\0\x08\0\1",
        b"\xff\xe2\0\x10ICC_PROFILE\0\1\1",
        b"\xff\xed\0\x14Photoshop 3.0\x008BIM",
        b"\xff\xe0\0\6JFIF",
        b"\xff\xee\0\7Adobe",
        b"\xff\xfe\0\4\xff\xff",
        b"\xff\xe1\0\x20http://ns.adobe.com/xap/1.0/\0<",
    ],
    ids=lambda segment: repr(segment[4:14]),
)
def test_no_segment_of_metadata_refuses_a_jpeg(segment: bytes) -> None:
    good = still("JPEG", quarters(120, 80))

    assert looks_as(good[:2] + segment + good[2:], good)


@pytest.mark.parametrize("name", [b"EXIF", b"XMP ", b"ICCP", b"JUNK"])
@pytest.mark.parametrize("data", [b"", b"junk", bytes(3000)], ids=len)
def test_no_chunk_of_metadata_refuses_a_webp(name: bytes, data: bytes) -> None:
    good = still("WEBP", quarters(120, 80))
    body = good[12:] + name + struct.pack("<I", len(data)) + data
    for announced in (len(body) + 4, len(body) + 400):  # the second is cut short within its metadata
        assert looks_as(b"RIFF" + struct.pack("<I", announced) + b"WEBP" + body, good)


NOTES = b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data", b"SEFH\x6b\0\0\0\1\0\0\0\0\0\x30\x0a\x10\0\0\0SEFT"
"""What Samsung's phones write before and after the clip; newer ones, and Google's, put it into a box `mpvd`."""
BEHIND: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda clip: clip,
    "between notes": lambda clip: NOTES[0] + clip + NOTES[1],
    "in a box": lambda clip: struct.pack(">I4s", 8 + len(clip), b"mpvd") + clip,
    "with no boxes around": lambda clip: b"\0\0\0\3" + clip,
}


@pytest.mark.parametrize("place", BEHIND)
@pytest.mark.parametrize("kind", ["JPEG", "HEIF", "AVIF", "PNG", "WEBP"])
def test_the_clip_behind_a_motion_photo_is_dropped_without_trace(kind: str, place: str, tmp_path: Path) -> None:
    good = still(kind, quarters(120, 80))
    clip = make_clip(tmp_path / "clip.mp4", size=(640, 480), frames=3).read_bytes()

    made, alone = render(good + BEHIND[place](clip)), render(good)

    assert (made.kind, made.width, made.height) == ("image", 120, 80)
    assert [r.data for r in made.renditions] == [r.data for r in alone.renditions]


def test_the_clip_behind_a_heic_does_not_hide_that_its_codec_is_not_ours(tmp_path: Path) -> None:
    source = still("HEIF", quarters(120, 80)).replace(b"hvc1\0", b"jpg0\0", 1)
    clip = make_clip(tmp_path / "clip.mp4", frames=3).read_bytes()

    for upload in (source, source + clip):
        with pytest.raises(Rejected) as refused:
            render(upload)
        assert refused.value.code == "heif_codec"


def test_the_halves_of_a_live_photo_are_a_picture_and_a_clip(tmp_path: Path) -> None:
    """Each is a file and an upload of its own: the HEIC has no trace of the MOV, and the MOV no trace of the HEIC."""
    clip = make_clip(tmp_path / "IMG_0001.MOV", Kind(".MOV", "mov", "libx264", "aac")).read_bytes()

    assert (sniff(still("HEIF", quarters(120, 80))[:64]), sniff(clip[:64])) == ("HEIF", None)
    assert container_of(clip[:64]) == "mov"


# Whole pixels, missing tail


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG"])
def test_a_jpeg_without_its_last_marker_is_whole(kind: str) -> None:
    good = still(kind, gradient(130, 90))

    assert looks_as(good[:-2], good)
    assert looks_as(good[:-1], good)
    with pytest.raises(Rejected) as refused:
        render(good[: len(good) * 2 // 3])
    assert refused.value.code == "truncated"


def test_a_gif_without_its_terminators_is_whole() -> None:
    good = saved(plain(RED), "GIF", save_all=True, append_images=[plain(c) for c in COLOURS[1:]], duration=100)

    for missing in (1, 2):
        assert looks_as(good[:-missing], good)
        assert render(good[:-missing]).frames == 4


def test_a_png_without_its_end_is_whole_and_one_without_its_last_pixels_is_not() -> None:
    good = still("PNG", gradient(130, 90))

    assert looks_as(good[:-12], good)
    assert looks_as(good[:-14], good)
    with pytest.raises(Rejected) as refused:
        render(good[:-40])
    assert refused.value.code == "truncated"


def test_an_apng_whose_animation_is_broken_is_its_still() -> None:
    good = reel("PNG", COLOURS, (100, 100, 100, 100))
    at = good.index(b"fdAT")
    broken = good[: at + 8] + bytes(40) + good[at + 48 :]

    made = render(broken)

    assert (made.kind, made.frames) == ("image", 1)
    assert np.abs(full(broken)[20, 20] - np.array(RED)).max() < 12


# Colours that the file states in numbers


@pytest.mark.parametrize(
    ("chunks", "value", "shown"),
    [
        (((b"gAMA", struct.pack(">I", 100_000)),), 55, 128),
        (((b"gAMA", struct.pack(">I", 55_556)),), 128, 148),
        (((b"gAMA", struct.pack(">I", 45_455)),), 55, 55),
        (((b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))), 55, 55),
        (((b"cICP", bytes((1, 8, 0, 1))),), 55, 128),
    ],
    ids=["linear", "1/1.8", "sRGB's", "sRGB goes first", "cICP linear"],
)
def test_a_pngs_gamma_is_followed(chunks: tuple[tuple[bytes, bytes], ...], value: int, shown: int) -> None:
    for mode in ("RGB", "L"):
        picture = plain((value, value, value)).convert(mode)
        if mode == "L" and chunks[0][0] == b"cICP":
            continue
        seen = full(png_with(*chunks, source=still("PNG", picture)))
        assert abs(int(seen[20, 20, 1]) - shown) <= 4, mode


def test_a_pngs_chromaticities_are_followed() -> None:
    display_p3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    chunks = (b"gAMA", struct.pack(">I", 45_455)), (b"cHRM", struct.pack(">8I", *display_p3))

    seen = full(png_with(*chunks, source=still("PNG", plain((234, 51, 35)))))

    assert np.abs(seen[20, 20] - np.array((255, 0, 0))).max() <= 20


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_a_png_of_a_high_dynamic_range_is_shown_on_an_ordinary_screen(transfer: int) -> None:
    source = still("PNG", plain((97, 97, 97)))  # 38%, a grey card

    seen = full(png_with((b"cICP", bytes((9, transfer, 0, 1))), source=source))

    assert abs(int(seen[20, 20, 1]) - 100) <= 6


# AVIF and HEIC


def boxed(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def with_crop(heif: bytes, width: int, height: int, right: int, down: int) -> bytes:
    """The file with a clean aperture for every item: its size, and how far its centre is from the picture's."""
    crop = boxed(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, right, 1, down, 1))
    meta = heif.index(b"meta") - 4
    meta_size = int.from_bytes(heif[meta : meta + 4])
    ipco = heif.index(b"ipco", meta) - 4
    ipma = heif.index(b"ipma", meta) - 4
    iprp = heif.index(b"iprp", meta) - 4
    assert heif[ipma + 11] & 1 == 0
    number, at = 0, ipco + 8
    while at < ipco + int.from_bytes(heif[ipco : ipco + 4]):
        number, at = number + 1, at + int.from_bytes(heif[at : at + 4])
    old = heif[ipma : ipma + int.from_bytes(heif[ipma : ipma + 4])]
    items, place = b"", 16
    for _ in range(int.from_bytes(old[12:16])):
        count = old[place + 2]
        owned = old[place + 3 : place + 3 + count]
        items += old[place : place + 2] + bytes([count + 1]) + owned + bytes([0x80 | number + 1])
        place += 3 + count
    new_ipma = boxed(b"ipma", old[8:16] + items)
    new_ipco = boxed(b"ipco", heif[ipco + 8 : ipco + int.from_bytes(heif[ipco : ipco + 4])] + crop)
    new_iprp = boxed(b"iprp", new_ipco + new_ipma)
    body = heif[meta + 8 : iprp] + new_iprp + heif[iprp + int.from_bytes(heif[iprp : iprp + 4]) : meta + meta_size]
    hole = heif[:meta] + heif[meta : meta + 4] + b"free" + heif[meta + 8 :]
    return hole + boxed(b"meta", body)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize(
    ("size", "shift", "colour"), [((100, 60), (-100, -60), 0), ((100, 60), (100, 60), 3), ((100, 60), (100, -60), 1)]
)
def test_pixels_outside_the_clean_aperture_are_not_published(
    kind: str, size: tuple[int, int], shift: tuple[int, int], colour: int
) -> None:
    source = with_crop(still(kind, quarters(400, 240)), *size, *shift)

    made = render(source)

    assert (made.width, made.height) == size
    seen = full(source)
    assert np.abs(seen - np.array(COLOURS[colour])).max() < 24


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_picture_is_cropped_before_it_is_turned(kind: str, orientation: int) -> None:
    turned = still(kind, quarters(400, 240), exif=files.exif(orientation))

    made = render(with_crop(turned, 100, 60, -100, -60))

    assert (made.width, made.height) == ((100, 60) if orientation == 3 else (60, 100))
    assert np.abs(full(with_crop(turned, 100, 60, -100, -60)) - np.array(RED)).max() < 24


def test_an_avif_whose_transparency_states_no_size_is_shown() -> None:
    picture = Image.new("RGBA", (96, 64), (*RED, 255))
    picture.paste((0, 0, 0, 0), (48, 0, 96, 64))
    good = still("AVIF", picture)
    meta, ipma = good.index(b"meta"), good.index(b"ipma")
    ispe_number = [good[at + 4 : at + 8] == b"ispe" for at in _properties(good)].index(True) + 1
    second = good.index(struct.pack(">H", 2), ipma + 12)
    count = good[second + 2]
    owned = bytearray(good[second + 3 : second + 3 + count])
    numbers = [value & 0x7F for value in owned]
    sizes = [n for n, at in enumerate(_properties(good), start=1) if good[at + 4 : at + 8] == b"ispe" and n in numbers]
    owned[numbers.index(sizes[0])] = next(n for n in numbers if n != sizes[0])
    source = good[: second + 3] + bytes(owned) + good[second + 3 + count :]
    assert meta < ipma
    assert ispe_number

    made = render(source)

    picture = opened(next(r for r in made.renditions if r.name == "full").data)
    assert picture.mode == "RGBA"
    assert picture.getchannel("A").getpixel((80, 30)) == 0


def _properties(heif: bytes) -> list[int]:
    start = heif.index(b"ipco") - 4
    at, end, found = start + 8, start + int.from_bytes(heif[start : start + 4]), []
    while at < end:
        found.append(at)
        at += int.from_bytes(heif[at : at + 4])
    return found


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_a_picture_that_understates_its_size_is_counted_as_it_is(kind: str) -> None:
    liar = with_stated_size(still(kind, plain(RED, 512, 512)), 64, 64)

    with pytest.raises(Rejected) as refused:
        admit(liar, Limits(pixels=512 * 500))

    assert refused.value.code == "too_many_pixels"
