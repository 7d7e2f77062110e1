"""Faults inside the functions: functions that die before they start a run, tasks whose every attempt fails, and tasks
most of whose successful runs fall short of their purpose.

The functions' logs show all of these within seconds; Lambda's error count shows a function that dies without a log
line. What happened before a function's last change is ignored, and what other versions did: after a rollback, the
version that is live has an old date.
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
"""Seconds of log to look through."""

IN_A_ROW = 3
"""A task is failing after this many consecutive failed attempts: retries handle a single one."""

LAST_WORDS = ("[ERROR]", "Task timed out after", "Runtime exited")
"""Phrases that Lambda itself logs when an invocation fails."""

_LAST_WORDS = re.compile(r"^\[ERROR\]\s*(?P<error>.+)|(?P<other>Task timed out after [\d.]+ seconds|Runtime exited.*)")


@dataclass(frozen=True, slots=True)
class Dying:
    """A queue's function whose last invocation failed, with no run started since.

    It failed `times` times since `since` (seconds since 1970). `error` is its last log line, None if there is none.
    `in_a_run` is whether a run had started.
    """

    queue: str
    since: float
    times: int
    error: str | None
    in_a_run: bool = False


@dataclass(frozen=True, slots=True)
class Failing:
    """A task that is still retried and whose last attempts all failed.

    Holds their number, since when (seconds since 1970), and the last one's reason.
    """

    queue: str
    task: str
    times: int
    since: float
    reason: str
    run_id: str


@dataclass(frozen=True, slots=True)
class FallingShort:
    """A task most of whose successful runs fell short of their purpose.

    Holds how many of how many, by reason, and the last one.
    """

    queue: str
    task: str
    times: int
    runs: int
    reasons: Mapping[str, int]
    run_id: str


def _read(queue: str, phrases: Sequence[str], start: float, version: str) -> Iterator[logs.Line]:
    """The lines with these phrases since then, of one version of the function; of all, if it is empty."""
    return (line for line in logs.read(queue, phrases, start) if line.is_of(version))


def dying(queue: str, now: float, changed_at: float, version: str = "") -> Dying | None:
    """The queue's function if it is dying, else None. `version` is the one that is live, `changed_at` its last change,
    in seconds since 1970.
    """
    start = max(now - BACK, changed_at)
    found: dict[str, tuple[logs.Line, str]] = {}
    for phrase in LAST_WORDS:
        for line in _read(queue, [phrase], start, version):
            match = None if line.fields else _LAST_WORDS.search(line.message.splitlines()[0])
            if match is not None and line.at >= start:
                found[line.id] = line, (match["error"] or match["other"]).strip()
    if not found:
        return None
    deaths = sorted(found.values(), key=lambda pair: pair[0].at)
    last, error = deaths[-1]
    lines = _read(queue, ["run started"], start, version)
    started = [line.at for line in lines if line.message == "run started"]
    if any(at > last.at for at in started):
        return None
    # Failures before the last run that started no longer matter.
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
    """Functions that only Lambda's metrics show dying: every invocation of their last busy minute was an error."""
    if not queues:  # GetMetricData takes no empty list
        return []
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
    response = client("cloudwatch").get_metric_data(
        MetricDataQueries=queries,
        StartTime=until - timedelta(seconds=BACK),
        EndTime=until + timedelta(minutes=1),
        ScanBy="TimestampAscending",
    )
    minutes = {
        result["Id"]: {at.timestamp(): value for at, value in zip(result["Timestamps"], result["Values"], strict=True)}
        for result in response["MetricDataResults"]
    }
    found = []
    for n, queue in enumerate(queues):
        invocations, errors = minutes.get(f"invocations{n}", {}), minutes.get(f"errors{n}", {})
        # A minute that began before the last change may belong to the previous version.
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
    """Whether the function has started a run since the first of these failures, none of which is in its log."""
    return any(line.message == "run started" for line in logs.read(one.queue, ["run started"], one.since))


def of_another_version(one: Dying, version: str) -> bool:
    """Whether another version has worked since the first of these failures: metrics do not say whose they are."""
    return any(not line.is_of(version) for line in logs.read(one.queue, ["RequestId"], one.since))


def unclaimed(queue: str, in_flight: int) -> int:
    """How many of a queue's in-flight messages no run has claimed. Runs that wait for a retry count as claimed."""
    from ops import live

    found = live.runs([queue], limit=in_flight + 1, details=False).runs
    claimed = sum(run.status in ("STARTED", "RETRY") for run in found)
    return max(0, in_flight - claimed)


def failing(queue: str, now: float, changed_at: float, version: str = "") -> list[Failing]:
    """The queue's tasks whose last attempts all failed. `version` and `changed_at` are as in `dying`."""
    start = max(now - BACK, changed_at)
    failed: dict[str, dict[str, logs.Event]] = {}
    for outcome in ("retry", "failure"):
        for line in _read(queue, ["run ended", outcome], start, version):
            event = logs.event_of(line)
            if event is not None and event.outcome in ("retry", "failure") and event.at >= start:
                failed.setdefault(event.task, {})[line.id] = event
    found = []
    for task, by_line in failed.items():
        if len(by_line) < IN_A_ROW:
            continue
        good = _last_success(queue, task, start, version)
        streak = sorted((event for event in by_line.values() if event.at > good), key=lambda event: event.at)
        if len(streak) >= IN_A_ROW and _still_tried(streak):
            last = streak[-1]
            found.append(Failing(queue, task, len(streak), streak[0].at, last.reason or "no reason", last.run_id))
    return found


def _still_tried(streak: Sequence[logs.Event]) -> bool:
    """Whether any of the runs has not ended. Ended ones are dead letters and are reported as such."""
    from nexus.client import AsyncResult, read_records

    ids = {event.run_id: None for event in reversed(streak) if event.outcome == "retry"}
    return any(not record.ended for record in read_records([AsyncResult(run_id) for run_id in [*ids][:50]]))


def falling_short(queue: str, now: float, changed_at: float, version: str = "") -> list[FallingShort]:
    """The queue's tasks with more than half of their successes falling short. See `dying`."""
    start = max(now - BACK, changed_at)
    short: dict[str, list[logs.Event]] = {}
    for line in _read(queue, ["run ended", "shortfall"], start, version):
        event = logs.event_of(line)
        if event is not None and event.outcome == "success" and event.reason is not None and event.at >= start:
            short.setdefault(event.task, []).append(event)
    found = []
    for task, events in short.items():
        runs = sum(event.outcome == "success" for event in _ended(queue, task, start, version))
        if 2 * len(events) > runs:
            reasons = figures.shortfalls(events)
            found.append(FallingShort(queue, task, len(events), runs, reasons, events[-1].run_id))
    return found


def _ended(queue: str, task: str, start: float, version: str) -> Iterator[logs.Event]:
    events = (logs.event_of(line) for line in _read(queue, ["run ended", task], start, version))
    return (event for event in events if event is not None and event.task == task and event.at >= start)


def _last_success(queue: str, task: str, start: float, version: str) -> float:
    """When an attempt of a task last succeeded, in seconds since 1970; 0 if none did."""
    good = ("success", "fanned_out", "continued")
    return max((event.at for event in _ended(queue, task, start, version) if event.outcome in good), default=0.0)
