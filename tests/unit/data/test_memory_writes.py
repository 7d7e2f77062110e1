"""Writes and filters have the same outcome in memory as in moto, for each condition and each item that it may meet."""

from collections.abc import Mapping
from itertools import product
from typing import Any, get_args

import pytest

from nexus.aws.dynamodb import Applied, Condition, Item, Outcome, Refused, Write, from_item
from nexus.aws.expressions import Given, ValidationError, condition, statement, update
from nexus.aws.sdk import client
from nexus.testing import in_memory
from social.data import users

ITEMS: tuple[Item, ...] = (
    {},
    {"n": 5},
    {"n": -1.5, "s": "5"},
    {"n": 2**60 + 1, "s": "a 5"},
    {"n": 2**60, "s": "six", "set": frozenset({5, 7})},
    {"s": "", "set": frozenset({1})},
)
TESTS = get_args(Condition.__dataclass_fields__["test"].type)


def outcome(item: Item | None, write: Write) -> tuple[Outcome, Item | None]:
    """The outcome of the write on an item, and the item after it."""
    if item is not None:
        users.TABLE.put({"user_id": "u", **item})
    made = users.TABLE.apply(write)
    left = users.TABLE.get({"user_id": "u"}, consistent=True)
    return made, None if left is None else from_item(left)


def same(database: None, item: Item | None, write: Write) -> tuple[Outcome, Item | None]:
    """The outcome, which must be the same in moto and in memory."""
    users.TABLE.delete("u")
    in_moto = outcome(item, write)
    with in_memory():
        here = outcome(item, write)
    assert here == in_moto, (item, write)
    return here


@pytest.mark.parametrize("test", TESTS)
def test_a_condition_holds_for_the_same_items_in_memory_and_in_moto(database: None, test: Any) -> None:
    attribute = "set" if test == "lacks" else "n"
    held = {
        isinstance(
            same(database, item, Write("u", set={"z": 1}, when=(Condition(attribute, test, value),)))[0], Applied
        )
        for item, value in product((None, *ITEMS), (5, 2**60, -2))
    }
    assert held == {True, False}, "some items meet it and others do not"


@pytest.mark.parametrize("how", ["=", "<", "<=", ">", ">=", "<>"])
def test_values_of_different_types_are_unequal_and_have_no_order(how: str) -> None:
    """As DynamoDB compares them; moto fails."""
    compared = condition(f"#x {how} :x")({"x": {"S": "5"}}, Given({"#x": "x"}, {":x": {"N": "5"}}))
    assert compared is (how == "<>")


@pytest.mark.parametrize(
    ("item", "write", "after"),
    [
        ({"x": 2**60 + 1}, Write("u", add={"x": 1}), {"x": 2**60 + 2}),
        ({"x": 0.1}, Write("u", add={"x": 1}), {"x": 1.1}),
        ({"x": 1.5}, Write("u", add={"x": -1}), {"x": 0.5}),
        ({}, Write("u", add={"x": 3}), {"x": 3}),
        ({"x": frozenset({1})}, Write("u", add={"x": frozenset({1, 2})}), {"x": frozenset({1, 2})}),
        ({"x": frozenset({1, 2})}, Write("u", discard={"x": frozenset({2, 3})}), {"x": frozenset({1})}),
        ({"x": frozenset({1})}, Write("u", discard={"x": frozenset({1})}), {}),
        ({"y": 1}, Write("u", discard={"x": frozenset({1})}), {"y": 1}),
        ({"x": 1, "y": 2}, Write("u", set={"x": [1, {"a": None}]}, remove=("y", "z")), {"x": [1, {"a": None}]}),
    ],
    ids=str,
)
def test_an_update_leaves_the_same_item_in_memory_and_in_moto(
    database: None, item: Item, write: Write, after: Mapping[str, Any]
) -> None:
    left = {"user_id": "u", **after}
    assert same(database, item, write) == (Applied(left), left)


def test_an_insert_is_refused_with_the_existing_item(database: None) -> None:
    made, _ = same(database, {"x": 1}, Write("u", set={"x": 2}, insert=True))
    assert made == Refused({"user_id": "u", "x": 1})


@pytest.mark.parametrize(
    "filters",
    ["contains(#s, :text)", "NOT contains(#s, :text)", "#n BETWEEN :low AND :high", "#n > :high OR #s <> :text"],
)
def test_a_filter_keeps_the_same_items_in_memory_and_in_moto(database: None, filters: str) -> None:
    values = {":text": {"S": "5"}, ":low": {"N": "-2"}, ":high": {"N": "5"}}
    request: dict[str, Any] = {
        "FilterExpression": filters,
        "ExpressionAttributeNames": {f"#{name}": name for name in "ns" if f"#{name}" in filters},
        "ExpressionAttributeValues": {name: value for name, value in values.items() if name in filters},
    }

    def kept() -> set[str]:
        users.TABLE.put_many([{"user_id": f"u{n}", **item} for n, item in enumerate(ITEMS)])
        page = client("dynamodb").scan(TableName=users.TABLE.name, **request)
        return {item["user_id"]["S"] for item in page["Items"]}

    in_moto = kept()
    with in_memory():
        assert kept() == in_moto
    assert 0 < len(in_moto) < len(ITEMS)


@pytest.mark.parametrize(
    ("compile", "text", "fault"),
    [
        (condition, "#x =", "ends too early"),
        (condition, "#x LIKE :x", "LIKE is not a comparison"),
        (condition, "attribute_exists #x", r"\( is missing"),
        (condition, "#x = :x :y", "unexpected"),
        (condition, "#x = ;", "cannot be read from"),
        (update, "PUT #x = :x", "not an update"),
        (update, "SET #x :x", "= is missing"),
        (statement, 'DELETE FROM "t" WHERE "k" = ? RETURNING ALL NEW *', "OLD is missing"),
    ],
)
def test_an_expression_that_dynamodb_would_refuse_is_refused(compile: Any, text: str, fault: str) -> None:  # noqa: A002
    with pytest.raises(ValidationError, match=fault):
        compile(text)


@pytest.mark.parametrize("missing", ["#x", ":x"])
def test_a_placeholder_without_a_value_is_named(missing: str) -> None:
    given = Given({"#x": "x"}, {":x": {"N": "1"}})
    given = Given({}, given.values) if missing == "#x" else Given(given.names, {})
    with pytest.raises(ValidationError, match=f"is not defined.*{missing}"):
        condition("#x = :x")({"x": {"N": "1"}}, given)
