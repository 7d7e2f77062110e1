"""process_media_upload on S3 and DynamoDB: what is stored, what the post learns, and what is refused."""

import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from PIL import Image

import pictures.supervisor
import process_media_upload as module
import sandbox
from nexus.aws.sdk import client
from nexus.eager import Context
from nexus.errors import Reject, Retry
from nexus.settings import settings
from nexus.worker import handler
from sandbox import supervisor
from social import catalogue
from social.catalogue import ProcessMediaUpload
from social.data import posts
from social.refusals import sentence
from social.uploads import presigned_post
from tests.support.clips import WEBM, Kind, make_clip
from tests.unit.media.conftest import KEY, keys, media, picture, process, upload

pytestmark = pytest.mark.usefixtures("post")

SOUNDS = (b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ")


def remove(args: ProcessMediaUpload) -> None:
    boto3.client("s3").delete_object(Bucket=args.bucket, Key=args.key, VersionId=str(args.version_id))


def test_a_picture_becomes_renditions_under_immutable_keys_and_the_post_knows_them() -> None:
    report = process(upload(picture()))

    assert report.status == "ready"
    known = media()
    assert (known["status"], known["kind"], known["width"], known["height"]) == ("ready", "image", 900, 600)
    assert set(known["renditions"]) == {
        "thumbnail",
        "w320",
        "w640",
        "w1080",
        "full",
        "w1080_jpeg",
    }
    assert sorted({r["key"] for r in known["renditions"].values()}) == keys("media")
    for rendition in known["renditions"].values():
        stored = boto3.client("s3").get_object(Bucket=settings().bucket("media"), Key=rendition["key"])
        body = stored["Body"].read()
        assert Image.open(io.BytesIO(body)).size == (rendition["width"], rendition["height"])
        assert (stored["ContentType"], len(body)) == (rendition["content_type"], rendition["bytes"])
        assert "immutable" in stored["CacheControl"]


def test_renditions_of_the_same_bytes_are_one_object() -> None:
    process(upload(picture()))
    of = {name: rendition["key"] for name, rendition in media()["renditions"].items()}
    assert of["full"] == of["w1080"]  # neither is larger than the picture
    assert len(set(of.values())) == 5


def test_processing_an_upload_twice_writes_the_same_keys() -> None:
    process(upload(picture()))
    first = media()
    process(upload(picture(), order="0B"))
    assert media() | {"version": first["version"]} == first


def test_an_older_event_cannot_undo_a_newer_one() -> None:
    older, newer = upload(picture(300, 300), order="0A"), upload(picture(900, 600), order="0B")
    process(newer)

    report = process(older)

    assert report.status == "stale"
    assert media()["width"] == 900


def test_processing_on_demand_replaces_the_posts_picture() -> None:
    process(upload(picture(900, 600), order="0B"))
    report = process(upload(picture(300, 300), order=""))
    assert report.status == "ready"
    assert media()["width"] == 300


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(64), "raw"),
        *((b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mp42isom" + bytes(64), "sound") for brand in SOUNDS),
    ],
)
def test_a_file_that_only_begins_like_a_clip_is_refused_with_its_real_kind(body: bytes, code: str) -> None:
    assert process(upload(body)).status == "rejected"
    assert media()["code"] == code


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "empty"), (b"<html><script>alert(1)</script></html>", "html"), (picture()[:400], "truncated")],
)
def test_a_refused_upload_is_recorded_in_the_post_and_moved_to_quarantine(body: bytes, code: str) -> None:
    report = process(upload(body))

    assert report.status == "rejected"
    assert code in str(report.reason)
    assert media()["status"] == "rejected"
    assert media()["code"] == code
    assert media()["reason"] == sentence(code)
    assert keys("uploads") == [f"quarantine/{KEY}"]
    assert keys("media") == []


@pytest.mark.parametrize(
    ("broken", "value", "why"),
    [
        (supervisor, ("PRELOADED", ("a_library_that_the_layer_lacks",)), "server has ended"),
        (pictures.supervisor, ("WORKER", "a_module_that_is_not_there"), "ModuleNotFoundError"),
    ],
    ids=["the server dies", "the child fails"],
)
def test_a_fault_of_the_deployment_refuses_no_upload_and_a_retried_dead_letter_succeeds(
    broken: ModuleType, value: tuple[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.stop()
    args = upload(picture())
    with monkeypatch.context() as patch:
        patch.setattr(broken, *value)
        with pytest.raises(sandbox.Unavailable, match=why):
            process(args, last_attempt=True)
    post = posts.upload_target("p-1")
    assert post is not None
    assert post.media is None or post.media.status == "processing"
    assert keys("uploads") == [KEY]

    assert process(args, attempt=5, last_attempt=True).status == "ready"


def test_an_upload_whose_decoder_fails_each_time_is_refused_and_sets_off_no_alarm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise sandbox.Unfinished("the decoder ended with 1: AttributeError")

    monkeypatch.setattr(sandbox, "run", fail)
    args = upload(picture())
    with pytest.raises(Retry, match="AttributeError"):
        process(args)
    assert "AttributeError" in str(process(args, last_attempt=True).reason)
    assert media()["code"] == "decoder_crashed"


def test_an_upload_that_takes_too_long_is_tried_again_and_then_refused() -> None:
    late = module.RESERVE - 1
    args = upload(picture())
    with pytest.raises(Retry, match="stopped"):
        process(args, seconds=late)

    assert str(process(args, seconds=late, last_attempt=True).reason).startswith("too_slow: ")
    assert media()["code"] == "too_slow"
    assert keys("uploads") == [f"quarantine/{KEY}"]


def test_a_refused_object_whose_version_nobody_names_is_moved_too() -> None:
    """As in a task sent by hand: the bucket's version stays, and the key is deleted."""
    args = upload(b"no picture").model_copy(update={"version_id": None})
    assert process(args).status == "rejected"
    assert keys("uploads") == [f"quarantine/{KEY}"]


def test_a_refusal_done_again_after_a_crash_ends_the_same() -> None:
    args = upload(b"no picture")
    first, reported = process(args), media()
    again = process(args)
    assert (again.status, again.reason, media()) == ("rejected", first.reason, reported), "the version is still there"
    assert str(first.reason).startswith("unknown: ")
    assert keys("uploads") == [f"quarantine/{KEY}"]


def test_a_refused_upload_without_a_version_that_is_in_quarantine_by_now_keeps_its_reason() -> None:
    args = upload(b"no picture").model_copy(update={"version_id": None})
    process(args)
    again = process(args)
    assert (again.status, again.reason) == ("rejected", sentence("unknown"))


def test_a_refused_upload_is_hidden_and_kept() -> None:
    """The media role cannot remove a version, and an upload that came later under the name is not hidden with it."""
    s3 = boto3.client("s3")
    args = upload(b"no picture")
    process(args)
    assert args.version_id
    assert s3.get_object(Bucket=args.bucket, Key=KEY, VersionId=args.version_id)["Body"].read() == b"no picture"

    refused = upload(b"no picture either", order="0B")
    later = s3.put_object(Bucket=args.bucket, Key=KEY, Body=picture())["VersionId"]
    process(refused)
    assert s3.head_object(Bucket=args.bucket, Key=KEY)["VersionId"] == later


@pytest.mark.parametrize("last", [False, True])
def test_access_denied_is_retried_before_the_upload_counts_as_gone(last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3's answer about a missing object to a role that may not list, and about a right that was lost."""
    args = upload(picture())

    def forbidden(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "GetObject")

    for call in ("get_object", "copy_object"):
        monkeypatch.setattr(client("s3"), call, forbidden)
    if last:
        assert "removed" in str(process(args, last_attempt=last).reason)
    else:
        with pytest.raises(Retry, match="S3 returned 403"):
            process(args, last_attempt=last)


def test_a_refused_upload_that_may_not_be_moved_is_moved_by_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "CopyObject")

    args = upload(b"no picture")
    with monkeypatch.context() as patch:
        patch.setattr(client("s3"), "copy_object", forbidden)
        with pytest.raises(ClientError, match="AccessDenied"):
            process(args)
    assert keys("uploads") == [KEY]

    assert process(args).status == "rejected"
    assert keys("uploads") == [f"quarantine/{KEY}"]


def test_another_upload_of_the_same_name_that_is_gone_has_its_own_reason() -> None:
    process(upload(b"no picture", order="0A"))
    args = upload(picture(), order="0B")
    remove(args)
    process(args)
    assert "removed" in media()["reason"]


def test_a_refusal_names_what_a_text_file_is_however_long_its_first_line() -> None:
    prologue = b'<?xml version="1.0" encoding="UTF-8" standalone="no"?>' + b"<!-- made by a drawing program -->" * 9
    assert str(process(upload(prologue + b"<svg/>")).reason).startswith("svg: ")


def test_an_upload_over_the_byte_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICTURE_MAX_BYTES", "1000")
    report = process(upload(picture()))
    assert report.reason is not None
    assert "over the limit of 1000" in report.reason


def test_an_upload_removed_before_it_was_read_is_rejected_with_that_reason() -> None:
    args = upload(picture())
    remove(args)
    assert "removed" in str(process(args).reason)


def test_an_upload_to_a_post_that_does_not_exist_yet_is_tried_again() -> None:
    with pytest.raises(Retry, match="no post"):
        process(upload(picture(), key="uploads/u-1/p-2/a.jpg"))


def test_only_uploads_in_the_upload_bucket_are_read() -> None:
    with pytest.raises(Reject, match="not the upload bucket"):
        process(ProcessMediaUpload(bucket="another", key=KEY))
    with pytest.raises(Reject, match="does not begin with uploads/"):
        process(ProcessMediaUpload(bucket=settings().bucket("uploads"), key=f"quarantine/{KEY}"))


def test_a_clip_becomes_a_video_with_its_posters(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4")

    report = process(upload(clip.read_bytes(), key="uploads/u-1/p-1/clip.mp4"))

    assert report.status == "ready", report.reason
    assert {"video", "preview", "poster_thumbnail", "poster_w320"} <= set(media()["renditions"])
    assert media()["kind"] == "video"
    assert media()["duration"] > 0


def test_a_deployments_recipes_give_other_renditions_and_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip's posters follow, and have another address than those that are cached without an expiry."""
    args = upload(make_clip(tmp_path / "clip.mp4").read_bytes(), key="uploads/u-1/p-1/clip.mp4")
    process(args)
    usual = media()["renditions"]

    monkeypatch.setenv("RENDITIONS", "tile:32:square:jpeg,w320:320:avif")
    module.media_settings.cache_clear()
    process(args)
    clip = media()["renditions"]
    process(upload(picture(), order="0B"))

    assert set(clip) == {"video", "preview", "poster_tile", "poster_w320"}
    assert {each["key"] for each in clip.values()}.isdisjoint(each["key"] for each in usual.values())
    assert {name: each["content_type"] for name, each in media()["renditions"].items()} == {
        "tile": "image/jpeg",
        "w320": "image/avif",
    }


def reported(monkeypatch: pytest.MonkeyPatch) -> list[posts.Media]:
    """What is written to the post, and the number of its renditions that are stored by then."""
    heard: list[posts.Media] = []
    tell = posts.set_media

    def listen(post_id: str, media: posts.Media, order: str) -> posts.MediaOutcome:
        if media.status == "processing":
            assert not keys("media"), "nothing is stored before the post knows of it"
        heard.append(media)
        return tell(post_id, media, order)

    monkeypatch.setattr(posts, "set_media", listen)
    return heard


def test_a_post_knows_its_pictures_size_and_placeholder_before_its_renditions(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = reported(monkeypatch)

    process(upload(picture()))

    first, last = heard
    assert (first.status, first.kind, first.width, first.height) == ("processing", "image", 900, 600)
    assert (first.placeholder, first.colour, last.status) == (last.placeholder, last.colour, "ready")
    assert first.placeholder is not None


def test_a_post_knows_its_clips_size_and_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0.0)
    heard = reported(monkeypatch)
    kind = Kind(".mov", "mov", "libx264", "aac")
    clip = make_clip(tmp_path / "clip.mov", kind, frames=96, matrix=(0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))

    process(upload(clip.read_bytes(), key="uploads/u-1/p-1/clip.mov"))

    *before, last = heard
    assert {(each.status, each.kind, each.width, each.height) for each in before} == {("processing", "video", 48, 64)}
    shown = [each.progress for each in before]
    assert shown[0] == 0
    assert shown == sorted(shown, key=lambda percent: percent or 0)
    assert len(set(shown)) > 5
    assert (last.status, last.progress) == ("ready", None)


def test_a_clip_that_a_later_upload_replaces_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0.0)
    tell = posts.set_media

    def overtaken(post_id: str, media: posts.Media, order: str) -> posts.MediaOutcome:
        if media.progress:
            tell(post_id, posts.Media(status="processing"), "F" * 40)
        return tell(post_id, media, order)

    monkeypatch.setattr(posts, "set_media", overtaken)
    report = process(upload(make_clip(tmp_path / "clip.webm", WEBM).read_bytes(), key="uploads/u-1/p-1/clip.webm"))

    assert report.status == "stale"
    assert not keys("media")


def test_an_upload_to_a_post_that_is_deleted_meanwhile_stores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    target = posts.upload_target

    def deleted(post_id: str) -> posts.UploadTarget | None:
        found = target(post_id)
        posts.hide(post_id)
        return found

    args = upload(picture())
    monkeypatch.setattr(posts, "upload_target", deleted)
    with pytest.raises(Retry):
        process(args)
    assert not keys("media")


def test_an_upload_that_came_before_another_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = upload(picture(300, 300), order="0A"), upload(picture(900, 600), order="0B")
    process(newer)
    monkeypatch.setattr(sandbox, "run", lambda *_, **__: pytest.fail("it was decoded"))

    assert process(older).status == "stale"


def test_the_limits_of_pictures_are_not_those_of_a_clips_own_poster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICTURE_MAX_BYTES", "500")
    monkeypatch.setenv("PICTURE_MAX_PIXELS", "500")
    report = process(upload(make_clip(tmp_path / "clip.mp4").read_bytes(), key="uploads/u-1/p-1/clip.mp4"))
    assert report.status == "ready", report.reason


def test_an_s3_event_leads_to_a_ready_post(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_QUEUE", "media")
    settings.cache_clear()
    args = upload(picture())
    thing = {"key": "uploads/u-1/p-1/holiday+photo.jpg", "sequencer": "0A", "versionId": args.version_id}
    record = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": args.bucket}, "object": thing},
    }

    handler({"Records": [record]}, Context(seconds=60))

    assert media()["status"] == "ready"


def test_the_presigned_post_holds_the_upload_to_its_place_size_and_type() -> None:
    import base64

    post = presigned_post("u-1", "p-1", "a b.jpg", max_bytes=5_000_000)

    policy = json.loads(base64.b64decode(post.fields["policy"]))
    assert post.key == "uploads/u-1/p-1/a b.jpg"
    assert ["content-length-range", 1, 5_000_000] in policy["conditions"]
    assert {"key": "uploads/u-1/p-1/a b.jpg"} in policy["conditions"]
    assert ["starts-with", "$Content-Type", "image/"] in policy["conditions"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"user_id": "../x"}, "user_id"),
        ({"post_id": ""}, "post_id"),
        ({"file_name": "a/b.jpg"}, "file_name"),
        ({"file_name": "a\nb.jpg"}, "file_name"),
        ({"content_type": "text/html"}, "content_type"),
        ({"max_bytes": 0}, "max_bytes"),
    ],
)
def test_presigned_post_refuses_invalid_arguments(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        presigned_post(**{"user_id": "u", "post_id": "p", "file_name": "f.jpg", **arguments})


def test_limits_are_parameters_and_a_bad_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from nexus.errors import ConfigurationError

    monkeypatch.setenv("VIDEO_MAX_SECONDS", "long")
    with pytest.raises(ConfigurationError, match="VIDEO_MAX_SECONDS is 'long'"):
        module.media_settings()
    monkeypatch.delenv("VIDEO_MAX_SECONDS")
    monkeypatch.setenv("RENDITIONS", "hero:1600:round")
    with pytest.raises(ConfigurationError, match="RENDITIONS: hero: 'round' is not an option"):
        module.media_settings()
    assert catalogue.process_media_upload.time_limit < 300
