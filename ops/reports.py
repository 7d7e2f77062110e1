"""The HTML report of a day's content analytics, fetched from the archive bucket."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nexus.aws import client
from nexus.settings import settings
from ops.local_cloud import ROOT
from ops.problems import Problem, usage

PREFIX = "reports/content/"
FOLDER = ROOT / ".local" / "reports"


@dataclass(frozen=True, slots=True)
class Report:
    """A report as it lies on this machine now."""

    day: str
    key: str
    path: str


def fetch(day: str | None, save: str | None) -> Report:
    """Fetches the report of a UTC day, yesterday by default, to `save`, else .local/reports/. Raises Problem."""
    day = day or f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", day):
        raise usage(f"{day!r} is no day", "Such as 2026-11-22.")
    s3, bucket = client("s3"), settings().bucket("archive")
    key = f"{PREFIX}{day}.html"
    try:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey:
        found = s3.list_objects_v2(Bucket=bucket, Prefix=PREFIX).get("Contents", [])
        days = sorted(o["Key"].removeprefix(PREFIX).removesuffix(".html") for o in found)
        why = f"There are those of {', '.join(days[-5:])}." if days else "There is none yet."
        do = f"`nexus send generate_content_analytics day={day} --wait` makes it."
        raise Problem(f"There is no report of {day}", why, do) from None
    path = Path(save) if save else FOLDER / f"{day}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return Report(day, key, str(path))
