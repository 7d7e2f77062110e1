"""The packages that `make build` makes: compiled, cut to what is used, able to start from their .pyc files only."""

import filecmp
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dev import build
from tests.support.patience import PATIENCE

MEGABYTE = 1_000_000
LAMBDA_LIMIT = 250 * MEGABYTE
UNCHECKED_HASH = 0b01

QUEUES = ("Media", "Emails", "Users", "Analytics", "Maintenance", "Default")
LAYER = build.BUILT / "NexusLayer"
PACKAGES = [LAYER, *(build.BUILT / f"{queue}Function" for queue in QUEUES)]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_module_is_compiled_and_never_checked_against_its_source(package: Path) -> None:
    sources = [path for path in package.rglob("*.py") if "__pycache__" not in path.parts]
    assert sources
    for source in sources:
        compiled = Path(importlib.util.cache_from_source(str(source)))
        assert compiled.exists(), f"{source} has no .pyc"
        header = compiled.read_bytes()[:8]
        assert header[:4] == importlib.util.MAGIC_NUMBER
        assert int.from_bytes(header[4:8], "little") == UNCHECKED_HASH, f"{compiled} would be checked, and found stale"


def test_the_layer_carries_the_data_of_the_services_in_use_and_no_others() -> None:
    data = LAYER / "python" / "botocore" / "data"
    assert {folder.name for folder in data.iterdir() if folder.is_dir()} == build.services()
    assert build.size(data) < 3 * MEGABYTE


def test_packages_stay_under_their_size_limits() -> None:
    sizes = {package.name: build.size(package) / MEGABYTE for package in PACKAGES}
    assert sizes["NexusLayer"] < 30
    assert sizes["MediaFunction"] < 175
    assert sizes["EmailsFunction"] < 4
    assert all(sizes[f"{queue}Function"] < 1 for queue in ("Users", "Analytics", "Maintenance", "Default"))
    assert build.size(LAYER) + build.size(build.BUILT / "MediaFunction") < LAMBDA_LIMIT


def test_nothing_that_only_a_developer_needs_is_deployed() -> None:
    for package in PACKAGES:
        assert not list(package.rglob("*.dist-info"))
        assert not list(package.rglob("requirements.txt"))


def test_a_function_starts_on_the_layer_alone_and_makes_every_client() -> None:
    """Given a bare interpreter with only the layer, as in Lambda, the worker loads from .pyc files."""
    script = """
import json, os, sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
os.environ |= {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
from importlib.machinery import SourceFileLoader
compiled = []
SourceFileLoader.source_to_code = lambda self, data, path, **_: compiled.append(path) or compile(data, path, "exec")
import nexus.worker
from nexus.aws.sdk import client
for service in sys.argv[2].split(): client(service)
outside = [name for name, module in list(sys.modules.items())
           if "site-packages" in (getattr(module, "__file__", None) or "")]
print(json.dumps({"compiled": compiled, "outside": outside}))
"""
    services = " ".join(sorted(build.services()))
    command = [sys.executable, "-I", "-S", "-c", script, str(LAYER / "python"), services]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout)
    assert answer == {"compiled": [], "outside": []}


def _different(one: Path, other: Path) -> list[str]:
    """Names of files that are in only one folder, or differ."""
    found: list[str] = []

    def compare(pair: filecmp.dircmp[str]) -> None:
        found.extend(pair.left_only + pair.right_only + pair.common_funny)
        _, differing, errors = filecmp.cmpfiles(pair.left, pair.right, pair.common_files, shallow=False)
        found.extend(str(Path(pair.left) / name) for name in differing + errors)
        for inner in pair.subdirs.values():
            compare(inner)

    compare(filecmp.dircmp(one, other, ignore=[]))
    return found


def test_sam_build_typed_by_hand_makes_what_make_deploy_makes(tmp_path: Path) -> None:
    """Given a fresh clone that has only SAM, `sam build` makes what `make deploy` ships, byte for byte."""
    clone = tmp_path / "clone"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=build.ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        needed = name.startswith(("functions/", "shared/", "dev/", "Makefile", "template.yaml", "samconfig.toml"))
        if needed and (build.ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(build.ROOT / name, clone / name)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("NEXUS_", "MAKE", "PYTHON"))}
    sam = build.ROOT / ".venv-sam" / "bin"
    by_hand = plain | {"PATH": f"{sam}:{plain['PATH']}", "SAM_CLI_TELEMETRY": "0"}

    subprocess.run(["sam", "build"], cwd=clone, env=by_hand, check=True, capture_output=True)
    subprocess.run(["make", "package", "ENV=dev"], cwd=build.ROOT, env=plain, check=True, capture_output=True)

    made, typed = build.ROOT / ".aws-sam" / "build", clone / ".aws-sam" / "build"
    assert {path.name for path in made.iterdir()} == {package.name for package in PACKAGES} | {"template.yaml"}
    assert _different(made, typed) == []
