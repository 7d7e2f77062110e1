"""The messages that a job sends to itself match those that its catalogue entry accepts."""

import typing

import pytest

from nexus.registry import registry
from tests.support import network

WITH_PARTS = sorted(name for name, task in network.tasks().items() if task.part is not None)


def members(model: object) -> set[object]:
    """A model, or the models of a union."""
    return set(typing.get_args(model)) or {model}


@pytest.mark.parametrize("name", WITH_PARTS)
def test_the_catalogue_has_each_part_that_the_job_takes(name: str) -> None:
    function = registry.implementation(name).part
    assert function is not None
    taken = members(typing.get_type_hints(function)["args"])
    assert members(network.tasks()[name].part) == taken
