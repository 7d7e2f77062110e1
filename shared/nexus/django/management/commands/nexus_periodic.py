"""`manage.py nexus_periodic`: synchronises Scheduler with the rows of PeriodicTask."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import router

from nexus.django.periodic import FAULTS, PeriodicTask, sync


class Command(BaseCommand):
    """Run it after AWS was unreachable, after a schedule was changed by hand, and after bulk changes of rows."""

    help = "Updates the schedules in EventBridge Scheduler that differ from the rows of PeriodicTask."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """`--database`."""
        parser.add_argument("--database", help="the database of the rows (default: the one that saving writes to)")

    def handle(self, *_: Any, database: str | None, **__: Any) -> None:
        """Raises CommandError if a row's schedule could not be written."""
        try:
            done = sync(database or router.db_for_write(PeriodicTask))
        except FAULTS as error:
            raise CommandError(str(error)) from error
        for name in done.written:
            self.stdout.write(f"written: {name}")
        for name in done.strangers:
            self.stdout.write(f"in Scheduler, but not in the table: {name}")
        if done.faults:
            raise CommandError("\n".join(f"{name}: {fault}" for name, fault in done.faults.items()))
