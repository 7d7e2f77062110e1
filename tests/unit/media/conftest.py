"""The media function's unit tests."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("media", deadline=None)  # how long a picture takes says nothing about it
settings.load_profile("media")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for what is made of a clip."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
