"""The benchmarks' stand-in for DynamoDB responds to Scan and Query as DynamoDB does."""

from typing import Any

import pytest

from bench.jobs.stand_in import StandIn, Table

ROWS = [{"user_id": {"S": "u"}, "day": {"S": day}, "likes": {"N": "3"}} for day in ("1", "2", "3")]
VALUES = {
    "ExpressionAttributeNames": {"#day": "day"},
    "ExpressionAttributeValues": {":p": {"S": "u"}, ":d": {"S": "2"}},
}


@pytest.mark.parametrize("operation", ["Scan", "Query"])
def test_counts_filters_and_pages(operation: str) -> None:
    table = Table("days", ("user_id", "day"), ())
    table.load(ROWS)

    def respond(**options: Any) -> dict[str, Any]:
        response = dict(StandIn([table]).respond(operation, {"TableName": "days", **VALUES, **options}))
        assert response.pop("ConsumedCapacity") == {"CapacityUnits": 0.5}
        return response

    assert respond() == {"Items": ROWS, "Count": 3, "ScannedCount": 3}
    assert respond(Select="COUNT") == {"Count": 3, "ScannedCount": 3}
    kept = {"Count": 2, "ScannedCount": 3}
    assert respond(FilterExpression="#day >= :d") == {"Items": ROWS[1:], **kept}
    assert respond(FilterExpression="#day >= :d", Select="COUNT") == kept
    last = {"user_id": {"S": "u"}, "day": {"S": "2"}}
    assert respond(Limit=2) == {"Items": ROWS[:2], "Count": 2, "ScannedCount": 2, "LastEvaluatedKey": last}
    assert respond(ExclusiveStartKey=last) == {"Items": ROWS[2:], "Count": 1, "ScannedCount": 1}
