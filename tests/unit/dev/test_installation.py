"""What `make` needs of a machine, and where a checkout may be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dev import install

ROOT = Path(__file__).parents[3]

NEEDED = ("bash", "cat", "flock", "grep", "mkdir", "uname", "find")
"""Programs that the Makefile calls before it has a Python."""

WITHOUT_ENSUREPIP = """\
#!/bin/sh
case "$2" in *ensurepip*) exit 1 ;; *) exit 0 ;; esac
"""


def setup(folder: Path, **programs: str) -> list[str]:
    """The lines on stderr of `make setup` in a checkout with only these programs as Python."""
    path = folder / "bin"
    path.mkdir()
    for name in NEEDED:
        if found := shutil.which(name):
            (path / name).symlink_to(found)
    for name, text in programs.items():
        (path / name.replace("_", ".")).write_text(text)
        (path / name.replace("_", ".")).chmod(0o755)
    shutil.copy(ROOT / "Makefile", folder)
    for name in (".python-version", "dev/install.py", *(f"requirements/{one}.txt" for one in ("dev", "cloud", "sam"))):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    make = shutil.which("make")
    assert make is not None
    alone = {"PATH": str(path), "HOME": str(folder)}
    done = subprocess.run([make, "setup"], cwd=folder, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    return done.stderr.splitlines()


def test_a_missing_python_is_named_in_one_line(tmp_path: Path) -> None:
    said, *make = setup(tmp_path)
    assert said == "Python 3.13 is missing: install it (pyenv install 3.13, or uv python install 3.13)"
    assert all(line.startswith("make") for line in make)


def test_debians_python_without_its_venv_package_is_named_in_one_line(tmp_path: Path) -> None:
    said, *make = setup(tmp_path, python3_13=WITHOUT_ENSUREPIP)
    assert said.startswith("python3.13 cannot create virtual environments: install python3.13-venv")
    assert all(line.startswith("make") for line in make)


@pytest.mark.parametrize("name", ["plain", "with a space"])
def test_a_virtual_environment_that_cannot_work_is_not_used(name: str, tmp_path: Path) -> None:
    original, copy = tmp_path / name, tmp_path / f"{name}-2"
    original.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--clear", ".venv"], cwd=original, check=True)
    shutil.copytree(original, copy, symlinks=True)

    def make(folder: Path) -> tuple[int, bool]:
        command = ["make", "-f", str(ROOT / "Makefile"), "help"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        return done.returncode, "rm -rf .venv* .local/python" in done.stderr

    assert make(tmp_path) == (0, False)
    assert make(original) == (0, False)
    assert make(copy) == (2, True)
    python = original / ".venv/bin/python"
    python.unlink()
    python.symlink_to(tmp_path / "uninstalled/python3.13")
    assert make(original) == (2, True)


@pytest.mark.parametrize("folder", ["plain", "with a space", "long" * 40])
def test_the_command_starts_wherever_the_checkout_is(folder: str, tmp_path: Path) -> None:
    place = tmp_path / folder
    place.mkdir()
    python, program = place / "python", place / "nexus"
    python.symlink_to(sys.executable)
    program.write_text(f"{install.start_of_script(str(python))}\nimport sys\nprint(sys.argv[1:])\n")
    program.chmod(0o755)
    done = subprocess.run([program, "a b", "c"], env=dict(os.environ), capture_output=True, text=True, check=True)
    assert done.stdout == "['a b', 'c']\n"
