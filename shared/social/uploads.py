"""Media uploads from a browser straight to S3: the forms that the web application hands out."""

import re
from dataclasses import dataclass
from urllib.parse import quote

from nexus.aws.sdk import client
from nexus.errors import InvalidMessage
from nexus.settings import settings

MAX_BYTES = 200 * 1024 * 1024
"""The limit for a video, in bytes. Pictures have a lower one, which the task checks."""

CONTENT_TYPES = ("image/", "video/")
FILE_NAME_VARIABLE = "${filename}"
"""S3 replaces this part of a form's key by the name of the uploaded file."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@=-]{0,127}")


@dataclass(frozen=True, slots=True)
class PresignedPost:
    """`url` to POST a multipart form to: `fields` first, the file last, under the name "file".

    A form for a kind ("image/") lacks the field Content-Type: add it, with the file's whole type, or S3 returns 403.
    """

    url: str
    fields: dict[str, str]
    key: str


@dataclass(frozen=True, slots=True)
class UploadKey:
    """uploads/<user_id>/<post_id>/<file name>."""

    user_id: str
    post_id: str
    file_name: str

    @classmethod
    def parse(cls, key: str) -> "UploadKey":
        """Parses a key. Raises InvalidMessage if it does not have that form."""
        parts = key.split("/", 3)
        if len(parts) != 4 or parts[0] != "uploads" or not all(parts):
            raise InvalidMessage(f"key: {key[:200]!r} is not uploads/<user_id>/<post_id>/<file name>")
        return cls(parts[1], parts[2], parts[3])

    def __str__(self) -> str:
        return f"uploads/{self.user_id}/{self.post_id}/{self.file_name}"


def presigned_post(
    user_id: str,
    post_id: str,
    file_name: str,
    *,
    content_type: str = "image/",
    max_bytes: int = MAX_BYTES,
    expires_in: int = 900,
) -> PresignedPost:
    """A form that lets a browser upload one file to uploads/<user_id>/<post_id>/<file_name> and nowhere else.

    S3 itself limits the upload to that key, to 1..`max_bytes` bytes and to `content_type`, for `expires_in` seconds.
    With the file's whole type ("image/jpeg"), `fields` are all that the form needs; with a kind ("image/" or "video/"),
    S3 accepts any type of that kind, which the form must add as a field Content-Type. The task determines what the
    bytes really are. Raises ValueError naming the invalid argument.
    """
    for name, value in (("user_id", user_id), ("post_id", post_id)):
        if not _ID.fullmatch(value):
            raise ValueError(
                f"{name} is {value!r}: it must be 1 to 128 letters, digits and _.@=-, the first a letter or digit"
            )
    if not file_name.isprintable() or not file_name or "/" in file_name or len(quote(file_name)) > 600:
        raise ValueError(
            f"file_name is {file_name!r}: it must be a printable name without a slash, at most 600 bytes encoded"
        )
    if FILE_NAME_VARIABLE in file_name:
        raise ValueError(f"file_name is {file_name!r}: S3 replaces {FILE_NAME_VARIABLE} by another name")
    if not (content_type.startswith(CONTENT_TYPES) and content_type.isascii() and content_type.isprintable()):
        raise ValueError(f"content_type is {content_type!r}: it must be image/... or video/..., in printable ASCII")
    if not 1 <= max_bytes <= MAX_BYTES:
        raise ValueError(f"max_bytes is {max_bytes}: it must be 1 to {MAX_BYTES}")
    key = str(UploadKey(user_id, post_id, file_name))
    whole = not content_type.endswith("/")
    form = client("s3").generate_presigned_post(
        Bucket=settings().bucket("uploads"),
        Key=key,
        Fields={"Content-Type": content_type} if whole else {},
        Conditions=[
            ["content-length-range", 1, max_bytes],
            {"Content-Type": content_type} if whole else ["starts-with", "$Content-Type", content_type],
        ],
        ExpiresIn=expires_in,
    )
    return PresignedPost(form["url"], form["fields"], key)
