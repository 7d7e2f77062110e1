"""Commands about the stack as a whole: status, validate, repair."""

from typing import Annotated

import typer

from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import ExitCode, Problem


def add_to(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "status")(status)
    command(app, "validate")(validate)
    command(app, "repair")(repair)


def status() -> int:
    """The stack, its queues, functions, schedules and alarms; exit code 1 when something is wrong."""
    from ops import health

    deployment = common.connect()
    found = health.look(deployment)
    if options.json:
        output.emit({"well": found.well, **output.plain(found)})
        return ExitCode.DONE if found.well else ExitCode.WRONG
    where = deployment.endpoint or f"account {deployment.account_id}"
    output.line(f"{deployment.stack}  {deployment.status}  {deployment.stage}  {deployment.region}  {where}")
    output.line()
    output.table(
        [
            {
                "queue": queue.name,
                "priority": queue.priority,
                "waiting": queue.waiting,
                "in flight": queue.in_flight,
                "delayed": queue.delayed,
                "oldest": output.age(queue.oldest),
                "dead": queue.dead,
                "source": {"Enabled": "on", "Disabled": "off"}.get(queue.source, queue.source),
                "at once": "no limit" if queue.concurrency is None else queue.concurrency,
                "function": queue.function,
            }
            for queue in found.queues
        ],
        right=("priority", "waiting", "in flight", "delayed", "oldest", "dead", "at once"),
    )
    scheduled = [rule for rule in found.rules if rule.expression]
    on = sum(rule.on for rule in scheduled)
    ringing = sum(alarm.state == "ALARM" for alarm in found.alarms)
    output.line()
    output.line(f"Schedules: {on} of {len(scheduled)} on.  Alarms: {ringing} of {len(found.alarms)} ring.")
    print_findings(found.findings)
    return ExitCode.DONE if found.well else ExitCode.WRONG


def print_findings(findings: "tuple[object, ...]", nothing: str = "Nothing is wrong.") -> None:
    """One line for each: what, and what to do."""
    from ops.health import Finding

    for finding in findings:
        assert isinstance(finding, Finding)
        style = "red" if finding.severity == "failed" else "yellow"
        mark = "wrong" if finding.severity == "failed" else "note"
        output.line(f"{mark}: {finding.where}: {finding.what}. {finding.do}", style)
    if not findings:
        output.line(nothing, "green")


_WORDS = {"failed": "failed", "warning": "warning", "unchecked": "partly"}
"""What is said of a check, by the worst of its findings."""


def validate(
    drift: Annotated[bool, typer.Option(help="Ask CloudFormation what was changed by hand (a minute in AWS).")] = True,
) -> int:
    """The deployed stack against the template and the catalogue, with a remedy for each fault."""
    from ops import validation

    deployment = common.connect()
    found = validation.validate(deployment, drift=drift)
    passed = not any(finding.severity == "failed" for check in found for finding in check.findings)
    if options.json:
        output.emit({"passed": passed, "checks": found})
    else:
        for check in found:
            severities = {finding.severity for finding in check.findings}
            word = next((word for severity, word in _WORDS.items() if severity in severities), "ok")
            output.line(f"{word:<8}{check.name}", output.STYLES[word])
            for finding in check.findings:
                output.line(f"        {finding.where}: {finding.what}. {finding.do}")
    return ExitCode.DONE if passed else ExitCode.WRONG


def repair(yes: common.Yes = False) -> int:
    """Put back what was deleted or changed by hand: the stack as its template has it, and nothing else deployed."""
    from ops import repair as repairing

    deployment = common.connect()
    if deployment.status == "UPDATE_FAILED":
        common.confirm(deployment, f"Go back to the deployment of {deployment.stack} before the failed one?", yes=yes)
        repairing.roll_back(deployment)
        deployment = common.connect()
        if not options.json:
            output.line("Rolled back to the deployment before.")
    made = repairing.plan(deployment)
    told = [
        f"{change.name} ({change.kind}) {'is missing' if change.missing else 'was changed'}" for change in made.changes
    ]
    if made.changes:
        if not options.json:
            for text in told:
                output.line(text)
            lost = [change.name for change in made.changes if change.missing and change.kind in _HOLD_DATA]
            if lost:
                output.line(f"What {', '.join(lost)} held is not put back: they are made empty.", "yellow")
        try:
            common.confirm(deployment, f"Put back {len(told)} parts of {deployment.stack}?", yes=yes)
        except Problem:
            repairing.forget(deployment, made)
            raise
        repairing.execute(deployment, made)
    if options.json:
        output.emit({"repaired": made.changes})
    elif made.changes:
        output.line(f"{deployment.stack} is as its template has it.")
    else:
        output.line(f"Nothing of {deployment.stack} was deleted or changed by hand.")
        output.note("What its code or its data do wrong is not CloudFormation's: `nexus status` shows it.")
    return ExitCode.DONE


_HOLD_DATA = ("DynamoDB::Table", "S3::Bucket", "SQS::Queue")
