"""`nexus schedule ...`: periodic tasks, as Celery beat's administration had them."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ops import audit, spans
from ops.cli import common, output
from ops.cli.commands.tasks import Waiting
from ops.cli.common import command, options
from ops.problems import ExitCode, usage

app = common.app("The periodic tasks: list, enable or disable, run now, reschedule.")

Names = Annotated[
    list[str], typer.Argument(help="The tasks' names.", metavar="NAME...", autocompletion=common.complete_schedule)
]
Name = Annotated[str, typer.Argument(help="The task's name.", metavar="NAME", autocompletion=common.complete_schedule)]


def _scheduled(name: str) -> Any:
    """The scheduled task of that name in the connected stack's catalogue. Raises Problem if there is none."""
    from ops import catalogue

    tasks = catalogue.tasks()
    names = [task.name for task in tasks.values() if task.schedule]
    if name not in names:
        what = f"{name} has no schedule" if name in tasks else f"There is no scheduled task {name!r}"
        raise usage(what, do=common.closest(name, names))
    return tasks[name]


@command(app, "list")
def list_(
    since: Annotated[
        str, typer.Option(help="Look for firings in the logs since: 7d, or a time (UTC); 0 reads no log.")
    ] = "7d",
) -> int:
    """Each periodic task: next firing, number of firings, last firing and its result, in UTC.

    Runs that `nexus schedule run` or `nexus send` started do not count, so the list shows whether the rules work.
    """
    from ops import schedules

    start = None if since == "0" else spans.since(since)
    common.connect()
    found = schedules.listed(start)
    if options.json:
        output.emit(found)
        return ExitCode.DONE
    now, fired = time.time(), f"fired ({since})"
    output.table(
        [
            {
                "name": row.task,
                "state": ("on" if row.on else "off") if row.present else "missing",
                "schedule": row.expression,
                "next": output.time_of(row.next_at)[:16] or "-",
                "in": output.age(row.next_at.timestamp() - now) if row.next_at else "-",
                fired: "-" if row.runs is None else row.runs,
                "last fired": output.time_of(row.last_at)[:16] or "-",
                "outcome": row.last_status or "-",
            }
            for row in found
        ],
        right=("in", fired),
    )
    return ExitCode.DONE


@command(app, "enable")
def enable(names: Names, yes: common.Yes = False) -> int:
    """Turn schedules on."""
    return _switch(names, on=True, yes=yes)


@command(app, "disable")
def disable(names: Names, yes: common.Yes = False) -> int:
    """Turn schedules off, until you enable them."""
    return _switch(names, on=False, yes=yes)


def _switch(names: list[str], *, on: bool, yes: bool) -> int:
    from ops import schedules

    deployment = common.connect()
    tasks = [_scheduled(name) for name in names]
    state = "on" if on else "off"
    common.confirm(deployment, f"Turn {state} {', '.join(names)} in {deployment.stack}?", yes=yes, lasting=False)
    for done, task in enumerate(tasks):
        if done:
            audit.note_progress(f"{', '.join(one.name for one in tasks[:done])} turned {state}")
        schedules.switch(task.name, on=on)
    message = "\n".join(f"{task.name} is {state}." for task in tasks)
    common.done([{"task": task.name, "on": on} for task in tasks], message)
    return ExitCode.DONE


@command(app, "run")
def run(names: Names, *, waiting: Waiting, yes: common.Yes = False) -> int:
    """Run periodic tasks now, as their rules would. `nexus schedule list` does not count it: no rule has fired."""
    deployment = common.connect()
    tasks = [_scheduled(name) for name in names]
    common.confirm(deployment, f"Run {', '.join(names)} in {deployment.stack} now?", yes=yes, lasting=False)
    sent = []
    for task in tasks:
        sent.append((task.delay(), task.name, str(task.queue)))
        audit.note_progress("sent: " + ", ".join(handle.id for handle, _, _ in sent))
    audit.note_outcome("sent: " + ", ".join(handle.id for handle, _, _ in sent))
    return waiting.show(sent)


@command(app, "set")
def set_(
    name: Name,
    expression: Annotated[str, typer.Argument(help="'cron(0 3 * * ? *)' or 'rate(6 hours)', in UTC.")],
    yes: common.Yes = False,
) -> int:
    """Change a periodic task's schedule, after showing its next five times."""
    from nexus import cron
    from ops import schedules

    try:
        times = cron.next_times(expression, 5, datetime.now(UTC))
    except cron.BadSchedule as error:
        do = "Fields: minutes hours day-of-month month day-of-week year, as in cron(0 3 * * ? *)."
        raise usage("EventBridge rejects this", str(error), do) from None
    if not times:
        raise usage(f"{expression} never runs again")
    deployment = common.connect()
    task = _scheduled(name)
    before = schedules.expression(task.name)
    if not options.json:
        output.line(f"{task.name}: {before} becomes {expression}")
        about = " (about: a rate counts from its change)" if expression.startswith("rate") else ""
        output.line(f"The next five times, UTC{about}:")
        for moment in times:
            output.line(f"  {moment:%a %Y-%m-%d %H:%M}")
    common.confirm(deployment, f"Change it in {deployment.stack}?", yes=yes)
    schedules.change(task.name, expression)
    audit.note_outcome(f"{before} became {expression}")
    if options.json:
        output.emit({"task": task.name, "before": before, "expression": expression, "next": times})
    else:
        output.line("Changed.")
        parameter = schedules.parameter(task.name)
        output.note(
            f"To make it permanent: {parameter} in samconfig.toml. A deployment that changes the rule sets this back."
        )
    return ExitCode.DONE
