"""The finish of a build: what it drops, what it keeps, and that botocore still works on what is left."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import botocore
import botocore.session
import pytest
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader

from dev import build

ROOT = Path(__file__).parents[3]
BOTOCORE_DATA = Path(botocore.__file__).parent / "data"


@pytest.fixture
def function(tmp_path: Path) -> Path:
    """What `sam build` leaves of a small function: its module, a package, and what came with the package."""
    package = tmp_path / "SmallFunction"
    for name, text in {
        "task.py": "VALUE = 1\n",
        "requirements.txt": "package==1\n",
        "package/__init__.py": "",
        "package/__init__.pyi": "",
        "package/__pycache__/__init__.cpython-313.pyc": "stale",
        "package/template.html": "<p>",
        "package-1.dist-info/METADATA": "Name: package",
        "build/lib/package/__init__.py": "",
    }.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_modules_are_compiled_and_what_only_a_developer_needs_is_gone(function: Path) -> None:
    (report,) = build.finish(function.parent)

    assert report.name == "SmallFunction"
    assert names(function) == {
        "task.py",
        "__pycache__/task.cpython-313.pyc",
        "package/__init__.py",
        "package/__pycache__/__init__.cpython-313.pyc",
        "package/template.html",
    }


def test_what_an_installation_of_the_client_leaves_is_no_source_and_make_clean_removes_it(tmp_path: Path) -> None:
    left = ("shared/build/lib/nexus/tasks.py", "shared/nexus_tasks_client.egg-info/PKG-INFO")
    for name in ("shared/nexus/tasks.py", "shared/requirements.txt", "functions/default/task.py", *left):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def make(*arguments: str) -> str:
        command = ["make", "-C", str(tmp_path), "-f", str(ROOT / "Makefile"), *arguments]
        alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=alone).stdout

    sources = make("-s", "--eval", "sources: ; @echo $(SOURCES)", "sources").split()
    assert set(sources) == {"functions/default/task.py", "shared/nexus/tasks.py", "shared/requirements.txt"}
    make("clean")
    assert names(tmp_path) == set(sources)


def test_it_compiles_to_the_same_bytes_wherever_it_was_built(function: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(function.parent / "SmallFunction", elsewhere / "SmallFunction")

    build.finish(elsewhere)
    shutil.move(elsewhere, tmp_path.parent / f"{tmp_path.name}-elsewhere")
    build.finish(tmp_path)

    compiled = "SmallFunction/__pycache__/task.cpython-313.pyc"
    here, there = tmp_path / compiled, tmp_path.parent / f"{tmp_path.name}-elsewhere" / compiled
    assert here.read_bytes() == there.read_bytes()
    assert b"/var/task/task.py" in here.read_bytes()


def test_finishing_twice_changes_nothing(function: Path) -> None:
    build.finish(function.parent)
    once = {path: path.read_bytes() for path in function.rglob("*") if path.is_file()}
    build.finish(function.parent)
    assert {path: path.read_bytes() for path in function.rglob("*") if path.is_file()} == once


def test_a_module_that_does_not_compile_fails_the_build(function: Path) -> None:
    (function / "task.py").write_text("def broken(:\n")
    with pytest.raises(build.BuildError, match="SmallFunction does not compile"):
        build.finish(function.parent)


def test_there_is_nothing_to_finish_before_a_build(tmp_path: Path) -> None:
    with pytest.raises(build.BuildError, match="run `sam build` first"):
        build.finish(tmp_path / "nowhere")


@pytest.mark.usefixtures("environment")
def test_botocore_makes_clients_of_the_services_that_are_kept_and_of_no_others(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("dynamodb", "s3", "ec2"):
        shutil.copytree(BOTOCORE_DATA / name, data / name)
    for file in BOTOCORE_DATA.glob("*.json"):
        shutil.copy(file, data)
    before = build.size(data)

    build.cut_botocore(data, frozenset({"dynamodb", "s3"}))

    assert build.size(data) < before / 2
    session = botocore.session.get_session()
    session.register_component(
        "data_loader", Loader(extra_search_paths=[str(data)], include_default_search_paths=False)
    )
    keys: Any = {"region_name": "eu-west-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
    assert session.create_client("dynamodb", **keys).can_paginate("scan")
    assert session.create_client("s3", **keys).meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"
    with pytest.raises(UnknownServiceError):
        session.create_client("ec2", **keys)


def test_every_service_that_the_code_may_ask_for_is_deployed() -> None:
    assert {"dynamodb", "sqs", "s3", "sesv2", "scheduler"} <= build.services()
    assert all((BOTOCORE_DATA / service).is_dir() for service in build.services())


def test_documentation_goes_and_a_member_of_that_name_stays() -> None:
    model = {"documentation": "<p>Long</p>", "members": {"documentation": {"shape": "Text", "documentation": "Short"}}}
    assert build._undocumented(model) == {
        "documentation": "",
        "members": {"documentation": {"shape": "Text", "documentation": ""}},
    }
    assert json.dumps(build._undocumented([{"documentation": 1}])) == '[{"documentation": 1}]'
