"""Creates social_progress."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """This application's only table."""

    initial = True
    dependencies: ClassVar = []
    operations: ClassVar = [
        migrations.CreateModel(
            name="Progress",
            fields=[
                ("name", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("after", models.JSONField()),
                ("rows", models.BigIntegerField(default=0)),
            ],
        ),
    ]
