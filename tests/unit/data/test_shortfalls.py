"""Whether each result says that the run did what it was sent for, and if not, briefly why."""

import pytest

from nexus.tasks import Result
from social.catalogue import DigestReport, FeedbackReport, MediaReport, NotificationSent, SweepReport, WelcomeReport


@pytest.mark.parametrize(
    ("result", "shortfall"),
    [
        (WelcomeReport(user_id="7", outcome="sent", message_id="m"), None),
        (WelcomeReport(user_id="7", outcome="skipped", reason="no such user"), "no such user"),
        (WelcomeReport(user_id="7", outcome="unknown"), "unknown"),
        (MediaReport(post_id="p", status="ready"), None),
        (MediaReport(post_id="p", status="rejected", reason="too_many_bytes: 9 over 8"), "rejected: too_many_bytes"),
        (MediaReport(post_id="p", status="stale", reason="a later upload came"), "stale: a later upload came"),
        (DigestReport(sent=1, skipped={"already sent": 9}), None),
        (DigestReport(), None),
        (DigestReport(skipped={"a": 1, "b": 2}, failed={"c": 1}), "sent to no one: b"),
        (FeedbackReport(suppressed=1, reason="bounce"), None),
        (FeedbackReport(suppressed=0, reason="a soft bounce"), "a soft bounce"),
        (NotificationSent(notification_id="n"), None),
        (NotificationSent(reason="the user has blocked the actor"), "the user has blocked the actor"),
        (SweepReport(), None),
    ],
)
def test_each_result_states_its_shortfall(result: Result, shortfall: str | None) -> None:
    assert result.shortfall == shortfall
