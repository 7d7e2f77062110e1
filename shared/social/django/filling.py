"""A backfill: every row of a mirror, a page at a time by primary key, from where the last one stopped."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from pydantic import ValidationError

from nexus.errors import Reject, Retry
from nexus.values import described, faults_of
from social.django import conf
from social.django.mirror import Mirror
from social.django.models import Progress

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Filled:
    """Counts of rows written or already present, and of invalid rows."""

    rows: int = 0
    faulty: int = 0


def fill(
    mirror: Mirror[Any],
    *,
    since: datetime | None = None,
    again: bool = False,
    say: Callable[[str], None] = lambda _: None,
    on_fault: Callable[[str], None] = lambda _: None,
) -> Filled:
    """Writes every row that the network lacks, and compares each with its row afterwards, as `Mirror.sync` does.

    With `since`, only rows changed since that time are updated, and with `again` all rows, to apply changes made
    without signals: a few requests per row. The end of each page is saved, and the next call continues after it, which
    it says.
    """
    exact = again or since is not None
    name = f"{mirror.kind} {'again' if again else since.isoformat() if since else 'new'}"
    progress = Progress.objects.filter(name=name).first() or Progress(name=name, after=None)
    if progress.rows:
        otherwise = f"to start over, delete {name!r} from social_progress"
        say(f"{mirror.kind}: continues an interrupted run after {progress.rows} rows ({otherwise})")
    rows, faulty = mirror.query(), 0
    if since is not None:
        rows = rows.filter(**{f"{mirror.changed_at}__gte": since})
    while page := list((rows if progress.after is None else rows.filter(pk__gt=progress.after)).order_by("pk")[:PAGE]):
        with conf.network():
            for fault in _write(mirror, page, exact=exact):
                faulty += 1
                on_fault(fault)
        progress.after = json.loads(json.dumps(page[-1]["mirrored_pk"], cls=DjangoJSONEncoder))
        progress.rows += len(page)
        progress.save()
        say(f"{mirror.kind}: {progress.rows} rows")
    Progress.objects.filter(name=name).delete()
    return Filled(progress.rows - faulty, faulty)


def _write(mirror: Mirror[Any], page: Sequence[Mapping[str, Any]], *, exact: bool) -> Iterator[str]:
    """Writes a page's rows, then again those that changed meanwhile. Returns the faults of the others."""
    good = {}
    for values in page:
        try:
            good[values["mirrored_pk"]] = values, mirror.row_of(values)
        except ValidationError as error:
            yield f"{mirror.label} {values['mirrored_pk']}: {described(faults_of(error))}"
    if not exact:
        mirror.put([row for _, row in good.values()])
        still = {values["mirrored_pk"]: values for values in mirror.query().filter(pk__in=list(good))}
        good = {pk: read for pk, read in good.items() if still.get(pk) != read[0]}
    for key in {tuple(str(getattr(row, name)) for name in mirror.key) for _, row in good.values()}:
        try:
            mirror.sync(key)
        except (Reject, Retry) as error:
            yield f"{mirror.kind} {key}: {error}"
