"""DynamoDB's language: values as its JSON, and conditional writes as UpdateItem's parameters or as PartiQL.

Nothing here makes a request: `nexus.backend.store` does for the run table, `nexus.aws.table` for the network's own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

type Attribute = Mapping[str, Any]
type Item = Mapping[str, Attribute]
type Value = str | int | float | bool | frozenset[int] | Sequence["Value"] | Mapping[str, "Value"] | None

ITEMS_PER_READ = 100
STATEMENTS_PER_REQUEST = 25


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold for a write to happen: `attribute` `test` `value`, where `lacks` asks a set for a member.

    An absent attribute holds `missing`, `missing or ...` and `lacks` alone.
    """

    attribute: str
    test: Literal["=", "<", "<=", ">", "missing", "missing or <", "missing or <=", "exists", "lacks"]
    value: Value = None


def equals(attribute: str, value: Value) -> Condition:
    """The attribute has this value; with None, it is absent."""
    return Condition(attribute, "missing") if value is None else Condition(attribute, "=", value)


def unchanged(item: Item, *attributes: str) -> tuple[Condition, ...]:
    """The attributes are still what was read in `item`."""
    return tuple(
        Condition(name, "=", from_attribute(item[name])) if name in item else Condition(name, "missing")
        for name in attributes
    )


@dataclass(frozen=True, slots=True)
class Change:
    """One update of the item at `key`, if every condition of `when` holds.

    `add` adds to numbers, absent ones counting as 0, and members to sets; `discard` takes members from sets.
    """

    key: Mapping[str, str]
    set: Mapping[str, Value] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    add: Mapping[str, int | frozenset[int]] = field(default_factory=dict)
    discard: Mapping[str, frozenset[int]] = field(default_factory=dict)
    when: tuple[Condition, ...] = ()


# --- values ----------------------------------------------------------------------------------------------------------


def to_attribute(value: Value) -> dict[str, Any]:
    """A value in DynamoDB's JSON."""
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case float():
            # DynamoDB takes no exponent beyond 125, as repr may write; times, ranks and rates need six decimals.
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
    """An item of plain values in DynamoDB's JSON."""
    return {name: to_attribute(value) for name, value in values.items()}


def from_attribute(attribute: Attribute) -> Any:
    """The plain value of an attribute; sets come as frozensets, numbers as int where they are whole."""
    for kind, value in attribute.items():
        match kind:
            case "S" | "BOOL":
                return value
            case "N":
                return number(value)
            case "NS":
                return frozenset(map(number, value))
            case "SS":
                return frozenset(value)
            case "M":
                return from_item(value)
            case "L":
                return [from_attribute(member) for member in value]
            case "NULL":
                return None
    raise TypeError(f"not an attribute that this project writes: {attribute!r}")


def from_item(item: Item) -> dict[str, Any]:
    """An item as plain values."""
    return {name: from_attribute(attribute) for name, attribute in item.items()}


def number(text: str) -> int | float:
    """A number of DynamoDB's JSON, int where it is whole. Raises ValueError."""
    try:
        return int(text)
    except ValueError:
        number = float(text)  # DynamoDB may write 1E+2 for 100
        return int(number) if number.is_integer() else number


# --- writes as parameters --------------------------------------------------------------------------------------------


def update_request(table: str, change: Change) -> dict[str, Any]:
    """The change as UpdateItem's parameters, which are also those of an Update in TransactWriteItems."""
    terms = _Terms()
    clauses = []
    if change.set:
        clauses.append("SET " + ", ".join(f"{terms.name(a)} = {terms.value(v)}" for a, v in change.set.items()))
    if change.remove:
        clauses.append("REMOVE " + ", ".join(terms.name(a) for a in change.remove))
    if change.add:
        clauses.append("ADD " + ", ".join(f"{terms.name(a)} {terms.value(v)}" for a, v in change.add.items()))
    if change.discard:
        clauses.append("DELETE " + ", ".join(f"{terms.name(a)} {terms.value(v)}" for a, v in change.discard.items()))
    return {
        "TableName": table,
        "Key": to_item(change.key),
        "UpdateExpression": " ".join(clauses),
        **terms.conditions(change.when),
    }


def conditions(when: Iterable[Condition]) -> dict[str, Any]:
    """The conditions as parameters of PutItem and DeleteItem."""
    return _Terms().conditions(when)


class _Terms:
    """The placeholders of one request. Every name has one: DynamoDB reserves 573 words, `name` and `views` are two."""

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
        """The conditions, and all names and values seen so far, as the request's parameters."""
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
            case "missing or <" | "missing or <=" as either:
                compared = either.removeprefix("missing or ")
                return f"(attribute_not_exists({name}) OR {name} {compared} {self.value(condition.value)})"
            case compared:
                return f"{name} {compared} {self.value(condition.value)}"


# --- writes as PartiQL -----------------------------------------------------------------------------------------------

_COMPARED = ("=", "<", "<=", ">")
IN_PARTIQL = {"missing": "IS MISSING", "exists": "IS NOT MISSING", **{test: f"{test} ?" for test in _COMPARED}}
"""The tests of a Condition that PartiQL has, as it says them."""


def insert_statement(table: str, values: Mapping[str, Value]) -> dict[str, Any]:
    """A new item as an element of BatchExecuteStatement: refused when there is one at its key."""
    return {"Statement": _insert(table, tuple(values)), "Parameters": [to_attribute(v) for v in values.values()]}


def update_statement(table: str, change: Change, *, returning: bool = False) -> dict[str, Any]:
    """The change as an element of BatchExecuteStatement, where each stands or falls by itself.

    Unlike UpdateItem it never makes an item; with nothing to set or remove, it removes the item. `returning`: its
    answer holds the item, as changed or as it stands in the way. Raises ValueError for what PartiQL cannot say.
    """
    if change.add or change.discard:
        raise ValueError("PartiQL knows no sets, and adds to nothing that may be absent: use UpdateItem")
    tests = tuple((one.attribute, one.test) for one in change.when)
    parameters = [to_attribute(value) for value in change.set.values()]
    parameters += [{"S": value} for value in change.key.values()]
    parameters += [to_attribute(one.value) for one in change.when if one.test in _COMPARED]
    text = _update(table, tuple(change.key), tuple(change.set), change.remove, tests)
    if returning:
        told = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        return {"Statement": f"{text} RETURNING ALL NEW *", "Parameters": parameters, **told}
    return {"Statement": text, "Parameters": parameters}


@lru_cache(maxsize=128)
def _insert(table: str, names: tuple[str, ...]) -> str:
    return f'INSERT INTO "{table}" VALUE {{{", ".join(f"'{name}': ?" for name in names)}}}'


@lru_cache(maxsize=128)
def _update(
    table: str, key: tuple[str, ...], set_: tuple[str, ...], remove: tuple[str, ...], tests: tuple[tuple[str, str], ...]
) -> str:
    where = [f'"{name}" = ?' for name in key]
    for attribute, test in tests:
        if test not in IN_PARTIQL:
            raise ValueError(f"PartiQL, as it is emulated, has no {test}: use UpdateItem")
        where.append(f'"{attribute}" {IN_PARTIQL[test]}')
    changes = [*(f'SET "{name}" = ?' for name in set_), *(f'REMOVE "{name}"' for name in remove)]
    if not changes:
        return f'DELETE FROM "{table}" WHERE {" AND ".join(where)}'  # noqa: S608 - names are this package's own
    return f'UPDATE "{table}" {" ".join(changes)} WHERE {" AND ".join(where)}'
