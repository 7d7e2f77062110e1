"""`nexus web`: serves the pages on this machine, and opens them."""

import os
import secrets
from typing import Annotated

import typer

from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import ExitCode, Problem

PORT = 8765


def add_to(app: typer.Typer) -> None:
    """Adds this command."""
    command(app, "web")(web)


def web(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port on 127.0.0.1.")] = PORT,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
    read_only: Annotated[bool, typer.Option("--read-only", help="Show everything, change nothing.")] = False,
) -> int:
    """The deployment in the browser: runs, dead letters, schedules, queues. Ctrl-C ends it.

    Anyone who has the printed address acts with your credentials. Set NEXUS_WEB_KEY to keep the address's key across
    restarts.
    """
    import socket
    import webbrowser
    from urllib.parse import urlencode

    import uvicorn

    from ops.deployment import Choice
    from ops.web.app import make
    from ops.web.views import Site

    deployment = common.connect()
    key, once = os.environ.get("NEXUS_WEB_KEY") or secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()  # a browser that is faster than the server then waits for it
    except OSError as error:
        what = f"Port {port} cannot be used"
        raise Problem(what, str(error), "Choose another with --port N.", ExitCode.USAGE) from None
    site = Site(Choice(deployment.stack, options.profile, options.region), read_only)
    address = f"http://127.0.0.1:{port}/"
    output.line(f"{deployment.stack}{' (read-only)' if read_only else ''}: {address}?{urlencode({'key': key})}")
    if open_:
        webbrowser.open(f"{address}?{urlencode({'key': once})}")
    served = make(site, port, key, once if open_ else "")
    config = uvicorn.Config(served, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run([listener])
    return ExitCode.DONE
