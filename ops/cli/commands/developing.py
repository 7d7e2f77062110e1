"""The command for writing tasks: dev."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli import common
from ops.cli.common import command, options
from ops.problems import ExitCode, Problem, usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def add_to(app: typer.Typer) -> None:
    """Adds this command."""
    command(app, "dev")(dev)


def dev(
    *,
    queues: Annotated[
        list[str] | None,
        typer.Argument(help="Only these queues (default: all).", metavar="QUEUE", autocompletion=common.complete_queue),
    ] = None,
    replay: Annotated[str | None, typer.Option(help="First run the task of this run again.", metavar="RUN")] = None,
    of: Annotated[
        str | None,
        typer.Option(
            "--from", help="The stack that has this run; --profile and --region then apply to it.", metavar="STACK"
        ),
    ] = None,
    functions: Annotated[
        Path | None, typer.Option(help="The folder of the tasks' code. [NEXUS_FUNCTIONS, else ./functions]")
    ] = None,
) -> int:
    """Run a stack's messages here, with this checkout's code and breakpoints, again after each change."""
    from ops.cli.loop import session

    if options.json:
        raise usage("dev needs a terminal", "It has no JSON output.")
    if of is not None and replay is None:
        raise usage("--from names the stack of the run to replay", do="Give --replay RUN too.")
    code = _code(functions)
    run = None if of is None else _elsewhere(str(replay), of)
    deployment = common.connect()
    if deployment.is_prod:
        do = "Replay one of its runs elsewhere: `nexus dev --replay RUN --from STACK`."
        raise Problem(f"{deployment.stack} is production: nexus dev does not run its queues", do=do)
    wanted = list(dict.fromkeys(map(common.the_queue, queues or common.the_queues(None))))
    last = None if replay is None else _last(run or _here(replay), wanted)
    session.run(deployment, wanted, code, last)
    return ExitCode.DONE


def _code(given: Path | None) -> Path:
    """The folder of the tasks' code. Raises Problem if it does not exist."""
    from ops import checkout

    folder = given or Path(os.environ.get("NEXUS_FUNCTIONS") or "functions")
    if given is None and not folder.is_dir():
        folder = checkout.ROOT / "functions"
    if not folder.is_dir():
        raise usage(f"--functions: {folder} is not a folder")
    return folder.resolve()


def _here(text: str) -> "Mapping[str, Any]":
    from nexus.client import AsyncResult
    from ops import lookup, runs

    return runs.as_plain(AsyncResult[Any](lookup.run_id(text)).record(), result=False)


def _elsewhere(text: str, stack: str) -> "Mapping[str, Any]":
    """A run of another stack, read by another process: this one is connected to its own stack only."""
    command = [sys.executable, "-c", "import sys; from ops.main import main; sys.exit(main())"]
    for name in ("profile", "region"):
        if value := getattr(options, name):
            command += [f"--{name}", value]
            setattr(options, name, None)
    command += ["--stack", stack, "--json", "result", text]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise Problem(f"--replay: {text} of {stack} cannot be read", done.stderr.strip()) from None
    return found


def _last(run: "Mapping[str, Any]", queues: "Sequence[str]") -> "Mapping[str, Any]":
    """What a worker runs first: the run's task with its arguments. Raises Problem if they are not known."""
    from nexus.definitions import HIDDEN
    from nexus.errors import InvalidMessage

    what = f"--replay: {run['id']}"
    if run["status"] == "UNKNOWN" or not run["task"]:
        raise Problem(f"{what} is unknown", "No run has this id: never sent, or its record has expired.")
    if run["args"] is None or HIDDEN in run["args"].values():
        raise Problem(f"{what} cannot be replayed", "Its record lacks arguments that are secret or too large.")
    task = common.the_task(run["task"])
    try:
        task.check(run["args"])
    except InvalidMessage as error:
        do = f"It is a part of {run['parent']}: replay that." if run["parent"] else ""
        raise Problem(f"{what}: {task.name} does not take its arguments", str(error), do) from None
    queue = next((name for name in (run["queue"], task.queue) if name in queues), None)
    if queue is None:
        raise usage(f"{what} belongs to the queue {task.queue or run['queue']}", do="Name that queue too.")
    return {"queue": queue, "event": None, "runs": [{"task": task.name, "args": run["args"]}]}
