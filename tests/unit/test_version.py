"""One version: the package's, which every other place repeats."""

import tomllib
from pathlib import Path

import pytest

import nexus
from nexus.version import VERSION
from ops.main import main
from ops.template import load

ROOT = Path(__file__).parents[2]
TEMPLATES = [ROOT / "template.yaml", *sorted((ROOT / "examples").glob("*/template.yaml"))]


def test_the_package_the_project_and_the_command_have_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert nexus.__version__ == VERSION
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nexus {VERSION}\n"


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.parent.name)
def test_every_template_has_the_version_as_an_output(template: Path) -> None:
    assert load(template.read_text())["Outputs"]["Version"]["Value"] == VERSION


def test_the_changelog_has_the_version() -> None:
    assert f"## [{VERSION}] - " in (ROOT / "CHANGELOG.md").read_text()
