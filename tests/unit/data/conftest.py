"""The repositories run against moto; for units, pages and throttling, which it lacks, against the bench's stand-in."""

from collections.abc import Iterator

import pytest

from bench.jobs import stand_in
from bench.jobs.stand_in import StandIn
from tests.support import moto_cloud, sandboxes


@pytest.fixture
def database(deployment: None) -> None:
    """The deployment's tables in moto, empty."""
    moto_cloud.clear()


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The deployment's tables in the stand-in, which meters, pages at 1 MB, throttles and partly processes batches."""
    sandboxes.no_sleep(monkeypatch)
    with moto_cloud.environment(), StandIn(stand_in.tables().values(), seed=1).installed() as cloud:
        yield cloud
