"""The `nexus` command: one entry, exit codes as ops.problems.ExitCode says, never a traceback for what a person did."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
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
    """Runs one command line and gives its exit code.

    Heavy modules are imported by the command that needs them, so that --help and completion come at once.
    """
    common.forget()
    # Whatever is held while it is looked at is given back before the end, as after Ctrl-C.
    with suppress(ValueError):  # not the main thread: a test
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(list(arguments) if arguments is not None else None, prog_name="nexus", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`nexus events | head`): that is how a stream is ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "show"):
            if as_json:
                output.report(_of_typer(error), as_json=True)
            else:
                error.show()
            return int(error.exit_code)
        if type(error).__name__ == "Abort":
            return ExitCode.INTERRUPTED
        if isinstance(error, SystemExit):
            return int(error.code or 0)
        problem = explained(error)
        if problem is None or os.environ.get("NEXUS_DEBUG"):
            raise
        output.report(problem, as_json=as_json)
        return int(problem.code)
    return int(code or ExitCode.DONE)


def _of_typer(error: Any) -> "Problem":
    """The Problem in what typer says of a command line."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "nexus"
    return usage(error.format_message(), do=f"`{path} --help` shows what there is.")
