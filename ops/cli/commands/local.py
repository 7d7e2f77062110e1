"""Commands about this machine's cloud and its data: up, down, env, seed, mail."""

import subprocess
import sys
from typing import Annotated

import typer

from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import ExitCode, Problem, usage


def add_to(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "up")(up)
    command(app, "down")(down)
    command(app, "env")(env)
    command(app, "seed")(seed)


def up() -> int:
    """Start the local cloud and deploy to it what has changed, as `make up` does."""
    from ops import local_cloud

    if any((options.stack, options.profile, options.region)):
        raise usage("up starts the local cloud", do="A stack in AWS is deployed by `make deploy ENV=dev|prod`.")
    to_stderr = sys.stderr if options.json else None
    done = subprocess.run(["make", "-C", str(local_cloud.ROOT), "up"], check=False, stdout=to_stderr)
    cloud = local_cloud.running()
    if done.returncode or cloud is None:
        raise Problem("The local cloud did not come up", "What failed is said above.", "Logs are in .local/log.")
    if options.json:
        output.emit({"endpoint": cloud.endpoint, "pid": cloud.pid, "environment": cloud.exports()})
    else:
        output.line(f"{local_cloud.STACK} runs at {cloud.endpoint}. `nexus status` shows it, `nexus down` ends it.")
    return ExitCode.DONE


def down(yes: common.Yes = False) -> int:
    """End the local cloud. Its data go with it."""
    from ops import local_cloud

    cloud = local_cloud.running()
    if cloud is not None and not yes and sys.stdin.isatty():
        print(
            f"End the local cloud at {cloud.endpoint}? Its data go with it. [y/N] ", end="", file=sys.stderr, flush=True
        )
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Problem("Nothing was changed", code=ExitCode.NOT_CONFIRMED)
    elif cloud is not None and not yes:
        raise Problem("Nothing was changed", "Nobody is there to ask.", "Give --yes.", ExitCode.NOT_CONFIRMED)
    stopped = local_cloud.stop()
    if options.json:
        output.emit({"stopped": stopped})
    else:
        output.line("The local cloud has ended." if stopped else "No local cloud was running.")
    return ExitCode.DONE


def env() -> int:
    """Print the variables that point any AWS tool at the stack: eval "$(nexus env)"."""
    import os

    from ops import local_cloud

    deployment = common.connect()
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE")
    # Keys are printed for the local cloud alone, where they open nothing else.
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
        output.line(local_cloud.shell_lines(variables))
    return ExitCode.DONE


def seed(
    users: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many users; posts and follows go with them.")
    ] = 1000,
    number: Annotated[int, typer.Option("--seed", help="The same number makes the same network.")] = 1,
    yes: common.Yes = False,
) -> int:
    """Write a believable small social network: users, posts, follows, comments, tokens."""
    from ops import seed as seeding

    deployment = common.connect()
    if deployment.is_prod:
        raise usage(f"{deployment.stack} is prod", "Demo data have no business there.")
    if deployment.stage != "local":
        common.confirm(deployment, f"Write {users} made-up users to {deployment.stack}?", yes=yes)
    shown = output.fancy(sys.stderr) and not options.json

    def told(done: int, total: int, table: str) -> None:
        if shown:
            print(f"\r\033[K{done} of {total} rows ({table})", end="", file=sys.stderr, flush=True)

    report = seeding.seed(users, number, told)
    if shown:
        print("\r\033[K", end="", file=sys.stderr)
    if options.json:
        output.emit(report)
    else:
        rows = ", ".join(f"{count} {table}" for table, count in report.rows.items())
        output.line(f"{rows} in {report.seconds:.1f} s.")
    return ExitCode.DONE
