"""Conditional single-item writes: all that the runtime asks of DynamoDB, in a form that batches.

A `Write` names an item, what to set, and what must hold for the write to happen. Applied alone it is one UpdateItem;
several at once are one BatchExecuteStatement per 25, each with an outcome of its own: a batch of ten messages is
claimed in one request and settled in one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from nexus.aws import client
from nexus.settings import settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

type Value = str | int | float | bool | frozenset[int]
type Item = Mapping[str, Value]

STATEMENTS_PER_REQUEST = 25
ITEMS_PER_READ = 100


@dataclass(frozen=True, slots=True)
class Condition:
    """`attribute` `test` `value`: equality, absence, or a number set that lacks a member."""

    attribute: str
    test: Literal["=", "missing", "exists", "lacks"]
    value: Value | None = None


def equals(attribute: str, value: Value | None) -> Condition:
    """The attribute has this value; with None, it is absent."""
    return Condition(attribute, "missing") if value is None else Condition(attribute, "=", value)


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
        return not (self.add or self.discard) and all(c.test in ("=", "missing") for c in self.when)


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
            return {keys[0]: from_attributes(answer["Item"])} if "Item" in answer else {}
        found: dict[str, Item] = {}
        unique = list(dict.fromkeys(keys))
        waiting: list[Mapping[str, Any]] = [{"id": {"S": key}} for key in unique]
        while waiting:
            page, waiting = waiting[:ITEMS_PER_READ], waiting[ITEMS_PER_READ:]
            read = self._dynamodb.batch_get_item(RequestItems={self._table: {"Keys": page, "ConsistentRead": True}})
            for attributes in read["Responses"].get(self._table, []):
                item = from_attributes(attributes)
                found[str(item["id"])] = item
            unprocessed = read.get("UnprocessedKeys", {})
            waiting = [*(unprocessed[self._table]["Keys"] if self._table in unprocessed else []), *waiting]
        return found

    def apply(self, write: Write) -> Outcome:
        names: dict[str, str] = {}
        values: dict[str, Any] = {}
        update = _update_expression(write, names, values)
        condition = _condition_expression(write, names, values)
        optional: dict[str, Any] = {}
        if condition:
            optional["ConditionExpression"] = condition
        if names:
            optional["ExpressionAttributeNames"] = names
        if values:
            optional["ExpressionAttributeValues"] = values
        dynamodb = self._dynamodb
        try:
            answer = dynamodb.update_item(
                TableName=self._table,
                Key={"id": {"S": write.key}},
                UpdateExpression=update,
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **optional,
            )
        except dynamodb.exceptions.ConditionalCheckFailedException as refusal:
            standing: Any = refusal.response.get("Item")
            return Refused(from_attributes(standing) if standing else None)
        return Applied(from_attributes(answer["Attributes"]))

    def apply_all(self, writes: Sequence[Write]) -> list[Outcome]:
        """Each write's outcome, in order; one request per 25 where the writes allow it."""
        if len(writes) == 1 or not all(write.batchable for write in writes):
            return [self.apply(write) for write in writes]
        outcomes: list[Outcome] = []
        for start in range(0, len(writes), STATEMENTS_PER_REQUEST):
            page = writes[start : start + STATEMENTS_PER_REQUEST]
            statements: list[Any] = [_statement(self._table, write) for write in page]
            answers = self._dynamodb.batch_execute_statement(Statements=statements)["Responses"]
            outcomes += [self._outcome(write, answer) for write, answer in zip(page, answers, strict=True)]
        return outcomes

    def _outcome(self, write: Write, answer: Any) -> Outcome:
        error = answer.get("Error")
        if error is None:
            if write.insert:
                return Applied({"id": write.key, **write.set})
            return Applied(from_attributes(answer["Item"]))
        if error["Code"] in ("ConditionalCheckFailed", "DuplicateItem"):
            return Refused(from_attributes(error["Item"]) if error.get("Item") else None)
        # Throttled or an internal error of this one statement: alone it has the SDK's retries and its exceptions.
        return self.apply(write)


def _update_expression(write: Write, names: dict[str, str], values: dict[str, Any]) -> str:
    clauses = []
    if write.set:
        clauses.append("SET " + ", ".join(f"{_name(a, names)} = {_value(v, values)}" for a, v in write.set.items()))
    if write.remove:
        clauses.append("REMOVE " + ", ".join(_name(a, names) for a in write.remove))
    for verb, members in (("ADD", write.add), ("DELETE", write.discard)):
        if members:
            terms = (f"{_name(a, names)} {_value(frozenset({n}), values)}" for a, n in members.items())
            clauses.append(f"{verb} " + ", ".join(terms))
    return " ".join(clauses)


def _condition_expression(write: Write, names: dict[str, str], values: dict[str, Any]) -> str:
    if write.insert:
        return f"attribute_not_exists({_name('id', names)})"
    terms = []
    for condition in write.when:
        name = _name(condition.attribute, names)
        match condition.test:
            case "missing":
                terms.append(f"attribute_not_exists({name})")
            case "exists":
                terms.append(f"attribute_exists({name})")
            case "lacks":
                terms.append(f"NOT contains({name}, {_value(_given(condition), values)})")
            case "=":
                terms.append(f"{name} = {_value(_given(condition), values)}")
    return " AND ".join(terms)


def _given(condition: Condition) -> Value:
    assert condition.value is not None, f"{condition.attribute} {condition.test} needs a value"
    return condition.value


def _name(attribute: str, names: dict[str, str]) -> str:
    names[f"#{attribute}"] = attribute
    return f"#{attribute}"


def _value(value: Value, values: dict[str, Any]) -> str:
    placeholder = f":{len(values)}"
    values[placeholder] = to_attribute(value)
    return placeholder


def _statement(table: str, write: Write) -> dict[str, Any]:
    """The write in PartiQL (DynamoDB's dialect: UPDATE never makes an item, INSERT never replaces one)."""
    parameters = [to_attribute(value) for value in write.set.values()]
    if write.insert:
        members = ", ".join(f"'{name}': ?" for name in ("id", *write.set))
        return {
            "Statement": f'INSERT INTO "{table}" VALUE {{{members}}}',
            "Parameters": [{"S": write.key}, *parameters],
        }
    text = [
        f'UPDATE "{table}"',
        *(f'SET "{name}" = ?' for name in write.set),
        *(f'REMOVE "{name}"' for name in write.remove),
    ]
    tests = ['"id" = ?']
    parameters.append({"S": write.key})
    for condition in write.when:
        if condition.test == "missing":
            tests.append(f'"{condition.attribute}" IS MISSING')
        else:
            tests.append(f'"{condition.attribute}" = ?')
            parameters.append(to_attribute(_given(condition)))
    return {
        "Statement": f"{' '.join(text)} WHERE {' AND '.join(tests)} RETURNING ALL NEW *",
        "Parameters": parameters,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def to_attribute(value: Value) -> dict[str, Any]:
    """A value in DynamoDB's JSON."""
    match value:
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case int():
            return {"N": str(value)}
        case float():
            # DynamoDB holds 38 digits and refuses repr's exponents beyond 125; times and rates need six decimals.
            return {"N": f"{value:.6f}"}
        case frozenset():
            return {"NS": sorted(map(str, value))}


def from_attributes(attributes: Mapping[str, Mapping[str, Any]]) -> Item:
    """An item of DynamoDB's JSON as plain values."""
    return {name: _plain(attribute) for name, attribute in attributes.items()}


def _plain(attribute: Mapping[str, Any]) -> Value:
    for kind, value in attribute.items():
        match kind:
            case "S":
                return str(value)
            case "BOOL":
                return bool(value)
            case "N":
                return float(value) if "." in value or "E" in value.upper() else int(value)
            case "NS":
                return frozenset(int(member) for member in value)
    raise TypeError(f"not an attribute of a run record: {attribute!r}")


def numbers(item: Item, attribute: str) -> frozenset[int]:
    """A number set of an item; an absent one is empty, as in DynamoDB."""
    value = item.get(attribute, frozenset())
    assert isinstance(value, frozenset), f"{attribute} is not a number set"
    return value


def in_pages[T](values: Iterable[T], size: int) -> Iterable[list[T]]:
    """Lists of at most `size` values."""
    page: list[T] = []
    for value in values:
        page.append(value)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page
