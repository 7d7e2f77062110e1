"""The tables and buckets of template.yaml in moto, made once for a module of tests and emptied between them.

Making them takes longer than most of the tests that fill them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import s3_backends

from nexus import aws, backend, observe, settings
from tests.support import moto_partiql, sandboxes
from tests.support.template import ACCOUNT, REGION, STACK, resolved, resources

_ENVIRONMENT = {
    "NEXUS_STACK": STACK,
    "NEXUS_ACCOUNT_ID": ACCOUNT,
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "POWERTOOLS_LOG_LEVEL": "CRITICAL",
}
_KEPT = ("TableName", "AttributeDefinitions", "KeySchema", "BillingMode", "GlobalSecondaryIndexes")


@contextmanager
def environment() -> Iterator[pytest.MonkeyPatch]:
    """The variables of a deployment, and fresh clients, for as long as the block."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "NEXUS_BACKEND", "NEXUS_RUN_DAYS"):
            patch.delenv(name, raising=False)
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        _forget()
        yield patch
    _forget()


@contextmanager
def tables_and_buckets() -> Iterator[None]:
    """All of them, with conditional PartiQL, and retries that do not wait."""
    with environment() as patch, mock_aws():
        moto_partiql.install(patch)
        sandboxes.no_sleep(patch)
        dynamodb, s3 = boto3.client("dynamodb"), boto3.client("s3")
        for body in resources("AWS::DynamoDB::Table").values():
            properties: dict[str, Any] = resolved(body["Properties"])
            dynamodb.create_table(**{name: properties[name] for name in _KEPT if name in properties})
        for body in resources("AWS::S3::Bucket").values():
            where: Any = {"LocationConstraint": REGION}
            s3.create_bucket(Bucket=resolved(body["Properties"])["BucketName"], CreateBucketConfiguration=where)
        yield


def clear() -> None:
    """Empties every table and bucket."""
    for table in dynamodb_backends[ACCOUNT][REGION].tables.values():
        table.items.clear()
    for bucket in s3_backends[ACCOUNT]["aws"].buckets.values():
        bucket.keys.clear()


def _forget() -> None:
    aws.reset()
    backend.reset()
    observe.logger.cache_clear()
    settings.settings.cache_clear()
