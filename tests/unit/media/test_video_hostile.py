"""No clip takes more than its share, reaches beyond its own bytes or leaves a trace."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sandbox
import video
from colours.light import HLG
from sandbox import OutOfTime, Unfinished
from social.refusals import Rejected
from tests.support.clips import AVI, KINDS, MP4, WEBM, Kind, Paint, make_clip, plain, sound_only
from tests.unit.media.conftest import Clock
from video import Limits
from video.film import CLOCK, Upright


def refusal(clip: Path, out: Path, limits: Limits | None = None, *, seconds: float = 600) -> Rejected:
    """Renders a clip that must be refused, and that must leave nothing behind."""
    with pytest.raises(Rejected) as refused:
        video.render(clip, out, seconds=seconds, limits=limits)
    assert not list(out.iterdir())
    return refused.value


# What is refused by its content, before any decoder sees it.


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        b"<!doctype html><video src=http://169.254.169.254/>",
        b"\x89PNG\r\n\x1a\n",
    ],
    ids=["hls", "concat", "sdp", "html", "png"],
)
def test_a_playlist_named_mp4_is_refused(content: bytes, tmp_path: Path, out: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(content)

    assert refusal(clip, out).code == "unknown"


def test_a_playlist_that_begins_like_an_mp4_is_refused_and_opens_nothing(tmp_path: Path, out: Path) -> None:
    """The demuxer is given and never guessed, so that what follows cannot choose another."""
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isom" + b"\n#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n" * 20)

    assert refusal(clip, out).code == "damaged"


def test_an_empty_file_and_one_over_the_limit_of_bytes_are_refused(tmp_path: Path, out: Path) -> None:
    empty, large = tmp_path / "empty.mp4", make_clip(tmp_path / "large.mp4")
    empty.touch()

    assert refusal(empty, out).code == "empty"
    refused = refusal(large, out, Limits(bytes=1000))
    assert refused.code == "too_many_bytes"
    assert "1000" in refused.detail


# What is refused by its header.


def test_sound_without_pictures_is_refused(tmp_path: Path, out: Path) -> None:
    assert refusal(sound_only(tmp_path / "clip.mp4"), out).code == "no_video"


def test_a_clip_declared_too_long_is_refused_with_both_lengths(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=3, times=[0, 24, 24 * 400])

    refused = refusal(clip, out)

    assert refused.code == "too_long"
    assert "400" in refused.detail
    assert "300" in refused.reason


def test_too_many_pixels_in_a_frame_are_refused(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.avi", AVI, size=(320, 240), frames=2)

    refused = refusal(clip, out, Limits(pixels=320 * 239))

    assert refused.code == "too_many_pixels"
    assert "320x240" in refused.detail
    assert refusal(clip, out, Limits(pixels=320)).code == "too_many_pixels"


def test_too_many_pixels_in_all_frames_are_refused(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=48)

    assert refusal(clip, out, Limits(work=64 * 48 * 40)).code == "too_much_work"


WORK = Limits(work=24 * 64 * 48 * 3)
"""What 24 frames of 64 x 48 just keep."""
LIVE = {"live": "1"}
"""A WebM that does not say how long it lasts."""


@pytest.mark.parametrize(
    "dear",
    [
        {"transfer": HLG},
        {"transfer": HLG, "kind": WEBM, "muxer_options": LIVE},
        {"options": {"x264-params": "tff=1:interlaced=1"}},
    ],
    ids=["HDR by its header", "HDR by its frames", "interlaced"],
)
def test_a_clip_that_is_expensive_to_decode_is_refused_at_a_lower_length(
    dear: dict[str, Any], tmp_path: Path, out: Path
) -> None:
    usual = {name: value for name, value in dear.items() if name not in ("transfer", "options")}

    assert refusal(make_clip(tmp_path / "dear", sound=None, **dear), out, WORK).code == "too_much_work"
    made = video.render(make_clip(tmp_path / "usual", sound=None, **usual), out, seconds=600, limits=WORK)
    assert made.duration > 0.9


def test_a_clip_too_small_to_be_seen_is_refused(tmp_path: Path, out: Path) -> None:
    assert refusal(make_clip(tmp_path / "clip.avi", AVI, size=(64, 8)), out).code == "too_small"


def test_many_streams_are_refused(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=2, rate=2, more_sounds=20)

    assert refusal(clip, out).code == "too_many_streams"


def test_thousands_of_streams_are_refused(tmp_path: Path, out: Path) -> None:
    """An MP4 whose index is one track repeated 5,000 times."""
    content = make_clip(tmp_path / "clip.mp4", frames=2, sound=None).read_bytes()
    start = content.index(b"trak") - 4
    track = content[start : start + int.from_bytes(content[start : start + 4])]
    moov = content.index(b"moov") - 4
    size = int.from_bytes(content[moov : moov + 4]) + 5000 * len(track)
    bomb = tmp_path / "bomb.mp4"
    bomb.write_bytes(content[:moov] + size.to_bytes(4) + content[moov + 4 : start] + 5000 * track + content[start:])

    assert refusal(bomb, out).code == "too_many_streams"


# What only shows while it is read.


def test_a_length_that_the_header_does_not_state_is_measured(tmp_path: Path, out: Path) -> None:
    clip = make_clip(
        tmp_path / "clip.webm", WEBM, frames=3, times=[0, 24, 24 * 400], sound=None, muxer_options={"live": "1"}
    )
    with av.open(str(clip)) as container:
        assert container.duration is None

    assert refusal(clip, out).code == "too_long"


def test_a_clip_shorter_than_its_header_states_is_refused(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.webm", WEBM, sound=None)
    content = clip.read_bytes()
    # The Duration element (ID 0x4489) is a double of milliseconds: from 1000 to 200000.
    place = content.index(b"\x44\x89\x88") + 3
    clip.write_bytes(content[:place] + bytes.fromhex("41086a0000000000") + content[place + 8 :])

    assert refusal(clip, out).code == "truncated"


@pytest.mark.parametrize("kind", [MP4, WEBM], ids=["mp4", "webm"])
def test_a_clip_of_very_many_tiny_frames_is_refused(kind: Kind, tmp_path: Path, out: Path) -> None:
    """A thousand frames in a second and a third, a few bytes each."""
    clip = make_clip(tmp_path / "clip", kind, size=(16, 16), frames=1000, rate=750, sound=None)

    assert refusal(clip, out).code == "frame_rate_too_high"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.suffix[1:])
@pytest.mark.parametrize("part", [0.3, 0.6])
def test_a_truncated_clip_is_refused(kind: Kind, part: float, tmp_path: Path, out: Path) -> None:
    faststart = {"movflags": "+faststart"} if kind.muxer in {"mp4", "mov"} else None
    clip = make_clip(tmp_path / "clip", kind, frames=48, muxer_options=faststart)
    content = clip.read_bytes()
    clip.write_bytes(content[: int(part * len(content))])

    assert refusal(clip, out).code in {"truncated", "damaged"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.suffix[1:])
def test_a_clip_that_lacks_its_last_byte_is_called_cut_short(kind: Kind, tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip", kind, frames=48)
    clip.write_bytes(clip.read_bytes()[:-1])

    assert refusal(clip, out).code == "truncated"


@pytest.mark.parametrize("part", [0.002, 0.01, 0.1])
def test_a_recording_that_does_not_say_how_long_it_is_and_is_cut_is_called_so(
    part: float, tmp_path: Path, out: Path
) -> None:
    """As browsers record: neither the file nor its clusters have a size. Frames within them do."""
    clip = make_clip(tmp_path / "clip.webm", WEBM, frames=96, muxer_options=LIVE)
    whole = clip.read_bytes()
    cluster = b"\x1f\x43\xb6\x75"
    for at in [at for at in range(len(whole)) if whole[at : at + 4] == cluster]:
        length = 9 - whole[at + 4].bit_length()
        unknown = (1 << 7 * length) - 1 | 1 << 7 * length
        whole = whole[: at + 4] + unknown.to_bytes(length) + whole[at + 4 + length :]
    clip.write_bytes(whole)
    assert video.render(clip, out, seconds=600).duration == pytest.approx(4, abs=0.1)
    for path in out.iterdir():
        path.unlink()

    clip.write_bytes(whole[: -max(1, round(part * len(whole)))])
    assert refusal(clip, out).code == "truncated"


def test_an_mp4_without_its_index_at_the_end_is_refused(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    content = clip.read_bytes()
    clip.write_bytes(content[: content.index(b"moov") - 4])

    assert refusal(clip, out).code == "damaged"  # nothing says that there should be more


def test_a_clip_with_no_frame_is_refused(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.avi", AVI, sound=None)
    content = bytearray(clip.read_bytes())
    start, end = content.index(b"movi") + 4, content.index(b"idx1")
    content[start:end] = bytes(end - start)
    clip.write_bytes(content)

    assert refusal(clip, out).code in {"damaged", "truncated"}


def test_frames_of_noise_instead_of_video_are_refused(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.webm", WEBM, sound=None)
    content = bytearray(clip.read_bytes())
    start = content.index(b"\x1f\x43\xb6\x75") + 40  # inside the first Cluster
    content[start:] = bytes(value ^ 0x5A for value in content[start:])
    clip.write_bytes(content)

    assert refusal(clip, out).code in {"damaged", "truncated"}


def test_a_clip_that_needs_too_much_memory_is_refused(tmp_path: Path, out: Path) -> None:
    clip = make_clip(tmp_path / "clip.avi", AVI, size=(1600, 1200), frames=3, rate=3, sound=None)

    assert refusal(clip, out, Limits(memory=64 << 20)).code in {"too_much_memory", "decoder_crashed"}


def test_an_output_over_its_limit_is_refused(tmp_path: Path, out: Path) -> None:
    assert refusal(make_clip(tmp_path / "clip.webm", WEBM), out, Limits(output_bytes=2000)).code == "output_too_large"


def test_frames_that_change_their_size_halfway_come_out_in_one(tmp_path: Path) -> None:
    upright = Upright((64, 48), ())

    sizes = []
    for number, size in enumerate([(64, 48), (128, 96), (32, 200), (64, 48)]):
        frame = av.VideoFrame(*size, "yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, CLOCK)
        sizes += [(made.width, made.height, made.pts) for made in upright.push(frame)]
    sizes += [(made.width, made.height, made.pts) for made in upright.flush()]

    assert sizes == [(64, 48, 0), (64, 48, 1), (64, 48, 2), (64, 48, 3)]


def test_a_clip_that_becomes_interlaced_is_deinterlaced_from_then_on(tmp_path: Path) -> None:
    def frames(name: str, paint: Paint, options: dict[str, str]) -> list[av.VideoFrame]:
        clip = make_clip(tmp_path / name, MP4, frames=6, paint=paint, options=options, sound=None)
        with av.open(str(clip)) as container:
            return list(container.decode(video=0))

    def woven(number: int, width: int, height: int) -> bytes:
        """A white bar, two pixels further in each field."""
        moments = (max(0, 4 * number + 2 * (row % 2)) for row in range(height))
        return b"".join((bytes(3 * at) + b"\xc8" * 24).ljust(3 * width, b"\0") for at in moments)

    upright = Upright((64, 48), ())
    made: list[av.VideoFrame] = []
    film = frames("whole.mp4", plain((0, 0, 0)), {}) + frames("woven.mp4", woven, {"x264-params": "tff=1:interlaced=1"})
    for number, frame in enumerate(film):
        frame.pts, frame.time_base = 3600 * number, Fraction(1, CLOCK)
        made += upright.push(frame)
    made += upright.flush()

    assert [frame.pts for frame in made] == [3600 * number for number in range(12)]
    rows = [bytes(made[9].planes[0])[at * made[9].planes[0].line_size :][:64] for at in (20, 21, 22)]
    assert max(abs(a - b) for above, below in pairwise(rows) for a, b in zip(above, below, strict=True)) < 60


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("seeds")
    return [make_clip(folder / f"seed{kind.suffix}", kind, size=(32, 32), frames=8) for kind in KINDS]


@settings(max_examples=30)
@given(
    seed=st.integers(0, len(KINDS) - 1),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=30),
)
def test_a_damaged_clip_is_rendered_or_refused_and_never_fails_otherwise(
    seed: int, damage: list[tuple[float, int]], seeds: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(seeds[seed].read_bytes())
    for place, value in damage:
        content[int(place * len(content))] = value
    folder = tmp_path_factory.mktemp("damaged")
    clip, out = folder / "clip", folder / "out"
    clip.write_bytes(content)
    out.mkdir()

    try:
        made = video.render(clip, out, seconds=600)
    except Rejected:
        assert not list(out.iterdir())
    else:
        assert made.renditions["video"].bytes > 0


# The process that it happens in: tests/unit/media/test_sandbox.py has the rest.


def test_a_clip_is_stopped_at_the_deadline_while_it_encodes(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "clip.webm", WEBM, frames=96, sound=None)

    with pytest.raises(OutOfTime):
        video.render(clip, out, seconds=600, on_progress=Clock(monkeypatch).expire)
    assert not list(out.iterdir())


SIZES = {"video": [2, 2], "preview": [2, 2]}
MADE: dict[str, Any] = {
    "width": 2,
    "height": 2,
    "duration": 1.0,
    "frame_rate": 1.0,
    "remuxed": False,
    "renditions": SIZES,
}


def lying(files: dict[int, bytes], said: dict[str, Any], known: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """A sandbox whose child was taken over: it writes what it likes, and says what it likes."""

    def run(_: str, __: object, opened: Sequence[BinaryIO], **options: Any) -> dict[str, Any]:
        if known:
            options["on_known"](known)
        options["on_progress"](0.5)
        for number, content in files.items():
            opened[number].write(content)
            opened[number].flush()
        return said

    return run


KNOWN = {"width": 2, "height": 2}
MP4_HEAD, WEBP_HEAD, PNG_HEAD = b"\0\0\0\x18ftypisom", b"RIFF\0\0\0\0WEBPVP8 ", b"\x89PNG\r\n\x1a\n"
GOOD = {1: MP4_HEAD, 3: WEBP_HEAD, 4: PNG_HEAD}


@pytest.mark.parametrize(
    ("files", "reported"),
    [
        ({}, {}),
        (GOOD | {1: b"<!doctype html>"}, {}),
        (GOOD | {3: b"<script>"}, {}),
        (GOOD | {4: b"<svg/>"}, {}),
        (GOOD, {"said": {}}),
        (GOOD, {"said": MADE | {"duration": float("nan")}}),
        (GOOD, {"said": MADE | {"width": float("inf")}}),
        (GOOD, {"said": MADE | {"renditions": SIZES | {"../page": [1, 1]}}}),
        (GOOD, {"said": MADE | {"more": 1}}),
        (GOOD, {"known": {}}),
        (GOOD, {"known": {"width": 2}}),
        (GOOD, {"known": {"width": 2, "height": "2"}}),
        (GOOD, {"known": {"width": 2, "height": 0}}),
    ],
    ids=str,
)
def test_a_decoder_that_misreports_a_clip_is_refused(
    files: dict[int, bytes], reported: dict[str, Any], tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=2, sound=None)
    monkeypatch.setattr(sandbox, "run", lying(GOOD, MADE, KNOWN))
    assert video.render(clip, tmp_path, seconds=600).width == 2, "what is right is believed"

    monkeypatch.setattr(sandbox, "run", lying(files, **{"said": MADE, "known": KNOWN, **reported}))
    with pytest.raises(Unfinished):
        video.render(clip, out, seconds=600)
    assert not list(out.iterdir())
