"""What Lambda gives a function, decoded: SQS records, S3's records, and the S3 events that a failed invocation left."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import unquote_plus

from nexus.envelope import Envelope, decode
from nexus.errors import InvalidMessage
from nexus.ids import derived_id


@dataclass(frozen=True, slots=True)
class SqsMessage:
    """The parts of an SQS record that matter."""

    id: str
    receipt: str
    body: str
    receives: int = 1

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        receives = str(_mapping(record.get("attributes")).get("ApproximateReceiveCount", "1"))
        return cls(
            id=str(record["messageId"]),
            receipt=str(record.get("receiptHandle", "")),
            body=str(record.get("body", "")),
            receives=int(receives) if receives.isdecimal() else 1,
        )


def envelopes_in(body: str, upload_task: str | None) -> list[Envelope]:
    """The envelopes in a message: its own, or those of the S3 event that a failed invocation left in the queue.

    Raises InvalidMessage.
    """
    try:
        value = json.loads(body)
    except ValueError:
        return [decode(body)]
    except RecursionError:
        raise InvalidMessage("not an envelope: its JSON is nested too deeply") from None
    if isinstance(value, dict) and "requestPayload" in value and "requestContext" in value:
        value = value["requestPayload"]
    if isinstance(value, dict) and isinstance(value.get("Records"), list):
        return upload_envelopes([record for record in value["Records"] if isinstance(record, dict)], upload_task)
    if isinstance(value, dict) and value.get("Event") == "s3:TestEvent":
        return []
    return [decode(body)]


def upload_envelopes(records: Sequence[Mapping[str, Any]], task: str | None) -> list[Envelope]:
    """The runs of `task` that S3's ObjectCreated records stand for; other records (s3:TestEvent, removals) are none.

    Keys come URL-encoded, with + for a space. The run's id derives from what names the upload, so an event that S3
    delivers twice is one run. Raises InvalidMessage when no task of this queue starts on an upload.
    """
    envelopes = []
    for record in records:
        if not str(record.get("eventName", "")).startswith(("ObjectCreated:", "s3:ObjectCreated:")):
            continue
        if task is None:
            raise InvalidMessage("an S3 event, and no task of this queue starts on an upload")
        s3 = _mapping(record.get("s3"))
        bucket, thing = str(_mapping(s3.get("bucket")).get("name", "")), _mapping(s3.get("object"))
        key = unquote_plus(str(thing.get("key", "")))
        version, order = thing.get("versionId"), str(thing.get("sequencer", ""))
        args = {"bucket": bucket, "key": key, "event_order": order}
        if version and version != "null":
            args["version_id"] = str(version)
        run_id = derived_id("s3", bucket, key, version, order or thing.get("eTag"))
        envelopes.append(Envelope(id=run_id, task=task, args=args, sent_at=_time(record.get("eventTime"))))
    return envelopes


def _time(text: Any) -> datetime:
    """S3's time of an event, which every attempt sees alike; now, where there is none that can be read."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return datetime.now(UTC)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
