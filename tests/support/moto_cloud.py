"""The tables, queues and buckets of template.yaml in moto, empty, and the variables that point at them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from decimal import Decimal
from functools import lru_cache
from threading import Condition, RLock
from typing import Any

import boto3
import pytest
from botocore.loaders import create_loader
from botocore.utils import parse_timestamp
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.serialize import ResponseSerializer
from moto.dynamodb import responses
from moto.dynamodb.exceptions import MockValidationException
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.parsing.key_condition_expression import parse_expression
from moto.s3.models import s3_backends
from moto.sqs.models import SQSBackend, sqs_backends

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
"""Many objects in an S3 listing have the same time, which botocore parses for each."""

_loader = lru_cache(create_loader)
"""Shared by tests: each test's own Session would read the services' models from their files again."""

_respond, _in_turn = BotocoreStubber.process_request, RLock()
_receive, _pick = SQSBackend.receive_message, ResponseSerializer.get_value
_TYPES = frozenset({"S", "N", "B", "SS", "NS", "BS", "M", "L", "NULL", "BOOL"})

_made: list[dict[str, Any]] = []
"""The state of moto's DynamoDB, SQS and S3 after the process's first deployment, to copy for the others."""


@contextmanager
def environment() -> Iterator[pytest.MonkeyPatch]:
    """Sets only a deployment's variables, and creates new clients, for the duration of the block."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "NEXUS_BACKEND", "NEXUS_CATALOGUE", "NEXUS_RUN_DAYS"):
            patch.delenv(name, raising=False)
        for name, value in {**ENVIRONMENT, **UNHURRIED, "POWERTOOLS_LOG_LEVEL": "CRITICAL"}.items():
            patch.setenv(name, value)
        patch.setattr("botocore.session.create_loader", _loader)
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
        patch.setattr(BotocoreStubber, "process_request", _one_at_a_time)
        patch.setattr(SQSBackend, "receive_message", _received)
        patch.setattr(responses, "parse_expression", _in_order)
        patch.setattr(ResponseSerializer, "get_value", _picked)
        if _made:
            _restore()
        else:
            _create()
            _made.extend(_copies([getattr(keeper, name) for keeper, name in _states()]))
        yield


def _create() -> None:
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


def _states() -> list[tuple[Any, str]]:
    """moto's state of the resources that `_create` makes."""
    return [
        (dynamodb_backends[ACCOUNT][REGION], "tables"),
        (sqs_backends[ACCOUNT][REGION], "queues"),
        (s3_backends[ACCOUNT]["aws"], "buckets"),
        (s3_backends, "bucket_accounts"),
    ]


def _copies(states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    locks = [queue._messages_lock for state in states for queue in state.values() if hasattr(queue, "_messages_lock")]
    return deepcopy(states, {id(lock): Condition() for lock in locks})


def _restore() -> None:
    for (keeper, name), state in zip(_states(), _copies(_made), strict=True):
        getattr(keeper, name).update(state)


def _one_at_a_time(self: BotocoreStubber, request: Any) -> Any:
    """Responds to one request at a time: moto's tables are not thread-safe, and lose one of two items put at once."""
    with _in_turn:
        return _respond(self, request)


def _received(self: SQSBackend, queue_name: str, count: int, _seconds: int, *options: Any) -> Any:
    """Receives without waiting: AWS waits in order to query all its servers, and moto has only one."""
    return _receive(self, queue_name, count, 0, *options)


def _in_order(**given: Any) -> Any:
    """Refuses a key condition whose lower bound is above the upper one, as DynamoDB does."""
    for ends in re.findall(r"BETWEEN (:\w+) AND (:\w+)", given["key_condition_expression"]):
        low, high = (given["expression_attribute_values"][end] for end in ends)
        if (Decimal(low["N"]) > Decimal(high["N"])) if "N" in low else (low["S"] > high["S"]):
            raise MockValidationException(
                "Invalid KeyConditionExpression: The BETWEEN operator requires upper bound to be greater than or equal "
                f"to lower bound; lower bound operand: AttributeValue: {low}, upper bound operand: {high}"
            )
    return parse_expression(**given)


def _picked(self: ResponseSerializer, value: Any, key: str, shape: Any) -> Any:
    """Returns DynamoDB's values at once, in which moto would look for ten types under four names each."""
    if key in _TYPES and type(value) is dict and len(value) == 1:
        return value.get(key)
    return _pick(self, value, key, shape)


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
