"""Each transition of a run record as a write: what it sets, what it removes, and under which condition.

The rules are pure, so no store is needed; that every interleaving of these writes is safe is shown elsewhere
(test_effects_once.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from nexus import clock
from nexus.aws.dynamodb import Condition, equals
from nexus.backend.store import Value, Write
from nexus.clock import FrozenClock
from nexus.envelope import Envelope, Segment
from nexus.runs import transitions
from nexus.runs.record import RunError
from nexus.runs.transitions import EARLY, Acknowledge, Busy, Claim, Died, Early
from tests.support import own_catalogue as catalogue

NOW = 1_795_770_000.0
RUN = "01978f00-0000-7000-8000-00000000000a"
PARENT = "01978f00-0000-7000-8000-00000000000b"
ERROR = RunError("Reject", "no such user")
STORED = '{"type":"Reject","message":"no such user"}'
HELD = (equals("status", "STARTED"), equals("claim", "mine"))


def envelope(**fields: Any) -> Envelope:
    sent_at = datetime(2026, 11, 27, 9, 0, 0, 123_456, UTC)
    return Envelope.of(**{"id": RUN, "task": "ping", "args": {"a": 1}, "sent_at": sent_at, **fields})


DESCRIBED: dict[str, Value] = {
    "task": "ping",
    "queue": "default",
    "sent_at": 1_795_770_000.123,
    "args": '{"a":1}',
    "history": f"ping#{ord('a') % 8}",
}


def by(**fields: Any) -> Claim:
    return Claim("mine", "default", NOW, NOW + 60, int(NOW) + 1000, **fields)


STARTED: dict[str, Value] = {
    "status": "STARTED",
    "claim": "mine",
    "lease_until": NOW + 60,
    "started_at": NOW,
    "expires": int(NOW) + 1000,
    "history": DESCRIBED["history"],
}
LISTED: dict[str, Value] = {"live": "default#a", "since": NOW}


@dataclass
class Days:
    """Settings with only what the rules read."""

    run_days: int = 30


@pytest.fixture(autouse=True)
def _clock_and_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(transitions, "settings", Days)
    with clock.use(FrozenClock(NOW)):
        yield


def claim(known: dict[str, Value] | None, *, max_attempts: int = 3, redriven: bool = False, **fields: Any) -> Any:
    item = None if known is None else {"id": RUN, **known}
    return transitions.claim(envelope(), item, by(**fields), max_attempts, redriven=redriven)


# --- records of runs that have not started ---


def test_a_run_about_to_be_sent_is_inserted_with_its_description() -> None:
    write = transitions.pending(envelope(), "default", 5, then="[]")
    assert write == Write(RUN, set={**DESCRIBED, "status": "PENDING", "expires": 5, "then": "[]"}, insert=True)


def test_a_member_names_its_parent_and_its_place() -> None:
    write = transitions.pending(envelope(parent=PARENT, segment=Segment(index=4, total=9)), "default", 5)
    assert (write.set["parent"], write.set["segment"]) == (PARENT, 4)


@pytest.mark.parametrize(("length", "shown"), [(0, True), (1, False)])
def test_arguments_are_shown_up_to_a_limit(length: int, shown: bool) -> None:
    text = "x" * (transitions.ARGUMENTS_SHOWN - len('{"a":""}') + length)
    assert ("args" in transitions.pending(envelope(task="send_note", args={"a": text}), "default", 5).set) is shown


def test_arguments_of_an_unknown_task_are_not_shown_because_they_may_be_secret() -> None:
    assert "args" not in transitions.pending(envelope(task="gone", args={"code": "c-4711"}), "default", 5).set


def test_a_known_task_hides_its_secrets_and_indexes_its_searchable_argument() -> None:
    searchable = catalogue.send_note.searchable[0]
    args = {**catalogue.NOTE}
    written = transitions.pending(envelope(task="send_note", args=args), "default", 5).set
    assert written["argument"] == f"{searchable}={args[searchable]}"
    assert str(written["history"]).startswith("send_note#a")


# --- claims ---


def test_a_run_without_a_record_is_inserted_as_started() -> None:
    assert claim(None) == Write(RUN, set={**DESCRIBED, **STARTED, "attempts": 1}, insert=True)


def test_a_claim_can_be_listed_shared_or_hold_a_place() -> None:
    assert claim(None, listed=True).set == {**DESCRIBED, **STARTED, **LISTED, "attempts": 1}
    assert claim(None, shared=True).set == {**DESCRIBED, **STARTED, "shared": True, "attempts": 1}
    placed = transitions.claim(envelope(), None, by(), 3, "place/1")
    assert isinstance(placed, Write)
    assert placed.set == {**DESCRIBED, **STARTED, "place": "place/1", "attempts": 1}


def test_a_pending_run_starts_its_first_attempt() -> None:
    expected = Write(RUN, set={**STARTED, "attempts": 1}, when=(equals("status", "PENDING"),))
    assert claim({"status": "PENDING"}) == expected


def test_a_run_to_be_retried_starts_its_next_attempt_as_it_was_read() -> None:
    when = (equals("status", "RETRY"), equals("attempts", 2), equals("eta", NOW - 5))
    alone, shared = (claim({"status": "RETRY", "attempts": 2, "eta": NOW - 5}, shared=one) for one in (False, True))
    assert alone == Write(RUN, set={**STARTED, "attempts": 3}, remove=("shared",), when=when)
    assert shared == Write(RUN, set={**STARTED, "attempts": 3, "shared": True}, when=when)


def test_a_retry_may_be_a_little_early() -> None:
    due = NOW + EARLY
    assert isinstance(claim({"status": "RETRY", "attempts": 1, "eta": due}), Write)
    assert claim({"status": "RETRY", "attempts": 1, "eta": due + 0.5}) == Early(due + 0.5)
    assert isinstance(claim({"status": "RETRY", "attempts": 1}), Write)


@pytest.mark.parametrize(
    ("fields", "redriven", "starts"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"blocked": True}, False, True),
        ({"waits": True}, True, False),
        ({"waits": True, "blocked": True}, False, False),
    ],
    ids=["a duplicate", "redriven", "blocked", "a fan-out, redriven", "a fan-out, blocked"],
)
def test_a_failed_run_starts_over_only_if_its_message_was_sent_for_that(
    fields: dict[str, Value], redriven: bool, starts: bool
) -> None:
    decision = claim({"status": "FAILURE", "attempts": 3, "ended_at": 7.0, **fields}, redriven=redriven)
    if not starts:
        assert isinstance(decision, Acknowledge)
        return
    when = (equals("status", "FAILURE"), equals("ended_at", 7.0), equals("waits", None))
    again: dict[str, Value] = {**STARTED, "attempts": 1, "restarted": True}
    assert decision == Write(RUN, set=again, remove=transitions.LEFT_BY_FAILURE, when=when)


def test_a_live_lease_is_not_taken() -> None:
    known: dict[str, Value] = {"status": "STARTED", "attempts": 1, "claim": "theirs"}
    assert claim({**known, "lease_until": NOW + 0.5}) == Busy(NOW + 0.5)
    assert isinstance(claim({**known, "lease_until": NOW}), Write)


def test_an_expired_lease_costs_an_attempt_unless_the_claim_was_shared() -> None:
    known: dict[str, Value] = {"status": "STARTED", "attempts": 2, "claim": "theirs", "lease_until": NOW - 1}
    when = (equals("status", "STARTED"), equals("claim", "theirs"))
    expected = {**STARTED, **LISTED}
    assert claim(known) == Write(RUN, set={**expected, "attempts": 3}, remove=("shared",), when=when)
    refunded = claim({**known, "shared": True})
    assert refunded == Write(RUN, set={**expected, "attempts": 2}, remove=("shared",), when=when)


def test_the_last_attempts_expired_lease_is_a_death_unless_the_claim_was_shared() -> None:
    known: dict[str, Value] = {"status": "STARTED", "attempts": 3, "claim": "theirs", "lease_until": NOW - 1}
    assert isinstance(claim(known, max_attempts=4), Write)
    died = claim(known)
    assert isinstance(died, Died)
    assert died.record.attempts == 3
    assert isinstance(claim({**known, "attempts": 4}), Died)
    assert isinstance(claim({**known, "shared": True}), Write)


@pytest.mark.parametrize(
    "known",
    [
        {"status": "SUCCESS"},
        {"status": "REVOKED"},
        {"status": "STARTED", "waits": True, "lease_until": NOW - 1},
        {"status": "STARTED"},
    ],
    ids=["succeeded", "revoked", "a fan-out that waits", "a run without a lease"],
)
def test_a_message_of_an_ended_or_waiting_run_is_acknowledged(known: dict[str, Value]) -> None:
    decision = claim(known)
    assert isinstance(decision, Acknowledge)
    assert decision.record.status == known["status"]


# --- while a claim holds a run ---


def test_a_success_drops_the_claim_and_the_cursor_and_keeps_the_ids_of_its_children() -> None:
    removed = (*transitions.LEFT_BY_CLAIM, "error", "why", "eta", "cursor", "continued")
    values: dict[str, Value] = {"status": "SUCCESS", "result": "{}", "ended_at": NOW}
    assert transitions.succeed(RUN, "mine", "{}", NOW) == Write(RUN, set=values, remove=removed, when=HELD)
    assert transitions.succeed(RUN, "mine", "{}", NOW, ("c",)).set == {**values, "children": '["c"]'}


FAILED: dict[str, Value] = {
    "status": "FAILURE",
    "error": STORED,
    "ended_at": NOW,
    "history": f"FAILURE#{ord('a') % 8}",
    "why": "Reject: no such user",
}


def test_a_failure_says_why_and_where_its_log_is() -> None:
    removed = (*transitions.LEFT_BY_CLAIM, "eta")
    assert transitions.fail(RUN, "mine", ERROR, NOW) == Write(RUN, set=FAILED, remove=removed, when=HELD)
    assert transitions.fail(RUN, "mine", ERROR, NOW, "log").set == {**FAILED, "log": "log"}
    assert transitions.fail(RUN, None, ERROR, NOW).when == (equals("status", "STARTED"),)


def test_a_retry_is_listed_for_its_time_and_refused_to_what_was_revoked() -> None:
    write = transitions.retry(RUN, "mine", "default", ERROR, NOW + 30)
    assert write.set == {
        "status": "RETRY",
        "error": STORED,
        "eta": NOW + 30,
        "expires": int(NOW) + 30 + 30 * 86_400,
        "live": "default#a",
        "since": NOW + 30,
    }
    assert write.remove == ("claim", "lease_until", "shared", "slot")
    assert write.when == (*HELD, equals("revoke", None))


def test_a_release_gives_the_attempt_back() -> None:
    write = transitions.release(RUN, "mine", "default", 2, NOW, cursor="{}")
    assert write.set == {"status": "RETRY", "attempts": 1, "live": "default#a", "since": NOW, "cursor": "{}"}
    assert write.remove == ("claim", "lease_until", "shared", "eta", "slot")
    assert write.when == (*HELD, equals("revoke", None))
    assert "expires" not in write.set


def test_a_release_until_a_later_time_keeps_the_record_until_after_it() -> None:
    later = transitions.release(RUN, "mine", "default", 2, NOW + 60, eta=NOW + 60)
    assert later.set == {
        "status": "RETRY",
        "attempts": 1,
        "live": "default#a",
        "since": NOW + 60,
        "eta": NOW + 60,
        "expires": int(NOW) + 60 + 30 * 86_400,
    }
    assert later.remove == ("claim", "lease_until", "shared", "slot")


def test_a_release_keeps_the_start_that_it_waits_for() -> None:
    booked = transitions.release(RUN, "mine", "default", 2, NOW + 60, eta=NOW + 60, slot=True)
    assert booked.set["slot"] is True
    assert booked.remove == ("claim", "lease_until", "shared")


def test_a_record_is_kept_for_longer_and_never_for_less() -> None:
    assert transitions.kept(RUN, 5) == Write(RUN, set={"expires": 5}, when=(Condition("expires", "<", 5),))


def test_progress_is_compact_json_in_utf_8() -> None:
    write = transitions.progress(RUN, "mine", 1, 2, "né\0", info={"a": 1})
    assert write == Write(RUN, set={"progress": '[1,2,"né\\u0000",{"a":1}]'}, when=HELD)
    with pytest.raises(ValueError, match="JSON compliant"):
        transitions.progress(RUN, "mine", 1, 2, "", info=float("nan"))


def test_progress_has_a_limit_in_bytes() -> None:
    fits = "é" * ((transitions.PROGRESS_BYTES - len('[1,2,"",null]')) // 2)
    rest = "x" * ((transitions.PROGRESS_BYTES - len('[1,2,"",null]')) % 2)
    assert len(str(transitions.progress(RUN, "mine", 1, 2, fits + rest).set["progress"]).encode()) == 8192
    with pytest.raises(ValueError, match="8193 bytes, over the limit of 8192"):
        transitions.progress(RUN, "mine", 1, 2, fits + rest + "x")


# --- ending without a claim, and starting again ---


def test_a_failed_run_that_is_sent_again_is_pending_with_all_its_attempts() -> None:
    values: dict[str, Value] = {"status": "PENDING", "attempts": 0, "restarted": True, "expires": 5}
    when = (equals("status", "FAILURE"), equals("waits", None))
    expected = Write(RUN, set=values, remove=transitions.LEFT_BY_FAILURE, when=when)
    assert transitions.send_again(RUN, expires=5) == expected


def test_a_message_that_sqs_did_not_accept_fails_its_pending_run() -> None:
    write = transitions.not_sent(RUN, ERROR, NOW, expires=5)
    assert write.set == {**FAILED, "expires": 5}
    assert (write.remove, write.when) == (("live", "since"), (equals("status", "PENDING"),))


def test_a_blocked_run_was_never_sent() -> None:
    recorded = transitions.blocked(envelope(), "default", ERROR, NOW, 5, recorded=True)
    unknown = transitions.blocked(envelope(), "default", ERROR, NOW, 5, recorded=False)
    values = {**DESCRIBED, **FAILED, "expires": 5, "blocked": True}
    assert recorded == Write(RUN, set=values, when=(equals("status", "PENDING"),))
    assert unknown == Write(RUN, set=values, insert=True)
    again = transitions.unblocked(RUN, expires=5)
    assert again.set == {"status": "PENDING", "restarted": True, "expires": 5}
    assert again.when == (equals("status", "FAILURE"), Condition("blocked", "exists"))


@pytest.mark.parametrize("known", [None, {"status": "PENDING"}])
def test_a_run_that_could_not_start_fails_as_it_was_known(known: dict[str, Value] | None) -> None:
    write = transitions.never_ran(envelope(), "default", ERROR, NOW, 5, known=known, log="log")
    assert write.set == {**DESCRIBED, **FAILED, "expires": 5, "log": "log"}
    assert write.when == (equals("status", known["status"] if known else None),)


REVOKED: dict[str, Value] = {
    "status": "REVOKED",
    "error": '{"type":"Revoked","message":"not wanted"}',
    "ended_at": NOW,
    "history": f"REVOKED#{ord('a') % 8}",
    "why": "Revoked: not wanted",
}


def test_a_run_without_a_record_is_revoked_by_inserting_one() -> None:
    known = transitions.revoked(envelope(), "default", "not wanted", NOW, 5)
    assert known == Write(RUN, set={**DESCRIBED, **REVOKED, "expires": 5}, insert=True)
    unknown = transitions.revoke_unknown(RUN, "not wanted", NOW)
    values = {"task": "", **REVOKED, "expires": int(NOW) + 30 * 86_400}
    assert unknown == Write(RUN, set=values, insert=True)


def test_a_started_run_is_asked_to_end_unless_it_has_fanned_out() -> None:
    when = (equals("status", "STARTED"), Condition("total", "missing"))
    assert transitions.ask_to_revoke(RUN) == Write(RUN, set={"revoke": True}, when=when)


def test_a_result_is_dropped_unless_another_run_needs_it() -> None:
    ended, *missing = transitions.forget(RUN).when
    assert ended == Condition("ended_at", "exists")
    assert [(one.attribute, one.test) for one in missing] == [
        ("then", "missing"),
        ("member", "missing"),
        ("segment", "missing"),
    ]
    assert [one.attribute for one in transitions.forget(RUN, counted=True).when] == ["ended_at", "then"]


def test_a_record_is_kept_for_the_days_of_the_settings() -> None:
    assert transitions.keep_until() == int(NOW) + 30 * 86_400
    assert transitions.keep_until(5.0) == 5 + 30 * 86_400
