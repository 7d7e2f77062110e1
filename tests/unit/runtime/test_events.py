"""The forms in which an event reaches a function; no event, however broken, affects another."""

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus import clock
from nexus.eager import Context
from nexus.errors import InvalidMessage, Retry, UnknownTask
from nexus.registry import Implementation, registry
from nexus.testing import SentTasks, memory_backend
from nexus.worker import Run, handler, handler_for
from nexus.worker.entry import serve
from nexus.worker.events import upload_envelopes
from tests.support import own_catalogue as catalogue

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[SentTasks]:
    monkeypatch.setenv("NEXUS_QUEUE", "uploads")
    with memory_backend() as sent:
        yield sent


@pytest.fixture
def processed(monkeypatch: pytest.MonkeyPatch) -> list[catalogue.ProcessUpload]:
    """The uploads that the media task was called for; a key with "later" in it asks for a retry."""
    seen: list[catalogue.ProcessUpload] = []

    def work(args: catalogue.ProcessUpload, run: Run) -> catalogue.UploadReport:
        seen.append(args)
        if "later" in args.key:
            raise Retry("not yet", after=20)
        return catalogue.UploadReport(post_id="p", status="ready")

    task = catalogue.process_upload
    monkeypatch.setitem(registry._implementations, task.name, Implementation(task, work))
    return seen


def s3_record(key: str, **thing: Any) -> dict[str, Any]:
    body = {"key": key, "size": 1, "eTag": "e", "sequencer": "0A", **thing}
    return {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "nexus-test-uploads-123456789012"}, "object": body},
    }


def sqs_record(body: str, number: int = 1) -> dict[str, Any]:
    return {
        "messageId": f"m{number}",
        "receiptHandle": f"r{number}",
        "body": body,
        "attributes": {"ApproximateReceiveCount": "1"},
        "eventSource": "aws:sqs",
    }


# --- S3 ---


def test_an_uploads_key_is_decoded_and_its_version_and_order_kept() -> None:
    (envelope,) = upload_envelopes(
        [s3_record("uploads/u/p/caf%C3%A9+au+lait.jpg", versionId="v7", sequencer="0055AED6")], "process_upload"
    )
    assert envelope.args == {
        "bucket": "nexus-test-uploads-123456789012",
        "key": "uploads/u/p/café au lait.jpg",
        "event_order": "0055AED6",
        "version_id": "v7",
    }


def test_an_uploads_sending_time_is_that_of_its_s3_event() -> None:
    (envelope,) = upload_envelopes([{**s3_record("k"), "eventTime": "2026-11-22T12:00:00.250Z"}], "process_upload")
    assert envelope.sent_at == datetime(2026, 11, 22, 12, 0, 0, 250_000, UTC)


@pytest.mark.parametrize("time", [None, 7, "yesterday", "0001-01-01T00:00:00+14:00"])
def test_an_upload_whose_time_cannot_be_read_was_sent_now(time: Any) -> None:
    before = datetime.now(UTC)
    (envelope,) = upload_envelopes([{**s3_record("k"), "eventTime": time}], "process_upload")
    assert before <= envelope.sent_at <= datetime.now(UTC)


def test_the_same_event_twice_is_one_run_and_a_new_version_another() -> None:
    first, again = upload_envelopes([s3_record("k"), s3_record("k")], "process_upload")
    (newer,) = upload_envelopes([s3_record("k", sequencer="0B")], "process_upload")
    assert first.id == again.id != newer.id


def test_every_record_of_an_event_is_run(tasks: SentTasks, processed: list[Any]) -> None:
    handler({"Records": [s3_record("uploads/u/p/a.jpg"), s3_record("uploads/u/p/b.jpg")]}, Context())
    assert [args.key for args in processed] == ["uploads/u/p/a.jpg", "uploads/u/p/b.jpg"]


def test_s3s_test_event_and_removals_are_ignored(tasks: SentTasks, processed: list[Any]) -> None:
    assert handler({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}, Context()) is None
    handler({"Records": [{**s3_record("k"), "eventName": "ObjectRemoved:Delete"}]}, Context())
    assert handler({"Records": [sqs_record('{"Service":"Amazon S3","Event":"s3:TestEvent"}')]}, Context()) == {
        "batchItemFailures": []
    }
    assert processed == []
    assert tasks.dead_letters == []


def test_an_upload_to_be_tried_again_fails_the_invocation_so_that_its_destination_queue_gets_it(
    tasks: SentTasks, processed: list[Any]
) -> None:
    event = {"Records": [s3_record("uploads/u/p/later.jpg"), s3_record("uploads/u/p/a.jpg")]}
    with pytest.raises(Retry, match=r"the queue: [0-9a-f-]{36}$"):
        handler(event, Context())

    # Lambda's on-failure destination wraps the event; the queue's delivery continues with the second attempt.
    message = {"version": "1.0", "requestContext": {"condition": "RetriesExhausted"}, "requestPayload": event}
    assert handler({"Records": [sqs_record(json.dumps(message))]}, Context()) == {
        "batchItemFailures": [{"itemIdentifier": "m1"}]  # not before its backoff is over
    }
    with clock.not_before(time.time() + 30):
        answer = handler({"Records": [sqs_record(json.dumps(message))]}, Context())

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert [args.key for args in processed] == [f"uploads/u/p/{name}.jpg" for name in ("later", "a", "later")]


# --- direct ---


def test_a_direct_invocation_answers_with_the_settled_run(tasks: SentTasks) -> None:
    answer = handler({"task": "ping", "args": {"text": "hi"}}, Context())
    assert answer["status"] == "SUCCESS"
    assert answer["result"] == {"text": "hi", "queue": "uploads", "function": "this process"}


def test_a_failed_direct_invocation_returns_its_reason_and_leaves_no_dead_letter(
    tasks: SentTasks, processed: list[Any]
) -> None:
    answer = handler({"task": "process_upload", "args": {"bucket": "bbb", "key": "later"}}, Context())
    assert answer["status"] == "FAILURE"
    assert answer["error"] == {"type": "Retry", "message": "not yet"}
    assert tasks.dead_letters == []


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"task": "welcome", "args": {}}, UnknownTask),
        ({"task": "no_such"}, UnknownTask),
        ({"task": "ping", "args": {"text": 3}}, InvalidMessage),
        ([1], InvalidMessage),
    ],
)
def test_a_direct_invocation_that_cannot_run_gets_an_error(
    tasks: SentTasks, event: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        handler(event, Context())


def test_a_handler_for_one_task_refuses_other_tasks(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(args: catalogue.SendNote, run: Run) -> catalogue.NoteSent:
        return catalogue.NoteSent(notification_id="n")

    task = catalogue.send_note
    monkeypatch.setitem(registry._implementations, task.name, Implementation(task, work))
    own = handler_for(work)
    assert own({"args": {"user_id": "u", "kind": "k", "text": "t"}}, Context())["status"] == "SUCCESS"
    with pytest.raises(UnknownTask):
        own({"task": "ping", "args": {}}, Context())


# --- anything ---

ENVELOPE = st.fixed_dictionaries(
    {},
    optional={
        "v": st.sampled_from([1, 2, "1", None]),
        "id": st.uuids().map(str) | st.text(max_size=5),
        "task": st.sampled_from(["ping", "process_upload", "welcome", "nope", "", 4]),
        "args": st.dictionaries(st.sampled_from(["text", "bucket", "key"]), st.text(max_size=8) | st.integers())
        | st.none(),
        "sent_at": st.sampled_from(["2026-11-22T02:00:00Z", "yesterday", 7]),
        "parent": st.uuids().map(str) | st.none(),
        "segment": st.none() | st.just({"index": 0, "total": 1}) | st.just({"index": -1}) | st.text(max_size=3),
        "expires_at": st.sampled_from(["2020-01-01T00:00:00Z", "2090-01-01T00:00:00Z", None, 3]),
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
BODY = (
    st.text(max_size=60)
    | st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape"))
    | JSON.map(json.dumps)
    | ENVELOPE.map(json.dumps)
    | st.lists(JSON, max_size=3).map(lambda records: json.dumps({"Records": records}))
    | JSON.map(lambda value: json.dumps({"requestContext": {}, "requestPayload": value}))
)


@settings(max_examples=300)
@given(bodies=st.lists(BODY, min_size=1, max_size=6))
def test_each_record_of_any_batch_ends_settled_retried_or_dead_lettered(
    processed: list[Any], bodies: list[str]
) -> None:
    with memory_backend() as tasks:
        records = [sqs_record(body, n) for n, body in enumerate(bodies)]
        answer = serve("uploads", registry.served_by("uploads"), {"Records": records}, Context())

        again = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        assert again <= {record["messageId"] for record in records}
        for _, letter in tasks.dead_letters:
            assert letter.attributes["ErrorType"] in ("InvalidMessage", "UnknownTask")
            assert letter.attributes["ErrorMessage"]
            letter.body.encode()
        for item in tasks.store.items.values():
            assert item.get("status", "-") in ("-", "SUCCESS", "FAILURE", "REVOKED", "RETRY")


@settings(max_examples=150)
@given(event=JSON | st.dictionaries(st.sampled_from(["Records", "task", "args", "id", "v", "Event"]), JSON, max_size=4))
def test_any_event_is_answered_or_raises_a_named_error(processed: list[Any], event: Any) -> None:
    with memory_backend(), contextlib.suppress(InvalidMessage, UnknownTask):  # and nothing else comes out
        serve("uploads", registry.served_by("uploads"), event, Context())
