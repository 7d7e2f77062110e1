"""Objects in the deployment's buckets, by the bucket's purpose: whole, in ranges, and listed by prefix."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nexus.aws.sdk import client, is_no_object
from nexus.settings import settings

type Bucket = Literal["uploads", "media", "archive"]


def put(bucket: Bucket, key: str, body: bytes, content_type: str = "application/octet-stream") -> None:
    """Writes the object, replacing any existing one."""
    client("s3").put_object(Bucket=settings().bucket(bucket), Key=key, Body=body, ContentType=content_type)


def get(bucket: Bucket, key: str, first: int | None = None, end: int | None = None) -> bytes:
    """The object's bytes, or those from `first` to before `end`. Raises LookupError if the object does not exist."""
    part = {} if first is None or end is None else {"Range": f"bytes={first}-{end - 1}"}
    content: bytes = _body(bucket, key, **part).read()
    return content


def _body(bucket: Bucket, key: str, **part: Any) -> Any:
    s3 = client("s3")
    try:
        return s3.get_object(Bucket=settings().bucket(bucket), Key=key, **part)["Body"]
    except s3.exceptions.ClientError as error:
        if not is_no_object(error):
            raise
        raise LookupError(f"{bucket}: no object {key}") from None


def upload(bucket: Bucket, key: str, path: Path, content_type: str) -> None:
    """Writes the object from a file of up to 5 GB, in constant memory."""
    with path.open("rb") as content:
        client("s3").put_object(Bucket=settings().bucket(bucket), Key=key, Body=content, ContentType=content_type)


def download(bucket: Bucket, key: str, path: Path) -> None:
    """Writes the object to a file, in constant memory. Raises LookupError if the object does not exist."""
    body = _body(bucket, key)
    with path.open("wb") as content:
        shutil.copyfileobj(body, content, 1 << 20)


def keys(bucket: Bucket, prefix: str) -> Iterator[str]:
    """The keys that begin with `prefix`, in order."""
    pages = client("s3").get_paginator("list_objects_v2").paginate(Bucket=settings().bucket(bucket), Prefix=prefix)
    for page in pages:
        for listed in page.get("Contents", ()):
            yield listed["Key"]


def copy(source: Bucket, target: Bucket, key: str) -> bool:
    """Copies an object under the same key. Returns whether the copy has the same bytes; False if it does not exist.

    Compares S3's checksums, which a copy shares with its source. ETags would not work: under a customer-managed key
    they are not a hash of the bytes. Objects without a common checksum are read.
    """
    s3 = client("s3")
    there = _head(source, key)
    if there is None:
        return False
    s3.copy_object(
        Bucket=settings().bucket(target), Key=key, CopySource={"Bucket": settings().bucket(source), "Key": key}
    )
    copied = _head(target, key)
    if copied is None or copied.size != there.size:
        return False
    if common := there.checksums.keys() & copied.checksums.keys():
        return all(copied.checksums[name] == there.checksums[name] for name in common)
    return get(source, key) == get(target, key)


def delete(bucket: Bucket, key: str) -> None:
    """Deletes the object; does nothing if it does not exist."""
    client("s3").delete_object(Bucket=settings().bucket(bucket), Key=key)


def erase(bucket: Bucket, prefix: str) -> int:
    """Deletes every version of every object whose key begins with `prefix`. Returns how many versions there were.

    One request per thousand listed, and one per thousand deleted. Raises OSError if S3 refuses any.
    """
    s3, name, erased = client("s3"), settings().bucket(bucket), 0
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name, Prefix=prefix):
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        if not found:
            continue
        versions: Any = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
        response = s3.delete_objects(Bucket=name, Delete={"Objects": versions, "Quiet": True})
        if refused := response.get("Errors"):
            first = refused[0]
            raise OSError(f"{bucket}: {len(refused)} not removed, {first.get('Key')}: {first.get('Code')}")
        erased += len(versions)
    return erased


@dataclass(frozen=True, slots=True)
class _Head:
    size: int
    checksums: Mapping[str, str]
    """Checksums by algorithm, of the whole object: that of a multipart upload depends on the parts."""


def _head(bucket: Bucket, key: str) -> _Head | None:
    from botocore.exceptions import ClientError

    try:
        response = client("s3").head_object(Bucket=settings().bucket(bucket), Key=key, ChecksumMode="ENABLED")
    except ClientError as error:
        if not is_no_object(error):
            raise
        return None
    whole = response.get("ChecksumType") != "COMPOSITE"
    checksums = {str(name): str(value) for name, value in response.items() if name in _CHECKSUMS and whole}
    return _Head(response["ContentLength"], checksums)


_CHECKSUMS = frozenset({"ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256"})
