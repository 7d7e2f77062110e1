"""Uploads one file as a browser does: a presigned form, a POST to S3; the post's `media` shows the outcome.

S3 enforces the form's policy, so a browser would get the same refusals.
"""

import mimetypes
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path

from urllib3.filepost import encode_multipart_formdata

from nexus.aws.rows import BadRow
from nexus.errors import InvalidMessage
from nexus.runs.record import RunRecord
from ops import audit
from ops.previews import Picture
from ops.problems import ExitCode, Problem, usage
from social import application
from social.data import objects, posts
from social.data.ids import new_key
from social.data.posts import Media, Rendition
from social.uploads import CONTENT_TYPES, MAX_BYTES, PresignedPost, UploadKey, presigned_post

POLL = 0.2
SECONDS_TO_SEND = 600


@dataclass(frozen=True, slots=True)
class Upload:
    """A file in the upload bucket. `order_before` is the order of the post's previous upload."""

    user_id: str
    post_id: str
    key: str
    order_before: str


def content_type(path: Path) -> str:
    """The content type from the file's name. Raises Problem if it is not a picture or clip."""
    found = mimetypes.guess_type(path.name)[0] or ""
    if not found.startswith(CONTENT_TYPES):
        raise usage(f"{path.name} is neither a picture nor a clip, judging by its name")
    return found


def send(path: Path, user_id: str, post_id: str | None = None) -> Upload:
    """Uploads a file to a user's post; creates the user, and a private post, if they are missing.

    Raises Problem if an id is not allowed, the post is another user's, or S3 refuses the file.
    """
    if path.stat().st_size > MAX_BYTES:
        raise usage(f"{path.name} is larger than {MAX_BYTES >> 20} MiB, the most that the form allows")
    post_id = post_id or new_key(int(time.time()))
    try:
        form = presigned_post(user_id, post_id, path.name, content_type=content_type(path))
    except ValueError as error:
        raise usage(str(error)) from None
    with suppress(ValueError):  # the user exists
        application.register(f"{user_id}@example.com", user_id, digest=False, user_id=user_id)
    post = posts.get(post_id, consistent=True)
    if post is None:
        application.new_post(user_id, path.name, post_id=post_id, visibility="private")
    elif post.author_id != user_id:
        raise usage(
            f"The post {post_id} belongs to {post.author_id}", do=f"Give --user {post.author_id}, or another post."
        )
    upload = Upload(user_id, post_id, form.key, posts.media_order(post_id))
    audit.begin()
    _submit(form, path)
    return upload


def _submit(form: PresignedPost, path: Path) -> None:
    """POSTs the multipart form (RFC 7578), with the file last, as S3 requires."""
    data, kind = encode_multipart_formdata([*form.fields.items(), ("file", ("file", path.read_bytes()))])
    request = urllib.request.Request(form.url, data, {"Content-Type": kind})  # noqa: S310 - S3's address, from the form
    try:
        urllib.request.urlopen(request, timeout=SECONDS_TO_SEND).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        found = re.search(r"<Message>(.*?)</Message>", error.read().decode(errors="replace"), re.DOTALL)
        raise Problem(f"S3 refuses {path.name} ({error.code})", found[1] if found else str(error.reason)) from None
    except (OSError, HTTPException) as error:  # URLError, or a connection that ends while the file is sent
        why = str(getattr(error, "reason", error))
        raise Problem("S3 does not respond", why, code=ExitCode.UNREACHABLE) from None


def put(path: Path, upload: Upload) -> None:
    """Puts a file to its upload's key without a form, as the owner's own program would."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    objects.put("uploads", upload.key, path.read_bytes(), kind)


def ended(uploads: Sequence[Upload]) -> Mapping[str, Media]:
    """The media of those uploads that are ready or rejected, by post. Raises Problem for a broken post."""
    # Read the order first: once it has changed, the media read after it is this upload's, not the previous one's.
    newer = [u.post_id for u in uploads if posts.media_order(u.post_id) != u.order_before]
    found = {}
    for post in posts.get_many(newer):
        if isinstance(post, BadRow):
            raise Problem("A post cannot be read", str(post))
        if post.media and post.media.status != "processing":
            found[post.post_id] = post.media
    return found


def settled(upload: Upload, patience: float) -> Media | None:
    """An upload's media; None if it is neither ready nor rejected after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not (found := ended([upload])):
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL)
    return found[upload.post_id]


def save(media: Media, folder: Path) -> Mapping[str, Path]:
    """Writes every rendition into `folder`; returns the files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: saved_as(folder, name, made) for name, made in media.renditions.items()}
    for name, made in media.renditions.items():
        files[name].write_bytes(objects.get("media", made.key))
    return files


def saved_as(folder: Path, name: str, rendition: Rendition) -> Path:
    """The file of a rendition that `save` wrote into `folder`."""
    return folder / (name + Path(rendition.key).suffix)


def pictures(record: RunRecord) -> list[Picture]:
    """The renditions of a run of process_media_upload, as long as its post still shows them."""
    key = str((record.args or {}).get("key", ""))
    try:
        upload = UploadKey.parse(key)
    except InvalidMessage:
        return []
    post = posts.get(upload.post_id)
    if post is None or post.media is None or post.media.source != key:
        return []  # the post shows a newer upload, of another run
    return [
        Picture(name, made.content_type, made.width, made.height, partial(objects.get, "media", made.key))
        for name, made in post.media.renditions.items()
    ]
