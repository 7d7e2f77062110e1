"""Small worlds, explored to the end: every order of the requests of two sandboxes, every place for a fault."""

from collections.abc import Callable

import pytest

from nexus.client import chain, send, then
from tests.simulation import catalogue
from tests.simulation.exhaustive import explore
from tests.simulation.scenarios import Accepted, Story

type Tell = Callable[[Story], None]


def two_messages(story: Story) -> None:
    """Two messages, and one retry."""

    def body() -> None:
        for name, does in (("a", ("fails",)), ("b", ())):
            story.accepted.append(Accepted("send", send(catalogue.step.s(name=name, does=does, takes=0.0))))

    story.program("sends", body)


def fan_out_of_two(story: Story) -> None:
    """A fan-out of two parts."""
    signature = catalogue.spread.s(name="f", parts=2)
    story.program("fans out", lambda: story.accepted.append(Accepted("fan-out", send(signature))))


def chain_of_two(story: Story) -> None:
    """A chain of two links."""
    links = (catalogue.step.s(name="a", takes=0.0), then(catalogue.step, "given", name="b", takes=0.0))
    story.program("chains", lambda: story.accepted.append(Accepted("chain", chain(*links))))


def unique_pair(story: Story) -> None:
    """Two runs of a unique task with one key: the second waits."""
    for n in range(2):
        signature = catalogue.queued.s(name="a", takes=float(n))

        def body(signature: object = signature) -> None:
            story.accepted.append(Accepted("unique", send(signature)))  # type: ignore[arg-type]

        story.program(f"sends {n}", body)


def unique_pair_of_which_one_ends(story: Story) -> None:
    """Two runs of a unique task with one key: the second ends."""
    for n in range(2):
        signature = catalogue.only.s(name="a", takes=float(n))

        def body(signature: object = signature) -> None:
            story.accepted.append(Accepted("unique", send(signature)))  # type: ignore[arg-type]

        story.program(f"sends {n}", body)


SCOPES = (
    (two_messages, ("kill", "kill after", "lost", "stall"), 1),
    (two_messages, ("twice",), 1),
    (fan_out_of_two, ("kill", "kill after", "stall"), 1),
    (fan_out_of_two, ("lost",), 1),
    (chain_of_two, ("kill", "kill after", "lost"), 2),
    (chain_of_two, ("twice", "stall"), 1),
    (unique_pair, ("kill", "kill after"), 1),
    (unique_pair, ("lost", "stall"), 1),
    (unique_pair_of_which_one_ends, ("kill", "kill after", "lost", "stall"), 1),
)


@pytest.mark.parametrize(
    ("tell", "kinds", "at_most"), SCOPES, ids=lambda value: getattr(value, "__name__", None) or str(value)
)
def test_no_history_of_a_small_world_breaks_a_promise(tell: Tell, kinds: tuple[str, ...], at_most: int) -> None:
    explored = explore(tell, kinds, at_most=at_most)

    assert explored.complete
    assert explored.states > 50
    assert not explored.faults
