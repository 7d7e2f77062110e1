"""The module that Lambda imports: what init prepares for the first event, and what is left for events that need it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nexus
from nexus.errors import ConfigurationError

LATER = {"asyncio", "boto3", "botocore.session", "concurrent.futures", "nexus.backend.memory", "nexus.client"}
"""Modules that most events never need."""

IN_INIT = {"aws_lambda_powertools", "botocore.exceptions", "nexus.aws.slim", "shop", "ssl"}
"""Modules that every first event needs, or the function's own."""

VARIABLES = {
    "NEXUS_STACK": "nexus-test",
    "NEXUS_QUEUE": "orders",
    "NEXUS_CATALOGUE": "shop",
    "AWS_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
}

SHOP = """
from nexus import NoArguments, Result, Task, register
pack = Task(name="pack", queue="orders", arguments=NoArguments, result=Result, summary="Packs an order.")
register(__name__)
"""

LOADED = """
import gc, json, sys
from nexus.aws import surroundings
print(json.dumps({
    "modules": sorted(sys.modules),
    "collects": gc.isenabled(),
    "frozen": gc.get_freeze_count(),
    "contexts": surroundings.tls.cache_info().currsize,
}))
"""


def start(folder: Path, program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process as Lambda starts it: the function's folder and the layer's on the path, and its variables."""
    (folder / "shop.py").write_text(SHOP)
    path = os.pathsep.join([str(folder), str(Path(nexus.__file__).parents[1])])
    own = re.compile("AWS_|NEXUS_|.*_PROXY$", re.IGNORECASE)
    usual = {name: value for name, value in os.environ.items() if not own.match(name)}
    environment = {**usual, **VARIABLES, "HOME": str(folder), "PYTHONPATH": path, **variables}
    command = [sys.executable, "-c", program + LOADED]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def loaded(folder: Path, program: str) -> Any:
    """The modules that such a process has loaded."""
    done = start(folder, program)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_worker_alone_imports_only_what_every_event_needs(tmp_path: Path) -> None:
    modules = set(loaded(tmp_path, "import nexus.worker")["modules"])
    assert not modules & (LATER | IN_INIT | {"http.client", "logging"})


def test_init_makes_ready_what_the_first_event_needs(tmp_path: Path) -> None:
    found = loaded(tmp_path, "import nexus.function")
    modules = set(found["modules"])
    assert modules >= IN_INIT
    assert not modules & LATER
    assert found["contexts"] == 1


def test_objects_made_by_init_are_frozen_for_the_garbage_collector(tmp_path: Path) -> None:
    found = loaded(tmp_path, "import nexus.function")
    assert found["collects"]
    assert found["frozen"] > 10_000


def test_a_function_that_cannot_be_made_ready_ends_in_init_with_its_reason(tmp_path: Path) -> None:
    done = start(tmp_path, "import nexus.function", NEXUS_CATALOGUE="nowhere.catalogue")
    assert done.returncode != 0
    reason = "NEXUS_CATALOGUE: the catalogue nowhere.catalogue cannot be imported: No module named 'nowhere'"
    assert done.stderr.splitlines()[-1] == f"{ConfigurationError.__module__}.ConfigurationError: {reason}"
