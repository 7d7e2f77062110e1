"""Commands about one queue: pause, resume, restart, concurrency, purge."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from ops import audit
from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import REPAIR, ExitCode, Problem, usage

if TYPE_CHECKING:
    from ops.control import Purged, Switched


def add_to(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "pause")(pause)
    command(app, "resume")(resume)
    command(app, "restart")(restart)
    command(app, "concurrency")(concurrency)
    command(app, "purge")(purge)


def pause(queue: common.Queue, yes: common.Yes = False) -> int:
    """Stop a queue's function from taking messages. They wait in the queue; current runs finish."""
    from ops import catalogue, control

    deployment = common.connect()
    common.the_queue(queue)
    common.confirm(deployment, f"Pause {queue} of {deployment.stack}?", yes=yes, lasting=False)
    switched = control.pause(queue)
    if catalogue.missing():
        output.note("Without the catalogue it is not known whether uploads start this function: then they still do.")
    return _switched(switched, f"{queue} is paused. `nexus resume {queue}` starts it again.")


def resume(queue: common.Queue, yes: common.Yes = False) -> int:
    """Resume a paused queue."""
    from ops import control

    deployment = common.connect()
    common.the_queue(queue)
    common.confirm(deployment, f"Resume {queue} of {deployment.stack}?", yes=yes, lasting=False)
    return _switched(control.resume(queue, deployment.reserved(queue)), f"{queue} is resumed.")


def _switched(switched: "Switched", message: str) -> int:
    common.done(switched, message if switched.changed else f"{switched.queue} was {switched.state} already.")
    return ExitCode.DONE


def restart(queue: common.Queue, yes: common.Yes = False) -> int:
    """Restart a queue's function in fresh sandboxes: the next message starts cold."""
    from ops import control

    deployment = common.connect()
    common.the_queue(queue)
    common.confirm(deployment, f"Restart {queue} of {deployment.stack}?", yes=yes, lasting=False)
    note = control.restart(queue)
    common.done({"queue": queue, "note": note}, f"{queue} now runs in fresh sandboxes ({note}).")
    return ExitCode.DONE


def concurrency(
    queue: common.Queue,
    maximum: Annotated[int | None, typer.Argument(help="2 to 1000; shows the current value if left out.")] = None,
    yes: common.Yes = False,
) -> int:
    """Show or set a queue's maximum concurrency, until a deployment that changes its event source."""
    from ops import control

    if maximum is not None and not 2 <= maximum <= 1000:
        why = "SQS's event sources take 2 to 1000."
        raise usage(f"{maximum} is not a valid concurrency", why, f"To stop a queue: `nexus pause {queue}`.")
    deployment = common.connect()
    common.the_queue(queue)
    if maximum is not None:
        common.confirm(deployment, f"Set {queue} of {deployment.stack} to {maximum}?", yes=yes, lasting=False)
    found = control.concurrency(queue, maximum)
    shown = "no limit" if found.concurrency is None else found.concurrency
    common.done(found, f"{queue}: {shown} at once")
    if maximum is not None and not options.json:
        output.note(
            "To make it permanent, set MaximumConcurrency in template.yaml; deploying a change of it overrides this."
        )
    return ExitCode.DONE


def purge(queue: common.Queue, yes: common.Yes = False) -> int:
    """Delete all waiting messages of a queue, and mark their runs REVOKED."""
    from nexus.settings import settings
    from ops import control, health

    deployment = common.connect()
    common.the_queue(queue)
    counted_at = time.time()
    counts = health.queue_counts(settings().queue_name(queue))
    if counts is None:
        raise Problem(f"{deployment.stack} has no queue {queue}", do=REPAIR)
    if not counts.waiting:
        purged = control.Purged()
        kept = f" ({counts.in_flight} in flight, {counts.delayed} delayed)" if counts.total else ""
        message = f"Nothing waits in {queue}{kept}."
    else:
        beside = (
            f" {counts.in_flight} in flight and {counts.delayed} delayed stay." if counts.total > counts.waiting else ""
        )
        question = f"Remove the {counts.waiting} messages that wait in {queue} of {deployment.stack}?{beside}"
        common.confirm(deployment, question, yes=yes)
        purged = control.purge(queue, lambda so_far: audit.note_progress(_removed(so_far)), until=counted_at)
        message = f"{_removed(purged)}."
    common.done({"queue": queue, "counted": counts, "purged": purged}, message)
    if purged.messages < counts.waiting and not options.json:
        output.note(
            "Fewer than were counted: the others have run, or arrived meanwhile, or this machine's clock is slow."
        )
    return ExitCode.DONE


def _removed(purged: "Purged") -> str:
    jobs = f", {purged.jobs} jobs with them" if purged.jobs else ""
    return f"{purged.messages} messages removed, {purged.runs} runs revoked{jobs}"
