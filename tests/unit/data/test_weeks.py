"""ISO weeks over the turn of a year, where the week's year is not the day's."""

import pytest

from social.weeks import monday_of, week_of, weeks_before


@pytest.mark.parametrize(
    ("day", "week"),
    [("2026-11-22", "2026-W47"), ("2026-11-23", "2026-W48"), ("2027-01-01", "2026-W53"), ("2024-12-30", "2025-W01")],
)
def test_the_week_of_a_day(day: str, week: str) -> None:
    from datetime import UTC, datetime

    assert week_of(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) == week
    assert week_of(datetime.fromisoformat(f"{day}T23:59:59").replace(tzinfo=UTC).timestamp()) == week


def test_weeks_before_counts_back_over_the_turn_of_a_year() -> None:
    assert weeks_before("2026-W01") == "2025-W52"
    assert weeks_before("2027-W01") == "2026-W53"
    assert weeks_before("2026-W48", 3) == "2026-W45"
    assert weeks_before("2026-W48", 0) == "2026-W48"


@pytest.mark.parametrize("week", ["2026-W54", "2025-W53", "2026-W00"])
def test_a_week_that_the_calendar_does_not_have_is_refused(week: str) -> None:
    with pytest.raises(ValueError, match="week"):
        monday_of(week)
