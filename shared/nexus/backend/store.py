"""Where run records are stored: conditional writes of single items, batched, each with its own outcome.

A batch of ten messages is claimed in one request and settled in one (`nexus.aws.table.Table.apply_all`).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from nexus.aws.dynamodb import Applied, Item, Outcome, Refused, Value, Write, from_item
from nexus.aws.sdk import threads
from nexus.aws.table import Table

__all__ = ("Applied", "DynamoStore", "Item", "Outcome", "Refused", "Store", "Value", "Write", "number", "numbers")

RUNS = Table("task-runs", ("id",), {"live": ("live", "since")})


class Store(Protocol):
    """The store of run records. A write's key is the record's id."""

    def get(self, keys: Sequence[str]) -> Mapping[str, Item]: ...

    def apply(self, write: Write) -> Outcome: ...

    def apply_all(self, writes: Sequence[Write]) -> list[Outcome]: ...


class DynamoStore:
    """The run table. Raises the errors of `nexus.aws.table.Table`."""

    def get(self, keys: Sequence[str]) -> Mapping[str, Item]:
        """The existing items among `keys`, read consistently."""
        if len(keys) == 1:
            row = RUNS.get({"id": keys[0]}, consistent=True)
            return {keys[0]: from_item(row)} if row else {}
        rows = RUNS.get_many([{"id": key} for key in dict.fromkeys(keys)], consistent=True)
        return {item["id"]: item for item in map(from_item, rows)}

    def apply(self, write: Write) -> Outcome:
        """The write's outcome."""
        return RUNS.apply(write)

    def apply_all(self, writes: Sequence[Write]) -> list[Outcome]:
        """Each write's outcome, in order; one request per 25 where the writes allow it."""
        return RUNS.apply_all(writes, threads=threads())


def number(item: Item, attribute: str) -> float | None:
    """A number of an item; None if absent."""
    value = item.get(attribute)
    return value if isinstance(value, int | float) else None


def numbers(item: Item, attribute: str) -> frozenset[int]:
    """A number set of an item; empty if absent, as in DynamoDB."""
    value = item.get(attribute, frozenset())
    assert isinstance(value, frozenset), f"{attribute} is not a number set"
    return value
