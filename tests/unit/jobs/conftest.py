"""The jobs over the data run against moto, filled by the demo data's generator and emptied between two examples."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import s3_backends

from nexus import sweep
from tests.support import moto_partiql, sandboxes
from tests.support.template import ACCOUNT, REGION

settings.register_profile(
    "jobs",
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # a seed does not shrink to a smaller network
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
jobs = settings.get_profile("jobs")


@pytest.fixture
def empty(cloud: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The deployment's tables and buckets, and jobs cut into small segments; call it to empty everything again."""
    moto_partiql.install(monkeypatch)
    sandboxes.no_sleep(monkeypatch)
    monkeypatch.setattr(sweep, "SEGMENT_BYTES", 3000)

    def clear() -> None:
        for table in dynamodb_backends[ACCOUNT][REGION].tables.values():
            table.items.clear()
        for bucket in s3_backends[ACCOUNT]["aws"].buckets.values():
            bucket.keys.clear()

    return clear
