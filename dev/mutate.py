"""`make mutate`: are the rules' tests good enough to notice a change of the rules?

`dev/mutation.toml` names each rule's file and the tests that are meant to guard it. Every mutant of the file (see
`dev.mutants`) runs those tests in its own process, forked from this one, which has already imported the libraries; an
import hook gives it the mutated source, so no file changes. A mutant that no test notices is a survivor, unless
`dev/mutation.toml` lists it as equivalent, with the reason. Survivors fail the command.

With NEXUS_WRITE_TABLE=1 the scores are written into docs/mutation.md.
"""

import argparse
import importlib
import importlib.abc
import importlib.machinery
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal

from bench import tables

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

ROOT: Final = Path(__file__).parents[1]
RULES: Final = Path(__file__).with_name("mutation.toml")
PAGE: Final = ROOT / "docs" / "mutation.md"
MUTANTS: Final = (str(ROOT / ".venv-mutation" / "bin" / "python"), "-m", "dev.mutants")

CPU_SECONDS = 4
"""CPU seconds that a mutant may use in addition to five times the tests' own; above that it is looping, and killed."""
WALL_SECONDS = 300.0
"""Seconds after which a mutant that waits forever is killed."""

NOT_IMPORTED: Final = 77
"""The exit status for a mutant that does not import: mostly a type annotation. It is not counted."""

LIBRARIES: Final = ("boto3", "hypothesis.strategies", "moto", "numpy", "PIL.Image", "pydantic", "pytest", "yaml")
"""What most tests import. It is imported once here instead of once for each mutant."""

type Result = Literal["killed", "survived", "not imported"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed line, and the module's whole source with it."""

    line: int
    before: str
    after: str
    source: str

    @property
    def change(self) -> str:
        """The line before and after, by which `dev/mutation.toml` names a mutant."""
        return f"{self.before} => {self.after}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A file of rules and its tests.

    Attributes:
        file: below the repository.
        tests: arguments of pytest.
        functions: those that are mutated; all if empty.
        equivalent: changes that no test can notice, and why.
    """

    name: str
    file: str
    tests: tuple[str, ...]
    functions: tuple[str, ...] = ()
    equivalent: dict[str, str] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The name by which the tests import the file."""
        parts = Path(self.file).with_suffix("").parts
        return ".".join(parts[2:] if parts[0] == "functions" else parts[1:])


@dataclass(frozen=True, slots=True)
class Score:
    """What happened to a rule's mutants."""

    rule: Rule
    killed: int
    equivalent: int
    survivors: tuple[Mutant, ...]
    wrong: tuple[str, ...]
    """Entries of `equivalent` that match no survivor: killed after all, or of a line that has changed."""

    @property
    def row(self) -> tuple[str, ...]:
        """Its line in the table."""
        count, survived = self.killed + len(self.survivors), len(self.survivors)
        numbers = (count + self.equivalent, self.killed, self.equivalent, survived)
        return (self.rule.name, f"`{self.rule.file}`", *map(str, numbers), f"{self.killed / max(1, count):.0%}")


HEADER: Final = ("rule", "file", "mutants", "killed", "equivalent", "survived", "score")


def rules(path: Path = RULES) -> list[Rule]:
    """Every rule of `dev/mutation.toml`."""
    return [
        Rule(
            name=each["name"],
            file=each["file"],
            tests=tuple(each["tests"]),
            functions=tuple(each.get("functions", ())),
            equivalent={one["change"]: one["why"] for one in each.get("equivalent", ())},
        )
        for each in tomllib.loads(path.read_text())["rule"]
    ]


def mutants(rule: Rule) -> list[Mutant]:
    """The mutants of a rule."""
    command = [*MUTANTS, rule.file, *rule.functions]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [Mutant(**json.loads(line)) for line in listed.splitlines()]


def score(rule: Rule, jobs: int) -> Score:
    """Runs a rule's tests on each of its mutants."""
    found = mutants(rule)
    results = dict(attempts(rule, [mutant.source for mutant in found], jobs))
    survivors = [mutant for n, mutant in enumerate(found) if results[n] == "survived"]
    changes = Counter(mutant.change for mutant in survivors)
    return Score(
        rule,
        killed=list(results.values()).count("killed"),
        equivalent=sum(changes[change] for change in rule.equivalent),
        survivors=tuple(mutant for mutant in survivors if mutant.change not in rule.equivalent),
        wrong=tuple(change for change in rule.equivalent if not changes[change]),
    )


# --- one process for each mutant -------------------------------------------------------------------------------------


def attempts(rule: Rule, sources: Sequence[str], jobs: int) -> Iterator[tuple[int, Result]]:
    """Yields each source's index and result as its tests end. Raises RuntimeError if the original fails them."""
    context = multiprocessing.get_context("fork")
    original = (ROOT / rule.file).read_text()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    log = ROOT / ".local" / "log" / "mutation.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=attempt, args=(rule, original, None, str(log)))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{rule.name}: the tests fail without any change:\n{log.read_text()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    limit = CPU_SECONDS + round(5 * took)
    waiting = list(enumerate(sources))[::-1]
    running: dict[int, tuple[int, ForkProcess, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            number, source = waiting.pop()
            process = context.Process(target=attempt, args=(rule, source, limit))
            process.start()
            running[process.sentinel] = number, process, time.monotonic() + WALL_SECONDS
        ready = wait(list(running), timeout=1.0)
        for sentinel, (number, process, end) in list(running.items()):
            if sentinel in ready or time.monotonic() > end:
                process.kill()
                process.join()
                del running[sentinel]
                yield number, result(process.exitcode)


def result(exit_code: int | None) -> Result:
    """The result that an attempt's exit code means."""
    return "survived" if exit_code == 0 else "not imported" if exit_code == NOT_IMPORTED else "killed"


def attempt(rule: Rule, source: str, limit: int | None = None, log: str = os.devnull) -> None:
    """Runs the tests on a source, in its own process; the exit code is the result."""
    import hypothesis
    import pytest

    if limit is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, name in enumerate((os.devnull, log, log)):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    pythonpath = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["pythonpath"]
    sys.path[:0] = [str(ROOT / path) for path in pythonpath]
    sys.meta_path.insert(0, _Mutated(rule.module, str(ROOT / rule.file), source))
    try:
        importlib.import_module(rule.module)
    except BaseException:  # noqa: BLE001 - whatever a mutated module raises
        sys.exit(NOT_IMPORTED)
    # A counterexample need not be the smallest, and must not be tried first on the next mutant.
    phases, unchecked = (hypothesis.Phase.explicit, hypothesis.Phase.generate), list(hypothesis.HealthCheck)
    hypothesis.settings.register_profile(
        "mutation", deadline=None, database=None, phases=phases, suppress_health_check=unchecked
    )
    options = (
        "-x",
        "-q",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
    )
    sys.exit(pytest.main([*options, "--hypothesis-seed=0", "--hypothesis-profile=mutation", *rule.tests]))


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a given source."""

    def __init__(self, module: str, path: str, source: str) -> None:
        self._module, self._path, self._source = module, path, source

    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._module:
            return None
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=self._path)
        spec.has_location = True
        return spec

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, self._path, "exec"), module.__dict__)  # noqa: S102 - the mutant


def report(scores: Iterable[Score]) -> Iterator[str]:
    """Lines about what must be fixed: survivors, and entries of `equivalent` that are wrong."""
    for each in scores:
        for mutant in each.survivors:
            yield f"{each.rule.file}:{mutant.line}: survived\n    {mutant.before}\n    {mutant.after}"
        for change in each.wrong:
            yield f"{RULES.name}: {each.rule.name}: no survivor has this change\n    {change}"


def table(scores: Sequence[Score], page: str) -> str:
    """The table of the page with these scores; rules that did not run keep their rows."""
    kept = {row[0]: row for line in page.splitlines() if len(row := line.strip("| ").split(" | ")) == len(HEADER)}
    rows = kept | {each.rule.name: list(each.row) for each in scores}
    return tables.markdown(HEADER, [rows[rule.name] for rule in rules() if rule.name in rows])


def main() -> int:
    """Runs the named rules, or all; the exit code is 1 if there is anything to fix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="names of rules in dev/mutation.toml; all if none is given")
    parser.add_argument("--jobs", type=int, default=os.process_cpu_count() or 1)
    options = parser.parse_args()
    known = {rule.name: rule for rule in rules()}
    if unknown := set(options.names) - set(known):
        parser.error(f"{', '.join(sorted(unknown))}: not in {', '.join(known)}")
    for library in LIBRARIES:
        importlib.import_module(library)
    scores = []
    for name in options.names or known:
        begun = time.monotonic()
        scores.append(score(known[name], options.jobs))
        print(" | ".join(scores[-1].row), f"({time.monotonic() - begun:.0f} s)", flush=True)
    wrong = list(report(scores))
    print(*wrong, sep="\n")
    tables.show("mutation", table(scores, PAGE.read_text()), PAGE)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
