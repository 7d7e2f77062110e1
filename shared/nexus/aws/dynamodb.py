"""DynamoDB's language: values as DynamoDB JSON, and writes as UpdateItem parameters or PartiQL.

Nothing here makes a request; `nexus.aws.table` does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

type Attribute = Mapping[str, Any]
type Row = Mapping[str, Attribute]
"""An item in DynamoDB's own JSON: {"user_id": {"S": "u"}}."""

type Value = str | int | float | bool | frozenset[int] | Sequence["Value"] | Mapping[str, "Value"] | None
type Item = Mapping[str, Value]
"""An item as plain values: {"user_id": "u"}."""

type Key = str | Mapping[str, str]
"""The value of a table's single key attribute, or the values of several key attributes by name."""

ITEMS_PER_READ = 100
STATEMENTS_PER_REQUEST = 25


class Schema(NamedTuple):
    """The key attributes of a table, and of each of its indexes by name; the partition key first."""

    key: tuple[str, ...]
    indexes: Mapping[str, tuple[str, ...]]


schemas: dict[str, Schema] = {}
"""Keys of the tables that this process has declared, by entity."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a write: `attribute` `test` `value`. `lacks` tests that a set does not contain the value.

    An absent attribute satisfies only `missing`, `missing or ...` and `lacks`.
    """

    attribute: str
    test: Literal["=", "<", "<=", ">", "missing", "missing or <", "missing or <=", "missing or <>", "exists", "lacks"]
    value: Value = None


def equals(attribute: str, value: Value) -> Condition:
    """The attribute equals this value; None means it is absent."""
    return Condition(attribute, "missing") if value is None else Condition(attribute, "=", value)


def unchanged(row: Row, *attributes: str) -> tuple[Condition, ...]:
    """The attributes are still what was read in `row`."""
    return tuple(
        Condition(name, "=", from_attribute(row[name])) if name in row else Condition(name, "missing")
        for name in attributes
    )


@dataclass(frozen=True, slots=True)
class Write:
    """One write of the item at `key`, made only if every condition in `when` holds (an absent item has no attributes).

    `insert` requires that the item does not exist; `delete` removes the item. `add` adds to numbers (an absent number
    is 0) and adds members to sets of whole numbers; `discard` removes members from sets.
    """

    key: Key
    set: Mapping[str, Value] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    add: Mapping[str, int | frozenset[int]] = field(default_factory=dict)
    discard: Mapping[str, frozenset[int]] = field(default_factory=dict)
    when: tuple[Condition, ...] = ()
    insert: bool = False
    delete: bool = False

    @property
    def batchable(self) -> bool:
        """Whether `update_statement` can express it as one PartiQL statement, whose UPDATE never creates an item."""
        makes_none = self.insert or self.delete or any(one.test != "missing" for one in self.when)
        return makes_none and not (self.add or self.discard) and all(one.test in IN_PARTIQL for one in self.when)

    def is_result(self, existing: Row | None) -> bool:
        """Whether the existing item is what this write leaves behind.

        A write that was sent more than once and then refused uses this rule to recognise its own first try: every value
        it sets is there, every attribute it removes is absent, and likewise for members of sets. If only one of several
        writers may believe that the write was its own, the write must set something that no other writer sets: a
        claim's token, a holder's run id, a random nonce. If several writers that set the same values may all proceed (a
        count of the same second, an idempotent follow-up), the values suffice. An addition to a number cannot be
        recognised without a nonce.
        """
        if self.delete or existing is None:
            return self.delete and existing is None
        nonce_or_set = bool(self.set) or not any(isinstance(amount, int) for amount in self.add.values())
        sets = ((name, amount) for name, amount in self.add.items() if isinstance(amount, frozenset))
        return (
            nonce_or_set
            and all(
                name in existing and from_attribute(existing[name]) == from_attribute(to_attribute(value))
                for name, value in self.set.items()
            )
            and not any(name in existing for name in self.remove)
            and all(members <= _members(existing, name) for name, members in sets)
            and all(not members & _members(existing, name) for name, members in self.discard.items())
        )


@dataclass(frozen=True, slots=True)
class Applied:
    """The write happened; `item` is the item after it, empty when it was removed or not requested."""

    item: Item


@dataclass(frozen=True, slots=True)
class Refused:
    """A condition did not hold; `item` is the existing item, None when absent or not known."""

    item: Item | None


type Outcome = Applied | Refused


# --- values ----------------------------------------------------------------------------------------------------------


def to_attribute(value: Value) -> dict[str, Any]:
    """A value in DynamoDB JSON."""
    if type(value) is str:  # nearly all of them
        return {"S": value}
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case float():
            # DynamoDB rejects exponents beyond 125, which repr may write; times, ranks and rates need six decimals.
            return {"N": f"{value:.6f}"}
        case None:
            return {"NULL": True}
        case frozenset():
            return {"NS": sorted(map(str, value))}
        case Mapping():
            return {"M": to_item(value)}
        case _:
            return {"L": [to_attribute(member) for member in value]}


def to_item(values: Mapping[str, Value]) -> dict[str, Any]:
    """An item of plain values in DynamoDB JSON."""
    return {name: to_attribute(value) for name, value in values.items()}


def from_attribute(attribute: Attribute) -> Any:
    """The plain value of an attribute. Sets become frozensets; whole numbers become int."""
    for kind, value in attribute.items():
        match kind:
            case "S" | "BOOL":
                return value
            case "N":
                return to_number(value)
            case "NS":
                return frozenset(map(to_number, value))
            case "SS":
                return frozenset(value)
            case "M":
                return from_item(value)
            case "L":
                return [from_attribute(member) for member in value]
            case "NULL":
                return None
    raise TypeError(f"not an attribute that this project writes: {attribute!r}")


def from_item(row: Row) -> dict[str, Any]:
    """An item as plain values."""
    return {name: at["S"] if "S" in at else from_attribute(at) for name, at in row.items()}


def to_number(text: str) -> int | float:
    """A DynamoDB JSON number, as int when whole. Raises ValueError."""
    if text.removeprefix("-").isdecimal():
        return int(text)
    number = float(text)  # DynamoDB may write 100 as 1E+2
    return int(number) if number.is_integer() else number


def _members(row: Row, name: str) -> frozenset[Any]:
    return frozenset(from_attribute(row[name])) if name in row else frozenset()


# --- writes as parameters --------------------------------------------------------------------------------------------


def update_request(table: str, key: Mapping[str, str], write: Write) -> dict[str, Any]:
    """The write as UpdateItem parameters, which are also valid for an Update in TransactWriteItems."""
    terms = _Terms()
    clauses = []
    if write.set:
        clauses.append("SET " + ", ".join(f"{terms.name(a)} = {terms.value(v)}" for a, v in write.set.items()))
    if write.remove:
        clauses.append("REMOVE " + ", ".join(terms.name(a) for a in write.remove))
    if write.add:
        clauses.append("ADD " + ", ".join(f"{terms.name(a)} {terms.value(v)}" for a, v in write.add.items()))
    if write.discard:
        clauses.append("DELETE " + ", ".join(f"{terms.name(a)} {terms.value(v)}" for a, v in write.discard.items()))
    return {
        "TableName": table,
        "Key": to_item(key),
        "UpdateExpression": " ".join(clauses),
        **terms.conditions(write.when),
    }


def conditions(when: Iterable[Condition]) -> dict[str, Any]:
    """The conditions as parameters of PutItem and DeleteItem."""
    return _Terms().conditions(when)


class _Terms:
    """The placeholders of one request. Every name gets one: DynamoDB reserves 573 words, e.g. `name` and `views`."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def name(self, attribute: str) -> str:
        alias = f"#{attribute}"
        self._names[alias] = attribute
        return alias

    def value(self, given: Value) -> str:
        placeholder = f":{len(self._values)}"
        self._values[placeholder] = to_attribute(given)
        return placeholder

    def conditions(self, when: Iterable[Condition]) -> dict[str, Any]:
        """The conditions, and all names and values added so far, as the request's parameters."""
        terms = [self._condition(self.name(one.attribute), one) for one in when]
        parameters: dict[str, Any] = {"ConditionExpression": " AND ".join(terms)} if terms else {}
        if self._names:
            parameters["ExpressionAttributeNames"] = self._names
        if self._values:
            parameters["ExpressionAttributeValues"] = self._values
        return parameters

    def _condition(self, name: str, condition: Condition) -> str:
        match condition.test:
            case "missing":
                return f"attribute_not_exists({name})"
            case "exists":
                return f"attribute_exists({name})"
            case "lacks":
                return f"NOT contains({name}, {self.value(condition.value)})"
            case "missing or <" | "missing or <=" | "missing or <>" as either:
                compared = either.removeprefix("missing or ")
                return f"(attribute_not_exists({name}) OR {name} {compared} {self.value(condition.value)})"
            case compared:
                return f"{name} {compared} {self.value(condition.value)}"


# --- writes as PartiQL -----------------------------------------------------------------------------------------------

_COMPARED = ("=", "<", "<=", ">")
IN_PARTIQL = {"missing": "IS MISSING", "exists": "IS NOT MISSING", **{test: f"{test} ?" for test in _COMPARED}}
"""The Condition tests that PartiQL supports, in its syntax."""


def insert_statement(table: str, values: Mapping[str, Value]) -> dict[str, Any]:
    """A new item as an element of BatchExecuteStatement; refused when its key already exists."""
    return {"Statement": _insert(table, tuple(values)), "Parameters": [to_attribute(v) for v in values.values()]}


def update_statement(table: str, key: Mapping[str, str], write: Write, *, returning: bool = False) -> dict[str, Any]:
    """The write as an element of BatchExecuteStatement, where each statement succeeds or fails individually.

    Unlike UpdateItem it never creates an item. A refusal contains the existing item. With `returning`, the response
    contains the changed item, or for a removal the item before it, because DynamoDB reports the removal of an absent
    item as a success (Amazon DynamoDB Developer Guide, "PartiQL delete statements").

    Raises ValueError for sets, for additions to numbers, and for "missing or" and "lacks": those need UpdateItem.
    DynamoDB's PartiQL has set_add, set_delete, contains and OR, but moto has none of them, so such statements could not
    be tested without a cloud.
    """
    if write.add or write.discard:
        raise ValueError("statements here cannot add to numbers or change sets: use UpdateItem")
    tests = tuple((one.attribute, one.test) for one in write.when)
    parameters = [to_attribute(value) for value in write.set.values()]
    parameters += [{"S": value} for value in key.values()]
    parameters += [to_attribute(one.value) for one in write.when if one.test in _COMPARED]
    if write.delete:
        text = f'DELETE FROM "{table}" {_where(tuple(key), tests)} RETURNING ALL OLD *'  # noqa: S608 - our own names
    else:
        changes = _changes(tuple(write.set), write.remove)
        text = f'UPDATE "{table}" {changes} {_where(tuple(key), tests)}{" RETURNING ALL NEW *" if returning else ""}'
    return {"Statement": text, "Parameters": parameters, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


@lru_cache(maxsize=128)
def _insert(table: str, names: tuple[str, ...]) -> str:
    return f'INSERT INTO "{table}" VALUE {{{", ".join(f"'{name}': ?" for name in names)}}}'


@lru_cache(maxsize=128)
def _changes(set_: tuple[str, ...], remove: tuple[str, ...]) -> str:
    return " ".join([*(f'SET "{name}" = ?' for name in set_), *(f'REMOVE "{name}"' for name in remove)])


@lru_cache(maxsize=128)
def _where(key: tuple[str, ...], tests: tuple[tuple[str, str], ...]) -> str:
    terms = [f'"{name}" = ?' for name in key]
    for attribute, test in tests:
        if test not in IN_PARTIQL:
            raise ValueError(f"statements here do not support {test!r}: use UpdateItem")
        terms.append(f'"{attribute}" {IN_PARTIQL[test]}')
    return "WHERE " + " AND ".join(terms)
