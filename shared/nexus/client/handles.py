"""The handle to a run: its status, its result, waiting for it, and revoking it."""

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, overload

from typing_extensions import TypeVar  # noqa: UP035 - typing's takes a default from Python 3.13 on

from nexus import clock
from nexus.aws.sdk import is_outage
from nexus.backend import backend
from nexus.backend.memory import MemoryTransport
from nexus.backend.store import Applied, Item
from nexus.backend.transport import schedule_name
from nexus.client.bounded import in_thread
from nexus.definitions import Result
from nexus.envelope import Envelope
from nexus.errors import StillRunning, TaskFailed
from nexus.registry import registry
from nexus.runs import locks, payloads, tallies, transitions
from nexus.runs.record import RunError, RunRecord

FOLLOWED = frozenset({"then", "segment"})
"""Attributes of a record whose run has others waiting for it: its message must arrive, so that a worker ends them."""

SCHEDULED_WITHIN = 60.0
"""Seconds by which Scheduler may be late: until then a schedule may still exist."""


R_co = TypeVar("R_co", bound=Result, covariant=True, default=Any)


class AsyncResult(Generic[R_co]):
    """The handle to a run. Every property reads the record again, with one consistent GetItem.

    Reads raise botocore's errors if AWS does not answer or refuses, and `nexus.aws.sdk.Throttled`.

    `str()` gives the run's id; two handles to the same run are equal.
    """

    def __init__(self, run_id: str | uuid.UUID, result_type: type[R_co] | None = None) -> None:
        self.id = str(run_id)
        self._result_type = result_type

    @property
    def task_id(self) -> str:
        """The run's id, under Celery's name."""
        return self.id

    def __str__(self) -> str:
        return self.id

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, AsyncResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def record(self) -> RunRecord:
        """The whole record; status UNKNOWN if there is none."""
        return _record(self.id, backend().store.get([self.id]))

    @property
    def status(self) -> str:
        """PENDING, STARTED, RETRY, SUCCESS, FAILURE, REVOKED; UNKNOWN for an id that was never sent, or has expired."""
        return self.record().status

    @property
    def state(self) -> str:
        """`status`, under Celery's name."""
        return self.status

    def ready(self) -> bool:
        return self.record().ended

    def successful(self) -> bool:
        return self.status == "SUCCESS"

    def failed(self) -> bool:
        return self.status == "FAILURE"

    @property
    def attempts(self) -> int:
        return self.record().attempts

    @property
    def error(self) -> RunError | None:
        """Why it failed, or why its last attempt did."""
        return self.record().error

    @property
    def traceback(self) -> str | None:
        """Where its last attempt failed: the end of the traceback, without values."""
        error = self.record().error
        return (error.traceback or None) if error else None

    @property
    def info(self) -> Any:
        """The result of a SUCCESS run, the error of a FAILURE or REVOKED one; until then the `info` that the task
        passed to `run.progress`."""
        record = self.record()
        if record.status == "SUCCESS":
            return self._result(record)
        return record.error if record.ended else record.info

    @property
    def result(self) -> R_co | None:
        """The result as its model; None before SUCCESS. For a group, the list of its members' results as JSON values:
        `[member.result for member in handle.results]` are their models.
        """
        return self._result(self.record())

    def _result(self, record: RunRecord) -> R_co | None:
        if record.result is None:
            return None
        value = payloads.load(record.result)
        kind = self._result_type or _result_type(record.task)
        return kind.model_validate(value) if kind is not None else value

    @property
    def progress(self) -> tuple[int, int]:
        """(done, total): a fan-out's segments, or what the task reports; (0, 0) if it reports nothing."""
        record = self.record()
        if record.fanned_out:
            return tallies.progress(record)
        done, total = record.progress[:2] if record.progress else (0, 0)
        return (total if record.status == "SUCCESS" else done), total

    @property
    def children(self) -> "list[AsyncResult[Any]]":
        """The runs that this one sent: its segments or members, or those it sent with delay() (the first hundred)."""
        record = self.record()
        ids = tallies.children(record) if record.fanned_out else record.children
        return [AsyncResult(run_id) for run_id in ids]

    @property
    def parent(self) -> "AsyncResult[Any] | None":
        """Its predecessor in a chain, its group in a chord, the group it is a member of, or the run that sent it."""
        parent = self.record().parent
        return AsyncResult(parent) if parent else None

    @property
    def results(self) -> "list[AsyncResult[Any]]":
        """A group's members, in order."""
        return self.children

    def completed_count(self) -> int:
        """How many members of a group have succeeded."""
        return self.progress[0]

    def join(self, timeout: float | None = None, *, propagate: bool = True) -> R_co | None:
        """`get`, under the name that Celery's groups use."""
        return self.get(timeout, propagate=propagate)

    def forget(self) -> None:
        """Drops the result of a run that has ended, and those of a group's members.

        The record stays until it expires, so that a duplicate message does not run again. Results that a chain, a group
        or an error callback still needs stay too.
        """
        record = self.record()
        writes = [transitions.forget(self.id)]
        if record.fanned_out and record.ended:
            writes += [transitions.forget(member, counted=True) for member in tallies.children(record)]
        backend().store.apply_all(writes)

    @overload
    def get(self, timeout: float | None = ..., *, propagate: Literal[True] = ..., interval: float = ...) -> R_co: ...
    @overload
    def get(self, timeout: float | None = ..., *, propagate: bool, interval: float = ...) -> R_co | None: ...
    def get(self, timeout: float | None = None, *, propagate: bool = True, interval: float = 0.2) -> R_co | None:
        """Waits for the end and returns the result.

        Polls at intervals growing from `interval` to 2 s; a poll that AWS does not answer is repeated, except the
        first. Raises StillRunning after `timeout` seconds (None: never, but at once if the run can only progress
        through a call of `run()`), and TaskFailed for FAILURE and REVOKED, unless `propagate` is False (then returns
        None).
        """
        polls = _Polls(self, timeout, interval)
        while not (record := polls.poll()).ended:
            clock.sleep(polls.pause(record))
        return self._outcome(record, propagate)

    def _outcome(self, record: RunRecord, propagate: bool) -> R_co | None:
        if record.status != "SUCCESS" and propagate:
            reason = f"{record.error.type}: {record.error.message}" if record.error else "no reason recorded"
            raise TaskFailed(f"{record.task} {self.id} is {record.status}: {reason}")
        return self._result(record)

    def revoke(self, reason: str = "revoked") -> str:
        """Stops the run from starting, or a fan-out from continuing; returns the run's status after that.

        A running attempt is not killed: it finishes but is not retried, and `run.revoked` reports the revocation. A run
        without a record is stopped too: a member that has not begun, one that was sent untracked.
        """
        store = backend().store
        for _ in range(10):
            record = self.record()
            now = clock.moment()
            if record.status in ("PENDING", "RETRY"):
                write = transitions.revoke_before_start(self.id, record, reason, now)
            elif record.status == "STARTED" and record.fanned_out:
                write = transitions.revoke_fan_out(self.id, reason, now)
            elif record.status == "STARTED":
                write = transitions.ask_to_revoke(self.id)
            elif record.status == "UNKNOWN":
                write = transitions.revoke_unknown(self.id, reason, now)
            else:
                return record.status
            outcome = store.apply(write)
            if isinstance(outcome, Applied):
                if record.fanned_out or record.status == "RETRY":
                    _release(record)
                if record.fanned_out:
                    _revoke_members(RunRecord.of(outcome.item), reason)  # it may be in its second phase by now
                elif (
                    record.eta is not None
                    and record.eta + SCHEDULED_WITHIN > clock.now()
                    and not FOLLOWED & outcome.item.keys()
                ):
                    delivered = record.status != "PENDING"
                    backend().transport.cancel(schedule_name(self.id, record.eta, delivered=delivered))
                return "STARTED" if record.status == "STARTED" and not record.fanned_out else "REVOKED"
        return self.status

    # For coroutines: each of these runs in a thread of the client's own, so the event loop is not blocked.

    async def arecord(self) -> RunRecord:
        """`record` for a coroutine."""
        return await in_thread(self.record)

    async def astatus(self) -> str:
        """`status` for a coroutine."""
        return (await self.arecord()).status

    async def astate(self) -> str:
        """`state` for a coroutine."""
        return await self.astatus()

    async def aready(self) -> bool:
        """`ready` for a coroutine."""
        return (await self.arecord()).ended

    async def asuccessful(self) -> bool:
        """`successful` for a coroutine."""
        return await self.astatus() == "SUCCESS"

    async def afailed(self) -> bool:
        """`failed` for a coroutine."""
        return await self.astatus() == "FAILURE"

    async def ainfo(self) -> Any:
        """`info` for a coroutine."""
        return await in_thread(lambda: self.info)

    async def atraceback(self) -> str | None:
        """`traceback` for a coroutine."""
        return await in_thread(lambda: self.traceback)

    async def aparent(self) -> "AsyncResult[Any] | None":
        """`parent` for a coroutine."""
        return await in_thread(lambda: self.parent)

    async def achildren(self) -> "list[AsyncResult[Any]]":
        """`children` for a coroutine."""
        return await in_thread(lambda: self.children)

    async def aresults(self) -> "list[AsyncResult[Any]]":
        """`results` for a coroutine."""
        return await self.achildren()

    async def acompleted_count(self) -> int:
        """`completed_count` for a coroutine."""
        return (await self.aprogress())[0]

    async def ajoin(self, timeout: float | None = None, *, propagate: bool = True) -> R_co | None:  # noqa: ASYNC109
        """`join` for a coroutine."""
        return await self.aget(timeout, propagate=propagate)

    async def aforget(self) -> None:
        """`forget` for a coroutine."""
        await in_thread(self.forget)

    async def aattempts(self) -> int:
        """`attempts` for a coroutine."""
        return (await self.arecord()).attempts

    async def aerror(self) -> RunError | None:
        """`error` for a coroutine."""
        return (await self.arecord()).error

    async def aresult(self) -> R_co | None:
        """`result` for a coroutine."""
        return await in_thread(lambda: self.result)

    async def aprogress(self) -> tuple[int, int]:
        """`progress` for a coroutine."""
        return await in_thread(lambda: self.progress)

    async def arevoke(self, reason: str = "revoked") -> str:
        """`revoke` for a coroutine."""
        return await in_thread(self.revoke, reason)

    # `timeout` is a parameter because get() has it.
    @overload
    async def aget(
        self,
        timeout: float | None = ...,  # noqa: ASYNC109
        *,
        propagate: Literal[True] = ...,
        interval: float = ...,
    ) -> R_co: ...
    @overload
    async def aget(
        self,
        timeout: float | None = ...,  # noqa: ASYNC109
        *,
        propagate: bool,
        interval: float = ...,
    ) -> R_co | None: ...
    async def aget(
        self,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        propagate: bool = True,
        interval: float = 0.2,
    ) -> R_co | None:
        """`get` for a coroutine."""
        import asyncio  # here: the import takes a tenth of a function's start

        polls = _Polls(self, timeout, interval)
        while not (record := await in_thread(polls.poll)).ended:  # noqa: ASYNC110 - no event says that it has ended
            await asyncio.sleep(polls.pause(record))
        return await in_thread(self._outcome, record, propagate)

    def __repr__(self) -> str:
        return f"<AsyncResult {self.id}>"


class _Polls:
    """A caller's polls of a run that it waits for."""

    def __init__(self, handle: AsyncResult[Any], timeout: float | None, interval: float) -> None:
        self._handle, self._timeout, self._interval = handle, timeout, interval
        self._ends = math.inf if timeout is None else clock.monotonic() + timeout
        self._seen: RunRecord | None = None

    def poll(self) -> RunRecord:
        """The record, or if AWS does not answer the one seen before. Raises the error of the first poll."""
        try:
            self._seen = self._handle.record()
        except Exception as error:
            if self._seen is None or not is_outage(error):
                raise
        return self._seen

    def pause(self, record: RunRecord) -> float:
        """Seconds until the next poll. Raises StillRunning if there is none."""
        left = self._ends - clock.monotonic()
        if left <= 0 or (self._timeout is None and _hint()):
            waited = "" if self._timeout is None else f" after {self._timeout} s"
            raise StillRunning(f"{record.id} is {record.status}{waited}{_hint()}")
        pause = min(self._interval, max(left, 0.01))
        self._interval = min(self._interval * 1.5, 2.0)
        return pause


def _hint() -> str:
    """How to make progress where nothing runs by itself."""
    transport = backend().transport
    if isinstance(transport, MemoryTransport) and not transport.runs_by_itself:
        return ": in a test, sent tasks run when it calls drain(), or run() of memory_backend(): call that first"
    return ""


def _result_type(task_name: str) -> type[Any] | None:
    task = registry.known(task_name)
    return task.result if task else None


def _release(record: RunRecord) -> None:
    """Gives up the unique task's place that the run holds or waits for."""
    if record.place:
        locks.release(record.place, record.id, record.started_at)


def _revoke_members(record: RunRecord, reason: str) -> None:
    """Marks the members as REVOKED, 25 per request if they have not begun, so that their messages are acknowledged
    unrun.
    """
    now, keep_until = clock.moment(), transitions.keep_until()
    writes = []
    for run_id in (*tallies.earlier(record), *tallies.children(record)):
        member = Envelope(id=run_id, task=record.task or tallies.GROUP, parent=record.id)
        writes.append(transitions.revoked(member, record.queue, reason, now, keep_until))
    outcomes = zip(writes, backend().store.apply_all(writes), strict=True)
    found = read_records([AsyncResult(str(write.key)) for write, one in outcomes if not isinstance(one, Applied)])
    pending = [one for one in found if one.status == "PENDING" and one.eta is None and not one.fanned_out]
    writes = [transitions.revoke_before_start(one.id, one, reason, now) for one in pending]
    outcomes = zip(writes, backend().store.apply_all(writes), strict=True)
    revoked = {str(write.key) for write, one in outcomes if isinstance(one, Applied)}
    for one in found:
        if not one.ended and one.id not in revoked:
            AsyncResult[Any](one.id).revoke(reason)


def read_records(handles: Sequence[AsyncResult[Any]]) -> list[RunRecord]:
    """The records of many runs, 100 per request, in order."""
    found = backend().store.get([handle.id for handle in handles])
    return [_record(handle.id, found) for handle in handles]


def _record(run_id: str, found: Mapping[str, Item]) -> RunRecord:
    return RunRecord.of(found[run_id]) if run_id in found else RunRecord(id=run_id, status="UNKNOWN")
