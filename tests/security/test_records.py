"""An attacker who can write a run's record or remove an object: what readers fetch, and how they handle a refusal."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from nexus.aws.sdk import client
from nexus.runs import payloads
from nexus.runs.payloads import ResultExpired
from social.data import objects
from tests.support import moto_cloud


@pytest.fixture(autouse=True)
def cloud() -> Any:
    with moto_cloud.deployment():
        yield


@pytest.mark.parametrize("key", ["posts/2025/x", "digest/2026-11-02/x", "media/p/h/full.webp", "", "../results/x"])
def test_a_record_cannot_point_its_reader_at_another_object_of_the_archive(key: str) -> None:
    """An operator reads results with their own rights."""
    objects.put("archive", key or "none", b'"a secret"')

    with pytest.raises(ResultExpired, match="not a result"):
        payloads.load_text(f"s3:{key}")


READERS: dict[str, tuple[str, Callable[[], object]]] = {
    "get": ("get_object", lambda: objects.get("archive", "x")),
    "a range": ("get_object", lambda: objects.get("archive", "x", 0, 4)),
    "result": ("get_object", lambda: payloads.load_text("s3:results/media/x.json")),
}


def answering(code: str) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": ""}}, "GetObject")

    return call


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("code", ["NoSuchKey", "AccessDenied"])
def test_a_missing_object_is_missing_to_a_role_that_may_not_list_too(
    reader: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 returns 403 and not 404 to a role that may not list the bucket, and no function may without a prefix."""
    operation, read = READERS[reader]
    monkeypatch.setattr(client("s3"), operation, answering(code))

    with pytest.raises((LookupError, ResultExpired)):
        read()


@pytest.mark.parametrize("reader", READERS)
def test_an_outage_is_not_a_missing_object(reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operation, read = READERS[reader]
    monkeypatch.setattr(client("s3"), operation, answering("SlowDown"))

    with pytest.raises(ClientError, match="SlowDown"):
        read()


@pytest.mark.parametrize("code", ["404", "403"])
def test_a_missing_object_is_not_copied(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client("s3"), "head_object", answering(code))
    assert not objects.copy("media", "archive", "media/p/h/full.webp")
