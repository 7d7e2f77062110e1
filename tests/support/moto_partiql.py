"""Adds DynamoDB's conditional PartiQL to moto.

Each statement of a batch goes through moto's own PutItem, UpdateItem or DeleteItem, and fails or succeeds by itself.
"""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from moto.dynamodb.exceptions import ConditionalCheckFailed
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import Item

from nexus.aws.dynamodb import Condition, Write, conditions, from_attribute, from_item, update_request
from tests.support import partiql
from tests.support.partiql import Statement


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installs it for the duration of a test."""
    monkeypatch.setattr(DynamoDBBackend, "batch_execute_statement", _batch_execute_statement)


def _batch_execute_statement(backend: DynamoDBBackend, statements: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = {name: (table.hash_key_attr, table.range_key_attr) for name, table in backend.tables.items()}
    return [_execute(backend, partiql.read(one["Statement"], one["Parameters"], keys), one) for one in statements]


def _execute(backend: DynamoDBBackend, statement: Statement, asked: dict[str, Any]) -> dict[str, Any]:
    table, there = statement.table, backend.get_table(statement.table).hash_key_attr
    if statement.verb == "INSERT":
        if backend.get_item(table, statement.set) is not None:
            return {"Error": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"}}
        backend.put_item(table, statement.set)
        return {"TableName": table}
    when = [Condition(there, "exists")]
    for name, test, value in statement.when:
        when.append(Condition(name, cast("Any", test), None if value is None else from_attribute(value)))
    try:
        if statement.verb == "DELETE":
            before = backend.get_item(table, statement.key)
            if before is None:
                return {"TableName": table}
            only = conditions(when)
            names, values = only["ExpressionAttributeNames"], only.get("ExpressionAttributeValues")
            backend.delete_item(table, statement.key, names, values, only["ConditionExpression"])
            return _respond(statement, before)
        key = from_item(statement.key)
        write = Write(key, from_item(statement.set), statement.remove, when=tuple(when))
        request = update_request(table, key, write)
        item = backend.update_item(
            table,
            statement.key,
            request["UpdateExpression"],
            request["ExpressionAttributeNames"],
            request.get("ExpressionAttributeValues", {}),
            condition_expression=request["ConditionExpression"],
        )
    except ConditionalCheckFailed:
        existing = backend.get_item(table, statement.key)
        error = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
        returns_old = existing is not None and asked.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
        return {"Error": error | {"Item": existing.to_json()["Attributes"]} if returns_old and existing else error}
    return _respond(statement, item)


def _respond(statement: Statement, item: Item) -> dict[str, Any]:
    returns_old = {"Item": item.to_json()["Attributes"]} if statement.returning else {}
    return {"TableName": statement.table, **returns_old}
