"""Gives moto the conditional PartiQL that DynamoDB has.

Each UPDATE or DELETE of a batch goes through moto's own UpdateItem or DeleteItem with the WHERE's conditions, and fails
or succeeds by itself.
"""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from moto.dynamodb.exceptions import ConditionalCheckFailed
from moto.dynamodb.models import DynamoDBBackend

_STATEMENT = re.compile(r'(?:UPDATE|DELETE FROM) "(?P<table>[^"]+)" ?(?P<changes>.*?) ?WHERE (?P<where>.*)$')
_CHANGE = re.compile(r'SET "(?P<set>[^"]+)" = \?|REMOVE "(?P<remove>[^"]+)"')
_TERM = re.compile(r'"(?P<name>[^"]+)" (?P<operator>=|<=|<|>|IS MISSING|IS NOT MISSING)(?: \?)?')


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the length of a test."""
    monkeypatch.setattr(DynamoDBBackend, "batch_execute_statement", _batch_execute_statement)


def _batch_execute_statement(backend: DynamoDBBackend, statements: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_execute(backend, one["Statement"], list(one.get("Parameters", ()))) for one in statements]


def _execute(backend: DynamoDBBackend, text: str, parameters: list[Any]) -> dict[str, Any]:
    statement = _STATEMENT.match(text)
    assert statement, text
    table = backend.get_table(statement["table"])
    names: dict[str, str] = {}
    values: dict[str, Any] = {}

    def name(attribute: str) -> str:
        names[f"#{attribute}"] = attribute
        return f"#{attribute}"

    def value() -> str:
        placeholder = f":v{len(values)}"
        values[placeholder] = parameters.pop(0)
        return placeholder

    sets, removes = [], []
    for change in _CHANGE.finditer(statement["changes"]):
        if change["set"]:
            sets.append(f"{name(change['set'])} = {value()}")
        else:
            removes.append(name(change["remove"]))
    key: dict[str, Any] = {}
    conditions = [f"attribute_exists({name(table.hash_key_attr)})"]
    for term in _TERM.finditer(statement["where"]):
        attribute, operator = term["name"], term["operator"]
        if attribute in (table.hash_key_attr, table.range_key_attr):
            key[attribute] = parameters.pop(0)
        elif operator.startswith("IS"):
            function = "attribute_not_exists" if operator == "IS MISSING" else "attribute_exists"
            conditions.append(f"{function}({name(attribute)})")
        else:
            conditions.append(f"{name(attribute)} {operator} {value()}")
    assert not parameters, (text, parameters)
    condition = " AND ".join(conditions)
    try:
        if sets or removes:
            update = " ".join(
                part
                for part in (
                    "SET " + ", ".join(sets) if sets else "",
                    "REMOVE " + ", ".join(removes) if removes else "",
                )
                if part
            )
            backend.update_item(statement["table"], key, update, names, values, condition_expression=condition)
        else:
            backend.delete_item(statement["table"], key, names, values, condition)
    except ConditionalCheckFailed:
        return {"Error": {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}}
    return {"TableName": statement["table"]}
