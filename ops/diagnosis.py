"""What goes wrong inside the functions: those that die before they start a run, tasks whose every attempt fails, and
tasks most of whose runs do not do what they were sent for.

All are read from the functions' own logs, which have them within seconds; Lambda's count of errors tells of a function
that dies and does not even write. What was there before a function's last change is not held against it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from nexus.settings import settings
from ops import figures, logs
from ops.aws import client

BACK = 900.0
"""Seconds of log that are looked through."""

IN_A_ROW = 3
"""So many attempts of a task must have failed one after the other: a single one is what retries are for."""

LAST_WORDS = ("[ERROR]", "Task timed out after", "Runtime exited")
"""What Lambda itself writes when an invocation ends badly."""

_LAST_WORDS = re.compile(r"^\[ERROR\]\s*(?P<error>.+)|(?P<other>Task timed out after [\d.]+ seconds|Runtime exited.*)")


@dataclass(frozen=True, slots=True)
class Dying:
    """A queue's function whose last invocation ended badly, with no run started since.

    `times` it did so from `since` on (seconds since 1970); `error` is its last words, None where its log is silent;
    `in_a_run` tells whether a run had started.
    """

    queue: str
    since: float
    times: int
    error: str | None
    in_a_run: bool = False


@dataclass(frozen=True, slots=True)
class Failing:
    """A task that is still tried and whose last attempts all failed.

    How many they are, from when on (seconds since 1970), and the last one's reason.
    """

    queue: str
    task: str
    times: int
    since: float
    reason: str
    run_id: str


@dataclass(frozen=True, slots=True)
class FallingShort:
    """A task most of whose successful runs did not do what they were sent for.

    How many they are of how many, by reason, and the last of them.
    """

    queue: str
    task: str
    times: int
    runs: int
    reasons: Mapping[str, int]
    run_id: str


def dying(queue: str, now: float, changed_at: float) -> Dying | None:
    """The queue's function, if it dies; `changed_at` is when it was last changed, in seconds since 1970."""
    start = max(now - BACK, changed_at)
    found: dict[str, tuple[logs.Line, str]] = {}
    for phrase in LAST_WORDS:
        for line in logs.read(queue, [phrase], start):
            words = None if line.fields else _LAST_WORDS.search(line.message.splitlines()[0])
            if words is not None and line.at >= start:
                found[line.id] = line, (words["error"] or words["other"]).strip()
    if not found:
        return None
    deaths = sorted(found.values(), key=lambda pair: pair[0].at)
    last, error = deaths[-1]
    started = [line.at for line in logs.read(queue, ["run started"], start) if line.message == "run started"]
    if any(at > last.at for at in started):
        return None
    # Deaths before the last run that could start are over.
    streak = [line for line, _ in deaths if not any(at > line.at for at in started)]
    return Dying(queue, streak[0].at, len(streak), error, in_a_run=_in_a_run(queue, last))


def _in_a_run(queue: str, last: logs.Line) -> bool:
    """Whether a run had started in the invocation that ended with this line."""
    started = False
    for line in logs.read(queue, [], last.at - BACK, last.at + 0.001, stream=last.stream):
        if line.message.startswith("START RequestId"):
            started = False
        elif line.message == "run started":
            started = True
    return started


def silent_deaths(queues: Sequence[str], now: float, changed_at: dict[str, float]) -> list[Dying]:
    """Functions that only Lambda's metrics tell of: every invocation of their last busy minute ended in an error."""
    queries: list[Any] = [
        {
            "Id": f"{name.lower()}{n}",
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/Lambda",
                    "MetricName": name,
                    "Dimensions": [{"Name": "FunctionName", "Value": settings().function_name(queue)}],
                },
                "Period": 60,
                "Stat": "Sum",
            },
        }
        for n, queue in enumerate(queues)
        for name in ("Invocations", "Errors")
    ]
    until = datetime.fromtimestamp(now, UTC)
    answer = client("cloudwatch").get_metric_data(
        MetricDataQueries=queries,
        StartTime=until - timedelta(seconds=BACK),
        EndTime=until + timedelta(minutes=1),
        ScanBy="TimestampAscending",
    )
    minutes = {
        result["Id"]: {at.timestamp(): value for at, value in zip(result["Timestamps"], result["Values"], strict=True)}
        for result in answer["MetricDataResults"]
    }
    found = []
    for n, queue in enumerate(queues):
        invocations, errors = minutes.get(f"invocations{n}", {}), minutes.get(f"errors{n}", {})
        # A minute that began before the last change may be the version before.
        busy = [at for at in sorted(invocations) if invocations[at] and at >= changed_at.get(queue, 0.0)]
        streak: list[float] = []
        for at in reversed(busy):
            if errors.get(at, 0.0) < invocations[at]:
                break
            streak.append(at)
        if streak:
            found.append(Dying(queue, streak[-1], round(sum(errors[at] for at in streak)), None))
    return found


def started_since(one: Dying) -> bool:
    """Whether the function has started a run since the first of these deaths, for its log tells of none."""
    return any(line.message == "run started" for line in logs.read(one.queue, ["run started"], one.since))


def unclaimed(queue: str, in_flight: int) -> int:
    """How many of a queue's messages in flight no run has claimed: those that wait for another attempt count too."""
    from ops import live

    found = live.runs([queue], limit=in_flight + 1, details=False).runs
    claimed = sum(run.status in ("STARTED", "RETRY") for run in found)
    return max(0, in_flight - claimed)


def failing(queue: str, now: float, changed_at: float) -> list[Failing]:
    """The queue's tasks whose last attempts all failed."""
    start = max(now - BACK, changed_at)
    failed: dict[str, dict[str, logs.Event]] = {}
    for outcome in ("retry", "failure"):
        for line in logs.read(queue, ["run ended", outcome], start):
            event = logs.event_of(line)
            if event is not None and event.outcome in ("retry", "failure") and event.at >= start:
                failed.setdefault(event.task, {})[line.id] = event
    found = []
    for task, by_line in failed.items():
        if len(by_line) < IN_A_ROW:
            continue
        good = _last_success(queue, task, start)
        streak = sorted((event for event in by_line.values() if event.at > good), key=lambda event: event.at)
        if len(streak) >= IN_A_ROW and _still_tried(streak):
            last = streak[-1]
            found.append(Failing(queue, task, len(streak), streak[0].at, last.reason or "no reason", last.run_id))
    return found


def _still_tried(streak: Sequence[logs.Event]) -> bool:
    """Whether any of the runs has not ended: those that have are dead letters, and are found as such."""
    from nexus.client import AsyncResult, read_records

    ids = {event.run_id: None for event in reversed(streak) if event.outcome == "retry"}
    return any(not record.ended for record in read_records([AsyncResult(run_id) for run_id in [*ids][:50]]))


def falling_short(queue: str, now: float, changed_at: float) -> list[FallingShort]:
    """The queue's tasks of whose successes more than half fell short."""
    start = max(now - BACK, changed_at)
    short: dict[str, list[logs.Event]] = {}
    for line in logs.read(queue, ["run ended", "shortfall"], start):
        event = logs.event_of(line)
        if event is not None and event.outcome == "success" and event.reason is not None and event.at >= start:
            short.setdefault(event.task, []).append(event)
    found = []
    for task, events in short.items():
        runs = sum(event.outcome == "success" for event in _ended(queue, task, start))
        if 2 * len(events) > runs:
            reasons = figures.shortfalls(events)
            found.append(FallingShort(queue, task, len(events), runs, reasons, events[-1].run_id))
    return found


def _ended(queue: str, task: str, start: float) -> Iterator[logs.Event]:
    events = (logs.event_of(line) for line in logs.read(queue, ["run ended", task], start))
    return (event for event in events if event is not None and event.task == task and event.at >= start)


def _last_success(queue: str, task: str, start: float) -> float:
    """When an attempt of a task last went well, in seconds since 1970; 0 when none did."""
    good = ("success", "fanned_out", "continued")
    return max((event.at for event in _ended(queue, task, start) if event.outcome in good), default=0.0)
