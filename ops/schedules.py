"""Periodic tasks: their rules, next firings, and the results of recent ones.

A rule's firing is a run whose message says so (`Envelope.origin`). Its lines in the function's log repeat it, so a
schedule's runs are found there.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any

from nexus import cron
from nexus.client import AsyncResult, read_records
from nexus.settings import settings
from ops import catalogue, cron_words, logs
from ops.aws import client, in_parallel
from ops.health import RuleState, rule_states
from ops.problems import REPAIR, Problem
from ops.spans import At


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A periodic task. `expression` is the rule's; `runs` is how often it fired in the time examined; `last_at`
    (seconds since 1970) and `last_status` are of the last firing."""

    task: str
    queue: str
    on: bool
    present: bool
    expression: str
    meaning: str
    next_at: datetime | None
    runs: int | None = None
    last_at: At | None = None
    last_id: str | None = None
    last_status: str | None = None


def listed(since: float | None) -> list[Scheduled]:
    """Every periodic task of the catalogue, the next to fire first. Reads the logs since then (None: none)."""
    client("logs")
    rules = {rule.task: rule for rule in rule_states()}
    tasks = [task for task in catalogue.tasks().values() if task.schedule]
    histories: list[list[tuple[str, float]]]
    histories = [[] for _ in tasks] if since is None else in_parallel(lambda task: history(task, since), tasks)
    last = {fired[-1][0]: None for fired in histories if fired}
    status = {r.id: r.status for r in read_records([AsyncResult(run_id) for run_id in last])} if last else {}
    found = [
        _scheduled(task, rules.get(task.name), None if since is None else fired, status)
        for task, fired in zip(tasks, histories, strict=True)
    ]
    never = datetime.max.replace(tzinfo=UTC)
    return sorted(found, key=lambda row: row.next_at or never)


def _scheduled(
    task: Any, rule: RuleState | None, fired: Sequence[tuple[str, float]] | None, status: Mapping[str, str]
) -> Scheduled:
    next_at = None
    if rule is not None and rule.on and not rule.expression.startswith("rate"):
        with suppress(cron.BadSchedule):  # set by hand; `nexus validate` names it
            next_at = next(iter(cron.next_times(rule.expression, 1, datetime.now(UTC))), None)
    run_id, at = fired[-1] if fired else (None, None)
    return Scheduled(
        task=task.name,
        queue=str(task.queue),
        on=rule is not None and rule.on,
        present=rule is not None,
        expression=rule.expression if rule else task.schedule.expression,
        meaning=_meaning(task.schedule, rule.expression if rule else ""),
        next_at=next_at,
        runs=None if fired is None else len(fired),
        last_at=at,
        last_id=run_id,
        last_status=status.get(run_id) if run_id else None,
    )


def _meaning(schedule: Any, expression: str) -> str:
    """The catalogue's description, or one of the rule's changed expression; that itself, if it is not understood."""
    if expression in ("", schedule.expression):
        return str(schedule.meaning)
    try:
        return cron_words.in_words(expression)
    except cron.BadSchedule:
        return expression


def history(task: Any, since: float, patience: float = inf) -> list[tuple[str, float]]:
    """(run id, time) of each firing of a task's rule since then, oldest first. `patience` is as in `logs.read`."""
    fired: dict[str, float] = {}
    for phrase in ("run started", "run revoked"):  # a firing is revoked if the previous one's run is still live
        for line in logs.read(str(task.queue), [phrase, task.name], since, patience=patience):
            if line.fields.get("task") == task.name and line.fields.get("origin") == "rule":
                fired.setdefault(str(line.fields.get("run_id", "")), line.at)
    return sorted(fired.items(), key=lambda pair: pair[1])


def _rule(task: str) -> str:
    return f"{settings().stack}-{task}"


def switch(task: str, *, on: bool) -> None:
    """Enables or disables a rule."""
    events = client("events")
    try:
        (events.enable_rule if on else events.disable_rule)(Name=_rule(task))
    except events.exceptions.ResourceNotFoundException:
        raise _missing(task) from None


def expression(task: str) -> str:
    """The rule's current expression."""
    events = client("events")
    try:
        return str(events.describe_rule(Name=_rule(task)).get("ScheduleExpression", ""))
    except events.exceptions.ResourceNotFoundException:
        raise _missing(task) from None


def change(task: str, to: str) -> None:
    """Changes a rule's expression. Its state, description and target stay."""
    events = client("events")
    try:
        rule = events.describe_rule(Name=_rule(task))
    except events.exceptions.ResourceNotFoundException:
        raise _missing(task) from None
    kept: dict[str, Any] = {name: rule[name] for name in ("State", "Description", "RoleArn") if rule.get(name)}
    events.put_rule(Name=_rule(task), ScheduleExpression=to, **kept)


def parameter(task: str) -> str:
    """The template's parameter that holds a task's schedule."""
    return "".join(part.capitalize() for part in task.split("_")) + "Schedule"


def _missing(task: str) -> Problem:
    return Problem(f"{task} has no rule in {settings().stack}", do=REPAIR)
