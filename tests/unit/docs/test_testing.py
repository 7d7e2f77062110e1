"""docs/testing.md: each of its tests passes in an application's own test run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import blocks

ROOT = Path(__file__).parents[3]
PAGE = "testing.md"

pytestmark = pytest.mark.programs


def test_the_pages_tests_pass_with_no_variable_and_no_aws(tmp_path: Path) -> None:
    # Given an application that has the view, and the page's tests as modules of its own
    found = [block for block in blocks(PAGE) if block.language == "python"]
    tests = [block for block in found if block.words == ("test",)]
    (view,) = (block for block in found if block.words == ("view",))
    (tmp_path / "view.py").write_text(view.text)
    for number, block in enumerate(tests):
        (tmp_path / f"test_{number}.py").write_text(block.text)
    path = ":".join(map(str, (ROOT / "shared", tmp_path)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "NEXUS_", "PYTEST_"))}

    # When it runs them
    command = [sys.executable, "-m", "pytest", "-q", "-p", "nexus.pytest", "-p", "no:cacheprovider", "-W", "error"]
    environment = {**kept, "PYTHONPATH": path, "NEXUS_FUNCTIONS": str(ROOT / "functions")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    # Then they pass, every one of them
    assert f"{sum(block.text.count('def test_') for block in tests)} passed" in done.stdout, done.stdout
