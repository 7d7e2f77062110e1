"""`nexus cost`: what the runs cost; `nexus budget`: what a task may spend in a day."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops import audit, spans
from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import ExitCode, usage

if TYPE_CHECKING:
    from ops.cost import Line


def add_to(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "cost")(cost)
    command(app, "budget")(budget)


def cost(
    *,
    by: Annotated[str, typer.Option(help="task, queue or day.")] = "task",
    since: Annotated[str, typer.Option(help="Count the runs sent since: 24h, 7d, or a time (UTC).")] = "7d",
    plan: Annotated[
        bool, typer.Option("--plan", help="Estimate a backlog's time and cost by MaximumConcurrency. Needs no stack.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(min=0.001, help="With --plan: the seconds that a message takes.")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(min=128, max=10_240, help="With --plan: the function's memory in MB.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="With --plan: print Markdown, as in docs/deploy.md.")
    ] = False,
) -> int:
    """Dollars by task, queue or day, from the runs' records, at list prices."""
    if plan:
        return _plan(seconds, memory, markdown=markdown)
    if markdown or seconds is not None or memory is not None:
        raise usage("--seconds, --memory and --markdown are about --plan", do="Give --plan too.")
    from nexus import prices
    from ops import cost as costs

    if by not in costs.BY:
        raise usage(f"{by!r} is not a valid grouping", do=f"There are: {', '.join(costs.BY)}.")
    began = spans.since(since)
    common.connect()
    slices, idle_costs = costs.read_slices(began), costs.idle()
    lines = costs.by(slices, by)
    today, whole = costs.total("today", costs.today(slices)), costs.total("all", slices)
    ahead = costs.month_ahead(slices, idle_costs, costs.covered(slices, began))
    if options.json:
        payload: dict[str, Any] = {"by": by, "lines": [costs.as_plain(one) for one in lines]}
        payload |= {"today": costs.as_plain(today), "all": costs.as_plain(whole)}
        where = {"region": prices.REGION, "date": prices.DATE}
        output.emit({**payload, "idle": idle_costs, "month_ahead": ahead, "prices": where})
        return ExitCode.DONE
    output.table([_row(by, one) for one in lines], right=("runs", "dollars", *costs.PARTS.values(), "a million"))
    if not lines:
        output.line("No runs were sent.")
    idle = sum(one.dollars for one in idle_costs)
    output.line()
    output.line(f"Today: {costs.dollars(today.cost.total)}. All runs above: {costs.dollars(whole.cost.total)}.")
    output.line(f"A month at this rate: {costs.dollars(ahead)}, of which {costs.dollars(idle)} for idle resources.")
    sampled = " ~ is computed from a sample of the records." if whole.estimated else ""
    output.note(f"List prices of {prices.REGION}, {prices.DATE}.{sampled}")
    return ExitCode.DONE


def _row(by: str, line: "Line") -> dict[str, Any]:
    from ops.cost import PARTS, dollars

    parts = {shown: dollars(getattr(line.cost, name)) for name, shown in PARTS.items()}
    whole = ("~" if line.estimated else "") + dollars(line.cost.total)
    return {by: line.name, "runs": f"{line.runs:,}", "dollars": whole, **parts, "a million": f"${line.each * 1e6:,.2f}"}


def _plan(seconds: float | None, memory: int | None, *, markdown: bool) -> int:
    from ops import plan

    kinds = plan.kinds(seconds, memory)
    if options.json:
        output.emit([{"kind": kind.name, "dollars_a_run": kind.dollars, "rows": plan.rows(kind)} for kind in kinds])
        return ExitCode.DONE
    if markdown:
        print(plan.markdown(kinds), end="")
        return ExitCode.DONE
    for kind in kinds:
        output.line(f"{kind.name}, {kind.memory} MB, ${kind.dollars * 1e6:,.2f} a million")
        output.table(plan.cells(kind), right=("at once",))
        output.line()
    return ExitCode.DONE


Limit = Annotated[str | None, typer.Option(metavar="N", help="At most this many a day (UTC); none for no limit.")]


def budget(
    *,
    task: Annotated[
        str | None,
        typer.Argument(help="A task; all tasks with a budget if left out.", autocompletion=common.complete_task),
    ] = None,
    dollars: Limit = None,
    runs: Limit = None,
    clear: Annotated[bool, typer.Option("--clear", help="Restore the catalogue's values.")] = False,
    yes: common.Yes = False,
) -> int:
    """Show today's budgets, or set a task's budget, without a deployment."""
    from ops import budgets

    limited = dollars is not None or runs is not None
    if task is None and (clear or limited):
        raise usage("Which task's budget?", do="`nexus budget TASK --dollars 5`.")
    if clear and limited:
        raise usage("--clear removes what --dollars and --runs set", do="Give one of them.")
    deployment = common.connect()
    if task is not None:
        common.the_task(task)
        wanted = None if clear else budgets.limits(task, dollars, runs)
        if clear or limited:
            common.confirm(deployment, f"Change the budget of {task} in {deployment.stack}?", yes=yes, lasting=False)
            budgets.set_limits(task, wanted)
            audit.note_outcome("as declared" if wanted is None else budgets.in_words(wanted))
    found = [one for one in budgets.read_all() if task in (None, one.task)]
    if options.json:
        output.emit(found)
        return ExitCode.DONE
    output.table(
        [
            {
                "task": one.task,
                "today": one.summary(),
                "set by": "an operator" if one.operators else "the catalogue",
                "now": "spent: waits until 00:00 UTC" if one.spent else "",
            }
            for one in found
        ]
    )
    if not found:
        output.line("No task has a budget.")
    elif clear or limited:
        output.note("Workers see it within a minute. Messages that wait already continue at 00:00 UTC.")
    return ExitCode.DONE
