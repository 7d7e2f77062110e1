"""The test project as an application, for its models."""

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "tests.support.django_project"
    label = "project"
    default_auto_field = "django.db.models.BigAutoField"
