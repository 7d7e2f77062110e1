"""Renditions are stored while the next are made, and `ready` follows them all, whatever dies, fails or is slow."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import pictures
import process_media_upload as module
from nexus.testing import SandboxDied
from social.data import posts
from social.refusals import Code, Rejected
from tests.support.patience import PATIENCE, eventually
from tests.support.sandboxes import requests
from tests.support.stills import COLOURS, reel
from tests.unit.media.conftest import keys, media, picture, process, upload

pytestmark = pytest.mark.usefixtures("post")

MADE = len(pictures.Recipes().stills)
STORED = 4
"""The objects of a picture as small as these: those of the same bytes are one."""
REQUESTS = STORED + 4
"""The post is read, the upload opened, the post updated twice, and each object put."""


def status() -> str | None:
    post = posts.get("p-1", consistent=True)
    assert post is not None
    return post.media.status if post.media else None


@contextmanager
def dying_at(number: int) -> Iterator[list[str]]:
    """The sandbox dies before its request `number`, and so does whatever else it has under way by then."""
    made: list[str] = []
    counting = threading.Lock()

    def before(operation: str) -> None:
        with counting:
            if len(made) >= number:
                raise SandboxDied(operation)
            made.append(operation)

    with requests(before):
        yield made


@pytest.mark.simulation
@pytest.mark.parametrize("number", range(REQUESTS))
def test_a_sandbox_may_die_at_any_request(number: int) -> None:
    args = upload(picture(300, 200))
    with dying_at(number) as made, pytest.raises(SandboxDied):
        process(args)
    assert len(made) == number
    assert status() in ((None,) if number < 3 else (None, "processing")), "ready is the last request"

    assert process(args).status == "ready"

    assert len(media()["renditions"]) == MADE
    assert {each["key"] for each in media()["renditions"].values()} <= set(keys("media"))


def test_an_upload_makes_these_requests_in_this_order() -> None:
    args = upload(picture(300, 200))
    with dying_at(1000) as made:
        process(args)
    assert len(made) == REQUESTS
    assert sorted(made[:2]) == ["GetItem", "GetObject"]
    assert made[2:] == ["UpdateItem", *["PutObject"] * STORED, "UpdateItem"]


Render = Callable[..., pictures.Published]


def rendering(monkeypatch: pytest.MonkeyPatch, then: Callable[[Render], Any]) -> None:
    """Replaces the making of a picture by `then`, which is given the real one with its source and folder."""
    real = pictures.render

    def render(*args: Any, **options: Any) -> Any:
        def with_callbacks(**changed: Any) -> pictures.Published:
            return real(*args, **{**options, **{name: wrap(options[name]) for name, wrap in changed.items()}})

        return then(with_callbacks)

    monkeypatch.setattr(pictures, "render", render)


def test_a_rendition_is_stored_while_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def then(render: Render) -> pictures.Published:
        def watch(put: Callable[..., None]) -> Callable[..., None]:
            def taken(content_hash: str, name: str, made: Any) -> None:
                put(content_hash, name, made)
                begun.add(made.path.read_bytes())
                eventually(lambda: len(keys("media")) == len(begun), every=0.01)

            return taken

        return render(on_made=watch)

    begun: set[bytes] = set()
    rendering(monkeypatch, then)
    assert process(upload(picture(300, 200))).status == "ready"
    assert len(begun) == STORED


def test_nothing_is_stored_before_the_post_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    tell, made_all = posts.set_media, threading.Event()
    stored_by_then: list[list[str]] = []

    def slow(post_id: str, media: posts.Media, order: str) -> posts.MediaOutcome:
        if media.status == "processing":
            assert made_all.wait(PATIENCE), "the work does not wait for this write"
            stored_by_then.append(keys("media"))
        return tell(post_id, media, order)

    def then(render: Render) -> pictures.Published:
        made = render()
        made_all.set()
        return made

    monkeypatch.setattr(posts, "set_media", slow)
    rendering(monkeypatch, then)
    assert process(upload(picture(300, 200))).status == "ready"
    assert stored_by_then == [[]]
    assert status() == "ready"


def test_a_late_write_does_not_undo_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture turns out to be broken while the post is still being marked as processing."""
    tell, refusing, reported = posts.set_media, threading.Event(), threading.Event()

    def slow(post_id: str, media: posts.Media, order: str) -> posts.MediaOutcome:
        if media.status == "processing":
            assert refusing.wait(PATIENCE)
            reported.wait(0.5)  # it would be set if the refusal did not wait for this write
        else:
            reported.set()
        return tell(post_id, media, order)

    def then(render: Render) -> pictures.Published:
        render()
        refusing.set()
        raise Rejected(Code.DAMAGED, "its second half is noise")

    monkeypatch.setattr(posts, "set_media", slow)
    rendering(monkeypatch, then)
    assert process(upload(picture(300, 200))).status == "rejected"
    assert (status(), media()["code"]) == ("rejected", "damaged")


@pytest.mark.parametrize("renditions", [1, MADE])
def test_a_post_that_has_a_later_upload_gets_nothing(renditions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noticed at the latest when all is made; what the later upload has written stays."""
    tell = posts.set_media

    def overtaken(post_id: str, media: posts.Media, order: str) -> posts.MediaOutcome:
        tell(post_id, posts.Media(status="processing"), "F" * 40)
        return tell(post_id, media, order)

    monkeypatch.setattr(posts, "set_media", overtaken)
    recipes = ",".join(f"r{number}:{20 + number}" for number in range(renditions))
    monkeypatch.setenv("RENDITIONS", recipes)
    module.media_settings.cache_clear()
    assert process(upload(picture(300, 200))).status == "stale"
    assert keys("media") == []
    assert status() == "processing"


def test_a_rendition_that_cannot_be_stored_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    args = upload(picture(300, 200))

    def fail(operation: str) -> None:
        if operation == "PutObject":
            raise ConnectionError("S3 does not respond")

    with requests(fail), pytest.raises(ConnectionError):
        process(args)
    assert status() == "processing"
    assert process(args).status == "ready"


def test_a_rendition_of_an_animation_is_stored_once_all_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken animation becomes a still, whose renditions have the same keys and may show something else."""
    order: list[str] = []

    def then(render: Render) -> pictures.Published:
        def watch(put: Callable[..., None]) -> Callable[..., None]:
            def taken(content_hash: str, name: str, made: Any) -> None:
                order.append(name)
                put(content_hash, name, made)

            return taken

        return render(on_made=watch)

    rendering(monkeypatch, then)
    assert process(upload(reel("PNG", COLOURS, (100,) * len(COLOURS)))).status == "ready"
    assert order == [*(recipe.name for recipe in pictures.Recipes().stills), "animated"]
