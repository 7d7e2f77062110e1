"""What a run has used, over all its attempts, in what AWS bills for: an attribute of its record, `spent`.

It is written with what ends an attempt, so it costs no write of its own.
"""

import json
from typing import NamedTuple, Self

from nexus.backend.store import Item
from nexus.prices import cost


class Spent(NamedTuple):
    """`seconds` and `gb_seconds` are Lambda's, `reads` and `writes` DynamoDB's units with its indexes, `messages`
    requests to SQS. What several runs used together is shared out among them, hence the fractions."""

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
        """This and the others as one."""
        return Spent(*map(sum, zip(self, *others, strict=True)))

    def times(self, factor: float) -> "Spent":
        """So many times this."""
        return Spent(*(amount * factor for amount in self))

    @property
    def dollars(self) -> float:
        return cost(self).total

    def text(self) -> str:
        """As a record keeps it: the numbers in a row, without the zeros at the end."""
        rounded = (round(amount, 5) for amount in self)
        numbers = [int(amount) if amount == int(amount) else amount for amount in rounded]
        while numbers and not numbers[-1]:
            numbers.pop()
        return json.dumps(numbers, separators=(",", ":"))

    @classmethod
    def of(cls, item: Item) -> Self | None:
        """What a record says; None where nothing was kept: it has not ended an attempt, or is older than this."""
        text = item.get("spent")
        return cls(*json.loads(str(text))) if text else None
