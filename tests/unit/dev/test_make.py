"""What the Makefile's recipes do, with the programs that they call replaced."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = ("functions/users/refresh.py", "functions/users/revoke.py", "shared/nexus/tasks.py")

type Make = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Runs make in a checkout whose SAM notes its calls in the file `sam`, and whose local cloud does not run."""
    for name in ("template.yaml", "samconfig.toml", "dev/build.py", "dev/emulator_stack.py", *SOURCES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shutil.copy(ROOT / "dev/progress.py", tmp_path / "dev")
    shutil.copy(ROOT / "dev/emulator_stack.yaml", tmp_path / "dev")
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local/python").write_text(sys.executable)
    (tmp_path / "python").write_text("#!/bin/sh\necho 'The local cloud is not running' >&2\nexit 1\n")
    (tmp_path / "nexus").write_text("#!/bin/sh\necho nexus started\n")
    for name in ("python", "nexus"):
        (tmp_path / name).chmod(0o755)
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "NEXUS_"))}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        ready = [word for name in (".venv/ready", ".venv-sam/ready") for word in ("-o", name)]
        sam = 'SAM=sam() { echo "$$*" >> sam; mkdir -p .aws-sam/local; }; sam'
        command = ["make", "-C", str(tmp_path), "-f", str(ROOT / "Makefile"), *ready, f"DEV={tmp_path}", sam]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, env=alone, check=False)

    return run


def test_nothing_is_deployed_to_the_users_account_if_the_local_cloud_is_missing(make: Make, tmp_path: Path) -> None:
    done = make("-o", ".aws-sam/local/finished", ".local/cloud/deployed")

    assert done.returncode == 2
    assert "The local cloud is not running" in done.stderr
    assert not (tmp_path / "sam").exists()


def test_a_recipe_ends_if_the_local_clouds_variables_are_missing(make: Make) -> None:
    done = make("-o", "up", "web")
    assert (done.returncode, "nexus started" in done.stdout) == (2, False)


def test_no_recipe_takes_variables_from_a_command_that_may_fail_unnoticed() -> None:
    assert 'eval "$$($' not in (ROOT / "Makefile").read_text()


def builds(make: Make, tmp_path: Path) -> int:
    done = make(".aws-sam/local/finished")
    assert done.returncode == 0, done.stderr
    return len((tmp_path / "sam").read_text().splitlines())


def test_a_source_that_is_renamed_or_deleted_is_a_change_to_build(make: Make, tmp_path: Path) -> None:
    assert builds(make, tmp_path) == 1
    assert builds(make, tmp_path) == 1

    source = tmp_path / SOURCES[0]
    source.rename(source.with_name("renew.py"))  # its time stays as it was
    assert builds(make, tmp_path) == 2

    (tmp_path / SOURCES[1]).unlink()
    assert builds(make, tmp_path) == 3
    assert builds(make, tmp_path) == 3


INSTALLED = {
    "axe.violations": ".local/axe/ready",
    "tests.support.browser": ".local/chromium",
    '".venv-sam"': ".venv-sam/ready",
    '".venv-second"': ".venv-second/ready",
}
"""What tests name, and the target that installs it."""


def prerequisites(makefile: str, target: str) -> set[str]:
    """A target's prerequisites, theirs, and what the recipe of `setup` makes."""
    if target == "setup":
        return set(re.findall(r"\.venv[\w-]*/ready", makefile.partition("\nsetup:")[2].partition("\n\n")[0]))
    found = re.search(rf"^{re.escape(target)}:([^#\n]*)", makefile, re.MULTILINE)
    direct = set(found[1].split()) if found else set()
    return direct.union(*(prerequisites(makefile, one) for one in direct))


@pytest.mark.parametrize("stage", ["programs", "integration", "e2e", "second"])
def test_a_stage_that_is_run_alone_installs_what_its_tests_use(stage: str) -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests" / stage).glob("*.py"))
    used = {target for name, target in INSTALLED.items() if name in tests}
    assert used
    assert used <= prerequisites((ROOT / "Makefile").read_text(), stage)
