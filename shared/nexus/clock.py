"""The runtime's clock: the machine's own, or one that a test or a simulation substitutes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Seconds since 1970 (`now`), seconds since some moment (`monotonic`), and waiting."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class MachineClock:
    """The machine's clock."""

    @staticmethod
    def now() -> float:
        return time.time()

    @staticmethod
    def monotonic() -> float:
        return time.monotonic()

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Ahead:
    """A clock that runs ahead of another by a fixed number of seconds, and does not wait."""

    clock: Clock
    seconds: float

    def now(self) -> float:
        return self.clock.now() + self.seconds

    def monotonic(self) -> float:
        return self.clock.monotonic()

    def sleep(self, seconds: float) -> None:
        """Does nothing: a look ahead does not wait."""


class FrozenClock:
    """A clock that stops until it is moved. Sleeping moves it."""

    def __init__(self, moment: float) -> None:
        self.moment = moment

    def now(self) -> float:
        return self.moment

    def monotonic(self) -> float:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += max(0.0, seconds)


_everywhere: list[Clock] = [MachineClock()]
_here: ContextVar[Clock | None] = ContextVar("clock", default=None)


def _clock() -> Clock:
    return _here.get() or _everywhere[-1]


def is_machines() -> bool:
    """Whether the current clock is the machine's."""
    return isinstance(_clock(), MachineClock)


def now() -> float:
    """Seconds since 1970, UTC."""
    return _clock().now()


def moment() -> float:
    """The same in whole milliseconds, as records store it."""
    return round(now(), 3)


def date(moment: float) -> datetime:
    """A moment as an aware datetime in UTC."""
    return datetime.fromtimestamp(moment, UTC)


def monotonic() -> float:
    """Seconds since an arbitrary moment; never set back."""
    return _clock().monotonic()


def sleep(seconds: float) -> None:
    """Waits."""
    _clock().sleep(seconds)


@contextmanager
def use(clock: Clock) -> Iterator[None]:
    """Uses this clock within the block, in this thread."""
    before = _here.set(clock)
    try:
        yield
    finally:
        _here.reset(before)


@contextmanager
def use_everywhere(clock: Clock) -> Iterator[None]:
    """Uses this clock within the block, in every thread that has not set its own."""
    _everywhere.append(clock)
    try:
        yield
    finally:
        _everywhere.remove(clock)


@contextmanager
def not_before(moment: float) -> Iterator[None]:
    """Within the block the time is `moment` or later, so that what is due by then runs without waiting.

    Sleeping does nothing within the block, unless a test's clock is there already: then it moves that clock.
    """
    clock = _clock()
    if not is_machines() and clock.now() >= moment:
        yield
        return
    with use(Ahead(clock, max(0.0, moment - clock.now()))):
        yield
