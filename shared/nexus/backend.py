"""Where runs are kept and how messages travel, as one replaceable pair: AWS, or this process's memory."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from nexus.store import DynamoStore, Store
from nexus.transport import SqsTransport, Transport


@dataclass(frozen=True, slots=True)
class Backend:
    """A store and a transport."""

    store: Store
    transport: Transport


_replaced: list[Backend] = []


def backend() -> Backend:
    """The pair in force: what a test has put in place, the eager one under NEXUS_EAGER=1, else AWS."""
    return _replaced[-1] if _replaced else _from_environment()


@lru_cache(maxsize=1)
def _from_environment() -> Backend:
    if os.environ.get("NEXUS_EAGER") == "1":
        # Named and not imported: it stands on the worker, which stands on this.
        eager = importlib.import_module("nexus.eager")
        made: Backend = eager.make_backend()
        return made
    return Backend(DynamoStore(), SqsTransport())


@contextmanager
def use(replacement: Backend) -> Iterator[Backend]:
    """The pair in force within the block, in every thread."""
    _replaced.append(replacement)
    try:
        yield replacement
    finally:
        _replaced.remove(replacement)


def reset() -> None:
    """Forgets the pair made from the environment: for tests that change it."""
    _from_environment.cache_clear()
