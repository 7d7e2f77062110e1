"""Which version each function goes back to."""

from datetime import UTC, datetime, timedelta

import pytest

from ops import versions
from ops.problems import Problem
from ops.versions import Moved, Version

DEPLOYED = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)


def version(number: int, minutes: int, *, live: bool = False) -> Version:
    """A version that was published this many minutes after the deployment, or before it."""
    return Version(number, DEPLOYED + timedelta(minutes=minutes), live=live)


def plan(monkeypatch: pytest.MonkeyPatch, **found: list[Version]) -> list[Moved]:
    monkeypatch.setattr(versions, "versions", lambda queue: found[queue])
    return versions.rollback_plan(list(found), DEPLOYED)


def test_what_a_deployment_changed_goes_back_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = plan(
        monkeypatch,
        media=[version(1, -900), version(2, -300), version(3, 1, live=True)],
        users=[version(1, -900, live=True)],
        default=[version(1, 1, live=True)],  # the deployment has made this function: nothing older sends to it
    )
    assert moves == [Moved("media", 3, 2)]


def test_a_restart_since_the_deployment_goes_back_to_before_the_deployment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = plan(monkeypatch, users=[version(4, -300), version(5, 1), version(6, 90, live=True)])
    assert moves == [Moved("users", 6, 4)]


def test_a_second_rollback_goes_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Problem, match="No function has another version from before 2026-11-27 09:00:00"):
        plan(monkeypatch, users=[version(3, -900), version(4, -300, live=True), version(5, 1)])
