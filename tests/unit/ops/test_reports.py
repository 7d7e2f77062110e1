"""`nexus report`: a day's report, or the days that have one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nexus.aws.sdk import client
from ops.problems import Problem
from ops.social import reports
from social.data import objects
from social.data.analytics import report_key


def test_a_report_is_saved_in_the_wanted_form(cloud: None, tmp_path: Path) -> None:
    objects.put("archive", report_key("2026-11-22", "csv"), b"day")
    report = reports.fetch("2026-11-22", str(tmp_path / "new" / "report.csv"), "csv")
    assert Path(report.path).read_bytes() == b"day"


@pytest.fixture
def short_lists(cloud: None) -> Iterator[None]:
    """S3 lists five objects at a time."""

    def hook(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = 5

    events, name = client("s3").meta.events, "provide-client-params.s3.ListObjectsV2"
    events.register(name, hook)
    yield
    events.unregister(name, hook)


def test_a_day_without_a_report_is_told_the_latest_days_that_have_one(short_lists: None) -> None:
    for day in ("2026-10-30", *(f"2026-11-{number:02}" for number in range(1, 10))):
        objects.put("archive", report_key(day), b"page")
    objects.put("archive", report_key("2026-11-10", "csv"), b"of another form")
    with pytest.raises(Problem) as raised:
        reports.fetch("2026-10-31", None)
    assert raised.value.why == "There are reports of 2026-11-05, 2026-11-06, 2026-11-07, 2026-11-08, 2026-11-09."
    assert "generate_content_analytics day=2026-10-31" in raised.value.do
