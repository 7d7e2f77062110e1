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
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pictures
import video
from nexus.aws.sdk import client
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
"""Seconds of the run kept for a clip's posters and for storing what was made."""


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


@dataclass(frozen=True, slots=True)
class File:
    """A rendition that is ready to be stored; `content` is its bytes or where they are."""

    name: str
    content: bytes | Path
    extension: str
    content_type: str
    width: int
    height: int

    @property
    def size(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    def opened(self) -> BinaryIO:
        return self.content.open("rb") if isinstance(self.content, Path) else BytesIO(self.content)


@implements(catalogue.process_media_upload)
def process_media_upload(args: ProcessMediaUpload, run: Run) -> MediaReport:
    """Reads the upload, makes its renditions, stores them and tells the post; see the module's text for the rule."""
    started = time.monotonic()
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
        with _opened(args) as (size, body):
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
def _opened(args: ProcessMediaUpload) -> Iterator[tuple[int, BinaryIO]]:
    """The upload's size in bytes and its body. Raises Rejected when it is not there any more."""
    s3 = client("s3")
    try:
        answer = s3.get_object(Bucket=args.bucket, Key=args.key, **_version(args))
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchVersion", "404"):
            raise Rejected(Code.GONE, "the upload was removed before it was processed") from None
        raise
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
        if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchVersion", "404"):
            return
        raise
    s3.delete_object(Bucket=args.bucket, Key=args.key, **_version(args))


# --- the renditions ----------------------------------------------------------------------------------------------


def _make(upload: UploadKey, size: int, body: BinaryIO, run: Run) -> Media:
    """What the upload becomes, stored. Raises Rejected."""
    head = _read(body, HEAD_BYTES)
    if pictures.sniff(head):
        return _make_picture(upload, size, head, body)
    if video.container_of(head):
        return _make_video(upload, size, head, body, run)
    raise pictures.unsupported(head)


def _make_picture(upload: UploadKey, size: int, head: bytes, body: BinaryIO) -> Media:
    most = limits().picture.bytes
    if size > most:
        raise Rejected(Code.TOO_MANY_BYTES, f"{size} bytes are over the limit of {most} for a picture", megabytes(most))
    made = pictures.render(head + body.read(), limits().picture)
    return Media(
        status="ready",
        kind=made.kind,
        width=made.width,
        height=made.height,
        placeholder=made.placeholder,
        colour=made.dominant_colour,
        renditions=_store(upload.post_id, made.content_hash, _files(made)),
    )


def _files(made: pictures.Pictures, prefix: str = "") -> list[File]:
    return [
        File(prefix + r.name, r.data, r.extension, r.content_type, width=r.width, height=r.height)
        for r in made.renditions
    ]


def _make_video(upload: UploadKey, size: int, head: bytes, body: BinaryIO, run: Run) -> Media:
    most = limits().video.bytes
    if size > most:
        raise Rejected(Code.TOO_MANY_BYTES, f"{size} bytes are over the limit of {most} for a clip", megabytes(most))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source"
        with source.open("wb") as file:
            file.write(head)
            for chunk in iter(lambda: body.read(CHUNK_BYTES), b""):
                file.write(chunk)
        made = _rendered(source, folder, run)
        poster = pictures.render(made.poster.read_bytes())  # ours: the limits of uploads are not meant
        files = [
            File(name, r.path, r.path.suffix.removeprefix("."), r.content_type, width=r.width, height=r.height)
            for name, r in made.renditions.items()
        ]
        return Media(
            status="ready",
            kind="video",
            width=made.width,
            height=made.height,
            duration=round(made.duration, 3),
            placeholder=poster.placeholder,
            colour=poster.dominant_colour,
            renditions=_store(upload.post_id, made.content_hash, [*files, *_files(poster, "poster_")]),
        )


def _rendered(source: Path, folder: Path, run: Run) -> video.Video:
    """The clip's files. One that is not done in time is tried again, and on the last attempt refused for it."""

    def show(fraction: float) -> None:
        run.progress(round(fraction * 100), 100, "encoding")

    try:
        return video.render(source, folder, seconds=run.remaining - RESERVE, limits=limits().video, on_progress=show)
    except video.Unfinished as unfinished:
        if run.attempt <= catalogue.process_media_upload.retry.max_retries:
            raise Retry(str(unfinished)) from unfinished
        raise Rejected(Code.TOO_SLOW, f"{run.attempt} attempts did not finish it: {unfinished}") from unfinished


def _read(body: BinaryIO, size: int) -> bytes:
    """Up to `size` bytes; fewer only at the end."""
    parts: list[bytes] = []
    while size > 0 and (part := body.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _store(post_id: str, content_hash: str, files: Iterable[File]) -> Mapping[str, posts.Rendition]:
    """Puts the files into the media bucket, several at a time: media/<post_id>/<content hash>/<rendition>.<ext>."""
    s3, bucket = client("s3"), settings().bucket("media")

    def put(file: File) -> tuple[str, posts.Rendition]:
        key = f"media/{post_id}/{content_hash}/{file.name}.{file.extension}"
        with file.opened() as body:
            s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=file.content_type, CacheControl=FOR_EVER)
        rendition = posts.Rendition(
            key=key, width=file.width, height=file.height, bytes=file.size, content_type=file.content_type
        )
        return file.name, rendition

    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(pool.map(put, files))


handler = handler_for(process_media_upload)
