"""The tasks for one user: counts, tokens, a notification."""

from collections.abc import Callable

import pytest

import erase_user_data
import refresh_user_statistics
import revoke_user_tokens
import send_notification
import update_user_statistics
from nexus import Signature, group
from nexus.errors import InvalidMessage, Reject, Retry
from nexus.testing import memory_backend, run_task
from ops.social.seed import generate, write
from social import application, catalogue
from social.catalogue import NotificationSent
from social.data import notifications, sessions, users
from social.data.users import Counts
from tests.support.sandboxes import Queue, requests, small_pages

NOW = 1_800_000_000


def counts(user_id: str) -> tuple[int, int, int]:
    user = users.get(user_id)
    assert user is not None
    return user.followers_count, user.following_count, user.posts_count


@pytest.mark.simulation
def test_a_refresh_finds_what_the_nightly_count_finds(empty: Callable[[], None]) -> None:
    network = generate(25, 8, NOW)
    write(network, NOW)
    with small_pages(3):
        for seed, user in enumerate(network.users):
            result = Queue.unreliable(seed).run(
                refresh_user_statistics.refresh_user_statistics, {"user_id": user.user_id}
            )
            assert (result.followers_count, result.following_count, result.posts_count) == counts(user.user_id)
    refreshed = {user.user_id: counts(user.user_id) for user in network.users}
    report = run_task(update_user_statistics.update_user_statistics)
    assert report.changed == 0
    assert {user.user_id: counts(user.user_id) for user in network.users} == refreshed


def test_a_refresh_does_not_overwrite_a_later_count(empty: Callable[[], None]) -> None:
    application.register("a@example.com", "A", user_id="a")
    users.set_counts([Counts("a", 5, 6, 7, counted_at=NOW * 2)])
    run_task(refresh_user_statistics.refresh_user_statistics, {"user_id": "a"})
    assert counts("a") == (5, 6, 7)


def test_revoking_ends_every_session_and_token_of_this_user(empty: Callable[[], None]) -> None:
    for user_id in ("a", "b"):
        application.register(f"{user_id}@example.com", user_id, user_id=user_id, at=NOW - 100)
        application.record_login(user_id, "t1", session_id="s1", at=NOW - 50)
        application.record_login(user_id, "t2", session_id="s2", at=NOW - 10)
    result = run_task(revoke_user_tokens.revoke_user_tokens, {"user_id": "a", "issued_before": NOW})
    assert (result.sessions, result.tokens) == (2, 2)
    assert sessions.sessions_of("a") == sessions.tokens_of("a") == []
    assert len(sessions.sessions_of("b")) == len(sessions.tokens_of("b")) == 2
    again = run_task(revoke_user_tokens.revoke_user_tokens, {"user_id": "a", "issued_before": NOW})
    assert (again.sessions, again.tokens) == (0, 0)


@pytest.mark.parametrize("end", ["revocation", "sign-out"])
def test_a_token_that_is_rotated_while_it_is_ended_is_ended_too(empty: Callable[[], None], end: str) -> None:
    """At every request of the revocation, and before it."""
    rotated = []
    for moment in range(20):
        empty()
        application.register("a@example.com", "A", user_id="a", at=NOW - 100)
        application.record_login("a", "old", session_id="s", at=NOW - 50)
        seen: list[str] = []

        def rotate(operation: str, seen: list[str] = seen, moment: int = moment) -> None:
            seen.append(operation)
            if len(seen) == moment + 1:
                rotated.append(application.rotate_token("a", "old", "new", at=NOW))

        with requests(rotate):
            if end == "revocation":
                run_task(revoke_user_tokens.revoke_user_tokens, {"user_id": "a"})
            else:
                application.sign_out("a", "s")
        if len(seen) <= moment:
            assert True in rotated
            assert False in rotated
            return
        assert sessions.tokens_of("a") == [], moment
    pytest.fail("more than 20 requests")


@pytest.mark.parametrize("future", [NOW + 301, NOW * 1000])
def test_tokens_are_not_revoked_for_the_future(empty: Callable[[], None], future: int) -> None:
    """`tokens_valid_from` only rises: a mark of milliseconds would lock the user out for good."""
    with pytest.raises(InvalidMessage, match=r"issued_before: .*in the future"):
        catalogue.revoke_user_tokens.delay(user_id="a", issued_before=future)


def test_a_revocation_by_a_server_whose_clock_is_ahead_is_not_lost(empty: Callable[[], None]) -> None:
    """Its sender accepts its own time; refused by the worker, it would be a dead letter, and the tokens would work."""
    application.register("a@example.com", "A", user_id="a", at=NOW - 100)
    application.record_login("a", "old", at=NOW - 50)
    assert run_task(revoke_user_tokens.revoke_user_tokens, {"user_id": "a", "issued_before": NOW + 290}).tokens == 1


def test_a_deleted_users_token_is_not_rotated(empty: Callable[[], None]) -> None:
    application.register("a@example.com", "A", user_id="a")
    application.record_login("a", "old")
    with memory_backend():
        application.delete_user("a")
    assert not application.rotate_token("a", "old", "new")
    assert sessions.tokens_of("a") == ["old"], "the erasure deletes it"


def test_a_login_after_the_revocation_was_requested_is_kept(empty: Callable[[], None]) -> None:
    application.register("a@example.com", "A", user_id="a", at=NOW - 100)
    application.record_login("a", "old", session_id="old", at=NOW - 50)
    application.record_login("a", "new", session_id="new", at=NOW)
    run_task(revoke_user_tokens.revoke_user_tokens, {"user_id": "a", "issued_before": NOW})
    assert sessions.sessions_of("a") == ["new"]
    assert sessions.tokens_of("a") == ["new"]
    item = users.TABLE.get({"user_id": "a"})
    assert item is not None
    assert item["tokens_valid_from"] == {"N": str(NOW)}


def test_a_notification_is_stored_once_however_often_it_is_delivered(empty: Callable[[], None]) -> None:
    application.register("a@example.com", "A", user_id="a")
    application.register("ben@example.com", "Ben", user_id="ben")
    arguments = {"user_id": "a", "kind": "like", "text": "Ben liked your post", "link": "/posts/1", "actor_id": "ben"}
    for _ in range(2):
        run_task(send_notification.send_notification, arguments, id="0193a000-0000-7000-8000-000000000001")
    run_task(send_notification.send_notification, arguments, id="0193a000-0000-7000-8000-000000000002")
    assert [one.notification_id[-1] for one in notifications.latest("a")] == ["2", "1"]
    assert notifications.latest("a")[0].link == "/posts/1"


def test_the_latest_notifications_are_those_sent_last_however_they_were_sent(
    empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    application.register("a@example.com", "A", user_id="a")
    texts = [f"number {number}" for number in range(18)]
    sends: list[Callable[[Signature[NotificationSent]], object]] = [
        lambda one: one.apply_async(),
        lambda one: one.apply_async(track=False),
        lambda one: group(one, one.set(expires=60)).apply_async(),
    ]
    with memory_backend() as tasks:
        for number, text in enumerate(texts):
            monkeypatch.setattr("time.time", lambda number=number: NOW + number)
            sends[number % 3](catalogue.send_notification.s(user_id="a", kind="like", text=text))
            tasks.run()
    assert list(dict.fromkeys(one.text for one in notifications.latest("a"))) == texts[::-1]
    assert [one.text for one in notifications.latest("a", 3)] == [texts[-1], texts[-1], texts[-2]]


def test_nothing_by_a_blocked_user_is_notified(empty: Callable[[], None]) -> None:
    application.register("a@example.com", "A", user_id="a")
    application.block("a", "pest")
    result = run_task(
        send_notification.send_notification, {"user_id": "a", "kind": "like", "text": "hi", "actor_id": "pest"}
    )
    assert result.notification_id is None
    assert notifications.latest("a") == []


@pytest.mark.usefixtures("empty")
def test_a_late_notification_does_not_name_a_deleted_user() -> None:
    """As one from a backlog, or a dead letter that is sent again, after both passes of the erasure."""
    for user_id in ("a", "ada"):
        application.register(f"{user_id}@example.com", user_id, user_id=user_id)
    late = {"user_id": "a", "kind": "like", "text": "Ada liked your post", "actor_id": "ada"}
    with memory_backend():
        application.delete_user("ada")
        for again in (True, False):
            run_task(erase_user_data.erase_user_data, {"user_id": "ada", "again": again})
    for args, reason in ((late, "no such actor"), ({**late, "user_id": "ada", "actor_id": "a"}, "no such user")):
        with pytest.raises(Retry) as raised:
            run_task(send_notification.send_notification, args)
        assert raised.value.after == users.LATE
        result = run_task(send_notification.send_notification, args, attempt=2)
        assert result == NotificationSent(reason=reason)
        assert notifications.latest(args["user_id"]) == []


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(("first", "late"), [("a", "ada"), ("ada", "a")])
def test_a_notification_waits_for_a_user_whose_row_comes_after_it(first: str, late: str) -> None:
    """As that of a new user in a mirrored table, whose row passes through the outbox."""
    application.register(f"{first}@example.com", first, user_id=first)
    early = {"user_id": "a", "kind": "follow", "text": "Ada follows you", "actor_id": "ada"}
    with pytest.raises(Retry):
        run_task(send_notification.send_notification, early)
    application.register(f"{late}@example.com", late, user_id=late)
    run_task(send_notification.send_notification, early, attempt=2)
    assert [one.actor_id for one in notifications.latest("a")] == ["ada"]


@pytest.mark.parametrize(
    "function", [refresh_user_statistics.refresh_user_statistics, revoke_user_tokens.revoke_user_tokens]
)
def test_an_unknown_user_is_rejected_and_not_retried(
    empty: Callable[[], None], function: Callable[..., object]
) -> None:
    with pytest.raises(Reject):
        run_task(function, {"user_id": "nobody"})
    assert not users.exists("nobody")
