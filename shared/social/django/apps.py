"""The Django application: connects to the mirrored models, and checks the mapping at startup."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db.models import deletion

from nexus.errors import ConfigurationError

_BY_THE_DATABASE: Any = getattr(deletion, "DatabaseOnDelete", ())
"""What Django 6.1's DB_CASCADE and its like are. Django 6.0 has none."""


class SocialConfig(AppConfig):
    """`social.django` in INSTALLED_APPS."""

    name = "social.django"
    label = "social"
    verbose_name = "The network"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connects the signals. Raises ImproperlyConfigured and LookupError for errors that checks cannot report."""
        from social.django.signals import connect

        checks.register(_check)
        connect()


def _check(**_: Any) -> Sequence[checks.CheckMessage]:
    from nexus.django import conf as nexus_conf
    from nexus.django.backend import Backend
    from social.django import conf
    from social.django.tasks import mirror as task

    found: list[checks.CheckMessage] = []
    for kind, mirror in conf.mirrors().items():
        try:
            names = {field.name for field in mirror.model._meta.concrete_fields}
            str(mirror.query().filter(**dict.fromkeys(mirror.attributes, None)).query)
        except (FieldDoesNotExist, FieldError) as error:
            found.append(checks.Error(f"{kind}: {mirror.label}: {error}", obj=mirror.model, id="social.E001"))
            continue
        if replaced := mirror.model._meta.swapped:
            fault = f"{kind}: {mirror.label} has no rows: {replaced} has taken its place"
            found.append(checks.Error(fault, obj=mirror.model, id="social.E006"))
        for field in mirror.model._meta.concrete_fields:
            if isinstance(getattr(field.remote_field, "on_delete", None), _BY_THE_DATABASE):
                fault = f"{kind}: the database deletes or changes {mirror.label} by {field.name}, without a signal"
                hint = "Use models.CASCADE, or report the rows with social.django.mirrored() before the deletion."
                found.append(checks.Warning(fault, hint, obj=mirror.model, id="social.W001"))
        if mirror.changed_at is not None and mirror.changed_at not in names:
            fault = f"{kind}: changed_at: {mirror.label} has no field {mirror.changed_at}"
            found.append(checks.Error(fault, obj=mirror.model, id="social.E002"))
    for one in conf.read_backs():
        found += [checks.Error(fault, obj=one.model, id="social.E003") for fault in one.faults()]
    if not isinstance(task.get_backend(), Backend):
        found.append(checks.Error("SOCIAL: BACKEND must be a nexus.django.Backend", id="social.E004"))
    with suppress(ConfigurationError):  # reported by nexus.E001
        if not nexus_conf.allows(task.module_path):
            hint = 'Add "social.django.tasks" to MODULES.'
            found.append(checks.Error("NEXUS: MODULES does not contain social.django.tasks", hint, id="social.E005"))
    return found
