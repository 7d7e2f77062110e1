"""Puts the `nexus` command into the virtual environment that runs this: `python dev/install.py`, by `make setup`.

A path file lets the environment import `ops` and `nexus` from the checkout, and a script of three lines is the command.
It works like an editable installation, without the build and the import hook that would slow down every start.
"""

import sys
import sysconfig
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

MEASURED: Final = (
    'import os, sys; os.environ.get("NEXUS_COVERAGE") and "dev.measure" not in sys.modules and '
    '__import__("dev.measure").measure.start()\n'
)
"""Python executes a path file's line that begins with `import` at each start, twice where lib64 is a link."""

SCRIPT: Final = """\
{start}
import sys
from ops.main import main
sys.exit(main())
"""


LONGEST_LINE: Final = 127
"""The most bytes of a `#!` line that every kernel reads."""


def start_of_script(python: str) -> str:
    """The lines that make a file a program of this interpreter.

    A `#!` line ends the path at the first space. So for a path with spaces, or a long one, the shell starts the
    interpreter: for Python, the two lines after `#!/bin/sh` are a string.
    """
    line = f"#!{python}"
    if " " not in python and len(line.encode()) <= LONGEST_LINE:
        return line
    return f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''"


def install() -> Path:
    """Writes both files; returns the command's path. Idempotent."""
    packages = Path(sysconfig.get_path("purelib"))
    (packages / "nexus-tasks.pth").write_text(f"{ROOT}\n{ROOT / 'shared'}\n{MEASURED}")
    script = Path(sysconfig.get_path("scripts")) / "nexus"
    script.write_text(SCRIPT.format(start=start_of_script(sys.executable)))
    script.chmod(0o755)
    return script


if __name__ == "__main__":
    install()
