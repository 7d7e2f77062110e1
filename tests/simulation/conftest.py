"""Installs the simulation once per module: the tests' own catalogue, the world's clock, no network."""

from collections.abc import Iterator

import pytest

from tests.simulation.simulate import machinery


@pytest.fixture(scope="module", autouse=True)
def simulation() -> Iterator[None]:
    with machinery():
        yield
