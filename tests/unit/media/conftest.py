"""The media function's unit tests."""

import io
from pathlib import Path
from typing import Any

import boto3
import pytest
from PIL import Image

import process_media_upload as module
from nexus.aws.dynamodb import from_item
from nexus.settings import settings
from nexus.testing import run_task
from social import application
from social.catalogue import MediaReport, ProcessMediaUpload

KEY = "uploads/u-1/p-1/holiday photo.jpg"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for what is made of a clip."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def post(cloud: None) -> None:
    """The post p-1 of the user u-1."""
    module.media_settings.cache_clear()
    application.new_post("u-1", "look at this", post_id="p-1")


def picture(width: int = 900, height: int = 600, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, kind)
    return file.getvalue()


def upload(body: bytes, key: str = KEY, order: str = "0A") -> ProcessMediaUpload:
    bucket = settings().bucket("uploads")
    answer = boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
    return ProcessMediaUpload(bucket=bucket, key=key, version_id=answer.get("VersionId"), event_order=order)


def process(args: ProcessMediaUpload, **run: Any) -> MediaReport:
    report: MediaReport = run_task(module.process_media_upload, args, **run)
    return report


def media() -> dict[str, Any]:
    item = boto3.client("dynamodb").get_item(TableName=settings().table("posts"), Key={"post_id": {"S": "p-1"}})["Item"]
    found: dict[str, Any] = from_item(item)["media"]
    return found


def keys(bucket: str, prefix: str = "") -> list[str]:
    answer = boto3.client("s3").list_objects_v2(Bucket=settings().bucket(bucket), Prefix=prefix)
    return sorted(thing["Key"] for thing in answer.get("Contents", []))


class Clock:
    """A deadline that comes when the test says so, however fast the machine is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("sandbox.supervisor.time.monotonic", lambda: self.now)

    def expire(self, _: float) -> None:
        """As `on_progress`: the time is up with the child's first word."""
        self.now = 1e9
