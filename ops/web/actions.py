"""The actions behind the buttons. Each first shows its plan and acts once that is confirmed.

In prod, irreversible actions are confirmed by typing the stack's name, as in the command.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from nexus.client import AsyncResult, read_records
from nexus.definitions import HIDDEN
from nexus.errors import InvalidMessage
from nexus.runs.record import RunRecord
from ops import audit, budgets, catalogue, control, dead_letters, history, lookup, retrying, schedules, spans
from ops.aws import in_parallel
from ops.dead_letters import Filter
from ops.problems import ExitCode, Problem, usage
from ops.web.views import Site

type Form = Mapping[str, Any]

MOST: Final = 1_000
"""The most runs that one click acts on."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an action would do: a question, and the first items it would affect.

    `confirm_with` are the fields that a confirmation adds to the form, so that it affects no more than the plan, except
    for members of a chosen job or group that fail in the meantime: they are sent again with the others.
    """

    question: str
    lines: tuple[str, ...] = ()
    confirm_with: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> list[tuple[str, str]]:
        """`confirm_with` as a form's inputs."""
        values = {name: given if isinstance(given, list) else [given] for name, given in self.confirm_with.items()}
        return [(name, str(one)) for name, given in values.items() for one in given]


@dataclass(frozen=True, slots=True)
class Action:
    """A change. `plan` says what it would do, `do` does it and says what it did; `lasting` marks it irreversible."""

    plan: Callable[[Site, Form], Plan]
    do: Callable[[Site, Form], str]
    about: str
    fields: tuple[str, ...] = field(default=())
    lasting: bool = True


def perform(site: Site, name: str, form: Form, by: str = "") -> Plan | str:
    """Returns an action's plan, or what it did once confirmed. `by` is for the audit trail. Raises Problem."""
    if site.read_only:
        raise Problem("Nothing was changed", "This page is read-only: it was started with --read-only.", code=DECLINED)
    if name not in ACTIONS:
        raise usage(f"There is no action {name!r}")
    action, deployment = ACTIONS[name], site.deployment
    if form.get("confirmed") not in (True, "1", "true"):  # a program's "false" is a text
        return action.plan(site, form)
    if action.lasting and deployment.is_prod and form.get("stack") != deployment.stack:
        raise Problem("Nothing was changed", f"This is prod: type {deployment.stack} to continue.", code=DECLINED)
    omitted = {"args", "id"} if form.get("query") else {"args"}
    change = audit.Change(name, {key: form[key] for key in action.fields if form.get(key) and key not in omitted}, by)
    try:
        with audit.changing(change):
            done = change.outcome = action.do(site, form)
            change.begin()  # unless its requests have done so
    finally:
        site.forget()
    return done if change.missing is None else f"{done} It is missing from the audit trail: {change.missing.what}."


DECLINED = ExitCode.NOT_CONFIRMED


def _text(form: Form, name: str) -> str:
    value = form.get(name)
    if isinstance(value, list):
        value = value[0] if value else None
    if not value:
        raise usage(f"{name} is missing")
    return str(value)


# --- queues and functions ---


def _queue(form: Form) -> str:
    queue = _text(form, "queue")
    if queue not in catalogue.queues():
        raise usage(f"There is no queue {queue!r}")
    return queue


def _asks(question: str) -> Callable[[Site, Form], Plan]:
    def plan(site: Site, form: Form) -> Plan:
        return Plan(question.format(queue=_queue(form), stack=site.deployment.stack))

    return plan


def _pause(_: Site, form: Form) -> str:
    return f"{_queue(form)} is paused: {control.pause(_queue(form)).state}."


def _resume(site: Site, form: Form) -> str:
    switched = control.resume(_queue(form), site.deployment.reserved(_queue(form)))
    return f"{_queue(form)} is on: {switched.state}."


def _maximum(form: Form) -> int:
    text = _text(form, "maximum")
    if not text.isdecimal() or not 2 <= int(text) <= 1000:
        raise usage(f"{text} is not a valid concurrency", "SQS's event sources take 2 to 1000.")
    return int(text)


def _plan_concurrency(site: Site, form: Form) -> Plan:
    return Plan(f"Run at most {_maximum(form)} sandboxes of {_queue(form)} in {site.deployment.stack} at once?")


def _concurrency(_: Site, form: Form) -> str:
    control.concurrency(_queue(form), _maximum(form))
    return f"{_queue(form)}: {_maximum(form)} at once. To make it permanent, set MaximumConcurrency in template.yaml."


def _restart(_: Site, form: Form) -> str:
    return f"{_queue(form)}: {control.restart(_queue(form))}."


# --- runs ---


def _meant(form: Form) -> list[RunRecord]:
    """The chosen runs, by ids or by a query, at most MOST. Raises Problem if there are none.

    A confirmation has the ids that the query found for its plan: more runs may match by then.
    """
    if (query := form.get("query")) and not form.get("id"):
        found = history.every(lookup.whole(history.parse(str(query))), MOST + 1)
        if len(found) > MOST:
            raise usage(f"These are more than {MOST:,} runs", "That is the limit of one click.", "Add a filter.")
        return found
    given = form.get("id") or []
    ids = [str(one) for one in given] if isinstance(given, list) else [str(given)]
    for run_id in ids:
        lookup.check_whole(run_id)
    if not ids:
        raise usage("Which runs?", do="Select some, or give a query.")
    return [record for record in read_records([AsyncResult(i) for i in ids]) if record.status != "UNKNOWN"]


def _only(form: Form) -> RunRecord:
    """The chosen run. Raises Problem unless there is exactly one."""
    records = _meant(form)
    if len(records) > 1:
        raise usage(f"These are {len(records)} runs", "Only one run can be edited at a time.")
    if not records:
        raise usage(f"{_text(form, 'id')} is unknown", "No run has this id: never sent, or its record has expired.")
    return records[0]


def _chosen(form: Form, records: Sequence[RunRecord]) -> Mapping[str, Any]:
    """What the confirmation of a plan adds: the ids of the runs that a query found for it."""
    return {} if form.get("id") else {"id": [record.id for record in records]}


def _lines(records: Sequence[RunRecord]) -> tuple[str, ...]:
    shown = tuple(f"{one.status}  {one.task}  {one.id}" for one in records[:12])
    return shown if len(records) <= 12 else (*shown, f"... and {len(records) - 12} more")


def _count(records: Sequence[Any], word: str = "run") -> str:
    return f"{len(records):,} {word}{'s' if len(records) != 1 else ''}"


def _plan_retry(site: Site, form: Form) -> Plan:
    meant = _meant(form)
    records = retrying.failed(one.id for one in meant).runs
    question = f"Send {_count(records)} of {site.deployment.stack} again, with all attempts?"
    asked_for = [one for one in meant if one.status == "FAILURE" or one.fanned_out]
    return Plan(question, _lines(records), _chosen(form, asked_for))


def _retry(_: Site, form: Form) -> str:
    return retrying.retry(retrying.failed(record.id for record in _meant(form)))


def _live(form: Form) -> list[RunRecord]:
    return [record for record in _meant(form) if not record.ended]


def _plan_revoke(site: Site, form: Form) -> Plan:
    records = _live(form)
    if not records:
        raise usage("All of these runs have ended")
    question = f"Revoke {_count(records)} of {site.deployment.stack}? A run in progress is not killed, and not retried."
    return Plan(question, _lines(records), _chosen(form, records))


def _revoke(_: Site, form: Form) -> str:
    records = _live(form)
    after = in_parallel(lambda record: AsyncResult[Any](record.id).revoke("revoked by an operator"), records)
    running = after.count("STARTED")
    rest = f" {running} run to their end, and are not retried." if running else ""
    return f"{after.count('REVOKED')} revoked.{rest}"


def _arguments(form: Form) -> dict[str, Any]:
    """The arguments from the form: one JSON object, or one field each."""
    if text := form.get("args"):
        try:
            found = json.loads(str(text))
        except ValueError as error:
            raise usage("The arguments are not JSON", str(error)) from None
        if not isinstance(found, dict):
            raise usage("Arguments must be a JSON object")
    else:
        given = {name.removeprefix("arg:"): str(value) for name, value in form.items() if name.startswith("arg:")}
        found = {name: spans.argument(name, value) for name, value in given.items() if value != ""}
    if json.dumps(HIDDEN) in json.dumps(found):
        raise usage("A secret argument is hidden here", "Run records do not contain it.", "Enter its value.")
    return found


def _plan_send(site: Site, form: Form) -> Plan:
    task = site.task(_text(form, "task"))
    checked = task.check(_arguments(form)).model_dump(mode="json", exclude_defaults=True)
    shown = json.dumps(task.without_secrets(checked), ensure_ascii=False)
    timing = [f"{name}  {at if isinstance(at, datetime) else form[name]}" for name, at in spans.timing(form).items()]
    return Plan(f"Send {task.name} in {site.deployment.stack}?", (shown, *timing))


def _send(site: Site, form: Form) -> str:
    task = site.task(_text(form, "task"))
    handle = task.apply_async(_arguments(form), **spans.timing(form))
    return f"Sent: {handle.id}"


def _plan_edit(site: Site, form: Form) -> Plan:
    record = _only(form)
    task = site.task(record.task)
    checked = task.check(_arguments(form)).model_dump(mode="json", exclude_defaults=True)
    how = "under its id" if record.status == "FAILURE" else "as another run"
    lines = (
        f"was  {json.dumps(record.args, ensure_ascii=False)}",
        f"is   {json.dumps(task.without_secrets(checked), ensure_ascii=False)}",
    )
    return Plan(f"Send {record.task} in {site.deployment.stack} {how}?", lines, {"status": record.status})


def _edit(site: Site, form: Form) -> str:
    record = _only(form)
    if (asked := form.get("status")) not in (None, record.status):
        why = f"It was {asked} when you were asked: someone else has handled it, or it has gone on."
        raise Problem(f"{record.id} is {record.status} now", why, "Look at it, and edit it again.", DECLINED)
    task, args = site.task(record.task), _arguments(form)
    if record.status == "FAILURE":
        if dead_letters.edit(record.queue, record.id, task, args) is None:
            raise Problem(
                f"{record.id} is no longer a dead letter", "Someone else handled it first, or it was dropped."
            )
        return f"Sent again: {record.id}"
    return f"Sent: {task.apply_async(args).id}"


# --- dead letters ---


def _filter(form: Form) -> Filter:
    """Selects the letters of a group, or by whole ids. Raises Problem if neither is given, or a field is invalid."""
    given = form.get("id") or []
    ids = frozenset(str(one) for one in (given if isinstance(given, list) else [given]))
    for letter_id in ids:
        lookup.check_whole(letter_id)
    task, kind = (str(form[name]) if name in form else None for name in ("task", "error"))
    if not ids and task is None and kind is None:
        raise usage("Which dead letters?")
    until = form.get("until")
    try:
        return Filter(ids=ids, task=task, kind=kind, until=None if until in (None, "") else float(until))
    except (TypeError, ValueError):
        raise usage(f"{until!r} is not a time", "`until` is in seconds since 1970, as the plan gives it.") from None


def _letters(site: Site, form: Form) -> list[dead_letters.Letter]:
    """The letters of a plan. Raises Problem if there are none."""
    wanted, queue = _filter(form), _queue(form)
    found = [letter for letter in site.letters(queue=queue) if wanted.holds(letter, letter.failed_at)]
    if not found:
        raise usage(f"{queue} has no such dead letters", "Someone else handled them first, or is reading them now.")
    return found


def _until(letters: Sequence[dead_letters.Letter]) -> Mapping[str, Any]:
    """What the confirmation of a plan adds: when its latest letter arrived, by SQS's clock."""
    return {"until": max(letter.arrived_at for letter in letters)}


def _plan_letters(what: str) -> Callable[[Site, Form], Plan]:
    def plan(site: Site, form: Form) -> Plan:
        letters = _letters(site, form)
        shown = tuple(f"{one.task}  {one.id}  {one.error}: {one.message[:80]}" for one in letters[:12])
        more = (f"... and {len(letters) - 12} more",) if len(letters) > 12 else ()
        question = what.format(count=_count(letters, "dead letter"), queue=_queue(form), stack=site.deployment.stack)
        return Plan(question, shown + more, _until(letters))

    return plan


def _retry_letters(_: Site, form: Form) -> str:
    return _outcome_text(dead_letters.retry(_queue(form), _filter(form)), "sent again")


def _drop_letters(_: Site, form: Form) -> str:
    return _outcome_text(dead_letters.drop(_queue(form), _filter(form)), "dropped")


def _plan_patch(site: Site, form: Form) -> Plan:
    task, patch = site.task(_text(form, "task")), _arguments(form)
    letters = _letters(site, form)
    lines, fit = [], 0
    for letter in letters:
        try:
            changed = dead_letters.patched(letter, task, patch)
        except InvalidMessage as error:
            lines.append(f"{letter.id}  stays: {error}")
        else:
            fit += 1
            lines.append(f"{letter.id}  {json.dumps(task.without_secrets(changed.args), ensure_ascii=False)}")
    if not fit:
        raise usage("None of these dead letters would be valid with these arguments", lines[0] if lines else "")
    shown = (*lines[:12], *([f"... and {len(lines) - 12} more"] if len(lines) > 12 else []))
    of = f"{fit:,} of " if fit < len(letters) else ""
    question = (
        f"Send {of}{_count(letters, 'dead letter')} of {_queue(form)} in {site.deployment.stack} again like this?"
    )
    return Plan(question, shown, _until(letters))


def _patch(site: Site, form: Form) -> str:
    task = site.task(_text(form, "task"))
    return _outcome_text(dead_letters.edit_each(_queue(form), _filter(form), task, _arguments(form)), "sent again")


def _outcome_text(outcome: dead_letters.Outcome, word: str) -> str:
    failed = f" {len(outcome.failed)} were not: {next(iter(outcome.failed.values()))}" if outcome.failed else ""
    return f"{outcome.done:,} dead letter{'s' if outcome.done != 1 else ''} {word}.{failed}"


# --- schedules ---


def _scheduled(site: Site, form: Form) -> Any:
    task = site.task(_text(form, "task"))
    if task.schedule is None:
        raise usage(f"{task.name} has no schedule")
    return task


def _asks_of(question: str) -> Callable[[Site, Form], Plan]:
    def plan(site: Site, form: Form) -> Plan:
        return Plan(question.format(task=_scheduled(site, form).name, stack=site.deployment.stack))

    return plan


def _switch(*, on: bool) -> Callable[[Site, Form], str]:
    def do(site: Site, form: Form) -> str:
        task = _scheduled(site, form)
        schedules.switch(task.name, on=on)
        return f"{task.name} is {'on' if on else 'off'}."

    return do


def _run_now(site: Site, form: Form) -> str:
    return f"Sent: {_scheduled(site, form).delay().id}"


def _new_schedule(site: Site, form: Form) -> tuple[Any, str, Sequence[datetime]]:
    """(task, its new expression, when that fires next). Raises Problem if it never does."""
    task, expression = _scheduled(site, form), _text(form, "expression")
    times = site.next_times(expression)
    if not times:
        raise usage(f"{expression} never runs again")
    return task, expression, times


def _plan_change(site: Site, form: Form) -> Plan:
    task, expression, times = _new_schedule(site, form)
    before = schedules.expression(task.name)
    shown = tuple(f"{moment:%a %Y-%m-%d %H:%M} UTC" for moment in times)
    return Plan(f"Change {task.name} in {site.deployment.stack} from {before} to {expression}?", shown)


def _change(site: Site, form: Form) -> str:
    task, expression, _ = _new_schedule(site, form)
    schedules.change(task.name, expression)
    return f"Changed. To make it permanent: {schedules.parameter(task.name)} in samconfig.toml."


# --- budgets ---


def _wanted(form: Form) -> tuple[str, Any]:
    """(task, its new limits; None for the catalogue's). Raises Problem if a limit is invalid."""
    task = _text(form, "task")
    given = [None if form.get(name) is None else str(form[name]) for name in ("dollars", "runs")]
    return task, None if form.get("declared") else budgets.limits(task, *given)


def _plan_budget(site: Site, form: Form) -> Plan:
    task, wanted = _wanted(form)
    budget = budgets.of(task)
    limits = wanted or budget.declared
    lines = (f"today  {budget.summary()}", f"to be  {budgets.in_words(limits)}")
    return Plan(f"Change the budget of {task} in {site.deployment.stack}?", lines)


def _budget(_: Site, form: Form) -> str:
    task, wanted = _wanted(form)
    budgets.set_limits(task, wanted)
    return f"{task} may spend {budgets.in_words(budgets.of(task).limits)} a day, within a minute."


ACTIONS: Final[Mapping[str, Action]] = {
    "pause": Action(_asks("Pause {queue} of {stack}?"), _pause, "Stop a queue", ("queue",), lasting=False),
    "resume": Action(_asks("Resume {queue} of {stack}?"), _resume, "Resume a queue", ("queue",), lasting=False),
    "concurrency": Action(
        _plan_concurrency, _concurrency, "Set the maximum concurrency", ("queue", "maximum"), lasting=False
    ),
    "restart": Action(_asks("Restart {queue} of {stack}?"), _restart, "Fresh sandboxes", ("queue",), lasting=False),
    "retry": Action(_plan_retry, _retry, "Send failed runs again", ("id", "query")),
    "revoke": Action(_plan_revoke, _revoke, "Stop runs that have not ended", ("id", "query")),
    "edit": Action(_plan_edit, _edit, "Send a run again with other arguments", ("id", "args", "status")),
    "send": Action(_plan_send, _send, "Send a task", ("task", "args", "countdown", "eta", "expires"), lasting=False),
    "retry-letters": Action(
        _plan_letters("Send {count} of {queue} in {stack} again?"),
        _retry_letters,
        "Send dead letters again",
        ("queue", "task", "error", "id", "until"),
    ),
    "drop-letters": Action(
        _plan_letters("Delete {count} of {queue} in {stack} for good?"),
        _drop_letters,
        "Delete dead letters",
        ("queue", "task", "error", "id", "until"),
    ),
    "edit-letters": Action(
        _plan_patch,
        _patch,
        "Send dead letters again with other arguments",
        ("queue", "task", "error", "id", "until", "args"),
    ),
    "enable": Action(
        _asks_of("Turn on {task} in {stack}?"), _switch(on=True), "Turn a schedule on", ("task",), lasting=False
    ),
    "disable": Action(
        _asks_of("Turn off {task} in {stack}?"), _switch(on=False), "Turn a schedule off", ("task",), lasting=False
    ),
    "run": Action(_asks_of("Run {task} in {stack} now?"), _run_now, "Run a schedule now", ("task",), lasting=False),
    "budget": Action(
        _plan_budget,
        _budget,
        "Set a task's daily budget",
        ("task", "dollars", "runs", "declared"),
        lasting=False,
    ),
    "change": Action(_plan_change, _change, "Change when a schedule runs", ("task", "expression")),
}
