"""The version that each function is rolled back to, and the versions that are deleted."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from ops import audit, versions
from ops.cli import common
from ops.deployment import Deployment
from ops.main import main
from ops.problems import ExitCode, Problem
from ops.versions import Moved, Version

DEPLOYED = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)


def version(number: int, minutes: int, *, live: bool = False) -> Version:
    """A version that was published this many minutes after the deployment, or before it."""
    return Version(number, DEPLOYED + timedelta(minutes=minutes), live=live)


def plan(monkeypatch: pytest.MonkeyPatch, **found: list[Version]) -> list[Moved]:
    monkeypatch.setattr(versions, "versions", lambda queue: found[queue])
    return versions.rollback_plan(list(found), DEPLOYED)


def test_a_rollback_moves_only_the_functions_that_the_deployment_changed(monkeypatch: pytest.MonkeyPatch) -> None:
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


class Lambda:
    """Notes what is deleted and what the aliases point at."""

    def __init__(self) -> None:
        self.deleted: list[tuple[str, str]] = []
        self.moved: list[tuple[str, str, str]] = []

    def delete_function(self, **given: str) -> None:
        self.deleted.append((given["FunctionName"], given["Qualifier"]))

    def update_alias(self, **given: str) -> None:
        self.moved.append((given["FunctionName"], given["Name"], given["FunctionVersion"]))


@pytest.fixture
def lambda_(environment: None, monkeypatch: pytest.MonkeyPatch) -> Lambda:
    made = Lambda()
    monkeypatch.setattr(versions, "client", lambda _: made)
    return made


def test_old_versions_are_deleted_but_not_the_one_that_is_live(
    lambda_: Lambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [version(1, -900), version(2, -600, live=True), version(3, -300), version(4, 1)]
    monkeypatch.setattr(versions, "versions", lambda _: found)
    assert versions.prune(["users"], 2) == {"users": [1]}
    assert versions.prune(["users"], 9) == {"users": []}
    assert lambda_.deleted == [("nexus-test-users", "1")]


def test_the_command_rolls_back_after_a_yes(
    lambda_: Lambda, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = {"UsersQueueUrl": "https://sqs/1/nexus-test-users"}
    where = Deployment("nexus-test", "UPDATE_COMPLETE", "eu-west-1", "1" * 12, {"Stage": "dev"}, DEPLOYED, outputs=urls)
    monkeypatch.setattr(common, "connect", lambda: where)
    monkeypatch.setattr(audit, "note_outcome", lambda _: None)
    monkeypatch.setattr(versions, "versions", lambda _: [version(1, -900), version(2, 1, live=True)])

    assert main(["rollback"]) == ExitCode.NOT_CONFIRMED
    assert "Roll the functions of nexus-test back (users 2 -> 1)?" in capsys.readouterr().err
    assert lambda_.moved == []

    assert main(["rollback", "--yes"]) == ExitCode.DONE
    assert lambda_.moved == [("nexus-test-users", "live", "1")]
    shown = capsys.readouterr()
    assert shown.out == "users 2 -> 1.\n"
    assert "The next deployment that changes a function" in shown.err


def test_a_rollback_that_stops_halfway_says_which_functions_have_moved(
    lambda_: Lambda, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def update_alias(**given: str) -> None:
        if given["FunctionName"] == "nexus-test-media":
            raise ClientError({"Error": {"Code": "ResourceConflictException", "Message": "no"}}, "UpdateAlias")

    urls = {f"{queue}QueueUrl": f"https://sqs/1/nexus-test-{queue}" for queue in ("users", "media")}
    where = Deployment("nexus-test", "UPDATE_COMPLETE", "eu-west-1", "1" * 12, {"Stage": "dev"}, DEPLOYED, outputs=urls)
    monkeypatch.setattr(common, "connect", lambda: where)
    monkeypatch.setattr(audit, "note_outcome", lambda _: None)
    monkeypatch.setattr(lambda_, "update_alias", update_alias)
    monkeypatch.setattr(versions, "versions", lambda _: [version(1, -900), version(2, 1, live=True)])
    assert main(["rollback", "--yes"]) == ExitCode.WRONG
    said = capsys.readouterr().err
    assert "UpdateAlias was refused: an earlier change is in progress" in said
    assert "Before that: users 2 -> 1." in said


def test_a_function_whose_code_was_rolled_back_is_not_restarted(
    lambda_: Lambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_of = {"live": {"Version": "1", "CodeSha256": "old"}, "$LATEST": {"CodeSha256": "new"}}
    monkeypatch.setattr(versions, "configuration", lambda _queue, of="live": settings_of[of])
    with pytest.raises(Problem, match="nexus-test-users was not restarted") as raised:
        versions.republish("users", "restarted")
    assert "Version 1 is live" in raised.value.why


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"State": "Failed", "StateReason": "no role"}, "Lambda did not make version 2 ready"),
        ({"LastUpdateStatus": "Failed", "LastUpdateStatusReason": "no layer"}, "Lambda did not make version 2 ready"),
        ({"State": "Pending"}, "version 2 is still not ready"),
    ],
)
def test_a_version_that_does_not_become_ready_is_reported(
    found: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0.0, versions.PATIENCE / 2)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(versions, "configuration", lambda _queue, _qualifier: found)
    with pytest.raises(Problem, match=said) as raised:
        versions._ready("users", "2")
    assert raised.value.why == found.get("LastUpdateStatusReason", found.get("StateReason", ""))
