"""The loop of `nexus monitor`: polls, draws, and performs the actions that keys request."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ops import audit, logs
from ops.cli import output
from ops.cli.keys import Keys
from ops.cli.monitor import Monitor, View
from ops.cli.rows import Row, rows
from ops.cli.screen import Order, Screen
from ops.lookup import short
from ops.problems import explained

if TYPE_CHECKING:
    from concurrent.futures import Future

    from nexus.runs.record import RunRecord
    from ops.deployment import Deployment


# --- what the keys do ---


def details(run_id: str) -> list[tuple[str, str]]:
    """A run's record as `nexus result` shows it. Raises Problem if there is no such run."""
    from nexus.client import AsyncResult
    from ops.cli.records import described
    from ops.problems import Problem

    record = AsyncResult[Any](run_id).record()
    if record.status == "UNKNOWN":
        raise Problem(f"{run_id} is unknown", "Its record has expired.")
    fields, below = described(record)
    facts = [(name, str(value)) for name, value in fields.items() if value not in (None, "")]
    facts += [("", ""), ("", below)] if below else []
    return [*facts, ("", ""), ("", f"`nexus logs {short(run_id)}` shows what it wrote.")]


def retry(run_id: str) -> str:
    """Resends a failed run, or the failed members of a job. Raises Problem if it cannot."""
    from ops import retrying

    return retrying.retry(retrying.failed([run_id]))


def revoke(run_id: str) -> str:
    """Stops a run that has not ended."""
    from nexus.client import AsyncResult
    from ops.cli.records import meaning

    handle: AsyncResult[Any] = AsyncResult(run_id)
    before = handle.status
    after = "UNKNOWN" if before == "UNKNOWN" else handle.revoke("revoked by an operator")
    return f"{short(run_id)} is {after}: {meaning(before, after)}."


ACTIONS: Final[Mapping[str, Callable[[str], str]]] = {"retry": retry, "revoke": revoke}


def act(action: str, run_id: str) -> str:
    """Performs a key's action with its audit entry and returns the outcome as text. Raises Problem if it fails."""
    change = audit.Change(action, {"id": run_id})
    with audit.changing(change):
        change.outcome = ACTIONS[action](run_id)
    missing = f" It is missing from the audit trail: {change.missing.what}." if change.missing else ""
    return change.outcome + missing


# --- the loop ---


class Poller:
    """Polls the deployment and tracks which runs are segments of which jobs."""

    def __init__(self) -> None:
        self._monitor = Monitor()
        self._parents: dict[str, str] = {}

    def poll(self) -> tuple[View, list[Row]]:
        """The view and its rows. Raises botocore's errors."""
        view, events = self._monitor.poll(), self._monitor.events
        # A derived id (UUIDv5) may be a segment's; its record is read once to find out. So is that of a rule's firing
        # whose id happens to look like one. A segment may itself be a job.
        met = {event.run_id for event in events if _derived(event.run_id)}
        known: dict[str, str] = {}
        while met:
            unknown = sorted(met - set(self._parents))
            found = {one.id: one.parent for one in _records(unknown) if one.parent and one.segment is not None}
            known |= {run_id: self._parents.get(run_id) or found.get(run_id, run_id) for run_id in met}
            met = {parent for run_id in met if _derived(parent := known[run_id])} - set(known)
        self._parents = known
        view = replace(view, jobs=(*view.jobs, *_waiting(view, events)))
        return view, rows(view, events, known)


def _derived(run_id: str) -> bool:
    return run_id[14:15] == "5"


def _records(ids: Sequence[str]) -> "list[RunRecord]":
    from nexus.client import AsyncResult, read_records

    return read_records([AsyncResult(run_id) for run_id in ids]) if ids else []


def _waiting(view: View, events: Iterable[logs.Event]) -> list[tuple[str, str, int, int]]:
    """The jobs that began recently and have no segment running now."""
    from nexus.runs import tallies

    begun = {event.run_id for event in events if event.outcome == "fanned_out"} - {job_id for job_id, *_ in view.jobs}
    return [
        (one.id, one.task, *tallies.progress(one)) for one in _records(sorted(begun)) if one.waits and not one.ended
    ]


def show_once(deployment: "Deployment") -> None:
    """Prints one snapshot, as plain text or drawn."""
    from rich.console import Console

    console = Console(width=None if output.fancy() else 140, no_color=not output.fancy(), highlight=False)
    screen = Screen(deployment)
    screen.show(*Poller().poll())
    console.print(screen.draw(console.width, 0, keys=False))


def run(deployment: "Deployment", every: float) -> None:
    """Draws until q or Ctrl-C. The view shows a failed poll and retries it, so it survives a short outage."""
    from rich.console import Console
    from rich.live import Live

    from ops.aws import Threads, in_background

    console, screen, poller = Console(), Screen(deployment), Poller()
    size, drawn = console.size, False
    # A poll takes a while. Keys work meanwhile, and q does not wait for a poll, only for a change.
    with Keys() as keys, Threads(1) as pool, Live(console=console, screen=True, auto_refresh=False) as live:
        poll: Future[tuple[View, list[Row]]] | None = None
        doing: list[tuple[Order, Future[Any]]] = []
        due = 0.0
        while True:
            if poll is None and time.monotonic() >= due:
                poll, due = in_background(poller.poll), time.monotonic() + every
            if poll is not None and poll.done():
                _take(screen, poll)
                poll, drawn = None, False
            for one in [one for one in doing if one[1].done()]:
                doing.remove(one)
                _finish(screen, *one)
                due, drawn = 0.0, False
            if not drawn or console.size != size:
                size, drawn = console.size, True
                live.update(screen.draw(size.width, size.height), refresh=True)
            for key in keys.read(0.1):
                drawn = False
                order = screen.press(key)
                if order == "quit":
                    return
                if order is None:
                    continue
                if order.action == "open":
                    doing.append((order, in_background(partial(details, order.row.id))))
                else:
                    screen.message = f"{order.action} {short(order.row.id)} ..."
                    doing.append((order, pool.submit(act, order.action, order.row.id)))


def _take(screen: Screen, poll: "Future[tuple[View, list[Row]]]") -> None:
    try:
        screen.show(*poll.result())
    except Exception as failure:
        problem = explained(failure)
        if problem is None or screen.view is None:
            raise
        screen.error = f"{problem.what}: {problem.why}"


def _finish(screen: Screen, order: Order, done: "Future[Any]") -> None:
    try:
        outcome = done.result()
    except Exception as failure:
        problem = explained(failure)
        if problem is None:
            raise
        screen.message = f"{problem.what}. {problem.why}"
        return
    if order.action != "open":
        screen.message = outcome
    elif screen.opened is order.row:
        screen.details = outcome
