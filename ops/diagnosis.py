"""Faults inside the functions: functions that die before they start a run, tasks whose every attempt fails, and tasks
most of whose successful runs fall short of their purpose.

The functions' logs show all of these within seconds; Lambda's error count shows a function that dies without a log
line. What happened before a function's last change is ignored, and what other versions did: after a rollback, the
version that is live has an old date.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice

from nexus.settings import settings
from ops import cloudwatch, figures, logs
from ops.cloudwatch import Metric
from ops.spans import At

BACK = 900.0
"""Seconds of log to look through."""

MOST = 5_000
"""The most lines of successes that fell short to read of a queue's log: some four requests."""

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
    since: At
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
    since: At
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


def _read(
    queue: str, phrases: Sequence[str], start: float, version: str, end: float | None = None
) -> Iterator[logs.Line]:
    """The lines with these phrases in that time, of one version of the function; of all, if it is empty."""
    return (line for line in logs.read(queue, phrases, start, end) if line.is_of(version))


def _last(find: Callable[[float, float], Iterable[float]], start: float, end: float) -> float:
    """The last of the times that `find` finds between two; 0 if there is none. Of a busy queue's log, which is read
    from its beginning, a quarter of an hour is long: it looks at the last ten seconds first, and then further back.
    """
    for back in (10.0, 100.0, BACK):
        since = max(start, end - back)
        if (found := max(find(since, end), default=0.0)) or since == start:
            return found
    return 0.0


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

    def started(since: float, until: float | None = None) -> Iterator[float]:
        lines = _read(queue, ["run started"], since, version, until)
        return (line.at for line in lines if line.message == "run started")

    if any(at > last.at for at in started(last.at)):
        return None
    # Failures before the last run that started no longer matter.
    good = _last(started, start, last.at)
    streak = [line for line, _ in deaths if line.at >= good]
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
    wanted = {
        (queue, name): Metric("AWS/Lambda", name, "Sum", {"FunctionName": settings().function_name(queue)})
        for queue in queues
        for name in ("Invocations", "Errors")
    }
    until = datetime.fromtimestamp(now + 60.0, UTC)
    counted = cloudwatch.read(wanted, timedelta(seconds=BACK + 60.0), until)
    found = []
    for queue in queues:
        errors = counted.get((queue, "Errors"), {})
        streak: list[tuple[float, float]] = []
        for at, invocations in counted.get((queue, "Invocations"), {}).items():
            # A minute that began before the last change may belong to the previous version.
            if not invocations or at.timestamp() < changed_at.get(queue, 0.0):
                continue
            if errors.get(at, 0.0) < invocations:
                break
            streak.append((at.timestamp(), errors[at]))
        if streak:
            found.append(Dying(queue, streak[-1][0], round(sum(count for _, count in streak)), None))
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
        events = sorted(by_line.values(), key=lambda event: event.at)
        if len(events) < IN_A_ROW:
            continue
        latest = events[-IN_A_ROW].at
        if any(_good(queue, task, latest, version=version)):  # a busy task's next success is soon found
            continue
        good = _last(partial(_good, queue, task, version=version), start, latest)
        streak = [event for event in events if event.at > good]
        if _still_tried(streak):
            last = streak[-1]
            found.append(Failing(queue, task, len(streak), streak[0].at, last.reason or "no reason", last.run_id))
    return found


def _still_tried(streak: Sequence[logs.Event]) -> bool:
    """Whether any of the runs has not ended. Ended ones are dead letters and are reported as such."""
    from nexus.client import AsyncResult, read_records

    ids = {event.run_id: None for event in reversed(streak) if event.outcome == "retry"}
    return any(not record.ended for record in read_records([AsyncResult(run_id) for run_id in [*ids][:50]]))


def falling_short(queue: str, now: float, changed_at: float, version: str = "") -> list[FallingShort]:
    """The queue's tasks with more than half of their successes falling short. See `dying`.

    Looks back less far where there are over MOST such lines; if ten seconds have more, at the first of them.
    """
    start, end = 0.0, None
    lines: list[logs.Line] = []
    for back in (BACK, 100.0, 10.0):
        start = max(now - back, changed_at)
        lines = list(islice(_read(queue, ["run ended", "shortfall"], start, version), MOST))
        if len(lines) < MOST:
            break
    else:
        end = lines[-1].at
    short: dict[str, list[logs.Event]] = {}
    for line in lines:
        event = logs.event_of(line)
        if event is not None and event.outcome == "success" and event.reason is not None and event.at >= start:
            short.setdefault(event.task, []).append(event)
    found = []
    for task, events in short.items():
        ended = (event for event in _ended(queue, task, start, version, end) if event.outcome == "success")
        enough = 2 * len(events)  # no more are read: then most do not fall short
        runs = sum(1 for _ in islice(ended, enough))
        if runs < enough:
            reasons = figures.shortfalls(events)
            found.append(FallingShort(queue, task, len(events), runs, reasons, events[-1].run_id))
    return found


def _ended(queue: str, task: str, start: float, version: str, end: float | None = None) -> Iterator[logs.Event]:
    events = (logs.event_of(line) for line in _read(queue, ["run ended", task], start, version, end))
    return (event for event in events if event is not None and event.task == task and event.at >= start)


def _good(queue: str, task: str, start: float, end: float | None = None, *, version: str) -> Iterator[float]:
    """When attempts of a task succeeded, in seconds since 1970."""
    good = ("success", "fanned_out", "continued")
    return (event.at for event in _ended(queue, task, start, version, end) if event.outcome in good)
