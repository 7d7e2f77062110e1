"""The runtime's unit tests: what is sent stays in memory until a test runs it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from nexus import clock
from nexus.backend.store import Outcome, Write
from nexus.clock import FrozenClock
from nexus.definitions import TaskDefinition
from nexus.eager import INVOCATION_SECONDS, Context
from nexus.errors import Reject, Retry
from nexus.registry import Implementation, registry
from nexus.testing import SentTasks, memory_backend
from nexus.worker import Continuation, Run, bookings, execution
from nexus.worker.entry import serve
from tests.support import own_catalogue as catalogue
from tests.support.own_catalogue import Counted, MakeReport, ReportPart

if TYPE_CHECKING:
    from nexus.envelope import Segment

MORNING = 1_795_770_000.0
"""2026-11-27 09:00 UTC: midnight is further away than SQS can hide a message."""


@pytest.fixture
def tasks() -> Iterator[SentTasks]:
    """The tasks that the test sends."""
    with memory_backend() as sent:
        yield sent


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrozenClock]:
    """The time, MORNING at first, in a sandbox that has run nothing yet."""
    monkeypatch.setattr(bookings, "_purses", {})
    monkeypatch.setattr(execution, "_limiters", {})
    frozen = FrozenClock(MORNING)
    with clock.use(frozen):
        yield frozen


def does(monkeypatch: pytest.MonkeyPatch, work: Callable[[Any, Run], Any], **options: Any) -> None:
    """send_note does this work, and has these options."""
    task = replace(catalogue.send_note, **options)
    monkeypatch.setitem(registry._declared, task.name, (task, "test"))
    implemented = Implementation(task, work, reduce=lambda notes: notes[0])
    monkeypatch.setitem(registry._implementations, task.name, implemented)


def raises(error: BaseException) -> NoReturn:
    """Raises it, for a lambda."""
    raise error


def invoke(
    bodies: Sequence[str],
    *,
    served: Mapping[str, TaskDefinition[Any, Any]] | None = None,
    seconds: float = INVOCATION_SECONDS,
    **more: Any,
) -> dict[str, Any]:
    """One invocation of the function of `default`, `seconds` before its end, with messages that have these fields."""
    records = [
        {"messageId": f"m{n}", "receiptHandle": f"m{n}", "body": body, "eventSource": "aws:sqs", **more}
        for n, body in enumerate(bodies)
    ]
    tasks = registry.served_by("default") if served is None else served
    answer: dict[str, Any] = serve("default", tasks, {"Records": records}, Context(seconds))
    return answer


def before_write(
    monkeypatch: pytest.MonkeyPatch, tasks: SentTasks, run_id: str, values: dict[str, Any], act: Callable[[], object]
) -> None:
    """Lets another sandbox `act` once, right before a write that sets these values in the run's record."""
    apply = tasks.store.apply
    done: list[Write] = []

    def delayed(write: Write) -> Outcome:
        if write.key == run_id and values.items() <= write.set.items() and not done:
            done.append(write)
            act()
        return apply(write)

    monkeypatch.setattr(tasks.store, "apply", delayed)


SECOND_PHASE = ReportPart(day="2026-01-02", last=True)
FANNED_OUT = ReportPart(day="2026-01-03", last=True)
"""A second phase that has segments and a phase of its own."""


class Job:
    """make_report as a job of `segments` segments, each counting its index + 1, and up to three phases.

    Of three, the second is fanned out as the first was, and has the third as its own second.
    """

    def __init__(self, segments: int = 3, *, phases: int = 1, faulty: frozenset[int] = frozenset()) -> None:
        self.segments = segments
        self.phases = phases
        self.second_phase = SECOND_PHASE
        self.faulty = faulty
        self.waits: dict[int | None, float] = {}
        """For how many seconds a part waits before its second attempt, by its index; None for a second phase."""

        self.places: list[Segment | None] = []
        """The places of the parts, in the order in which they ran."""

    def __call__(self, args: MakeReport, run: Run) -> Counted | Continuation:
        part = ReportPart(day=args.day or "2026-01-01")
        return run.fan_out([part] * self.segments, then={1: None, 2: self.second_phase, 3: FANNED_OUT}[self.phases])

    def part(self, args: ReportPart, run: Run) -> Counted | Continuation:
        if after := self.waits.pop(run.segment.index if run.segment else None, None):
            raise Retry(after=after)
        self.places.append(run.segment)
        if args == FANNED_OUT:
            return run.fan_out([ReportPart(day=args.day)] * self.segments, then=SECOND_PHASE)
        if args.last:
            return Counted(changed=1)
        assert run.segment is not None
        if run.segment.index in self.faulty:
            raise Reject(f"segment {run.segment.index} cannot be done")
        return Counted(rows_read=run.segment.index + 1)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Job:
    job = Job()
    monkeypatch.setitem(
        registry._implementations, catalogue.make_report.name, Implementation(catalogue.make_report, job, job.part)
    )
    return job
