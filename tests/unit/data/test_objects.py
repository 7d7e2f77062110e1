"""Copies of objects, and how they are verified."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nexus.aws import sdk
from social.data import objects

KEY = "media/p-1/abc/w320.webp"


@contextmanager
def answers(operation: str, **values: Any) -> Iterator[None]:
    """Adds these fields to S3's responses to an operation: a # becomes another number each time; None removes one."""

    def hook(parsed: dict[str, Any], **_: Any) -> None:
        for name, value in values.items():
            parsed.pop(name, None)
            if value is not None:
                parsed[name] = f"{value}{next(numbers)}" if value.endswith("#") else value

    numbers = iter(range(1000))
    events = sdk.client("s3").meta.events
    events.register(f"after-call.s3.{operation}", hook)
    try:
        yield
    finally:
        events.unregister(f"after-call.s3.{operation}", hook)


NO_CHECKSUMS = dict.fromkeys(objects._CHECKSUMS)


@pytest.mark.usefixtures("database")
def test_a_copy_has_the_bytes_of_its_source() -> None:
    objects.put("media", KEY, b"picture", "image/webp")
    assert objects.copy("media", "archive", KEY)
    assert objects.get("archive", KEY) == b"picture"


@pytest.mark.usefixtures("database")
def test_copying_a_missing_object_returns_false() -> None:
    assert not objects.copy("media", "archive", "media/p-1/abc/gone.webp")


@pytest.mark.usefixtures("database")
def test_under_a_customer_managed_key_each_object_has_its_own_etag_and_copies_are_accepted() -> None:
    objects.put("media", KEY, b"picture")
    with answers("HeadObject", ETag="etag-#"):
        assert objects.copy("media", "archive", KEY)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("said", [NO_CHECKSUMS, {"ChecksumType": "COMPOSITE", "ChecksumCRC32": "of-parts-#"}])
def test_a_copy_without_a_full_object_checksum_is_compared_by_its_bytes(said: dict[str, Any]) -> None:
    objects.put("media", KEY, b"picture")
    with answers("HeadObject", **said):
        assert objects.copy("media", "archive", KEY)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    "said",
    [{"ChecksumCRC32": "checksum-#"}, NO_CHECKSUMS],
    ids=["another checksum", "other bytes"],
)
def test_a_copy_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]) -> None:
    objects.put("media", KEY, b"picture")
    copy = sdk.client("s3").copy_object

    def copy_wrongly(**asked: Any) -> Any:
        copied = copy(**asked)
        objects.put("archive", KEY, b"PICTURE")
        return copied

    monkeypatch.setattr(sdk.client("s3"), "copy_object", copy_wrongly)
    with answers("HeadObject", **said):
        assert not objects.copy("media", "archive", KEY)
