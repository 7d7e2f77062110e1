"""Pings each function through its real queue: send, receive, claim, run, read the result."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nexus import builtin
from nexus.client import AsyncResult, read_records
from nexus.runs.record import RunRecord
from ops import waiting
from ops.aws import in_parallel

POLL = 0.05


@dataclass(frozen=True, slots=True)
class Pong:
    """A ping's result, in seconds: `round_trip` from send to reading the result, `waited` until the function got it,
    `ran` in the function. `why` is why there was no answer, if known."""

    queue: str
    id: str
    status: str
    round_trip: float | None = None
    waited: float | None = None
    ran: float | None = None
    why: str = ""

    @property
    def answered(self) -> bool:
        return self.status == "SUCCESS"


def ping(queues: Sequence[str], timeout: float) -> list[Pong]:
    """Pings all queues concurrently, except those that cannot run. Revokes pings that time out."""
    stopped = dict(zip(queues, in_parallel(waiting.stopped, queues), strict=True))
    asked = [queue for queue in queues if stopped[queue] is None]
    answers = _ask(asked, timeout)
    return [answers[q] if (stop := stopped[q]) is None else _off(q, stop) for q in queues]


def _off(queue: str, stop: waiting.Wait) -> Pong:
    return Pong(queue, "", "not sent", why=f"{stop.why}. {stop.release}")


def _ask(queues: Sequence[str], timeout: float) -> dict[str, Pong]:
    handles: dict[str, AsyncResult[Any]] = {}
    sent: dict[str, float] = {}
    for queue in queues:
        sent[queue] = time.monotonic()
        handles[queue] = builtin.ping.apply_async(queue=queue, expires=max(60.0, timeout))
    found: dict[str, Pong] = {}
    deadline = time.monotonic() + timeout
    while len(found) < len(queues) and time.monotonic() < deadline:
        left = [queue for queue in queues if queue not in found]
        for queue, record in zip(left, read_records([handles[queue] for queue in left]), strict=True):
            if record.ended:
                found[queue] = _pong(queue, record, time.monotonic() - sent[queue])
        time.sleep(POLL)
    for queue in queues:
        if queue not in found:
            why = "; ".join(f"{wait.why}. {wait.release}" for wait in waiting.reasons(handles[queue].record()))
            found[queue] = Pong(queue, handles[queue].id, "no answer", why=why)
            handles[queue].revoke("the ping timed out")
    return found


def _pong(queue: str, record: RunRecord, round_trip: float) -> Pong:
    waited = ran = None
    if record.started_at and record.sent_at:
        waited = max(0.0, record.started_at - record.sent_at)
    if record.started_at and record.ended_at:
        ran = record.ended_at - record.started_at
    return Pong(queue, record.id, record.status, round_trip, waited, ran)
