"""Runs schedules from seeds: `python -m tests.simulation.simulate 17` replays one, line by line."""

import argparse
import gc
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from nexus import backend
from nexus.backend.store import DynamoStore
from nexus.backend.transport import SqsTransport
from nexus.registry import registry
from tests.simulation import catalogue, invariants, scenarios
from tests.simulation.world import Endless, abandon, in_force, installed
from tests.support.template import ENVIRONMENT

BLOCK = 500
"""Seeds that a worker runs at a time."""

SAID_EVERY = 10_000
"""Schedules after which a long run reports its progress."""


@contextmanager
def machinery() -> Iterator[None]:
    """Sets up what schedules need: only the tests' catalogue, the real store and transport, the world's clock."""
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
    """The violations of a seed's history, and the history. Only within `machinery()`."""
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
                    if not invariants.dead_letters(story):
                        break
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


@dataclass(slots=True)
class Survey:
    """The result of many schedules. `examples` has a seed and a violation for each kind that was found."""

    schedules: int = 0
    steps: int = 0
    requests: int = 0
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, other: "Survey") -> None:
        self.schedules += other.schedules
        self.steps += other.steps
        self.requests += other.requests
        self.seconds += other.seconds
        self.kinds += other.kinds
        self.examples = other.examples | self.examples

    def __str__(self) -> str:
        each = 1000 * self.seconds / max(1, self.schedules)
        done = f"{self.schedules:,} schedules, {self.steps:,} steps, {self.requests:,} requests"
        lines = [f"{done}, {self.seconds:,.0f} s of CPU ({each:.1f} ms each); {self.kinds.total()} show a fault"]
        for kind, count in self.kinds.most_common():
            seed, text = self.examples[kind]
            lines += [f"{count:6} x {text}", f"         python -m tests.simulation.simulate {seed}"]
        return "\n".join(lines)


def survey(seeds: range) -> Survey:
    """Runs the schedules of these seeds. Only within `machinery()`."""
    found, began = Survey(), time.process_time()
    gc.collect()
    gc.freeze()
    gc.disable()
    for seed in seeds:
        wrong, story = faults_of(seed)
        found.schedules += 1
        found.steps += story.world.steps
        found.requests += story.world.requests
        story.world.close()
        if wrong:
            kind = _kind(wrong[0])
            found.kinds[kind] += 1
            found.examples.setdefault(kind, (seed, wrong[0]))
    gc.enable()
    found.seconds = time.process_time() - began
    return found


def _kind(text: str) -> str:
    """A violation without the details of one run."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+", "_", text)[:160]


def _survey_apart(seeds: range) -> Survey:
    with machinery():
        return survey(seeds)


def main() -> int:
    """One seed with its history, or many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int, help="the first seed")
    parser.add_argument("--schedules", type=int, help="how many seeds, from this one; without it, one with its history")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args()
    if options.schedules is None:
        with machinery():
            wrong, story = faults_of(options.seed, trace=True)
        print(*(story.world.trace or ()), *(wrong or ["nothing is wrong"]), sep="\n")
        return bool(wrong)
    whole, seeds = Survey(), range(options.seed, options.seed + options.schedules)
    blocks = [seeds[at : at + BLOCK] for at in range(0, len(seeds), BLOCK)]
    with ProcessPoolExecutor(options.jobs) as pool:
        for part in pool.map(_survey_apart, blocks):
            whole.add(part)
            if whole.schedules % SAID_EVERY == 0:
                print(whole, file=sys.stderr, flush=True)
    print(whole)
    return bool(whole.kinds)


if __name__ == "__main__":
    sys.exit(main())
