"""`manage.py social_backfill`: mirrors rows that predate the mirrors, and rows changed without signals."""

from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from social.django import conf
from social.django.filling import fill


class Command(BaseCommand):
    """Writes the project's rows to the network, a thousand at a time."""

    help = "Writes rows that the network lacks. After an interruption, run it again to resume."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Options: which mirrors, and whether existing rows are updated."""
        parser.add_argument("kinds", nargs="*", help="users, posts, ... (default: all mirrors, in their order)")
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--since", type=datetime.fromisoformat, help="update rows that changed since then")
        which.add_argument("--again", action="store_true", help="update all rows")

    def handle(self, *_: Any, kinds: list[str], since: datetime | None, again: bool, **__: Any) -> None:
        """Raises CommandError for a kind that is not mirrored, and at the end if rows could not be written."""
        mirrors = conf.mirrors()
        if unknown := [kind for kind in kinds if kind not in mirrors]:
            raise CommandError(f"there is no mirror of {', '.join(unknown)}, only of {', '.join(mirrors)}")
        chosen = [mirrors[kind] for kind in kinds or mirrors]
        if since is not None:
            if timezone.is_naive(since) == settings.USE_TZ:
                since = timezone.make_aware(since) if settings.USE_TZ else timezone.make_naive(since)
            if without := [mirror.kind for mirror in chosen if mirror.changed_at is None]:
                raise CommandError(f"{', '.join(without)}: --since needs a mirror with changed_at")
        faulty = 0
        for mirror in chosen:
            done = fill(mirror, since=since, again=again, say=self.stdout.write, on_fault=self.stderr.write)
            faulty += done.faulty
            self.stdout.write(f"{mirror.kind}: {done.rows} rows done, {done.faulty} faulty")
        if faulty:
            raise CommandError(f"{faulty} rows are invalid and were not written")
