"""The outbox's table, as `python -m nexus.outbox ddl` prints it."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates nexus_outbox."""

    initial = True
    dependencies: ClassVar = []
    operations: ClassVar = [
        migrations.CreateModel(
            name="Outbox",
            fields=[
                ("id", models.CharField(max_length=36, primary_key=True, serialize=False)),
                ("task", models.CharField(max_length=100)),
                ("args", models.TextField()),
                ("queue", models.CharField(blank=True, max_length=80, null=True)),
                ("due", models.FloatField(blank=True, null=True)),
                ("expires", models.FloatField(blank=True, null=True)),
                ("added", models.FloatField()),
                ("fault", models.TextField(blank=True, null=True)),
            ],
            options={
                "verbose_name": "task to be sent",
                "verbose_name_plural": "outbox",
                "db_table": "nexus_outbox",
                "ordering": ["id"],
            },
        ),
    ]
