"""A browser's upload form, which S3 accepts for one key, one size and one kind of file."""

import base64
import json
from typing import Any

import pytest

from nexus.aws.sdk import client
from social.uploads import PresignedPost, presigned_post


def policy(form: PresignedPost) -> list[Any]:
    conditions: list[Any] = json.loads(base64.b64decode(form.fields["policy"]))["conditions"]
    return conditions


def test_a_form_goes_to_the_buckets_own_region_under_signature_version_4(environment: None) -> None:
    form = presigned_post("u-1", "p-1", "a.jpg")

    assert form.url == "https://nexus-test-uploads-123456789012.s3.eu-west-1.amazonaws.com/"
    assert form.fields["x-amz-algorithm"] == "AWS4-HMAC-SHA256"


def test_a_download_is_signed_for_the_same_host(environment: None) -> None:
    url = client("s3").generate_presigned_url("get_object", Params={"Bucket": "nexus-test-media-1", "Key": "media/k"})

    assert url.startswith("https://nexus-test-media-1.s3.eu-west-1.amazonaws.com/media/k?X-Amz-Algorithm=AWS4-HMAC")


def test_an_emulator_is_addressed_by_path(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:4566")

    assert presigned_post("u-1", "p-1", "a.jpg").url == "http://localhost:4566/nexus-test-uploads-123456789012"


def test_the_form_is_for_one_key_one_size_and_one_kind(environment: None) -> None:
    form = presigned_post("u-1", "p-1", "a.jpg", max_bytes=1000)

    assert form.key == form.fields["key"] == "uploads/u-1/p-1/a.jpg"
    assert {"key": "uploads/u-1/p-1/a.jpg"} in policy(form)
    assert not [one for one in policy(form) if isinstance(one, list) and one[1] == "$key"]
    assert ["content-length-range", 1, 1000] in policy(form)
    assert ["starts-with", "$Content-Type", "image/"] in policy(form)


def test_a_full_content_type_is_a_field_of_the_form(environment: None) -> None:
    form = presigned_post("u-1", "p-1", "a.mp4", content_type="video/mp4")

    assert form.fields["Content-Type"] == "video/mp4"
    assert {"Content-Type": "video/mp4"} in policy(form)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"user_id": "a/b"}, "user_id"),
        ({"post_id": ""}, "post_id"),
        ({"file_name": "a/b.jpg"}, "file_name"),
        ({"file_name": "a\n.jpg"}, "file_name"),
        ({"file_name": "${filename}"}, "file_name"),
        ({"file_name": "a-${filename}.jpg"}, "file_name"),
        ({"file_name": "\ud800.jpg"}, "file_name"),
        ({"content_type": "text/html"}, "content_type"),
        ({"content_type": "image/\ud800"}, "content_type"),
        ({"content_type": "image/png\r\nx: y"}, "content_type"),
        ({"max_bytes": 0}, "max_bytes"),
    ],
)
def test_a_part_that_would_change_the_key_is_refused_by_name(
    environment: None, arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=f"^{named} is "):
        presigned_post(**{"user_id": "u-1", "post_id": "p-1", "file_name": "a.jpg"} | arguments)
