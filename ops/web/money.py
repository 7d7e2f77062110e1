"""Dollars on the pages, in the API and in /metrics, from `ops.cost` and `ops.budgets`."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request

from nexus import prices
from ops import budgets, cost
from ops.cost import PARTS, CostLine, Line, Slice, as_plain
from ops.web.document import Costs, Shape
from ops.web.views import Site

type Part = Callable[[Request], tuple[str, dict[str, Any]]]

WHERE: Final = {"region": prices.REGION, "date": prices.DATE}


@dataclass(frozen=True, slots=True)
class Row:
    """A task or queue: its cost today and in the last seven days, and for a month at that rate."""

    name: str
    today: Line
    week: Line
    month: float


def parts(site: Site) -> Mapping[str, Part]:
    """The parts of the pages, by name."""

    def money(_: Request) -> tuple[str, dict[str, Any]]:
        return "parts/money.html", {**_sums(site), "read_at": site.costs_read_at()}

    def costs(_: Request) -> tuple[str, dict[str, Any]]:
        slices = site.costs()
        days = cost.by(slices, "day")
        heights = [day.cost.total * 1e9 for day in days]  # a bar's minimum height is 1
        tables = {"task": _rows(slices, "task"), "queue": _rows(slices, "queue")}
        values = {"tables": tables, "days": days, "heights": heights, "read_at": site.costs_read_at()}
        return "parts/cost.html", {**_sums(site), **values}

    def each(_: Request) -> tuple[str, dict[str, Any]]:
        return "parts/cost-each.html", {"lines": cost.by(site.costs(), "task"), "parts": PARTS}

    def of_task(request: Request) -> tuple[str, dict[str, Any]]:
        lines = {line.name: line for line in cost.by(site.costs(), "task")}
        return "parts/cost-task.html", {"line": lines.get(request.path_params["task"]), "parts": PARTS}

    def idle(_: Request) -> tuple[str, dict[str, Any]]:
        found = site.idle()
        return "parts/idle.html", {"idle": found, "total": sum(one.dollars for one in found), "at": WHERE}

    def limits(_: Request) -> tuple[str, dict[str, Any]]:
        return "parts/budgets.html", {"budgets": budgets.read_all()}

    return {
        "money": money,
        "cost": costs,
        "cost/each": each,
        "cost/idle": idle,
        "budgets": limits,
        "tasks/{task}/cost": of_task,
    }


def _sums(site: Site) -> dict[str, Any]:
    slices = site.costs()
    today, week = cost.total("today", cost.today(slices)), cost.total("week", slices)
    return {"today": today, "week": week, "month": cost.month_ahead(slices, site.idle(), _days(slices))}


def _days(slices: Sequence[Slice]) -> float:
    return cost.covered(slices, time.time() - cost.WEEK)


def _rows(slices: Sequence[Slice], by: str) -> list[Row]:
    of_today = {line.name: line for line in cost.by(cost.today(slices), by)}
    days = _days(slices)
    found = []
    for week in cost.by(slices, by):
        own = [one for one in slices if getattr(one, by) == week.name]
        nothing = Line(week.name, 0, prices.Cost(), estimated=False)
        found.append(Row(week.name, of_today.get(week.name, nothing), week, cost.month_ahead(own, (), days)))
    return found


def views(site: Site) -> Mapping[str, tuple[Shape, Callable[[Request], Any]]]:
    """The views of the API, by path."""
    return {
        "cost": (Shape("Dollars by task, queue and day, a month ahead, and idle", Costs), lambda _: _plain(site)),
        "budgets": (
            Shape("The tasks' daily budgets, and today's spending", list[budgets.BudgetUse]),
            lambda _: budgets.read_all(),
        ),
    }


def _plain(site: Site) -> Costs:
    slices, sums = site.costs(), _sums(site)

    def lines(by: str) -> list[CostLine]:
        return [as_plain(one) for one in cost.by(slices, by)]

    return Costs(
        today=as_plain(sums["today"]),
        week=as_plain(sums["week"]),
        month_ahead=sums["month"],
        by_task=lines("task"),
        by_queue=lines("queue"),
        by_day=lines("day"),
        idle=list(site.idle()),
        prices=WHERE,
    )


def gauges(site: Site) -> Iterator[tuple[str, str, list[tuple[Mapping[str, str], float]]]]:
    """The metric families of /metrics: name, help text, samples."""
    slices = site.costs()
    of_today = cost.today(slices)
    today = [({"task": one.task, "queue": one.queue}, one.cost.total) for one in of_today]
    yield "nexus_task_cost_today_dollars", "What the runs sent today have cost, at list prices", list(today)
    runs = [({"task": line.name}, line.each) for line in cost.by(slices, "task") if line.runs]
    yield "nexus_task_run_cost_dollars", "What a run costs, over seven days", list(runs)
    yield (
        "nexus_month_ahead_dollars",
        "A month at the rate of the last seven days",
        [({"stack": site.deployment.stack}, _sums(site)["month"])],
    )
    spent = [({"task": one.task}, int(one.spent)) for one in budgets.read_all()]
    yield "nexus_task_budget_spent", "1 when a task has spent its daily budget", list(spent)
