"""Two special cases: a process uses another stack, and code enforces its own time limit."""

import asyncio
import signal

import pytest

from nexus.aws.table import Table, in_threads
from nexus.errors import TimeLimitExceeded
from nexus.settings import another_stack, settings
from nexus.worker.time_limit import put_off, time_limit


def test_another_stacks_names_are_used_in_its_block_and_its_threads(environment: None) -> None:
    table, here = Table("notes", ("id",)), settings().stack
    with another_stack("other"):
        assert (table.name, settings().queue_name("emails")) == ("other-notes", "other-emails")
        assert list(in_threads(lambda _: table.name, [1, 2, 3], 2)) == ["other-notes"] * 3
        with another_stack("third"):
            assert settings().function_name("emails") == "third-emails"
        assert settings().account_id
        assert table.name == "other-notes"
    assert table.name == f"{here}-notes"


def test_concurrent_coroutines_each_have_their_own_stack(environment: None) -> None:
    async def name(stack: str) -> str:
        with another_stack(stack):
            await asyncio.sleep(0)
            return settings().stack

    async def whole() -> list[str]:
        return list(await asyncio.gather(name("one"), name("two")))

    assert asyncio.run(whole()) == ["one", "two"]


def test_a_time_limit_is_postponed_for_code_that_keeps_its_own() -> None:
    with time_limit(60, "over"):
        put_off(1000.0)
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 1000 < left <= 1060
    with pytest.raises(TimeLimitExceeded, match="over"), time_limit(0.05, "over"):
        _for_ever_after(0.01)


def _for_ever_after(seconds: float) -> None:
    put_off(seconds)
    while True:
        pass


def test_postponing_without_a_time_limit_starts_no_timer() -> None:
    put_off(1000.0)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
