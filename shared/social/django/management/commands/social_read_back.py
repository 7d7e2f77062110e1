"""`manage.py social_read_back`: copies counts, scores, media and trends from the network into the project's models."""

from typing import Any

from django.core.management.base import BaseCommand

from social.django import conf


class Command(BaseCommand):
    """Runs the READ_BACKS of the mirrors' module."""

    help = "Brings the models that READ_BACKS names up to date with what the network's tasks found out."

    def handle(self, *_: Any, **__: Any) -> None:
        """Prints one line for each."""
        for one in conf.read_backs():
            self.stdout.write(f"{one.label}: {one.run()} rows changed")
