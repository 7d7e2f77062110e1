"""Periodic tasks, and the model names under which the admin shows what is in AWS."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates nexus_periodictask; the other models have no table."""

    dependencies: ClassVar = [
        ("nexus", "0001_outbox"),
    ]

    operations: ClassVar = [
        migrations.CreateModel(
            name="DeadLetter",
            fields=[
                ("id", models.CharField(max_length=36, primary_key=True, serialize=False)),
            ],
            options={
                "managed": False,
                "default_permissions": ("view", "change", "delete"),
            },
        ),
        migrations.CreateModel(
            name="Run",
            fields=[
                ("id", models.CharField(max_length=36, primary_key=True, serialize=False)),
            ],
            options={
                "managed": False,
                "default_permissions": ("view", "change"),
            },
        ),
        migrations.CreateModel(
            name="Schedule",
            fields=[
                ("task", models.CharField(max_length=100, primary_key=True, serialize=False)),
            ],
            options={
                "verbose_name": "schedule of the template",
                "verbose_name_plural": "schedules of the template",
                "managed": False,
                "default_permissions": ("view", "change"),
            },
        ),
        migrations.CreateModel(
            name="PeriodicTask",
            fields=[
                (
                    "name",
                    models.CharField(
                        help_text="The schedule's name in Scheduler; it cannot be changed.",
                        max_length=55,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "task",
                    models.CharField(help_text="The dotted path of a task, as users.tasks.welcome", max_length=100),
                ),
                ("queue", models.CharField(blank=True, help_text="Empty for the task's own", max_length=40)),
                ("args", models.JSONField(blank=True, default=list)),
                ("kwargs", models.JSONField(blank=True, default=dict)),
                (
                    "expression",
                    models.CharField(
                        help_text="cron(0 9 ? * MON *), rate(5 minutes), or at(2030-01-31T09:00:00) for once",
                        max_length=256,
                    ),
                ),
                (
                    "timezone",
                    models.CharField(default="UTC", help_text="Of cron and at, as Europe/Berlin", max_length=50),
                ),
                ("start", models.DateTimeField(blank=True, help_text="Nothing is sent before", null=True)),
                ("end", models.DateTimeField(blank=True, help_text="Nothing is sent after", null=True)),
                ("description", models.CharField(blank=True, max_length=512)),
                ("paused", models.BooleanField(default=False)),
                (
                    "state",
                    models.CharField(
                        choices=[("kept", "in step"), ("write", "to be written"), ("delete", "to be deleted")],
                        default="write",
                        editable=False,
                        max_length=6,
                    ),
                ),
                ("fault", models.TextField(blank=True, editable=False)),
                ("tried_at", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "ordering": ["name"],
            },
        ),
    ]
