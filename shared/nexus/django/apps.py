"""The Django application: reads and checks the setting NEXUS at startup."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.apps import AppConfig
from django.core import checks

from nexus.errors import ConfigurationError


class NexusConfig(AppConfig):
    """`nexus.django` in INSTALLED_APPS."""

    name = "nexus.django"
    label = "nexus"
    verbose_name = "Nexus tasks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Applies the settings, and registers the system checks. They report a wrong setting, and so does the first use
        of the backend."""
        from nexus.django import conf

        checks.register(_check)
        with suppress(ConfigurationError):
            conf.apply()


def _check(**_: Any) -> Sequence[checks.CheckMessage]:
    from nexus.django.backend import faults_of_settings

    return faults_of_settings()
