"""What this application declares: one queue, two tasks.

Its web application imports a task from here and sends it; its function and `nexus` find the module by NEXUS_CATALOGUE
and the stack's output `Catalogue`.
"""

from collections.abc import Mapping
from typing import Self

from pydantic import Field

from nexus import Arguments, Result, RetryPolicy, Task, register

QUEUES: Mapping[str, int] = {"numbers": 5}


class IsPrime(Arguments):
    """A number, 2 to a million million."""

    number: int = Field(ge=2, le=10**12)


class Answer(Result):
    """Whether it is prime; if not, its smallest factor."""

    number: int
    prime: bool
    smallest_factor: int | None = None


is_prime = Task(
    name="is_prime",
    queue="numbers",
    arguments=IsPrime,
    result=Answer,
    summary="Checks whether a number is prime.",
    time_limit=20,
    retry=RetryPolicy(max_retries=2, base=5),
    module="own_tasks.work",
)


class CountPrimes(Arguments):
    """Counts the primes from 2 to before `below`."""

    below: int = Field(ge=2, le=2_000_000)


class Range(Arguments):
    """One segment: the numbers from `first` to before `end`."""

    first: int
    end: int


class Primes(Result):
    """How many primes there are."""

    primes: int

    def add(self, *others: Self) -> Self:
        return self.model_copy(update={"primes": sum((other.primes for other in others), self.primes)})


count_primes = Task(
    name="count_primes",
    queue="numbers",
    arguments=CountPrimes,
    part=Range,
    result=Primes,
    summary="Counts primes, a segment for each hundred thousand numbers.",
    time_limit=50,
    module="own_tasks.work",
)

register(__name__)
