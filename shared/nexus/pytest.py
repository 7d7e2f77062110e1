"""A pytest plugin: every test gets its own tasks, tables, buckets, mail and time, in memory. See `nexus.testing`.

    def test_a_new_user_registers(nexus_tasks, client):
        client.post("/register", data={"email": "ada@example.com"})
        nexus_tasks.assert_sent(send_welcome_email)

pytest finds it by its entry point where the package is installed; elsewhere use `-p nexus.pytest`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nexus.testing import Tasks


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker."""
    config.addinivalue_line(
        "markers", "nexus_aws: the test uses a deployment, such as the local cloud, instead of memory"
    )


@pytest.fixture(autouse=True)
def nexus_tasks(request: pytest.FixtureRequest) -> Iterator["Tasks | None"]:
    """The tasks that this test sends, with methods to run them; None for a test marked `nexus_aws`."""
    if request.node.get_closest_marker("nexus_aws"):
        yield None
        return
    from nexus.testing import in_memory

    with in_memory() as tasks:
        yield tasks
