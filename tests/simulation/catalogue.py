"""The tasks of the simulation. Their arguments say what each attempt does; the world records what it did."""

from collections.abc import Callable, Mapping
from typing import Any, Self

from nexus.errors import Reject, Retry
from nexus.registry import Implementation, Registry
from nexus.tasks import Arguments, Budget, RateLimit, Result, RetryPolicy, Task, Unique
from nexus.worker.run import Run
from tests.simulation import world

QUEUES = {"quick": 5, "slow": 5}
POLICY = RetryPolicy(max_retries=world.MAX_ATTEMPTS - 1, base=10.0, cap=60.0)


class Step(Arguments):
    """`does` says how each attempt ends (later ones succeed); `takes` is in seconds; `given` comes from a canvas."""

    name: str
    does: tuple[str, ...] = ()
    takes: float = 0.1
    given: Any = None


class Done(Result):
    """The task, and what it was given."""

    text: str


class Spread(Arguments):
    """A fan-out of `parts` parts, whose attempts end as `does` says; with or without a second phase."""

    name: str
    parts: int
    does: tuple[str, ...] = ()
    then: bool = False


class Part(Arguments):
    """A part, or the second phase, of a fan-out."""

    name: str
    does: tuple[str, ...] = ()
    last: bool = False


class Count(Result):
    """How many parts were done."""

    done: int = 0

    def add(self, *others: Self) -> Self:
        return self.model_copy(update={"done": self.done + sum(other.done for other in others)})


def _task(name: str, queue: str = "quick", **also: Any) -> Task[Step, Done]:
    limit = 20.0 if queue == "quick" else 840.0
    fields: dict[str, Any] = {
        "sends_to": tuple(QUEUES),
        "summary": "A step.",
        "retry": POLICY,
        "time_limit": limit,
        **also,
    }
    return Task(name=name, queue=queue, arguments=Step, result=Done, **fields)


step = _task("step")
solo = _task("solo", "slow")
only = _task("only", unique=Unique(key=("name",), lease=3600))
queued = _task("queued", unique=Unique(key=("name",), on_conflict="coalesce", lease=3600))
paced = _task("paced", rate_limit=RateLimit(1.0))
rare = _task("rare", rate_limit=RateLimit(1 / 60))
rationed = _task("rationed", budget=Budget(runs=3))
spread = Task(
    name="spread",
    queue="quick",
    arguments=Spread,
    part=Part,
    result=Count,
    summary="Fans out.",
    retry=POLICY,
    time_limit=20.0,
)
single = Task(
    name="single",
    queue="quick",
    arguments=Spread,
    part=Part,
    result=Count,
    summary="Fans out, one run at a time.",
    retry=POLICY,
    time_limit=20.0,
    unique=Unique(key=("name",), lease=3600),
)
STEPS = (step, solo, only, queued, paced, rare, rationed)
SPREADS = (spread, single)


class Unprintable(Exception):
    """An error whose text cannot be read."""

    def __str__(self) -> str:
        raise ValueError("no text")


def work(args: Step, run: Run) -> Any:
    """Does what the arguments say for this attempt."""
    key = args.name if run.task in ("only", "queued", "single") else None
    with world.current().at_work(run, key) as start:
        world.current().spend(args.takes)
        _misbehave(args.does, start)
        world.current().done(run)
        if "big" in args.does:
            return Done(text="x" * 2 * world.INLINE_BYTES)
        return Done(text=f"{args.name}({shown(args.given)})")


def plan(args: Spread, run: Run) -> Any:
    """Fans out."""
    with world.current().at_work(run, args.name if run.task == "single" else None) as start:
        _misbehave(args.does, start)
        parts = [Part(name=f"{args.name}.{n}", does=args.does if n == 0 else ()) for n in range(args.parts)]
        return run.fan_out(parts, then=Part(name=f"{args.name}.then", last=True) if args.then else None)


def part(args: Part, run: Run) -> Any:
    """Does one part."""
    with world.current().at_work(run, None) as start:
        if "continue" in args.does and run.cursor is None:
            return run.continue_from({"at": 1})
        _misbehave(args.does, start)
        world.current().done(run)
        return Count(done=100 if args.last else 1)


_FAILURES: Mapping[str, Callable[[], BaseException]] = {
    "fails": lambda: OSError("it does not work"),
    "again": lambda: Retry("not yet", after=7.0),
    "later": lambda: Retry("tomorrow", after=100_000.0),
    "rejects": lambda: Reject("it never works"),
    "exits": lambda: SystemExit(3),
    "surrogate": lambda: OSError("no file \udcff"),
    "control": lambda: OSError("no file \ufffe\x00"),
    "unprintable": Unprintable,
    "talks": lambda: OSError("talks " * 1_000),
}


def _misbehave(does: tuple[str, ...], start: int) -> None:
    """What start number `start` of a run does, from 0; starts after the last word succeed."""
    how = does[start] if start < len(does) else "well"
    if how in _FAILURES:
        error = _FAILURES[how]()
        raise error
    if how == "overruns":
        world.current().spend(1000.0)
    elif how == "dies":
        world.current().die()


def shown(value: Any) -> str:
    """A short form of what a step was given: the text, if it is a step's result."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ",".join(shown(each) for each in value)
    if isinstance(value, dict) and "text" in value:
        return str(value["text"])
    return str(value)


def implement(registry: Registry) -> None:
    """Registers the functions of all of them."""
    for task in STEPS:
        registry.implement(Implementation(task, work))
    for spreading in SPREADS:
        registry.implement(Implementation(spreading, plan, part))
