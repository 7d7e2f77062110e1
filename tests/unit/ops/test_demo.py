"""The output of `make run`: how long each upload took from its put, and commands to try next."""

import re
from pathlib import Path

from dev import demo
from ops.main import main
from ops.social.upload import Upload
from social.data.posts import Media

ROOT = Path(__file__).parents[3]


def test_the_seconds_are_labelled_as_those_until_an_upload_is_ready(tmp_path: Path) -> None:
    sample = tmp_path / "a.jpg"
    sample.touch()
    media = Media(status="ready", kind="image", width=1, height=1)

    (taken,) = demo.tables([demo.Sample(sample, Upload("u", "p-1", "k", ""), seconds=1.5, media=media)])

    assert [str(column.header) for column in taken.columns][-1] == "seconds\nuntil ready"


def test_every_command_that_it_ends_with_exists() -> None:
    commands = re.findall(r"nexus ([a-z]+)", demo.NEXT)
    assert commands == ["status", "upload", "dlq"]
    for command in commands:
        assert main([command, "--help"]) == 0
    targets = re.findall(r"make ([a-z]+)", demo.NEXT)
    assert targets == ["web", "example"]
    for target in targets:
        assert f"\n{target}: " in (ROOT / "Makefile").read_text()
    assert 'PATH="$PWD/.venv/bin:$PATH"' in (ROOT / "README.md").read_text()
