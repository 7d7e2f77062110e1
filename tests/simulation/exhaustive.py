"""Explores small worlds exhaustively: every order of their requests, and every place for the few faults allowed.

A world cannot be copied, so each path is run from the beginning. A state that was already visited is not explored
again. A state consists of the contents of the tables and queues, what each sandbox has seen so far (which decides what
it will do), and what the invariants remember. So that different histories can reach the same state, requests take no
time and no name depends on the order.
"""

import hashlib
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations

from tests.simulation import aws, invariants
from tests.simulation.scenarios import Story
from tests.simulation.world import (
    AT_REQUEST,
    BATCH,
    CONCURRENCY,
    TIMEOUT,
    Actor,
    Endless,
    Faults,
    World,
    abandon,
)

type Move = Callable[[], None]


class SmallWorld(World):
    """A world that follows a path of choices, and then always takes the first choice."""

    tick = 0.0
    repeats_late = False

    def __init__(self, faults: Mapping[str, float], at_most: int, path: Sequence[int], sandboxes: int = 2) -> None:
        super().__init__(0, Faults(faults, 1, at_most))
        self.path = list(path)
        self.taken: list[int] = []
        self.widths: list[int] = []
        self.sandboxes = min(sandboxes, CONCURRENCY)
        self.seen: set[bytes] | None = None
        self.known = False
        self._histories: dict[Actor, bytes] = {}
        self._draws: dict[str, int] = {}

    def draw(self, count: int) -> bytes:
        """Random bytes of each actor's own sequence, so that they do not depend on the order of actors."""
        name = self._now.name if self._now else ""
        self._draws[name] = self._draws.get(name, 0) + 1
        return hashlib.shake_128(f"{name}/{self._draws[name]}".encode()).digest(count)

    def _step(self) -> bool:
        self.scheduler.fire()
        moves = self._moves()
        if not moves:
            return self._move_clock()
        if len(self.taken) >= len(self.path):
            mark = self._state()
            if self.seen is not None:
                if mark in self.seen:
                    self.known = True
                    return False
                self.seen.add(mark)
        number = self.path[len(self.taken)] if len(self.taken) < len(self.path) else 0
        self.widths.append(len(moves))
        self.taken.append(number)
        moves[number]()
        return True

    def _moves(self) -> list[Move]:
        now, moves = self.clock.now, list[Move]()
        for actor in self.actors:
            if actor.wake <= now:
                moves += self._moves_of(actor)
        for queue in TIMEOUT:
            if self._receivable(queue, now) and self._room(queue):
                visible = self.sources[queue].visible(now)
                sizes = range(min(len(visible), BATCH[queue]), 0, -1)
                moves += [partial(self._take, queue, batch) for n in sizes for batch in combinations(visible, n)]
                if self.left and "twice" in self.faults.kinds:
                    moves += [partial(self._twice, queue, one) for one in visible]
        return moves

    def _moves_of(self, actor: Actor) -> list[Move]:
        moves: list[Move] = [partial(self._go, actor, "go")]
        if self.left and actor.queue and actor.green is not None:
            moves += [partial(self._go, actor, kind) for kind in self.faults.kinds if kind in AT_REQUEST]
            if "stall" in self.faults.kinds:
                moves.append(partial(self._stall, actor))
        return moves

    def _room(self, queue: str) -> bool:
        return sum(1 for actor in self.actors if actor.queue == queue) < self.sandboxes

    def _go(self, actor: Actor, fate: str) -> None:
        self.left -= fate != "go"
        random.seed(zlib.crc32(actor.name.encode()) + self._draws.get(actor.name, 0))
        before = self._histories.get(actor, actor.name.encode())
        self._responses = hashlib.blake2b(before + fate.encode() + repr(self.clock.now).encode(), digest_size=12)
        self._resume(actor, fate)
        self._histories[actor] = self._responses.digest()

    def _stall(self, actor: Actor) -> None:
        """Stalls past the lease and the message's visibility timeout, then continues as if nothing had happened."""
        self.left -= 1
        assert actor.queue is not None
        actor.outlives = True
        actor.wake = self.clock.now + 7 * TIMEOUT[actor.queue]

    def _take(self, queue: str, messages: Sequence[aws.Stored]) -> None:
        source = self.sources[queue]
        worn = len(source.redriven)
        taken = self.sqs.take(source, messages)
        self.redriven += source.redriven[worn:]
        if taken:
            self.invoke(queue, taken, "+".join(message.receipt for message in taken))

    def _twice(self, queue: str, message: aws.Stored) -> None:
        self.left -= 1
        self.sqs.duplicate(self.sources[queue], message)

    def _observe(self, response: object) -> None:
        self._responses.update(repr(response).encode())

    def _state(self) -> bytes:
        """A digest of everything that decides what can happen next, or that the invariants check."""
        queues = [
            (name, sorted((m.id, m.copy, m.visible, m.receives, m.received) for m in queue.messages))
            for name, queue in self.sqs.queues.items()
        ]
        actors = sorted(
            (a.name, a.wake, a.deadline, a.faulted, a.outlives, self._histories.get(a, b"")) for a in self.actors
        )
        noted = [
            sorted((run, sorted(actor.name for actor, _ in starts)) for run, starts in self.starts.items()),
            sorted((run, sorted((a.name, a.faulted) for a in done)) for run, done in self.completions.items()),
            sorted(self.since_reset.items()),
            sorted((run, sorted((a.name, a.faulted) for a in claims)) for run, claims in self.claims.items()),
        ]
        items = sorted(
            (key, sorted((name, repr(value)) for name, value in item.items()))
            for key, item in self.dynamo.items.items()
        )
        schedules = (sorted(self.scheduler.schedules), sorted(self.scheduler.fired.items()))
        whole = (self.clock.now, self.left, queues, actors, items, schedules, noted)
        return hashlib.blake2b(repr(whole).encode(), digest_size=12).digest()


@dataclass(slots=True)
class Explored:
    """The result of an exploration: the numbers of states and complete histories, and the paths that show a fault."""

    states: int = 0
    histories: int = 0
    complete: bool = True
    faults: dict[str, list[int]] = field(default_factory=dict)


def explore(
    tell: Callable[[Story], None],
    kinds: Sequence[str],
    *,
    at_most: int = 1,
    sandboxes: int = 2,
    budget: int = 20_000,
    until_found: bool = False,
) -> Explored:
    """Explores every history of a story with up to `at_most` faults of these kinds, and up to `budget` paths."""
    found, seen = Explored(), set[bytes]()
    todo: list[list[int]] = [[]]
    while todo:
        if budget == 0 or (until_found and found.faults):
            found.complete = False
            break
        budget -= 1
        path = todo.pop()
        world = SmallWorld(dict.fromkeys(kinds, 1.0), at_most, path, sandboxes)
        world.seen = seen
        wrong = lived(world, tell)
        for text in wrong:
            found.faults.setdefault(text, list(world.taken))
        found.histories += not world.known
        for place in range(len(path), len(world.widths)):
            todo += [[*world.taken[:place], other] for other in range(1, world.widths[place])]
    found.states = len(seen)
    return found


def lived(world: SmallWorld, tell: Callable[[Story], None]) -> list[str]:
    """The violations of one path through a world."""
    from tests.simulation.world import in_force

    story = Story(world)
    with in_force(world):
        invariants.watch(story)
        try:
            tell(story)
            world.run()
            return world.violations if world.known else list(invariants.at_rest(story))
        except Endless as error:
            return [str(error)]
        finally:
            abandon(world.actors)
