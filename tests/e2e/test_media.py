"""The main job, end to end: an S3 put becomes renditions, the post is updated, and no failure is lost."""

import io
import urllib.request
import uuid
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import boto3
import pytest
from PIL import Image
from urllib3.filepost import encode_multipart_formdata

from nexus.aws.dynamodb import from_item
from nexus.backend.store import DynamoStore, Write
from nexus.client import AsyncResult
from nexus.settings import settings
from nexus.worker.events import upload_envelopes
from social import catalogue
from social.uploads import presigned_post
from tests.support.clips import make_clip
from tests.support.pages import blocks
from tests.support.patience import PATIENCE, eventually
from tests.support.stack import dead_letters


def picture(width: int = 1200, height: int = 800) -> bytes:
    file = io.BytesIO()
    Image.effect_mandelbrot((width, height), (-2, -1.5, 1, 1.5), 40).convert("RGB").save(file, "JPEG", quality=90)
    return file.getvalue()


def put(key: str, body: bytes) -> None:
    boto3.client("s3").put_object(Bucket=settings().bucket("uploads"), Key=key, Body=body)


def media_of(post_id: str) -> dict[str, Any] | None:
    """The post's media, once it is settled."""
    table = settings().table("posts")
    item = boto3.client("dynamodb").get_item(TableName=table, Key={"post_id": {"S": post_id}})["Item"]
    media: dict[str, Any] = from_item(item).get("media", {})
    return media if media.get("status") in ("ready", "rejected") else None


def runs_of(key: str) -> list[dict[str, Any]]:
    """The run records of an upload, by its key in their arguments."""
    pages = boto3.client("dynamodb").get_paginator("scan").paginate(TableName=settings().table("task-runs"))
    items = [from_item(item) for page in pages for item in page["Items"]]
    return [item for item in items if f'"{key}"' in str(item.get("args", ""))]


def test_an_upload_becomes_renditions_the_post_knows_them_and_the_run_is_on_record(post: str) -> None:
    key = f"uploads/u-e2e/{post}/Grüße + mehr.jpg"

    put(key, picture())

    media = eventually(lambda: media_of(post))
    assert media["status"] == "ready", media
    for name, rendition in media["renditions"].items():
        body = boto3.client("s3").get_object(Bucket=settings().bucket("media"), Key=rendition["key"])["Body"].read()
        assert Image.open(io.BytesIO(body)).size == (rendition["width"], rendition["height"]), name
    (run,) = eventually(lambda: [run for run in runs_of(key) if run["status"] == "SUCCESS"])
    assert run["task"] == "process_media_upload"
    assert run["attempts"] == 1


def test_a_clip_becomes_a_video_with_posters_and_shows_its_progress(post: str, tmp_path: Path) -> None:
    key = f"uploads/u-e2e/{post}/clip.mov"
    clip = make_clip(tmp_path / "clip.mov", size=(320, 240), frames=48)

    put(key, clip.read_bytes())

    media = eventually(lambda: media_of(post))
    assert media["status"] == "ready", media
    assert media["kind"] == "video"
    assert {"video", "preview", "poster_thumbnail", "poster_w320"} <= set(media["renditions"])
    (run,) = eventually(lambda: ended_runs_of(key))
    assert AsyncResult(run["id"]).progress == (100, 100)


def test_a_file_that_is_not_a_picture_is_rejected_with_its_reason_and_quarantined(post: str) -> None:
    key = f"uploads/u-e2e/{post}/page.jpg"

    put(key, b"<!doctype html><title>hello</title>")

    media = eventually(lambda: media_of(post))
    assert media["status"] == "rejected"
    assert media["code"] == "html"
    assert "web page" in media["reason"]
    s3, bucket = boto3.client("s3"), settings().bucket("uploads")
    moved = eventually(lambda: s3.list_objects_v2(Bucket=bucket, Prefix=f"quarantine/{key}").get("Contents"))
    assert len(moved) == 1


def test_a_browsers_form_uploads_and_a_larger_file_than_agreed_is_refused_by_s3(post: str) -> None:
    body = picture(600, 400)
    form = presigned_post("u-e2e", post, "from the browser.jpg", max_bytes=len(body))

    fields = {**form.fields, "Content-Type": "image/jpeg"}

    with pytest.raises(HTTPError, match="400"):
        submit(form.url, fields, body + b"x")
    assert submit(form.url, fields, body) in (200, 201, 204)
    assert eventually(lambda: media_of(post))["status"] == "ready"


def test_a_form_written_as_in_from_celery_is_accepted_unchanged() -> None:
    (block,) = [b for b in blocks("from-celery.md") if "import presigned_post" in b.text]
    request = SimpleNamespace(POST={"name": "own.jpg", "type": "image/jpeg"})
    post = SimpleNamespace(pk=uuid.uuid4().hex[:12], text="From my own site")
    page: dict[str, Any] = {"user": SimpleNamespace(pk="u-e2e"), "post": post, "request": request}
    exec(block.compiled("from-celery.md"), page)

    form = page["upload_form"]

    assert submit(form["url"], form["fields"], picture(600, 400)) in (200, 201, 204)
    assert eventually(lambda: media_of(post.pk))["status"] == "ready"


@pytest.mark.emulator  # on AWS, no sender of the tests' stack is verified
def test_the_code_of_the_page_for_web_applications_goes_from_a_user_to_renditions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "holiday.jpg").write_bytes(picture())
    monkeypatch.chdir(tmp_path)
    (block,) = [b for b in blocks("web-application.md") if b.language == "python" and not b.words]
    page: dict[str, Any] = {}

    exec(block.compiled("web-application.md"), page)

    assert page["post"].hashtags == ("train",)
    assert page["welcome"].get(timeout=PATIENCE).outcome == "sent"
    media = page["media"]
    assert (media.status, media.width, media.height) == ("ready", 1200, 800)
    for rendition in media.renditions.values():
        boto3.client("s3").head_object(Bucket=settings().bucket("media"), Key=rendition.key)


def submit(url: str, fields: dict[str, str], body: bytes) -> int:
    data, kind = encode_multipart_formdata([*fields.items(), ("file", ("a.jpg", body, "image/jpeg"))])
    request = urllib.request.Request(url, data, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return int(answer.status)


def test_an_upload_is_processed_on_demand_through_the_queue(post: str) -> None:
    key = f"uploads/u-e2e/{post}/again.jpg"
    put(key, picture(500, 300))
    eventually(lambda: media_of(post))

    handle = catalogue.process_media_upload.delay(bucket=settings().bucket("uploads"), key=key)

    assert handle.get(timeout=PATIENCE) is not None
    assert handle.result is not None
    assert handle.result.status == "ready"


def test_an_upload_without_a_post_is_retried_through_the_queue_and_ends_in_quarantine(outputs: dict[str, str]) -> None:
    """No such post: the direct invocation fails, its destination is the queue, and the last retry puts it aside.

    Anyone with an upload form can cause this, so it makes no dead letter.
    """
    key = f"uploads/u-e2e/p-{uuid.uuid4().hex[:12]}/nowhere.jpg"
    put(key, picture(100, 100))

    run = eventually(lambda: next((run for run in runs_of(key) if int(run["attempts"]) >= 2), None))
    # Its policy would retry for minutes; this run must have no further retries.
    DynamoStore().apply(Write(run["id"], set={"retry": "[1,0,0,[]]"}))
    report = AsyncResult(run["id"], catalogue.process_media_upload.result).get(timeout=PATIENCE)

    assert report is not None
    assert report.status == "rejected"
    assert "there is no post" in str(report.reason)
    assert in_quarantine(key)
    assert not dead_letters(outputs["MediaDeadLetterQueueUrl"], run["id"])


def test_an_upload_under_a_key_of_another_form_or_to_anothers_post_is_put_aside(
    post: str, outputs: dict[str, str]
) -> None:
    for key in (f"uploads/{uuid.uuid4().hex}.jpg", f"uploads/mallory/{post}/a.jpg"):
        put(key, picture(64, 64))

        (run,) = eventually(partial(ended_runs_of, key))
        assert in_quarantine(key)
        assert not dead_letters(outputs["MediaDeadLetterQueueUrl"], run["id"])
    assert media_of(post) is None


def ended_runs_of(key: str) -> list[dict[str, Any]]:
    return [run for run in runs_of(key) if run["status"] == "SUCCESS"]


def in_quarantine(key: str) -> bool:
    s3, bucket = boto3.client("s3"), settings().bucket("uploads")
    return bool(s3.list_objects_v2(Bucket=bucket, Prefix=f"quarantine/{key}").get("Contents"))


@pytest.mark.emulator  # on AWS nobody but Lambda may assume a function's role
@pytest.mark.parametrize("action", ["scan", "delete_item"])
def test_the_functions_role_allows_only_what_it_needs(action: str, stack: Any) -> None:
    """IAM is enforced: with the media function's own credentials the posts can be updated, and not scanned or
    deleted."""
    sts = boto3.client("sts")
    assert upload_envelopes([], "process_media_upload") == []
    arn = f"arn:aws:iam::{stack.account_id}:role/"
    roles = [r["RoleName"] for r in boto3.client("iam").list_roles()["Roles"] if "MediaRole" in r["RoleName"]]
    granted = sts.assume_role(RoleArn=arn + roles[0], RoleSessionName="test")["Credentials"]
    dynamodb = boto3.client(
        "dynamodb",
        aws_access_key_id=granted["AccessKeyId"],
        aws_secret_access_key=granted["SecretAccessKey"],
        aws_session_token=granted["SessionToken"],
    )
    request: dict[str, Any] = {"TableName": stack.table("posts")}
    if action == "delete_item":
        request["Key"] = {"post_id": {"S": "p"}}
    with pytest.raises(dynamodb.exceptions.ClientError, match="AccessDenied"):
        getattr(dynamodb, action)(**request)
