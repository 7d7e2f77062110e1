"""`nexus new task`: the files and entries of a task without a schedule, as docs/add-a-task.md describes them.

What is written works: its test passes, and its docstrings say what to replace. The catalogue is read as text, so a
checkout whose catalogue cannot be imported at the moment can still get a task.
"""

import ast
import json
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Final

from nexus import builtin
from ops.problems import Problem, usage

CATALOGUE: Final = Path("shared/social/catalogue.py")
README: Final = Path("README.md")
LONGEST: Final = 60

ENTRY: Final = Template('''\
class $model(Arguments):
    """What $name takes: replace `limit` with its own arguments."""

    limit: int = Field(default=100, ge=1, le=10_000)


class ${model}Done(Result):
    """What $name has done: replace `done` with its own results."""

    done: int = 0


$name = Task(
    name="$name",
    queue="$queue",
    arguments=$model,
    result=${model}Done,
    summary="Replace this with what it does.",
    time_limit=$time_limit,
)

''')

CODE: Final = Template('''\
"""$name: replace this with what the task is for.

Replace this with how the task works, and what happens when it runs twice.
"""

from nexus.worker import Run, handler_for, implements
from social import catalogue
from social.catalogue import $model, ${model}Done


@implements(catalogue.$name)
def $name(args: $model, run: Run) -> ${model}Done:
    """Replace this, and the body, with the task's work."""
    run.logger.info("worked", limit=args.limit)
    return ${model}Done(done=args.limit)


handler = handler_for($name)
''')

TEST: Final = Template('''\
"""$name: replace this with what is tested."""

from $name import $name
from nexus.testing import run_task
from social.catalogue import ${model}Done


def test_the_result_says_how_much_was_done() -> None:
    assert run_task($name, {"limit": 3}) == ${model}Done(done=3)
''')


@dataclass(frozen=True, slots=True)
class Written:
    """The files that were created and changed, relative to the checkout."""

    created: tuple[Path, ...]
    changed: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """What the catalogue's text declares."""

    queues: tuple[str, ...]
    names: frozenset[str]
    time_limits: Mapping[str, int]
    """The longest time limit of each queue's tasks, which fits into its function's timeout."""


def write(root: Path, name: str, queue: str) -> Written:
    """Writes a new task into the checkout at `root`. Raises Problem, and writes nothing, if it cannot.

    An existing file or name is never replaced.
    """
    catalogue = root / CATALOGUE
    if not catalogue.is_file():
        raise Problem(f"There is no {CATALOGUE} in {root}", do="Run this in a checkout of nexus-tasks.")
    text = catalogue.read_text()
    known = _known(text)
    model = "".join(part.title() for part in name.split("_"))
    _check(name, queue, model, known)
    values = {"name": name, "queue": queue, "model": model, "time_limit": known.time_limits[queue]}
    files = {
        Path("functions", queue, f"{name}.py"): CODE.substitute(values),
        Path("events", f"{name}.json"): json.dumps({"task": name, "args": {"limit": 100}}, indent=2) + "\n",
        Path("tests/unit/jobs", f"test_{name}.py"): TEST.substitute(values),
    }
    taken = [path for path in files if (root / path).exists()]
    taken += [path.relative_to(root) for path in root.glob(f"functions/*/{name}*") if path.stem == name]
    if taken:
        raise usage(f"NAME: {taken[0]} exists already", do="Choose another name.")
    if find_spec(name) is not None:
        raise usage(f"NAME: there is a module {name} already, which the task's would hide", do="Choose another name.")
    readme = root / README
    changes = {
        CATALOGUE: _with_entry(text, queue, ENTRY.substitute(values)),
        README: _with_row(readme.read_text(), queue, f"| | `{name}` | on demand |\n"),
    }
    for path, content in (files | changes).items():
        (root / path).write_text(content)
    return Written(tuple(files), tuple(changes))


def _known(text: str) -> _Known:
    module = ast.parse(text)
    queues: tuple[str, ...] = ()
    names = {node.name for node in module.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    names |= {
        alias.asname or alias.name for node in module.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    limits: dict[str, int] = {}
    for node in module.body:
        if not isinstance(node, ast.Assign) or not isinstance(target := node.targets[0], ast.Name):
            continue
        names.add(target.id)
        if target.id == "QUEUES":
            queues = tuple(ast.literal_eval(node.value))
        elif isinstance(node.value, ast.Call):
            given = {word.arg: word.value.value for word in node.value.keywords if isinstance(word.value, ast.Constant)}
            if isinstance(queue := given.get("queue"), str) and isinstance(limit := given.get("time_limit"), int):
                limits[queue] = max(limit, limits.get(queue, 0))
    return _Known(queues, frozenset(names), limits)


def _check(name: str, queue: str, model: str, known: _Known) -> None:
    """Raises Problem, naming the field and its fault."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > LONGEST:
        why = f"It is a module and a function: lower-case words with underscores, at most {LONGEST} characters."
        raise usage(f"NAME: {name!r} cannot be a task's name", why, "Such as measure_media_storage.")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise usage(f"NAME: {name!r} is a Python keyword", do="Choose another name.")
    for taken in (name, model, f"{model}Done"):
        if taken in known.names or taken in vars(builtin):
            raise usage(f"NAME: {CATALOGUE} already has {taken}", do="Choose another name.")
    if queue not in known.queues or queue not in known.time_limits:
        raise usage(f"--queue: there is no queue {queue!r}", do=f"There are: {', '.join(known.queues)}.")


def _with_entry(text: str, queue: str, entry: str) -> str:
    """The catalogue with the entry as the last one under the heading that names the queue."""
    headings = list(re.finditer(r"^# --- (.*?) ---+\n", text, re.MULTILINE))
    for place, heading in enumerate(headings):
        if queue in re.findall(r"\w+", heading[1]):
            end = headings[place + 1].start() if place + 1 < len(headings) else text.rindex("register(__name__)")
            before, after = text[:end].rstrip("\n"), text[end:]
            blank = "\n\n" if after.startswith("#") else "\n"
            return f"{before}\n\n\n{entry.rstrip()}\n{blank}{after}"
    raise Problem(f"{CATALOGUE} has no heading that names {queue}", do=f"Add `# --- {queue} ---`.")


def _with_row(text: str, queue: str, row: str) -> str:
    """The README with the row as the last one of the queue's."""
    lines = text.splitlines(keepends=True)
    first = next((n for n, line in enumerate(lines) if re.match(rf"\| {queue}\b.*\| `", line)), None)
    if first is None:
        raise Problem(f'{README} has no row for {queue} under "The tasks"', do="Add one.")
    end = next(n for n in range(first + 1, len(lines)) if not lines[n].startswith("| | `"))
    return "".join([*lines[:end], row, *lines[end:]])
