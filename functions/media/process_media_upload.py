"""process_media_upload: makes an upload's renditions and publishes them in its post.

The rule, after imgproxy, thumbor and sharp: a file's bytes determine its type; a file to be refused is not decoded;
renditions carry no metadata, are oriented and sRGB, and are never enlarged. Their keys are content-addressed, so a
repeat writes the same bytes to the same keys, which may be cached without an expiry.

The post is updated once the upload's size is known, with a picture's placeholder, before anything is stored; then with
a clip's progress, and with the outcome. A picture's renditions are stored while the next ones are made, and the work
waits for no write before the last: `ready` follows all others.

A refused upload is a result, not an error: the post says `rejected` and why, the object moves to quarantine/, and
nothing is retried. Temporary failures (the clip took too long, AWS failed) are retried by the task's policy. After the
last attempt an upload whose decoding never ended, or failed each time, is refused. A failure that is not the upload's
(AWS's, the deployment's) is a dead letter, which leaves the post and the object as they are, so that a retry of it can
succeed.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import lru_cache, partial
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

import pictures
import sandbox
import video
from nexus.aws.sdk import client, is_no_object, is_refused
from nexus.errors import ConfigurationError, InvalidMessage, Reject, Retry
from nexus.settings import settings
from nexus.worker import Run, handler_for, implements
from social import catalogue, scratch
from social.catalogue import MediaReport, ProcessMediaUpload
from social.data import posts
from social.data.posts import Media, MediaOutcome, UploadTarget
from social.refusals import Code, Rejected, megabytes
from social.uploads import UploadKey

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CopySourceTypeDef

HEAD_BYTES = 1024
"""Enough to identify a file: 64 for a format, the rest to describe an unrecognised file."""

UPLOADS, QUARANTINE = "uploads/", "quarantine/"
MAX_KEY_BYTES = 1024
"""The longest S3 key, in bytes of UTF-8."""

CHUNK_BYTES = 1 << 20
FOR_EVER = "public, max-age=31536000, immutable"
LATER = "a later upload to this post was processed first"
PROGRESS_SECONDS = 1.0
"""Seconds between two progress writes to a clip's post; those to the run's record have the same interval."""
THREADS = 6
"""The most requests at once: connections are opened as they are needed, and each costs a cold function a handshake."""
RESERVE = 20.0
"""Seconds of the run reserved for storing the renditions; for a clip, half of them for its posters."""


@dataclass(frozen=True, slots=True)
class MediaSettings:
    """Limits of an upload and the recipes of a picture: the function's variables override the defaults."""

    picture: pictures.Limits
    video: video.Limits
    recipes: pictures.Recipes


@lru_cache(maxsize=1)
def media_settings() -> MediaSettings:
    """Reads PICTURE_MAX_BYTES, PICTURE_MAX_PIXELS, VIDEO_MAX_BYTES, VIDEO_MAX_SECONDS and RENDITIONS, if set.

    Raises ConfigurationError, naming the variable and its fault, if one is invalid.
    """

    def given(**names: str) -> dict[str, int]:
        texts = {limit: os.environ[name] for limit, name in names.items() if os.environ.get(name)}
        for limit, text in texts.items():
            if not text.isdecimal() or int(text) < 1:
                raise ConfigurationError(f"{names[limit]} is {text!r}: it must be a whole number, 1 or more")
        return {limit: int(text) for limit, text in texts.items()}

    try:
        recipes = pictures.read_recipes(os.environ.get("RENDITIONS", ""))
    except pictures.BadRecipe as error:
        raise ConfigurationError(f"RENDITIONS: {error}") from error
    return MediaSettings(
        recipes=recipes,
        picture=pictures.Limits(**given(bytes="PICTURE_MAX_BYTES", pixels="PICTURE_MAX_PIXELS")),
        video=video.Limits(**given(bytes="VIDEO_MAX_BYTES", seconds="VIDEO_MAX_SECONDS")),
    )


@implements(catalogue.process_media_upload)
def process_media_upload(args: ProcessMediaUpload, run: Run) -> MediaReport:
    """Reads the upload, makes its renditions, stores them and updates the post, as the module's docstring says."""
    with _threads() as threads:
        return _process(args, run, threads)


def _process(args: ProcessMediaUpload, run: Run, threads: "Threads") -> MediaReport:
    started = time.monotonic()
    upload = _upload_key(args)
    # The post is read while S3 opens the upload, and the sandbox starts while the upload downloads.
    target = threads(posts.upload_target, upload.post_id) if upload else None
    sandbox.start()

    def report(status: str, reason: str | None = None, made: Media | None = None) -> MediaReport:
        stored = made.renditions.values() if made else ()
        return MediaReport(
            post_id=upload.post_id if upload else "",
            status=status,
            reason=reason,
            renditions=len(stored),
            bytes_out=sum(rendition.bytes for rendition in stored),
            seconds=round(time.monotonic() - started, 3),
        )

    with _opened(args, run) as original:
        if original is None:
            return report("rejected", _mark_missing(upload, args))
        post = target.result() if target else None
        if upload is None or post is None or post.author_id != upload.user_id:
            return report("rejected", _turn_away(upload, post, original, run))
        order = _order(args, original, post)
        if posts.padded(order) < posts.padded(post.media_order):
            return report("stale", LATER)

        def publish(media: Media) -> MediaOutcome:
            whose = {"source": original.key, "version": original.version}
            return posts.set_media(upload.post_id, media.model_copy(update=whose), order)

        def show(known: Media) -> None:
            if (outcome := publish(known)) is not MediaOutcome.WRITTEN:
                raise _Overtaken(outcome)

        try:
            media = _make(upload, original, run, show, threads)
        except _Overtaken as overtaken:
            if overtaken.outcome is MediaOutcome.NO_POST:
                return report("rejected", _turn_away(upload, None, original, run))
            return report("stale", LATER)
        except Rejected as refusal:
            run.logger.info("upload refused", code=refusal.code, detail=refusal.detail)
            publish(Media(status="rejected", reason=refusal.reason, code=refusal.code, limit=refusal.limit))
            _quarantine(original)
            return report("rejected", str(refusal))
        if publish(media) is not MediaOutcome.WRITTEN:
            return report("stale", "a later upload to this post has arrived, or the post was deleted", media)
        return report("ready", made=media)


class _Overtaken(Exception):
    """The renditions are no longer needed: the post has a later upload, or was deleted."""

    def __init__(self, outcome: MediaOutcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


type Show = Callable[[Media], None]
"""Writes intermediate media to the post. Raises _Overtaken."""


# --- requests in the background ----------------------------------------------------------------------------------


class Threads:
    """Calls functions in the background, at most THREADS at once, in the order in which they are given."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def __call__[**P, T](self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._pool.submit(copy_context().run, partial(work, *args, **kwargs))


@contextmanager
def _threads() -> Iterator[Threads]:
    """After the block no request is in progress; after an error in it, those that have not begun are dropped."""
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="media")
    try:
        yield Threads(pool)
    finally:
        pool.shutdown(cancel_futures=True)


# --- the upload --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Original:
    """The S3 object being read, pinned to its version even if its key is overwritten in the meantime."""

    bucket: str
    key: str
    version: str | None
    size: int
    uploaded_at: float
    body: BinaryIO


def _upload_key(args: ProcessMediaUpload) -> UploadKey | None:
    """The upload's owner and post; None if the key does not contain them. Raises Reject if it is not an upload."""
    if args.bucket != settings().bucket("uploads"):
        raise Reject(f"bucket: {args.bucket!r} is not the upload bucket, {settings().bucket('uploads')}")
    if not args.key.startswith(UPLOADS):
        raise Reject(f"key: {args.key[:200]!r} does not begin with {UPLOADS}")
    try:
        return UploadKey.parse(args.key)
    except InvalidMessage:
        return None


@contextmanager
def _opened(args: ProcessMediaUpload, run: Run) -> Iterator[Original | None]:
    """Opens the upload; None if it no longer exists."""
    s3 = client("s3")
    version: Any = {"VersionId": args.version_id} if args.version_id else {}
    try:
        answer = s3.get_object(Bucket=args.bucket, Key=args.key, **version)
    except s3.exceptions.ClientError as error:
        if not is_no_object(error):
            raise
        if is_refused(error) and not run.last_attempt:
            raise Retry("S3 returned 403: the upload was deleted, or this role lacks a permission") from None
        yield None
        return
    with closing(answer["Body"]) as body:
        yield Original(
            bucket=args.bucket,
            key=args.key,
            version=answer.get("VersionId"),
            size=answer["ContentLength"],
            uploaded_at=answer["LastModified"].timestamp(),
            body=cast("BinaryIO", body),
        )


def _order(args: ProcessMediaUpload, original: Original, post: UploadTarget) -> str:
    """The upload's order among those to its post; without an event, the order of the current one."""
    if args.event_order:
        return posts.upload_order(original.uploaded_at, args.event_order)
    return max(posts.upload_order(original.uploaded_at), posts.padded(post.media_order))


def _turn_away(upload: UploadKey | None, post: UploadTarget | None, original: Original, run: Run) -> str:
    """Quarantines an upload that belongs to no post of its user, and returns why. Does not update the post.

    Anyone with a form can cause this, so it is a result, not a failure. Raises Retry while a post may still appear.
    """
    if upload is None:
        reason = "the key is not uploads/<user_id>/<post_id>/<file name>"
    elif post is not None:
        reason = f"post {upload.post_id!r} is not by user {upload.user_id!r}"
    elif run.last_attempt:
        reason = f"there is no post {upload.post_id!r}"
    else:
        raise Retry(f"there is no post {upload.post_id!r} yet")
    run.logger.info("upload turned away", key=original.key, reason=reason)
    _quarantine(original)
    return reason


def _mark_missing(upload: UploadKey | None, args: ProcessMediaUpload) -> str:
    """Marks the post's upload as missing, unless it shows something else. Returns the reason for the report.

    An attempt that died after quarantining the object has already written the reason to the post.
    """
    gone = Rejected(Code.GONE, "the upload was removed before it was processed")
    post = posts.upload_target(upload.post_id) if upload else None
    if upload is None or post is None or post.author_id != upload.user_id:
        return str(gone)
    shown = post.media
    same = shown is not None and shown.source == args.key and args.version_id in (None, shown.version)
    if shown and same and shown.status == "rejected":
        return shown.reason or str(gone)
    if shown is None or (shown.source == args.key and shown.status != "ready"):
        media = Media(status="rejected", reason=gone.reason, code=gone.code, source=args.key, version=args.version_id)
        posts.set_media(upload.post_id, media, post.media_order)
    return str(gone)


def quarantine_key(key: str) -> str:
    """A refused object's key under quarantine/, cut and made unique if it is too long for S3."""
    whole = f"{QUARANTINE}{key}".encode()
    if len(whole) <= MAX_KEY_BYTES:
        return whole.decode()
    digest = sha256(key.encode()).hexdigest()
    return whole[: MAX_KEY_BYTES - len(digest) - 1].decode(errors="ignore") + f"-{digest}"


def _quarantine(original: Original) -> None:
    """Moves the refused object to quarantine/. Does nothing if it no longer exists."""
    s3 = client("s3")
    version: Any = {"VersionId": original.version} if original.version else {}
    try:
        s3.copy_object(
            Bucket=original.bucket,
            Key=quarantine_key(original.key),
            CopySource=cast("CopySourceTypeDef", {"Bucket": original.bucket, "Key": original.key, **version}),
        )
    except s3.exceptions.ClientError as error:
        if not is_no_object(error) or is_refused(error):  # it has just been read: if it is gone, a retry finds that
            raise
        return
    # A deletion without a version leaves a marker: the version stays for a month, and this role cannot remove it. The
    # marker would hide the key's current version, so a later upload under the same name is left alone.
    if not original.version or _current_version(original) == original.version:
        s3.delete_object(Bucket=original.bucket, Key=original.key)


def _current_version(original: Original) -> str | None:
    """The key's current version; None if it is deleted."""
    s3 = client("s3")
    try:
        return s3.head_object(Bucket=original.bucket, Key=original.key).get("VersionId")
    except s3.exceptions.ClientError as error:
        if not is_no_object(error):
            raise
        return None


# --- the renditions ----------------------------------------------------------------------------------------------


def _make(upload: UploadKey, original: Original, run: Run, show: Show, threads: Threads) -> Media:
    """Makes and stores the upload's renditions. Decodes nothing in this process. Raises Rejected."""
    size, body = original.size, original.body
    head = _read(body, HEAD_BYTES)
    if pictures.sniff(head):
        make, kind, most = _make_picture, "picture", media_settings().picture.bytes
    elif video.container_of(head):
        make, kind, most = _make_video, "clip", media_settings().video.bytes
    else:
        raise pictures.unsupported(head)
    if size > most:
        raise Rejected(Code.TOO_MANY_BYTES, f"{size} bytes are over the limit of {most} for a {kind}", megabytes(most))
    with scratch.folder() as name:
        folder = Path(name)
        source = folder / "source"
        with source.open("wb") as file:
            file.write(head)
            for chunk in iter(lambda: body.read(CHUNK_BYTES), b""):
                file.write(chunk)
        try:
            with _Store(upload.post_id, threads) as store:
                return make(source, folder, run, show, store)
        except sandbox.Unavailable:
            raise
        except sandbox.Unfinished as unfinished:
            if not run.last_attempt:
                raise Retry(str(unfinished)) from unfinished
            code = Code.TOO_SLOW if isinstance(unfinished, sandbox.OutOfTime) else Code.DECODER_CRASHED
            raise Rejected(code, f"{run.attempt} attempts did not finish it: {unfinished}") from unfinished


def _make_picture(source: Path, folder: Path, run: Run, show: Show, store: "_Store") -> Media:
    made = pictures.render(
        source,
        folder,
        seconds=run.remaining - RESERVE,
        limits=media_settings().picture,
        recipes=media_settings().recipes,
        on_known=lambda known: store.announce(show, _of_picture(known)),
        on_made=store.put,
    )
    return _of_picture(made.known).model_copy(update={"status": "ready", "renditions": store.stored(made.renditions)})


def _of_picture(known: pictures.Known) -> Media:
    return Media(
        status="processing",
        kind=known.kind,
        width=known.width,
        height=known.height,
        placeholder=known.placeholder,
        colour=known.dominant_colour,
    )


@dataclass(slots=True)
class _ClipShown:
    """Reports a clip's progress to the post and the run's record."""

    run: Run
    show: Show
    known: Media = field(init=False)
    at: float = field(init=False)

    def begin(self, width: int, height: int) -> None:
        self.known = Media(status="processing", kind="video", width=width, height=height, progress=0)
        self.show(self.known)
        self.at = time.monotonic()

    def advance(self, fraction: float) -> None:
        percent = round(fraction * 100)
        self.run.progress(percent, 100, "encoding")
        if time.monotonic() - self.at >= PROGRESS_SECONDS:
            self.show(self.known.model_copy(update={"progress": percent}))
            self.at = time.monotonic()


def _make_video(source: Path, folder: Path, run: Run, show: Show, store: "_Store") -> Media:
    shown = _ClipShown(run, show)
    made = video.render(
        source,
        folder,
        seconds=run.remaining - RESERVE,
        limits=media_settings().video,
        on_known=shown.begin,
        on_progress=shown.advance,
    )
    # The poster too is untrusted output of a decoder, so a sandbox decodes it. Upload limits do not apply.
    recipes = media_settings().recipes
    poster = pictures.render(made.poster, folder, seconds=run.remaining - RESERVE / 2, recipes=recipes)
    posters = {f"poster_{name}": rendition for name, rendition in poster.renditions.items()}
    digest = sha256(f"{made.content_hash} {poster.content_hash}".encode()).hexdigest()[:32]
    renditions = {**made.renditions, **posters}
    for name, rendition in renditions.items():
        store.put(digest, name, rendition)
    return Media(
        status="ready",
        kind="video",
        width=made.width,
        height=made.height,
        duration=round(made.duration, 3),
        placeholder=poster.known.placeholder,
        colour=poster.known.dominant_colour,
        renditions=store.stored(renditions),
    )


def _read(body: BinaryIO, size: int) -> bytes:
    """Reads `size` bytes; fewer only at the end."""
    parts: list[bytes] = []
    while size > 0 and (part := body.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class _Store:
    """Puts renditions into the media bucket in the background: media/<post_id>/<content hash>/<rendition>.<ext>.

    Renditions with the same bytes are one object: a wide picture's JPEGs, several sizes of a small one. A put is the
    most expensive part of a picture. Nothing is put before `announce` has written the upload to the post. After the
    block no write is in progress, so the next write to the post is the last.
    """

    def __init__(self, post_id: str, threads: Threads) -> None:
        self._post_id, self._threads = post_id, threads
        self._announced: Future[None] | None = None
        self._puts: dict[str, Future[posts.Rendition]] = {}
        self._objects: dict[bytes, Future[posts.Rendition]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        under_way: list[Future[Any]] = [*self._objects.values(), *filter(None, [self._announced])]
        wait([future for future in under_way if not future.cancel()])

    def announce(self, show: Show, known: Media) -> None:
        """Writes what is known to the post. If it fails, the next call raises its error."""
        if self._announced:
            self._announced.result()
        self._announced = self._threads(show, known)

    def put(self, content_hash: str, name: str, made: sandbox.Rendition) -> None:
        """Begins to put one file, unless the same bytes are there."""
        if self._announced and self._announced.done():
            self._announced.result()
        with made.path.open("rb") as file:
            content = file_digest(file, sha256).digest()
        if content not in self._objects:
            key = f"media/{self._post_id}/{content_hash}/{name}{made.path.suffix}"
            self._objects[content] = self._threads(self._put, key, made, self._announced)
        self._puts[name] = self._objects[content]

    def stored(self, names: Iterable[str]) -> Mapping[str, posts.Rendition]:
        """The renditions, once all are there."""
        return {name: self._puts[name].result() for name in names}

    def _put(self, key: str, made: sandbox.Rendition, announced: Future[None] | None) -> posts.Rendition:
        if announced:
            announced.result()
        with made.path.open("rb") as body:
            client("s3").put_object(
                Bucket=settings().bucket("media"),
                Key=key,
                Body=body,
                ContentType=made.content_type,
                CacheControl=FOR_EVER,
            )
        return posts.Rendition(
            key=key, width=made.width, height=made.height, bytes=made.bytes, content_type=made.content_type
        )


handler = handler_for(process_media_upload)
