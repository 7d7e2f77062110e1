"""What to send: a task with its arguments (a signature), and runs that depend on each other.

    chain(count.s(user_id="7"), then(tell_staff, counts=result_of(count))).delay()
    chord((count.s(user_id=user) for user in users), then(add, counts=results_of(count))).apply_async(countdown=60)
    (count.s(user_id="7") | group(one.s(), two.s()) | three.s()).delay()

Canvases are immutable: `set` returns a new one. Every error in a canvas is raised when it is sent, before its first
message.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import batched, pairwise
from itertools import chain as joined
from typing import TYPE_CHECKING, Any, Literal, Never, Self, Unpack, cast, overload

from nexus.backend.transport import MAX_DELAY, Message
from nexus.client.bounded import asynchronous
from nexus.client.handles import AsyncResult
from nexus.client.options import (
    OF_THE_FIRST,
    OF_THE_LAST,
    Options,
    fixed,
    given_id,
    known,
    missing,
    moment,
    policy,
    queue_of,
    seconds,
)
from nexus.client.sending import launch, send_batch
from nexus.client.steps import Failure, GroupStep, Step, TaskStep
from nexus.definitions import Result, TaskDefinition
from nexus.envelope import Envelope, Segment
from nexus.errors import InvalidMessage
from nexus.ids import derived_id, new_id
from nexus.runs import tallies

if TYPE_CHECKING:
    from nexus.tasks import Task

CHAIN_LIMIT = 12
"""Runs in sequence: each run's record holds all that follow it."""


CALLBACK_LIMIT = 3
"""Runs in sequence in an error callback, in addition to the above."""

NOWHERE: Mapping[str, Any] = {}


type Part = Signature[Any] | Group
type Parts = tuple[Part, ...]


class Canvas[R: Result]:
    """A signature, a group or a chain. Sent by `delay()` or `apply_async(...)`; in a coroutine by `adelay()`."""

    __slots__ = ()

    def set(self, **options: Unpack[Options]) -> Self:
        """A copy with these options."""
        raise NotImplementedError

    @property
    def parts(self) -> Parts:
        """Its steps, in sequence."""
        raise NotImplementedError

    def on_error(self, callback: "Canvas[Any] | Sequence[Canvas[Any]]") -> Self:
        """A copy with a callback that is sent, once, if it fails: `set(link_error=callback)`."""
        return self.set(link_error=callback)

    def __or__[S: Result](self, after: "Canvas[S]") -> "Chain[S]":
        """`first | second`: a chain. If the first is a group, a chord."""
        return chain(self, after)

    def delay(self) -> "AsyncResult[R]":
        """Sends it. Returns the handle of the last run."""
        return self.apply_async()

    def apply_async(self, *, task_id: str | uuid.UUID | None = None, **options: Unpack[Options]) -> "AsyncResult[R]":
        """Sends it with these options. `task_id` is the id of the last run: sent twice with it, it runs once."""
        known(options, "apply_async", "task_id")
        last = new_id() if task_id is None else given_id(task_id)
        ready = self.set(**fixed(options)) if options else self
        steps = _plan(ready.parts, last)
        if task_id is None and isinstance(steps[0], TaskStep) and len(steps) > 1:
            # The id's version tells a worker that a record exists, which saves the worker a request.
            steps = (replace(steps[0], id=new_id()), *steps[1:])
        launch(steps, given=task_id is not None)
        return self._handle(last)

    def _handle(self, run_id: str) -> "AsyncResult[R]":
        last = self.parts[-1]
        return AsyncResult(run_id, last.task.result if isinstance(last, Signature) else None)

    async def adelay(self) -> "AsyncResult[R]":
        """`delay` for a coroutine."""
        return await asynchronous(self.delay)()

    async def aapply_async(self, **options: Any) -> "AsyncResult[R]":
        """`apply_async` for a coroutine, with the same options."""
        return await asynchronous(self.apply_async)(**options)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Never:
            raise missing(self, name)


@dataclass(frozen=True, slots=True)
class Signature[R: Result](Canvas[R]):
    """A task with checked arguments, not yet sent. `result_as` names the argument filled in as `takes` specifies."""

    task: TaskDefinition[Any, R]
    args: Mapping[str, Any]
    result_as: str | None = None
    takes: "ResultOf | None" = None
    options: Options = field(default_factory=Options)

    @classmethod
    def of(cls, task: TaskDefinition[Any, R], arguments: Mapping[str, Any]) -> "Signature[R]":
        return cls(task, task.to_send(arguments))

    @property
    def queue(self) -> str:
        """The queue to send to. Raises UnknownTask if that queue does not serve the task."""
        return queue_of(self.task, self.options.get("queue"))

    @property
    def parts(self) -> Parts:
        return (self,)

    def set(self, **options: Unpack[Options]) -> Self:
        known(options, "set")
        return replace(self, options={**self.options, **options})

    def apply_async(
        self, *, task_id: str | uuid.UUID | None = None, track: bool = True, **options: Unpack[Options]
    ) -> "AsyncResult[R]":
        """Sends it: see `nexus.tasks.Task.apply_async`."""
        known(options, "apply_async", "task_id", "track")
        run_id = _own_id(track) if task_id is None else given_id(task_id)
        ready = replace(self, options={**self.options, **options}) if options else self
        launch(_plan((ready,), run_id), given=task_id is not None, track=track)
        return AsyncResult(run_id, self.task.result)

    def step(self, run_id: str, place: Mapping[str, Any] = NOWHERE) -> TaskStep:
        """The step of the run with this id."""
        options = self.options
        countdown, eta = options.get("countdown"), options.get("eta")
        expires, retry = options.get("expires"), options.get("retry")
        if countdown is not None and eta is not None:
            raise ValueError("give countdown or eta, not both")
        return TaskStep(
            id=run_id,
            task=self.task.name,
            queue=self.queue,
            args=self.args,
            result_as=self.result_as,
            countdown=seconds("countdown", countdown or 0.0),
            eta=None if eta is None else moment("eta", eta),
            expires_in=None if expires is None or isinstance(expires, datetime) else seconds("expires", expires),
            expires_at=moment("expires", expires) if isinstance(expires, datetime) else None,
            retry=None if retry is None else policy(retry),
            group=options.get("group"),
            always=options.get("always", False),
            on_error=_callback(options, run_id),
            **place,
        )


@dataclass(frozen=True, slots=True)
class Group(Canvas[Any]):
    """Sequences that run in parallel. Its result is the list of their results, in order."""

    members: tuple[Parts, ...]
    options: Options = field(default_factory=Options)

    @property
    def parts(self) -> Parts:
        return (self,)

    def set(self, **options: Unpack[Options]) -> Self:
        known(options, "set")
        own = cast(Options, {name: value for name, value in options.items() if name in ("link_error", "always")})
        each = cast(Options, {name: value for name, value in options.items() if name not in own})
        members = tuple(_with(member, each) for member in self.members) if each else self.members
        return replace(self, members=members, options={**self.options, **own})

    def __call__(self, body: "Canvas[Any] | None" = None, **options: Any) -> "AsyncResult[Any]":
        """`group(...)()` sends it, `chord(members)(body)` sends it followed by the body."""
        return (self if body is None else self | body).apply_async(**options)

    def step(self, run_id: str, place: Mapping[str, Any] = NOWHERE) -> GroupStep:
        """The step of the group with this id."""
        total = len(self.members)
        if not 1 <= total <= tallies.LIMIT:
            raise ValueError(f"a group of {total} members: 1 to {tallies.LIMIT} are allowed")
        members = []
        for index, member in enumerate(self.members):
            own = {"parent": run_id, "segment": Segment(index=index, total=total, kind="group")}
            members.append(_steps(member, tallies.member(run_id, 1, index), own))
        return GroupStep(
            id=run_id,
            members=tuple(members),
            always=self.options.get("always", False),
            on_error=_callback(self.options, run_id),
            **place,
        )


@dataclass(frozen=True, slots=True)
class Chain[R: Result](Canvas[R]):
    """Steps that run one after another: each success sends the next, with its result if the next takes it."""

    parts: Parts = ()

    def set(self, **options: Unpack[Options]) -> Self:
        known(options, "set")
        return replace(self, parts=_with(self.parts, options))

    def __call__(self, **options: Any) -> "AsyncResult[R]":
        """`chain(...)()` sends it."""
        return self.apply_async(**options)


def group(*members: "Canvas[Any] | Iterable[Canvas[Any]]") -> Group:
    """Runs in parallel: `group(a, b)`, `group([a, b])`, or from a generator. 1 to 10,000 members.

    Its result is the list of the members' results, in order. Nested groups are flattened. A member that fails makes the
    group FAILURE; if its dead letter is sent again and succeeds, the group becomes SUCCESS.
    """
    flat: list[Parts] = []
    for member in _canvases("group", members):
        # A group with options or callbacks of its own is not flattened.
        if isinstance(member, Group) and not member.options:
            flat += member.members
        else:
            flat.append(member.parts)
    return Group(tuple(flat))


def chain(*links: "Canvas[Any] | Iterable[Canvas[Any]]") -> "Chain[Any]":
    """Runs in sequence: `chain(a, b)`, `chain([a, b])` or `a | b`. The link after a group is the body of its chord.

    The handle is the last link's. A link that fails ends the chain: the links after it are FAILURE too, except one that
    is to run `always`. If its dead letter is sent again and succeeds, the chain continues. At most 12 runs in sequence.
    """
    return Chain(tuple(joined.from_iterable(link.parts for link in _canvases("chain", links))))


@overload
def chord(members: "Canvas[Any] | Iterable[Canvas[Any]]") -> Group: ...
@overload
def chord[S: Result](members: "Canvas[Any] | Iterable[Canvas[Any]]", body: "Canvas[S]") -> "Chain[S]": ...
def chord(members: "Canvas[Any] | Iterable[Canvas[Any]]", body: "Canvas[Any] | None" = None) -> "Chain[Any] | Group":
    """A group and the task or canvas that follows it. The handle is the body's.

    `chord(members)(body)` sends it at once.
    """
    header = members if isinstance(members, Group) else group(members)
    return header if body is None else chain(header, body)


def chunks(task: "Task[Any, Any]", items: Iterable[Mapping[str, Any]], size: int) -> Group:
    """A group with a subgroup for every `size` items; its result is a list of lists. Each item is a run of its own."""
    if size < 1:
        raise ValueError(f"chunks of {size}: the size must be 1 or more")
    pages = batched((Signature.of(task, item) for item in items), size)
    return Group(tuple((Group(tuple(one.parts for one in page)),) for page in pages))


def _canvases(what: str, given: "Sequence[Any]") -> "Iterator[Canvas[Any]]":
    """The given canvases, passed individually or as one iterable."""
    match given:
        case [Iterable() as only]:
            given = tuple(only)
    for one in given:
        if not isinstance(one, Canvas):
            write = "task.s(name=value), without delay(), or a Django task's signature(args, kwargs)"
            raise TypeError(f"{what}: {one!r} is not a signature: write {write}")
        yield one


def _with(parts: Parts, options: Options) -> Parts:
    """The parts of a sequence with the options of the whole."""
    last = len(parts) - 1

    def meant(n: int) -> Options:
        left_out = (OF_THE_FIRST if n else frozenset()) | (OF_THE_LAST if n < last else frozenset())
        return cast(Options, {name: value for name, value in options.items() if name not in left_out})

    return tuple(part.set(**meant(n)) for n, part in enumerate(parts))


# --- what takes a result ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResultOf:
    """Placeholder for a value that does not exist yet."""

    task: str
    what: Literal["result", "results", "failure"] = "result"


def result_of[R: Result](task: TaskDefinition[Any, R]) -> R:
    """In `then(...)`, the result of the previous link, which runs this task. To a type checker it is that result.

    If the link is to run `always`, it is None after a link that failed.
    """
    return cast(R, ResultOf(task.name))


def results_of[R: Result](task: TaskDefinition[Any, R]) -> Sequence[R]:
    """In `then(...)`, the results of a chord's members, which run this task, in order.

    If the body is to run `always`, each failed member's result is None.
    """
    return cast(Sequence[R], ResultOf(task.name, "results"))


def the_failure() -> Failure:
    """In `then(...)`, for an error callback: the run that failed, and the reason."""
    return cast(Failure, ResultOf("", "failure"))


def then[R: Result, **P](task: "Task[Any, R, P]", /, *positional: P.args, **arguments: P.kwargs) -> Signature[R]:
    """A chain link, chord body or error callback that takes the previous result as an argument.

        chain(count.s(user_id="7"), then(tell_staff, counts=result_of(count), to="ops"))

    The given arguments are checked at once, and all of them together when it runs. Raises InvalidMessage like `delay`,
    TypeError unless exactly one argument is `result_of(...)`, `results_of(...)` or `the_failure()`.
    """
    waiting = {name: value for name, value in arguments.items() if isinstance(value, ResultOf)}
    if positional or len(waiting) != 1:
        raise TypeError(f"{task.name}: write then({task.name}, argument=result_of(the_task_before), ...)")
    ((argument, takes),) = waiting.items()
    if argument not in task.arguments.model_fields:
        raise InvalidMessage(f"{task.name}: {argument}: no such argument")
    given = {name: value for name, value in arguments.items() if name not in waiting}
    return Signature(task, task.some_to_send(given, missing=argument), argument, takes)


# --- sending ---------------------------------------------------------------------------------------------------------


def send[R: Result](
    signature: Signature[R], *, task_id: str | uuid.UUID | None = None, track: bool = True, **options: Unpack[Options]
) -> "AsyncResult[R]":
    """Sends one task: its record first, then its message. See `nexus.tasks.Task.apply_async`."""
    return signature.apply_async(task_id=task_id, track=track, **options)


def send_many(
    signatures: Iterable[Signature[Any]], *, track: bool = True, **options: Unpack[Options]
) -> "list[AsyncResult[Any]]":
    """Sends many independent tasks whose results nothing waits for, in batches; `options` apply to each.

    SendFailed lists the ids of the runs that SQS did not accept; the others have been sent.
    """
    known(options, "send_many", "track")
    steps, handles = [], []
    for signature in signatures:
        if not isinstance(signature, Signature):
            raise TypeError(f"send_many: {signature!r} is not a signature: write group(...) for a canvas of several")
        run_id = _own_id(track)
        ready = replace(signature, options={**signature.options, **options}) if options else signature
        (step,) = _plan((ready,), run_id)
        steps.append(cast(TaskStep, step))
        handles.append(AsyncResult(run_id, signature.task.result))
    send_batch(steps, track=track)
    return handles


asend_many = asynchronous(send_many)
"""`send_many` for a coroutine."""


def _own_id(track: bool) -> str:
    """The id's version tells a worker whether a record exists."""
    return new_id() if track else derived_id("untracked", new_id())


def _plan(parts: Parts, last: str) -> tuple[Step, ...]:
    """The steps of a whole canvas, checked. Raises InvalidMessage, ValueError, UnknownTask."""
    for first in _starts(parts):
        if first.takes is not None:
            raise InvalidMessage(
                f"{first.task.name}: {first.result_as}: there is no step before it whose result it could take"
            )
    steps = _steps(parts, last)
    if _depth(parts) > CHAIN_LIMIT:
        raise ValueError(f"a chain of {_depth(parts)} links: 1 to {CHAIN_LIMIT} are allowed")
    _check(parts)
    return steps


def _steps(parts: Parts, last: str, place: Mapping[str, Any] = NOWHERE) -> tuple[Step, ...]:
    """A sequence's steps. Their ids derive from the last step's, so that sending twice with that id is idempotent."""
    if not parts:
        raise ValueError(f"a chain of 0 links: 1 to {CHAIN_LIMIT} are allowed")
    *before, end = parts
    return (
        *(part.step(tallies.earlier_id(last, n)) for n, part in enumerate(before)),
        end.step(last, place),
    )


def _callback(options: Options, run_id: str) -> tuple[Step, ...]:
    callback = options.get("link_error")
    if callback is None:
        return ()
    return _steps(_callback_of(callback).parts, derived_id(run_id, "error"))


def _callback_of(given: "Canvas[Any] | Sequence[Canvas[Any]]") -> "Canvas[Any]":
    return given if isinstance(given, Canvas) else group(given)


# --- checks ----------------------------------------------------------------------------------------------------------


def _depth(parts: Parts) -> int:
    """How many runs follow each other."""
    return sum(max(map(_depth, part.members)) if isinstance(part, Group) else 1 for part in parts)


def _runs(parts: Iterable[Part]) -> "Iterator[Signature[Any]]":
    """All tasks of these parts."""
    yield from _tasks(parts, _runs)


def _starts(parts: Sequence[Part]) -> "Iterator[Signature[Any]]":
    """The tasks that run first."""
    yield from _tasks(parts[:1], _starts)


def _ends(parts: Sequence[Part]) -> "Iterator[Signature[Any]]":
    """The tasks that run last."""
    yield from _tasks(parts[-1:], _ends)


def _tasks(
    parts: Iterable[Part], of_member: "Callable[[Parts], Iterator[Signature[Any]]]"
) -> "Iterator[Signature[Any]]":
    for part in parts:
        if isinstance(part, Signature):
            yield part
        else:
            for member in part.members:
                yield from of_member(member)


def _check(parts: Sequence[Part], upstream: "Sequence[Signature[Any]]" = ()) -> None:
    """Raises InvalidMessage for a canvas that could never succeed. `upstream` is what may fail before it begins."""
    for before, after in pairwise(parts):
        _may_follow(_ends([before]), _starts([after]))
        _gets_what_it_takes(before, after)
    for n, part in enumerate(parts):
        if part.options.get("always"):
            _may_follow([*upstream, *_runs(parts[:n])], _starts([part]))
        callback = part.options.get("link_error")
        if callback is not None:
            _check_callback(_callback_of(callback).parts, [*upstream, *_runs(parts[: n + 1])])
        if isinstance(part, Group):
            earlier = _distinct([*upstream, *_runs(parts[:n])])
            for member in part.members:
                _check(member, earlier)
        elif n or upstream:
            # Sent later, perhaps with a result: the arguments known now must fit into a message.
            message = Message.of(Envelope.of(id=derived_id(n), task=part.task.name, args=dict(part.args)))
            if (part.options.get("countdown") or 0.0) > MAX_DELAY:
                message.check_scheduled(part.task.name)


def _check_callback(parts: Parts, failing: "Sequence[Signature[Any]]") -> None:
    _may_follow(failing, _starts(parts))
    for start in _starts(parts):
        if start.takes is not None and start.takes.what != "failure":
            raise InvalidMessage(f"{start.task.name}: an error callback can take the_failure(), but no result")
    if _depth(parts) > CALLBACK_LIMIT:
        raise ValueError(f"an error callback of {_depth(parts)} links: 1 to {CALLBACK_LIMIT} are allowed")
    _check(parts, failing)


def _gets_what_it_takes(before: Part, after: Part) -> None:
    names = {end.task.name for end in _ends([before])}
    what, given = ("a group", "results") if isinstance(before, Group) else ("a single task", "result")
    for start in _starts([after]):
        takes = start.takes
        if takes is None:
            continue
        if takes.what == "failure":
            raise InvalidMessage(f"{start.task.name}: {start.result_as}: only an error callback can take the_failure()")
        if takes.task not in names:
            raise InvalidMessage(
                f"{start.task.name}: {start.result_as} takes the result of {takes.task}, "
                f"but the step before it runs {', '.join(sorted(names))}"
            )
        if takes.what != given:
            raise InvalidMessage(
                f"{start.task.name}: {start.result_as}: the step before it is {what}: write {given}_of({takes.task})"
            )


def _may_follow(before: "Iterable[Signature[Any]]", after: "Iterable[Signature[Any]]") -> None:
    """The function that ends a run sends the next one. Raises InvalidMessage if that function's role may not."""
    enders = _distinct(before)
    starters = {(one.task.name, one.queue, _waits_long(one)): one for one in after}
    for starter in starters.values():
        if starter.task.secret:
            why = "the arguments of a later step are stored until it is sent"
            raise InvalidMessage(f"{starter.task.name} has secret arguments and cannot follow another run: {why}")
    for ender in enders:
        for starter in starters.values():
            if starter.queue not in (ender.queue, *ender.task.sends_to):
                raise InvalidMessage(
                    f"{ender.task.name}: {starter.task.name} cannot follow it: the function of {ender.queue} may not "
                    f"send to {starter.queue}. Add that to the task's sends_to, and allow it in the function's role "
                    "(template.yaml)"
                )
            if _waits_long(starter) and not ender.task.sends_later:
                raise InvalidMessage(
                    f"{ender.task.name}: {starter.task.name} cannot follow it more than {MAX_DELAY} s later: the "
                    f"function of {ender.queue} may not make schedules. Set the task's sends_later, and allow it in "
                    "the function's role"
                )


def _distinct(signatures: "Iterable[Signature[Any]]") -> "list[Signature[Any]]":
    """One of each task and queue."""
    return list({(one.task.name, one.queue): one for one in signatures}.values())


def _waits_long(signature: Signature[Any]) -> bool:
    return signature.options.get("eta") is not None or (signature.options.get("countdown") or 0.0) > MAX_DELAY
