"""Runs schedules from seeds: `python -m tests.simulation.simulate 17` replays one, line by line."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from nexus import backend
from nexus.backend.store import DynamoStore
from nexus.backend.transport import SqsTransport
from nexus.registry import registry
from tests.simulation import catalogue, invariants, scenarios
from tests.simulation.world import Endless, abandon, in_force, installed
from tests.support.template import ENVIRONMENT


@contextmanager
def machinery() -> Iterator[None]:
    """All that schedules need: the tests' catalogue alone, the real store and transport, the world's clock."""
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "NEXUS_CATALOGUE": ""}.items():
            patch.setenv(name, value)
        backend.reset()
        for name in ("_declared", "_priorities", "_implementations", "_parts"):
            patch.setattr(registry, name, {})
        patch.setattr(registry, "_loaded", {"nexus.builtin"})
        registry.register(catalogue.__name__)
        registry.register("nexus.builtin")
        catalogue.implement(registry)
        with installed(), backend.use(backend.Backend(DynamoStore(), SqsTransport())):
            yield
    backend.reset()


def faults_of(seed: int, *, trace: bool = False) -> tuple[list[str], scenarios.Story]:
    """What is wrong with the history of a seed, and the history. Only within `machinery()`."""
    story = scenarios.draw(seed, trace=trace)
    world = story.world
    declared = dict(registry._declared)
    found: list[str] = []
    with in_force(world):
        invariants.watch(story)
        scenarios.tell(story, seed)
        try:
            world.run()
            # An operator who was killed may have left a queue paused, or a task out of the catalogue.
            registry._declared |= declared
            world.paused.clear()
            world.run()
            found += invariants.at_rest(story)
            if not found and seed % 2:
                for _ in range(3):
                    scenarios.redrive(world, by_sqs=bool(seed % 3))
                    world.run()
                found += invariants.at_rest(story)
                found += invariants.healed(story)
        except Endless as error:
            found.append(str(error))
        finally:
            registry._declared |= declared
            abandon(world.actors)
    return found, story


def run(seeds: Iterable[int], *, stop_after: int = 10) -> list[str]:
    """The seeds that show a fault, each with the line that replays it."""
    failures = []
    for seed in seeds:
        found, _ = faults_of(seed)
        if found:
            failures.append(f"python -m tests.simulation.simulate {seed}  # {found[0]}")
            if len(failures) >= stop_after:
                break
    return failures


def main() -> int:
    """One seed with its history, or many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int, help="the first seed")
    parser.add_argument(
        "--schedules", type=int, default=0, help="how many from it on; without it, one with its history"
    )
    options = parser.parse_args()
    with machinery():
        if not options.schedules:
            found, story = faults_of(options.seed, trace=True)
            print("\n".join(story.world.trace or ()))
            print(*(found or ["nothing is wrong"]), sep="\n")
            return bool(found)
        began, steps, requests, kinds = time.process_time(), 0, 0, Counter[str]()
        examples: dict[str, int] = {}
        for seed in range(options.seed, options.seed + options.schedules):
            found, story = faults_of(seed)
            steps += story.world.steps
            requests += story.world.requests
            if found:
                kind = _kind(found[0])
                kinds[kind] += 1
                examples.setdefault(kind, seed)
        spent = time.process_time() - began
        print(
            f"{options.schedules} schedules, {steps} steps, {requests} requests, {spent:.1f} s of CPU "
            f"({1000 * spent / options.schedules:.1f} ms each); {kinds.total()} show a fault"
        )
        for kind, count in kinds.most_common():
            print(f"{count:6}  seed {examples[kind]:7}  {kind}")
        return bool(kinds)


def _kind(text: str) -> str:
    """A violation without what is particular to one run."""
    import re

    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+", "_", text)[:160]


if __name__ == "__main__":
    sys.exit(main())
