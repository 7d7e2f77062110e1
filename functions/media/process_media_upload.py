"""process_media_upload: an upload becomes renditions, and its post learns of them.

The rule, after imgproxy, thumbor and sharp: what a file is, its bytes say; what will be refused is not decoded;
what goes out carries no metadata, is oriented and sRGB, and is never enlarged. Renditions are named by the content
they were made of, so a repeat writes the same bytes to the same keys, which may be cached for ever.

A refused upload is a result and not an error: the post says `rejected` and why, the object moves to quarantine/,
nothing is retried. What cannot be done this time (the clip took too long, AWS failed) is retried by the task's policy.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pictures
import sandbox
import video
from nexus.aws.sdk import client, is_no_object, is_refused
from nexus.errors import ConfigurationError, InvalidMessage, Reject, Retry
from nexus.settings import settings
from nexus.worker import Run, handler_for, implements
from social import catalogue
from social.catalogue import MediaReport, ProcessMediaUpload
from social.data import posts
from social.data.posts import Media, MediaOutcome
from social.refusals import Code, Rejected, megabytes
from social.uploads import UploadKey

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CopySourceTypeDef

HEAD_BYTES = 1024
"""Enough to tell what a file is: 64 for a format, the rest for the words about a text that is none."""

CHUNK_BYTES = 1 << 20
FOR_EVER = "public, max-age=31536000, immutable"
RESERVE = 20.0
"""Seconds of the run kept for storing what was made, and of those of a clip half for its posters."""


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What one upload may cost: the function's parameters over the pipelines' own defaults."""

    picture: pictures.Limits
    video: video.Limits


@lru_cache(maxsize=1)
def limits() -> MediaLimits:
    """From PICTURE_MAX_BYTES, PICTURE_MAX_PIXELS, VIDEO_MAX_BYTES and VIDEO_MAX_SECONDS, where set."""

    def given(**names: str) -> dict[str, int]:
        texts = {field: os.environ[name] for field, name in names.items() if os.environ.get(name)}
        for field, text in texts.items():
            if not text.isdecimal() or int(text) < 1:
                raise ConfigurationError(f"{names[field]} is {text!r}: a whole number, 1 or more")
        return {field: int(text) for field, text in texts.items()}

    return MediaLimits(
        picture=pictures.Limits(**given(bytes="PICTURE_MAX_BYTES", pixels="PICTURE_MAX_PIXELS")),
        video=video.Limits(**given(bytes="VIDEO_MAX_BYTES", seconds="VIDEO_MAX_SECONDS")),
    )


@implements(catalogue.process_media_upload)
def process_media_upload(args: ProcessMediaUpload, run: Run) -> MediaReport:
    """Reads the upload, makes its renditions, stores them and tells the post; see the module's text for the rule."""
    started = time.monotonic()
    sandbox.start()  # it gets ready while the upload comes
    upload = _upload_key(args)
    order = args.event_order or posts.media_order(upload.post_id)

    def tell(media: Media) -> MediaOutcome:
        return posts.set_media(upload.post_id, media, order)

    def report(status: str, reason: str | None = None, made: Media | None = None) -> MediaReport:
        stored = made.renditions.values() if made else ()
        return MediaReport(
            post_id=upload.post_id,
            status=status,
            reason=reason,
            renditions=len(stored),
            bytes_out=sum(rendition.bytes for rendition in stored),
            seconds=round(time.monotonic() - started, 3),
        )

    try:
        with _opened(args, run) as (size, body):
            match tell(Media(status="processing", source=args.key)):
                case MediaOutcome.STALE:
                    return report("stale", "a later upload to this post came first")
                case MediaOutcome.NO_POST:
                    raise Retry(f"there is no post {upload.post_id!r} yet")
            media = _make(upload, size, body, run)
    except Rejected as refusal:
        if refusal.code is Code.GONE and (told := _refused_already(upload.post_id, args.key, order)):
            return report("rejected", told)
        run.logger.info("upload refused", code=refusal.code, detail=refusal.detail)
        reason, code, limit = refusal.reason, refusal.code, refusal.limit
        tell(Media(status="rejected", reason=reason, code=code, limit=limit, source=args.key))
        _quarantine(args)
        return report("rejected", str(refusal))
    media = media.model_copy(update={"source": args.key})
    if tell(media) is not MediaOutcome.WRITTEN:
        return report("stale", "a later upload to this post came meanwhile, or the post is gone", media)
    return report("ready", made=media)


# --- the upload --------------------------------------------------------------------------------------------------


def _upload_key(args: ProcessMediaUpload) -> UploadKey:
    if args.bucket != settings().bucket("uploads"):
        raise Reject(f"bucket: {args.bucket!r} is not the upload bucket, {settings().bucket('uploads')}")
    try:
        return UploadKey.parse(args.key)
    except InvalidMessage as error:
        raise Reject(str(error)) from None


def _version(args: ProcessMediaUpload) -> dict[str, Any]:
    return {"VersionId": args.version_id} if args.version_id else {}


@contextmanager
def _opened(args: ProcessMediaUpload, run: Run) -> Iterator[tuple[int, BinaryIO]]:
    """The upload's size in bytes and its body. Raises Rejected when it is not there any more."""
    s3 = client("s3")
    try:
        answer = s3.get_object(Bucket=args.bucket, Key=args.key, **_version(args))
    except s3.exceptions.ClientError as error:
        if not is_no_object(error):
            raise
        if is_refused(error) and run.attempt <= catalogue.process_media_upload.retry.max_retries:
            raise Retry("S3 says forbidden: the upload was removed, or this role has lost rights") from None
        raise Rejected(Code.GONE, "the upload was removed before it was processed") from None
    body = answer["Body"]
    try:
        yield answer["ContentLength"], cast("BinaryIO", body)
    finally:
        body.close()


def _refused_already(post_id: str, key: str, order: str) -> str | None:
    """Why this upload was refused by an attempt that died after it had put the object into quarantine."""
    post = posts.get(post_id, consistent=True)
    media = post.media if post and posts.media_order(post_id) == posts.padded_order(order) else None
    return media.reason if media and media.status == "rejected" and media.source == key else None


def _quarantine(args: ProcessMediaUpload) -> None:
    """Moves the refused object out of the way, under quarantine/; one that is gone already stays gone."""
    s3 = client("s3")
    try:
        s3.copy_object(
            Bucket=args.bucket,
            Key=f"quarantine/{args.key}",
            CopySource=cast("CopySourceTypeDef", {"Bucket": args.bucket, "Key": args.key, **_version(args)}),
        )
    except s3.exceptions.ClientError as error:
        if not is_no_object(error):
            raise
        return
    # A deletion without a version leaves a marker: the version stays for a month, and this role cannot remove it. The
    # marker hides whatever the key has by now, so a later upload under the same name is left alone.
    if not args.version_id or _current_version(args) == args.version_id:
        s3.delete_object(Bucket=args.bucket, Key=args.key)


def _current_version(args: ProcessMediaUpload) -> str | None:
    """The version that the key shows; None where it is deleted."""
    s3 = client("s3")
    try:
        return s3.head_object(Bucket=args.bucket, Key=args.key).get("VersionId")
    except s3.exceptions.ClientError as error:
        if not is_no_object(error):
            raise
        return None


# --- the renditions ----------------------------------------------------------------------------------------------


def _make(upload: UploadKey, size: int, body: BinaryIO, run: Run) -> Media:
    """What the upload becomes, stored. Nothing of it is decoded in this process. Raises Rejected."""
    head = _read(body, HEAD_BYTES)
    if pictures.sniff(head):
        make, kind, most = _make_picture, "picture", limits().picture.bytes
    elif video.container_of(head):
        make, kind, most = _make_video, "clip", limits().video.bytes
    else:
        raise pictures.unsupported(head)
    if size > most:
        raise Rejected(Code.TOO_MANY_BYTES, f"{size} bytes are over the limit of {most} for a {kind}", megabytes(most))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source"
        with source.open("wb") as file:
            file.write(head)
            for chunk in iter(lambda: body.read(CHUNK_BYTES), b""):
                file.write(chunk)
        try:
            return make(upload, source, folder, run)
        except sandbox.Unfinished as unfinished:
            if run.attempt <= catalogue.process_media_upload.retry.max_retries:
                raise Retry(str(unfinished)) from unfinished
            raise Rejected(Code.TOO_SLOW, f"{run.attempt} attempts did not finish it: {unfinished}") from unfinished


def _make_picture(upload: UploadKey, source: Path, folder: Path, run: Run) -> Media:
    made = pictures.render(source, folder, seconds=run.remaining - RESERVE, limits=limits().picture)
    return Media(
        status="ready",
        kind=made.kind,
        width=made.width,
        height=made.height,
        placeholder=made.placeholder,
        colour=made.dominant_colour,
        renditions=_store(upload.post_id, made.content_hash, made.renditions),
    )


def _make_video(upload: UploadKey, source: Path, folder: Path, run: Run) -> Media:
    def show(fraction: float) -> None:
        run.progress(round(fraction * 100), 100, "encoding")

    made = video.render(source, folder, seconds=run.remaining - RESERVE, limits=limits().video, on_progress=show)
    # The poster is the decoder's word too, and decoded in a sandbox. The limits of uploads are not meant.
    poster = pictures.render(made.poster, folder, seconds=run.remaining - RESERVE / 2)
    posters = {f"poster_{name}": rendition for name, rendition in poster.renditions.items()}
    return Media(
        status="ready",
        kind="video",
        width=made.width,
        height=made.height,
        duration=round(made.duration, 3),
        placeholder=poster.placeholder,
        colour=poster.dominant_colour,
        renditions=_store(upload.post_id, made.content_hash, {**made.renditions, **posters}),
    )


def _read(body: BinaryIO, size: int) -> bytes:
    """Up to `size` bytes; fewer only at the end."""
    parts: list[bytes] = []
    while size > 0 and (part := body.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _store(
    post_id: str, content_hash: str, renditions: Mapping[str, sandbox.Rendition]
) -> Mapping[str, posts.Rendition]:
    """Puts the files into the media bucket, several at a time: media/<post_id>/<content hash>/<rendition>.<ext>."""
    s3, bucket = client("s3"), settings().bucket("media")

    def put(name: str) -> tuple[str, posts.Rendition]:
        made = renditions[name]
        key = f"media/{post_id}/{content_hash}/{name}{made.path.suffix}"
        with made.path.open("rb") as body:
            s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=made.content_type, CacheControl=FOR_EVER)
        stored = posts.Rendition(
            key=key, width=made.width, height=made.height, bytes=made.bytes, content_type=made.content_type
        )
        return name, stored

    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(pool.map(put, renditions))


handler = handler_for(process_media_upload)
