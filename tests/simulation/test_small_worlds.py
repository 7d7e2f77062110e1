"""Explores small worlds exhaustively: every order of the requests of two sandboxes, every place for a fault."""

import pytest

from tests.simulation.exhaustive import explore
from tests.simulation.small_worlds import SCOPES, Tell


@pytest.mark.parametrize(
    ("tell", "kinds", "at_most"), SCOPES, ids=lambda value: getattr(value, "__name__", None) or str(value)
)
def test_no_history_of_a_small_world_violates_an_invariant(tell: Tell, kinds: tuple[str, ...], at_most: int) -> None:
    explored = explore(tell, kinds, at_most=at_most)

    assert explored.complete
    assert explored.states > 50
    assert not explored.faults
