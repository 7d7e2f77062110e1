"""What the web application's helpers write, as the jobs will find it."""

import inspect
import re
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.aws.dynamodb import Row, Write
from nexus.aws.table import Table
from nexus.errors import SendFailed
from nexus.testing import memory_backend
from social import application
from social.data import blocks, comments, days, follows, posts, sessions, users
from social.data.ids import new_key
from social.data.posts import Counters, Media, MediaOutcome, Post, Rendition
from social.data.sessions import Token
from tests.support import sandboxes

NOW = 1_800_000_000
DAY = 86_400


def item(table: Table, **key: str) -> Row:
    found = table.get(key)
    assert found is not None
    return found


def test_a_login_records_the_active_day_a_session_and_a_token(database: None) -> None:
    user = application.register(" Ada@Example.com ", "Ada", at=NOW)
    session = application.record_login(user.user_id, "jti-1", at=NOW + 2 * DAY)
    stored = users.get(user.user_id)
    assert stored is not None
    assert stored.email == "ada@example.com"
    assert users.by_email("ADA@example.com") == [user.user_id]
    today = date.fromisoformat(days.day_of(NOW))
    of_days = [(today + timedelta(n)).isoformat() for n in range(4)]
    activity = [users.was_active(stored.last_active_day, stored.active_days, day) for day in of_days]
    assert activity == [True, False, True, False]
    assert sessions.sessions_of(user.user_id) == [session.session_id]
    assert sessions.token(user.user_id, "jti-1", NOW + 3 * DAY) is not None
    assert sessions.token(user.user_id, "jti-1", NOW + 200 * DAY) is None, "expired, whatever TTL has done"
    with pytest.raises(LookupError):
        application.record_login("nobody", "jti", at=NOW)
    with pytest.raises(ValueError, match="exists"):
        application.register("b@example.com", "B", user_id=user.user_id)


@pytest.mark.parametrize("faulty", ["a/b", "x" * 129])
def test_an_id_that_could_not_be_erased_is_refused(faulty: str) -> None:
    with pytest.raises(ValueError, match="slash, or more than 128"):
        application.register("a@example.com", "A", user_id=faulty, at=NOW)
    with pytest.raises(ValueError, match="slash, or more than 128"):
        application.new_post("a", "hello", post_id=faulty, at=NOW)


@given(st.lists(st.integers(0, 80), min_size=1, max_size=30))
def test_the_bits_remember_every_active_day_of_the_last_36_in_any_order(offsets: list[int]) -> None:
    first = date(2026, 1, 1)
    latest, bits = "", 0
    for offset in offsets:
        latest, bits = users.with_activity(latest, bits, (first + timedelta(offset)).isoformat())
    last = max(offsets)
    seen_late = {offset for place, offset in enumerate(offsets) if max(offsets[: place + 1]) - offset < 36}
    for offset in range(last - 40, last + 3):
        day = (first + timedelta(offset)).isoformat()
        assert users.was_active(latest, bits, day) == (offset in seen_late and 0 <= last - offset < 36)
    assert bits < 2**36


def test_signing_out_removes_the_session_and_its_tokens(database: None) -> None:
    application.register("ada@example.com", "Ada", user_id="a", at=NOW)
    for name in ("one", "two"):
        application.record_login("a", f"jti-{name}", session_id=name, at=NOW)
    application.sign_out("a", "one")
    application.sign_out("a", "one")
    assert sessions.sessions_of("a") == ["two"]
    assert sessions.tokens_of("a") == ["jti-two"]


def test_counters_that_a_database_counts_are_set_and_a_comment_is_edited(database: None) -> None:
    application.new_post("a", "hello", post_id="p", at=NOW)
    application.comment("p", "b", "Hi", comment_id="c", at=NOW)
    assert application.count("p", shares=2)
    assert application.set_counters("p", likes=5, comments=1)
    found = posts.get("p")
    assert found is not None
    assert found.counters == Counters(likes=5, comments=1, shares=2)
    assert not application.set_counters("nothing", likes=5)
    with pytest.raises(ValueError, match="shares_count is -1"):
        application.set_counters("p", likes=1, shares=-1)
    assert application.edit_comment("p", "c", "Hello")
    assert comments.items_of_post("p")[0]["text"] == {"S": "Hello"}
    assert application.delete_comment("p", "c", at=NOW)
    assert not application.edit_comment("p", "c", "Hello again")
    assert not application.edit_comment("p", "nothing", "Hello")


def test_a_user_who_comes_back_is_no_longer_signed_out(database: None) -> None:
    application.register("a@example.com", "A", user_id="a", at=NOW)
    users.mark_signed_out([("a", days.day_of(NOW))], at=NOW)
    assert "signed_out_at" in item(users.TABLE, user_id="a")
    application.record_login("a", "t", at=NOW)
    assert "signed_out_at" not in item(users.TABLE, user_id="a")


def test_rotating_a_token_works_once(database: None) -> None:
    application.register("a@example.com", "A", user_id="a", at=NOW)
    application.record_login("a", "one", session_id="s", at=NOW)
    assert application.rotate_token("a", "one", "two", at=NOW + DAY)
    assert not application.rotate_token("a", "one", "three", at=NOW + DAY)
    assert sessions.tokens_of("a") == ["two"]
    assert item(sessions.SESSIONS, user_id="a", session_id="s")["last_seen_at"] == {"N": str(NOW + DAY)}


def test_a_token_without_a_session_can_be_rotated(database: None) -> None:
    """The tables in memory refuse an empty key, as DynamoDB does."""
    application.register("a@example.com", "A", user_id="a", at=NOW)
    sessions.put_tokens([Token("a", "one", issued_at=NOW, expires_at=NOW + 2 * DAY)])
    assert application.rotate_token("a", "one", "two", at=NOW + DAY)
    assert sessions.tokens_of("a") == ["two"]
    assert item(users.TABLE, user_id="a")["last_active_day"] == {"S": days.day_of(NOW + DAY)}


def test_a_feed_skips_a_row_that_cannot_be_read(database: None) -> None:
    made = application.new_post("a", "Tea", post_id="p", at=NOW)
    posts.TABLE.put({"post_id": "q", "author_id": "a", "feed": posts.feed_of("q"), "feed_rank": made.feed_rank + 1.0})
    assert [one.post_id for one in posts.feed(10)] == ["p"]


def test_a_new_public_post_is_in_its_day_and_in_the_feed(database: None) -> None:
    made = application.new_post("a", "Tea at dawn #Café #tea \uff03tea #", at=NOW)
    assert made.hashtags == ("café", "tea")
    found = [
        i["post_id"]["S"]
        for bucket in days.buckets_of(days.day_of(NOW))
        for p in posts.made_on(bucket)
        for i in p.items
    ]
    assert found == [made.post_id]
    assert [one.post_id for one in posts.feed(10)] == [made.post_id]
    secret = application.new_post("a", "diary", visibility="private", at=NOW)
    assert [one.post_id for one in posts.feed(10)] == [made.post_id]
    application.set_visibility(secret.post_id, "public")
    application.set_visibility(made.post_id, "followers")
    assert [one.post_id for one in posts.feed(10)] == [secret.post_id]
    with pytest.raises(ValueError, match="exists"):
        application.new_post("a", "again", post_id=made.post_id)


def test_likes_and_comments_move_the_counters_and_mark_the_post(database: None) -> None:
    post = application.new_post("a", "hello", at=NOW)
    assert "moved" not in item(posts.TABLE, post_id=post.post_id)
    assert application.count(post.post_id, likes=2, views=5)
    assert application.count(post.post_id, likes=-1)
    assert not application.count(post.post_id, likes=-2), "a counter never falls below zero"
    said = application.comment(post.post_id, "b", "nice", at=NOW + 5)
    assert said is not None
    stored = posts.get(post.post_id)
    assert stored is not None
    assert stored.counters == Counters(likes=1, comments=1, views=5)
    assert item(posts.TABLE, post_id=post.post_id)["moved"] == {"S": posts.moved_of(post.post_id)}
    assert application.delete_comment(post.post_id, said.comment_id)
    assert not application.delete_comment(post.post_id, said.comment_id)
    stored = posts.get(post.post_id)
    assert stored is not None
    assert stored.counters.comments == 0
    assert ["deleted_at" in one for one in comments.items_of_post(post.post_id)] == [True]
    assert application.comment("no such post", "b", "hello?") is None
    assert comments.items_of_post("no such post") == [], "neither half of the transaction"
    assert not application.count("no such post", likes=1)


def test_following_and_blocking(database: None) -> None:
    assert application.follow("a", "b", at=NOW)
    assert not application.follow("a", "b", at=NOW + 1)
    assert not application.follow("a", "a")
    application.follow("b", "a", at=NOW)
    assert follows.followed_by("a") == ["b"]
    application.block("a", "b", at=NOW)
    assert (follows.followed_by("a"), follows.followed_by("b")) == ([], [])
    application.block("a", "b", at=NOW)
    for _ in range(2):
        application.unblock("a", "b")
        assert not blocks.has_blocked("a", "b")
    application.follow("a", "b")
    for _ in range(2):
        application.unfollow("a", "b")
        assert follows.followed_by("a") == []


def test_a_profile_changes_and_the_next_mail_goes_to_the_new_address(database: None) -> None:
    application.register("a@example.com", "A", user_id="a", at=NOW)
    users.suppress("a", "bounce")
    assert application.change_user("a", name="Ada", locale="fr", digest=False)
    stored = users.get("a")
    assert stored is not None
    assert (stored.name, stored.locale, stored.digest, stored.email) == ("Ada", "fr", False, "a@example.com")
    assert stored.suppressed == "bounce", "the address is the old one"
    assert application.change_user("a", email="A@example.com ", digest=True), "the same address, written otherwise"
    assert users.get("a") == replace(stored, digest=True)
    for _ in range(2):
        assert application.change_user("a", email="Ada@Example.org")
        assert users.get("a") == replace(stored, digest=True, email="ada@example.org", suppressed=None)
    assert (users.by_email("a@example.com"), users.by_email("ada@example.org")) == ([], ["a"])
    assert application.change_user("a"), "nothing given, nothing changed"
    assert not application.change_user("nobody", email="n@example.com")
    assert not application.change_user("nobody", name="N")
    assert not users.exists("nobody")


def test_an_edited_post_has_its_new_text_and_hashtags_and_keeps_its_counters_and_place(database: None) -> None:
    post = application.new_post("a", "one #tea", at=NOW)
    application.count(post.post_id, likes=2)
    for _ in range(2):
        assert application.edit_post(post.post_id, "two #Coffee", at=NOW + 5)
    stored = posts.get(post.post_id)
    assert stored is not None
    assert (stored.text, stored.hashtags, stored.counters.likes) == ("two #Coffee", ("coffee",), 2)
    assert item(posts.TABLE, post_id=post.post_id)["edited_at"] == {"N": str(NOW + 5)}
    pages = (page for bucket in days.buckets_of(days.day_of(NOW)) for page in posts.made_on(bucket))
    assert [one["hashtags"] for page in pages for one in page.items] == [{"L": [{"S": "coffee"}]}]
    assert [one.post_id for one in posts.feed(10)] == [post.post_id]
    assert not application.edit_post("no such post", "text")
    posts.TABLE.update(Write(post.post_id, set={"archived_as": "posts/x"}))
    assert not application.edit_post(post.post_id, "three"), "the archive would not take it along"
    assert not application.set_visibility(post.post_id, "private")


PAGE = "docs/web-application.md"
CALLS = {
    name
    for name, value in vars(application).items()
    if inspect.isfunction(value) and value.__module__ == application.__name__ and not name.startswith("_")
} - {"hashtags_of", "hashtags_in", "count_request"}  # these make no request
"""What a web application calls."""


def requests_on_page() -> dict[str, set[int]]:
    """The numbers of requests that the page gives for each call."""
    text = (Path(__file__).resolve().parents[3] / PAGE).read_text()
    found: dict[str, set[int]] = {}
    for line in text.partition("| call | requests |\n")[2].partition("\n\n")[0].splitlines()[1:]:
        names, numbers = line.strip("| ").split(" | ")
        transaction = numbers.endswith("and a transaction")
        for name in re.findall(r"\w+", names):
            found[name] = {int(number) + transaction for number in re.findall(r"\d+", numbers)}
    return found


def test_each_call_costs_the_requests_that_its_page_names(database: None) -> None:
    application.register("a@example.com", "A", user_id="a", at=NOW)
    post = application.new_post("a", "one", post_id="p", at=NOW)
    asked: list[str] = []
    called, on_page = set[str](), requests_on_page()
    calls: list[tuple[Any, int]] = [
        (lambda: application.change_user("a", name="Ada", email="b@example.com"), 1),
        (lambda: application.change_user("a", name="Ada", email="b@example.com"), 2),
        (lambda: application.change_user("a", locale="fr"), 1),
        (lambda: application.register("b@example.com", "B", user_id="b"), 1),
        (lambda: application.record_login("a", "t", session_id="s", at=NOW + DAY), 4),
        (lambda: application.record_activity("a", "s", at=NOW + 2 * DAY), 3),
        (lambda: application.record_activity("a", "s", at=NOW + 2 * DAY), 2),
        (lambda: application.rotate_token("a", "t", "u", at=NOW + 2 * DAY), 4),
        (lambda: application.rotate_token("a", "u", "v", at=NOW + 3 * DAY), 5),
        (lambda: application.is_signed_in("a", "s", at=NOW + 3 * DAY), 2),
        (lambda: application.sign_out("a", "s"), 4),
        (lambda: application.sign_out("a", "s"), 2),
        (lambda: application.new_post("a", "one"), 1),
        (lambda: application.edit_post(post.post_id, "two"), 1),
        (lambda: application.set_counters(post.post_id, likes=3), 1),
        (lambda: application.set_visibility(post.post_id, "private"), 1),
        (lambda: application.count(post.post_id, likes=1), 1),
        (lambda: application.comment(post.post_id, "b", "hm", comment_id="c"), 1),
        (lambda: application.edit_comment(post.post_id, "c", "hmm"), 1),
        (lambda: application.delete_comment(post.post_id, "c"), 1),
        (lambda: application.follow("a", "b"), 1),
        (lambda: application.unfollow("a", "b"), 1),
        (lambda: application.block("a", "b"), 3),
        (lambda: application.unblock("a", "b"), 1),
        (lambda: application.delete_post(post.post_id), 2),
        (lambda: application.delete_post(post.post_id), 1),
        (lambda: application.delete_post(post.post_id, author_id="a"), 2),
        (lambda: application.delete_user("a"), 2),
        (lambda: application.delete_user("a"), 1),
    ]
    with memory_backend() as tasks, sandboxes.requests(asked.append):
        for call, wanted in calls:
            asked.clear()
            call()
            name = call.__code__.co_names[1]
            assert len(asked) == wanted, f"{name}: {asked}"
            assert wanted in on_page.get(name, ()), f"{PAGE}, requests per call: {name} takes {wanted}"
            called.add(name)
    assert [args for _, args in tasks.calls] == [{"user_id": "a", "post_id": "p"}, {"user_id": "a"}]
    assert not (missing := CALLS - called), f"add to `calls` above, and to {PAGE}: {', '.join(sorted(missing))}"


def test_a_deletion_whose_task_cannot_be_sent_changes_nothing(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    application.register("a@example.com", "A", user_id="a", at=NOW)
    application.new_post("a", "one", post_id="p", at=NOW)

    def unreachable(*_: object, **__: object) -> None:
        raise SendFailed({"erase_user_data": "no answer"})

    with memory_backend() as tasks:
        monkeypatch.setattr(type(tasks.transport), "send", unreachable)
        with pytest.raises(SendFailed):
            application.delete_post("p")
        with pytest.raises(SendFailed):
            application.delete_user("a")
    assert users.get("a") is not None
    assert posts.get("p") is not None


# --- media -----------------------------------------------------------------------------------------------------------

READY = Media(
    status="ready",
    kind="image",
    width=640,
    height=480,
    placeholder="LEHV6nWB2yk8pyo0adR*.7kCMdnj",
    renditions={
        "w320": Rendition(key="media/p/h/w320.webp", width=320, height=240, bytes=9, content_type="image/webp")
    },
)


def test_media_of_an_older_event_does_not_overwrite_that_of_a_newer_one(database: None) -> None:
    post = application.new_post("a", "look", at=NOW)
    busy = Media(status="processing")
    assert posts.set_media(post.post_id, busy, "0055AED6DCD90281E5") is MediaOutcome.WRITTEN
    assert posts.set_media(post.post_id, READY, "0055AED6DCD90281E5") is MediaOutcome.WRITTEN, (
        "the same event continues"
    )
    assert posts.set_media(post.post_id, busy, "0055AED6DCD90281E4") is MediaOutcome.STALE
    assert posts.set_media(post.post_id, busy, "0055AED6DCD9028") is MediaOutcome.STALE, "shorter: zeros on its right"
    stored = posts.get(post.post_id)
    assert stored is not None
    assert stored.media == READY
    assert posts.set_media("no such post", READY, "1") is MediaOutcome.NO_POST


def test_a_post_that_is_being_archived_accepts_no_media(database: None) -> None:
    post = application.new_post("ada", "look")
    assert posts.TABLE.update(Write({"post_id": post.post_id}, set={"archived_as": "posts/x.json"}))
    assert posts.set_media(post.post_id, READY, "1") is MediaOutcome.NO_POST
    assert posts.TABLE.get({"post_id": post.post_id}, attributes=("media",)) == {}


# --- the top posts of a week -----------------------------------------------------------------------------------------


@given(data=st.data())
def test_the_logarithm_of_the_engagement_follows_from_the_rank(data: st.DataObject) -> None:
    score = data.draw(st.integers(0, 10**9))
    created_at = data.draw(st.integers(posts.FEED_EPOCH, 2_000_000_000))
    ranked = posts.Ranked("p", "a", created_at, posts.feed_rank(score, created_at))
    assert 10**ranked.log_engagement == pytest.approx(max(1, score), rel=1e-5)


def test_the_ranked_posts_of_a_week_are_its_public_ones(database: None) -> None:
    made = [Post(f"p{n:03}", "a", NOW - n * 6 * 3600, "x", counters=Counters(views=1)) for n in range(60)]
    made[3] = replace(made[3], visibility="private")
    posts.put_many(made, now=NOW)
    inside = {post.post_id for post in made if NOW - 7 * DAY <= post.created_at < NOW and post.visibility == "public"}
    pages = [page for shard in range(posts.FEED_SHARDS) for page in posts.ranked(shard, NOW - 7 * DAY, NOW)]
    assert {one.post_id for page in pages for one in page.posts} == inside
    assert [page.next_key for page in pages] == [None] * posts.FEED_SHARDS


@given(st.lists(st.integers(NOW, NOW + 10**6), min_size=2, max_size=20))
def test_ids_sort_by_the_time_they_were_made(times: list[int]) -> None:
    made = [new_key(at, entropy=n) for n, at in enumerate(sorted(times))]
    assert [key[:8] for key in made] == sorted(key[:8] for key in made)
    assert {len(key) for key in made} == {16}
