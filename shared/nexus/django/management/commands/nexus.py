"""`manage.py nexus ...`: the operator's command, with the project's settings."""

import os
import sys
from argparse import ArgumentParser
from importlib import import_module
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from nexus.django import conf
from nexus.settings import settings

HINTS: Final = {
    "ops": "put a checkout of nexus-tasks on PYTHONPATH",
    "yaml": "pip install pyyaml",
}


class Command(BaseCommand):
    """Passes all arguments to the `nexus` command."""

    help = "The nexus command, for the stack of settings.NEXUS: `manage.py nexus status`"

    def run_from_argv(self, argv: list[str]) -> None:
        """Takes everything after `manage.py nexus`, options included, as the command's own."""
        try:
            self.execute(words=argv[2:], no_color=False, force_color=False, skip_checks=True, stdout=None, stderr=None)
        except CommandError as error:
            self.stderr.write(f"{type(error).__name__}: {error}")
            sys.exit(error.returncode)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command's arguments."""
        parser.add_argument("words", nargs="*")

    def handle(self, *_: Any, words: list[str], **__: Any) -> None:
        """Raises CommandError if the operator's command is not installed."""
        try:
            # By name: the operator's command depends on the runtime, not the other way round.
            main = import_module("ops.main").main
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            hint = HINTS.get(missing, f"pip install {missing}")
            raise CommandError(f"the operator's command needs {missing}: {hint}") from error
        conf.apply()
        given = settings()
        if given.backend == conf.EAGER:
            raise CommandError("NEXUS has EAGER: tasks run in this process, so there is no stack to operate")
        for name, value in (("NEXUS_STACK", given.stack), ("NEXUS_ACCOUNT_ID", given.account_id)):
            if value:
                os.environ.setdefault(name, value)
        if given.region:
            os.environ.setdefault("AWS_REGION", given.region)
        sys.exit(main(words))
