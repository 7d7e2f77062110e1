"""Unit tests: AWS is moto, built from template.yaml; nothing opens a socket."""

from collections.abc import Iterator

import pytest
from pytest_socket import disable_socket

from tests.support import moto_cloud


@pytest.fixture(autouse=True)
def _no_network() -> None:
    disable_socket(allow_unix_socket=True)


@pytest.fixture
def environment() -> Iterator[None]:
    """The two variables of a deployment, and none of the machine's own AWS settings."""
    with moto_cloud.environment():
        yield


@pytest.fixture
def cloud() -> Iterator[None]:
    """Every table, queue and bucket of template.yaml, in moto."""
    with moto_cloud.deployment():
        yield


@pytest.fixture(scope="module")
def deployment() -> Iterator[None]:
    """The same once for a module of tests, which empty it themselves (`moto_cloud.clear`)."""
    with moto_cloud.deployment():
        yield
