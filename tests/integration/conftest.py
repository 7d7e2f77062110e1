"""Integration tests: parts of the project together, on the local cloud that `make up` has started and deployed to."""

import os

import pytest

from ops import checkout
from tests.support.stack import outputs, post, stack

__all__ = ["outputs", "post", "stack"]


@pytest.fixture(scope="session")
def cloud() -> checkout.Cloud:
    """The running local cloud. AWS clients made without arguments talk to it."""
    running = checkout.running()
    assert running is not None, "the local cloud is not running: `make up`"
    return running


@pytest.fixture(autouse=True)
def _point_at_the_cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("NEXUS_ON_AWS"):  # dev/e2e_aws.py
        return
    cloud: checkout.Cloud = request.getfixturevalue("cloud")
    for name, value in cloud.exports().items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
