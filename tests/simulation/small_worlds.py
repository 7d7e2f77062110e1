"""The stories of small worlds, and the faults with which each is explored."""

from collections.abc import Callable

from nexus.client import chain, result_of, send, then
from tests.simulation import catalogue
from tests.simulation.scenarios import Accepted, Story
from tests.simulation.world import STACK

type Tell = Callable[[Story], None]


def two_messages(story: Story) -> None:
    """Two messages, and one retry."""

    def body() -> None:
        for name, does in (("a", ("fails",)), ("b", ())):
            story.accepted.append(Accepted("send", send(catalogue.step.s(name=name, does=does, takes=0.0))))

    story.program("sends", body)


def a_message_in_three_copies(story: Story) -> None:
    """One message, of which SQS delivers two more copies."""

    def body() -> None:
        story.accepted.append(Accepted("send", send(catalogue.step.s(name="a", takes=0.0))))
        queue = story.world.sqs.queues[f"{STACK}-quick"]
        for _ in range(2):
            story.world.sqs.duplicate(queue, queue.messages[0])

    story.program("sends", body)


def fan_out_of_two_phases(story: Story) -> None:
    """A fan-out of one part, and a second phase."""
    signature = catalogue.spread.s(name="f", parts=1, then=True)
    story.program("fans out", lambda: story.accepted.append(Accepted("fan-out", send(signature))))


def fan_out_of_two(story: Story) -> None:
    """A fan-out of two parts."""
    signature = catalogue.spread.s(name="f", parts=2)
    story.program("fans out", lambda: story.accepted.append(Accepted("fan-out", send(signature))))


def chain_of_two(story: Story) -> None:
    """A chain of two links."""
    links = (
        catalogue.step.s(name="a", takes=0.0),
        then(catalogue.step, given=result_of(catalogue.step), name="b", takes=0.0),
    )
    story.program("chains", lambda: story.accepted.append(Accepted("chain", chain(*links).delay())))


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
    (a_message_in_three_copies, ("kill",), 1),
    (fan_out_of_two, ("kill", "kill after", "stall"), 1),
    (fan_out_of_two_phases, ("kill", "kill after"), 1),
    (chain_of_two, ("kill", "kill after", "lost"), 2),
    (chain_of_two, ("twice", "stall"), 1),
    (unique_pair, ("kill", "kill after"), 1),
    (unique_pair, ("lost", "stall"), 1),
    (unique_pair_of_which_one_ends, ("kill", "kill after", "lost", "stall"), 1),
)
