"""Forty faults, each caused on the deployed stack: the command names it, and following its remedy restores the stack.

The table in docs/operations.md is made here: NEXUS_WRITE_TABLE=1 writes what was seen, otherwise it is compared.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import boto3
import pytest

from nexus.backend.transport import queue_url
from nexus.settings import Settings
from social.catalogue import QUEUES
from tests.support.command import Nexus, fresh
from tests.support.faults import Fault, Trouble, end_runs, faults, troubles
from tests.support.patience import eventually

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
BEGIN, END = "<!-- the faults, as tests/e2e/test_chaos.py sees them -->", "<!-- the end of the faults -->"


@dataclass(frozen=True, slots=True)
class Seen:
    """A row of the table: a fault's report and remedy, and the seconds until it was reported."""

    fault: str
    command: str
    says: str
    seconds: int
    do: str


_seen: dict[str, Seen] = {}


def findings(nexus: Nexus, command: tuple[str, ...]) -> list[dict[str, str]]:
    """The faults that status or validate finds, without mere remarks.

    Nor alarms: one that an earlier test has raised looks back for five minutes, longer than a test waits.
    """
    answered = nexus(*command, "--json")
    answer = json.loads(answered.out or answered.err)
    if "error" in answer:  # while AWS refuses the request
        return [{"severity": "failed", "where": "nexus", "what": answer["error"]["what"], "do": answer["error"]["do"]}]
    found = answer["findings"] if "findings" in answer else [f for one in answer["checks"] for f in one["findings"]]
    of_now = [one for one in found if one["what"] != "the alarm is in ALARM"]
    return [one for one in of_now if one["severity"] not in ("unchecked", "note")]


@pytest.fixture(scope="module", autouse=True)
def no_letters(stack: Settings) -> None:
    """Drops the dead letters of earlier tests: no fault's remedy removes them, so the stack would stay unhealthy."""
    sqs = boto3.client("sqs")
    for queue in QUEUES:
        sqs.purge_queue(QueueUrl=queue_url(stack.dead_letter_queue_name(queue)))


@pytest.fixture(scope="module", autouse=True)
def no_run_outlasts_them(stack: Settings) -> Iterator[None]:
    """No run of a fault continues after these tests."""
    yield
    end_runs()


@pytest.fixture(scope="module")
def faults_over() -> None:
    """No run of an earlier fault continues."""
    end_runs()


@pytest.fixture(scope="module", autouse=True)
def table(stack: Settings) -> Iterator[None]:
    """Writes the observed rows into the table, if NEXUS_WRITE_TABLE is set; the other rows stay."""
    yield
    if not os.environ.get("NEXUS_WRITE_TABLE"):
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    shown, _, after = rest.partition(END)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in shown.splitlines() if line.startswith("| ")}
    rows |= {name: drawn([seen]).splitlines()[2] for name, seen in _seen.items()}
    names = [*(fault.name for fault in faults()), *(trouble.name for trouble in troubles())]
    lines = [*drawn([]).splitlines(), *(rows[name] for name in names if name in rows)]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")


def drawn(rows: list[Seen]) -> str:
    """The rows as Markdown."""
    lines = ["| fault | found by | what is said | after | what to do |", "| --- | --- | --- | --- | --- |"]
    cells = ([row.fault, f"`{row.command}`", row.says, f"{row.seconds} s", row.do] for row in rows)
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def steady(text: str) -> str:
    """The report without what differs from run to run: times, ids, addresses, counts."""
    text = re.sub(r"\d\d:\d\d:\d\d", "hh:mm:ss", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|`nexus result [0-9a-f]{8}`", "ID", text)
    text = re.sub(r"once, at|\d+ times since", "n times since", text)
    text = re.sub(r"the last \d+ attempts", "the last n attempts", text)
    text = re.sub(r"\. \d+ messages? in flight that no run has claimed", "", text)
    text = re.sub(r"\b(59\d|60\d) s ahead", "600 s ahead", text)
    # Names that CloudFormation makes up.
    text = re.sub(r"(assumed-role/[\w-]+Role)-[0-9A-F]+", r"\1", text)
    return re.sub(r"(http://)?127\.0\.0\.1:\d+", "the local cloud", text)


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: re.sub(r"\W+", "_", fault.name))
def test_a_fault_is_named_and_its_remedy_restores_the_stack(fault: Fault, nexus: Nexus) -> None:
    command = tuple(fault.command)

    # Given the fault
    fault.make()
    began = time.monotonic()

    # Then the command says so, for each part of it, and ends with 1
    def named() -> list[dict[str, str]]:
        found = findings(nexus, command)
        reported = [
            next((one for one in found if one["where"] == where and piece in one["what"]), None)
            for where, piece in fault.says
        ]
        return [one for one in reported if one is not None] if all(reported) else []

    first = eventually(named, every=0.5)
    seen = Seen(fault.name, f"nexus {' '.join(command)}", "", round(time.monotonic() - began), steady(first[0]["do"]))
    seen = replace(seen, says=steady(f"{first[0]['where']}: {first[0]['what']}"))

    # When its remedy is followed
    for words in fault.remedy:
        remedy = f"nexus {' '.join(word for word in words if word != '--yes')}"
        assert any(remedy in one["do"] for one in first), f"`{remedy}` is not among them: {first[0]['do']}"
    for words in (*fault.remedy, *fault.also):
        answer = nexus(*words, "--json")
        assert answer.code == 0, answer
    fault.then()

    # Then the stack is healthy again
    left: list[dict[str, str]] = []

    def well() -> bool:
        left[:] = findings(nexus, command)
        advice = {words for one in left for words in re.findall(r"`nexus (inspect ping \w+|dlq retry \w+)`", one["do"])}
        for words in advice:  # on a busy machine, runs may have used their last attempt before the remedy
            nexus(*words.split(), "--json", *(["--yes"] if words.startswith("dlq") else []))
        return not left

    try:
        eventually(well, every=0.5)
    except AssertionError:
        pytest.fail(f"still: {left}")
    _seen[fault.name] = seen


@pytest.mark.parametrize("trouble", troubles(), ids=lambda trouble: re.sub(r"\W+", "_", trouble.name))
@pytest.mark.usefixtures("faults_over")
def test_a_mistake_in_the_operators_settings_is_named_and_ends_when_it_is_undone(
    trouble: Trouble, nexus: Nexus
) -> None:
    words = ("status", *trouble.options)
    began = time.monotonic()
    answer = fresh(*words, **trouble.variables)
    seconds = round(time.monotonic() - began)
    printed = answer.out + answer.err
    assert answer.code != 0
    assert trouble.says in printed
    assert trouble.do in printed
    assert "Traceback" not in printed
    # When the variables and options are removed, as the command advises
    assert not findings(nexus, ("status",))
    command = " ".join((*(f"{name}={value}" for name, value in trouble.variables.items()), "nexus", *words))
    _seen[trouble.name] = Seen(trouble.name, command, trouble.says, seconds, trouble.do)


@pytest.mark.usefixtures("faults_over")
def test_the_stack_has_no_fault_afterwards(nexus: Nexus) -> None:
    assert not findings(nexus, ("validate",))
    assert not findings(nexus, ("status",))
    answer = nexus("inspect", "ping", "--json")
    assert answer.code == 0, answer


def test_every_fault_on_the_page_was_reported_within_a_minute() -> None:
    """The committed figures, and not this machine's."""
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    seconds = [int(found) for found in re.findall(r" \| (\d+) s \| ", shown)]
    assert len(seconds) == len(faults()) + len(troubles())
    assert max(seconds) < 60


def test_the_page_has_a_row_for_each_fault_that_was_caused(stack: Settings) -> None:
    if os.environ.get("NEXUS_WRITE_TABLE"):
        pytest.skip("it is being written")
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = {drawn([seen]).splitlines()[2]: seen.seconds for seen in _seen.values()}
    missing = [
        row
        for row, seconds in rows.items()
        if not re.search(re.escape(row).replace(re.escape(f"| {seconds} s |"), r"\| \d+ s \|"), shown)
    ]
    assert missing == []
