"""An attacker who writes posts: no text of theirs acts on the page, terminal or spreadsheet that shows the report."""

import sys
import unicodedata
from collections.abc import Callable, Sequence

import pytest

from social import day_report
from social.data.analytics import ContentDay, PopularPost
from social.text import _PREPENDED, JOINERS

OBEYED = [
    chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp", "Cs")
]
SPELLING = {*JOINERS, *_PREPENDED}
"""Format characters that spell words or are seen."""

FORMS: Sequence[Callable[[Sequence[ContentDay]], str]] = (
    day_report.as_html,
    day_report.as_json,
    day_report.as_csv,
    day_report.popular_csv,
)


@pytest.mark.parametrize("form", FORMS)
def test_no_control_format_or_bidirectional_character_of_a_post_is_in_the_report(
    form: Callable[[Sequence[ContentDay]], str],
) -> None:
    for some in (OBEYED[place : place + 20] for place in range(0, len(OBEYED), 20)):
        said = PopularPost("p", "a", 1, text="x".join(some), author="y".join(some[::-1]))
        report = form([ContentDay("2026-11-22", 1_800_000_000, popular=(said,))])
        layout = {"\n", "\r"}  # the form's own lines
        assert not {*report} & {*OBEYED} - SPELLING - layout
        report.encode()
