"""Records which lines of the project a process executes, for `make coverage`.

If NEXUS_COVERAGE names the checkout, every process of the project's environment calls `start` before anything else
(dev/install.py), and so do the local cloud's sandboxes (dev/emulator.py). A line is recorded the first time it is
executed and costs nothing afterwards. New lines are appended to a file in .local/coverage, which stays open, since a
decoder's process cannot open files. This imports nothing from the project; `dev.covered` reads the files.
"""

import atexit
import fcntl
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import Any, Final

VARIABLE: Final = "NEXUS_COVERAGE"
FOLDER: Final = ".local/coverage"
PARTS: Final = ("shared/nexus", "shared/social", "functions", "ops")
LAYER_PACKAGES: Final = ("nexus", "social")
LAYER: Final = "/opt/python/"
FUNCTION: Final = "/var/task/"
"""Where Lambda has the layer and a function; each sandbox of the local cloud has them in its own folder."""
LOWEST_DESCRIPTOR: Final = 300
"""Well above those that a program or a test uses."""


def start() -> Callable[[], None]:
    """Starts recording. Returns a function that saves; a fork, the end of the process, `os._exit`
    and `os.execve` save too."""
    root = Path(os.environ.pop(VARIABLE))  # so that a program and its tests see their usual environment
    deployed = _deployed()
    wanted = (*(f"{root / part}{os.sep}" for part in PARTS), *deployed)
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    name = root / FOLDER / f"{os.getpid()}-{os.urandom(4).hex()}.jsonl"
    opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    descriptor = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, LOWEST_DESCRIPTOR)
    os.close(opened)
    new: defaultdict[str, set[int]] = defaultdict(set)
    tool, events = sys.monitoring.COVERAGE_ID, sys.monitoring.events

    def enter(code: CodeType, _: int) -> object:
        if code.co_filename.startswith(wanted):
            sys.monitoring.set_local_events(tool, code, events.LINE)
        return sys.monitoring.DISABLE

    def line(code: CodeType, number: int) -> object:
        new[code.co_filename].add(number)
        return sys.monitoring.DISABLE

    def save() -> None:
        lines = {}
        while new:
            file, numbers = new.popitem()
            place = next((place for place in deployed if file.startswith(place)), "")
            lines[deployed.get(place, "") + file.removeprefix(place)] = list(numbers)
        if lines:
            # A decoder's process may have no memory left, or no room in a file: its lines are lost.
            with suppress(OSError, MemoryError):
                os.write(descriptor, json.dumps(lines).encode() + b"\n")

    sys.monitoring.use_tool_id(tool, "nexus")
    sys.monitoring.register_callback(tool, events.PY_START, enter)
    sys.monitoring.register_callback(tool, events.LINE, line)
    sys.monitoring.set_events(tool, events.PY_START)
    atexit.register(save)
    os.register_at_fork(before=save)
    _save_before_exit(save)
    _measure_programs(root, save)
    return save


def _deployed() -> dict[str, str]:
    """In a sandbox, the folders with the project's code, and their names in Lambda."""
    found = {}
    if folder := os.environ.get("LAMBDA_TASK_ROOT"):
        found[f"{folder}/"] = FUNCTION
    for folder in filter(None, os.environ.get("_LAMBDA_LAYERS_DIRS", "").split(os.pathsep)):
        found |= {f"{folder}/python/{package}/": f"{LAYER}{package}/" for package in LAYER_PACKAGES}
    return found


def _save_before_exit(save: Callable[[], None]) -> None:
    end = os._exit

    def save_and_exit(status: int) -> None:
        save()
        end(status)

    os._exit = save_and_exit  # type: ignore[assignment]


def _measure_programs(root: Path, save: Callable[[], None]) -> None:
    """Measures what this process starts, and what it is replaced by."""
    starting: Any = subprocess.Popen
    plain = starting.__init__

    def begin(self: Any, *given: Any, env: Any = None, **named: Any) -> None:
        plain(self, *given, env={**(os.environ if env is None else env), VARIABLE: str(root)}, **named)

    starting.__init__ = begin
    replace: Any = os.execve

    def replace_process(path: Any, given: Any, env: Any) -> None:
        save()
        replace(path, given, {**env, VARIABLE: str(root)})

    os.execve = replace_process  # type: ignore[assignment]
