"""The tables, queues and buckets of template.yaml in moto, empty, and the variables that point at them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import boto3
import pytest
from botocore.utils import parse_timestamp
from moto import mock_aws
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends

from nexus import backend, settings
from nexus.aws import sdk
from nexus.backend import transport
from nexus.worker import observe
from tests.support import moto_partiql, sandboxes
from tests.support.template import ACCOUNT, ENVIRONMENT, REGION, resolved, resources

UNHURRIED = {"NEXUS_SEND_TIMEOUT": "600"}
"""On a busy machine moto may be slower than a producer's AWS timeout."""

_OF_A_TABLE = ("TableName", "AttributeDefinitions", "KeySchema", "BillingMode", "GlobalSecondaryIndexes")


_parse_timestamp = lru_cache(maxsize=10_000)(parse_timestamp)
"""Many objects in a listing of S3 have one time, and botocore parses it for each."""


@contextmanager
def environment() -> Iterator[pytest.MonkeyPatch]:
    """Sets only a deployment's variables, and fresh clients, for the duration of the block."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "NEXUS_BACKEND", "NEXUS_CATALOGUE", "NEXUS_RUN_DAYS"):
            patch.delenv(name, raising=False)
        for name, value in {**ENVIRONMENT, **UNHURRIED, "POWERTOOLS_LOG_LEVEL": "CRITICAL"}.items():
            patch.setenv(name, value)
        _forget()
        yield patch
    _forget()


@contextmanager
def deployment() -> Iterator[None]:
    """Creates all resources, with conditional PartiQL, and retries without delay."""
    with environment() as patch, mock_aws():
        moto_partiql.install(patch)
        patch.setattr("botocore.parsers.DEFAULT_TIMESTAMP_PARSER", _parse_timestamp)
        sandboxes.no_sleep(patch)
        dynamodb, sqs, s3 = boto3.client("dynamodb"), boto3.client("sqs"), boto3.client("s3")
        for properties in _resources("AWS::DynamoDB::Table"):
            dynamodb.create_table(**{name: properties[name] for name in _OF_A_TABLE if name in properties})
        for properties in _resources("AWS::SQS::Queue"):
            attributes: Any = {"VisibilityTimeout": str(properties.get("VisibilityTimeout", 30))}
            sqs.create_queue(QueueName=properties["QueueName"], Attributes=attributes)
        for properties in _resources("AWS::S3::Bucket"):
            where: Any = {"LocationConstraint": REGION}
            s3.create_bucket(Bucket=properties["BucketName"], CreateBucketConfiguration=where)
            if "VersioningConfiguration" in properties:
                versioning = properties["VersioningConfiguration"]
                s3.put_bucket_versioning(Bucket=properties["BucketName"], VersioningConfiguration=versioning)
        yield


def clear() -> None:
    """Empties every table, queue and bucket: creating them takes longer than most of the tests that use them."""
    for table in dynamodb_backends[ACCOUNT][REGION].tables.values():
        table.items.clear()
    for queue in sqs_backends[ACCOUNT][REGION].queues.values():
        queue._messages.clear()
        queue.pending_messages.clear()
    for bucket in s3_backends[ACCOUNT]["aws"].buckets.values():
        bucket.keys.clear()


def _resources(kind: str) -> list[dict[str, Any]]:
    return [resolved(body["Properties"]) for body in resources(kind).values()]


def _forget() -> None:
    sdk.reset()
    backend.reset()
    observe.logger.cache_clear()
    settings.settings.cache_clear()
    transport.queue_url.cache_clear()
