"""`pip install ./shared`: what an application gets, and that pytest finds the plugin in it by itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE

SHARED = Path(__file__).parents[2] / "shared"
TEST = """
from social import application
from social.catalogue import send_welcome_email

def test_a_user_registers(nexus_tasks):
    user = application.register("ada@example.com", "Ada")
    send_welcome_email.delay(user_id=user.user_id)
    nexus_tasks.assert_sent(send_welcome_email, user_id=user.user_id)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed; what it needs is in this environment already."""
    source, target = tmp_path_factory.mktemp("source") / "shared", tmp_path_factory.mktemp("installed")
    shutil.copytree(SHARED, source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(source)]
    subprocess.run(pip, check=True, timeout=PATIENCE)
    return target


def test_an_applications_test_finds_the_plugin_and_needs_no_variable(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "test_view.py").write_text(TEST)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "NEXUS_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_view.py"],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
