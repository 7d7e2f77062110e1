"""Commands about this machine's cloud and a deployment's data: up, down, env, seed, upload."""

import subprocess
import sys
from pathlib import Path
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
    command(app, "upload")(upload)


def up() -> int:
    """Start the local cloud and deploy to it what has changed, as `make up` does."""
    from dev import local_cloud

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
    from dev import local_cloud

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

    from dev import local_cloud

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
    from dev import seed as seeding

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


def upload(
    *,
    file: Annotated[
        Path, typer.Argument(help="A picture or a clip.", metavar="FILE", exists=True, dir_okay=False, readable=True)
    ],
    user: Annotated[str, typer.Option(help="Whose post it is for; made where it is missing.", metavar="ID")] = "demo",
    post: Annotated[
        str | None, typer.Option(help="Made where it is missing; a new one when left out.", metavar="ID")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is ready or rejected.")] = True,
    timeout: Annotated[str, typer.Option(help="How long to wait: 90s, 5m.")] = "2m",
    save: Annotated[
        Path | None, typer.Option(help="Write the renditions there.", metavar="FOLDER", file_okay=False)
    ] = None,
    yes: common.Yes = False,
) -> int:
    """Upload a picture or clip as a browser does, and show what became of it. Exit code 1 when it was rejected."""
    from ops import upload as uploading

    if save is not None and not wait:
        raise usage("--save needs the renditions, and --no-wait does not wait for them", do="Leave one out.")
    patience = common.seconds(timeout)
    uploading.content_type(file)
    deployment = common.connect()
    common.confirm(deployment, f"Upload {file.name} for {user} in {deployment.stack}?", yes=yes, lasting=False)
    sent = uploading.send(file, user, post)
    told: dict[str, object] = {"user": sent.user_id, "post": sent.post_id, "key": sent.key}
    if not wait:
        if options.json:
            output.emit(told)
        else:
            output.pairs(told)
            output.note("`nexus inspect active media` shows its run.")
        return ExitCode.DONE
    media = uploading.settled(sent, patience)
    if media is None:
        raise Problem(
            f"{file.name} is not processed after {output.age(patience)}",
            f"It is {sent.key}.",
            "`nexus inspect active media` shows its run, `nexus dlq list media` why it was given up.",
            ExitCode.STILL_RUNNING,
        )
    files = uploading.save(media, save) if save is not None and media.renditions else {}
    if options.json:
        output.emit({**told, **media.model_dump(mode="json", exclude={"source"}), "saved": files})
    else:
        size = f"{media.width} x {media.height}" if media.width else None
        output.pairs(told | {"status": media.status, "reason": media.reason, "kind": media.kind, "size": size})
        if media.renditions:
            output.line()
        output.table(
            [
                {
                    "rendition": name,
                    "size": f"{made.width} x {made.height}",
                    "bytes": f"{made.bytes:,}",
                    "type": made.content_type,
                    **({"saved": files[name]} if files else {}),
                }
                for name, made in media.renditions.items()
            ],
            right=("size", "bytes"),
        )
    return ExitCode.DONE if media.status == "ready" else ExitCode.WRONG
