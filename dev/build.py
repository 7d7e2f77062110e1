"""Builds one function or the layer for Lambda. `sam build` calls it, through the Makefile's target build-<logical id>.

    python -m dev.build MediaFunction .aws-sam/build/MediaFunction

Builds are reproducible byte for byte on any machine, and start as fast as possible:

- Packages are wheels for the functions' architecture, not this machine's: NEXUS_ARCHITECTURE, or template.yaml's
  (SAM does not pass it to a makefile).
- Everything is compiled. Lambda's file system is read-only, so a module without a .pyc file is compiled at every cold
  start, which costs more than the rest of it. The .pyc files are not validated (unchecked-hash), since SAM's zips set
  every timestamp to 1980, which would make ordinary ones stale.
- Files that no function reads are left out. Botocore's data (28 MB for 400 services) is cut to the services that
  `nexus.aws.sdk` names in its overloads, and loses its documentation.

Packages are cached in .aws-sam/packages under a hash of their inputs, so that a changed task builds within a second.
Needs only Python 3.13 with pip, and nothing else from the project.
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, get_args, get_overloads

ROOT: Final = Path(__file__).resolve().parent.parent
BUILT: Final = ROOT / ".aws-sam" / "local"
"""The output of `make build` for the local cloud. The output for AWS is in SAM's own .aws-sam/build."""
KEPT: Final = ROOT / ".aws-sam" / "packages"

LAYER: Final = "NexusLayer"
LAYER_PACKAGES: Final = ("nexus", "social")
PARAMETERS: Final = "samconfig.sha256"
"""A file of the layer that changes with the parameters in samconfig.toml.

Functions read parameters as environment variables, and are called at a published version. SAM publishes one if the code
or the template has changed, but not if only a parameter's value has. A changed layer publishes one of every function.
"""

MACHINES: Final = {"arm64": "aarch64", "x86_64": "x86_64"}
WHEELS: Final = (*(f"manylinux_2_{minor}" for minor in (34, 28, 26, 24, 17)), "manylinux2014")
"""The wheel platforms that Lambda's Python 3.13 accepts, best first: its Amazon Linux 2023 has glibc 2.34."""

NEEDLESS: Final = (
    "**/*.dist-info",
    "**/*.data",
    "**/*.pyi",
    "**/*.pxd",
    "**/*.pyx",
    "**/*.md",
    "**/__pycache__",
    "boto3/examples",
    "bin",
)
"""Files never read by a running function. (Pydantic searches every *.dist-info for plug-ins and finds none.)"""


class BuildError(Exception):
    """A package cannot be built; the message says why."""


def build(name: str, folder: Path) -> None:
    """Builds the function or layer of that logical id into `folder`, after emptying it. Raises BuildError."""
    source = source_of(name)
    shutil.rmtree(folder, ignore_errors=True)
    root = folder / "python" if name == LAYER else folder
    if (requirements := source / "requirements.txt").is_file():
        shutil.copytree(packages(requirements, name), root)
    root.mkdir(parents=True, exist_ok=True)
    for part in LAYER_PACKAGES if name == LAYER else ["."]:
        shutil.copytree(source / part, root / part, ignore=_not_source, dirs_exist_ok=True)
    sources = (root / path.relative_to(source) for path in source.rglob("*.py"))
    compile_all(root, name, [path for path in sources if path.is_file()])
    if name == LAYER and (configuration := ROOT / "samconfig.toml").is_file():
        (folder / PARAMETERS).write_text(hashlib.sha256(configuration.read_bytes()).hexdigest())


def _not_source(_: str, names: list[str]) -> set[str]:
    """Also leaves out what editors and file managers keep beside the sources: .task.py.swp, task.py~, .DS_Store."""
    left_out = ("__pycache__", "requirements.txt")
    return {name for name in names if name in left_out or name.startswith(".") or name.endswith((".md", "~"))}


def source_of(name: str) -> Path:
    """The folder that the function or layer of that logical id is built from. Raises BuildError if there is none."""
    folder = ROOT / "shared" if name == LAYER else ROOT / "functions" / name.removesuffix("Function").lower()
    if not folder.is_dir() or (name != LAYER and not name.endswith("Function")):
        raise BuildError(f"there is no function {name}: {folder} is missing")
    return folder


def architecture() -> str:
    """The architecture to build for, by Lambda's name. Raises BuildError if it is neither arm64 nor x86_64."""
    target = os.environ.get("NEXUS_ARCHITECTURE")
    if not target:
        text = (ROOT / "template.yaml").read_text()
        found = re.search(r"^  Architecture:\n(?:    .*\n)*?    Default: (\S+)$", text, re.MULTILINE)
        target = found[1] if found else "not to be found in template.yaml"
    if target not in MACHINES:
        raise BuildError(f"the architecture is {target}: it must be one of {', '.join(MACHINES)}")
    return target


def packages(requirements: Path, name: str) -> Path:
    """A cached folder with the packages of a requirements file: installed, cut and compiled."""
    target = architecture()
    made_of = (requirements, Path(__file__), ROOT / "shared" / "nexus" / "aws" / "sdk.py")
    identity = hashlib.sha256(b"".join(path.read_bytes() for path in made_of))
    identity.update(f"{name == LAYER} {target} {sys.version}".encode())
    kept = KEPT / identity.hexdigest()[:16]
    if kept.is_dir():
        return kept
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
        root = Path(scratch) / "packages"
        _install(requirements, root, target)
        cut(root)
        compile_all(root, name, [root])
        try:
            root.rename(kept)
        except OSError:
            if not kept.is_dir():  # a concurrent build finished first, with the same packages
                raise
    return kept


def _install(requirements: Path, root: Path, target: str) -> None:
    platforms = [word for wheels in WHEELS for word in ("--platform", f"{wheels}_{MACHINES[target]}")]
    command: list[str | Path] = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
        *("--requirement", requirements, "--require-hashes", "--no-deps", "--target", root),
        *("--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.13", *platforms),
    ]
    if subprocess.run(command, check=False).returncode:
        raise BuildError(f"pip cannot install {requirements}: see above")


def cut(root: Path) -> None:
    """Removes files that no function reads from installed packages."""
    for pattern in NEEDLESS:
        for path in list(root.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if (data := root / "botocore" / "data").is_dir():
        cut_botocore(data, services())


def compile_all(root: Path, name: str, paths: Iterable[Path]) -> None:
    """Compiles files and folders under `root`, with the file names that they have in Lambda. Raises BuildError.

    Uses one process, a fixed order and a fixed hash seed: marshal's output depends on which objects are shared and on
    the order of string sets, so on what the process did before. That includes the path files of a virtual environment,
    so there is no `site`.
    """
    deployed = "/opt/python" if name == LAYER else "/var/task"
    command: list[str | Path] = [
        *(sys.executable, "-S", "-P", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
        *("-s", root, "-p", deployed),
        *sorted(paths),
    ]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if subprocess.run(command, check=False, env=plain | {"PYTHONHASHSEED": "0"}).returncode:
        raise BuildError(f"{name} does not compile: see above")


def services() -> frozenset[str]:
    """The AWS services that functions use: those with an overload of `nexus.aws.sdk.client`."""
    from nexus.aws.sdk import client

    return frozenset(
        name for overload in get_overloads(client) for name in get_args(overload.__annotations__["service"])
    )


def cut_botocore(data: Path, kept: frozenset[str]) -> None:
    """Cuts botocore's data folder to the services in `kept`: the newest version, no examples, no documentation."""
    for folder in data.iterdir():
        if folder.is_dir() and folder.name not in kept:
            shutil.rmtree(folder)
    prefixes = set()
    for service in sorted(kept):
        *older, newest = sorted((data / service).iterdir())
        for version in older:
            shutil.rmtree(version)
        for example in newest.glob("examples-*"):
            example.unlink()
        for packed in newest.glob("*.json.gz"):
            plain = packed.with_suffix("")
            plain.write_text(
                json.dumps(_undocumented(json.loads(gzip.decompress(packed.read_bytes()))), separators=(",", ":"))
            )
            packed.unlink()
        prefixes.add(json.loads((newest / "service-2.json").read_text())["metadata"]["endpointPrefix"])
    file = data / "endpoints.json"
    endpoints = json.loads(file.read_text())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: value for name, value in partition["services"].items() if name in prefixes}
    file.write_text(json.dumps(endpoints, separators=(",", ":")))


def _undocumented(model: Any) -> Any:
    """A model with empty documentation strings (botocore's S3 handlers append to one, so the key must stay)."""
    if isinstance(model, dict):
        return {
            name: "" if name == "documentation" and isinstance(value, str) else _undocumented(value)
            for name, value in model.items()
        }
    return [_undocumented(value) for value in model] if isinstance(model, list) else model


def size(folder: Path) -> int:
    """The bytes of all files under a folder, unzipped, as Lambda counts them against its 250 MB."""
    return sum(path.stat().st_size for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def main(arguments: list[str]) -> int:
    """The command line; its exit code."""
    if len(arguments) != 2:
        print("Usage: python -m dev.build LOGICAL_ID FOLDER (`sam build` does this)", file=sys.stderr)
        return 2
    name, folder = arguments
    try:
        build(name, Path(folder))
    except BuildError as error:
        print(f"{name} cannot be built: {error}", file=sys.stderr)
        return 1
    print(f"  {name:<20} {size(Path(folder)) / 1e6:6.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
