"""An attacker who controls a function: what its role allows. The local cloud's IAM does not support PartiQL."""

from typing import Any

import pytest

from nexus.settings import Settings
from social.catalogue import QUEUES
from tests.support import iam
from tests.support.template import ACCOUNT, REGION, STACK

NAMES = Settings(stack=STACK, account_id=ACCOUNT)


def table(name: str) -> str:
    return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{NAMES.table(name)}"


def bucket(name: str, key: str = "") -> str:
    return f"arn:aws:s3:::{NAMES.bucket(name)}{key and '/'}{key}"


def allows(queue: str, action: str, resource: str, **context: Any) -> bool:
    return iam.allowed(iam.role(queue), iam.Request(action, resource, context))


@pytest.mark.parametrize("action", ["PartiQLUpdate", "PartiQLInsert", "PartiQLDelete", "PartiQLSelect", "PutItem"])
def test_the_media_role_is_denied_every_other_action_on_posts(action: str) -> None:
    assert not allows("media", f"dynamodb:{action}", table("posts"))


@pytest.mark.parametrize("queue", QUEUES)
def test_no_role_reads_runs_in_bulk_or_deletes_them(queue: str) -> None:
    for action in ("Scan", "Query", "PartiQLSelect", "DeleteItem", "PartiQLDelete", "BatchWriteItem"):
        assert not allows(queue, f"dynamodb:{action}", table("task-runs"))


@pytest.mark.parametrize("queue", QUEUES)
def test_no_role_lists_a_whole_bucket_or_writes_others_results(queue: str) -> None:
    for name in ("uploads", "media", "archive"):
        assert not allows(queue, "s3:ListBucket", bucket(name))
        assert not allows(queue, "s3:ListBucketVersions", bucket(name))
    for other in set(QUEUES) - {queue}:
        assert not allows(queue, "s3:PutObject", bucket("archive", f"results/{other}/x.json"))


@pytest.mark.parametrize("queue", sorted(set(QUEUES) - {"maintenance"}))
def test_only_the_erasure_of_a_user_removes_a_version_for_good(queue: str) -> None:
    for name, key in (("uploads", "uploads/u/p/a.jpg"), ("media", "media/p/h/a.webp"), ("archive", "posts/x")):
        assert not allows(queue, "s3:DeleteObjectVersion", bucket(name, key))


@pytest.mark.parametrize("queue", QUEUES)
def test_no_role_changes_the_deployment(queue: str) -> None:
    for action in (
        "iam:PassRole",
        "iam:CreateRole",
        "lambda:UpdateFunctionCode",
        "lambda:InvokeFunction",
        "sts:AssumeRole",
    ):
        assert not allows(queue, action, f"arn:aws:iam::{ACCOUNT}:role/{STACK}-anything")


@pytest.mark.parametrize("queue", sorted(set(QUEUES) - {"media"}))
def test_only_media_reads_originals(queue: str) -> None:
    assert allows("media", "s3:GetObject", bucket("uploads", "uploads/u/p/a.jpg"))
    assert not allows(queue, "s3:GetObject", bucket("uploads", "uploads/u/p/a.jpg"))
