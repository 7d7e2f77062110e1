"""Tasks in the application's own process: nothing waits or runs forever, and the application keeps its alarm."""

import signal
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from nexus import backend
from nexus.backend import Backend
from nexus.backend.memory import MemoryStore
from nexus.backend.transport import MAX_RECEIVES
from nexus.client import chain, following
from nexus.eager import EagerTransport
from nexus.worker import Run
from tests.support import own_catalogue as catalogue
from tests.support.own_catalogue import NOTE, NoteSent, SendNote
from tests.unit.runtime.conftest import does

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture(autouse=True)
def eager() -> Iterator[EagerTransport]:
    transport = EagerTransport()
    with backend.use(Backend(MemoryStore(), transport)):
        yield transport


@pytest.fixture
def rings() -> Iterator[list[float]]:
    """The times at which the application's own alarm went off."""
    rang: list[float] = []

    def ring(_signal: int, _frame: FrameType | None) -> None:
        rang.append(time.monotonic())

    before = signal.signal(signal.SIGALRM, ring)
    yield rang
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_the_applications_own_alarm_rings_while_a_task_runs(
    rings: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(args: SendNote, run: Run) -> NoteSent:
        while not rings:
            time.sleep(0.01)
        return NoteSent()

    does(monkeypatch, work)
    signal.setitimer(signal.ITIMER_REAL, 0.05)

    assert catalogue.send_note.delay(**NOTE).status == "SUCCESS"


def test_the_applications_own_alarm_rings_after_a_task_has_run(
    rings: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, lambda args, run: NoteSent())
    signal.setitimer(signal.ITIMER_REAL, 60)

    catalogue.send_note.delay(**NOTE)

    left, _ = signal.getitimer(signal.ITIMER_REAL)
    assert 0 < left <= 60
    signal.raise_signal(signal.SIGALRM)
    assert len(rings) == 1, "its handler is in place"


def test_an_eager_task_within_another_restores_the_outer_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    left = []

    def work(args: SendNote, run: Run) -> NoteSent:
        if args.text == "outer":
            catalogue.send_note.delay(**{**NOTE, "text": "inner"})
            left.append(signal.getitimer(signal.ITIMER_REAL)[0])
        return NoteSent()

    does(monkeypatch, work)
    catalogue.send_note.delay(**{**NOTE, "text": "outer"})

    assert 0 < left[0] <= catalogue.send_note.time_limit
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_follow_up_that_can_never_be_sent_is_given_up_and_not_repeated_forever(
    eager: EagerTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def never(*_: object) -> None:
        tries.append(1)
        raise LookupError("there is nothing to follow")

    does(monkeypatch, lambda args, run: NoteSent())
    monkeypatch.setattr(following, "send_next", never)

    chain(catalogue.send_note.s(**NOTE), catalogue.send_note.s(**NOTE)).delay()

    assert len(tries) == MAX_RECEIVES
    assert len(eager.dead) == 1
