"""Conditional single-item writes: all that the runtime asks of DynamoDB, in a form that batches.

A `Write` names an item, what to set, and what must hold for the write to happen. Applied alone it is one UpdateItem;
several at once are one BatchExecuteStatement per 25, each with an outcome of its own: a batch of ten messages is
claimed in one request and settled in one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import TYPE_CHECKING, Any, Protocol

from nexus.aws.clients import client
from nexus.aws.dynamodb import (
    IN_PARTIQL,
    ITEMS_PER_READ,
    STATEMENTS_PER_REQUEST,
    Change,
    Condition,
    from_item,
    insert_statement,
    update_request,
    update_statement,
)
from nexus.settings import settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

type Value = str | int | float | bool | frozenset[int]
type Item = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Write:
    """One conditional write to the item `key`.

    `insert` means the item must not exist; otherwise every condition of `when` must hold (an absent item holds only
    "missing" and "lacks"). `add` and `discard` change sets of whole numbers.
    """

    key: str
    set: Mapping[str, Value] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    add: Mapping[str, int] = field(default_factory=dict)
    discard: Mapping[str, int] = field(default_factory=dict)
    when: tuple[Condition, ...] = ()
    insert: bool = False

    @property
    def batchable(self) -> bool:
        """Whether PartiQL can say it: it knows no sets, and its UPDATE makes no item where there is none."""
        makes_none = self.insert or any(one.test != "missing" for one in self.when)
        return makes_none and not (self.add or self.discard) and all(one.test in IN_PARTIQL for one in self.when)


@dataclass(frozen=True, slots=True)
class Applied:
    """The write happened; `item` is the item after it."""

    item: Item


@dataclass(frozen=True, slots=True)
class Refused:
    """A condition did not hold; `item` is what stands there, None when absent or not told."""

    item: Item | None


type Outcome = Applied | Refused


class Store(Protocol):
    """Where run records live."""

    def get(self, keys: Sequence[str]) -> Mapping[str, Item]: ...

    def apply(self, write: Write) -> Outcome: ...

    def apply_all(self, writes: Sequence[Write]) -> list[Outcome]: ...


class DynamoStore:
    """The run table. Errors of DynamoDB (throttling after the SDK's retries, denial) are botocore's ClientError."""

    def __init__(self, table: str | None = None) -> None:
        self._table = table or settings().table("task-runs")

    @property
    def _dynamodb(self) -> "DynamoDBClient":
        return client("dynamodb")

    def get(self, keys: Sequence[str]) -> Mapping[str, Item]:
        """The items that exist among `keys`, read consistently."""
        if len(keys) == 1:
            answer = self._dynamodb.get_item(TableName=self._table, Key={"id": {"S": keys[0]}}, ConsistentRead=True)
            return {keys[0]: from_item(answer["Item"])} if "Item" in answer else {}
        found: dict[str, Item] = {}
        for page in batched(dict.fromkeys(keys), ITEMS_PER_READ):
            asked: Any = {self._table: {"Keys": [{"id": {"S": key}} for key in page], "ConsistentRead": True}}
            while asked:
                read = self._dynamodb.batch_get_item(RequestItems=asked)
                items = map(from_item, read["Responses"].get(self._table, ()))
                found |= {item["id"]: item for item in items}
                asked = read.get("UnprocessedKeys")
        return found

    def apply(self, write: Write) -> Outcome:
        dynamodb = self._dynamodb
        try:
            answer = dynamodb.update_item(
                **update_request(self._table, _change(write)),
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except dynamodb.exceptions.ConditionalCheckFailedException as refusal:
            standing: Any = refusal.response.get("Item")
            return Refused(from_item(standing) if standing else None)
        return Applied(from_item(answer["Attributes"]))

    def apply_all(self, writes: Sequence[Write]) -> list[Outcome]:
        """Each write's outcome, in order; one request per 25 where the writes allow it."""
        if len(writes) == 1 or not all(write.batchable for write in writes):
            return [self.apply(write) for write in writes]
        outcomes: list[Outcome] = []
        for page in batched(writes, STATEMENTS_PER_REQUEST):
            statements: list[Any] = [self._statement(write) for write in page]
            answers = self._dynamodb.batch_execute_statement(Statements=statements)["Responses"]
            outcomes += [self._outcome(write, answer) for write, answer in zip(page, answers, strict=True)]
        return outcomes

    def _statement(self, write: Write) -> dict[str, Any]:
        if write.insert:
            return insert_statement(self._table, {"id": write.key, **write.set})
        return update_statement(self._table, _change(write), returning=True)

    def _outcome(self, write: Write, answer: Any) -> Outcome:
        error = answer.get("Error")
        if error is None:
            return Applied({"id": write.key, **write.set} if write.insert else from_item(answer["Item"]))
        if error["Code"] in ("ConditionalCheckFailed", "DuplicateItem"):
            return Refused(from_item(error["Item"]) if error.get("Item") else None)
        # Throttled or an internal error of this one statement: alone it has the SDK's retries and its exceptions.
        return self.apply(write)


def _change(write: Write) -> Change:
    return Change(
        {"id": write.key},
        write.set,
        write.remove,
        add={name: frozenset({member}) for name, member in write.add.items()},
        discard={name: frozenset({member}) for name, member in write.discard.items()},
        when=(Condition("id", "missing"),) if write.insert else write.when,
    )


def number(item: Item, attribute: str) -> float | None:
    """A number of an item; None when it is absent."""
    value = item.get(attribute)
    return value if isinstance(value, int | float) else None


def numbers(item: Item, attribute: str) -> frozenset[int]:
    """A number set of an item; an absent one is empty, as in DynamoDB."""
    value = item.get(attribute, frozenset())
    assert isinstance(value, frozenset), f"{attribute} is not a number set"
    return value
