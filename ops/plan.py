"""A backlog's throughput, time to drain and cost, by MaximumConcurrency.

Computed from measured figures: what a run uses (`bench.cost`), how Lambda's event source scales, and DynamoDB's limits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from nexus.prices import cost
from nexus.runs.spent import Spent

SIZES: Final = (1_000, 100_000, 10_000_000)

STARTS_WITH: Final = 5
"""An event source's initial sandboxes; it adds MORE per second (AWS Lambda Developer Guide, "Configuring scaling
behavior for SQS event source mappings": 300 a minute)."""

MORE: Final = 5.0
COLD: Final = 0.3
"""Seconds that a sandbox takes to start, which Lambda bills (bench.coldstart, until a function's first result)."""

WRITES: Final = 40_000.0
"""Write units per second of an on-demand table at an account's default quota; a new table takes 4,000."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of run: `seconds` of Lambda at `memory` MB; `spent` is its other use. One invocation has `batch` runs and
    takes `overhead` seconds more."""

    name: str
    seconds: float
    memory: int
    batch: int
    spent: Spent
    at_once: Sequence[int]
    starts_with: int = STARTS_WITH
    more: float = MORE
    overhead: float = 0.02

    @property
    def each(self) -> float:
        """Sandbox seconds per run."""
        return self.seconds + self.overhead / self.batch

    @property
    def dollars(self) -> float:
        """Dollars per run in a warm sandbox."""
        gb_seconds = self.each * self.memory / 1024
        return self.spent.plus(Spent(gb_seconds=gb_seconds, invocations=1 / self.batch)).dollars


MESSAGES: Final = Kind(
    "messages of 50 ms",
    seconds=0.05,
    memory=512,
    batch=10,
    spent=Spent(writes=4.0, messages=0.3, log_bytes=873.0),  # bench.cost: sent and processed in tens
    at_once=(2, 5, 10, 50, 100, 500, 1_000),
)
UPLOADS: Final = Kind(
    "pictures of 12 megapixels",
    seconds=0.38,
    memory=2048,
    batch=1,
    spent=Spent(reads=1.0, writes=5.0, puts=6.0, gets=1.0, log_bytes=1_356.0),  # bench.cost
    at_once=(10, 50, 100, 500, 1_000),
    # S3 invokes the function directly: a thousand more sandboxes every ten seconds.
    starts_with=10,
    more=100.0,
)


@dataclass(frozen=True, slots=True)
class Drain:
    """What a backlog of `runs` takes."""

    runs: int
    seconds: float
    dollars: float


@dataclass(frozen=True, slots=True)
class Row:
    """With `at_once` sandboxes: runs `a_second` once all have started, and each backlog. `bound_by` names the limit, if
    it is not the number of sandboxes."""

    at_once: int
    a_second: float
    drains: tuple[Drain, ...]
    bound_by: str = ""


def rows(kind: Kind) -> list[Row]:
    """The table for a kind of run."""
    return [_row(kind, at_once) for at_once in kind.at_once]


def _row(kind: Kind, at_once: int) -> Row:
    bound = WRITES / kind.spent.writes
    useful = min(float(at_once), bound * kind.each)
    drains = tuple(_drain(kind, runs, useful) for runs in SIZES)
    return Row(at_once, useful / kind.each, drains, "DynamoDB's writes" if useful < at_once else "")


def _drain(kind: Kind, runs: int, at_once: float) -> Drain:
    """The number of sandboxes grows linearly until all have started; the last run takes its full time."""
    begin = min(float(kind.starts_with), at_once)
    growing = (at_once - begin) / kind.more
    meanwhile = growing * (begin + at_once) / 2 / kind.each
    if runs <= meanwhile:  # drained before the last sandbox starts
        work = runs * kind.each
        seconds = (-begin + math.sqrt(begin**2 + 2 * kind.more * work)) / kind.more
        most = begin + seconds * kind.more
    else:
        seconds, most = growing + (runs - meanwhile) * kind.each / at_once, at_once
    batches = math.ceil(runs / kind.batch)
    cold = cost(Spent(gb_seconds=min(most, batches) * COLD * kind.memory / 1024)).total
    last = kind.seconds * kind.batch + kind.overhead
    return Drain(runs, COLD + max(seconds, last), runs * kind.dollars + cold)


def kinds(seconds: float | None = None, memory: int | None = None) -> list[Kind]:
    """Both kinds; or, if given, messages of a task that takes `seconds` at `memory` MB."""
    if seconds is None and memory is None:
        return [MESSAGES, UPLOADS]
    took = MESSAGES.seconds if seconds is None else seconds
    name = f"messages of {took * 1000:g} ms"
    return [replace(MESSAGES, name=name, seconds=took, memory=MESSAGES.memory if memory is None else memory)]


def cells(kind: Kind) -> list[dict[str, str]]:
    """The table for a kind of run as text, by column."""
    return [
        {
            "at once": f"{row.at_once:,}",
            "a second": f"{row.a_second:,.0f}" + (f" ({row.bound_by})" if row.bound_by else ""),
            **{f"{one.runs:,}": f"{duration(one.seconds)}, {money(one.dollars)}" for one in row.drains},
        }
        for row in rows(kind)
    ]


def markdown(kinds: Sequence[Kind]) -> str:
    """The tables in Markdown, as in docs/deploy.md."""
    return "\n".join(_table(kind) for kind in kinds)


def _table(kind: Kind) -> str:
    found = cells(kind)
    heads = [f"{kind.name}, at once", *list(found[0])[1:]]
    lines = [heads, ["---"] * len(heads), *(list(row.values()) for row in found)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def duration(seconds: float) -> str:
    """A duration with two significant digits."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"
    return f"{seconds:.{0 if seconds >= 10 else 1}f} s"


def money(dollars: float) -> str:
    """Dollars; below ten cents with three decimals."""
    return f"${dollars:,.0f}" if dollars >= 10 else f"${dollars:.2f}" if dollars >= 0.1 else f"${dollars:.3f}"
