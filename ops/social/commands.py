"""Commands about the social network's own data: test, seed, backfill, upload, mail, report."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ops import audit, previews, spans
from ops.cli import common, output
from ops.cli.commands import stack
from ops.cli.common import command, options
from ops.problems import ExitCode, Problem, usage
from ops.social import mails, network

made = common.app("Write the files of a new task.")
KINDS = ("users", "posts", "follows")
FAULTS_SHOWN = 20


def add_to(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "test")(run_all)
    command(app, "seed")(seed)
    command(app, "backfill")(backfill)
    command(app, "upload")(upload)
    command(app, "report")(report)
    app.add_typer(mails.app, name="mail")
    app.add_typer(made, name="new")
    stack.walks["an upload becomes renditions"] = walk
    previews.makers["process_media_upload"] = pictures


def walk(patience: float) -> Any:
    """`nexus doctor`'s upload: a picture for a temporary user and post, which are removed afterwards."""
    from ops.social import trial

    return trial.walk(patience)


def pictures(record: Any) -> Any:
    """The pictures of an upload's run."""
    from ops.social import upload as uploading

    return uploading.pictures(record)


def run_all(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Only these.", metavar="TASK", autocompletion=common.complete_task)
    ] = None,
    timeout: Annotated[str, typer.Option(help="How long to wait for each task.")] = "2m",
    yes: common.Yes = False,
) -> int:
    """Run every task once with safe arguments, for a temporary user and post, and show each result."""
    from ops.social import trial

    deployment = network.connect()
    wanted = [common.the_task(name).name for name in tasks] if tasks else list(trial.names())
    limit = spans.seconds(timeout)
    common.confirm(deployment, f"Run {len(wanted)} tasks in {deployment.stack}?", yes=yes, lasting=False)
    outcomes = []
    if not options.json:
        output.line(f"{'task':<32}{'status':<10}{'until end':>10}  result")
    for outcome in trial.run(wanted, timeout=limit):
        outcomes.append(outcome)
        if not options.json:
            style = output.STYLES.get(outcome.status)
            output.line(f"{outcome.task:<32}{outcome.status:<10}{outcome.seconds:>9.1f}s  {outcome.summary}", style)
    passed = all(outcome.status == "SUCCESS" for outcome in outcomes)
    if options.json:
        output.emit({"passed": passed, "runs": outcomes})
    return ExitCode.DONE if passed else ExitCode.WRONG


def seed(
    users: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many users; posts and follows are in proportion.")
    ] = 1000,
    number: Annotated[int, typer.Option("--seed", help="The same seed makes the same network.")] = 1,
    yes: common.Yes = False,
) -> int:
    """Write a small, realistic social network: users, posts, follows, comments, tokens."""
    from ops.social import seed as seeding

    deployment = network.connect()
    if deployment.is_prod:
        raise usage(f"{deployment.stack} is prod", "Demo data do not belong in prod.")
    if deployment.stage != "local":
        common.confirm(deployment, f"Write {users} made-up users to {deployment.stack}?", yes=yes)
    with output.bar(shown=not options.json) as bar:
        report = seeding.seed(users, number, bar)
    rows = ", ".join(f"{count} {table}" for table, count in report.rows.items())
    common.done(report, f"{rows} in {report.seconds:.1f} s.")
    return ExitCode.DONE


def backfill(
    *,
    kind: Annotated[
        str, typer.Argument(help="users|posts|follows", metavar="KIND", autocompletion=lambda: list(KINDS))
    ],
    file: Annotated[
        Path,
        typer.Argument(
            help="The file: CSV with a header, or JSON lines.",
            metavar="FILE",
            exists=True,
            dir_okay=False,
        ),
    ],
    form: Annotated[
        Literal["csv", "jsonl"] | None, typer.Option("--format", help="Derived from the file's name if left out.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Validate all rows and write none.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Start at the first row, even if an earlier run got further.")
    ] = False,
    yes: common.Yes = False,
) -> int:
    """Write the users, posts or follows of a file. Existing rows stay; an interrupted run continues."""
    from dataclasses import replace

    from ops.social import backfilling
    from social import backfill as filling

    if kind not in KINDS:
        raise usage(f"There is no backfill of {kind!r}", do=common.closest(kind, KINDS))
    deployment = network.connect()
    source_form = form or backfilling.form_of(file)
    if not check:
        common.confirm(deployment, f"Write the {kind} of {file.name} to {deployment.stack}?", yes=yes, lasting=False)
    position = backfilling.remembered(file, deployment.stack, kind)
    start = 0 if check or again else position.done
    if start:
        output.note(f"{start:,} rows are done; continuing after them.")
    faults = 0

    def faulty(number: int, reason: str) -> None:
        nonlocal faults
        faults += 1
        if faults <= FAULTS_SHOWN:
            output.note(f"row {number}: {reason}")

    with file.open("rb") as opened, output.bar(shown=not options.json) as bar:
        source = backfilling.Source(file, opened, source_form)

        def done(rows: int) -> None:
            if not check:
                backfilling.remember(file, replace(position, done=rows))
            bar(source.read, source.size, f"{file.name}: {rows:,} rows")

        report = getattr(filling, kind)(source, start=start, check=check, on_progress=done, on_fault=faulty)
    if not check:
        backfilling.forget(file)
    audit.note_outcome(f"{report.written:,} rows written")
    if options.json:
        output.emit(report)
    else:
        output.pairs({name: f"{number:,}" for name, number in output.plain(report).items()})
    if report.written:
        output.note(
            "`nexus send update_user_statistics` counts followers and posts now; otherwise the nightly run does."
        )
    return ExitCode.WRONG if report.faulty else ExitCode.DONE


def upload(
    *,
    file: Annotated[
        Path, typer.Argument(help="A picture or a clip.", metavar="FILE", exists=True, dir_okay=False, readable=True)
    ],
    user: Annotated[str, typer.Option(help="The author of the post; created if missing.", metavar="ID")] = "demo",
    post: Annotated[str | None, typer.Option(help="Created if missing; a new one if left out.", metavar="ID")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is ready or rejected.")] = True,
    timeout: Annotated[str, typer.Option(help="How long to wait: 90s, 5m.")] = "2m",
    save: Annotated[
        Path | None, typer.Option(help="Write the renditions there.", metavar="FOLDER", file_okay=False)
    ] = None,
    yes: common.Yes = False,
) -> int:
    """Upload a picture or clip as a browser does, and show the result. Exit code 1 when it was rejected."""
    from ops.social import upload as uploading

    if save is not None and not wait:
        raise usage("--save needs the renditions, and cannot be combined with --no-wait", do="Omit one of them.")
    patience = spans.seconds(timeout)
    uploading.content_type(file)
    deployment = network.connect()
    common.confirm(deployment, f"Upload {file.name} for {user} in {deployment.stack}?", yes=yes, lasting=False)
    sent = uploading.send(file, user, post)
    audit.note_outcome(f"uploaded: {sent.key}")
    shown: dict[str, object] = {"user": sent.user_id, "post": sent.post_id, "key": sent.key}
    if not wait:
        if options.json:
            output.emit(shown)
        else:
            output.pairs(shown)
            output.note("`nexus inspect active media` shows its run.")
        return ExitCode.DONE
    media = uploading.settled(sent, patience)
    if media is None:
        raise Problem(
            f"{file.name} was not processed within {output.age(patience)}",
            f"Its key is {sent.key}.",
            "`nexus validate` checks that uploads start the function, `nexus inspect active media` shows its run, "
            "`nexus dlq list media` why it was given up.",
            ExitCode.STILL_RUNNING,
        )
    files = uploading.save(media, save) if save is not None and media.renditions else {}
    if options.json:
        output.emit({**shown, **media.model_dump(mode="json", exclude={"source"}), "saved": files})
    else:
        size = f"{media.width} x {media.height}" if media.width else None
        output.pairs(shown | {"status": media.status, "reason": media.reason, "kind": media.kind, "size": size})
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


def report(
    day: Annotated[str | None, typer.Option(help="A UTC day, 2026-11-22; yesterday if left out.")] = None,
    save: Annotated[str | None, typer.Option("--save", help="Where to put it.", metavar="FILE")] = None,
    form: Annotated[
        Literal["html", "json", "csv", "popular"],
        typer.Option(
            "--as", help="html: the page; json: all of it; csv: the month's figures; popular: the popular posts as CSV."
        ),
    ] = "html",
    browse: Annotated[bool, typer.Option("--open/--no-open", help="Open a page in the browser.")] = True,
) -> int:
    """Fetch the report of a day's content analytics, and open it."""
    from ops.social import reports

    wanted = reports.the_day(day)
    network.connect()
    found = reports.fetch(wanted, save, form)
    if options.json:
        output.emit(found)
        return ExitCode.DONE
    output.line(str(found.path))
    if browse and form == "html" and output.fancy():
        typer.launch(found.path)
    return ExitCode.DONE


@command(made, "task")
def new_task(
    name: Annotated[str, typer.Argument(help="Such as measure_media_storage.")],
    queue: Annotated[str, typer.Option(help="The queue that it runs on: docs/add-a-task.md compares them.")],
) -> int:
    """Write a task that works: its catalogue entry, code, test, sample event and row in the README."""
    from ops import checkout
    from ops.social import new_task as writing

    here = Path.cwd()
    root = here if (here / writing.CATALOGUE).is_file() else checkout.ROOT
    written = writing.write(root, name, queue)
    if options.json:
        output.emit(written)
        return ExitCode.DONE
    for what, paths in (("created", written.created), ("changed", written.changed)):
        for path in paths:
            output.line(f"{what}  {path}")
    output.note(f"`nexus dev` runs it, `pytest {written.created[-1]}` tests it. For rights and a schedule: step 4 of")
    output.note("docs/add-a-task.md.")
    return ExitCode.DONE
