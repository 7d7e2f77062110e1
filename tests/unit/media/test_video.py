"""A clip of each kind becomes what a feed can show, and a player sees what the camera saw."""

import math
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO, FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

import social
import video
from colours.light import HLG, PQ, hlg_scene, pq_light
from pictures import rendering
from pictures.recipes import RECIPES
from sandbox.supervisor import PROGRESS_STEP
from tests.support.clips import AVI, KINDS, MOV, MP4, WEBM, Kind, make_clip, plain, quarters, texture
from tests.support.footage import units, with_box
from tests.support.isobmff import found
from video import Video
from video.film import TICK, Upright
from video.stills import Poster, luma_of

ONE = 1 << 16
CODED = Kind(".mp4", "mp4", "mpeg4", "aac")
"""As MP4, but not to be copied."""
POSITION = "+48.8577+002.295/"


def render(clip: Path, out: Path, on_progress: Callable[[float], None] | None = None) -> Video:
    return video.render(clip, out, seconds=600, on_progress=on_progress)


def mp4_of(made: Video) -> bytes:
    return made.renditions["video"].path.read_bytes()


def frames_of(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def frame_count(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def poster_of(made: Video) -> Image.Image:
    return Image.open(made.poster).convert("RGB")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.suffix[1:])
def test_each_kind_becomes_an_mp4_a_poster_and_a_preview(kind: Kind, tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / f"clip{kind.suffix}", kind)

    made = render(clip, out)

    assert made.kind == "video"
    assert (made.width, made.height) == (64, 48)
    assert made.duration == pytest.approx(1.0, abs=0.1)
    assert made.frame_rate == pytest.approx(24, abs=0.1)
    assert sorted(path.name for path in out.iterdir()) == ["poster.png", "preview.webp", "video.mp4"]
    for rendition in made.renditions.values():
        assert rendition.bytes == rendition.path.stat().st_size > 0

    with av.open(str(made.renditions["video"].path)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert len(container.streams) == 2
        assert (picture.codec_context.name, picture.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (picture.width, picture.height) == (64, 48)
        assert sound.codec_context.name == "aac"
        assert container.duration == pytest.approx(1_000_000, abs=100_000)
        assert sum(1 for _ in container.decode(picture)) == 24
    assert made.renditions["video"].content_type == "video/mp4"
    assert mp4_of(made).index(b"moov") < mp4_of(made).index(b"mdat"), "the index comes first: it plays while it loads"

    with Image.open(made.renditions["preview"].path) as preview:
        assert preview.format == "WEBP"
        assert frame_count(preview) == 10
        assert preview.info["loop"] == 0
    assert poster_of(made).size == (64, 48)


def test_a_large_clip_is_shrunk_to_720p_and_a_long_preview_ends_after_three_seconds(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.mov", MOV, size=(1600, 1200), frames=16, rate=4)

    made = render(clip, out)

    assert (made.width, made.height) == (1600, 1200)
    assert not made.remuxed
    rendition, preview = made.renditions["video"], made.renditions["preview"]
    assert (rendition.width, rendition.height) == (960, 720)
    assert (preview.width, preview.height) == (320, 240)
    assert poster_of(made).size == (960, 720)
    with Image.open(preview.path) as animation:
        assert frame_count(animation) * 100 <= 3000


def test_a_small_clip_is_never_enlarged_and_odd_sizes_become_even(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.webm", WEBM, size=(51, 37), frames=6)

    made = render(clip, out)

    assert (made.width, made.height) == (51, 37)
    assert (made.renditions["video"].width, made.renditions["video"].height) == (50, 36)


MATRICES = {
    # a, b, c, d of ISO/IEC 14496-12, 8.5.3: a stored pixel (x, y) is shown at (ax + cy, bx + dy).
    "upright": (1, 0, 0, 1),
    "mirrored": (-1, 0, 0, 1),
    "half turn": (-1, 0, 0, -1),
    "upside down mirrored": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "quarter turn right": (0, 1, -1, 0),
    "transversed": (0, -1, -1, 0),
    "quarter turn left": (0, -1, 1, 0),
}


def placed(stored: Image.Image, matrix: tuple[int, int, int, int]) -> Image.Image:
    """What a player shows, pixel by pixel and by the matrix itself."""
    a, b, c, d = matrix
    width, height = stored.size
    shown = Image.new("RGB", (width, height) if a else (height, width))
    left, top = min(0, a * (width - 1)) + min(0, c * (height - 1)), min(0, b * (width - 1)) + min(0, d * (height - 1))
    for y in range(height):
        for x in range(width):
            shown.putpixel((a * x + c * y - left, b * x + d * y - top), stored.getpixel((x, y)) or 0)
    return shown


def apart(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures' channels, after both are as large as the smaller."""
    size = min(one.size, other.size)
    pair = [picture.convert("RGB").resize(size, Image.Resampling.BOX).tobytes() for picture in (one, other)]
    return float(sum(abs(a - b) for a, b in zip(*pair, strict=True)) / len(pair[0]))


@pytest.mark.parametrize("name", MATRICES)
def test_video_preview_and_posters_are_turned_as_a_player_turns_the_source(
    name: str, tmp_path: Path, out: Path
) -> None:
    a, b, c, d = matrix = MATRICES[name]
    display = (a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    clip = make_clip(tmp_path / "clip.mov", MOV, size=(96, 64), frames=6, paint=quarters, matrix=display)

    made = render(clip, out)

    wanted = placed(Image.frombytes("RGB", (96, 64), quarters(0, 96, 64)), matrix)
    assert (made.width, made.height) == wanted.size
    frame = frames_of(made.renditions["video"].path)[0]
    assert frame.rotation == 0
    posters = rendering.render(made.poster.read_bytes()).renditions
    cut = {recipe.name for recipe in RECIPES if recipe.square or recipe.tallest}
    with Image.open(made.renditions["preview"].path) as preview:
        shown = {
            "video": frame.to_image(),  # type: ignore[no-untyped-call]
            "preview": preview.convert("RGB"),
            "poster.png": poster_of(made),
            **{poster.name: Image.open(BytesIO(poster.data)) for poster in posters if poster.name not in cut},
        }
    for what, picture in shown.items():
        assert picture.size == wanted.size, what
        assert apart(picture, wanted) < 6, what


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", size=(64, 48), frames=6, pixel_aspect=Fraction(4, 3))

    made = render(clip, out)

    assert (made.width, made.height) == (64, 36)
    assert not made.remuxed


def test_a_clip_in_the_target_format_is_copied_frame_by_frame(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", metadata={"title": "secret"})

    made = render(clip, out)

    assert made.remuxed
    before = [bytes(frame.planes[0]) for frame in frames_of(clip)]
    assert [bytes(frame.planes[0]) for frame in frames_of(made.renditions["video"].path)] == before


@pytest.mark.parametrize("kind", [MP4, AVI], ids=["copied", "encoded"])
def test_metadata_is_removed_from_every_rendition(kind: Kind, tmp_path: Path, out: Path) -> None:
    tags = {"location": POSITION, "comment": "secret", "title": "secret", "IGPS": POSITION}
    clip = make_clip(tmp_path / "clip", kind, metadata=tags, options={"x264-params": "opts=1"} if kind is MP4 else None)
    assert b"secret" in clip.read_bytes()

    made = render(clip, out)

    assert made.remuxed == (kind is MP4)
    for path in (made.poster, *(rendition.path for rendition in made.renditions.values())):
        content = path.read_bytes()
        assert b"secret" not in content
        assert POSITION.encode() not in content
    if made.remuxed:
        # libx264 signs its streams in such a note; a drone writes its position there.
        assert b"x264 - core" in clip.read_bytes()
        assert b"x264 - core" not in mp4_of(made)
        assert 6 in units(clip)
        assert set(units(made.renditions["video"].path)) <= {1, 5, 7, 8}


def test_no_unit_of_unknown_purpose_is_copied(tmp_path: Path, out: Path) -> None:
    clip = tmp_path / "clip.mp4"
    with av.open(str(make_clip(tmp_path / "plain.mp4", sound=None))) as plain_clip, av.open(str(clip), "w") as noted:
        stream = noted.add_stream_from_template(plain_clip.streams.video[0], opaque=True)
        for packet in plain_clip.demux(video=0):
            if packet.size:
                with_note = av.Packet(bytes(packet) + struct.pack(">I", 7) + b"\x1esecret")
                with_note.pts, with_note.dts, with_note.duration = packet.pts, packet.dts, packet.duration
                with_note.time_base, with_note.is_keyframe, with_note.stream = (
                    packet.time_base,
                    packet.is_keyframe,
                    stream,
                )
                noted.mux(with_note)
    assert clip.read_bytes().count(b"secret") == 24

    made = render(clip, out)

    assert made.remuxed
    assert b"secret" not in mp4_of(made)
    assert len(frames_of(made.renditions["video"].path)) == 24


def test_a_clip_of_too_many_bits_a_second_is_encoded_although_its_codecs_suit(tmp_path: Path, out: Path) -> None:
    noise = Image.effect_noise((192, 128), 200).convert("RGB").tobytes()

    def paint(number: int, width: int, height: int) -> bytes:
        return noise[number * 999 :] + noise[: number * 999]

    clip = make_clip(tmp_path / "clip.mp4", size=(192, 128), frames=30, paint=paint, options={"qp": "1"})
    assert clip.stat().st_size * 8 > 5_000_000 * 1.25

    made = render(clip, out)

    assert not made.remuxed
    assert made.renditions["video"].bytes < clip.stat().st_size / 2


def test_a_clip_without_sound_stays_without(tmp_path: Path, out: Path) -> None:
    made = render(make_clip(tmp_path / "clip.webm", WEBM, sound=None), out)

    with av.open(str(made.renditions["video"].path)) as container:
        assert not container.streams.audio


def test_picture_and_sound_stay_together(tmp_path: Path, out: Path) -> None:
    """Half a second of black and silence, then white and a tone: both must begin at the same time."""
    white, black = plain((255, 255, 255)), plain((0, 0, 0))
    clip = make_clip(
        tmp_path / "clip.avi",
        AVI,
        paint=lambda number, width, height: (white if number >= 12 else black)(number, width, height),
        sound=lambda seconds: math.sin(seconds * 440 * math.tau) / 2 if seconds >= 0.5 else 0.0,
    )

    made = render(clip, out)

    with av.open(str(made.renditions["video"].path)) as container:
        lit = min(frame.time for frame in container.decode(video=0) if max(bytes(frame.planes[0])) > 128)
    with av.open(str(made.renditions["video"].path)) as container:
        loud = min(
            (frame.time or 0.0)
            for frame in container.decode(audio=0)
            if max(memoryview(bytes(frame.planes[0])).cast("f")) > 0.2
        )
    assert lit == pytest.approx(0.5, abs=0.05)
    assert loud == pytest.approx(lit, abs=0.06)


def test_uneven_times_between_frames_are_kept(tmp_path: Path, out: Path) -> None:
    times = [0, 1, 2, 3, 10, 11, 20, 23]
    clip = make_clip(tmp_path / "clip.webm", WEBM, frames=8, times=times, sound=None)

    made = render(clip, out)

    shown = [round(frame.time * 24) for frame in frames_of(made.renditions["video"].path)]
    assert shown == times


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.suffix[1:])
def test_a_clip_whose_times_begin_late_is_whole(kind: Kind, tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip", kind, frames=24, times=range(240, 264), sound=None)

    made = render(clip, out)

    assert len(frames_of(made.renditions["video"].path)) == 24


@pytest.mark.parametrize("bf", [0, 2], ids=["in order", "B-frames"])
def test_the_last_frame_is_shown_as_long_as_in_the_source(bf: int, tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", CODED, frames=5, rate=25, sound=None, options={"bf": str(bf)})
    held = tmp_path / "held.mp4"
    with av.open(str(clip)) as source, av.open(str(held), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        last = max(packet.pts or 0 for packet in packets)
        for packet in packets:
            packet.duration = round(9 / packet.time_base) if packet.pts == last else packet.duration
            packet.stream = stream
            copy.mux(packet)

    made = render(held, out)

    assert not made.remuxed
    assert made.duration == pytest.approx(9.16)
    with av.open(str(made.renditions["video"].path)) as container:
        assert container.duration == pytest.approx(1_000_000 * made.duration, abs=1000)


@pytest.mark.parametrize("kind", [MP4, CODED], ids=["copied", "encoded"])
@pytest.mark.parametrize("start", [0.0, 1.0], ids=["cut at the end", "cut at the start"])
def test_sound_that_was_cut_away_is_not_published(start: float, kind: Kind, tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", kind, frames=72, options={"g": "1", "bf": "0"})
    content = bytearray(clip.read_bytes())
    at = content.index(b"mvhd") + 16
    second = int.from_bytes(content[at : at + 4])
    for track, ticks in ((content.index(b"elst"), 12_288), (content.rindex(b"elst"), 48_000)):
        content[track + 12 : track + 20] = struct.pack(">Ii", second, round(start * ticks))
    clip.write_bytes(content)

    made = render(clip, out)

    assert made.remuxed == (kind is MP4)
    assert made.duration == pytest.approx(1, abs=0.05)
    with av.open(str(made.renditions["video"].path), options={"ignore_editlist": "1"}) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) / 48_000 == pytest.approx(1, abs=0.1)


def test_slow_motion_of_120_frames_a_second_is_shown_at_60(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=60, rate=120, sound=None)

    made = render(clip, out)

    assert made.frame_rate == pytest.approx(120)
    assert len(frames_of(made.renditions["video"].path)) == 30


def test_the_poster_is_neither_black_nor_blurred(tmp_path: Path, out: Path) -> None:
    def paint(number: int, width: int, height: int) -> bytes:
        if number < 20:
            return plain((0, 0, 0))(number, width, height)
        sharp = Image.frombytes("RGB", (width, height), texture(0, width, height))
        if 40 <= number < 50:
            return sharp.tobytes()
        return sharp.resize((width // 16, height // 16)).resize((width, height)).tobytes()

    clip = make_clip(tmp_path / "clip.webm", WEBM, size=(128, 96), frames=80, rate=16, paint=paint, sound=None)

    made = render(clip, out)

    sharp = Image.frombytes("RGB", (128, 96), texture(0, 128, 96)).convert("L")
    poster = poster_of(made).convert("L")
    difference = sum(abs(a - b) for a, b in zip(sharp.tobytes(), poster.tobytes(), strict=True)) / (128 * 96)
    assert difference < 16
    with Image.open(made.renditions["preview"].path) as preview:
        preview.seek(1)
        assert max(preview.convert("L").tobytes()) > 64, "nor does the preview begin in the dark"


def test_a_clip_that_is_black_throughout_still_has_a_poster(tmp_path: Path, out: Path) -> None:
    made = render(make_clip(tmp_path / "clip.mp4", paint=plain((0, 0, 0))), out)

    assert poster_of(made).size == (64, 48)


def hdr_ramp(path: Path, codes: list[int], transfer: int) -> Path:
    """Vertical bars of grey, 32 pixels each, in HLG, BT.2020 and 10 bits."""
    size = 32 * len(codes), 64
    with av.open(str(path), "w", format="mov") as container:
        # Without B-frames: x265 leaves the decoding time of a lone frame that it may reorder undefined.
        options = {"preset": "ultrafast", "crf": "8", "x265-params": "log-level=none:bframes=0"}
        stream = container.add_stream("libx265", 24, options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, transfer, 1
        frame = grey_bars(codes, transfer)
        frame.pts, frame.time_base = 0, Fraction(1, 24)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def grey_bars(codes: list[int], transfer: int) -> av.VideoFrame:
    frame = av.VideoFrame(32 * len(codes), 64, "yuv420p10le")
    light, *colours = frame.planes
    row = b"".join(code.to_bytes(2, "little") * 32 for code in codes)
    light.update(row.ljust(light.line_size, b"\0") * 64)
    for plane in colours:
        plane.update((512).to_bytes(2, "little") * (plane.buffer_size // 2))
    frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = 9, 9, transfer, 1
    return frame


# BT.2408: a grey card at 38% has 26 cd/m2 of the 203 of reference white, in HLG and in PQ, and skin lies above.
RAMP = {HLG: [38, 50, 58, 60, 65, 70, 75, 80, 85, 90, 95], PQ: [38, 44, 48, 50, 55, 58, 60, 65, 70, 75, 80, 90, 99]}


def assert_rolled_off(seen: list[float], transfer: int) -> None:
    """Grey from 0 to 1 as a screen has it: darker tones as they were, and highlights that rise to the top."""
    assert all(later >= earlier for earlier, later in pairwise(seen)), seen
    assert all(later - earlier > 0.004 for earlier, later in pairwise(seen[:8])), seen
    assert seen[-1] > 0.96
    assert seen[0] == pytest.approx((26 / 203) ** (1 / 2.4), abs=0.03), seen
    for code, percent in list(zip(seen, RAMP[transfer], strict=True))[1:3]:
        untouched = pq_light(percent / 100) if transfer == PQ else 1000 * hlg_scene(percent / 100) ** 1.2
        assert code == pytest.approx((untouched / 203) ** (1 / 2.4), abs=0.035), seen


@pytest.mark.parametrize("transfer", [HLG, PQ], ids=["HLG", "PQ"])
def test_hdr_keeps_its_mid_tones_and_rolls_its_highlights_off(transfer: int) -> None:
    frame = grey_bars([round(64 + 876 * percent / 100) for percent in RAMP[transfer]], transfer)
    frame.pts, frame.time_base = 0, TICK
    upright = Upright((frame.width, frame.height), ())

    (shown,) = (*upright.push(frame), *upright.flush())

    row = bytes(shown.planes[0])[16 : frame.width : 32]
    assert_rolled_off([(luma - 16) / 219 for luma in row], transfer)


@pytest.mark.parametrize("transfer", [HLG, PQ], ids=["HLG", "PQ"])
def test_the_video_the_preview_and_the_poster_of_an_hdr_clip_look_alike(
    transfer: int, tmp_path: Path, out: Path
) -> None:
    codes = [round(64 + 876 * percent / 100) for percent in RAMP[transfer]]

    made = render(hdr_ramp(tmp_path / "hdr.mov", codes, transfer), out)

    frame = frames_of(made.renditions["video"].path)[0]
    assert frame.color_trc == 1
    poster = poster_of(made)
    with Image.open(made.renditions["preview"].path) as preview:
        views = [frame.to_image(), poster, preview.convert("RGB").resize(poster.size)]  # type: ignore[no-untyped-call]
    for view in views:
        seen = view.convert("L").tobytes()[32 * view.width :][16 : view.width : 32]
        assert_rolled_off([max(0, code - 1) / 255 + number / 1e4 for number, code in enumerate(seen)], transfer)


def test_the_same_clip_gives_the_same_bytes_under_the_same_address(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.webm", WEBM)
    again = tmp_path / "again"
    again.mkdir()

    first, second = render(clip, out), render(clip, again)

    assert first.content_hash == second.content_hash
    for path in out.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_progress_is_reported_in_rising_steps_of_a_minimum_size(tmp_path: Path, out: Path) -> None:
    heard: list[float] = []

    render(make_clip(tmp_path / "clip.webm", WEBM, frames=120, sound=None), out, on_progress=heard.append)

    assert heard == sorted(heard)
    assert len(heard) >= 10
    assert all(later - earlier >= PROGRESS_STEP - 1e-9 for earlier, later in pairwise([0, *heard]))
    assert heard[-1] <= 1


def test_an_error_raised_by_on_progress_stops_the_work(tmp_path: Path, out: Path) -> None:
    class Revoked(Exception):
        pass

    def revoke(fraction: float) -> None:
        raise Revoked

    with pytest.raises(Revoked):
        render(make_clip(tmp_path / "clip.webm", WEBM), out, on_progress=revoke)
    assert not list(out.iterdir())


def test_the_poster_is_a_picture_that_the_picture_pipeline_takes(tmp_path: Path, out: Path) -> None:
    made = render(make_clip(tmp_path / "clip.webm", WEBM, size=(200, 160), frames=6), out)

    rendered = rendering.render(made.poster.read_bytes())

    assert (rendered.width, rendered.height) == (200, 160)
    thumbnail = next(rendition for rendition in rendered.renditions if rendition.name == "thumbnail")
    assert Image.open(BytesIO(thumbnail.data)).size == (150, 150)


def test_a_cold_start_for_pictures_pays_nothing_for_video() -> None:
    code = "import video, sys; raise SystemExit('av' in sys.modules)"
    folders = f"{Path(video.__file__).parents[1]}:{Path(social.__file__).parents[1]}"

    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": folders}, check=False).returncode == 0


def test_a_clip_that_stays_dark_has_a_preview_that_moves(tmp_path: Path, out: Path) -> None:
    def paint(number: int, width: int, height: int) -> bytes:
        return bytes(value // 20 for value in texture(number, width, height))

    made = render(make_clip(tmp_path / "clip.webm", WEBM, paint=paint, sound=None), out)

    with Image.open(made.renditions["preview"].path) as preview:
        assert sum(_durations(preview)) >= 900


def _durations(animation: Image.Image) -> list[int]:
    shown = []
    for number in range(frame_count(animation)):
        animation.seek(number)
        animation.load()
        shown.append(round(animation.info["duration"]))
    return shown


def test_b_frames_in_an_avi_are_all_shown(tmp_path: Path, out: Path) -> None:
    kind = Kind(".avi", "avi", "libx264", "mp2")
    clip = make_clip(tmp_path / "clip.avi", kind, frames=48, sound=None, options={"preset": "fast", "bf": "3"})

    made = render(clip, out)

    frames = frames_of(made.renditions["video"].path)
    assert len(frames) == 48
    wanted = [bytes(frame.to_image().tobytes()) for frame in frames_of(clip)]  # type: ignore[no-untyped-call]
    for number in (0, 7, 20, 47):
        shown = frames[number].to_image().tobytes()  # type: ignore[no-untyped-call]
        assert sum(abs(a - b) for a, b in zip(shown, wanted[number], strict=True)) / len(shown) < 8


@pytest.mark.parametrize(("rate", "shown"), [(24, 24), (60, 60), (100, 60)])
def test_a_webm_whose_header_states_too_many_frames_a_second_is_judged_by_its_frames(
    rate: int, shown: int, tmp_path: Path, out: Path
) -> None:
    times = [round(1000 * number / rate) for number in range(rate)]
    clip = make_clip(tmp_path / "clip.webm", WEBM, frames=rate, rate=25, times=times, sound=None)
    content = clip.read_bytes()
    # DefaultDuration and TimestampScale, in nanoseconds: the latter makes milliseconds of the times.
    for name, value in ((b"\x23\xe3\x83\x84", 1_000_000), (b"\x2a\xd7\xb1\x83", 25_000)):
        at, size = content.index(name) + 4, name[3] & 15
        content = content[:at] + value.to_bytes(size) + content[at + size :]
    clip.write_bytes(content)
    with av.open(str(clip)) as container:
        assert container.streams.video[0].average_rate == 1000

    made = render(clip, out)

    assert made.frame_rate == pytest.approx(rate, rel=0.01)
    assert len(frames_of(made.renditions["video"].path)) == shown


def test_a_matroska_whose_subtitles_last_longer_than_its_pictures_is_whole(tmp_path: Path, out: Path) -> None:
    plain_clip = make_clip(tmp_path / "plain.mkv", Kind(".mkv", "matroska", "libx264", "aac"))
    (tmp_path / "lines.srt").write_text("1\n00:00:00,500 --> 00:00:09,000\nHello\n")
    clip = tmp_path / "clip.mkv"
    with (
        av.open(str(plain_clip)) as pictures,
        av.open(str(tmp_path / "lines.srt")) as lines,
        av.open(str(clip), "w") as both,
    ):
        for container in (pictures, lines):
            for stream in container.streams:
                both.add_stream_from_template(stream)
        for container, first in ((pictures, 0), (lines, len(pictures.streams))):
            for packet in container.demux():
                if packet.size:
                    packet.stream = both.streams[first + packet.stream.index]
                    both.mux(packet)

    made = render(clip, out)

    assert made.duration == pytest.approx(1, abs=0.05)


def test_slow_motion_whose_times_jitter_is_not_too_fast(tmp_path: Path, out: Path) -> None:
    """240 frames, of which the last comes a little late: 240.02 a second by the header, where its length is unknown."""
    times = [*range(0, 23_900, 100), 23_997]
    clip = make_clip(tmp_path / "clip.mp4", frames=240, rate=24_000, times=times, sound=None)
    with av.open(str(clip)) as container:
        assert 240 < (container.streams.video[0].average_rate or 0) < 240.1

    assert render(clip, out).frame_rate == pytest.approx(240, abs=1)


@pytest.mark.parametrize("rate", [90, 144, 240])
def test_no_clip_is_shown_at_more_than_sixty_frames_a_second(rate: int, tmp_path: Path, out: Path) -> None:
    made = render(make_clip(tmp_path / "clip.mp4", frames=rate, rate=rate, sound=None), out)

    assert len(frames_of(made.renditions["video"].path)) == 60


@pytest.mark.parametrize(
    ("kind", "heard"),
    [
        (Kind(".mov", "mov", "libx264", "pcm_s32le"), True),
        (Kind(".avi", "avi", "mpeg4", "adpcm_ima_wav"), True),
        (Kind(".mov", "mov", "libx264", "adpcm_ima_qt"), True),
        (Kind(".avi", "avi", "mpeg4", "adpcm_yamaha"), False),
    ],
    ids=lambda value: getattr(value, "audio", ""),
)
def test_unusual_sound_refuses_no_clip(kind: Kind, heard: bool, tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip", kind, options={"preset": "ultrafast"} if kind.video == "libx264" else None)

    made = render(clip, out)

    with av.open(str(made.renditions["video"].path)) as container:
        assert bool(container.streams.audio) == heard


CODED = Kind(".mp4", "mp4", "mpeg4", "aac")
"""As `MP4`, but not to be copied."""


def with_broken_sound(clip: Path, fifths: int) -> Path:
    """The clip with random bytes in the place of so many of every five packets of sound."""
    chance = random.Random(1)
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    for packet in [packet for number, packet in enumerate(packets) if number % 5 < fifths]:
        content[packet.pos or 0 : (packet.pos or 0) + packet.size] = chance.randbytes(packet.size)
    clip.write_bytes(content)
    return clip


@pytest.mark.parametrize("kind", [MP4, CODED], ids=["suits", "encoded"])
@pytest.mark.parametrize("frames", [24, 120], ids=["short", "long"])
@pytest.mark.parametrize("fifths", [3, 5])
def test_a_clip_of_whose_sound_most_cannot_be_decoded_has_none(
    fifths: int, frames: int, kind: Kind, tmp_path: Path, out: Path
) -> None:
    clip = with_broken_sound(make_clip(tmp_path / "clip.mp4", kind, frames=frames), fifths)

    made = render(clip, out)

    assert made.remuxed == (kind is MP4)
    assert made.duration == pytest.approx(frames / 24)
    with av.open(str(made.renditions["video"].path)) as container:
        assert not container.streams.audio
        assert sum(1 for _ in container.decode(video=0)) == frames


@pytest.mark.parametrize("kind", [MP4, CODED], ids=["suits", "encoded"])
def test_sound_of_which_some_cannot_be_decoded_stays_and_every_player_can_decode_it(
    kind: Kind, tmp_path: Path, out: Path
) -> None:
    clip = with_broken_sound(make_clip(tmp_path / "clip.mp4", kind, frames=48), fifths=1)

    made = render(clip, out)

    assert not made.remuxed
    with av.open(str(made.renditions["video"].path)) as container:
        heard = [
            sample
            for frame in container.decode(audio=0)
            for sample in memoryview(frame.planes[0]).cast("f")[: frame.samples]
        ]
    assert len(heard) / 48_000 == pytest.approx(2, abs=0.1)
    assert sum(abs(sample) > 0.2 for sample in heard) > len(heard) / 4


@pytest.mark.parametrize(("channels", "heard"), [(24, True), (32, False)])
def test_sound_of_more_channels_than_can_be_mixed_refuses_no_clip(
    channels: int, heard: bool, tmp_path: Path, out: Path
) -> None:
    clip, layout = tmp_path / "clip.mov", f"{channels} channels"
    with av.open(str(clip), "w") as made_of, av.open(str(make_clip(tmp_path / "mute.mov", MOV, sound=None))) as mute:
        picture = made_of.add_stream_from_template(mute.streams.video[0])
        voice = made_of.add_stream("pcm_s16le", 48_000)
        voice.codec_context.layout = layout
        for packet in mute.demux(video=0):
            if packet.size:
                packet.stream = picture
                made_of.mux(packet)
        frame = av.AudioFrame(format="s16", layout=layout, samples=48_000)
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
        made_of.mux([*voice.encode(frame), *voice.encode(None)])

    made = render(clip, out)

    with av.open(str(made.renditions["video"].path)) as container:
        assert bool(container.streams.audio) == heard


def test_a_clip_with_two_sample_descriptions_is_not_copied(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=48)
    content = clip.read_bytes()
    table = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
    content = with_box(content, (*table, b"stsd"), found(content, b"stsd")[16:])
    content = with_box(content, (*table, b"stsc"), struct.pack(">3I", 25, 1, 2))  # from the 25th frame on
    for name in (b"stsd", b"stsc"):
        counted = content.index(name) + 8
        content = content[:counted] + struct.pack(">I", 2) + content[counted + 4 :]
    clip.write_bytes(content)

    made = render(clip, out)

    assert not made.remuxed
    assert len(frames_of(made.renditions["video"].path)) == 48
    assert int.from_bytes(found(mp4_of(made), b"stsd")[12:16]) == 1


def test_an_interlaced_clip_that_suits_otherwise_is_not_copied(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", options={"x264-params": "tff=1:interlaced=1"}, sound=None)
    assert frames_of(clip)[0].interlaced_frame

    made = render(clip, out)

    assert not made.remuxed
    assert not frames_of(made.renditions["video"].path)[0].interlaced_frame


def test_a_poster_is_complete_although_the_disk_accepts_partial_writes(tmp_path: Path) -> None:
    class Stinting(FileIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data)[:100])

    poster, path = Poster(), tmp_path / "poster.png"
    with av.open(str(make_clip(tmp_path / "clip.mp4", frames=1))) as clip:
        frame = next(clip.decode(video=0))
    poster.offer(frame, luma_of(frame), 0.0)

    with Stinting(str(path), "wb") as file:
        poster.write(file)

    assert path.stat().st_size > 100
    with Image.open(path) as image:
        image.load()
