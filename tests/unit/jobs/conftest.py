"""The jobs run against moto, which the demo data's generator fills and which is emptied between examples."""

from collections.abc import Callable

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st

from ops.social.seed import Network, generate, write
from social import sweep
from tests.support import moto_cloud

settings.register_profile(
    "jobs",
    max_examples=6,
    phases=[Phase.explicit, Phase.generate],  # a seed does not shrink to a smaller network
)
jobs = settings.get_profile("jobs")


NOW = 1_800_000_000
seeds = st.integers(0, 10_000)
type Filled = Callable[..., Network]


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)


@pytest.fixture
def empty(deployment: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Empty tables and buckets, and jobs cut into small segments; call it to empty everything again."""
    monkeypatch.setattr(sweep, "SEGMENT_BYTES", 3000)
    moto_cloud.clear()
    return moto_cloud.clear


@pytest.fixture
def filled(empty: Callable[[], None]) -> Filled:
    """Empties everything, and fills it with the network of this many users and a seed."""

    def fill(people: int, seed: int, now: int = NOW) -> Network:
        empty()
        network = generate(people, seed, now)
        write(network, now)
        return network

    return fill
