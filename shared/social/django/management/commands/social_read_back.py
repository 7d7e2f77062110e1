"""`manage.py social_read_back`: copies counts, scores, media and trends from the network into the project's models."""

from typing import Any

from django.core.management.base import BaseCommand

from social.django import conf


class Command(BaseCommand):
    """Runs the READ_BACKS of the mirrors' module."""

    help = "Updates the models in READ_BACKS from the results of the network's tasks."

    def handle(self, *_: Any, **__: Any) -> None:
        """Prints one line for each."""
        for one in conf.read_backs():
            self.stdout.write(f"{one.label}: {one.run()} rows changed")
