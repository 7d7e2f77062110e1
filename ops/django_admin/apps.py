"""The Django application."""

from django.apps import AppConfig


class NexusAdminConfig(AppConfig):
    """`ops.django_admin` in INSTALLED_APPS."""

    name = "ops.django_admin"
    label = "nexus_admin"
    verbose_name = "Nexus in the admin"
