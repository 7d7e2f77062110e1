"""cleanup_expired_tokens, compared with the rule for each row; it never deletes anything that is still valid."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cleanup_expired_tokens as job
from nexus.aws.dynamodb import Write
from nexus.aws.table import Table
from nexus.testing import run_task
from ops.social.seed import Network
from social import application
from social.data import sessions, users
from social.data.days import DAY_SECONDS, add_days, day_of, start_of
from social.data.sessions import Session, Token
from tests.support.sandboxes import Queue, requests, small_pages, throttled
from tests.unit.jobs.conftest import NOW, Filled, jobs, seeds

FIRST_DAY = add_days(day_of(NOW), -30)


def keys(table: Table) -> set[tuple[str, str]]:
    return {(item[table.key[0]]["S"], item[table.key[1]]["S"]) for page in table.scan() for item in page.items}


def stored() -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    return keys(sessions.SESSIONS), keys(sessions.TOKENS)


def expected(network: Network) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """The rows that must stay: unexpired ones of users seen in the last 30 days, or created since."""
    inactive = {user.user_id for user in network.users if user.last_active_day < FIRST_DAY}
    before = start_of(FIRST_DAY)
    return (
        {
            (s.user_id, s.session_id)
            for s in network.sessions
            if s.expires_at > NOW and not (s.user_id in inactive and s.last_seen_at < before)
        },
        {
            (t.user_id, t.token_id)
            for t in network.tokens
            if t.expires_at > NOW and not (t.user_id in inactive and t.issued_at < before)
        },
    )


@jobs
@given(seeds, st.integers(1, 30))
def test_the_cleanup_leaves_exactly_the_rows_that_the_rule_keeps(filled: Filled, seed: int, people: int) -> None:
    network = filled(people, seed)
    report = run_task(job.cleanup_expired_tokens, {"sweep": True})
    assert stored() == expected(network)
    gone = len(network.sessions) + len(network.tokens) - sum(map(len, expected(network)))
    assert report.tokens + report.sessions == report.changed
    assert report.changed + report.skipped >= gone >= report.changed
    assert report.failed == 0


@pytest.mark.simulation
@settings(jobs, max_examples=4)
@given(seeds)
def test_sandboxes_that_die_and_messages_that_come_twice_change_nothing(filled: Filled, seed: int) -> None:
    network = filled(12, seed)
    with small_pages(4):
        Queue.unreliable(seed).run(job.cleanup_expired_tokens, {"sweep": True})
    assert stored() == expected(network)


def test_throttling_slows_the_job_and_loses_nothing(filled: Filled) -> None:
    network = filled(25, 3)
    with throttled(one_in=3, seed=5) as refused:
        run_task(job.cleanup_expired_tokens, {"sweep": True})
    assert refused["requests"] > 5
    assert stored() == expected(network)


@pytest.mark.parametrize("moment", range(12))
def test_a_user_who_logs_in_during_the_cleanup_keeps_their_session(empty: Callable[[], None], moment: int) -> None:
    """Tries a login before each request of the job."""
    application.register("a@example.com", "A", user_id="a", at=NOW - 100 * DAY_SECONDS)
    application.record_login("a", "old", session_id="old", at=NOW - 60 * DAY_SECONDS)
    seen = [0]

    def login(_: str) -> None:
        seen[0] += 1
        if seen[0] == moment + 1:
            application.record_login("a", "new", session_id="new", at=NOW)

    with requests(login):
        run_task(job.cleanup_expired_tokens)
    if seen[0] > moment:
        assert ("a", "new") in keys(sessions.SESSIONS)
        assert ("a", "new") in keys(sessions.TOKENS)
        item = users.TABLE.get({"user_id": "a"})
        assert item is not None
        assert "signed_out_at" not in item, "the user must be looked at again once inactive"
    run_task(job.cleanup_expired_tokens)
    assert (("a", "new") in keys(sessions.SESSIONS)) == (seen[0] > moment)


def test_an_old_session_used_during_the_cleanup_is_kept(empty: Callable[[], None]) -> None:
    application.register("a@example.com", "A", user_id="a", at=NOW - 100 * DAY_SECONDS)
    application.record_login("a", "t", session_id="s", at=NOW - 60 * DAY_SECONDS)
    woken = [False]

    def wake(operation: str) -> None:
        if operation == "BatchExecuteStatement" and not woken[0]:
            woken[0] = True
            application.record_activity("a", "s", at=NOW)

    with requests(wake):
        report = run_task(job.cleanup_expired_tokens)
    assert woken[0]
    assert keys(sessions.SESSIONS) == {("a", "s")}
    assert report.skipped == 1


def test_a_dormant_user_is_signed_out_and_not_examined_again(filled: Filled) -> None:
    network = filled(60, 1)
    first = run_task(job.cleanup_expired_tokens)
    assert first.signed_out == sum(user.last_active_day < FIRST_DAY for user in network.users)
    again = run_task(job.cleanup_expired_tokens)
    assert (again.signed_out, again.changed) == (0, 0)
    assert again.requests < first.requests / 2


def test_the_cleanup_reads_one_page_while_ttl_keeps_up(
    empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("social.sweep.SEGMENT_BYTES", 10**9)
    fresh = [Token("u", f"t{n:02}", NOW - DAY_SECONDS, NOW + DAY_SECONDS) for n in range(40)]
    just = [Token("u", f"x{n}", NOW - DAY_SECONDS, NOW - 60) for n in range(3)]
    sessions.put_tokens([*fresh, *just])
    with small_pages(10):
        report = run_task(job.cleanup_expired_tokens)
    assert (report.rows_read, report.tokens) == (10, 0)
    sessions.put_tokens([Token("u", "a", 1, NOW - 3 * DAY_SECONDS)])
    with small_pages(10):
        report = run_task(job.cleanup_expired_tokens)
    assert (report.rows_read, report.tokens) == (44, 4), "one that is three days overdue: TTL is behind"


def test_bad_rows_are_counted_and_skipped(empty: Callable[[], None]) -> None:
    application.register("a@example.com", "A", user_id="a", at=NOW - 100 * DAY_SECONDS)
    application.register("b@example.com", "B", user_id="b", at=NOW - 100 * DAY_SECONDS)
    users.TABLE.update(Write({"user_id": "a"}, set={"last_active_day": "last summer"}))
    sessions.put_sessions([Session("b", "s", 1, 1, NOW + 1)])
    sessions.TOKENS.put({"user_id": "b", "token_id": "no expiry", "issued_at": 1})
    sessions.TOKENS.put({"user_id": "c", "token_id": "odd", "issued_at": 1, "expires_at": "soon"})
    report = run_task(job.cleanup_expired_tokens, {"sweep": True})
    assert report.failed in {2, 3}, "b's token may go with b before the sweep sees it"
    assert keys(sessions.SESSIONS) == set()
    assert keys(sessions.TOKENS) == {("c", "odd")}
