"""An attacker who holds an upload form: their uploads affect only their own post, and set off no alarm."""

import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote_plus

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from moto.s3.models import s3_backends
from PIL import Image

import process_media_upload as module
from nexus.definitions import RetryPolicy
from nexus.eager import Context
from nexus.errors import InvalidMessage
from nexus.settings import settings
from nexus.testing import memory_backend, run_task
from nexus.worker import handler
from process_media_upload import process_media_upload
from social import application
from social.catalogue import MediaReport, ProcessMediaUpload
from social.data import posts
from social.data.posts import Media
from social.uploads import UploadKey, presigned_post
from tests.support import moto_cloud
from tests.support.template import ACCOUNT


@pytest.fixture(autouse=True)
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with moto_cloud.deployment():
        monkeypatch.setenv("NEXUS_QUEUE", "media")
        module.media_settings.cache_clear()
        application.new_post("victim", "mine", post_id="theirs")
        application.new_post("mallory", "also mine", post_id="own")
        yield


def picture(width: int = 60, height: int = 40) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, "JPEG")
    return file.getvalue()


def put(key: str, body: bytes, order: str = "0A") -> ProcessMediaUpload:
    bucket = settings().bucket("uploads")
    answer = boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
    return ProcessMediaUpload(bucket=bucket, key=key, version_id=answer["VersionId"], event_order=order)


def process(args: ProcessMediaUpload, **run: Any) -> MediaReport:
    report: MediaReport = run_task(process_media_upload, args, **run)
    return report


def media(post_id: str) -> Media | None:
    post = posts.get(post_id, consistent=True)
    assert post is not None
    return post.media


def keys(prefix: str) -> list[str]:
    answer = boto3.client("s3").list_objects_v2(Bucket=settings().bucket("uploads"), Prefix=prefix)
    return [thing["Key"] for thing in answer.get("Contents", [])]


def content(args: ProcessMediaUpload) -> bytes:
    stored = boto3.client("s3").get_object(Bucket=args.bucket, Key=args.key, VersionId=str(args.version_id))
    body: bytes = stored["Body"].read()
    return body


@pytest.mark.parametrize("body", [picture(), b"no picture"], ids=["a picture", "no picture"])
def test_an_upload_to_another_users_post_changes_nothing_of_it(body: bytes) -> None:
    key = "uploads/mallory/theirs/a.jpg"

    report = process(put(key, body))

    assert (report.status, report.reason) == ("rejected", "post 'theirs' is not by user 'mallory'")
    assert media("theirs") is None
    assert keys("") == [f"quarantine/{key}"]


def test_a_forged_order_does_not_make_a_later_upload_stale() -> None:
    """Given a message with the highest order there can be, the picture that is uploaded after it still wins."""
    forged = put("uploads/victim/theirs/a.jpg", picture(30, 30), order="F" * 64)
    earlier_second(forged)
    process(forged)
    shown = media("theirs")
    assert shown is not None
    assert shown.width == 30

    assert process(put("uploads/victim/theirs/b.jpg", picture(60, 40), order="0A")).status == "ready"

    shown = media("theirs")
    assert shown is not None
    assert shown.width == 60


def earlier_second(args: ProcessMediaUpload) -> None:
    """Moves the upload a second into the past, where S3's time of it would be."""
    bucket = s3_backends[ACCOUNT]["aws"].buckets[args.bucket]
    for version in bucket.keys.getlist(args.key):
        version.last_modified -= timedelta(seconds=1)


def test_an_object_that_replaces_a_refused_one_while_it_is_read_is_not_quarantined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given a message without a version, and another object in the key's place by the time of the verdict."""
    key = "uploads/mallory/own/a.jpg"
    read = put(key, b"no picture").model_copy(update={"version_id": None})
    later: list[ProcessMediaUpload] = []
    make = module._make

    def replaced_meanwhile(*given: Any) -> Media:
        later.append(put(key, picture(), order="0B"))
        return make(*given)

    monkeypatch.setattr(module, "_make", replaced_meanwhile)
    assert process(read).status == "rejected"

    s3, bucket = boto3.client("s3"), settings().bucket("uploads")
    assert s3.get_object(Bucket=bucket, Key=f"quarantine/{key}")["Body"].read() == b"no picture"
    assert content(later[0]) == picture()
    assert keys("uploads/") == [key], "the later upload is kept"
    monkeypatch.undo()
    monkeypatch.setenv("NEXUS_QUEUE", "media")
    assert process(later[0]).status == "ready"


@pytest.mark.parametrize("name", ["x" * 1000, "\u00e9" * 500, "\U0001f600" * 250], ids=["ascii", "latin", "emoji"])
def test_a_key_of_any_length_has_a_place_in_quarantine(name: str) -> None:
    keys_taken = set()
    for key in (f"uploads/mallory/own/{name}", f"uploads/mallory/own/{name}1"):
        place = module.quarantine_key(key)
        assert len(place.encode()) <= 1024
        assert place.startswith("quarantine/uploads/mallory/own/")
        keys_taken.add(place)
    assert len(keys_taken) == 2
    longest = "uploads/mallory/own/"
    longest += name[0] * ((1024 - len(longest)) // len(name[0].encode()))
    assert process(put(longest, b"no picture")).status == "rejected"
    assert keys("") == [module.quarantine_key(longest)]


def test_an_upload_whose_post_never_comes_ends_in_quarantine_and_not_among_the_dead_letters() -> None:
    args = put("uploads/mallory/nowhere/a.jpg", picture())

    report = process(args, attempt=4, last_attempt=True)

    assert (report.status, report.reason) == ("rejected", "there is no post 'nowhere'")
    assert keys("") == [f"quarantine/{args.key}"]


def test_an_upload_that_was_deleted_leaves_the_posts_picture() -> None:
    old = put("uploads/victim/theirs/old.jpg", picture())
    process(put("uploads/victim/theirs/new.jpg", picture()))
    boto3.client("s3").delete_object(Bucket=old.bucket, Key=old.key, VersionId=str(old.version_id))

    assert "removed" in str(process(old).reason)

    shown = media("theirs")
    assert shown is not None
    assert shown.status == "ready"


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).map(lambda name: name or "x")
KEYS = st.one_of(
    NAMES.map(lambda name: f"uploads/mallory/own/{name}"),
    NAMES.map(lambda name: f"uploads/{name}"),
    st.sampled_from(["uploads/", "uploads//", "uploads///", "uploads/a/", "uploads/a//b", "uploads/../own/a.jpg"]),
    st.lists(st.sampled_from(["mallory", "own", "theirs", "..", "", "%2f", "${filename}", "\u202e"]), max_size=6).map(
        lambda parts: "uploads/" + "/".join(parts)
    ),
)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"", picture()[:200], b"GIF89a" + b"\xff" * 60, b"\x00\x00\x00\x18ftypmp42" + b"\xff" * 60]),
)


@examples(max_examples=60)
@given(KEYS, BODIES)
def test_an_upload_of_any_content_and_name_leaves_no_dead_letter(key: str, body: bytes) -> None:
    """By S3's own event, on its last attempt: it ends as a result, and the media's alarms hear nothing."""
    try:
        args = put(key, body)
    except ClientError:
        return  # no key that S3 takes
    thing = {"key": quote_plus(key, safe="/"), "sequencer": "0A", "versionId": args.version_id}
    record = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": args.bucket}, "object": thing},
    }
    with memory_backend() as sent, pytest.MonkeyPatch.context() as patch:
        patch.setattr("nexus.worker.execution.Readable.policy", lambda *_: RetryPolicy(max_retries=0))
        handler({"Records": [record]}, Context(seconds=60))
        assert not sent.dead_letters
        assert [item["status"] for item in sent.store.items.values()] == ["SUCCESS"]
    assert media("theirs") is None


@pytest.mark.parametrize("name", ["${filename}", "a${filename}", "${filename}.jpg"])
def test_no_form_lets_s3_choose_the_key(name: str) -> None:
    with pytest.raises(ValueError, match="file_name is"):
        presigned_post("mallory", "own", name)
    with pytest.raises(InvalidMessage):
        UploadKey.parse("uploads/mallory/own/")
