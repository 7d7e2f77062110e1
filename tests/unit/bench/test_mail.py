"""The benchmark of mail counts what the digest does, and nothing that the benchmark itself reads."""

import gc
import logging
from collections.abc import Iterator

import pytest

from bench.jobs import network
from bench.mail.__main__ import measure
from social.data import posts


@pytest.fixture
def _restored(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undoes what the benchmark changes for its whole process."""
    monkeypatch.setattr(network, "FOLLOWS", network.FOLLOWS)
    yield
    logging.disable(logging.NOTSET)
    gc.unfreeze()


@pytest.mark.usefixtures("_restored")
def test_each_shard_of_the_feed_is_counted_once() -> None:
    one = measure(200)
    assert one.considered == one.sent > 0
    assert one.requests["Query"] == one.sent + posts.FEED_SHARDS, "whom each reader follows, and a page of each shard"
