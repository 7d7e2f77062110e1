"""`nexus dlq`: dead letters edited in an editor, sent again and dropped, and what it says meanwhile."""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from nexus.backend import backend
from nexus.backend.store import Value, Write
from nexus.backend.transport import DeadLetter
from nexus.builtin import ping
from nexus.client import AsyncResult
from nexus.envelope import Envelope
from nexus.errors import InvalidMessage, SendFailed
from nexus.ids import derived_id, new_id
from nexus.runs import history, tallies
from nexus.runs.record import RunError
from nexus.runs.transitions import never_ran
from nexus.settings import settings
from ops import dead_letters
from ops.cli import output
from ops.cli.commands import dlq
from ops.dead_letters import Filter, Letter
from ops.main import main
from ops.problems import ExitCode
from tests.support.patience import next_millisecond
from tests.unit.ops.conftest import Tty

pytestmark = pytest.mark.usefixtures("cloud", "network")


class Slow:
    """A person who says yes only after another run has failed."""

    failed: str

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        next_millisecond()
        self.failed = give_up(derived_id("letter", 99))
        return "y\n"


@pytest.fixture(autouse=True)
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person at the terminal, who says yes."""
    monkeypatch.setattr("sys.stdin", Tty("y\n" * 3))


def give_up(run_id: str = derived_id("letter", 1), task: str = "ping", **attributes: str) -> str:
    """A run of `default` that failed, and its dead letter."""
    envelope = Envelope(id=run_id, task=task, args={"text": "wrong"})
    error = RunError("ValueError", "no luck")
    backend().store.apply(never_ran(envelope, "default", error, 1.0, 2_000_000_000, known=None, log="l"))
    given = {"ErrorType": "ValueError", "Task": task, "RunId": run_id, "FailedAt": "2026-11-22T10:00:00Z", **attributes}
    backend().transport.dead_letter("default", DeadLetter(envelope.encode(), given, task))
    return run_id


def rubbish(body: str = "not a message") -> str:
    """A dead letter that is not a task message. Returns its id."""
    backend().transport.dead_letter("default", DeadLetter(body, {}, "x"))
    (letter,) = dead_letters.read("default", Filter())
    return letter.id


def letters() -> list[Letter]:
    return list(dead_letters.read("default", Filter()))


def by_a_rule(number: int) -> dict[str, Any]:
    """An event that the rule nexus-test-record could not deliver: its dead letter holds the event itself."""
    event = {"id": derived_id("event", number), "time": "2026-11-22T10:00:00Z", "detail": {"text": f"n{number}"}}
    attributes = {"RULE_ARN": "arn:aws:events:eu-west-1:1:rule/nexus-test-record", "ERROR_CODE": "NO_PERMISSIONS"}
    backend().transport.dead_letter("default", DeadLetter(json.dumps(event), attributes, "record"))
    return event


# --- list ---


def test_json_lists_every_letter_and_a_table_the_first_fifty(capsys: pytest.CaptureFixture[str]) -> None:
    ids = {give_up(derived_id("letter", n)) for n in range(51)}

    assert main(["dlq", "list", "default", "--json"]) == ExitCode.DONE
    shown = capsys.readouterr()
    assert {json.loads(line)["id"] for line in shown.out.splitlines()} == ids
    assert shown.err == ""

    assert main(["dlq", "list", "default"]) == ExitCode.DONE
    text = capsys.readouterr().out
    assert sum(run_id in text for run_id in ids) == 50
    assert "51 dead letters in all: default 51. The first 50 are shown: --limit shows more, --groups" in text

    assert main(["dlq", "list", "default", "--json", "--limit", "2"]) == ExitCode.DONE
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_list_without_the_letters_that_another_reader_holds_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    give_up()
    reading = dead_letters.read("default", Filter())
    next(reading)  # another reader holds the letter
    assert main(["dlq", "list", "--json"]) == ExitCode.DONE
    assert "0 of 1 dead letters were read" in capsys.readouterr().err
    reading.close()  # type: ignore[attr-defined]  # it is a generator


# --- edit ---


def test_an_edit_without_arguments_opens_the_editor_and_sends_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = give_up()
    monkeypatch.setenv("EDITOR", "sed -i s/wrong/right/")

    assert main(["dlq", "edit", run_id]) == ExitCode.DONE

    shown = capsys.readouterr()
    assert 'was  {"text": "wrong"}' in shown.out
    assert 'is   {"text": "right"}' in shown.out
    assert "Send ping" in shown.err
    assert AsyncResult[Any](run_id).record().args == {"text": "right"}
    assert AsyncResult[Any](run_id).status == "PENDING"
    assert letters() == []


@pytest.mark.parametrize(
    ("editor", "code", "said"),
    [
        ("", ExitCode.USAGE, "Give name=value, or --unset NAME, or set EDITOR."),
        ("false", ExitCode.NOT_CONFIRMED, "The editor ended with an error."),
        ("sed -i s/}//", ExitCode.USAGE, "The edited text is not JSON"),
        ("sed -i -n s/{/[]/p", ExitCode.USAGE, "Arguments must be a JSON object"),
        (f"sed -i s/wrong/{'x' * 201}/", ExitCode.USAGE, "at most 200"),
    ],
)
def test_an_edit_that_cannot_be_sent_changes_nothing(
    editor: str, code: ExitCode, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = give_up()
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", editor)

    assert main(["dlq", "edit", run_id]) == code

    assert said in capsys.readouterr().err
    (letter,) = letters()
    assert letter.args == {"text": "wrong"}
    assert AsyncResult[Any](run_id).status == "FAILURE"


def test_an_argument_is_removed() -> None:
    run_id = give_up()
    assert main(["dlq", "edit", run_id, "--unset", "text", "--yes"]) == ExitCode.DONE
    assert AsyncResult[Any](run_id).record().args == {}


def test_neither_an_unknown_task_nor_another_message_can_be_edited(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlq", "edit", give_up(task="an_old_task"), "text=x"]) == ExitCode.WRONG
    assert "'an_old_task' is not a task of this catalogue." in capsys.readouterr().err
    assert main(["dlq", "drop", "--all", "--yes"]) == ExitCode.DONE

    assert main(["dlq", "edit", rubbish(), "text=x"]) == ExitCode.WRONG
    said = capsys.readouterr().err
    assert "It is not a task message." in said
    assert "nexus dlq retry" in said


def test_a_letter_that_someone_else_handled_meanwhile_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = give_up()
    edit = dead_letters.edit

    def late(queue: str, letter_id: str, *given: Any) -> Letter | None:
        dead_letters.drop(queue, Filter(ids=frozenset({letter_id})))
        return edit(queue, letter_id, *given)

    monkeypatch.setattr(dead_letters, "edit", late)
    assert main(["dlq", "edit", run_id, "text=x", "--yes"]) == ExitCode.WRONG
    assert "Someone else handled it first." in capsys.readouterr().err


def test_a_letter_without_a_message_has_no_arguments_to_edit() -> None:
    letter_id = rubbish()
    (letter,) = letters()
    with pytest.raises(InvalidMessage, match="it has no arguments to edit"):
        dead_letters.edit("default", letter_id, ping, {})
    with pytest.raises(InvalidMessage, match="it has no arguments to edit"):
        dead_letters.patched(letter, ping, {})
    assert [one.id for one in letters()] == [letter_id]


class Refusing:
    """SQS, which takes no message."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def send_message_batch(self, **given: Any) -> Any:
        return {"Failed": [{"Id": entry["Id"], "Code": "InternalError"} for entry in given["Entries"]]}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_a_letter_that_sqs_does_not_take_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = give_up()
    monkeypatch.setattr(dead_letters, "client", lambda service: Refusing(boto3.client(service)))

    with pytest.raises(SendFailed, match="InternalError"):
        dead_letters.edit("default", run_id, ping, {"text": "right"})
    assert main(["dlq", "retry", run_id]) == ExitCode.WRONG

    assert f"{run_id}: InternalError" in capsys.readouterr().out
    assert [letter.id for letter in letters()] == [run_id]


# --- show ---


def test_an_id_that_several_letters_begin_with_names_none(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (f"01a203f2-0000-7000-8000-00000000000{n}" for n in (1, 2))
    give_up(one)
    give_up(other)
    assert main(["dlq", "show", "01a203f2"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "01a203f2 matches 2 dead letters" in said
    assert one in said
    assert other in said
    assert main(["dlq", "show", other]) == ExitCode.DONE


def test_a_letter_that_sqs_itself_moved_shows_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    url = boto3.client("sqs").get_queue_url(QueueName=settings().dead_letter_queue_name("default"))["QueueUrl"]
    envelope = Envelope(id=derived_id("letter", 1), task="ping", args={})
    boto3.client("sqs").send_message(QueueUrl=url, MessageBody=envelope.encode())
    assert main(["dlq", "show", envelope.id]) == ExitCode.DONE
    assert "`nexus logs --queue default --since 1h`" in capsys.readouterr().err


def test_a_letter_shows_what_can_be_done_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    run_id = give_up(Log="group stream request")
    assert main(["dlq", "show", run_id]) == ExitCode.DONE
    said = capsys.readouterr().err
    assert f"`nexus logs {run_id}`" in said
    assert f"`nexus dlq retry {run_id}` sends it again, `nexus dlq edit {run_id} name=value`" in said

    assert main(["dlq", "drop", run_id, "--yes"]) == ExitCode.DONE
    backend().transport.dead_letter(
        "default", DeadLetter("not a message", {"ErrorType": "InvalidMessage", "Log": "l"}, "x")
    )
    (letter,) = letters()
    assert main(["dlq", "show", letter.id]) == ExitCode.DONE
    said = capsys.readouterr().err
    assert "nexus logs" not in said  # no line names it: it has no run
    assert "nexus dlq edit" not in said
    assert f"`nexus dlq drop {letter.id}` deletes it" in said


def test_letters_are_counted_by_task_and_error(capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(60):
        give_up(derived_id("letter", n), ErrorType="Timeout" if n % 3 else "KeyError", ErrorMessage=f"no. {n}")
    backend().transport.dead_letter("default", DeadLetter("not a message", {}, "x"))

    assert main(["dlq", "list", "--groups"]) == ExitCode.DONE
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines[1:4]] == [
        ["40", "default", "ping"],
        ["20", "default", "ping"],
        ["1", "default", "(unreadable)"],
    ]
    assert "61 dead letters in all: default 61." in " ".join(lines[4])

    assert main(["dlq", "list", "default", "--groups", "--error", "keyerror", "--json"]) == ExitCode.DONE
    (group,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (group["error"], group["count"], group["first_at"]) == ("KeyError", 20, "2026-11-22T10:00:00.000Z")

    assert main(["dlq", "list", "--groups", "--limit", "5"]) == ExitCode.USAGE


# --- retry and drop ---


@pytest.mark.parametrize("action", ["retry", "drop"])
@pytest.mark.parametrize("more", [[], ["--yes"]])
def test_a_part_of_an_id_that_several_letters_share_changes_none(
    action: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ids = {give_up(f"01a203f2-0000-7000-8000-00000000000{n}") for n in (1, 2)}
    assert main(["dlq", action, "01a203f2", *more]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "01a203f2 matches 2 dead letters" in said
    assert "[y/N]" not in said
    assert {letter.id for letter in letters()} == ids


def test_a_part_of_an_id_that_no_letter_has_changes_none(capsys: pytest.CaptureFixture[str]) -> None:
    run_id = give_up()
    assert main(["dlq", "drop", run_id, "01a203f2", "--yes"]) == ExitCode.WRONG
    assert "No dead letter 01a203f2" in capsys.readouterr().err
    assert [letter.id for letter in letters()] == [run_id]


@pytest.mark.parametrize(("action", "status"), [("retry", "PENDING"), ("drop", "FAILURE")])
def test_a_part_of_an_id_stands_for_its_one_letter(
    action: str, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (give_up(f"01a203f2-0000-7000-8000-00000000000{n}") for n in (1, 2))
    rest = derived_id("letter", 3)
    backend().transport.dead_letter("emails", DeadLetter("{}", {"RunId": rest}, "x"))

    assert main(["dlq", action, one[-8:], "--json"]) == ExitCode.DONE

    shown = capsys.readouterr()
    outcome = json.loads(shown.out)
    assert outcome["done"] == 1
    assert list(outcome["queues"]) == ["default"], "the queues without this letter are not searched twice"
    assert (f"Delete {one} in nexus-test for good?" in shown.err) == (action == "drop")
    assert [letter.id for letter in letters()] == [other]
    assert AsyncResult[Any](one).status == status


@pytest.mark.parametrize("part", [slice(None), slice(-8, None)])
def test_a_jobs_id_stands_for_its_members_that_failed(part: slice, capsys: pytest.CaptureFixture[str]) -> None:
    job, other = new_id(), give_up()
    where: dict[str, Value] = {"history": next(iter(history.shards("FAILURE"))), "sent_at": time.time()}
    values: dict[str, Value] = {"status": "FAILURE", "task": "j", "total": 2, "phase": 1, "waits": True}
    backend().store.apply(Write(job, values | where))
    backend().store.apply(Write(tallies.tally(job, 1, 0), add={"done": frozenset({0}), "failed": frozenset({1})}))
    member = give_up(tallies.member(job, 1, 1))
    assert main(["dlq", "retry", job[part]]) == ExitCode.DONE
    assert "1 dead letter sent again: default 1." in capsys.readouterr().out
    assert AsyncResult[Any](member).status == "PENDING"
    assert [letter.id for letter in letters()] == [other]

    assert main(["dlq", "drop", job[part], "--yes"]) == ExitCode.WRONG


def test_several_parts_of_ids_stand_for_their_letters() -> None:
    one, other, rest = (give_up(derived_id("letter", n)) for n in range(3))
    assert main(["dlq", "retry", one[:13], other[-8:]]) == ExitCode.DONE
    assert [letter.id for letter in letters()] == [rest]
    assert {AsyncResult[Any](run_id).status for run_id in (one, other)} == {"PENDING"}


def test_whole_ids_and_parts_of_ids_can_be_combined() -> None:
    ids = [give_up(derived_id("letter", n)) for n in range(3)]
    assert main(["dlq", "drop", ids[0], ids[1][:13], "--yes"]) == ExitCode.DONE
    assert [letter.id for letter in letters()] == ids[2:]


@pytest.mark.parametrize("wanted", [["default"], ["--all"], ["--task", "ping"]])
def test_a_letter_that_arrives_after_they_were_counted_is_not_dropped(
    wanted: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_up()
    slow = Slow()
    monkeypatch.setattr("sys.stdin", slow)
    assert main(["dlq", "drop", *wanted]) == ExitCode.DONE
    assert "1 dead letter dropped: default 1." in capsys.readouterr().out
    assert [letter.id for letter in letters()] == [slow.failed]


def test_fewer_than_were_counted_are_explained_if_this_machines_clock_is_slow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_up()
    now = time.time()
    monkeypatch.setattr("ops.cli.commands.dlq.time.time", lambda: now - 120.0)
    assert main(["dlq", "drop", "default", "--yes"]) == ExitCode.DONE
    printed = capsys.readouterr()
    assert "0 dead letters dropped" in printed.out
    assert "this machine's clock is slow" in printed.err
    assert len(letters()) == 1


def test_many_are_purged_by_sqs_and_the_question_says_what_that_means(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        give_up(derived_id("letter", n))
    monkeypatch.setattr(dead_letters, "ONE_BY_ONE", 2)
    assert main(["dlq", "drop", "default"]) == ExitCode.DONE
    shown = capsys.readouterr()
    question = (
        "Delete all 3 dead letters of default in nexus-test for good, with what reaches default in the next minute?"
    )
    assert question in shown.err
    assert "3 dead letters dropped: default 3." in shown.out
    assert letters() == []

    give_up()
    assert main(["dlq", "drop", "default"]) == ExitCode.DONE
    assert "in the next minute" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wanted", "count", "words"),
    [
        (Filter(), 1, "the one dead letter"),
        (Filter(), 5, "all 5 dead letters"),
        (Filter(ids=frozenset({"a", "b"})), 5, "these 2"),
        (Filter(task="ping"), 5, "the dead letters of ping (of 5 in all)"),
        (
            Filter(error="Timeout", older_than=3600.0, younger_than=7200.0),
            5,
            "the dead letters with 'Timeout' and older than 1h and younger than 2h (of 5 in all)",
        ),
    ],
)
def test_the_question_names_the_letters_that_are_meant(wanted: Filter, count: int, words: str) -> None:
    assert dlq._which(wanted, count) == words


def test_a_terminal_shows_how_many_letters_are_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_up()
    monkeypatch.setattr(output, "fancy", lambda *_: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["dlq", "retry", "--all", "--yes"]) == ExitCode.DONE
    shown = capsys.readouterr()
    assert "default: 1 of 1 sent again" in shown.err
    assert "1 dead letter sent again: default 1." in shown.out


def test_many_letters_are_moved_by_sqs_if_it_can(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_up()
    monkeypatch.setattr(dead_letters, "ONE_BY_ONE", 0)
    monkeypatch.setattr(dead_letters, "move_all", lambda _queue, _told: 3)
    assert main(["dlq", "retry", "--all", "--yes", "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["done"] == 3


@pytest.mark.parametrize("code", ["UnsupportedOperation", "InvalidAction"])
def test_letters_are_sent_one_by_one_if_sqs_cannot_move_them(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = give_up()

    def unsupported(**_: Any) -> None:
        raise ClientError({"Error": {"Code": code}}, "StartMessageMoveTask")

    moving = Refusing(boto3.client("sqs"))
    monkeypatch.setattr(dead_letters, "ONE_BY_ONE", 0)
    monkeypatch.setattr(moving, "start_message_move_task", unsupported, raising=False)
    monkeypatch.setattr(moving, "send_message_batch", boto3.client("sqs").send_message_batch)
    monkeypatch.setattr(dead_letters, "client", lambda _: moving)

    assert main(["dlq", "retry", "--all", "--yes"]) == ExitCode.DONE

    assert AsyncResult[Any](run_id).status == "PENDING"


def test_a_move_that_is_already_running_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def running(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "ConflictException"}}, "StartMessageMoveTask")

    moving = Refusing(boto3.client("sqs"))
    monkeypatch.setattr(moving, "start_message_move_task", running, raising=False)
    monkeypatch.setattr(dead_letters, "client", lambda _: moving)
    with pytest.raises(ClientError, match="ConflictException"):
        dead_letters.move_all("default")


def test_a_queue_that_was_purged_a_moment_ago_is_emptied_letter_by_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    give_up()
    purging = Refusing(boto3.client("sqs"))

    def too_soon(**_: Any) -> None:
        raise purging.exceptions.PurgeQueueInProgress({"Error": {"Code": "PurgeQueueInProgress"}}, "PurgeQueue")

    monkeypatch.setattr(purging, "purge_queue", too_soon, raising=False)
    monkeypatch.setattr(dead_letters, "client", lambda _: purging)
    monkeypatch.setattr(dead_letters, "ONE_BY_ONE", 0)
    slow = Slow()
    monkeypatch.setattr("sys.stdin", slow)
    assert main(["dlq", "drop", "default"]) == ExitCode.DONE
    assert [letter.id for letter in letters()] == [slow.failed]


# --- not to the end ---


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["show", derived_id("letter", 1)]])
def test_a_role_that_only_reads_sees_the_letters_and_that_they_stay_hidden(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(*_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ChangeMessageVisibilityBatch")

    give_up()
    monkeypatch.setattr(dead_letters._Scan, "_show_page", denied)
    assert main(["dlq", *words]) == ExitCode.DENIED
    shown = capsys.readouterr()
    assert derived_id("letter", 1) in shown.out
    assert "The letters of default that were read stay hidden for 30 seconds" in shown.err
    assert "sqs:ChangeMessageVisibility" in shown.err


def test_a_process_without_stdin_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with `<&-`, or under some daemons."""
    give_up()
    monkeypatch.setattr("sys.stdin", None)
    assert main(["dlq", "drop", "default"]) == ExitCode.NOT_CONFIRMED
    assert "stdin is not a terminal" in capsys.readouterr().err
    assert len(letters()) == 1
    sys.stdin.close()


@pytest.fixture
def eleven(cloud: None, network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pages of dead letters, read one after the other."""
    for n in range(11):
        give_up(derived_id("letter", n))
    monkeypatch.setattr(dead_letters, "THREADS", 1)


@pytest.mark.usefixtures("eleven")
@pytest.mark.parametrize(
    ("error", "code", "what"),
    [
        (ClientError({"Error": {"Code": "ExpiredToken"}}, "SendMessageBatch"), ExitCode.UNREACHABLE, "credentials"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "Interrupted"),
    ],
)
def test_what_was_sent_before_an_error_is_reported_and_recorded(
    error: BaseException, code: ExitCode, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[int] = []
    send = dead_letters._send_again

    def once(queue: str, letters: Sequence[Letter], **also: Any) -> Any:
        if sent:
            raise error
        sent.append(len(letters))
        return send(queue, letters, **also)

    monkeypatch.setattr(dead_letters, "_send_again", once)
    assert main(["dlq", "retry", "--all", "--yes"]) == code
    said = capsys.readouterr().err
    assert what in said
    assert "Before that: default 10 dead letters sent again." in said


@pytest.mark.usefixtures("eleven")
def test_letters_beyond_what_one_read_takes_are_not_passed_over_in_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dead_letters, "SCAN_LIMIT", 10)
    assert main(["dlq", "list", "--error", "nothing like it"]) == ExitCode.DONE
    assert "Only 10 of the 11 dead letters of default were read" in capsys.readouterr().err
    assert main(["dlq", "list", "--error", "nothing like it", "--json"]) == ExitCode.DONE
    assert "Only 10 of the 11 dead letters of default were read" in capsys.readouterr().err
    assert main(["dlq", "show", derived_id("letter", 99)]) == ExitCode.WRONG
    assert "Only 10 of the 11 dead letters of default were read" in capsys.readouterr().err

    assert main(["dlq", "retry", "--error", "nothing like it", "--yes", "--json"]) == ExitCode.WRONG
    assert json.loads(capsys.readouterr().out)["not_read"] == {"default": 1}
    assert main(["dlq", "drop", "--error", "nothing like it", "--yes"]) == ExitCode.WRONG
    assert "Not read: 1 of the 11 dead letters of default." in capsys.readouterr().err
    # What has been dealt with makes room for others.
    assert main(["dlq", "drop", "--task", "ping", "--yes"]) == ExitCode.DONE
    assert letters() == []


def test_letters_that_another_reader_holds_are_not_reported_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    give_up()
    reading = dead_letters.read("default", Filter())
    next(reading)
    assert main(["dlq", "retry", "--all", "--yes"]) == ExitCode.WRONG
    assert "Not read: 1 of the 1 dead letters of default. Another reader holds them" in capsys.readouterr().err
    reading.close()  # type: ignore[attr-defined]
    assert main(["dlq", "retry", "--all", "--yes"]) == ExitCode.DONE


# --- what EventBridge could not deliver ---


@pytest.mark.parametrize("targets", [None, [], [{"Id": "queue", "Arn": "arn"}]])
def test_an_event_whose_rule_was_deleted_or_changed_stays_as_it_came(
    targets: list[Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Events:
        exceptions = boto3.client("events").exceptions

        def list_targets_by_rule(self, **_: Any) -> Any:
            if targets is None:
                raise self.exceptions.ResourceNotFoundException({}, "ListTargetsByRule")
            return {"Targets": targets}

    monkeypatch.setattr("ops.aws.client", lambda _: Events())
    assert dead_letters._Rules().sends('{"detail": 1}', "nexus-test-record") == ('{"detail": 1}', "")


class DeniedEvents:
    """EventBridge, which lets nobody read a rule's targets."""

    def __init__(self, code: str) -> None:
        self.exceptions = boto3.client("events").exceptions
        self.code = code
        self.asked = 0

    def list_targets_by_rule(self, **_: Any) -> Any:
        self.asked += 1
        raise ClientError({"Error": {"Code": self.code, "Message": "no"}}, "ListTargetsByRule")


def test_letters_of_an_unreadable_rule_are_shown_but_not_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id, events = give_up(), [by_a_rule(n) for n in range(2)]
    denied = DeniedEvents("AccessDeniedException")
    monkeypatch.setattr("ops.aws.client", lambda _: denied)
    right = "reading what the rule sends for it needs events:ListTargetsByRule"

    assert main(["dlq", "list", "--json"]) == ExitCode.DONE
    shown = {line["id"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert denied.asked == 1, "a rule is read once, not once for each of its letters"
    left = [one["id"] for one in shown.values() if one["body"] in events]
    assert len(left) == 2
    assert {shown[one]["error"] for one in left} == {"NO_PERMISSIONS"}

    assert main(["dlq", "show", left[0]]) == ExitCode.DONE
    said = capsys.readouterr()
    assert f"It cannot be sent again: it is an event of the rule nexus-test-record: {right}." in said.err
    assert shown[left[0]]["body"]["id"] in said.out

    assert main(["dlq", "retry", "--all", "--yes"]) == ExitCode.WRONG
    said = capsys.readouterr()
    assert "1 dead letter sent again: default 1." in said.out
    assert said.out.count(right) == 2
    assert AsyncResult[Any](run_id).status == "PENDING"
    assert {letter.id for letter in letters()} == set(left)

    assert main(["dlq", "edit", left[0], "text=x"]) == ExitCode.WRONG
    assert right in capsys.readouterr().err
    with pytest.raises(InvalidMessage, match=right):
        dead_letters.edit("default", left[0], ping, {})

    assert main(["dlq", "drop", "--all", "--yes"]) == ExitCode.DONE
    assert letters() == []


def test_a_rule_that_cannot_be_read_for_another_reason_ends_the_command_and_hides_no_letter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_up()
    by_a_rule(1)
    throttled = DeniedEvents("ThrottlingException")
    monkeypatch.setattr("ops.aws.client", lambda _: throttled)
    assert main(["dlq", "list"]) == ExitCode.WRONG
    assert "AWS throttles ListTargetsByRule" in capsys.readouterr().err

    throttled.code = "AccessDeniedException"
    assert len(letters()) == 2
