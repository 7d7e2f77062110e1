"""Rows of the live view: one for each run with its last attempt, one for each job with its segments."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ops import logs
from ops.cli.monitor import View
from ops.live import LiveRun

type Section = Literal["running", "failed", "ended"]

SECTIONS: Final[tuple[Section, ...]] = ("running", "failed", "ended")
_BAD: Final = ("failure", "retry")
_ENDS: Final = ("success", "failure", "revoked")


@dataclass(frozen=True, slots=True)
class Row:
    """A run, or a job with its segments folded. `seconds` is how long it has run, or its last attempt took; `at` is
    when that ended (seconds since 1970)."""

    id: str
    task: str
    state: str
    section: Section
    queue: str = ""
    attempt: int = 0
    seconds: float | None = None
    at: float | None = None
    about: str = ""
    progress: tuple[int, int] | None = None

    def has(self, typed: str) -> bool:
        """Whether the row contains every word, ignoring case."""
        text = f"{self.id} {self.task} {self.state} {self.section} {self.queue} {self.about}".lower()
        return all(word in text for word in typed.lower().split())


def rows(view: View, events: Iterable[logs.Event], parents: Mapping[str, str]) -> list[Row]:
    """All rows: running ones first (jobs, then oldest first), then the others, latest first.

    `events` are the attempts that ended, latest first. `parents` maps each segment among their runs, and each job that
    is itself a segment, to its job.
    """
    attempts: dict[str, dict[str, logs.Event]] = {}
    for event in events:
        job = event.run_id
        while (parent := parents.get(job, job)) != job:
            job = parent
        # A run's last attempt counts. But a plan that was delivered twice does not outweigh the job's end.
        ends = attempts.setdefault(job, {})
        known = ends.get(event.run_id)
        if known is None or (known.outcome == "fanned_out" and event.outcome in _ENDS):
            ends[event.run_id] = event
    running = _running(view, attempts)
    shown = {row.id for row in running}
    ended = [_ended(run_id, ends) for run_id, ends in attempts.items() if run_id not in shown]
    by_section = {name: [row for row in ended if row.section == name] for name in SECTIONS}
    return [*running, *by_section["failed"], *by_section["ended"]]


def _running(view: View, attempts: Mapping[str, Mapping[str, logs.Event]]) -> list[Row]:
    jobs = {job_id for job_id, *_ in view.jobs}
    found = []
    for job_id, task, done, total in view.jobs:
        now = sum(run.parent == job_id for run in view.running)
        failed = sum(end.outcome in _BAD for run_id, end in attempts.get(job_id, {}).items() if run_id != job_id)
        about = f"{now} run" if now else ""
        about += f"{', ' if about else ''}{failed} failed" if failed else ""
        found.append(Row(job_id, task, "running", "running", about=about, progress=(done, total)))
    return [*found, *(_live(run, view.at) for run in view.running if run.id not in jobs and run.parent not in jobs)]


def _live(run: LiveRun, now: float) -> Row:
    state = "lost" if run.lost else "running"
    about = f"segment {run.segment}" if run.segment is not None else ""
    progress = None
    if run.progress:
        done, total, about = run.progress
        progress = done, total
    return Row(run.id, run.task, state, "running", run.queue, run.attempts, now - run.since, None, about, progress)


def _ended(run_id: str, ends: Mapping[str, logs.Event]) -> Row:
    """A run that has ended, or a job with some segments that have."""
    members = [end for member, end in ends.items() if member != run_id]
    own = ends.get(run_id)
    if own is None or (own.outcome == "fanned_out" and members):
        latest = members[0]
        bad = next((end for end in members if end.outcome in _BAD), None)
        state = bad.outcome if bad else "segments"
        why = f": {bad.reason}" if bad and bad.reason else ""
        return _of_event(run_id, bad or latest, state, _segments(members) + why)
    return _of_event(run_id, own, own.outcome, own.reason or (_segments(members) if members else ""))


def _of_event(run_id: str, end: logs.Event, state: str, about: str) -> Row:
    section: Section = "failed" if state in _BAD else "ended"
    return Row(run_id, end.task, state.replace("_", " "), section, end.queue, end.attempt, end.seconds, end.at, about)


def _segments(members: Sequence[logs.Event]) -> str:
    failed = sum(end.outcome in _BAD for end in members)
    noun = "segment" if len(members) == 1 else "segments"
    return f"{len(members)} {noun}" + (f", {failed} failed" if failed else "")
