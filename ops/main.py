"""The `nexus` command: one entry point, exit codes of ops.problems.ExitCode, no traceback for a user's mistake."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.cli import commands, common, output
from ops.problems import ExitCode, explained, usage
from ops.social import commands as network
from ops.web import command as web

if TYPE_CHECKING:
    from ops.problems import Problem

app = commands.app
network.add_to(app)
web.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code.

    Each command imports the heavy modules it needs, so that --help and completion are instant.
    """
    common.forget()
    _open_streams()
    # Messages held for reading are released before the process exits, as after Ctrl-C.
    with suppress(ValueError):  # not the main thread: a test
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(list(arguments) if arguments is not None else None, prog_name="nexus", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except (BrokenPipeError, SystemExit) as end:
        # The reader closed the pipe (`nexus events | head`), a normal end of a stream. Typer exits with 1 for it.
        if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):
            raise
        _discard_output()
        return ExitCode.DONE
    except Exception as error:
        if isinstance(error.__context__, BrokenPipeError):
            _discard_output()
        if hasattr(error, "exit_code") and hasattr(error, "show"):
            if as_json:
                output.report(_of_typer(error), as_json=True)
            else:
                error.show()
            return int(error.exit_code)
        if type(error).__name__ == "Abort":
            return ExitCode.INTERRUPTED
        problem = explained(error)
        if problem is None or os.environ.get("NEXUS_DEBUG"):
            raise
        output.report(problem, as_json=as_json)
        try:
            sys.stdout.flush()
        except OSError:  # a full disk is the problem
            _discard_output()
        return int(problem.code)
    return int(code or ExitCode.DONE)


def _discard_output() -> None:
    """Lets what stdout still holds go nowhere: at the end of the process, it would be written again, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Gives a process that was started without stdin, stdout or stderr (`>&-`, some daemons) the null device there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - for as long as the process lives


def _of_typer(error: Any) -> "Problem":
    """Converts typer's error about a command line to a Problem."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "nexus"
    return usage(error.format_message(), do=f"`{path} --help` shows the usage.")
