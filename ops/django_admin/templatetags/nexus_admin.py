"""Template filters for plain values."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import template
from django.template.defaultfilters import date
from django.utils import timezone

register = template.Library()


@register.filter
def as_json(value: Any) -> str:
    """A value as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


@register.filter
def fields(run: Mapping[str, Any], names: str) -> list[tuple[str, Any]]:
    """(label, value) for those named fields that the run has."""
    given = [(name.replace("_", " ").capitalize(), run[name]) for name in names.split() if run[name] not in (None, "")]
    return [(label, moment(value) if isinstance(value, datetime) else value) for label, value in given]


@register.filter
def moment(value: datetime | None, shown: str = "Y-m-d H:i:s") -> str:
    """A time in the zone that Django shows times in. Django's own filter leaves it in UTC without USE_TZ."""
    return "" if value is None else str(date(timezone.localtime(value), shown))
