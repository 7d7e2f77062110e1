"""A run's timeline: its waits, attempts and members, the runs it sent, and what follows it.

The attempts are in the function's log, one line at the start and one at the end of each; the record has only the last.
So a run whose log lines have expired shows only that one.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, Literal

from nexus.backend import backend
from nexus.backend.store import numbers
from nexus.client import AsyncResult, read_records
from nexus.client.steps import load
from nexus.runs import tallies
from nexus.runs.record import RunRecord
from ops import logs
from ops.spans import At

SHOWN: Final = 200
"""The most members of a fan-out whose records are read: all, or those that failed and a sample."""

FAILED_SHOWN: Final = 50

type Kind = Literal["wait", "attempt", "parts", "part", "sent", "next"]


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of the timeline. Times are seconds since 1970; `end` is None while it lasts.

    `status` is the outcome of an attempt or run, in lower case; `run` is the id of another run. A run that has not
    started has no `start`.
    """

    kind: Kind
    label: str
    start: At | None
    end: At | None
    status: str = ""
    run: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a fan-out or group; its status is done, failed or open."""

    id: str
    index: int
    status: str


@dataclass(frozen=True, slots=True)
class TimeLine:
    """All bars, from `start` to `end` (now, if the run lasts). `parts` counts the members, `shown` those with a bar."""

    start: At
    end: At
    bars: tuple[Bar, ...]
    in_progress: bool
    parts: int = 0
    shown: int = 0


def of(record: RunRecord, lines: Iterable[logs.Line]) -> TimeLine:
    """The timeline of a run, from its record and log lines."""
    bars = [*_own(record, lines)]
    members = of_members(record) if record.fanned_out else []
    parts = _part_bars("part", sample(members))
    if record.phase > 1:
        earlier = [Member(tallies.member(record.id, 1, n), n, "") for n in range(tallies.CHUNK)]
        parts += _part_bars("part of the first phase", earlier)
    bars += sorted(parts, key=lambda bar: bar.start or 0.0)
    bars += [_bar("sent", run.task, run) for run in children(record)]
    bars += [_bar("next", f"{kind}: {name}", run) for name, kind, run in following(record)]
    times = [at for bar in bars for at in (bar.start, bar.end) if at is not None]
    start = record.sent_at or (min(times) if times else 0.0)
    in_progress = not record.ended or any(bar.start is not None and bar.end is None for bar in bars)
    end = max([*times, start, *([time.time()] if in_progress else [])])
    return TimeLine(min([start, *times]), end, tuple(bars), in_progress, max(len(members), len(parts)), len(parts))


def _part_bars(what: str, members: Sequence[Member]) -> list[Bar]:
    runs = read_records([AsyncResult(one.id) for one in members])
    return [_bar("part", f"{what} {one.index}", run) for one, run in zip(members, runs, strict=True) if _is_run(run)]


def _own(record: RunRecord, lines: Iterable[logs.Line]) -> Iterable[Bar]:
    """The run's own waits and attempts, in order."""
    attempts = _attempts(record, lines)
    at, waited_for = record.sent_at, "in line"
    for attempt in attempts:
        if at is not None and attempt.start is not None and attempt.start > at:
            yield Bar("wait", waited_for, at, attempt.start)
        yield attempt
        at, waited_for = attempt.end, "until the next attempt" if attempt.status == "retry" else "in line"
    if record.fanned_out and record.started_at is not None:
        first = attempts[-1].end if attempts else record.started_at
        yield Bar("parts", "its parts", first, record.ended_at, record.status.lower())
    elif not attempts or (not record.ended and record.status != "STARTED"):
        yield Bar("wait", waited_for, at, record.ended_at)


def _attempts(record: RunRecord, lines: Iterable[logs.Line]) -> list[Bar]:
    bars: list[Bar] = []
    for line in lines:
        if line.fields.get("run_id") != record.id:
            continue
        label, at = f"attempt {int(line.fields.get('attempt', 0) or 0)}", _written(line)
        # An attempt that is overtaken may end after the start, or even the end, of the one that has overtaken it.
        latest = next((n for n in reversed(range(len(bars))) if bars[n].label == label), None)
        if line.message == "run started":
            bars.append(Bar("attempt", label, at, None, "started"))
        elif latest is not None and line.message == "run ended" and bars[latest].end is None:
            bars[latest] = replace(bars[latest], end=at, status=str(line.fields.get("outcome", "")))
        elif latest is not None and line.message == "attempt overtaken":
            bars[latest] = replace(bars[latest], end=bars[latest].end or at, status="overtaken")
    for n, (bar, later) in enumerate(pairwise(bars)):
        if bar.end is None:
            bars[n] = replace(bar, end=later.start, status="lost")  # or it still works, and is overtaken when it ends
    if record.started_at is None:
        return bars
    if not bars or (bars[-1].start or 0.0) < record.started_at - 5.0:
        end = None if record.fanned_out else record.ended_at
        bars.append(Bar("attempt", f"attempt {record.attempts}", record.started_at, end, record.status.lower()))
    elif bars[-1].end is None and record.ended:
        # Its sandbox died, or its last line has not arrived yet.
        bars[-1] = Bar("attempt", bars[-1].label, bars[-1].start, record.ended_at, record.status.lower())
    return bars


def _written(line: logs.Line) -> float:
    """When a line was written, from the line itself: a log may give all lines of an invocation one timestamp."""
    text = line.fields.get("timestamp")
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return line.at


def of_members(record: RunRecord) -> list[Member]:
    """All members of a fan-out or group, from its tallies: one request for each 10,000."""
    keys = [tallies.tally(record.id, record.phase, chunk) for chunk in range(tallies.chunks(record.total))]
    counted = backend().store.get(keys).values()
    done = {n for item in counted for n in numbers(item, "done")}
    failed = {n for item in counted for n in numbers(item, "failed")}
    status = {n: "done" if n in done else "failed" if n in failed else "open" for n in range(record.total)}
    return [Member(run_id, n, status[n]) for n, run_id in enumerate(tallies.children(record))]


def sample(members: Sequence[Member]) -> list[Member]:
    """All members if there are few; else the first that failed, and others at equal distances, in order."""
    if len(members) <= SHOWN:
        return list(members)
    failed = [one for one in members if one.status == "failed"][:FAILED_SHOWN]
    room = SHOWN - len(failed)
    chosen = {one.index for one in failed} | {n * len(members) // room for n in range(room)}
    return [members[n] for n in sorted(chosen)]


def children(record: RunRecord) -> list[RunRecord]:
    """The first hundred runs that this run sent itself."""
    return [run for run in read_records([AsyncResult(run_id) for run_id in record.children]) if _is_run(run)]


def following(record: RunRecord) -> list[tuple[str, str, RunRecord]]:
    """What follows the run: (task, "then" or "on error", the run, UNKNOWN before it is sent)."""
    item = backend().store.get([record.id]).get(record.id, {})
    steps: list[tuple[Any, str]] = []
    for attribute, kind in (("then", "then"), ("on_error", "on error")):
        if attribute in item:
            steps += [(step, kind) for step in load(str(item[attribute]), record.id)]
    runs = read_records([AsyncResult(step.id) for step, _ in steps])
    return [(step.name, kind, run) for (step, kind), run in zip(steps, runs, strict=True)]


def _is_run(record: RunRecord) -> bool:
    return record.status != "UNKNOWN"


def _bar(kind: Kind, label: str, run: RunRecord) -> Bar:
    """The bar of another run, from its last start to its end."""
    end = run.ended_at if run.started_at is not None else None
    return Bar(kind, label, run.started_at, end, run.status.lower(), run.id if _is_run(run) else None)
