"""Dead letters are read without side effects, sent again before they are deleted, and read once per pass."""

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from nexus.backend import backend
from nexus.backend.store import Write
from nexus.backend.transport import DeadLetter, queue_url
from nexus.builtin import ping
from nexus.client import AsyncResult
from nexus.envelope import Envelope
from nexus.errors import InvalidMessage
from nexus.ids import derived_id
from nexus.runs import payloads
from nexus.runs.record import RunError, RunRecord, error_text
from nexus.runs.transitions import never_ran
from nexus.settings import settings
from nexus.worker.delivery import Received
from ops import dead_letters
from ops.cli import common
from ops.dead_letters import Filter
from ops.main import main
from ops.problems import ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("cloud")


def give_up(number: int, task: str = "ping", error: str = "ValueError", at: str = "2026-11-22T10:00:00Z") -> Envelope:
    """A failed run with a dead letter in the queue of `default`, as the worker leaves it."""
    envelope = Envelope(id=derived_id("letter", number), task=task, args={"text": f"n{number}"})
    backend().store.apply(
        never_ran(envelope, "default", RunError(error, "no luck"), 1.0, 2_000_000_000, known=None, log="l")
    )
    attributes = {
        "ErrorType": error,
        "ErrorMessage": "no luck",
        "Task": task,
        "RunId": envelope.id,
        "Attempts": "4",
        "Log": "group stream request",
        "FailedAt": at,
    }
    backend().transport.dead_letter("default", DeadLetter(envelope.encode(), attributes, task))
    return envelope


def waiting(name: str) -> list[Any]:
    """Every message of a queue, taken out."""
    sqs, url, found = boto3.client("sqs"), queue_url(name), []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        found += messages
    return found


def record(run_id: str) -> RunRecord:
    return RunRecord.of(backend().store.get([run_id])[run_id])


@pytest.fixture
def dead() -> str:
    return settings().dead_letter_queue_name("default")


def test_reading_returns_each_letter_once_and_leaves_all_visible(dead: str) -> None:
    # Given 25 letters, when they are read
    sent = {give_up(number).id for number in range(25)}
    letters = list(dead_letters.read("default", Filter()))
    # Then each is there once, with its reason
    assert {letter.id for letter in letters} == sent
    assert len(letters) == 25
    assert (letters[0].error, letters[0].message, letters[0].attempts) == ("ValueError", "no luck", 4)
    # And the next reader can receive all of them at once
    assert len(waiting(dead)) == 25


def test_a_read_with_a_limit_makes_the_letters_visible_again(dead: str) -> None:
    for number in range(25):
        give_up(number)
    assert len(list(dead_letters.read("default", Filter(), limit=3))) == 3
    assert len(waiting(dead)) == 25


@pytest.mark.parametrize(
    ("rounds", "seen"), [(1, 30), (4, 20)], ids=["some come again", "all have come again, and more than once"]
)
def test_a_read_slower_than_the_visibility_timeout_ends_when_letters_repeat(
    dead: str, monkeypatch: pytest.MonkeyPatch, rounds: int, seen: int
) -> None:
    """Eight requests a round: twenty letters, then rounds of two of them again, then the other ten."""
    for number in range(30):
        give_up(number)
    scan = dead_letters._Scan("default")
    messages = waiting(dead)
    first, second, third = messages[:10], messages[10:20], messages[20:]
    responses = [first, second, *[[]] * 6, *[first[:2]] * 8 * rounds, third, *[[]] * 40]

    class Slow:
        def receive_message(self, **_: Any) -> Any:
            return {"Messages": responses.pop(0)}

    monkeypatch.setattr(dead_letters, "client", lambda _: Slow())
    assert len([letter.id for page in scan.pages() for letter in page]) == seen


def test_several_filters_must_all_match(dead: str) -> None:
    give_up(1, error="ValueError")
    give_up(2, error="TimeLimitExceeded", at="2020-01-01T00:00:00Z")
    give_up(3, task="send_notification", error="TimeLimitExceeded", at="2020-01-01T00:00:00Z")
    found = dead_letters.read("default", Filter(task="ping", error="timelimit", older_than=86_400))
    assert [letter.args for letter in found] == [{"text": "n2"}]


def test_letters_that_are_no_messages_of_tasks_are_shown_too(dead: str) -> None:
    boto3.client("sqs").send_message(QueueUrl=queue_url(dead), MessageBody="hello")
    (letter,) = dead_letters.read("default", Filter())
    assert (letter.id, letter.task, letter.error) == (letter.message_id, "", "Redriven")
    assert letter.args is None
    assert letter.sent_at == letter.failed_at > 0


def test_a_letter_shows_when_its_run_was_sent_and_not_when_it_was_given_up(dead: str) -> None:
    sent = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
    envelope = Envelope(id=derived_id("letter", 1), task="ping", sent_at=sent)
    by_hand = json.dumps({"id": derived_id("letter", 2), "task": "ping"})
    for body in (envelope.encode(), by_hand):
        backend().transport.dead_letter("default", DeadLetter(body, {"FailedAt": "2026-11-22T10:00:00Z"}, "ping"))
    letters = {letter.id: letter for letter in dead_letters.read("default", Filter())}
    assert letters[envelope.id].sent_at == sent.timestamp()
    assert letters[envelope.id].failed_at == sent.timestamp() + 1800
    # A message written by hand has no time, so SQS's is used
    assert time.time() - 60 < letters[derived_id("letter", 2)].sent_at < time.time() + 1


def test_retry_sends_the_same_message_with_the_same_id_and_then_deletes(dead: str) -> None:
    envelope = give_up(1)
    give_up(2, task="send_notification")
    outcome = dead_letters.retry("default", Filter(task="ping"))
    assert (outcome.done, outcome.failed) == (1, {})
    (message,) = waiting(settings().queue_name("default"))
    assert json.loads(message["Body"]) == json.loads(envelope.encode())
    assert len(waiting(dead)) == 1
    # The run is shown as waiting, and no longer as failed
    assert record(envelope.id) == RunRecord(
        id=envelope.id,
        status="PENDING",
        task="ping",
        queue="default",
        args={"text": "n1"},
        sent_at=record(envelope.id).sent_at,
    )


def test_a_run_that_succeeded_meanwhile_is_not_made_to_wait(dead: str) -> None:
    # Given a dead letter that SQS delivered twice: the run has succeeded since
    envelope = give_up(1)
    backend().store.apply(Write(envelope.id, {"status": "SUCCESS", "result": "null"}))
    assert dead_letters.retry("default", Filter()).done == 1
    assert AsyncResult[Any](envelope.id).status == "SUCCESS"


def test_a_letter_whose_new_message_is_refused_is_not_deleted(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given SQS that refuses every second message
    letters = {give_up(number).id for number in range(10)}
    real = dead_letters._send

    def refusing(queue: str, some: Any, *marked: Any) -> dict[str, str]:
        return real(queue, some[::2], *marked) | {letter.id: "refused" for letter in some[1::2]}

    monkeypatch.setattr(dead_letters, "_send", refusing)
    outcome = dead_letters.retry("default", Filter())
    # Then the accepted ones are no longer dead letters, and the others still are
    again = {json.loads(m["Body"])["id"] for m in waiting(settings().queue_name("default"))}
    left = {json.loads(m["Body"])["id"] for m in waiting(dead)}
    assert again | left == letters
    assert not again & left
    assert set(outcome.failed) == left
    # And the runs of the former wait, while those of the latter have failed as before
    assert {AsyncResult[Any](run_id).status for run_id in again} == {"PENDING"}
    assert {(r.status, r.error.type if r.error else "") for r in map(record, left)} == {("FAILURE", "ValueError")}


def test_a_letter_that_fails_again_at_once_is_not_sent_round_and_round(
    dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a function that gives up every message as soon as it is sent
    give_up(1)
    real = dead_letters._send

    def and_back(queue: str, some: Any, *marked: Any) -> dict[str, str]:
        refused = real(queue, some, *marked)
        for letter in some:
            backend().transport.dead_letter(queue, DeadLetter(letter.body, {"RunId": letter.id}, ""))
        return refused

    monkeypatch.setattr(dead_letters, "_send", and_back)
    outcome = dead_letters.retry("default", Filter())
    assert outcome.done == 1
    assert len(waiting(dead)) == 1


def test_edited_arguments_are_checked_and_sent_under_the_same_id(dead: str) -> None:
    envelope = give_up(1)
    with pytest.raises(InvalidMessage, match="at most 200"):
        dead_letters.edit("default", envelope.id, ping, {"text": "x" * 300})
    assert len(list(dead_letters.read("default", Filter()))) == 1
    assert dead_letters.edit("default", envelope.id, ping, {"text": "fixed"}) is not None
    (message,) = waiting(settings().queue_name("default"))
    assert json.loads(message["Body"]) | {"args": {"text": "fixed"}} == json.loads(message["Body"])
    assert json.loads(message["Body"])["id"] == envelope.id
    assert not waiting(dead)
    assert backend().store.get([envelope.id])[envelope.id]["args"] == '{"text":"fixed"}'


@pytest.mark.parametrize(("args", "text"), [({}, "kept in S3"), ({"text": "edited"}, "edited")])
def test_an_argument_that_is_kept_in_s3_stays_there_unless_it_is_edited(args: dict[str, str], text: str) -> None:
    where = payloads.dump("0189d6b0-0000-7000-8000-000000000001", '"kept in S3"', inline=0)
    before = Envelope(id=derived_id("letter", 1), task="ping", refs={"text": where})

    after = dead_letters.edited(before, ping, args)

    delivered = Received(envelope=Envelope.model_validate_json(after.encode()), source="sqs")
    assert delivered.readable(ping).args.text == text
    assert (after.refs or {}).keys() | after.args.keys() == {"text"}


@pytest.mark.parametrize("status", ["STARTED", "FAILURE"])
def test_a_letter_sent_again_while_its_run_is_started_is_marked(status: str) -> None:
    envelope = give_up(1)
    backend().store.apply(Write(envelope.id, {"status": status}))

    dead_letters.retry("default", Filter())

    url = queue_url(settings().queue_name("default"))
    (message,) = boto3.client("sqs").receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    assert ("ErrorType" in message.get("MessageAttributes", {})) == (status == "STARTED")


def test_drop_deletes_only_the_letters_with_the_given_ids(dead: str) -> None:
    letters = [give_up(number) for number in range(12)]
    assert dead_letters.drop("default", Filter(ids=frozenset({letters[3].id, "unknown"}))).done == 1
    assert dead_letters.drop("default", Filter(ids=frozenset({letters[7].id[-8:]}))).done == 1
    left = {json.loads(m["Body"])["id"] for m in waiting(dead)}
    assert left == {e.id for e in letters} - {letters[3].id, letters[7].id}


class _MovingSqs:
    """StartMessageMoveTask as SQS documents it: asynchronous, looked at with ListMessageMoveTasks."""

    def __init__(self, *ends: dict[str, Any]) -> None:
        self.meta: Any = type("meta", (), {"region_name": "eu-west-1", "partition": "aws"})
        self.started: list[dict[str, str]] = []
        under_way = {"ApproximateNumberOfMessagesMoved": 10, "ApproximateNumberOfMessagesToMove": 30}
        self._results: Iterator[dict[str, Any]] = iter([{"Status": "RUNNING", **under_way}, *ends])

    def start_message_move_task(self, **request: str) -> dict[str, str]:
        self.started.append(request)
        return {"TaskHandle": "h"}

    def list_message_move_tasks(self, **_: object) -> dict[str, Any]:
        return {"Results": [next(self._results)]}


def test_all_letters_of_a_queue_are_moved_by_sqs(monkeypatch: pytest.MonkeyPatch) -> None:
    sqs = _MovingSqs({"Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 30})
    monkeypatch.setattr(dead_letters, "client", lambda service: sqs)
    monkeypatch.setattr("time.sleep", lambda _: None)
    reported: list[tuple[int, int | None]] = []
    assert dead_letters.move_all("default", lambda *progress: reported.append(progress)) == 30
    assert reported == [(10, 30), (30, None)]
    assert sqs.started[0]["SourceArn"].endswith("-default-dead")
    assert sqs.started[0]["DestinationArn"].endswith("-default")


@pytest.mark.parametrize(
    ("ends", "why"),
    [
        ([{"Status": "FAILED", "FailureReason": "AWS.SimpleQueueService.NonExistentQueue"}], "NonExistentQueue"),
        ([{"Status": "CANCELLING", "ApproximateNumberOfMessagesMoved": 11}, {"Status": "CANCELLED"}], "as CANCELLED"),
    ],
)
def test_a_move_that_sqs_does_not_complete_is_a_failure_with_its_reason(
    ends: list[dict[str, Any]], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends[-1]["ApproximateNumberOfMessagesMoved"] = 12
    monkeypatch.setattr(dead_letters, "client", lambda service: _MovingSqs(*ends))
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(Problem, match="SQS moved only 12 dead letters of default") as raised:
        dead_letters.move_all("default")
    assert why in raised.value.why
    assert raised.value.code == ExitCode.WRONG


# --- what EventBridge could not deliver ---


def test_an_event_that_a_rule_could_not_deliver_is_the_message_that_the_rule_would_have_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The dead letter contains the original event, and AWS's own attributes."""
    transformer = {
        "InputPathsMap": {"id": "$.id", "time": "$.time", "notification": "$.detail"},
        "InputTemplate": '{"id":"<id>","task":"record","args":{"notification":<notification>},"sent_at":"<time>"}',
    }

    class Events:
        exceptions = boto3.client("events", region_name="eu-west-1").exceptions

        def list_targets_by_rule(self, Rule: str) -> dict[str, Any]:  # noqa: N803
            assert Rule == "nexus-test-record"
            return {"Targets": [{"Id": "queue", "Arn": "arn", "InputTransformer": transformer}]}

    monkeypatch.setattr("ops.aws.client", lambda _: Events())
    event = {"id": derived_id("event", 1), "time": "2026-11-22T10:00:00Z", "detail": {"eventType": "Bounce"}}
    attributes = {
        "RULE_ARN": "arn:aws:events:eu-west-1:123456789012:rule/nexus-test-record",
        "ERROR_CODE": "NO_PERMISSIONS",
        "ERROR_MESSAGE": "the queue's policy does not allow it",
    }
    backend().transport.dead_letter("default", DeadLetter(json.dumps(event), attributes, "record"))

    (letter,) = dead_letters.read("default", Filter())

    assert (letter.id, letter.task, letter.error) == (event["id"], "record", "NO_PERMISSIONS")
    assert letter.message == "the queue's policy does not allow it"
    assert letter.args == {"notification": {"eventType": "Bounce"}}


def test_result_and_show_print_the_exceptions_class_and_where_it_was_raised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message's attributes have no room for a traceback: the run's record keeps it."""
    monkeypatch.setattr(common, "connect", lambda: None)
    monkeypatch.setattr(common, "the_queues", lambda _: ["default"])
    run_id = give_up(1).id
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 1 / 0
    backend().store.apply(Write(run_id, {"error": error_text(RunError.of(raised.value))}))

    for words in (["result", run_id], ["dlq", "show", run_id]):
        main(words)
        shown = capsys.readouterr().out
        assert "builtins.ZeroDivisionError" in shown
        assert "_ = 1 / 0" in shown

    main(["result", run_id, "--json"])
    assert json.loads(capsys.readouterr().out)["error"]["path"] == "builtins.ZeroDivisionError"
    main(["dlq", "show", run_id, "--json"])
    assert "_ = 1 / 0" in json.loads(capsys.readouterr().out)["traceback"]
