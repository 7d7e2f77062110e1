"""What tests of the operator's commands share."""

import io
from datetime import UTC, datetime

import pytest

from nexus.settings import settings
from ops import audit, catalogue, deployment
from ops.deployment import Choice, Deployment
from social.catalogue import QUEUES
from tests.support import moto_cloud


class Tty(io.StringIO):
    """A terminal: what a person types, or what they are shown."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def emptied(deployment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's stack in moto, empty, and its catalogue; made once for a module."""
    moto_cloud.clear()
    monkeypatch.setenv("NEXUS_CATALOGUE", "social.catalogue")
    settings.cache_clear()
    catalogue.use("social.catalogue", tuple(QUEUES))


@pytest.fixture
def network(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack of the network in an account, to which each command connects; its operator is ada."""
    urls = {f"{queue.title()}QueueUrl": f"https://sqs/1/nexus-test-{queue}" for queue in QUEUES}
    tags, now = {"Stage": "dev"}, datetime.now(UTC)
    where = Deployment("nexus-test", "UPDATE_COMPLETE", "eu-west-1", "1" * 12, tags, now, outputs=urls)

    def connect(_: Choice) -> Deployment:
        catalogue.use("social.catalogue", tuple(QUEUES))
        return where

    monkeypatch.setattr(deployment, "connect", connect)
    monkeypatch.setattr(audit, "_who", lambda: "ada")
