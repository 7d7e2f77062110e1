"""`nexus upload`: which files it refuses, and what it shows of a run's pictures."""

import urllib.error
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest

from nexus.runs.record import RunRecord
from ops import audit
from ops.problems import ExitCode, Problem
from ops.social import upload
from ops.social.upload import Upload
from social import application
from social.data import posts

pytestmark = pytest.mark.usefixtures("cloud")


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(audit, "begin", lambda: None)
    file = tmp_path / "alps.jpg"
    file.write_bytes(b"x" * 100)
    return file


def test_a_file_that_the_form_does_not_take_is_refused_before_anything_is_written(
    picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Problem) as raised:
        upload.send(picture, "not/a/name")
    assert raised.value.code == ExitCode.USAGE
    monkeypatch.setattr(upload, "MAX_BYTES", 99)
    with pytest.raises(Problem, match=r"alps\.jpg is larger than 0 MiB"):
        upload.send(picture, "ada", "p-1")
    assert posts.get("p-1") is None


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (urllib.error.URLError("no route"), "no route"),
        (RemoteDisconnected("closed without a response"), "closed without a response"),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_an_unreachable_s3_is_reported(
    error: Exception, why: str, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(Problem, match="S3 does not respond") as raised:
        upload.send(picture, "ada", "p-1")
    assert (raised.value.why, raised.value.code) == (why, ExitCode.UNREACHABLE)


def test_an_upload_that_is_not_processed_in_time_has_no_media(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    moments = iter((0.0, 5.0, 11.0))
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr(upload, "ended", lambda _: {})
    assert upload.settled(Upload("ada", "p-1", "uploads/ada/p-1/alps.jpg", ""), 10.0) is None
    assert slept == [upload.POLL]


def test_a_run_whose_post_shows_another_upload_has_no_pictures() -> None:
    application.register("ada@example.com", "Ada", user_id="ada")
    application.new_post("ada", "alps", post_id="p-1")
    for args in (None, {"key": "rubbish"}, {"key": "uploads/ada/p-1/alps.jpg"}, {"key": "uploads/ada/p-2/alps.jpg"}):
        assert upload.pictures(RunRecord("r", "SUCCESS", args=args)) == []
