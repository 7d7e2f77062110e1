"""The fork server: a process with the packages imported, so that a worker starts within milliseconds.

    python -m ops.cli.loop.server FOLDER PIPE

FOLDER has `config.json` (`session.Config`). PIPE is the number of a pipe that the session holds open: when it is
closed, the workers and this process end too. RERUN replaces the workers, and one of them runs the last message again;
RELOAD replaces them without that. SIGTERM ends them; a second SIGTERM kills them.

Of the project, only `lifeline` is imported here: the workers would inherit anything else, and not see its changes.
"""

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ops.cli.loop import lifeline
from ops.cli.loop.lifeline import RERUN, SIGNALS, ended

PACKAGES: Final = (
    *("asyncio", "concurrent.futures.thread", "secrets", "zoneinfo"),
    *("aws_lambda_powertools", "botocore.session", "jinja2", "orjson", "pydantic", "rich.console", "typer"),
)
LOOK: Final = 5.0
"""Seconds between two checks of the lifeline."""


class Server:
    """The workers, one for each queue, by process id. Those that were replaced end after their message."""

    def __init__(self, folder: Path, pipe: int) -> None:
        self._folder = folder
        self._pipe = pipe
        self._config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self._workers: dict[int, str] = {}
        self._replaced: set[int] = set()
        self._stops = 0
        self._sqs = _sqs(self._config["region"])

    def run(self) -> None:
        """Serves until it is stopped or the session ends."""
        self._fork(again=self._config["again"])
        while self._workers:
            received = signal.sigtimedwait(SIGNALS, LOOK)
            match received.si_signo if received else None:
                case lifeline.RERUN | lifeline.RELOAD as number if not self._stops:
                    before = list(self._workers)
                    self._fork(again=number == RERUN)
                    self._replaced.update(before)
                    _send(before, RERUN)
                case signal.SIGTERM:
                    self._stop()
                case None if not self._stops and ended(self._pipe):
                    self._stop()
            self._reap()

    def _stop(self) -> None:
        self._stops += 1
        _send(list(self._workers), signal.SIGTERM if self._stops == 1 else signal.SIGKILL)

    def _fork(self, queues: Sequence[str] = (), *, again: bool) -> None:
        sys.stdout.flush()
        for queue in queues or self._config["queues"]:
            process = os.fork()
            if not process:
                self._work(queue, again=again)
            self._workers[process] = queue

    def _work(self, queue: str, *, again: bool) -> None:
        """The child: works, and never returns."""
        code = 1
        try:
            from ops.cli.loop import worker

            worker.work(queue, self._folder, self._config["queues"][queue], self._sqs, self._pipe, again=again)
            code = 0
        except BaseException:  # noqa: BLE001 - a child must not continue as the server
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                process, status = found
                queue = self._workers.pop(process)
                if process in self._replaced:
                    self._replaced.remove(process)
                elif not self._stops and not ended(self._pipe):
                    code = os.waitstatus_to_exitcode(status)
                    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
                    print(f"The worker of {queue} {how}. Its message comes back in an hour.", flush=True)
                    time.sleep(1)  # a worker that cannot start must not be restarted in a busy loop
                    self._fork([queue], again=False)


def _send(processes: Sequence[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _sqs(region: str) -> Any:
    """An SQS client without an open connection, for the workers to inherit."""
    from botocore.config import Config
    from botocore.session import get_session

    config = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 5})
    return get_session().create_client("sqs", region_name=region, config=config)


def _first_model() -> None:
    """Makes pydantic finish its imports, which it delays until the first model of a process."""
    from pydantic import create_model

    create_model("First", text=(str, ""))()


def main(folder: str, pipe: str) -> None:
    """The process."""
    for number in (signal.SIGINT, signal.SIGHUP):  # they reach every process of the terminal: the session decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for name in PACKAGES:
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    _first_model()
    Server(Path(folder), int(pipe)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
