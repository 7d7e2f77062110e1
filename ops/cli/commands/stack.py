"""Commands about the stack as a whole: status, validate, repair."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops import audit, spans
from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import ExitCode, Problem

if TYPE_CHECKING:
    from ops.deployment import Deployment
    from ops.health import Finding
    from ops.repair import Change
    from ops.validation import Check


def add_to(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "status")(status)
    command(app, "validate")(validate)
    command(app, "doctor")(doctor)
    command(app, "repair")(repair)
    command(app, "versions")(show_versions)
    command(app, "rollback")(rollback)


def status() -> int:
    """Show the stack, its queues, functions, schedules and alarms; exit code 1 if something is wrong."""
    from ops import health

    deployment = common.connect()
    found = health.check(deployment)
    if options.json:
        output.emit({"well": found.is_well, **output.plain(found)})
        return ExitCode.DONE if found.is_well else ExitCode.WRONG
    where = deployment.endpoint or f"account {deployment.account_id}"
    output.line(f"{deployment.stack}  {deployment.status}  {deployment.stage}  {deployment.region}  {where}")
    output.line()
    narrow = output.is_narrow()
    output.table(
        [
            {
                "queue": queue.name,
                **({} if narrow else {"priority": queue.priority}),
                "waiting": queue.waiting if queue.present else "missing",
                "flight" if narrow else "in flight": queue.in_flight if queue.present else "-",
                "delayed": queue.delayed if queue.present else "-",
                "oldest": output.age(queue.oldest),
                "dead": queue.dead if queue.dead_present else "missing",
                "source": {"Enabled": "on", "Disabled": "off"}.get(queue.source, queue.source),
                "at once": "no limit" if queue.concurrency is None else queue.concurrency,
                "function": queue.function,
            }
            for queue in found.queues
        ],
        right=("priority", "waiting", "in flight", "flight", "delayed", "oldest", "dead", "at once"),
    )
    on = sum(rule.on for rule in found.schedules)
    ringing = sum(alarm.state == "ALARM" for alarm in found.alarms)
    output.line()
    output.line(f"Schedules: {on} of {len(found.schedules)} on.  Alarms: {ringing} of {len(found.alarms)} in ALARM.")
    print_findings(found.findings)
    return ExitCode.DONE if found.is_well else ExitCode.WRONG


def print_findings(findings: "Sequence[Finding]") -> None:
    """One line for each finding: what is wrong, and the remedy."""
    for finding in findings:
        style = "red" if finding.severity == "failed" else "yellow"
        output.line(output.flat(f"{_MARKS[finding.severity]}: {finding.where}: {finding.what}. {finding.do}"), style)
    if not findings:
        output.line("Nothing is wrong.", "green")


_MARKS = {"failed": "wrong", "warning": "warning", "unchecked": "partly", "note": "note"}
"""The word for a finding of `nexus status`. The first two make its exit code 1."""

_LABELS = {"failed": "failed", "warning": "warning", "unchecked": "partly", "note": "note"}
"""The word for a check, by its worst finding."""


def validate(
    drift: Annotated[bool, typer.Option(help="Ask CloudFormation what was changed by hand (a minute in AWS).")] = True,
) -> int:
    """Compare the deployed stack with the template and the catalogue; exit code 1 if something differs."""
    from ops import validation

    deployment = common.connect()
    found = validation.validate(deployment, drift=drift)
    well = all(check.is_well for check in found)
    if options.json:
        output.emit({"well": well, "checks": found})
    else:
        for check in found:
            print_check(check)
    return ExitCode.DONE if well else ExitCode.WRONG


walks: dict[str, Callable[[float], Any]] = {}
"""What `nexus doctor` sends through the stack besides a ping (ops.doctor.Walk), by the name it shows."""


def doctor(
    timeout: Annotated[str, typer.Option(help="How long to wait for the messages that it sends.")] = "60s",
    yes: common.Yes = False,
) -> int:
    """Check everything, with a message through each queue and an upload, and print a report to share."""
    from nexus.version import VERSION
    from ops import catalogue
    from ops import doctor as examining

    patience = spans.seconds(timeout)
    deployment = common.connect()
    common.confirm(deployment, f"Send a ping and an upload through {deployment.stack}?", yes=yes, lasting=False)
    meant = walks if catalogue.upload_queue() else {}
    found = examining.examine(deployment, meant, patience)
    well = all(check.is_well for check in found)
    if options.json:
        output.emit({"well": well, "client": VERSION, "stack": deployment, "checks": found})
        return ExitCode.DONE if well else ExitCode.WRONG
    now = datetime.now(UTC)
    where = deployment.endpoint or f"account {deployment.account_id}"
    output.line(f"{deployment.stack}  {deployment.stage}  {deployment.region}  {where}  {now:%Y-%m-%d %H:%M} UTC")
    version = deployment.outputs.get("Version", "unknown")
    output.line(f"stack {deployment.status}, version {version}; this client {VERSION}; tasks of {_modules()}")
    output.line()
    for check in found:
        print_check(check)
    output.line()
    wrong = sum(finding.severity == "failed" for one in found for finding in one.findings)
    noted = sum(finding.severity == "warning" for one in found for finding in one.findings)
    found_wrong = f"{wrong} fault{'s' * (wrong != 1)}, {noted} warning{'s' * (noted != 1)}."
    output.line("No faults." if well else found_wrong, "green" if well else "red")
    return ExitCode.DONE if well else ExitCode.WRONG


def _modules() -> str:
    from ops import catalogue

    return ", ".join(catalogue.modules()) or "no named catalogue"


def print_check(check: "Check") -> None:
    """Prints a check's worst severity, then each finding with its remedy."""
    severities = {finding.severity for finding in check.findings}
    label = next((label for severity, label in _LABELS.items() if severity in severities), "ok")
    output.line(f"{label:<8}{check.name}" + (f" ({check.detail})" if check.detail else ""), output.STYLES[label])
    for finding in check.findings:
        output.line("        " + output.flat(f"{finding.where}: {finding.what}. {finding.do}"))


_HOLD_DATA = ("DynamoDB::Table", "S3::Bucket", "SQS::Queue")


def repair(yes: common.Yes = False) -> int:
    """Restore what was deleted or changed by hand to the deployed template; deploys nothing else."""
    from ops import repair as repairing

    deployment = common.connect()
    if deployment.status == "UPDATE_FAILED" and deployment.outputs:
        common.confirm(deployment, f"Go back to the deployment of {deployment.stack} before the failed one?", yes=yes)
        repairing.roll_back(deployment)
        deployment = common.connect()
        if not options.json:
            output.line("Rolled back to the previous deployment.")
    made = repairing.plan(deployment)
    changes = [
        f"{change.name} ({change.kind}) {'is missing' if change.missing else 'was changed'}" for change in made.changes
    ]
    if made.changes:
        lost = [change.name for change in made.changes if change.missing and change.kind in _HOLD_DATA]
        if not options.json:
            for text in changes:
                output.line(text)
            if lost:
                output.line(f"Created empty, as their contents are lost: {', '.join(lost)}.", "yellow")
            if any(change.kind == "Lambda::Alias" for change in made.changes):
                output.line(
                    "It also undoes `nexus rollback`: functions return to the version of the last deployment.", "yellow"
                )
        try:
            common.confirm(deployment, f"Restore {len(changes)} parts of {deployment.stack}?", yes=yes)
        except (Problem, KeyboardInterrupt):
            repairing.forget(deployment, made)
            raise
        repairing.execute(deployment, made)
        audit.note_outcome("; ".join(changes))
        if lost:
            made = replace(made, changes=(*made.changes, *_repair_dependents(deployment)))
    if options.json:
        output.emit({"repaired": made.changes})
    elif made.changes:
        output.line(f"{deployment.stack} matches its template.")
    else:
        output.line(f"Nothing of {deployment.stack} was deleted or changed by hand.")
        output.note("Faults of code or data are outside CloudFormation: see `nexus status`.")
    return ExitCode.DONE


def _repair_dependents(deployment: "Deployment") -> "Sequence[Change]":
    """Restores what was deleted with a part: a queue's policy, which CloudFormation misses once the queue is back."""
    from ops import repair as repairing

    made = repairing.plan(deployment)
    if not made.changes:
        return ()
    repairing.execute(deployment, made)
    if not options.json:
        for change in made.changes:
            output.line(f"{change.name} ({change.kind}) was deleted with it, and is restored too")
    return made.changes


def show_versions(
    prune: Annotated[bool, typer.Option("--prune", help="Delete all except the newest and the live one.")] = False,
    keep: Annotated[int, typer.Option(min=1, help="How many versions of each function --prune keeps.")] = 5,
) -> int:
    """The versions of each function that you can roll back to, and which one is live."""
    from ops import versions

    queues = common.connect().queues
    pruned = versions.prune(queues, keep) if prune else {}
    audit.note_outcome(f"{sum(map(len, pruned.values()))} versions deleted")
    found = {queue: versions.versions(queue) for queue in queues}
    if options.json:
        output.emit({"versions": found, "pruned": pruned})
        return ExitCode.DONE
    output.table(
        [
            {
                "function": queue,
                "version": version.number,
                "deployed": f"{version.changed:%Y-%m-%d %H:%M:%S}",
                "live": "live" if version.live else "",
                "note": version.note,
            }
            for queue, there in found.items()
            for version in there
        ],
        right=("version",),
    )
    if prune:
        output.line(f"{sum(map(len, pruned.values()))} versions deleted.")
    return ExitCode.DONE


def rollback(
    before: Annotated[
        str | None,
        typer.Option(help="Roll back to what was live before this time (UTC); default: the last deployment's start."),
    ] = None,
    yes: common.Yes = False,
) -> int:
    """Roll every function back to its version before the last deployment. Data and settings stay."""
    from ops import versions

    when = spans.moment(before) if before else None
    deployment = common.connect()
    moves = versions.rollback_plan(deployment.queues, when or deployment.changed_at)
    shown = ", ".join(f"{moved.queue} {moved.before} -> {moved.after}" for moved in moves)
    common.confirm(deployment, f"Roll the functions of {deployment.stack} back ({shown})?", yes=yes)
    done: list[str] = []

    def moved(one: versions.Moved) -> None:
        done.append(f"{one.queue} {one.before} -> {one.after}")
        audit.note_progress(", ".join(done))

    versions.move(moves, moved)
    common.done({"moved": moves}, f"{shown}.")
    if not options.json:
        output.note("The next deployment that changes a function publishes and uses a new version again.")
    return ExitCode.DONE
