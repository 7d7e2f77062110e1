"""Runs every task once with harmless arguments: `nexus test`.

Tasks about one person get a temporary user, whose mail goes to SES's simulator and whose post gets a generated picture.
The jobs do their nightly work, which may be repeated at any time; old posts are reviewed, not archived; the erased user
never existed; the bounce is transient and suppresses no one; the digest is of a week before the network began, without
posts. Everything is removed afterwards.
"""

import struct
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nexus.client import AsyncResult, read_records
from nexus.registry import registry
from nexus.settings import settings
from ops.health import Finding
from ops.social.upload import Upload, settled
from social import application
from social.data import mail_ledger, notifications, objects, posts, users

ADDRESS = "success@simulator.amazonses.com"
EMPTY_WEEK = "2015-W01"
POLL = 0.2
UPLOAD_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A task's run: its status, seconds from send to end, and its result or error in one line."""

    task: str
    id: str
    status: str
    seconds: float
    summary: str
    result: Any = None


@dataclass(frozen=True, slots=True)
class Stage:
    """The temporary user and data for the runs."""

    user_id: str
    post_id: str
    upload_key: str


def names() -> Sequence[str]:
    """Every task of the catalogue, by queue."""
    return tuple(registry.tasks())


def arguments(task: str, stage: Stage) -> Mapping[str, Any]:
    """Safe arguments for a task. A task not named here takes none, which a test checks."""
    match task:
        case "process_media_upload":
            return {"bucket": settings().bucket("uploads"), "key": stage.upload_key}
        case "send_welcome_email" | "refresh_user_statistics" | "revoke_user_tokens":
            return {"user_id": stage.user_id}
        case "send_content_digest_email":
            return {"week": EMPTY_WEEK}
        case "record_mail_feedback":
            recipients = [{"emailAddress": ADDRESS}]
            bounce = {"bounceType": "Transient", "bouncedRecipients": recipients}
            return {"notification": {"eventType": "Bounce", "bounce": bounce, "mail": {"tags": {}}}}
        case "erase_user_data":
            return {"user_id": f"{stage.user_id}-gone", "again": False}
        case "cleanup_old_posts":
            return {"mode": "review"}
        case "send_notification":
            return {"user_id": stage.user_id, "kind": "test", "text": "nexus test"}
    return {}


def run(tasks: Sequence[str], timeout: float) -> Iterator[Outcome]:
    """Sends all tasks at once and yields each outcome as its run ends."""
    with _stage("process_media_upload" in tasks) as stage:
        handles: dict[str, AsyncResult[Any]] = {}
        for name in tasks:
            handles[name] = registry.tasks()[name].apply_async(arguments(name, stage), expires=max(timeout, 60.0))
        began = time.monotonic()
        waiting = list(tasks)
        while waiting and time.monotonic() - began < timeout:
            records = read_records([handles[name] for name in waiting])
            ended = {name: record for name, record in zip(waiting, records, strict=True) if record.ended}
            for name, record in ended.items():
                waiting.remove(name)
                took = (record.ended_at or 0) - (record.sent_at or 0)
                yield _outcome(name, handles[name], record.status, took)
            time.sleep(POLL)
        for name in waiting:
            status = handles[name].status
            reason = f"not within {timeout:g} s; `nexus result {handles[name].id}`"
            yield Outcome(name, handles[name].id, status, time.monotonic() - began, reason)


def walk(patience: float) -> tuple[str, list[Finding]]:
    """Sends one upload through the deployed stack. Returns the outcome in a line, and findings."""
    with _stage(with_upload=False) as stage:
        began = time.monotonic()
        objects.put("uploads", stage.upload_key, picture(), "image/png")
        media = settled(Upload(stage.user_id, stage.post_id, stage.upload_key, order_before=""), patience)
        took = time.monotonic() - began
    if media is None:
        what = f"an upload was not processed within {patience:g} s"
        do = "`nexus validate` checks that uploads start the function, `nexus inspect active media` shows its run, "
        do += "`nexus dlq list media` why it was given up."
        return "", [Finding("failed", "media", what, do)]
    if media.status != "ready":
        return "", [
            Finding("failed", "media", f"an upload was {media.status}: {media.reason}", "`nexus logs --queue media`")
        ]
    return f"{len(media.renditions)} renditions in {took:.1f} s", []


def _outcome(name: str, handle: AsyncResult[Any], status: str, took: float) -> Outcome:
    error = handle.error
    if status != "SUCCESS":
        reason = f"{error.type}: {error.message}" if error else "no reason recorded"
        return Outcome(name, handle.id, status, took, reason)
    result = handle.result
    shown = {} if result is None else result.model_dump(mode="json", exclude_defaults=True)
    summary = " ".join(f"{key}={value}" for key, value in shown.items())
    return Outcome(name, handle.id, status, took, summary[:160] or "nothing to do", shown)


@contextmanager
def _stage(with_upload: bool) -> Iterator[Stage]:
    mark = uuid.uuid4().hex[:12]
    stage = Stage(f"nexus-test-{mark}", f"nexus-test-{mark}", f"uploads/nexus-test-{mark}/nexus-test-{mark}/test.png")
    application.register(ADDRESS, "Nexus Test", digest=False, user_id=stage.user_id)
    try:
        application.new_post(stage.user_id, "nexus test", post_id=stage.post_id, visibility="private")
        if with_upload:
            objects.put("uploads", stage.upload_key, picture(), "image/png")
            # The upload's own event starts a run too, which must end before the task's run, and before the post is
            # removed. If it does not end, the task's run says why.
            settled(Upload(stage.user_id, stage.post_id, stage.upload_key, order_before=""), UPLOAD_PATIENCE)
        yield stage
    finally:
        _strike(stage)


def _strike(stage: Stage) -> None:
    """Removes the temporary data and what the tasks made from it."""
    for notification in notifications.latest(stage.user_id):
        key = {"user_id": stage.user_id, "notification_id": notification.notification_id}
        notifications.TABLE.delete(key)
    mail_ledger.forget(mail_ledger.WELCOME, stage.user_id)
    posts.TABLE.delete({"post_id": stage.post_id})
    users.TABLE.delete({"user_id": stage.user_id})
    objects.delete("uploads", stage.upload_key)
    for rendition in list(objects.keys("media", f"media/{stage.post_id}/")):
        objects.delete("media", rendition)


def picture(width: int = 320, height: int = 240) -> bytes:
    """A PNG of a colour gradient (PNG specification, 5: signature, IHDR, IDAT, IEND)."""
    rows = b"".join(
        b"\x00" + b"".join(bytes((x * 255 // width, y * 255 // height, 128)) for x in range(width))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
