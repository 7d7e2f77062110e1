"""Unit tests: AWS is moto, built from template.yaml; nothing opens a socket."""

import os
from collections.abc import Iterator

import pytest
from pytest_socket import disable_socket

from nexus import backend
from ops import aws
from tests.support import moto_cloud, rights

OF_THE_TESTS = ("NEXUS_CLIENT", "NEXUS_CLOUD_FOLDER", "NEXUS_COVERAGE", "NEXUS_RIGHTS", "NEXUS_WRITE_TABLE")
OF_A_PERSON = ("COLUMNS", "EDITOR", "FORCE_COLOR", "LINES", "NO_COLOR", "VISUAL")


@pytest.fixture(scope="session", autouse=True)
def _no_variables_of_the_shell() -> Iterator[None]:
    """Hides the deployment that `nexus env`, for example, has set, the proxy, and what concerns the terminal."""
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ).difference(OF_THE_TESTS):
            if name in OF_A_PERSON or name.startswith(("AWS_", "NEXUS_")) or name.upper().endswith("_PROXY"):
                patch.delenv(name)
        patch.setenv("TERM", "xterm-256color")
        yield


@pytest.fixture(autouse=True)
def _no_network() -> None:
    disable_socket(allow_unix_socket=True)


def pytest_sessionfinish() -> None:
    """The requests, for `make rights` (tests/rights.py)."""
    rights.save("unit")


@pytest.fixture(autouse=True)
def asked(request: pytest.FixtureRequest) -> Iterator[rights.Note]:
    """Checks each request of the product against its role; records those that botocore did not make."""
    if "runtime" in request.path.parts:  # its own catalogue, which no role of template.yaml serves
        yield lambda *_: None
        return
    with rights.checked() as note:
        yield note


@pytest.fixture(autouse=True)
def _own_variables() -> Iterator[None]:
    """Restores environment variables, settings and timeouts after each test, whatever the code under test sets."""
    before = dict(os.environ)
    patience = dict(aws._patience)
    yield
    aws._patience.update(patience)
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)
    backend.reset()


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
