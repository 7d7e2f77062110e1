"""Measures the time from saving a file until `nexus dev` shows the last message's result, on the local cloud.

    make up; eval "$(nexus env)"; make bench-dev

The task reads nothing and returns. The peer runs the same task in a new process for each change, as a restarted worker
does; the time until it would notice the change is not counted. The figures are wall time, which is what a developer
waits for.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import tables
from ops.figures import percentile

ROUNDS = 30
ROOT = tables.ROOT
GUARD = "    if not _exists(args.user_id, run):\n"
NEXUS = "import sys; from ops.main import main; sys.exit(main())"
RESTARTED = """
from nexus.eager import Context
from nexus.worker import handler
print(handler({"task": "send_notification", "args": {"user_id": "u", "kind": "like", "text": "hi"}}, Context()))
"""


@contextmanager
def session(code: Path, environment: dict[str, str]) -> Iterator[Iterator[str]]:
    """The lines of `nexus dev` on the copy."""
    command = [sys.executable, "-c", NEXUS, "dev", "default"]
    with subprocess.Popen(
        command, cwd=code, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield iter(process.stdout or ())
        finally:
            process.terminate()
            process.wait()


def until(wanted: str, lines: Iterator[str]) -> None:
    """Reads lines until one contains the wanted text."""
    seen = []
    for line in lines:
        seen.append(line)
        if wanted in line:
            return
    raise RuntimeError(f"nexus dev ended before it showed {wanted!r}: {''.join(seen)}")


def main() -> None:
    """Measures both alternately and prints the table."""
    with tempfile.TemporaryDirectory() as name:
        code = Path(name)
        for folder in ("functions", "shared", "ops"):
            shutil.copytree(ROOT / folder, code / folder, ignore=shutil.ignore_patterns("__pycache__"))
        environment = {**os.environ, "PYTHONPATH": f"{code}:{code / 'shared'}", "PYTHONUNBUFFERED": "1"}
        function = {"NEXUS_QUEUE": "default", "NEXUS_CATALOGUE": "social.catalogue"}
        restarted = environment | function
        restarted["PYTHONPATH"] += f":{code / 'functions' / 'default'}"
        file = code / "functions" / "default" / "send_notification.py"
        text = file.read_text()
        times: dict[str, list[float]] = {"dev": [], "restarted": []}
        with session(code, environment) as lines:
            until("Ctrl-C", lines)
            send = [sys.executable, "-c", NEXUS, "send", "send_notification", "user_id=u", "kind=like", "text=hi"]
            subprocess.run(send, env=environment, check=True, stdout=subprocess.DEVNULL)
            until("no user u", lines)
            for number in range(ROUNDS + 1):
                reason = f"round {number}"
                began = time.perf_counter()
                file.write_text(text.replace(GUARD, f'    return NotificationSent(reason="{reason}")\n{GUARD}'))
                until(f'"{reason}"', lines)
                here = time.perf_counter() - began
                began = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", RESTARTED], env=restarted, check=True, capture_output=True, text=True
                )
                assert reason in done.stdout, done.stdout + done.stderr
                if number:  # the first compiles the copy
                    times["dev"].append(here)
                    times["restarted"].append(time.perf_counter() - began)
    rows = []
    for way, found in (("`nexus dev`", times["dev"]), ("a new process", times["restarted"])):
        figures = (percentile(sorted(found), 50), percentile(sorted(found), 95), max(found))
        rows.append([way, *(f"{round(1000 * (value or 0.0))}" for value in figures)])
    tables.show("dev", tables.markdown(["from saving a file to the result, ms", "median", "p95", "longest"], rows))


if __name__ == "__main__":
    main()
