"""How `nexus monitor` divides a terminal's width: what is long is cut, and nothing else for its sake."""

import time
from datetime import UTC, datetime

import pytest
from rich.console import Console

from ops.cli import monitor
from ops.deployment import Deployment
from ops.live import LiveRun
from ops.logs import Event

NOW = time.time()
RUN_ID = "01a2049c-5dbf-7066-8bcd-89752202a3d0"
TASK = "update_post_engagement_scores"


def drawn(width: int, view: monitor.View) -> list[str]:
    """The lines on a terminal of that width."""
    deployment = Deployment("nexus-x", "UPDATE_COMPLETE", "eu-west-1", "1" * 12, {"Stage": "dev"}, datetime.now(UTC))
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(monitor.draw(deployment, view, height=45, hint="Ctrl-C ends it"))
    return captured.get().splitlines()


def view(reason: str) -> monitor.View:
    """One of each: a queue, a run, a failure, an end."""
    queue = monitor.QueueLine("maintenance", 3, True, 1, 2, 0, 1, 1, 33.8, 1.2, (1,) * monitor.SPARK)
    run = LiveRun(RUN_ID, TASK, "analytics", "STARTED", NOW - 100, attempts=1, progress=(7, 4000, ""))
    failure = Event(NOW, "analytics", TASK, RUN_ID, "fanned_out", 1, 123.456, reason)
    return monitor.View(NOW, (queue,), (run,), (), (failure,), (failure,))


@pytest.mark.parametrize("width", [120, 140])
@pytest.mark.parametrize("reason", ["Reject: no", "Reject: " + "so long " * 30])
def test_a_long_reason_takes_nothing_from_the_other_columns(width: int, reason: str) -> None:
    lines = drawn(width, view(reason))
    assert all(len(line) <= width for line in lines)
    (heading,) = [line for line in lines if line.startswith("failures and retries, 5 minutes")]
    assert heading.split()[-4:] == ["outcome", "task", "took", "reason"]
    rows = [line for line in lines if "fanned_out" in line]
    assert len(rows) == 2
    for row in rows:
        assert row.split()[1:6] == [RUN_ID, "fanned_out", TASK, "123.46s", "Reject:"]
        assert ("…" in row) == (len(reason) > 100)


def test_a_run_s_progress_is_whole_on_a_narrow_terminal() -> None:
    (row,) = [line for line in drawn(120, view("")) if "7/4000" in line]
    assert "…" not in row
    assert row.startswith(TASK)


def test_it_says_how_to_leave() -> None:
    assert drawn(120, view(""))[0].rstrip().endswith("Ctrl-C ends it")
