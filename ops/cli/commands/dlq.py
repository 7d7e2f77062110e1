"""`nexus dlq ...`: lists, resends, edits and drops dead letters."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ops import audit, spans
from ops.cli import common, output
from ops.cli.commands.tasks import arguments_of
from ops.cli.common import command, options
from ops.problems import ExitCode, Problem, usage

if TYPE_CHECKING:
    from ops.dead_letters import Filter, Group, Letter, Outcome

app = common.app("Dead letters: what failed for good, and why; send again, edit or drop.")

SHOWN: Final = 50
"""The letters that a table shows without --limit."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Options that filter dead letters."""

    task: Annotated[str | None, typer.Option(help="Only this task's.", autocompletion=common.complete_task)] = None
    error: Annotated[str | None, typer.Option(help="Only with this in the error's type or message.")] = None
    older_than: Annotated[str | None, typer.Option(help="Only those given up longer ago: 2h, 3d.")] = None
    younger_than: Annotated[str | None, typer.Option(help="Only those given up since: 30m.")] = None

    def read(self, ids: Sequence[str] = ()) -> "Filter":
        """The filter for a search. Accepts any task name, since a letter's task may no longer exist."""
        from ops.dead_letters import Filter

        return Filter(
            ids=frozenset(ids),
            task=self.task,
            error=self.error,
            older_than=None if self.older_than is None else spans.seconds(self.older_than),
            younger_than=None if self.younger_than is None else spans.seconds(self.younger_than),
        )


QueueOption = Annotated[
    str | None,
    typer.Option("--queue", help="Only this queue's; all if left out.", autocompletion=common.complete_queue),
]


@dataclass(frozen=True, slots=True)
class Meant(Filters):
    """The dead letters that an action applies to."""

    ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Run ids, or their first or last eight characters; or one queue's name.",
            metavar="ID|QUEUE",
            autocompletion=common.complete_queue,
        ),
    ] = None
    queue: QueueOption = None
    every: Annotated[bool, typer.Option("--all", help="All dead letters, without a filter.")] = False

    def queues_and_filter(self) -> tuple[list[str], "Filter"]:
        """The queues to search and the filter. Raises Problem if none is given: the user may not mean all letters."""
        from ops import catalogue

        ids, queue = self.ids or [], self.queue
        # People type `nexus dlq retry media`, so a queue's name is accepted in place of an id.
        if len(ids) == 1 and ids[0] in catalogue.queues() and queue is None:
            queue, ids = ids[0], []
        queues = common.the_queues(queue)
        wanted = self.read([_id(text) for text in ids])
        if wanted.everything and queue is None and not self.every:
            raise usage("Which dead letters?", do="Give ids, a queue, --task, --error, --older-than, or --all.")
        return queues, wanted


def _id(text: str) -> str:
    from ops import catalogue, history

    if not history.is_part(text.lower()):
        if text in catalogue.queues():
            what, why = f"{text} is a queue, not a run id", ""
            raise usage(what, why, f"`nexus dlq list {text}` shows the ids of its dead letters.")
        why = "An id is a UUID, or its first or last eight characters and more."
        raise usage(f"{text!r} is neither a run id nor a queue", why, f"Queues: {', '.join(catalogue.queues())}.")
    return text.lower()


@command(app, "list")
def list_(
    *,
    queue: common.OptionalQueue = None,
    queue_option: QueueOption = None,
    filters: Filters,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Show at most this many: 50 if left out, all with --json. The counts include all."),
    ] = None,
    groups: Annotated[bool, typer.Option("--groups", help="Count them by task and error.")] = False,
) -> int:
    """List dead letters and their errors; --json prints each letter in full, one per line."""
    from ops import dead_letters

    if groups and limit is not None:
        raise usage("--groups counts all dead letters", "--limit shows some of them.", "Give one of them.")
    if queue and queue_option:
        raise usage("Which queue?", f"Both {queue} and --queue {queue_option} were given.", "Give one.")
    queue = queue or queue_option
    wanted = filters.read()
    common.connect()
    counts = dead_letters.counts(common.the_queues(queue))
    most = SHOWN if limit is None and not options.json and not groups else limit
    hidden: list[Problem] = []
    shown = 0

    def letters() -> "Iterator[Letter]":
        nonlocal shown
        for name in (name for name, count in counts.items() if count and shown != most):
            for letter in dead_letters.read(name, wanted, None if most is None else most - shown, hidden.append):
                shown += 1
                yield letter

    found: Iterable[Any] = dead_letters.grouped(letters()) if groups else letters()
    if options.json:
        for one in found:
            output.emit_line(one if groups else dead_letters.as_plain(one))
    else:
        rows = [_group_row(one) if groups else _row(one) for one in found]
        output.table(rows, right=("letters", "first", "last", "ago", "attempts"))
        output.line(_total(counts, wanted, shown, most))
    total = sum(counts.values())
    if options.json and most is None and wanted.everything and shown < total:
        why = f"another reader holds the others, or there are more than {dead_letters.SCAN_LIMIT:,}"
        output.note(f"{shown} of {total} dead letters were read: {why}.")
    elif shown != most and (unread := _unread(counts)):
        output.note(unread)
    return _all_visible(hidden)


def _total(counts: Mapping[str, int], wanted: "Filter", shown: int, most: int | None) -> str:
    """How many dead letters there are, below the table of those that are shown."""
    total = sum(counts.values())
    if not total:
        return "No dead letters." if len(counts) > 1 else f"{next(iter(counts))} has no dead letters."
    where = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    if not shown:
        hint = "" if not wanted.everything else " Another reader holds them: try again in a minute."
        return f"None of the {total} dead letters match ({where}).{hint}"
    more = ""
    if shown == most and total > shown:
        more = f" The first {most} are shown: --limit shows more, --groups counts them by task and error."
    return f"{total} dead letter{'s' if total != 1 else ''} in all: {where}.{more}"


def _row(letter: "Letter") -> dict[str, object]:
    return {
        "id": letter.id,
        "queue": letter.queue,
        "task": letter.task,
        "ago": output.age(time.time() - letter.failed_at),
        "attempts": letter.attempts,
        "error": output.cut(f"{letter.error}: {letter.message}", 70),
    }


def _group_row(group: "Group") -> dict[str, object]:
    return {
        "letters": f"{group.count:,}",
        "queue": group.queue,
        "task": group.task or "(unreadable)",
        "first": f"{output.age(time.time() - group.first_at)} ago",
        "last": f"{output.age(time.time() - group.last_at)} ago",
        "error": output.cut(f"{group.error}: {group.example}", 70),
    }


def _all_visible(hidden: "Sequence[Problem]") -> int:
    """Raises what kept letters hidden that were read and shown, if anything did."""
    if hidden:
        raise hidden[0]
    return ExitCode.DONE


def _unread(counts: Mapping[str, int]) -> str:
    """Says which queues have more letters than one read receives; empty if none has."""
    from ops.dead_letters import SCAN_LIMIT

    return " ".join(
        f"Only {SCAN_LIMIT:,} of the {count:,} dead letters of {name} were read: SQS hands out no more at a time."
        for name, count in counts.items()
        if count > SCAN_LIMIT
    )


@command(app, "show")
def show(
    letter_id: Annotated[str, typer.Argument(help="A run's id, or its first or last eight characters.", metavar="ID")],
    queue: QueueOption = None,
) -> int:
    """Show one dead letter: error, traceback, log and message."""
    from nexus.client import AsyncResult
    from ops import dead_letters
    from ops.runs import error_as_plain

    common.connect()
    wanted = Filters().read([_id(letter_id)])
    queues = common.the_queues(queue)
    hidden: list[Problem] = []
    letter = _find(queues, wanted, letter_id, hidden.append)
    # The traceback does not fit into a message's attributes, so it is in the run's record.
    error = AsyncResult(letter.id).error if letter.has_run else None
    if options.json:
        kept = error_as_plain(error) or {}
        output.emit(dead_letters.as_plain(letter) | {name: kept.get(name) for name in ("path", "traceback")})
        return _all_visible(hidden)
    output.pairs(
        {
            "id": letter.id,
            "queue": letter.queue,
            "task": letter.task,
            "error": letter.error,
            "message": letter.message,
            "exception": error.path or None if error else None,
            "attempts": letter.attempts or None,
            "sent": output.time_of(letter.sent_at),
            "given up": output.time_of(letter.failed_at),
            "log": letter.log,
        }
    )
    if error and error.traceback:
        output.line(error.traceback.rstrip())
    body = letter.shown_body
    output.line(body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False))
    if letter.error == dead_letters.REDRIVEN:
        output.note(
            "`nexus validate` checks the function's settings and rights, "
            f"`nexus logs --queue {letter.queue} --since 1h` shows what it wrote."
        )
    if letter.log and letter.has_run:
        output.note(f"`nexus logs {letter.id}` shows what it wrote.")
    if letter.unsendable:
        output.note(f"It cannot be sent again: {letter.unsendable}.")
    elif letter.args is None:
        output.note(f"`nexus dlq retry {letter.id}` sends it as it is, `nexus dlq drop {letter.id}` deletes it.")
    else:
        edits = f"`nexus dlq edit {letter.id} name=value` with other arguments"
        output.note(f"`nexus dlq retry {letter.id}` sends it again, {edits}.")
    return _all_visible(hidden)


def _find(
    queues: list[str], wanted: "Filter", letter_id: str, on_hidden: "Callable[[Problem], None] | None" = None
) -> "Letter":
    """The letter with that id or part of an id. Raises Problem if there is none, or more than one."""
    from ops import dead_letters, lookup

    found: list[Letter] = []
    whole = lookup.is_whole(letter_id)
    counts = dead_letters.counts(queues)
    for name, count in counts.items():
        if count:
            # A whole id matches one letter. A part may match several, so search on.
            found += dead_letters.read(name, wanted, 1 if whole else None, on_hidden)
        if found and whole:
            break
    return _only(found, counts, letter_id)


def _only(found: "Sequence[Letter]", counts: Mapping[str, int], letter_id: str) -> "Letter":
    """The one letter that was found for an id or a part of one. Raises Problem if there is none, or more than one."""
    from ops import lookup

    if not found:
        do = "`nexus dlq list` shows all."
        if lookup.is_whole(letter_id):
            do = f"`nexus result {letter_id}` shows the run's state, `nexus dlq list` all dead letters."
        raise Problem(f"No dead letter {letter_id} in {', '.join(counts)}", _unread(counts), do)
    if len({letter.id for letter in found}) > 1:
        shown = "; ".join(f"{letter.id} {letter.task}".rstrip() for letter in found[: lookup.CANDIDATES])
        rest = "" if len(found) <= lookup.CANDIDATES else "; ..."
        do = "Give more of the id, or its last eight characters."
        raise usage(f"{letter_id} matches {len(found)} dead letters", f"{shown}{rest}", do)
    return found[0]


def _present(queues: list[str], wanted: "Filter") -> "tuple[dict[str, int], Filter]":
    """The queues that have dead letters, with their counts; and the filter, with each part of an id completed.

    Runs of the same minute share the first eight characters of their ids. Raises Problem unless each part matches one
    letter, or a job. If all ids are parts of letters' ids, only the queues of these are returned.
    """
    from ops import dead_letters, lookup

    counts = dead_letters.counts(queues)
    present = {name: count for name, count in counts.items() if count}
    parts = sorted(one for one in wanted.ids if not lookup.is_whole(one))
    if not parts:
        return present, wanted
    read = (letter for name in present for letter in dead_letters.read(name, replace(wanted, ids=frozenset())))
    letters = [letter for letter in read if any(map(letter.has, parts))]
    having = {part: [one for one in letters if one.has(part)] for part in parts}
    found = {_only(having[part], counts, part).id if having[part] else _job(part, counts) for part in parts}
    if all(having.values()) and len(parts) == len(wanted.ids):
        present = {name: count for name, count in present.items() if name in {letter.queue for letter in letters}}
    return present, replace(wanted, ids=wanted.ids.difference(parts) | found)


def _job(part: str, counts: Mapping[str, int]) -> str:
    """The id of the job or group that a part of an id means: its members have the dead letters. Raises Problem if none
    matches.
    """
    from nexus.client import AsyncResult
    from ops import lookup

    try:
        record = AsyncResult[Any](lookup.run_id(part)).record()
    except Problem:
        return _only((), counts, part).id
    return record.id if record.waits else _only((), counts, part).id


@command(app, "retry")
def retry(meant: Meant, *, yes: common.Yes = False) -> int:
    """Send dead letters to their queue again: by id, filter, queue or --all; by a job's id, those of its parts."""
    from ops import dead_letters, retrying

    deployment = common.connect()
    present, wanted = _present(*meant.queues_and_filter())
    if wanted.ids:
        wanted = replace(wanted, ids=retrying.letters(wanted.ids))
    if not wanted.ids and present:
        question = f"Send {_which(wanted, sum(present.values()))} of {', '.join(present)} in {deployment.stack} again?"
        common.confirm(deployment, question, yes=yes)
    outcomes: dict[str, Outcome] = {}
    with output.bar(shown=not options.json) as bar:
        for name, count in present.items():
            if wanted.everything and count > dead_letters.ONE_BY_ONE:
                try:
                    moved = dead_letters.move_all(name, _shows("moved by SQS", outcomes, name, bar))
                except KeyboardInterrupt:
                    output.note(f"SQS continues to move them: `nexus dlq list {name}` counts what is left.")
                    raise
                if moved is not None:
                    outcomes[name] = dead_letters.Outcome(done=moved, examined=count)
                    continue
            outcomes[name] = dead_letters.retry(
                name, wanted, _counts("sent again", outcomes, name, len(wanted.ids) or count, bar)
            )
    return _print_outcome("sent again", outcomes, wanted, present)


@command(app, "drop")
def drop(meant: Meant, *, yes: common.Yes = False) -> int:
    """Delete dead letters for good: by id, filter, queue or --all. `nexus dlq list --json` keeps a copy."""
    from ops import dead_letters

    deployment = common.connect()
    counted_at = time.time()
    present, wanted = _present(*meant.queues_and_filter())
    purged = [name for name, count in present.items() if wanted.everything and count > dead_letters.ONE_BY_ONE]
    if present:
        which = min(wanted.ids) if len(wanted.ids) == 1 else _which(wanted, sum(present.values()))
        where = "" if wanted.ids else f" of {', '.join(present)}"
        late = f", with what reaches {', '.join(purged)} in the next minute" if purged else ""
        common.confirm(deployment, f"Delete {which}{where} in {deployment.stack} for good{late}?", yes=yes)
    everything = wanted.everything
    if not wanted.ids:
        wanted = replace(wanted, until=counted_at)
    outcomes: dict[str, Outcome] = {}
    with output.bar(shown=not options.json) as bar:
        for name, count in present.items():
            done = dead_letters.purge(name) if name in purged else None
            if done is None:
                outcomes[name] = dead_letters.drop(
                    name, wanted, _counts("dropped", outcomes, name, len(wanted.ids) or count, bar)
                )
            else:
                outcomes[name] = dead_letters.Outcome(done=done, examined=count)
    code = _print_outcome("dropped", outcomes, wanted, present)
    examined = sum(one.examined for one in outcomes.values())
    if everything and not options.json and sum(one.done for one in outcomes.values()) < examined:
        output.note("Fewer than were counted: the others arrived meanwhile, or this machine's clock is slow.")
    return code


def _which(wanted: "Filter", count: int) -> str:
    if wanted.everything:
        return f"all {count} dead letters" if count != 1 else "the one dead letter"
    if wanted.ids:
        return f"these {len(wanted.ids)}"
    parts = []
    if wanted.task:
        parts.append(f"of {wanted.task}")
    if wanted.error:
        parts.append(f"with {wanted.error!r}")
    if wanted.older_than is not None:
        parts.append(f"older than {output.age(wanted.older_than)}")
    if wanted.younger_than is not None:
        parts.append(f"younger than {output.age(wanted.younger_than)}")
    return f"the dead letters {' and '.join(parts)} (of {count} in all)"


def _shows(
    verb: str, before: "Mapping[str, Outcome]", name: str, bar: output.Bar
) -> "Callable[[int, int | None], None]":
    """Shows how many letters of a queue have been handled, and notes it for an error or Ctrl-C in the middle."""
    earlier = "".join(f"{queue} {outcome.done:,}, " for queue, outcome in before.items())

    def show(done: int, total: int | None) -> None:
        audit.note_progress(f"{earlier}{name} {done:,} dead letters {verb}")
        bar(done, total, f"{name}: {done:,} of {total or '?'} {verb}")

    return show


def _counts(
    verb: str, before: "Mapping[str, Outcome]", name: str, of: int, bar: output.Bar
) -> "Callable[[Outcome], None]":
    shows = _shows(verb, before, name, bar)
    return lambda outcome: shows(outcome.done, of)


def _print_outcome(verb: str, outcomes: "Mapping[str, Outcome]", wanted: "Filter", present: Mapping[str, int]) -> int:
    """Reports an action: what it did, what it could not do, and which of the counted letters it has not seen."""
    from ops.dead_letters import SCAN_LIMIT

    done = sum(outcome.done for outcome in outcomes.values())
    failed = {letter: why for outcome in outcomes.values() for letter, why in outcome.failed.items()}
    by_queue = ", ".join(f"{name} {outcome.done}" for name, outcome in outcomes.items() if outcome.done)
    message = f"{done} dead letter{'s' if done != 1 else ''} {verb}" + (f": {by_queue}." if by_queue else ".")
    missing = len(wanted.ids) > done + len(failed)
    unread = {name: count - outcomes[name].examined for name, count in present.items()}
    unread = {name: count for name, count in unread.items() if count > 0 and (missing or not wanted.ids)}
    common.done({"done": done, "failed": failed, "queues": outcomes, "not_read": unread}, message)
    if not options.json:
        for letter_id, why in failed.items():
            output.line(f"{letter_id}: {why}", "red")
        if missing:
            output.note("Some ids match no dead letter: `nexus dlq list` shows all.")
        for name, count in unread.items():
            why = f"Another reader holds them, SQS's count was late, or there are more than {SCAN_LIMIT:,}."
            what = f"Not read: {count:,} of the {present[name]:,} dead letters of {name}."
            output.note(f"{what} {why} Repeat the command for them.")
    return ExitCode.WRONG if failed or missing or unread else ExitCode.DONE


@command(app, "edit")
def edit(
    letter_id: Annotated[str, typer.Argument(help="A run's id, or its first or last eight characters.", metavar="ID")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="name=value to change; without any, your editor opens.")
    ] = None,
    unset: Annotated[list[str] | None, typer.Option("--unset", help="An argument to remove.", metavar="NAME")] = None,
    queue: QueueOption = None,
    yes: common.Yes = False,
) -> int:
    """Change a dead letter's arguments, validate them, and send it again under the same id."""
    from ops import catalogue, dead_letters

    deployment = common.connect()
    wanted = Filters().read([_id(letter_id)])
    letter = _find(common.the_queues(queue), wanted, letter_id)
    task = catalogue.tasks().get(letter.task)
    envelope = letter.envelope
    if letter.unsendable:
        raise Problem(f"{letter.id} cannot be edited", f"{letter.unsendable}.")
    if letter.args is None or envelope is None or task is None:
        why = "It is not a task message." if envelope is None else f"{letter.task!r} is not a task of this catalogue."
        do = f"`nexus dlq retry {letter.id}` sends it as it is, `nexus dlq drop {letter.id}` deletes it."
        raise Problem(f"{letter.id} cannot be edited", why, do)
    if arguments or unset:
        args = {**letter.args, **arguments_of(task, arguments or [])}
        for name in unset or ():
            args.pop(name, None)
    else:
        args = _in_editor(letter.args)
    checked = dead_letters.edited(envelope, task, args).args
    if not options.json:
        output.line(f"was  {json.dumps(letter.shown_args, ensure_ascii=False)}", "red")
        output.line(f"is   {json.dumps(task.without_secrets(checked), ensure_ascii=False)}", "green")
    common.confirm(deployment, f"Send {letter.task} {letter.id} again with these arguments?", yes=yes)
    if dead_letters.edit(letter.queue, letter.id, task, args) is None:
        raise Problem(f"{letter.id} is no longer a dead letter", "Someone else handled it first.")
    result = {"id": letter.id, "task": letter.task, "was": letter.shown_args, "args": task.without_secrets(checked)}
    common.done(result, f"{letter.id} sent again.")
    return ExitCode.DONE


def _in_editor(args: Mapping[str, Any]) -> dict[str, Any]:
    """Opens the arguments in the user's editor and returns the edited ones."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor or not sys.stdin.isatty():
        raise usage("Nothing to change", do="Give name=value, or --unset NAME, or set EDITOR.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arguments.json"
        path.write_text(json.dumps(args, indent=2, ensure_ascii=False) + "\n")
        if subprocess.run([*shlex.split(editor), str(path)], check=False).returncode:
            raise Problem("Nothing was changed", "The editor ended with an error.", code=ExitCode.NOT_CONFIRMED)
        try:
            edited = json.loads(path.read_text())
        except ValueError as error:
            raise usage("The edited text is not JSON", str(error)) from None
    if not isinstance(edited, dict):
        raise usage("Arguments must be a JSON object")
    return edited
