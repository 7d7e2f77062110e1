"""One bad run or message never costs its neighbours anything."""

import json
from collections import Counter
from typing import Any

import pytest

from nexus.eager import Context
from nexus.registry import Implementation, registry
from nexus.testing import SentTasks
from nexus.worker import Run
from nexus.worker.entry import serve
from tests.support import own_catalogue as catalogue
from tests.support.own_catalogue import NOTE
from tests.unit.runtime.conftest import invoke

pytestmark = pytest.mark.usefixtures("environment")


class Unprintable(Exception):
    """An exception whose own text raises."""

    def __str__(self) -> str:
        raise ValueError("no text")


FAULTS: dict[str, BaseException] = {
    "leaves": SystemExit(3),
    "closes its generator": GeneratorExit(),
    "has no text": Unprintable(),
    "quotes a file name that is not UTF-8": ValueError("a\udce9.jpg"),
    "quotes what SQS refuses": ValueError("\ufffe \uffff \x00 \x1b[2J"),
    "is long": ValueError("x" * 2_000_000),
}


@pytest.fixture
def effects(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each note was sent; one whose text names a fault raises it."""
    seen: Counter[str] = Counter()

    def work(args: catalogue.SendNote, run: Run) -> catalogue.NoteSent:
        seen[args.text] += 1
        if args.text in FAULTS:
            raise FAULTS[args.text]
        return catalogue.NoteSent(notification_id=args.text)

    task = catalogue.send_note
    monkeypatch.setitem(registry._implementations, task.name, Implementation(task, work))
    return seen


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_that_raises_anything_is_tried_again_and_dead_lettered_and_its_neighbours_run_once(
    tasks: SentTasks, effects: Counter[str], fault: str
) -> None:
    texts = [f"good {n}" for n in range(4)] + [fault] + [f"good {n}" for n in range(4, 9)]
    handles = [catalogue.send_note.delay(**{**NOTE, "text": text}) for text in texts]

    answer = invoke([sent.message.body for sent in tasks.transport.sent])
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m4"}]}
    tasks.run()

    assert [handle.status for handle in handles] == ["SUCCESS"] * 4 + ["FAILURE"] + ["SUCCESS"] * 5
    assert {handle.attempts for handle in handles if handle.status == "SUCCESS"} == {1}
    assert effects == Counter(texts) + Counter({fault: 3})
    ((_, letter),) = tasks.dead_letters
    assert json.loads(letter.body)["id"] == handles[4].id
    assert all(value.encode() and len(value) <= 1024 for value in letter.attributes.values())


BAD_BODIES = {
    "deep JSON": "[" * 100_000 + "]" * 100_000,
    "deep JSON in an envelope": '{"v":1,"args":' + "[" * 100_000 + "]" * 100_000 + "}",
    "a task with control characters": json.dumps(
        {"v": 1, "id": "01900000-0000-7000-8000-000000000001", "task": "send\u0000_note", "args": {}}
    ),
    "a lone surrogate in an S3 key": json.dumps(
        {
            "Records": [
                {
                    "eventSource": "aws:s3",
                    "eventName": "ObjectCreated:Put",
                    "s3": {"bucket": {"name": "b"}, "object": {"key": "uploads/\ud800"}},
                }
            ]
        }
    ),
    "records of SNS": json.dumps({"Records": [{"EventSource": "aws:sns", "Sns": {}}]}),
    "nothing": "",
    "large and no envelope": "x" * 1_000_000,
    "large and refused": json.dumps(
        {"v": 1, "id": "01900000-0000-7000-8000-000000000002", "task": "send_note", "args": {"blob": "x" * 900_000}}
    ),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_message_that_cannot_be_read_is_dead_lettered_as_it_came_and_its_neighbours_run(
    tasks: SentTasks, effects: Counter[str], name: str
) -> None:
    handles = [catalogue.send_note.delay(**{**NOTE, "text": f"good {n}"}) for n in range(9)]
    good = [sent.message.body for sent in tasks.transport.sent]

    answer = invoke([*good[:4], BAD_BODIES[name], *good[4:]])

    assert answer == {"batchItemFailures": []}
    assert {handle.status for handle in handles} == {"SUCCESS"}
    ((_, letter),) = tasks.dead_letters
    assert letter.body == (BAD_BODIES[name] or "(empty)")
    assert letter.attributes["ErrorType"] in ("InvalidMessage", "UnknownTask")


def test_a_validator_that_raises_what_pydantic_does_not_expect_gives_up_only_its_own_message(
    tasks: SentTasks, effects: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._declared, "send_note", (catalogue.like_note(), "test"))
    handles = [catalogue.send_note.delay(**{**NOTE, "kind": kind}) for kind in ("like", "poke", "like")]

    assert invoke([sent.message.body for sent in tasks.transport.sent]) == {"batchItemFailures": []}

    assert [handle.status for handle in handles] == ["SUCCESS", "FAILURE", "SUCCESS"]
    ((_, letter),) = tasks.dead_letters
    assert (letter.attributes["ErrorType"], letter.attributes["ErrorMessage"]) == ("KeyError", "'poke'")


@pytest.mark.parametrize(
    "record",
    [
        {"EventSource": "aws:sns", "Sns": {"Message": "hi"}},
        {"eventSource": "aws:kinesis", "kinesis": {}},
        {"eventSource": "aws:dynamodb", "dynamodb": {}},
        {"eventSource": "aws:ses", "ses": {}},
        {"eventSource": "aws:codecommit"},
        {"odd": True},
    ],
    ids=lambda record: str(next(iter(record.values()))),
)
def test_an_event_of_an_unknown_source_is_refused(tasks: SentTasks, record: dict[str, Any]) -> None:
    from nexus.errors import InvalidMessage

    with pytest.raises(InvalidMessage, match="a function serves SQS messages"):
        serve("default", registry.served_by("default"), {"Records": [record]}, Context())
