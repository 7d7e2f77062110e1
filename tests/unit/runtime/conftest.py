"""The runtime's unit tests: what is sent stays in memory until a test runs it."""

from collections.abc import Iterator

import pytest

from nexus.testing import SentTasks, memory_backend


@pytest.fixture
def tasks() -> Iterator[SentTasks]:
    """The tasks that the test sends."""
    with memory_backend() as sent:
        yield sent
