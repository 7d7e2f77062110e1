"""Commands about this checkout's local cloud: up, down, env."""

import subprocess
import sys
from typing import TextIO

import typer

from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import ExitCode, Problem, usage


def add_to(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "up")(up)
    command(app, "down")(down)
    command(app, "env")(env)


def up() -> int:
    """Start the local cloud and deploy changes to it, as `make up` does."""
    from ops import checkout

    if any((options.stack, options.profile, options.region)):
        raise usage("up starts the local cloud", do="A stack in AWS is deployed by `make deploy ENV=dev|prod`.")
    made = _make("up", stdout=sys.stderr if options.json else None)
    cloud = checkout.running()
    if not made or cloud is None:
        raise Problem("The local cloud did not start", "The failure is shown above.", "Logs are in .local/log.")
    if options.json:
        output.emit({"endpoint": cloud.endpoint, "pid": cloud.pid, "environment": cloud.exports()})
    else:
        output.line(f"{checkout.STACK} runs at {cloud.endpoint}. `nexus status` shows it, `nexus down` ends it.")
    return ExitCode.DONE


def down(yes: common.Yes = False) -> int:
    """Stop the local cloud and delete its data."""
    from ops import checkout

    cloud = checkout.running()
    if cloud is not None and not yes and sys.stdin.isatty():
        print(
            f"Stop the local cloud at {cloud.endpoint} and delete its data? [y/N] ", end="", file=sys.stderr, flush=True
        )
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Problem("Nothing was changed", code=ExitCode.NOT_CONFIRMED)
    elif cloud is not None and not yes:
        raise Problem(
            "Nothing was changed",
            "stdin is not a terminal, so no question could be asked.",
            "Give --yes.",
            ExitCode.NOT_CONFIRMED,
        )
    if cloud is not None and not _make("stop", stdout=sys.stderr):
        raise Problem("The local cloud did not stop", "The failure is shown above.")
    if options.json:
        output.emit({"stopped": cloud is not None})
    else:
        output.line("No local cloud was running." if cloud is None else "The local cloud has stopped.")
    return ExitCode.DONE


def _make(target: str, stdout: TextIO | None) -> bool:
    """Runs make for a target in this checkout; whether it succeeded."""
    from ops import checkout

    return not subprocess.run(["make", "-C", str(checkout.ROOT), target], check=False, stdout=stdout).returncode


def env() -> int:
    """Print the variables that point any AWS tool at the stack: eval "$(nexus env)"."""
    import os

    from ops import checkout

    deployment = common.connect()
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "no_proxy")
    # Keys are printed only for the local cloud: they give access to nothing else.
    kept = names if deployment.stage == "local" and deployment.endpoint else ("AWS_ENDPOINT_URL", "AWS_PROFILE")
    variables = {name: os.environ[name] for name in kept if os.environ.get(name)}
    variables |= {
        "AWS_REGION": deployment.region,
        "AWS_DEFAULT_REGION": deployment.region,
        "NEXUS_STACK": deployment.stack,
        "NEXUS_ACCOUNT_ID": deployment.account_id,
    }
    if options.json:
        output.emit(variables)
    else:
        output.line(checkout.shell_lines(variables))
    return ExitCode.DONE
