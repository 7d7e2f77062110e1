"""Runs a command with its output in a log and shows its progress: `python dev/progress.py LOG COMMAND...`.

On a terminal it shows one line with the seconds and the log's last line; elsewhere a line every quarter of a minute.
If the command fails, it shows the log's end. It returns the command's exit code. It needs no packages, since it also
runs their installation.
"""

import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

TAIL: Final = 25
EVERY: Final = 0.5
EVERY_IN_A_PIPE: Final = 15.0
WIDTH: Final = 100
_UNSEEN: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\xa0-\U0010ffff]")


def run(log: Path, command: list[str]) -> int:
    """The command's exit code."""
    shown, began, printed = sys.stderr.isatty(), time.monotonic(), time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(EVERY)
            if process.returncode is None and (shown or time.monotonic() - printed >= EVERY_IN_A_PIPE):
                printed = time.monotonic()
                line = f"  {printed - began:3.0f} s  {last_words(log)}"
                print(f"\r\x1b[K{line}" if shown else line, end="" if shown else "\n", file=sys.stderr, flush=True)
        code = process.returncode
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if code:
        print(f"  This failed. The end of {log}:", file=sys.stderr)
        print("\n".join(log.read_text(errors="replace").splitlines()[-TAIL:]), file=sys.stderr)
    return code


def last_words(log: Path) -> str:
    """The last line of a log that is not blank."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").splitlines()
    readable = (" ".join(_UNSEEN.sub(" ", line).split()) for line in reversed(lines))
    return next((line for line in readable if re.search(r"[A-Za-z0-9]{2}", line)), "")[:WIDTH]


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # make says that it was interrupted
        sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
    sys.exit(130)
