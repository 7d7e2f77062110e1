"""What the pages show of plain values."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import template
from django.template.defaultfilters import date

register = template.Library()


@register.filter
def as_json(value: Any) -> str:
    """JSON as a person reads it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


@register.filter
def fields(run: Mapping[str, Any], names: str) -> list[tuple[str, Any]]:
    """(label, value) of those of a run's fields that it has."""
    given = [(name.replace("_", " ").capitalize(), run[name]) for name in names.split() if run[name] not in (None, "")]
    return [(label, date(value, "Y-m-d H:i:s") if isinstance(value, datetime) else value) for label, value in given]
