"""Schedules from seeds: whatever goes wrong in them, the invariants of `tests.simulation.invariants` hold.

NEXUS_SCHEDULES sets their number; `make simulate` runs a million. A failure prints the command that replays it, request
by request.
"""

import os
from collections import Counter

import pytest

from tests.simulation.scenarios import KINDS
from tests.simulation.simulate import BLOCK, faults_of, survey

SCHEDULES = int(os.environ.get("NEXUS_SCHEDULES", "50000"))


@pytest.mark.parametrize("first", range(0, SCHEDULES, BLOCK))
def test_no_schedule_violates_an_invariant(first: int) -> None:
    found = survey(range(first, min(first + BLOCK, SCHEDULES)))

    assert not found.kinds, str(found)


@pytest.mark.parametrize(
    "seed",
    [
        *(79_823, 114_485, 117_167, 131_319, 139_410, 182_867, 271_708, 409_123, 488_791, 563_735),
        *(665_934, 695_817, 927_451, 94_511),
    ],
)
def test_a_schedule_that_once_violated_an_invariant_violates_none(seed: int) -> None:
    found, _ = faults_of(seed)

    assert found == []


def test_a_seed_always_gives_the_same_history() -> None:
    for seed in range(20):
        (_, once), (_, again) = faults_of(seed, trace=True), faults_of(seed, trace=True)

        assert once.world.trace == again.world.trace


def test_the_schedules_cause_every_kind_of_fault_and_every_outcome() -> None:
    befallen, ends = Counter[str](), Counter[str]()
    for seed in range(400):
        _, story = faults_of(seed, trace=True)
        assert story.world.trace is not None
        befallen.update(line.rpartition("FAULT ")[2] for line in story.world.trace if " FAULT " in line)
        items = story.world.dynamo.items.values()
        ends.update(item["status"]["S"] for item in items if "status" in item and "task" in item)

    assert befallen.keys() == KINDS.keys()
    assert min(befallen.values()) > 5
    assert ends["SUCCESS"] > 400
    assert ends["FAILURE"] > 20
    assert ends["REVOKED"] > 10
