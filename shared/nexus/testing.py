"""For an application's own tests: assertions on what was sent, and running it, without AWS, emulators or variables.

    with in_memory() as tasks:
        register(request)
        tasks.assert_sent(send_welcome_email, user_id="7")
        tasks.drain()
        assert tasks.mails[0].to == ("ada@example.com",)

pytest provides it as the fixture `nexus_tasks` (`nexus.pytest`), unittest as `TasksMixin`.
"""

import difflib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf
from pprint import pformat
from typing import Any
from urllib.parse import quote_plus

from nexus import backend as backends
from nexus import clock, cron
from nexus import settings as variables
from nexus.aws import memory, sdk
from nexus.aws.memory import Memory
from nexus.backend import Backend
from nexus.backend.memory import MemoryStore, MemoryTransport, Sent
from nexus.backend.transport import MAX_RECEIVES, DeadLetter, Message
from nexus.client import AsyncResult
from nexus.clock import FrozenClock
from nexus.definitions import Arguments, TaskDefinition
from nexus.eager import INVOCATION_SECONDS, find_functions, run_all, run_next, task_in
from nexus.envelope import FIRED_AT, Envelope, Segment, decode
from nexus.errors import InvalidMessage
from nexus.ids import derived_id
from nexus.periodic import PeriodicTask
from nexus.registry import Implementation, registry
from nexus.runs import payloads
from nexus.runs.record import RunRecord
from nexus.worker.run import Continued, FannedOut, Run

DELIVERIES = 25_000
"""The most that one call runs: stops tasks that send each other endlessly. A fan-out may have 10,000 segments."""

SAME = 0.001
"""Differences in seconds to ignore: sums of fractions are not exact."""

TRACEBACK_LINES = 9
"""How much of a traceback to show, from its end."""

_KEPT = ("NEXUS_CATALOGUE", "NEXUS_FUNCTIONS", "NEXUS_RUN_DAYS")
"""The variables that a test keeps: they say which tasks exist, not where a deployment is."""


@dataclass(frozen=True, slots=True)
class SentTask:
    """A task as it was sent: `args` including defaults, `due` when its message arrives."""

    id: str
    task: TaskDefinition[Any, Any]
    args: Mapping[str, Any]
    queue: str
    due: datetime

    @property
    def handle(self) -> AsyncResult[Any]:
        """Its status and result."""
        return AsyncResult(self.id, self.task.result)

    def __str__(self) -> str:
        return f"{self.task.name}({', '.join(f'{name}={value!r}' for name, value in self.args.items())})"


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that a task passed to SES."""

    sender: str
    to: tuple[str, ...]
    subject: str
    text: str
    html: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "Mail":
        """Builds it from SendEmail parameters with simple content."""
        simple = request["Content"]["Simple"]
        bodies = {kind: part["Data"] for kind, part in simple["Body"].items()}
        headers = {header["Name"]: header["Value"] for header in simple.get("Headers", ())}
        to, subject = tuple(request["Destination"]["ToAddresses"]), simple["Subject"]["Data"]
        return cls(request["FromEmailAddress"], to, subject, bodies.get("Text", ""), bodies.get("Html", ""), headers)


class SandboxDied(BaseException):
    """Simulates a sandbox that ran out of memory or time, or was killed. A task cannot catch it."""


class RecordingTransport(MemoryTransport):
    """Records everything that was sent, and can refuse to accept more."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[Sent] = []
        self.refusal = ""

    def send(self, queue: str, messages: Sequence[Message]) -> Mapping[str, str]:
        if self.refusal:
            return {message.id: self.refusal for message in messages}
        first = len(self.sent)
        super().send(queue, messages)
        self._remember(first)
        return {}

    def send_at(self, queue: str, message: Message, when: datetime) -> None:
        if self.refusal:
            raise sdk.Throttled(self.refusal)
        first = len(self.sent)
        super().send_at(queue, message, when)
        self._remember(first)

    def _remember(self, first: int) -> None:
        self.history += [Sent(one.queue, one.message, one.due) for one in self.sent[first:]]


@dataclass(frozen=True, slots=True)
class Firing:
    """What a schedule sends, and when."""

    at: float
    queue: str
    message: Message

    @classmethod
    def of_periodic(cls, periodic: PeriodicTask, at: datetime) -> "Firing":
        """The message as Scheduler sends it, with the firing time filled in."""
        body = periodic.request()["Target"]["Input"].replace(FIRED_AT, f"{at.astimezone(UTC):%FT%TZ}")
        return cls(at.timestamp(), periodic.queue, Message(periodic.run_id(at), body, periodic.task))


@dataclass(slots=True)
class Tasks:
    """A test's own queues, run records, tables, buckets, mail and time, all in memory.

    Time stops at the second of the test's start. `drain` and `advance` move it, and so does a task that sleeps.
    """

    store: MemoryStore = field(default_factory=MemoryStore)
    transport: RecordingTransport = field(default_factory=RecordingTransport)
    services: Memory = field(default_factory=Memory)
    clock: FrozenClock = field(default_factory=lambda: FrozenClock(float(int(clock.now()))))
    _deaths: Counter[str] = field(default_factory=Counter)
    _uploads: int = 0

    # --- what was sent ---

    @property
    def sent(self) -> list[SentTask]:
        """Every task sent so far, run or not, in order, except segments and phases that tasks send to themselves, and
        what a task sent with arguments that are not valid.
        """
        found = [task for message in self.transport.history if (task := _sent_task(message)) is not None]
        return list({task.id: task for task in reversed(found)}.values())[::-1]

    @property
    def mails(self) -> list[Mail]:
        """Every mail that tasks have sent so far."""
        return [Mail.of(request) for request in self.services.sesv2.sent]

    @property
    def dead_letters(self) -> Sequence[tuple[str, DeadLetter]]:
        """(queue, message and reason) of each run that was given up."""
        return self.transport.dead

    def assert_sent(self, task: TaskDefinition[Any, Any], **args: Any) -> SentTask:
        """The first task sent with at least these arguments. Raises AssertionError listing what was sent."""
        __tracebackhide__ = True
        sent = self.sent
        for one in _fitting(sent, task, args):
            return one
        raise AssertionError(_what_differs(sent, task, args))

    def assert_not_sent(self, task: TaskDefinition[Any, Any], **args: Any) -> None:
        """Raises AssertionError if such a task was sent."""
        __tracebackhide__ = True
        found = _fitting(self.sent, task, args)
        if found:
            raise AssertionError("sent: " + ", ".join(map(str, found)))

    # --- time ---

    @property
    def now(self) -> datetime:
        """The test's time, in UTC."""
        return clock.date(self.clock.moment)

    def freeze(self, at: datetime) -> None:
        """Sets the time without running anything."""
        if at.tzinfo is None:
            raise ValueError(f"{at!r}: it needs a time zone")
        self.clock.moment = at.timestamp()

    def drain(self, *, raising: bool = True) -> int:
        """Runs what was sent and everything that follows, each message when due. Returns the number of deliveries.

        Time jumps to each countdown, eta and backoff. Raises AssertionError for runs that were given up, unless
        `raising` is False; ConfigurationError if a task's code or a package is missing.
        """
        __tracebackhide__ = True
        return self._run(inf, [], raising=raising)

    def advance(self, by: timedelta, *, schedules: bool = False, raising: bool = True) -> int:
        """Advances time, and runs what becomes due meanwhile.

        `schedules` includes what the catalogue's schedules and `nexus.periodic` send.
        """
        __tracebackhide__ = True
        end = self.clock.moment + by.total_seconds()
        count = self._run(end, self._firings(end) if schedules else [], raising=raising)
        self.clock.moment = max(self.clock.moment, end)
        return count

    # --- what goes wrong ---

    @contextmanager
    def sends_failing(self, reason: str = "AWS cannot be reached") -> Iterator[None]:
        """Makes every send fail within the block: `delay` raises SendFailed."""
        self.transport.refusal = reason
        try:
            yield
        finally:
            self.transport.refusal = ""

    def kill_sandbox(self, task: TaskDefinition[Any, Any], *, times: int = 1) -> None:
        """The task's next runs do their work, but their sandbox dies before settling: they run again."""
        self._deaths[task.name] += times

    def duplicate(self, task: TaskDefinition[Any, Any]) -> None:
        """Delivers every message of the task again, including those that were run."""
        names = {one.id for one in self.sent if one.task is task}
        self.transport.sent += [
            Sent(one.queue, one.message, one.due) for one in self.transport.history if one.message.id in names
        ]

    def upload(
        self,
        key: str,
        body: bytes,
        content_type: str = "application/octet-stream",
        *,
        task: TaskDefinition[Any, Any] | None = None,
    ) -> None:
        """Simulates a browser's upload through the form of this key: the object exists, and its event waits to be run.

        Uses `task`, or the only task that an upload starts. Raises ValueError if there are several, or none.
        """
        starting = [one for one in registry.tasks().values() if one.on_upload] if task is None else [task]
        if len(starting) != 1:
            raise ValueError(f"an upload starts {', '.join(one.name for one in starting) or 'no task'}: pass task=")
        bucket = variables.settings().bucket("uploads")
        sdk.client("s3").put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)
        self._uploads += 1
        order = f"{self._uploads:016X}"
        about = {"bucket": {"name": bucket}, "object": {"key": quote_plus(key), "size": len(body), "sequencer": order}}
        record = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Post", "eventTime": f"{self.now:%FT%TZ}"}
        event = json.dumps({"Records": [{**record, "s3": about}]})
        message = Message(derived_id("upload", key, order), event, starting[0].name)
        backends.backend().transport.send(starting[0].queue, [message])

    # --- running ---

    def _run(self, end: float, firings: "list[Firing]", *, raising: bool) -> int:
        __tracebackhide__ = True
        already, count = len(self.transport.dead), 0
        while True:
            waiting = self.transport.sent
            place = min(range(len(waiting)), key=lambda n: waiting[n].due, default=None)
            due = inf if place is None else waiting[place].due
            if firings and firings[0].at <= due:
                firing = firings.pop(0)
                self.clock.moment = max(self.clock.moment, firing.at)
                self.transport.send(firing.queue, [firing.message])
                continue
            if place is None or due > end + SAME:
                break
            self.clock.moment = max(self.clock.moment, due)
            self._deliver(place)
            count += 1
            if count > DELIVERIES:
                raise AssertionError(
                    f"{count} deliveries, and {len(waiting)} messages still wait: the tasks send each other endlessly"
                )
        given_up = self.transport.dead[already:]
        if raising and given_up:
            raise AssertionError("\n".join(map(self._why, given_up)))
        return count

    def _deliver(self, place: int) -> None:
        sent = self.transport.sent[place]
        name = task_in(sent.message)
        if name is None or not self._deaths[name]:
            run_next(self.transport, place)
            return
        try:
            with _dying(name):
                run_next(self.transport, place)
        except SandboxDied:
            self._deaths[name] -= 1
            sent.due = self.clock.moment + INVOCATION_SECONDS + 1  # its lease has expired by then
            self.transport.sent.append(sent)

    def _firings(self, end: float) -> "list[Firing]":
        """What schedules send until then, in order, except for tasks that another deployment runs."""
        now, until = self.now, clock.date(end)
        found = []
        for task in registry.tasks().values():
            its = task.schedule if registry.serves(task.name) else None
            for when in cron.times(its.expression, now, until) if its else ():
                envelope = Envelope.of(id=derived_id("schedule", task.name, when), task=task.name, origin="rule")
                found.append(Firing(when.timestamp(), task.queue, Message.of(envelope)))
        for schedule in self.services.scheduler.schedules.values():
            periodic = PeriodicTask.of(schedule)
            found += map(partial(Firing.of_periodic, periodic), periodic.times(now, until))
        return sorted(found, key=lambda firing: firing.at)

    def _why(self, given_up: tuple[str, DeadLetter]) -> str:
        _, letter = given_up
        about = letter.attributes
        if not about:
            return (
                f"a message of {letter.group} was received {MAX_RECEIVES} times, so its queue gave it up: "
                'the log lines "left for later" have the reasons'
            )
        item = self.store.items.get(about["RunId"], {})
        error = RunRecord.of(item).error
        frames = error.traceback.splitlines()[-TRACEBACK_LINES:] if error else ()
        times = "1 attempt" if about["Attempts"] == "1" else f"{about['Attempts']} attempts"
        what = f"{about['Task'] or 'a message'} was given up after {times}"
        return "\n".join((f"{what}: {about['ErrorType']}: {about['ErrorMessage']}", *frames))


@contextmanager
def in_memory(at: datetime | None = None) -> Iterator[Tasks]:
    """Within the block tasks, tables, buckets, mail and time are the test's own. The time is now, or `at`."""
    tasks = Tasks()
    if at is not None:
        tasks.freeze(at)
    given = variables.variables()
    kept = {name: given[name] for name in _KEPT if name in given}
    with ExitStack() as stack:
        stack.enter_context(variables.use({**kept, "NEXUS_BACKEND": "nexus.eager"}))
        stack.enter_context(memory.use(tasks.services))
        stack.enter_context(backends.use(Backend(tasks.store, tasks.transport)))
        stack.enter_context(clock.use_everywhere(tasks.clock))
        find_functions()
        yield tasks


class TasksMixin:
    """For unittest: `class RegisterTest(TasksMixin, TestCase)` has `self.tasks`, fresh for each test."""

    tasks: Tasks

    def setUp(self) -> None:
        self.tasks = self.enterContext(in_memory())  # type: ignore[attr-defined]  # a TestCase's
        super().setUp()  # type: ignore[misc]

    def assert_sent(self, task: TaskDefinition[Any, Any], **args: Any) -> SentTask:
        return self.tasks.assert_sent(task, **args)

    def assert_not_sent(self, task: TaskDefinition[Any, Any], **args: Any) -> None:
        self.tasks.assert_not_sent(task, **args)


def _sent_task(sent: Sent) -> SentTask | None:
    try:
        envelope = decode(sent.message.body)
    except InvalidMessage:
        return None
    task = registry.known(envelope.task)
    if task is None or envelope.is_part:
        return None
    stored = {name: payloads.load(where) for name, where in (envelope.refs or {}).items()}
    try:
        checked = task.check({**envelope.args, **stored})
    except InvalidMessage:
        return None
    args = {name: getattr(checked, name) for name in task.arguments.model_fields}
    return SentTask(envelope.id, task, args, sent.queue, clock.date(sent.due))


def _fitting(sent: Sequence[SentTask], task: TaskDefinition[Any, Any], args: Mapping[str, Any]) -> list[SentTask]:
    unknown = args.keys() - task.arguments.model_fields.keys()
    if unknown:
        takes = ", ".join(task.arguments.model_fields) or "no arguments"
        raise TypeError(f"{task.name} has no argument {', '.join(sorted(unknown))}: it takes {takes}")
    return [one for one in sent if one.task is task and not _differing(one, args)]


def _differing(one: SentTask, args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that differ from the expected ones; an expected value may be in Python or JSON form."""
    as_json = one.task.check(one.args).model_dump(mode="json")
    return {name: value for name, value in args.items() if value not in (one.args[name], as_json[name])}


def _what_differs(sent: Sequence[SentTask], task: TaskDefinition[Any, Any], args: Mapping[str, Any]) -> str:
    wanted = ", ".join(f"{name}={value!r}" for name, value in args.items())
    same = [one for one in sent if one.task is task]
    if not same:
        others = "".join(f"\n    {one}" for one in sent)
        return f"{task.name}({wanted}) was not sent. " + (f"Sent were:{others}" if others else "Nothing was.")
    lines = [f"{task.name}({wanted}) was not sent. It was sent with other arguments (- expected, + sent):"]
    for number, one in enumerate(same, 1):
        lines.append(f"  {number}.")
        for name, value in _differing(one, args).items():
            lines.append(f"    {name}")
            compared = difflib.ndiff(pformat(value).splitlines(), pformat(one.args[name]).splitlines())
            lines += [f"    {line.rstrip()}" for line in compared if not line.startswith("?")]
    return "\n".join(lines)


@contextmanager
def _dying(name: str) -> Iterator[None]:
    """Within the block the task's sandbox dies as soon as the task has done its work."""
    found = registry.implementation(name)

    def dies(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(args: Any, run: Run) -> Any:
            work(args, run)
            raise SandboxDied(name)

        return run

    part = None if found.part is None else dies(found.part)
    registry.implement(Implementation(found.task, dies(found.function), part, found.reduce))
    try:
        yield
    finally:
        registry.implement(found)


# --- smaller tools ---


@dataclass(frozen=True, slots=True)
class SentTasks:
    """The tasks sent within `memory_backend()`, with methods to run them."""

    store: MemoryStore
    transport: MemoryTransport

    @property
    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        """(task's name, arguments) of each message not yet run, in sending order."""
        envelopes = [json.loads(sent.message.body) for sent in self.transport.sent]
        return [(envelope["task"], envelope["args"]) for envelope in envelopes]

    @property
    def dead_letters(self) -> Sequence[tuple[str, DeadLetter]]:
        return self.transport.dead

    def run(self) -> int:
        """Runs everything, retries and segments included, without waiting. Returns the number of deliveries."""
        return run_all(self.transport)


@contextmanager
def memory_backend() -> Iterator[SentTasks]:
    """Keeps tasks sent within the block in memory and runs them only through `run()`."""
    tasks = SentTasks(MemoryStore(), MemoryTransport())
    with backends.use(Backend(tasks.store, tasks.transport)):
        yield tasks


def run_task(function: Callable[..., Any], args: Any = None, *, seconds: float = 900.0, **overrides: Any) -> Any:
    """Calls a task's function as the worker would, without messages, and returns its result.

    Segments of a fan-out run one after another, as do continuations and a second phase, and their results are reduced.
    Raises whatever the task raises. `args` is a mapping, an argument model, or a model of the task's `part`;
    `overrides` replace fields of the Run.
    """
    task = registry.task_of(function)
    arguments = args if isinstance(args, Arguments) else task.check(args or {})
    return _run(task.name, arguments, seconds, None, overrides, part=not isinstance(arguments, task.arguments))


def _run(
    name: str, args: Any, seconds: float, segment: Segment | None, overrides: Mapping[str, Any], *, part: bool
) -> Any:
    joined = registry.implementation(name)
    cursor: Mapping[str, Any] | None = None
    while True:
        fields: dict[str, Any] = {
            "id": "00000000-0000-7000-8000-000000000000",
            "task": name,
            "attempt": 1,
            "deadline": clock.monotonic() + seconds,
            "limit": seconds,
            "token": "test",
            "sent_at": clock.now(),
            "segment": segment,
            "cursor": cursor,
        }
        returned = joined.function_for(part=part)(args, Run(**fields | dict(overrides)))
        match returned:
            case Continued(cursor):
                continue
            case FannedOut(segments, then):
                total = len(segments)
                parts = [
                    _run(name, each, seconds, Segment(index=i, total=total), overrides, part=True)
                    for i, each in enumerate(segments)
                ]
                result = joined.reduced(parts)
                if then is None:
                    return result
                return joined.reduced([result, _run(name, then, seconds, None, overrides, part=True)])
        return returned
