"""The end of a build: what it removes, what it keeps, and that botocore still works with the rest."""

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
from tests.support.template import resources, template

ROOT = Path(__file__).parents[3]
BOTOCORE_DATA = Path(botocore.__file__).parent / "data"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The files that pip installs for a small package."""
    root = tmp_path / "installed"
    for name, text in {
        "package/__init__.py": "",
        "package/__init__.pyi": "",
        "package/README.md": "",
        "package/__pycache__/__init__.cpython-313.pyc": "stale",
        "package/template.html": "<p>",
        "package-1.dist-info/METADATA": "Name: package",
        "bin/package": "",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_files_that_only_a_developer_needs_are_removed_from_packages(installed: Path) -> None:
    build.cut(installed)
    assert names(installed) == {"package/__init__.py", "package/template.html"}


def test_a_function_is_its_sources_compiled_and_nothing_else(tmp_path: Path) -> None:
    built = tmp_path / "built"
    build.build("UsersFunction", built)

    sources = {path.name for path in (ROOT / "functions/users").glob("*.py")}
    compiled = {f"__pycache__/{Path(name).stem}.cpython-313.pyc" for name in sources}
    assert names(built) == sources | compiled
    assert b"/var/task/revoke_user_tokens.py" in (built / "__pycache__/revoke_user_tokens.cpython-313.pyc").read_bytes()


def test_files_that_editors_leave_are_not_deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "ROOT", tmp_path)
    sources = tmp_path / "functions/users"
    (sources / "mail").mkdir(parents=True)
    for name in ("task.py", "mail/welcome.html", ".task.py.swp", "task.py~", "mail/.DS_Store"):
        (sources / name).touch()
    (sources / ".#task.py").symlink_to("ada@laptop.4711")  # Emacs's lock

    build.build("UsersFunction", tmp_path / "built")

    assert names(tmp_path / "built") == {"task.py", "mail/welcome.html", "__pycache__/task.cpython-313.pyc"}


def test_files_left_by_installing_the_client_are_no_source_and_make_clean_removes_them(tmp_path: Path) -> None:
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


def test_a_changed_parameter_makes_another_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new layer publishes a version of every function; SAM publishes none for a parameter's value alone."""
    for name in ("shared/nexus/__init__.py", "shared/social/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(build, "ROOT", tmp_path)

    def layer() -> dict[str, bytes]:
        build.build("NexusLayer", tmp_path / "built")
        return {name: (tmp_path / "built" / name).read_bytes() for name in names(tmp_path / "built")}

    without = layer()
    (tmp_path / "samconfig.toml").write_text('parameter_overrides = ["LogLevel=INFO"]')
    first, again = layer(), layer()
    (tmp_path / "samconfig.toml").write_text('parameter_overrides = ["LogLevel=DEBUG"]')
    assert without.keys() < first.keys()
    assert first == again
    second = layer()
    assert first.keys() == second.keys()
    assert first != second
    (tmp_path / "samconfig.toml").write_text('parameter_overrides = ["LogLevel=DEBUG"]\n# Deployed again')
    assert layer() not in (first, second), "a comment is enough to get past a version that exists (docs/deploy.md)"


SOURCE = "NAMES = {'a', 'b', 'c', 'd'}\n\n\ndef is_known(name: str) -> bool:\n    return name in {'x', 'y', 'z'}\n"


def test_a_build_is_the_same_for_every_hash_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of strings have another order in every process, unless their hashes are fixed."""
    compiled = []
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        folder = tmp_path / seed
        folder.mkdir()
        (folder / "task.py").write_text(SOURCE)
        build.compile_all(folder, "SmallFunction", [folder])
        compiled.append((folder / "__pycache__/task.cpython-313.pyc").read_bytes())
    assert compiled[0] == compiled[1]
    assert b"/var/task/task.py" in compiled[0]


def test_a_module_that_does_not_compile_fails_the_build(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "task.py").write_text("def broken(:\n")
    with pytest.raises(build.BuildError, match="SmallFunction does not compile"):
        build.compile_all(tmp_path, "SmallFunction", [tmp_path])
    assert "SyntaxError" in "".join(capfd.readouterr())


def test_each_function_of_the_template_and_the_layer_are_built_from_their_uri() -> None:
    functions, layers = resources("AWS::Serverless::Function"), resources("AWS::Serverless::LayerVersion")
    uris = {name: body["Properties"]["CodeUri"] for name, body in functions.items()}
    uris |= {name: body["Properties"]["ContentUri"] for name, body in layers.items()}
    assert len(uris) == 7
    assert {name: build.source_of(name) for name in uris} == {name: ROOT / uri for name, uri in uris.items()}
    with pytest.raises(build.BuildError, match="no function MdiaFunction"):
        build.source_of("MdiaFunction")


def test_packages_are_built_for_the_architecture_of_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEXUS_ARCHITECTURE", raising=False)
    assert build.architecture() == template()["Parameters"]["Architecture"]["Default"]
    rule = template()["Rules"]["PackagesAreBuiltForTheFunctions"]["Assertions"][0]["Assert"]
    assert rule == {"Fn::Equals": [{"Ref": "Architecture"}, build.architecture()]}
    monkeypatch.setenv("NEXUS_ARCHITECTURE", "sparc")
    with pytest.raises(build.BuildError, match="sparc: it must be one of arm64, x86_64"):
        build.architecture()


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


def test_documentation_is_removed_unless_it_is_a_members_name() -> None:
    model = {"documentation": "<p>Long</p>", "members": {"documentation": {"shape": "Text", "documentation": "Short"}}}
    assert build._undocumented(model) == {
        "documentation": "",
        "members": {"documentation": {"shape": "Text", "documentation": ""}},
    }
    assert json.dumps(build._undocumented([{"documentation": 1}])) == '[{"documentation": 1}]'
