"""The tasks' budgets: what the catalogue declares, what an operator has set instead, and what is left of the day."""

import time
from dataclasses import dataclass

from nexus import clock
from nexus.backend import backend
from nexus.backend.store import Value, Write
from nexus.definitions import Budget
from nexus.runs import budget
from nexus.runs.budget import Account
from ops import catalogue
from ops.problems import Problem, usage


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """A task's budget today (UTC). `runs` counts attempts that have begun, `dollars` their cost, estimated where it is
    not yet known. `operators`, if set, overrides `declared`."""

    task: str
    queue: str
    declared: Budget
    operators: Budget | None
    runs: int
    dollars: float
    spent: bool

    @property
    def limits(self) -> Budget:
        return self.operators or self.declared

    def summary(self) -> str:
        """How much of the limits has been used: 20 of 20 attempts, $1.20 of $5.00."""
        from ops.cost import dollars

        most, money = self.limits.runs, dollars(self.dollars)
        attempts = f"{self.runs:,} attempts" if most is None else f"{self.runs:,} of {most:,} attempts"
        return f"{attempts}, {money if self.limits.dollars is None else f'{money} of {dollars(self.limits.dollars)}'}"


def in_words(limits: Budget) -> str:
    """$5.00 and 20 attempts."""
    from ops.cost import dollars

    money = [] if limits.dollars is None else [dollars(limits.dollars)]
    return " and ".join(money + ([] if limits.runs is None else [f"{limits.runs:,} attempts"])) or "without a limit"


def read_all() -> list[BudgetUse]:
    """Returns the budget of every task that has one. Makes one request, or none if no task has a budget."""
    found = {name: task for name, task in catalogue.tasks().items() if task.budget is not None}
    items = backend().store.get([budget.key(name) for name in found]) if found else {}
    day, uses = budget.today(time.time()), []
    for name, task in found.items():
        account = Account.of(items.get(budget.key(name), {})).on(day)
        declared = task.budget or Budget()
        limits = account.limits or declared
        runs = account.runs if limits.runs is None else min(account.runs, limits.runs)
        spent = account.room(limits) <= 0
        uses.append(BudgetUse(name, task.queue, declared, account.limits, runs, account.dollars, spent))
    return uses


def of(task: str) -> BudgetUse:
    """One task's budget. Raises Problem if it has none."""
    known = {one.task: one for one in read_all()}
    if task in known:
        return known[task]
    if task not in catalogue.tasks():
        raise usage(f"There is no task {task!r}")
    raise Problem(
        f"{task} has no budget",
        "Workers check only budgets that the catalogue declares, so that other tasks pay for no check.",
        "Add budget=Budget() in the catalogue and deploy; then you can set any limit here.",
    )


def limits(task: str, dollars: str | None, runs: str | None) -> Budget:
    """A task's limits after a change: None keeps a limit, "none" removes it. Raises Problem if a value is invalid."""
    now = of(task).limits
    most = _limit(runs, now.runs)
    if most is not None and most != int(most):
        raise usage(
            f"{runs!r} is not a limit of attempts", "Half an attempt would stop the task.", "Give a whole number."
        )
    return Budget(_limit(dollars, now.dollars), None if most is None else int(most))


def _limit(text: str | None, now: float | None) -> float | None:
    if text is None or text == "":
        return now
    if text == "none":
        return None
    try:
        value = float(text.removeprefix("$").replace(",", ""))
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e12:
        raise usage(f"{text!r} is not a limit", "Give a number from 0 up, or none.")
    return value


def set_limits(task: str, wanted: Budget | None) -> None:
    """Overrides the declared limits; None removes the override. Workers see it within a minute. Messages that already
    wait continue the next day."""
    backend().store.apply(_limits(task, wanted))


def _limits(task: str, wanted: Budget | None) -> Write:
    named: dict[str, Value] = {}
    if wanted is not None:
        named = {"limit_dollars": wanted.dollars, "limit_runs": wanted.runs}
    values = {name: value for name, value in named.items() if value is not None}
    if wanted is not None:
        values["limited"] = True
    gone = tuple(name for name in ("limited", "limit_dollars", "limit_runs") if name not in values)
    values["expires"] = int(clock.now()) + budget.KEPT
    return Write(budget.key(task), values, remove=gone)
