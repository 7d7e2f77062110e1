"""The functions' logs: the lines of one run, and a stream of attempts as they end.

Uses CloudWatch Logs' FilterLogEvents with plain phrases, and checks the results here.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import chain
from math import inf
from sys import intern
from typing import Any

from nexus.settings import settings
from ops import catalogue
from ops.aws import client, in_parallel
from ops.problems import usage
from ops.spans import At, of_day

POLL = 1.0
"""Seconds between two polls of a run's or a queue's log."""

A_SECOND = 5.0
"""FilterLogEvents that a stream of events may send: the quota of an account, in the regions where it is smallest."""

OVERLAP = 30.0
"""Seconds by which a poll overlaps the previous one: CloudWatch Logs ingests lines late."""

SETTLED = {"success": "SUCCESS", "failure": "FAILURE", "retry": "RETRY", "revoked": "REVOKED"}
OUTCOMES = ("success", "failure", "retry", "revoked", "fanned_out", "continued")


@dataclass(frozen=True, slots=True)
class Line:
    """A log line of a queue's function: `message` is its text, `fields` the fields of a structured line."""

    id: str
    at: At
    queue: str
    message: str
    level: str = ""
    stream: str = ""
    fields: dict[str, Any] = field(default_factory=dict)

    def is_of(self, version: str) -> bool:
        """Whether a version of the function may have written it: Lambda's streams are named 2026/11/28/[7]1f2e..."""
        found = re.search(r"\[(\d+)\]", self.stream)
        return found is None or not version or found[1] == version

    @property
    def text(self) -> str:
        """The line for people: time, level, message, then the fields that not every line has; a traceback below it."""
        rest = " ".join(f"{k}={v}" for k, v in self.fields.items() if k not in _EVERYWHERE)
        line = f"{of_day(self.at)}.{int(self.at * 1000) % 1000:03} {self.level:<8}{self.message}  {rest}".rstrip()
        traceback = "".join(f"\n{text}" for text in str(self.fields.get("exception", "")).splitlines())
        return (line + traceback).replace("\n", "\n    ")


_EVERYWHERE = {
    "_aws", "level", "location", "message", "timestamp", "service", "run_id", "xray_trace_id", "function_name",
    "function_arn", "function_memory_size", "function_request_id", "cold_start", "sampling_rate",
    "exception", "exception_name", "stack_trace",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """An attempt that has ended. `outcome` is success, failure, retry, revoked, fanned_out or continued.

    `reason` is why it failed, or how a success fell short of its purpose.
    """

    at: At
    queue: str
    task: str
    run_id: str
    outcome: str
    attempt: int
    seconds: float
    reason: str | None = None


def group(queue: str) -> str:
    """The log group of a queue's function."""
    return f"/aws/lambda/{settings().function_name(queue)}"


def read(
    queue: str,
    phrases: Sequence[str],
    start: float,
    end: float | None = None,
    *,
    stream: str | None = None,
    patience: float = inf,
) -> Iterator[Line]:
    """A queue's lines that contain all the phrases, from `start` to `end` (seconds since 1970), in order; only of one
    stream if it is named. Requests no further page after `patience` seconds."""
    deadline = time.monotonic() + patience
    logs = client("logs")
    request: dict[str, Any] = {"logGroupName": group(queue), "startTime": int(start * 1000)}
    if end is not None:
        request["endTime"] = int(end * 1000)
    if stream is not None:
        request["logStreamNames"] = [stream]
    if phrases:
        request["filterPattern"] = " ".join(f'"{phrase}"' for phrase in phrases)
    before: set[str] = set()
    while True:
        try:
            response = logs.filter_log_events(**request)
        except logs.exceptions.ResourceNotFoundException:
            return  # The function has not run yet, so its log group does not exist.
        events = response.get("events", [])
        seen: set[str] = set()
        for event in events:
            line = _line(event, queue)
            if line.id not in before and line.id not in seen and all(phrase in event["message"] for phrase in phrases):
                yield line
            seen.add(line.id)
        before = seen or before  # a page may begin with lines of the one before it
        if time.monotonic() > deadline:
            return
        if token := response.get("nextToken"):
            request["nextToken"] = token
        elif len(events) >= 10_000 and events[-1]["timestamp"] > request["startTime"]:
            # A full response without a token: continue from its end.
            request["startTime"] = events[-1]["timestamp"]
            request.pop("nextToken", None)
        else:
            return


def _line(event: Any, queue: str) -> Line:
    text, at = event["message"].rstrip("\n"), event["timestamp"] / 1000
    line_id = event.get("eventId") or f"{event.get('logStreamName')}/{event['timestamp']}/{text}"
    if text.startswith("{"):
        try:
            fields = json.loads(text)
        except ValueError:
            fields = None
        if isinstance(fields, dict):
            message = str(fields.get("message", ""))
            level = str(fields.get("level", ""))
            return Line(line_id, at, queue, message, level, event.get("logStreamName", ""), fields)
    return Line(line_id, at, queue, text, stream=event.get("logStreamName", ""))


def of_run(run_id: str, since: float | None, *, follow: bool, patience: float = inf) -> Iterator[Line]:
    """The lines that name a run, in order; with `follow`, until it ends. `patience` is as in `read`. Raises Problem if
    the run had ended by `since`: CloudWatch Logs refuses a span that ends before it begins.
    """
    from nexus.client import AsyncResult

    handle: AsyncResult[Any] = AsyncResult(run_id)
    record = handle.record()
    queues = [record.queue] if record.queue else list(catalogue.queues())
    start = (record.sent_at or record.started_at or time.time() - 86_400) - 60 if since is None else since
    end = None if record.ended_at is None else record.ended_at + 60
    if record.ended_at is not None and end is not None and start > end:
        what = f"{run_id} ended at {of_day(record.ended_at)} UTC, before the time to look since"
        raise usage(what, do="Leave out --since: its whole log is shown.")
    seen: set[str] = set()
    while True:
        ended = not follow or handle.ready()
        found = [read(queue, [run_id], start, end, patience=patience) for queue in queues]
        # The log of one queue is shown while it is read. Usually the queue is known.
        logs: Sequence[Iterable[Line]] = found if len(found) == 1 else in_parallel(list, found)
        for line in merge(*logs, key=lambda line: line.at):
            if line.id not in seen:
                seen.add(line.id)
                yield line
        if ended:
            return
        time.sleep(POLL)


def of_queue(queue: str, start: float, *, follow: bool) -> Iterator[Line]:
    """A queue's log lines since `start`; with `follow`, new ones as they arrive."""
    seen = dict[str, float]()
    while True:
        began = time.time()
        for line in read(queue, [], start):
            if line.id not in seen:
                if follow:
                    seen[line.id] = line.at
                yield line
        if not follow:
            return
        start = max(start, began - OVERLAP)
        seen = {line_id: at for line_id, at in seen.items() if at >= start - 1.0}
        time.sleep(POLL)


PHRASES = 2
"""The requests of `events` for each queue."""


class TooMany(Exception):
    """A log has more lines than a reader has time and memory for."""


def events(
    queues: Sequence[str], start: float, task: str | None = None, end: float | None = None, *, most: float = inf
) -> list[Event]:
    """The attempts that ended since `start`, in order. Raises TooMany if a queue has over `most` of their lines."""
    client("logs")
    phrases = ["run ended"] if task is None else ["run ended", task]

    def of(queue: str) -> list[Event]:
        found = []
        for n, line in enumerate(chain(read(queue, phrases, start, end), _revoked(queue, start, end))):
            if n >= most:
                raise TooMany
            if (event := event_of(line)) and task in (None, event.task):
                found.append(event)
        return found

    found = [event for page in in_parallel(of, list(queues)) for event in page]
    # A run that is revoked at the end of an attempt writes both lines.
    ended = {(event.run_id, event.outcome) for event in found if event.attempt}
    found = [e for e in found if e.attempt or (e.run_id, e.outcome) not in ended]
    return sorted(found, key=lambda event: event.at)


def _revoked(queue: str, start: float, end: float | None) -> Iterator[Line]:
    return read(queue, ["run revoked"], start, end)


def event_of(line: Line) -> Event | None:
    """The event that a line reports, or None."""
    fields = line.fields
    if line.message == "run revoked":
        outcome = "revoked"
    elif line.message == "run ended":
        outcome = str(fields.get("outcome", ""))
    else:
        return None
    return Event(
        at=line.at,
        queue=line.queue,
        task=intern(str(fields.get("task", ""))),  # there may be millions of events
        run_id=str(fields.get("run_id", "")),
        outcome=intern(outcome),
        attempt=int(fields.get("attempt", 0)),
        seconds=float(fields.get("duration", 0.0)) / 1000,
        reason=fields.get("reason") or fields.get("shortfall"),
    )


class Ended:
    """The attempts that ended since `start` (seconds since 1970): each read gives those that none has given before."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._seen: dict[tuple[str, int, str, float], None] = {}

    def read(self, queues: Sequence[str], task: str | None = None, *, since: float = 0.0) -> list[Event]:
        """The new ones, in order; of those that ended before `since`, none. After an error, the next read has all."""
        began = time.time()
        start = max(self._start, since)
        found = []
        for event in events(queues, start, task):
            key = (event.run_id, event.attempt, event.outcome, event.at)
            if key not in self._seen:
                self._seen[key] = None
                found.append(event)
        self._start = max(start, began - OVERLAP)
        for key in [key for key in self._seen if key[3] < self._start - OVERLAP]:
            del self._seen[key]
        return found


def stream(queues: Sequence[str], start: float, task: str | None = None, *, follow: bool = True) -> Iterator[Event]:
    """The attempts that ended since `start`, and then new ones as they end, each once."""
    ended = Ended(start)
    while True:
        yield from ended.read(queues, task)
        if not follow:
            return
        time.sleep(max(POLL, PHRASES * len(queues) / A_SECOND))
