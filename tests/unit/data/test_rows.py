"""A row's attributes as a repository needs them, or an error with the row's key and fault."""

import pytest

from nexus.aws.rows import BadRow, read_count


@pytest.mark.parametrize(
    ("attribute", "fault"),
    [
        (None, "is missing"),
        ({"S": "7"}, "not a number"),
        ({"N": "-1"}, "below zero"),
        ({"N": "1.5"}, "not a whole number"),
        ({"NULL": True}, "not a number"),
    ],
)
def test_an_invalid_count_is_named_with_its_key(attribute: dict[str, object] | None, fault: str) -> None:
    with pytest.raises(BadRow, match=f"^k: n .*{fault}"):
        read_count({} if attribute is None else {"n": attribute}, "n", "k")


def test_counts_that_dynamodb_writes_in_other_ways_are_read() -> None:
    assert read_count({"n": {"N": "1E+2"}}, "n", "k") == 100
    assert read_count({"n": {"N": "3.0"}}, "n", "k") == 3
    assert read_count({}, "n", "k", default=5) == 5
