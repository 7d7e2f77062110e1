"""What every command shares: --json, --stack, --profile, --region, completion of names, and confirmation."""

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from nexus import version as package
from ops import audit
from ops.problems import ExitCode, Problem, explained, usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nexus.tasks import Task
    from ops.deployment import Deployment


@dataclass(slots=True)
class Options:
    """The options that every command has, as typed, before or after the command's name."""

    json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False
    stack: Annotated[str | None, typer.Option(help="The CloudFormation stack. [NEXUS_STACK]", metavar="NAME")] = None
    profile: Annotated[str | None, typer.Option(help="A profile of ~/.aws/config.", metavar="NAME")] = None
    region: Annotated[str | None, typer.Option(help="The stack's AWS region.", metavar="NAME")] = None


options = Options()


def forget() -> None:
    """Resets the options before a command line is parsed."""
    for one in fields(Options):
        setattr(options, one.name, one.default)


def _keep(kept: "Mapping[str, Any]") -> None:
    for name, value in kept.items():
        if value:  # the last one wins
            setattr(options, name, value)


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as typer takes it: the common options follow its own parameters and are stored in `options`.

    A dataclass parameter is expanded into its fields, so that several commands can share them. All that the function
    changes is one entry in the audit trail.
    """
    own = _parameters(function)
    groups: dict[str, Any] = {one.name: one.annotation for one in own if is_dataclass(one.annotation)}

    @functools.wraps(function)
    def run(**given: Any) -> Any:
        _keep(asdict(_taken(Options, given)))
        what = given.pop(_CONTEXT.name).command_path.partition(" ")[2]
        change = audit.Change(what, _about(given, spread))
        taken = {name: _taken(group, given) for name, group in groups.items()}
        changes = any(one.name == "yes" for one in spread) and not given.get("dry_run")
        return _audited(lambda: function(**given, **taken), change, changes=changes)

    spread = [part for one in own for part in (_parameters(groups[one.name]) if one.name in groups else [one])]
    spread = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in [*spread, *_parameters(Options), _CONTEXT]]
    run.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in spread}
    return run


_CONTEXT: Final = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

_VALUES: Final = ("arguments", "args")
"""The parameters that hold a task's arguments. The run's record has their values, except for secret ones."""


def _about(given: "Mapping[str, Any]", parameters: Sequence[inspect.Parameter]) -> dict[str, Any]:
    """The command line's arguments, as the audit trail shows them."""
    from ops.cli.output import plain

    defaults = {one.name: one.default for one in parameters}
    named = {name: value for name, value in given.items() if name != "yes" and value != defaults[name]}
    shown = {name: _names(value) if name in _VALUES else plain(value) for name, value in named.items()}
    return {name.rstrip("_"): value for name, value in shown.items()}


def _names(arguments: Any) -> Any:
    return [pair.partition("=")[0] for pair in arguments] if isinstance(arguments, list) else "(JSON)"


def _audited(function: Callable[[], Any], change: audit.Change, *, changes: bool) -> Any:
    """Runs a command. If its change could not be recorded in the audit trail, the exit code is not 0.

    An error in the middle of a change, and Ctrl-C, say what had been done by then. A command that `changes`
    something, and whose reader closes the pipe before it is done, has failed; others end well.
    """
    from ops.cli.output import note, report

    try:
        with audit.changing(change):
            code = function()
            if code:
                change.outcome = change.outcome or f"ended with {int(code)}"
    except KeyboardInterrupt:
        if change.so_far:
            note(f"Interrupted. Before that: {change.so_far}.")
        raise
    except BrokenPipeError:
        if change.outcome or not changes:
            raise
        why = "It stopped before or during its change: `nexus audit` shows which."
        raise Problem("Nothing reads this command's output", why) from None
    except Exception as error:
        problem = explained(error) if change.so_far else None
        if problem is None:
            raise
        why = f"{problem.why.rstrip('.')}. Before that: {change.so_far}.".removeprefix(". ")
        raise Problem(problem.what, why, problem.do, problem.code) from error
    finally:
        if change.missing is not None:
            report(change.complaint(), as_json=options.json)
    return code or (code if change.missing is None else ExitCode.WRONG)


def _parameters(of: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(of, eval_str=True).parameters.values())


def _taken(group: Any, given: dict[str, Any]) -> Any:
    return group(**{one.name: given.pop(one.name) for one in fields(group) if one.name in given})


class Group(TyperGroup):
    """Prints the list of commands as plain text under headings. It must be instant, and importing rich is slow."""

    headings: Sequence[tuple[str, Sequence[str]]] = ()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        width = max(map(len, commands))
        for heading, names in self.headings or [("Commands", list(commands))]:
            rows = [
                (name.ljust(width), command.get_short_help_str(100))
                for name in names
                if (command := commands.get(name)) is not None
            ]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nexus {package.VERSION}")
        raise typer.Exit


def app(help_text: str, group: type[Group] = Group, *, completion: bool = False) -> typer.Typer:
    """A list of commands, with the common options. Its help is plain text, without typer's own error screens."""
    made = typer.Typer(
        cls=group,
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=completion,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    made.callback()(with_options(_nexus if completion else lambda: None))
    return made


def _nexus(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """The options of `nexus` itself. Typer has called back for each."""


def command(to: typer.Typer, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds a function to a list of commands, with the common options."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        to.command(name)(with_options(function))
        return function

    return register


# --- names ---


def _reachable(context: typer.Context) -> bool:
    """Whether the chosen deployment can be reached. If not, completion offers nothing and prints no error."""
    from botocore.exceptions import BotoCoreError, ClientError

    at: Any = context
    while at is not None:
        _keep({one.name: at.params.get(one.name) for one in fields(Options)})
        at = at.parent
    try:
        connect()
    except (Problem, BotoCoreError, ClientError):
        return False
    return True


def complete_queue(ctx: typer.Context, incomplete: str) -> list[str]:
    """Queues that start with the prefix."""
    from ops import catalogue

    return [name for name in catalogue.queues() if name.startswith(incomplete)] if _reachable(ctx) else []


def complete_task(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Tasks that start with the prefix, with their summaries."""
    return [(name, task.summary) for name, task in _tasks(ctx).items() if name.startswith(incomplete)]


def complete_schedule(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Scheduled tasks that start with the prefix."""
    return [(n, t.schedule.meaning) for n, t in _tasks(ctx).items() if t.schedule and n.startswith(incomplete)]


def _tasks(context: typer.Context) -> "Mapping[str, Task[Any, Any]]":
    from ops import catalogue

    return catalogue.tasks() if _reachable(context) and not catalogue.missing() else {}


def complete_outcome(incomplete: str) -> list[str]:
    """Completes the last outcome in a comma-separated list."""
    from ops import logs

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in logs.OUTCOMES if name.startswith(last)]


def complete_argument(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """`name=` for each argument of the task named on the command line."""
    task = _tasks(ctx).get(str(ctx.params.get("task")))
    if task is None or "=" in incomplete:
        return []
    return [
        (f"{name}=", "" if field.is_required() else f"default {field.default!r}")
        for name, field in task.arguments.model_fields.items()
        if name.startswith(incomplete)
    ]


Queue = Annotated[
    str, typer.Argument(help="One of the stack's queues.", metavar="QUEUE", autocompletion=complete_queue)
]
OptionalQueue = Annotated[
    str | None,
    typer.Argument(help="One of the stack's queues (default: all).", metavar="QUEUE", autocompletion=complete_queue),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. In prod this also needs --stack NAME.")]


def closest(name: str, names: Sequence[str]) -> str:
    """ "Did you mean ...?", or the whole list."""
    from difflib import get_close_matches

    found = get_close_matches(name, names, 1, 0.6)
    return f"Did you mean {found[0]}?" if found else f"There are: {', '.join(names)}."


def the_queue(name: str) -> str:
    """Returns the name if the connected stack has that queue. Raises Problem if not."""
    queues = _queues()
    if name not in queues:
        raise usage(f"There is no queue {name!r}", do=closest(name, queues))
    return name


def the_queues(name: str | None) -> list[str]:
    """That queue, or all of the stack's queues if no name is given. Raises Problem if the stack has no queues."""
    return list(_queues()) if name is None else [the_queue(name)]


def _queues() -> Sequence[str]:
    from nexus.settings import settings
    from ops import catalogue

    queues = catalogue.queues()
    if not queues:
        why = "None of its outputs names one: it is another application's, or its deployment failed."
        do = "`nexus status` shows its state."
        raise Problem(f"The stack {settings().stack} has no queues", why, do, ExitCode.UNREACHABLE)
    return queues


def the_task(name: str) -> "Task[Any, Any]":
    """The task of that name in the connected stack's catalogue. Raises Problem if there is none."""
    from ops import catalogue

    known = catalogue.tasks()
    if name not in known:
        raise usage(f"There is no task {name!r}", do=closest(name, list(known)))
    return known[name]


def complete_run(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids of runs that are live or ended recently."""
    from ops import lookup

    if not _reachable(ctx):
        return []
    known = (one for one in lookup.recent() if one.id.startswith(incomplete))
    return [(one.id, f"{one.task} {one.status}") for one in islice(known, 30)]


# --- the stack, questions and answers ---


def connect() -> "Deployment":
    """The deployment that this command line selects. Raises Problem if none can be reached."""
    from ops import deployment

    return deployment.connect(deployment.Choice(options.stack, options.profile, options.region))


def confirm(where: "Deployment", question: str, *, yes: bool, lasting: bool = True) -> None:
    """Asks for confirmation. Raises Problem if the answer is not yes.

    In prod the user types the stack's name instead of y, at the prompt or as --stack with --yes. Reversible actions
    (`lasting=False`) need confirmation in prod only.
    """
    if not lasting and not where.is_prod:
        return
    if yes and (not where.is_prod or where.named):
        return
    from ops.cli.output import safe

    declined = Problem("Nothing was changed", code=ExitCode.NOT_CONFIRMED)
    if not sys.stdin.isatty():
        declined.why = f"{question} stdin is not a terminal, so no question could be asked."
        declined.do = f"Give --yes --stack {where.stack}." if where.is_prod else "Give --yes."
        raise declined
    if where.is_prod:
        print(
            f"{safe(question)}\nThis is prod. Type the stack's name to continue: ", end="", file=sys.stderr, flush=True
        )
        if sys.stdin.readline().strip() != where.stack:
            raise declined
        return
    print(f"{safe(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise declined


def done(value: Any, text: str) -> None:
    """Reports the outcome of a change, as JSON or as a line, and records it in the audit trail."""
    from ops.cli import output

    audit.note_outcome(text)
    if options.json:
        output.emit(value)
    else:
        output.line(text)
