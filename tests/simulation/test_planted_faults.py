"""Each planted fault is found, in a small world or by schedules that pass without it."""

import pytest

from tests.simulation.exhaustive import explore
from tests.simulation.planted import FAULTS, Fault, planted
from tests.simulation.simulate import faults_of
from tests.simulation.small_worlds import SCOPES

BUDGET = 10_000
"""Schedules within which a fault is found; most are within the first hundred."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.promise)
def test_a_planted_fault_is_found(fault: Fault) -> None:
    if fault.found_in:
        (scope,) = (scope for scope in SCOPES if scope[0].__name__ == fault.found_in)
        with planted(fault):
            assert explore(scope[0], scope[1], at_most=scope[2], until_found=True).faults
        return
    seeds = range(fault.first, fault.first + BUDGET)
    assert any(_shows(fault, seed) for seed in seeds), f"not found in {BUDGET} schedules"


def _shows(fault: Fault, seed: int) -> bool:
    """Whether the seed shows the fault, and passes without it."""
    with planted(fault):
        found, _ = faults_of(seed)
    return bool(found) and not faults_of(seed)[0]


def test_at_least_twenty_faults_are_planted() -> None:
    assert len({fault.promise for fault in FAULTS}) == len(FAULTS) >= 20
