"""Values to and from DynamoDB's JSON."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.jobs.stand_in import item_size
from nexus.aws.dynamodb import from_attribute, from_item, to_attribute, to_item

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.text(max_size=20)
    | st.frozensets(st.integers(0, 10**6), min_size=1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(min_size=1, max_size=8), plain, max_size=5))
def test_values_survive_a_round_trip_through_dynamodbs_json(values: dict[str, object]) -> None:
    item = to_item(values)  # type: ignore[arg-type]
    assert from_item(item) == values
    assert item_size(item) >= len("".join(values))


@given(st.floats(-1e6, 1e6))
def test_a_float_keeps_six_decimals(value: float) -> None:
    assert float(from_attribute(to_attribute(value))) == pytest.approx(value, abs=5e-7)
