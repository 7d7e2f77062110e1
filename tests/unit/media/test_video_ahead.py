"""The thread that decodes ahead of the encoder: the same items in the same order, and no more of them than agreed."""

import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import av
import pytest

import video
from tests.support.clips import AVI, make_clip
from tests.support.patience import PATIENCE
from video.ahead import ahead


def test_the_items_are_made_in_one_other_thread_and_arrive_in_order() -> None:
    makers: set[int] = set()

    def numbers() -> Iterator[int]:
        for number in range(100):
            makers.add(threading.get_ident())
            yield number

    assert list(ahead(numbers(), 3)) == list(range(100))
    assert makers.isdisjoint({threading.get_ident()})
    assert len(makers) == 1


def test_an_error_comes_behind_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("the third")

    items = ahead(broken(), 8)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(LookupError, match="the third"):
        next(items)


def test_no_more_than_agreed_are_made_ahead() -> None:
    """One is in use, `most` wait, and one is held by the thread that cannot leave it."""
    made = 0
    blocked = threading.Event()

    def counted() -> Iterator[int]:
        nonlocal made
        for number in range(50):
            made = number + 1
            if made == 5:
                blocked.set()
            yield number

    with closing(ahead(counted(), 3)) as items:
        for used, _ in enumerate(items, start=1):
            if used == 1:
                assert blocked.wait(PATIENCE), "it makes as many as agreed"
            assert made <= used + 4


def test_a_reader_that_gives_up_ends_the_thread() -> None:
    before, ended = threading.active_count(), threading.Event()

    def endless() -> Generator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    source = endless()
    with closing(ahead(source, 2)) as items:
        next(items)
    source.close()

    assert threading.active_count() == before
    assert ended.is_set()


def test_the_same_clip_gives_the_same_packets_and_stills_twice(tmp_path: Path) -> None:
    """Except for some bytes of x264's, whose threads share what the ceiling of the bit rate leaves them."""
    clip = make_clip(tmp_path / "clip.avi", AVI, size=(160, 120), frames=48)
    made = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        rendered = video.render(clip, folder, seconds=600)
        assert not rendered.remuxed
        made.append((packets(folder / "video.mp4"), *((folder / file).read_bytes() for file in STILLS)))
    assert made[0] == made[1]


STILLS = ("preview.webp", "poster.png")


def packets(path: Path) -> list[tuple[object, ...]]:
    """The rendition's packets in their order: their times, and what is in those of sound."""
    with av.open(str(path)) as container:
        return [
            (packet.pts, packet.dts, packet.duration, bytes(packet) if packet.stream.type == "audio" else None)
            for packet in container.demux()
            if packet.size
        ]
