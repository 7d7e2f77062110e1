"""The report of a day's content analytics, fetched from the archive bucket: a page, JSON or CSV."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from ops.checkout import ROOT
from ops.problems import Problem, usage
from social.data import objects
from social.data.analytics import REPORTS, ReportFormat, report_key

FOLDER = ROOT / ".local" / "reports"


@dataclass(frozen=True, slots=True)
class Report:
    """A report saved on this machine."""

    day: str
    key: str
    path: str


def the_day(text: str | None) -> str:
    """Validates a day such as 2026-11-22; None means yesterday. Raises Problem if it is not a day."""
    if text is None:
        return f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise usage(f"{text!r} is not a day", str(error), "Such as 2026-11-22.") from None


def fetch(day: str, save: str | None, form: ReportFormat = "html") -> Report:
    """Downloads the report of a UTC day to `save`, else .local/reports/. Raises Problem if there is none."""
    key = report_key(day, form)
    try:
        body = objects.get("archive", key)
    except LookupError:
        there = ((key, key.removeprefix(REPORTS)[:10]) for key in objects.keys("archive", REPORTS))
        days = [day for key, day in there if key == report_key(day, form)]
        why = f"There are reports of {', '.join(days[-5:])}." if days else "There are none yet."
        do = f"`nexus send generate_content_analytics day={day} --wait` creates it."
        raise Problem(f"There is no report of {day}", why, do) from None
    path = Path(save) if save else FOLDER / key.removeprefix(REPORTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return Report(day, key, str(path))
