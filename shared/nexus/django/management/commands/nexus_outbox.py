"""`manage.py nexus_outbox`: sends the tasks in the outbox."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections, router

from nexus import outbox
from nexus.django import conf
from nexus.django.models import Outbox
from nexus.errors import NexusError, SendFailed
from nexus.registry import registry


class Command(BaseCommand):
    """Sends the tasks in the outbox, once or at intervals."""

    help = "Sends the tasks that wait in the outbox. Several senders may run at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """`--database` and `--every`."""
        parser.add_argument(
            "--database", help="the database of the outbox (default: the one that Outbox.add writes to)"
        )
        parser.add_argument(
            "--every", type=float, default=0.0, help="repeat after this many seconds (default: send once)"
        )

    def handle(self, *_: Any, database: str | None, every: float, **__: Any) -> None:
        """Raises CommandError if AWS does not accept the tasks and `--every` is not given."""
        conf.apply()
        registry.load((conf.CATALOGUE,))
        alias = database or router.db_for_write(Outbox)

        def connect() -> Any:
            connection = connections[alias].copy()
            connection.set_autocommit(False)
            return connection

        while True:
            try:
                done = outbox.send_pending(connect)
                self.stdout.write(f"sent {done.sent}, kept {done.kept}")
                self.stdout.flush()  # to a container's log, which is not a terminal
            except SendFailed as error:
                if not every:
                    raise CommandError(str(error)) from error
                self.stderr.write(str(error))
            except NexusError as error:
                raise CommandError(str(error)) from error
            except Exception as error:
                if not every or not outbox.is_lost(error):
                    raise
                self.stderr.write(f"the database: {type(error).__name__}: {error}")
            if not every:
                return
            time.sleep(every)
