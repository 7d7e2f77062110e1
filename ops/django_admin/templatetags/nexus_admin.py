"""Template filters for plain values."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import template
from django.template.defaultfilters import date

register = template.Library()


@register.filter
def as_json(value: Any) -> str:
    """A value as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


@register.filter
def fields(run: Mapping[str, Any], names: str) -> list[tuple[str, Any]]:
    """(label, value) for those named fields that the run has."""
    given = [(name.replace("_", " ").capitalize(), run[name]) for name in names.split() if run[name] not in (None, "")]
    return [(label, date(value, "Y-m-d H:i:s") if isinstance(value, datetime) else value) for label, value in given]
