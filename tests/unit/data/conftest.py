"""The repositories run against moto; where moto is too kind (unprocessed items, paging, units), the bench's stand-in."""

from collections.abc import Iterator

import pytest

from bench.jobs import stand_in
from bench.jobs.stand_in import StandIn
from tests.support import moto_partiql, sandboxes
from tests.support.template import STACK, resolved, resources


@pytest.fixture
def database(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deployment's tables in moto, with conditional PartiQL."""
    moto_partiql.install(monkeypatch)
    sandboxes.no_sleep(monkeypatch)


@pytest.fixture
def strict(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The deployment's tables in the stand-in, which meters, pages at 1 MB, throttles and leaves batches half done."""
    sandboxes.no_sleep(monkeypatch)
    schemas = {name: resolved(body["Properties"]) for name, body in resources("AWS::DynamoDB::Table").items()}
    cloud = StandIn(stand_in.tables(STACK, schemas), seed=1)
    with cloud.installed():
        yield cloud
