"""The progress of a backfill."""

from typing import Any

from django.db import models


class Progress(models.Model):
    """An unfinished backfill. `after` is the primary key, as JSON, up to which all rows are written."""

    name: Any = models.CharField(primary_key=True, max_length=100)
    after: Any = models.JSONField()
    rows: Any = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.name}: {self.rows}"
