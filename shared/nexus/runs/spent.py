"""A run's usage over all its attempts, in the units that AWS bills: the attribute `spent` of its record.

It is written together with the outcome of an attempt, so it costs no extra write.
"""

from typing import NamedTuple, Self

from nexus.aws.encoding import loads
from nexus.backend.store import Item
from nexus.prices import cost
from nexus.values import compact


class Spent(NamedTuple):
    """`seconds` and `gb_seconds` are Lambda's, `reads` and `writes` DynamoDB's units, indexes included, `messages`
    requests to SQS. Usage shared by several runs is divided among them, so there are fractions."""

    seconds: float = 0.0
    gb_seconds: float = 0.0
    invocations: float = 0.0
    reads: float = 0.0
    writes: float = 0.0
    messages: float = 0.0
    puts: float = 0.0
    gets: float = 0.0
    schedules: float = 0.0
    mails: float = 0.0
    log_bytes: float = 0.0

    def plus(self, *others: "Spent") -> "Spent":
        """The sum of this and the others."""
        return Spent._make(map(sum, zip(self, *others, strict=True)))

    def times(self, factor: float) -> "Spent":
        """This usage multiplied."""
        return Spent(*(amount * factor for amount in self))

    @property
    def dollars(self) -> float:
        return cost(self).total

    def text(self) -> str:
        """As a record stores it: the numbers in order, without trailing zeros."""
        rounded = [round(amount, 5) if amount else 0 for amount in self]
        numbers = [int(amount) if amount == int(amount) else amount for amount in rounded]
        while numbers and not numbers[-1]:
            numbers.pop()
        return compact(numbers)

    @classmethod
    def of(cls, item: Item) -> Self | None:
        """The usage in a record; None if it has none: no attempt has ended, or the record predates it."""
        text = item.get("spent")
        return cls(*loads(str(text))[: len(cls._fields)]) if text else None  # a newer version may have added units
