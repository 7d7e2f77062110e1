"""The media function's unit tests."""

from pathlib import Path

import pytest


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for what is made of a clip."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
