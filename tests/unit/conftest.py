"""Unit tests: AWS is moto, built from template.yaml; nothing opens a socket."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from pytest_socket import disable_socket

from nexus import aws, backend, observe, settings, store, transport
from tests.support.template import ACCOUNT, REGION, STACK, resolved, resources


@pytest.fixture(autouse=True)
def _no_network() -> None:
    disable_socket(allow_unix_socket=True)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The two variables of a deployment, and none of the machine's own AWS settings."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "NEXUS_BACKEND", "NEXUS_RUN_DAYS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "NEXUS_STACK": STACK,
        "NEXUS_ACCOUNT_ID": ACCOUNT,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "POWERTOOLS_LOG_LEVEL": "CRITICAL",
    }.items():
        monkeypatch.setenv(name, value)
    _forget()
    yield
    _forget()


def _forget() -> None:
    aws.reset()
    backend.reset()
    observe.logger.cache_clear()
    settings.settings.cache_clear()
    transport.queue_url.cache_clear()


@pytest.fixture
def cloud(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every table, queue and bucket of template.yaml, in moto.

    moto's PartiQL knows no conditions, so batched writes go one by one here, by the same rules; the batched form runs
    against the local cloud (tests/integration).
    """
    monkeypatch.setattr(store.DynamoStore, "apply_all", lambda self, writes: [self.apply(write) for write in writes])
    with mock_aws():
        dynamodb, sqs, s3 = boto3.client("dynamodb"), boto3.client("sqs"), boto3.client("s3")
        for body in resources("AWS::DynamoDB::Table").values():
            _create_table(dynamodb, resolved(body["Properties"]))
        for body in resources("AWS::SQS::Queue").values():
            properties = resolved(body["Properties"])
            attributes: Any = {"VisibilityTimeout": str(properties.get("VisibilityTimeout", 30))}
            sqs.create_queue(QueueName=properties["QueueName"], Attributes=attributes)
        for body in resources("AWS::S3::Bucket").values():
            properties = resolved(body["Properties"])
            where: Any = {"LocationConstraint": REGION}
            s3.create_bucket(Bucket=properties["BucketName"], CreateBucketConfiguration=where)
            if "VersioningConfiguration" in properties:
                versioning = properties["VersioningConfiguration"]
                s3.put_bucket_versioning(Bucket=properties["BucketName"], VersioningConfiguration=versioning)
        yield


def _create_table(dynamodb: Any, properties: dict[str, Any]) -> None:
    wanted = (
        "TableName",
        "AttributeDefinitions",
        "KeySchema",
        "BillingMode",
        "GlobalSecondaryIndexes",
        "StreamSpecification",
    )
    request = {name: properties[name] for name in wanted if name in properties}
    if "StreamSpecification" in request:
        request["StreamSpecification"] = {"StreamEnabled": True, **request["StreamSpecification"]}
    dynamodb.create_table(**request)
