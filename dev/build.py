"""Finishes what `sam build` made: drops what no function needs, and compiles the rest.

    python -m dev.build [.aws-sam/build]

A package without .pyc files costs more at a cold start than everything else together: Lambda's file system is
read-only, so every module would be compiled each time. They are checked by nothing (unchecked-hash), for SAM's zips set
every time stamp to 1980 and an ordinary .pyc would count as stale. Bytecode does not depend on the architecture.

Botocore's data (28 MB for 400 services) is cut to the services that `nexus.aws.clients` names in its overloads, and
loses its documentation.
"""

import compileall
import gzip
import json
import py_compile
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args, get_overloads

from ops.checkout import ROOT

BUILT: Final = ROOT / ".aws-sam" / "build"

# Never read by a running function. (Pydantic does look through every *.dist-info, for plug-ins, and finds none.)
NEEDLESS: Final = (
    "**/*.dist-info",
    "**/*.data",
    "**/*.pyi",
    "**/*.pxd",
    "**/*.md",
    "**/__pycache__",
    "boto3/examples",
    "bin",
    "pyproject.toml",
    "requirements.txt",
    "build",  # left in shared/ by `pip install ./shared`, beside an egg-info that SAM leaves out by itself
)


class BuildError(Exception):
    """The build is not what `sam build` makes, or does not compile."""


@dataclass(frozen=True, slots=True)
class Package:
    """One built function or layer: its name, and its size before and after in bytes."""

    name: str
    before: int
    after: int


def services() -> frozenset[str]:
    """The AWS services that functions use: those that `nexus.aws.clients.client` has an overload for."""
    from nexus.aws.clients import client

    return frozenset(
        name for overload in get_overloads(client) for name in get_args(overload.__annotations__["service"])
    )


def finish(built: Path = BUILT) -> list[Package]:
    """Prunes and compiles every package in `built`. Doing it again changes nothing.

    Raises BuildError when there is none, or when a module does not compile.
    """
    packages = [folder for folder in sorted(built.iterdir()) if folder.is_dir()] if built.is_dir() else []
    if not packages:
        raise BuildError(f"nothing is built in {built}: run `sam build` first")
    return [_finish(package) for package in packages]


def _finish(package: Path) -> Package:
    is_layer = (package / "python").is_dir()
    root = package / "python" if is_layer else package
    before = size(package)
    for pattern in NEEDLESS:
        for path in list(root.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if (data := root / "botocore" / "data").is_dir():
        cut_botocore(data, services())
    compiled = compileall.compile_dir(
        root,
        quiet=1,
        workers=2,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        stripdir=str(package),
        prependdir="/opt" if is_layer else "/var/task",
    )
    if not compiled:
        raise BuildError(f"{package.name} does not compile")
    return Package(package.name, before, size(package))


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
    try:
        packages = finish(Path(arguments[0]) if arguments else BUILT)
    except BuildError as error:
        print(f"The build cannot be finished: {error}", file=sys.stderr)
        return 1
    for package in packages:
        print(f"  {package.name:<20} {package.after / 1e6:6.1f} MB (was {package.before / 1e6:.1f})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
