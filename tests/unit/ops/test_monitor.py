"""`nexus monitor`: how it divides a terminal, folds segments into their jobs, and what its keys do."""

import os
import sys
import time
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from rich.console import Console

from nexus import clock
from nexus.aws import sdk
from nexus.backend import backend
from nexus.backend.store import Write
from nexus.client import AsyncResult
from nexus.envelope import Envelope
from nexus.ids import new_id
from nexus.runs import tallies, transitions
from nexus.runs.record import RunError, RunRecord
from nexus.settings import settings
from ops import audit, diagnosis
from ops.cli import keys, monitor, rows, screen, watch
from ops.cli.rows import Row
from ops.cli.screen import Order, Screen
from ops.deployment import Deployment
from ops.health import Counts
from ops.live import LiveRun
from ops.logs import Event
from ops.lookup import short
from ops.problems import Problem
from social.catalogue import QUEUES
from tests.support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[3]
NOW = time.time()
RUN_ID = "01a2049c-5dbf-7066-8bcd-89752202a3d0"
TASK = "update_post_engagement_scores"
SIZES = [(80, 24), (100, 30), (140, 40)]


def where(stage: str = "dev") -> Deployment:
    return Deployment("nexus-x", "UPDATE_COMPLETE", "eu-west-1", "1" * 12, {"Stage": stage}, datetime.now(UTC))


def queue(name: str = "maintenance", **also: Any) -> monitor.QueueLine:
    kept: dict[str, Any] = {"on": True, "waiting": 12_345, "in_flight": 2, "delayed": 0, "dead": 1, "running": 1}
    rates: dict[str, Any] = {"per_minute": 1033.8, "failed_per_minute": 1.2, "history": (1,) * monitor.SPARK}
    return monitor.QueueLine(name, 3, **{**kept, **rates, **also})


def look(*runs: LiveRun, jobs: tuple[Any, ...] = (), wrong: tuple[str, ...] = ()) -> monitor.View:
    return monitor.View(NOW, tuple(queue(name) for name in QUEUES), runs, jobs, (), (), wrong)


def live(run_id: str, **also: Any) -> LiveRun:
    return LiveRun(run_id, TASK, "analytics", "STARTED", NOW - 100, attempts=1, **also)


def end(run_id: str, outcome: str = "success", reason: str | None = None, ago: float = 1.0, attempt: int = 1) -> Event:
    return Event(NOW - ago, "analytics", TASK, run_id, outcome, attempt, 123.456, reason)


def row(run_id: str, section: rows.Section = "ended", **also: Any) -> Row:
    return Row(run_id, also.pop("task", TASK), also.pop("state", "success"), section, "analytics", **also)


def screen_of(*found: Row, stage: str = "dev") -> Screen:
    made = Screen(where(stage))
    made.show(look(), list(found))
    return made


def drawn(shown: Screen, width: int, height: int = 0, *, typed: bool = True) -> list[str]:
    """The lines on a terminal of that size."""
    console = Console(width=width, height=max(1, height), force_terminal=False)
    with console.capture() as captured:
        console.print(shown.draw(width, height, keys=typed))
    return captured.get().splitlines()


def press(shown: Screen, *pressed: str) -> Order | str | None:
    """The order that the last key gives."""
    order: Order | str | None = None
    for key in pressed:
        order = shown.press(key)
    return order


# --- what is drawn ---


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("reason", ["Reject: no", "Reject: " + "so long " * 30])
def test_a_long_reason_takes_nothing_from_the_other_columns(width: int, height: int, reason: str) -> None:
    shown = Screen(where())
    shown.show(look(), rows.rows(look(), [end(RUN_ID, "failure", reason)], {}))
    lines = drawn(shown, width, height)
    assert all(len(line) <= width for line in lines)
    (reported,) = [line for line in lines if "2202a3d0" in line]
    assert reported.split()[:3] == ["▸", "2202a3d0", "failure"]
    assert "123.46s" in reported
    assert "Reject:" in reported
    assert ("…" in reported) == (len(reason) > 100)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("many", [0, 1, 500])
def test_the_monitor_fills_the_terminal_exactly_at_any_size(width: int, height: int, many: int) -> None:
    runs = tuple(live(new_id(), progress=(7, 4000, "of 日本 " * 20)) for _ in range(many))
    ends = [end(new_id(), outcome, "x" * 300) for outcome in ("failure", "success") for _ in range(many)]
    shown = Screen(where())
    view = look(*runs, jobs=((RUN_ID, TASK, 3, 12),) if many else (), wrong=("users: the function dies: " + "y" * 200,))
    shown.show(view, rows.rows(view, ends, {}))
    shown.error = "AWS does not respond: " + "z" * 200
    for pressed in ((), ("tab",), ("/", "u", "p"), ("enter", "?"), ("q", "enter")):
        press(shown, *pressed)
        console = Console(width=width, height=height, force_terminal=False)
        lines = console.render_lines(shown.draw(width, height), pad=False)
        assert len(lines) <= height
        assert all(sum(segment.cell_length for segment in line) <= width for line in lines)


def test_at_80_columns_every_queue_has_its_figures_and_a_run_its_short_id_and_its_progress() -> None:
    view = look(live(RUN_ID, progress=(7, 4000, "")))
    shown = Screen(where())
    shown.show(view, rows.rows(view, [], {}))
    lines = drawn(shown, 80, 24)
    assert lines[1].split()[:8] == ["queue", "wait", "flight", "later", "run", "dead", "/min", "fail"]
    for line, name in zip(lines[2:], QUEUES, strict=False):
        assert line.split()[:8] == [name, "12345", "2", "0", "1", "1", "1033.8", "1.2"]
    (reported,) = [line for line in lines if "7/4000" in line]
    assert reported.split()[1:5] == ["2202a3d0", "running", TASK, "1m"]
    assert lines[-1].strip() == "j k select  Enter open  / filter  Tab list  r retry  x revoke  ? keys  q quit"


@pytest.mark.parametrize(("state", "shows"), [({"on": False}, "paused"), ({"present": False}, "missing")])
def test_a_paused_or_missing_queue_says_so_in_place_of_its_rate(state: dict[str, Any], shows: str) -> None:
    shown = Screen(where())
    shown.show(monitor.View(NOW, (queue(**state),), (), (), (), ()), [])
    (reported,) = [line for line in drawn(shown, 80, 24) if line.startswith("maintenance")]
    assert reported.endswith(shows)


def test_in_a_pipe_ids_are_whole_nothing_is_left_out_and_no_key_is_named() -> None:
    lines = drawn(screen_of(*(row(f"{n:08}{RUN_ID[8:]}") for n in range(300))), 140, typed=False)
    assert sum(RUN_ID[8:] in line for line in lines) == 300
    assert "▸" not in "".join(lines)
    assert "quit" not in lines[-1]


@pytest.mark.parametrize(
    ("wanted", "room", "given"),
    [
        ((3, 2, 100), 12, (3, 2, 7)),
        ((100, 2, 100), 12, (7, 2, 3)),
        ((100, 100, 100), 12, (6, 3, 3)),
        ((0, 100, 1), 12, (0, 11, 1)),
        ((1, 1, 1), 12, (1, 1, 1)),
        ((5, 5, 5), 3, (1, 1, 1)),
    ],
)
def test_each_section_has_its_share_of_the_room(wanted: tuple[int, ...], room: int, given: tuple[int, ...]) -> None:
    share = screen.shares(dict(zip(rows.SECTIONS, wanted, strict=True)), room)
    assert tuple(share[name] for name in rows.SECTIONS) == given


# --- segments are folded into their job ---


def test_running_segments_are_one_row_with_their_jobs_progress() -> None:
    segments = [live(f"5{n}", parent=RUN_ID, segment=n) for n in range(3)]
    other = live("other")
    view = look(*segments, other, jobs=((RUN_ID, TASK, 4, 12),))
    ends = [end("ended", "failure"), end("well"), end(RUN_ID, "fanned_out")]
    found = rows.rows(view, ends, {"ended": RUN_ID, "well": RUN_ID})
    assert [(one.id, one.section, one.progress, one.about) for one in found] == [
        (RUN_ID, "running", (4, 12), "3 run, 1 failed"),
        ("other", "running", None, ""),
    ]


def test_ended_segments_are_one_row_with_their_jobs_end() -> None:
    parents = {"s1": RUN_ID, "s2": RUN_ID, "inner": RUN_ID, "s3": "inner"}
    ends = [end("s3"), end(RUN_ID, ago=2), end("s1", ago=3), end("s2", ago=4), end(RUN_ID, "fanned_out", ago=5)]
    (found,) = rows.rows(look(), ends, parents)
    assert (found.id, found.state, found.section, found.about) == (RUN_ID, "success", "ended", "3 segments")
    # A plan that is delivered again after the end changes no state
    (found,) = rows.rows(look(), [end(RUN_ID, "fanned_out", ago=0.5), *ends], parents)
    assert found.state == "success"
    # And if one failed, the row shows that until its job has ended
    bad = [end("s1", "failure", "Timeout: no"), *ends[2:]]
    (found,) = rows.rows(look(), bad, parents)
    assert (found.state, found.section, found.about) == ("failure", "failed", "2 segments, 1 failed: Timeout: no")


def test_a_run_is_one_row_by_its_last_attempt() -> None:
    ends = [end("a", "failure", "no", attempt=3), end("b", "retry"), end("a", "retry", attempt=2), end("c"), end("d")]
    found = rows.rows(look(live("d")), ends, {})
    assert [(one.id, one.state, one.attempt) for one in found] == [
        ("d", "running", 1), ("a", "failure", 3), ("b", "retry", 1), ("c", "success", 1),
    ]  # fmt: skip


def test_a_job_of_which_no_segment_runs_at_the_moment_is_shown_as_running(monkeypatch: pytest.MonkeyPatch) -> None:
    job, inner, segment = new_id(), tallies.member(RUN_ID, 1, 0), tallies.member(RUN_ID, 1, 1)
    records = {
        job: RunRecord(job, "STARTED", TASK, total=4, phase=1, waits=True),
        inner: RunRecord(inner, "SUCCESS", TASK, parent=job, segment=0),
        segment: RunRecord(segment, "SUCCESS", TASK, parent=inner, segment=0),
    }
    asked: list[str] = []

    def read(ids: list[str]) -> list[RunRecord]:
        asked.extend(ids)
        return [records[run_id] for run_id in ids]

    poller = watch.Poller()
    monkeypatch.setattr(monitor.Monitor, "poll", lambda _: look())
    poller._monitor._events.extend([end(job, "fanned_out"), end(segment)])
    monkeypatch.setattr(watch, "_records", read)
    monkeypatch.setattr(tallies, "progress", lambda _: (1, 4))
    (found,) = poller.poll()[1]
    assert (found.id, found.state, found.progress) == (job, "running", (1, 4))
    # A known segment is not requested again
    asked.clear()
    poller.poll()
    assert asked == [job]


def test_a_firing_whose_id_resembles_a_segments_is_listed_as_its_own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    firing = "60b2a65a-a2b7-58a9-9a5c-5f0c51b2b9c1"
    poller = watch.Poller()
    monkeypatch.setattr(monitor.Monitor, "poll", lambda _: look())
    poller._monitor._events.append(end(firing))
    monkeypatch.setattr(watch, "_records", lambda ids: [RunRecord(one, "SUCCESS", TASK, origin="rule") for one in ids])
    (found,) = poller.poll()[1]
    assert (found.id, found.state) == (firing, "success")


# --- keys ---


@pytest.mark.parametrize(
    ("typed", "pressed"),
    [
        ("j", ["j"]),
        ("\x1b[A\x1bOB", ["up", "down"]),
        ("\x1b", ["escape"]),
        ("\r\t\x7f", ["enter", "tab", "backspace"]),
        ("\x1b[5~\x1b[6~\x1b[H\x1b[F", ["page up", "page down", "home", "end"]),
        ("é日", ["é", "日"]),
        ("\x1b[1;5C\x00", []),
    ],
)
def test_a_terminals_bytes_are_read_as_keys(typed: str, pressed: list[str]) -> None:
    assert keys.named(typed) == pressed


def test_a_terminal_that_has_gone_away_ends_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end of file is always ready to be read, so that the view would be drawn without a pause."""
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading) as gone:
        monkeypatch.setattr("sys.stdin", gone)
        pressed = keys.Keys()
        pressed._before = []
        assert pressed.read(5.0) == ["q"]


def test_a_selection_moves_and_stays_with_its_run_when_others_come() -> None:
    found = [row("a", "running", state="running"), row("b", "failed", state="failure"), row("c"), row("d")]
    shown = screen_of(*found)

    def at() -> str:
        return shown.selected.id if shown.selected else ""

    assert at() == "a"
    for key, run_id in zip(("j", "down", "G", "j", "k", "g", "k"), "bcddcaa", strict=True):
        press(shown, key)
        assert at() == run_id
    press(shown, "j")
    shown.show(look(), [row("new", "running", state="running"), *found])
    assert at() == "b"
    # And when its run has ended, it selects the run in its place
    shown.show(look(), [found[0], found[2]])
    assert at() == "c"
    shown.show(look(), [])
    assert at() == ""
    assert press(shown, "j", "k", "enter", "r", "x") is None


def test_a_selection_below_the_last_line_scrolls() -> None:
    shown = screen_of(*(row(f"{n:08}") for n in range(40)))
    drawn(shown, 80, 24)
    press(shown, "tab", "tab", "tab")
    for n in range(40):
        lines = drawn(shown, 80, 24)
        assert [line.split()[1] for line in lines if line.startswith("▸")] == [f"{n:08}"]
        press(shown, "j")


def test_a_filter_is_typed_narrows_at_once_and_is_taken_back() -> None:
    found = [row("aaaaaaaa", task="ping"), row("bbbbbbbb", "failed", state="failure", about="Timeout: it was slow")]
    shown = screen_of(*found, row("cccccccc", task="pong q"))
    press(shown, "/", *"tiMeout fail")
    assert shown.listed == [found[1]]
    press(shown, "q", "backspace", "enter")
    assert shown.filter_text == "tiMeout fail"
    assert shown.selected is found[1]
    assert any("1 of 3" in line for line in drawn(shown, 80, 24))
    press(shown, "/", *" nothing", "enter")
    assert any("No run matches the filter" in line for line in drawn(shown, 80, 24))
    press(shown, "escape")
    assert len(shown.listed) == 3
    press(shown, "/", *"ping", "escape")
    assert len(shown.listed) == 3


def test_tab_goes_through_the_lists() -> None:
    shown = screen_of(row("a", "running", state="running"), row("b", "failed", state="failure"), row("c"))
    seen = []
    for _ in range(5):
        seen.append([one.id for one in shown.shown])
        press(shown, "tab")
    assert seen == [["a", "b", "c"], ["a"], ["b"], ["c"], ["a", "b", "c"]]


def test_q_quits_the_list_and_closes_what_is_open() -> None:
    shown = screen_of(row(RUN_ID))
    assert press(shown, "enter") == Order("open", shown.all_rows[0])
    assert any("looking" in line for line in drawn(shown, 80, 24))
    shown.details = [("id", RUN_ID), ("task", TASK), ("", "x\n" * 100 + "the end")]
    assert any(RUN_ID in line for line in drawn(shown, 80, 24))
    press(shown, "G")
    assert any("the end" in line for line in drawn(shown, 80, 24))
    assert press(shown, "q") is None
    assert shown.opened is None
    assert press(shown, "?") is None
    reported = "\n".join(drawn(shown, 80, 24)[:-1])
    assert "Escape closes it" in reported
    assert "…" not in reported
    assert press(shown, "q") is None
    assert press(shown, "q") == "quit"


def test_a_failed_run_is_retried_and_a_running_one_revoked_after_a_yes() -> None:
    runs, failed = row("aaaa1111", "running", state="running"), row(RUN_ID, "failed", state="failure")
    shown = screen_of(runs, failed, row("cccc3333"), row("dddd4444", "failed", state="retry"))
    assert press(shown, "x") is None
    assert drawn(shown, 80, 24)[-1] == f"Revoke {TASK} aaaa1111? y/N"
    assert press(shown, "y") == Order("revoke", runs)
    assert press(shown, "x", "enter") is None
    assert shown.message == "Nothing was changed."
    assert press(shown, "r") is None
    assert shown.message == "aaaa1111 is running: its failed runs can be sent again."
    assert press(shown, "j", "r", "y") == Order("retry", failed)
    assert press(shown, "enter", "r", "n") is None
    assert press(shown, "r", "y") == Order("retry", failed)
    assert press(shown, "q", "x") is None
    assert shown.message == "2202a3d0 has ended."
    assert press(shown, "j", "r") is None
    assert "retries automatically" in shown.message
    assert press(shown, "G", "x") is None
    assert shown.message == "cccc3333 has ended."


def test_in_prod_an_action_is_confirmed_by_typing_the_stacks_name() -> None:
    runs = row("aaaa1111", "running", state="running")
    shown = screen_of(runs, stage="prod")
    assert press(shown, "x", "y", "enter") is None
    assert shown.message == "Nothing was changed."
    press(shown, "x", *"nexus-zx")
    assert "This is prod: type nexus-x and Enter: nexus-zx" in shown.question
    assert press(shown, "backspace", "backspace", "x", "enter") == Order("revoke", runs)
    assert press(shown, "x", *"nexus-x", "escape") is None


# --- what they do ---


@pytest.fixture
def stack(emptied: None, monkeypatch: pytest.MonkeyPatch) -> None:
    audit.watch()
    monkeypatch.setattr(audit, "_who", lambda: "arn:ada")


def dead(envelope: Envelope) -> None:
    """A run that has failed, with its dead letter."""
    backend().store.apply(transitions.pending(envelope, "emails", 2_000_000_000))
    backend().store.apply(transitions.not_sent(envelope.id, RunError("Timeout", "too slow"), clock.moment()))
    url = sdk.client("sqs").get_queue_url(QueueName=settings().dead_letter_queue_name("emails"))["QueueUrl"]
    sdk.client("sqs").send_message(QueueUrl=url, MessageBody=envelope.encode())


def sent(run_id: str, **also: Any) -> Envelope:
    return Envelope(id=run_id, task="send_welcome_email", args={"user_id": "u-1"}, **also)


@pytest.mark.usefixtures("stack")
def test_a_retry_and_a_revocation_are_done_and_noted() -> None:
    failed, waits = sent(new_id()), sent(new_id())
    dead(failed)
    backend().store.apply(transitions.pending(waits, "emails", 2_000_000_000))
    assert watch.act("retry", failed.id) == "1 sent again."
    assert AsyncResult[Any](failed.id).status == "PENDING"
    with pytest.raises(Problem, match="nothing to send again"):
        watch.act("retry", failed.id)
    assert watch.act("revoke", waits.id).endswith("is REVOKED: it does not run.")
    assert watch.act("revoke", waits.id).endswith("is REVOKED: it had already ended.")
    noted = [(one.what, one.about) for one in reversed(audit.entries())]
    assert noted[:2] == [("retry", {"id": failed.id}), ("revoke", {"id": waits.id})]


@pytest.mark.usefixtures("stack")
def test_a_retry_of_a_job_sends_its_failed_segments_again() -> None:
    job = new_id()
    members = [tallies.member(job, 1, n) for n in range(3)]
    kept: dict[str, Any] = {
        "status": "FAILURE",
        "task": "send_welcome_email",
        "queue": "emails",
        "total": 3,
        "phase": 1,
        "waits": True,
    }
    backend().store.apply(Write(job, kept))
    backend().store.apply(Write(tallies.tally(job, 1, 0), add={"done": frozenset({0}), "failed": frozenset({1, 2})}))
    dropped = sent(members[1])
    backend().store.apply(transitions.pending(dropped, "emails", 2_000_000_000))
    backend().store.apply(transitions.not_sent(dropped.id, RunError("Timeout", "too slow"), clock.moment()))
    dead(sent(members[2]))
    assert watch.act("retry", job) == "1 sent again. 1 no longer had a dead letter."
    assert AsyncResult[Any](members[2]).status == "PENDING"


@pytest.mark.usefixtures("stack")
def test_opening_a_run_shows_its_record_with_error_and_traceback() -> None:
    failed = sent(new_id())
    dead(failed)
    reported = dict(watch.details(failed.id))
    assert reported["id"] == failed.id
    assert reported["arguments"] == "user_id=u-1"
    assert reported["error"] == "Timeout: too slow"
    with pytest.raises(Problem, match="unknown"):
        watch.details(new_id())


def test_the_log_is_not_asked_at_each_look_whether_a_function_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def dying(queue: str, *_: Any) -> diagnosis.Dying:
        asked.append(queue)
        return diagnosis.Dying(queue, 1.0, 3, "no module")

    monkeypatch.setattr(diagnosis, "dying", dying)
    monkeypatch.setattr(monitor, "live_version", lambda _: (0.0, "7"))
    seen, counts = monitor.Monitor(), [Counts(0, 3, 0)]
    for at in (1000.0, 1002.0, 1029.0):
        assert seen._wrong(["users"], counts, (), at) == ("users: the function dies: no module",)
    assert asked == ["users"]
    assert seen._wrong(["users"], [Counts(0, 0, 0)], (), 1029.5) == ()
    seen._wrong(["users"], counts, (), 1030.0)
    assert asked == ["users", "users"]


# --- what fails while it is shown ---


def future(result: Any) -> Future[Any]:
    """One that is done, with this result or error."""
    made: Future[Any] = Future()
    if isinstance(result, Exception):
        made.set_exception(result)
    else:
        made.set_result(result)
    return made


def test_a_failed_read_is_reported_below_the_last_good_view() -> None:
    shown = screen_of(row(RUN_ID))
    watch._take(shown, future(EndpointConnectionError(endpoint_url="https://sqs")))
    assert shown.error is not None
    assert shown.error.startswith("AWS does not respond: ")
    lines = "\n".join(drawn(shown, 80, 24))
    assert "AWS does not respond" in lines
    assert short(RUN_ID) in lines
    # A bug ends it, and so does a first look that fails: there is nothing to show.
    with pytest.raises(ValueError, match="a bug"):
        watch._take(shown, future(ValueError("a bug")))
    with pytest.raises(EndpointConnectionError):
        watch._take(Screen(where()), future(EndpointConnectionError(endpoint_url="https://sqs")))


def test_a_failed_action_is_reported_and_an_unexpected_error_raised() -> None:
    shown = screen_of(row(RUN_ID, "failed", state="failure"))
    order = Order("retry", shown.all_rows[0])
    watch._finish(shown, order, future(Problem("It was dropped", "Someone else was faster.")))
    assert "It was dropped. Someone else was faster." in str(shown.message)
    watch._finish(shown, order, future("1 sent again."))
    assert "1 sent again." in str(shown.message)
    with pytest.raises(ValueError, match="a bug"):
        watch._finish(shown, order, future(ValueError("a bug")))


def test_an_opened_runs_details_are_not_replaced_by_anothers() -> None:
    shown = screen_of(row("aaaa1111"), row("bbbb2222"))
    press(shown, "enter")
    one, other = shown.all_rows
    watch._finish(shown, Order("open", one), future([("id", "aaaa1111")]))
    watch._finish(shown, Order("open", other), future([("id", "bbbb2222")]))
    assert shown.details == [("id", "aaaa1111")]
    press(shown, "?")
    assert shown.helping


# --- on a terminal ---

PROGRAM = """
import sys, time
from tests.unit.ops import test_monitor as t
from ops.cli import watch

found = [t.row("aaaa1111", "running", state="running"), t.row("bbbb2222", "failed", state="failure")]
watch.Poller.poll = lambda _: (t.look(), found)
watch.details = lambda run_id: [("id", run_id), ("arguments", "user_id=u-1")]
watch.act = lambda action, run_id: f"did {action} {run_id}"
{more}
watch.run(t.where(), 0.5)
"""


def view(more: str = "") -> Terminal:
    """The view on a terminal of 80 columns, in its own process."""
    variables = {"PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}", "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    return Terminal([sys.executable, "-c", PROGRAM.replace("{more}", more)], variables, ROOT)


def walked(terminal: Terminal, steps: list[tuple[str, str]]) -> None:
    for typed, words in steps:
        terminal.press(typed)
        terminal.until(words)


def test_on_a_terminal_keys_select_filter_open_retry_revoke_and_quit() -> None:
    terminal = view()
    terminal.until("▸ aaaa1111")
    walked(
        terminal,
        [
            ("x", "Revoke update_post_engagement_scores aaaa1111? y/N"),
            ("y", "did revoke aaaa1111"),
            ("\x1b[B", "▸ bbbb2222"),
            ("r", "Retry update_post_engagement_scores bbbb2222? y/N"),
            ("y", "did retry bbbb2222"),
            ("\r", "user_id=u-1"),
            ("q", "▸ bbbb2222"),
            ("/running", "/ running"),
            ("\r", "▸ aaaa1111"),
        ],
    )
    terminal.press("q")
    assert terminal.wait() == 0


def test_q_quits_without_waiting_for_a_slow_poll() -> None:
    terminal = view("watch.Poller.poll = lambda _: time.sleep(3600)")
    terminal.until("looking ...")
    terminal.press("q")
    assert terminal.wait() == 0
