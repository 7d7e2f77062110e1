"""Decoding Lambda events: SQS records, S3 records, and the S3 events of failed invocations."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

from nexus import clock
from nexus.envelope import Envelope, decode
from nexus.errors import InvalidMessage
from nexus.ids import derived_id
from nexus.worker.delivery import Received, SqsMessage, mapping


def received(message: SqsMessage, upload_task: str | None) -> list[Received]:
    """The runs in a message: its own, or those of the S3 event that a failed invocation left in the queue.

    Raises InvalidMessage for any other body.
    """
    try:
        return _received(message, upload_task)
    except RecursionError:
        fault = "not an envelope: its JSON is nested too deeply"
    except UnicodeError:
        fault = "not an envelope: not valid Unicode"
    raise InvalidMessage(fault, fault)


def _received(message: SqsMessage, upload_task: str | None) -> list[Received]:
    with suppress(InvalidMessage):  # nearly every message is an envelope; an S3 event has no id and no task
        return [Received(envelope=decode(message.body), source="sqs", message=message)]
    try:
        value = json.loads(message.body)
    except ValueError:
        return [Received(envelope=decode(message.body), source="sqs", message=message)]
    if isinstance(value, dict) and "requestPayload" in value and "requestContext" in value:
        value = value["requestPayload"]
    if isinstance(value, dict) and isinstance(value.get("Records"), list):
        records = [record for record in value["Records"] if isinstance(record, dict)]
        foreign(records)
        event = replace(message, own=False)
        return [
            Received(envelope=envelope, source="sqs", message=event)
            for envelope in upload_envelopes(records, upload_task)
        ]
    if isinstance(value, dict) and value.get("Event") == "s3:TestEvent":
        return []
    return [Received(envelope=decode(message.body), source="sqs", message=message)]


def foreign(records: Sequence[Mapping[str, Any]]) -> None:
    """Raises InvalidMessage for records of a service that no function serves: treating them as done would lose them."""
    for record in records:
        source = str(record.get("eventSource") or record.get("EventSource") or "no eventSource")
        if source != "aws:s3":
            raise InvalidMessage(
                f"records of {source}: a function serves SQS messages with an envelope, S3's ObjectCreated events, "
                'and {"task": ..., "args": ...}',
                f"records of {source[:40]}",
            )


def upload_envelopes(records: Sequence[Mapping[str, Any]], task: str | None) -> list[Envelope]:
    """The runs of `task` for S3's ObjectCreated records; other records (s3:TestEvent, removals) start none.

    Keys come URL-encoded, with + for a space. The run's id derives from the upload's identity, so an event that S3
    delivers twice is one run. Raises InvalidMessage if no task of this queue starts on an upload.
    """
    envelopes = []
    for record in records:
        if not str(record.get("eventName", "")).startswith(("ObjectCreated:", "s3:ObjectCreated:")):
            continue
        if task is None:
            fault = "an S3 event, but no task of this queue starts on an upload"
            raise InvalidMessage(fault, fault)
        s3 = mapping(record.get("s3"))
        bucket, thing = str(mapping(s3.get("bucket")).get("name", "")), mapping(s3.get("object"))
        key = unquote_plus(str(thing.get("key", "")))
        version, order = thing.get("versionId"), str(thing.get("sequencer", ""))
        args = {"bucket": bucket, "key": key, "event_order": order}
        if version and version != "null":
            args["version_id"] = str(version)
        run_id = derived_id("s3", bucket, key, version, order or thing.get("eTag"))
        sent_at = _time(record.get("eventTime"))
        envelopes.append(Envelope(id=run_id, task=task, args=args, sent_at=sent_at, origin="upload"))
    return envelopes


def _time(text: Any) -> datetime:
    """S3's time of an event, which is the same for every attempt; the current time if it cannot be read."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return datetime.fromtimestamp(clock.now(), UTC)
