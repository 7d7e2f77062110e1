"""Where runs are stored and how messages travel, as one replaceable pair: AWS, or this process's memory.

Belongs here: the store and transport interfaces and their implementations. Does not belong here: what a run record or a
message means.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

from nexus.backend.store import DynamoStore, Store
from nexus.backend.transport import SqsTransport, Transport
from nexus.errors import ConfigurationError
from nexus.settings import settings


class Backend(NamedTuple):
    """A store and a transport."""

    store: Store
    transport: Transport


_replaced: list[Backend] = []


def backend() -> Backend:
    """The current pair: the one that a test has set, else the one of the module that NEXUS_BACKEND names, else AWS.

    `NEXUS_BACKEND=nexus.eager` runs tasks in this process. Raises ConfigurationError if the module has no backend.
    """
    return _replaced[-1] if _replaced else _from_environment()


@lru_cache(maxsize=1)
def _from_environment() -> Backend:
    name = settings().backend
    if not name:
        return Backend(DynamoStore(), SqsTransport())
    try:
        make: Callable[[], Backend] = importlib.import_module(name).make_backend
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"NEXUS_BACKEND is {name!r}, which is not a module with a make_backend(): {error}"
        ) from error
    return make()


@contextmanager
def use(replacement: Backend) -> Iterator[Backend]:
    """Replaces the current pair within the block, in every thread."""
    _replaced.append(replacement)
    try:
        yield replacement
    finally:
        _replaced.remove(replacement)


def reset() -> None:
    """Forgets the settings and the pair made from the environment: for tests that change it."""
    settings.cache_clear()
    _from_environment.cache_clear()
