"""A project's models mirrored to the network: through the outbox and the real worker, on SQLite and PostgreSQL.

Whatever the order in which changes arrive, and whatever fails on the way, the network has in the end what the rows say.
"""

import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import django
import pytest
from django.contrib.auth.models import User
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection, connections, models, transaction
from django.db.models import Case, Count, F, Q, Value, When
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils import timezone

import social.django as mirrors
from dev.postgres import Server, temporary
from nexus.aws import sdk
from nexus.aws.dynamodb import Write
from nexus.django import conf
from nexus.django.models import Outbox
from nexus.errors import Reject, Retry
from nexus.registry import registry
from nexus.settings import another_stack, settings
from nexus.testing import Tasks, in_memory
from social import application, catalogue
from social.data import archive, blocks, comments, follows, hashtags, posts, sessions, users
from social.data.days import day_of
from social.data.posts import Counters, Media
from social.data.users import Counts
from social.django import filling, reading, signals
from social.django import tasks as mirroring
from social.django.models import Progress
from tests.support.django_project.models import (
    Comment,
    Device,
    Follow,
    Member,
    MemberByAnotherName,
    Person,
    Post,
    Refresh,
    Tag,
)

CATALOGUES = f"social.catalogue,{conf.CATALOGUE}"
MADE = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2040, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with temporary() as found:
        yield found


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.programs)])
def database(request: pytest.FixtureRequest) -> Iterator[None]:
    """The project's tables, empty."""
    before = connections.settings["default"].copy()
    if request.param == "postgresql":
        given = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres", "OPTIONS": {}}
        connections["default"].close()
        del connections["default"]
        connections.settings["default"].update(given, HOST=request.getfixturevalue("server").folder)
    try:
        call_command("migrate", run_syncdb=True, verbosity=0)
        call_command("flush", verbosity=0, interactive=False)
        yield
    finally:
        connections["default"].close()
        del connections["default"]
        connections.settings["default"].update(before)


@pytest.fixture
def network(database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tasks]:
    """The network's tables and queues in memory; what is sent is run by `deliver`."""
    monkeypatch.setenv("NEXUS_CATALOGUE", CATALOGUES)
    with in_memory() as tasks:
        registry.load(CATALOGUES.split(","))
        yield tasks


def deliver(network: Tasks, *, raising: bool = True) -> None:
    call_command("nexus_outbox", stdout=StringIO())
    network.drain(raising=raising)


def person(first: str, **fields: Any) -> Any:
    return Person.objects.create(email=f"{first}@example.com", first=first, **fields)


def differing() -> list[str]:
    """The differences between the network and the rows."""
    found = []
    people: dict[str, Any] = {str(one.pk): one for one in Person.objects.all()}
    articles = Post.objects.filter(draft=False).annotate(liked=Count("likers"))
    for user_id in map(str, range(1, 30)):
        there, row = users.get(user_id), people.get(user_id)
        wanted = None if row is None else (row.email.lower(), f"{row.first} {row.last}", row.wants_digest)
        if (None if there is None else (there.email, there.name, there.digest)) != wanted:
            found.append(f"user {user_id}: {there} for {wanted}")
        edges = set(map(str, Follow.objects.filter(follower=user_id).values_list("followed", flat=True)))
        if set(follows.followed_by(user_id)) != edges:
            found.append(f"{user_id} follows {follows.followed_by(user_id)} for {edges}")
    shown: dict[str, Any] = {str(one.pk): one for one in articles}
    for post_id in map(str, range(1, 30)):
        post, article = posts.get(post_id), shown.get(post_id)
        number = Comment.objects.filter(post=post_id).count()
        counters = None if article is None else Counters(article.liked, number, 0, article.views)
        shown_to = "followers" if article is not None and article.for_followers else "public"
        wanted_post = None if article is None else (article.words, shown_to, counters)
        if (None if post is None else (post.text, post.visibility, post.counters)) != wanted_post:
            found.append(f"post {post_id}: {post} for {wanted_post}")
        if article is not None:
            items = comments.items_of_post(post_id)
            texts = {item["comment_id"]["S"]: item["text"]["S"] for item in items if "deleted_at" not in item}
            if texts != {str(one.pk): one.words for one in Comment.objects.filter(post=post_id)}:
                found.append(f"comments of {post_id}: {texts}")
    return found


# --- what is mirrored ---


def test_every_kind_of_row_becomes_what_the_jobs_read(network: Tasks) -> None:
    seen = timezone.now() - timedelta(days=3)
    ada, bob = person("Ada", last="L", wants_digest=False, seen=seen), person("Bob")
    Follow.objects.create(follower=ada, followed=bob)
    post = Post.objects.create(author=ada, words="From the #train", for_followers=True, views=7, picture=b"x" * 100)
    Comment.objects.create(post=post, author=bob, words="Nice")
    post.likers.add(bob)
    bob.blocks.add(ada)
    device = Device.objects.create(owner=ada, until=LATER)
    Refresh.objects.create(owner=ada, jti="jti-1", until=LATER)
    deliver(network)

    found = users.get(str(ada.pk))
    assert found is not None
    assert (found.email, found.name, found.digest) == ("ada@example.com", "Ada L", False)
    assert found.last_active_day == day_of(seen.timestamp())
    there = posts.get(str(post.pk))
    assert there is not None
    assert (there.author_id, there.hashtags, there.visibility) == (str(ada.pk), ("train",), "followers")
    assert there.counters == Counters(likes=1, comments=1, views=7)
    assert there.created_at == int(post.made.timestamp())
    assert [item["text"] for item in comments.items_of_post(str(post.pk))] == [{"S": "Nice"}]
    assert follows.followed_by(str(ada.pk)) == [str(bob.pk)]
    assert blocks.has_blocked(str(bob.pk), str(ada.pk))
    session = sessions.session(str(ada.pk), str(device.pk), 0)
    assert session is not None
    assert session.expires_at == LATER.timestamp()
    assert sessions.tokens_of(str(ada.pk)) == ["jti-1"]
    assert differing() == []

    Device.objects.all().delete()
    Refresh.objects.all().delete()
    bob.blocks.clear()
    Follow.objects.all().delete()
    deliver(network)
    assert sessions.sessions_of(str(ada.pk)) == sessions.tokens_of(str(ada.pk)) == []
    assert not blocks.has_blocked(str(bob.pk), str(ada.pk))
    assert differing() == []


def test_a_change_of_a_row_keeps_what_the_jobs_have_written(network: Tasks) -> None:
    ada = person("Ada")
    post = Post.objects.create(author=ada, words="Hello")
    deliver(network)
    users.set_counts([Counts("1", 5, 6, 7, 100)])
    posts.set_media("1", Media(status="ready", width=3), "0A")
    assert application.count("1", shares=4)

    ada.first, post.words = "Augusta", "Hello #again"
    ada.save()
    post.save()
    deliver(network)

    found, there = users.get("1"), posts.get("1")
    assert found is not None
    assert there is not None
    assert (found.name, found.followers_count) == ("Augusta ", 5)
    assert (there.text, there.hashtags, there.counters.shares) == ("Hello #again", ("again",), 4)
    assert there.media is not None


def test_a_deleted_user_is_erased_with_all_related_rows(network: Tasks) -> None:
    ada, bob = person("Ada"), person("Bob")
    post = Post.objects.create(author=bob, words="Hello")
    Comment.objects.create(post=post, author=ada, words="Hi")
    Follow.objects.create(follower=ada, followed=bob)
    deliver(network)
    ada.delete()
    deliver(network)
    network.assert_sent(catalogue.erase_user_data, user_id="1")
    assert users.get("1") is None
    assert differing() == []


def test_a_row_that_stops_matching_is_deleted_and_restored_when_it_matches(network: Tasks) -> None:
    post = Post.objects.create(author=person("Ada"), words="Hello", draft=True)
    deliver(network)
    assert posts.get("1") is None
    post.draft = False
    post.save()
    deliver(network)
    assert posts.get("1") is not None
    post.draft = True
    post.save()
    deliver(network)
    assert posts.get("1") is None
    assert differing() == []


def test_a_comment_whose_row_returns_is_shown_again(network: Tasks) -> None:
    ada = person("Ada")
    post = Post.objects.create(author=ada, words="Hello")
    for _ in range(2):
        comment = Comment.objects.create(pk=7, post=post, author=ada, words="Hi")
        deliver(network)
        assert differing() == []
        comment.delete()
        deliver(network)
        assert differing() == []


def test_a_name_that_becomes_null_is_removed_and_a_null_wish_for_mail_changes_nothing(
    network: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = mirrors.conf.mirrors()["users"].fields
    unless_gone = {
        name: Case(When(last="gone", then=Value(None)), default=name_in_row)
        for name, name_in_row in (("name", "first"), ("digest", "wants_digest"))
    }
    for name, source in unless_gone.items():
        monkeypatch.setitem(fields, name, source)
    ada = person("Ada", wants_digest=False)
    deliver(network)
    ada.last = "gone"
    ada.save()
    deliver(network)
    found = users.get("1")
    assert found is not None
    assert (found.name, found.digest) == ("", False)


@pytest.mark.parametrize("filled", [False, True], ids=["mirrored", "filled"])
def test_a_post_whose_visibility_is_null_is_private(
    network: Tasks, monkeypatch: pytest.MonkeyPatch, filled: bool
) -> None:
    unless_draft = Case(When(words="Nobody knows", then=Value(None)), default=Value("public"))
    monkeypatch.setitem(mirrors.conf.mirrors()["posts"].fields, "visibility", unless_draft)
    ada = person("Ada")
    Post.objects.create(author=ada, words="Nobody knows")
    changed = Post.objects.create(author=ada, words="Hello")
    if filled:
        backfill("posts")
    else:
        deliver(network)
    assert [posts.get(key).visibility for key in ("1", "2")] == ["private", "public"]  # type: ignore[union-attr]
    changed.words = "Nobody knows"
    changed.save()
    deliver(network)
    assert posts.get("2").visibility == "private"  # type: ignore[union-attr]


@pytest.mark.parametrize("filled", [False, True], ids=["mirrored", "filled"])
def test_a_users_follow_of_themselves_is_not_written(network: Tasks, filled: bool) -> None:
    ada, bob = person("Ada"), person("Bob")
    for followed in (ada, bob):
        Follow.objects.create(follower=ada, followed=followed)
    if filled:
        backfill("follows")
    else:
        deliver(network)
    assert follows.followed_by(str(ada.pk)) == [str(bob.pk)]


@pytest.mark.parametrize("reason", ["away", "bounce"])
def test_a_suppression_ends_with_the_rows_unless_a_bounce_is_its_reason(
    network: Tasks, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    away = Case(When(last="away", then=Value("away")))
    monkeypatch.setitem(mirrors.conf.mirrors()["users"].fields, "suppressed", away)
    ada = person("Ada", last="away" if reason == "away" else "Lovelace")
    deliver(network)
    users.suppress("1", reason)
    ada.last = "Byron"
    ada.save()
    deliver(network)
    found = users.get("1")
    assert found is not None
    assert found.suppressed == (None if reason == "away" else "bounce")


def archived(network: Tasks, post: Any) -> None:
    """Moves a mirrored post to the archive, as cleanup_old_posts does."""
    deliver(network)
    (item,) = posts.in_full([str(post.pk)])
    archive.write("2026-01-12", [archive.ArchivedPost(item)], 1_800_000_000)
    posts.TABLE.delete({"post_id": str(post.pk)})


def hidden_softly(post: Any) -> None:
    post.draft = True
    post.save()


@pytest.mark.parametrize(
    "delete",
    [
        lambda post: post.delete(),
        lambda post: Post.objects.all().delete(),
        hidden_softly,
        lambda post: (mirrors.mirrored(Post.objects.all()), Post.objects.all()._raw_delete("default")),
    ],
)
def test_an_archived_post_is_erased_when_its_row_is_deleted(network: Tasks, delete: Any) -> None:
    post = Post.objects.create(author=person("Ada"), words="Hello")
    archived(network, post)
    assert archive.find(["1"])
    delete(post)
    deliver(network)
    network.assert_sent(catalogue.erase_user_data, user_id="1", post_id="1")
    assert not archive.find(["1"])


def test_a_row_that_was_never_mirrored_or_archived_erases_nothing(network: Tasks) -> None:
    ada = person("Ada")
    archived(network, Post.objects.create(author=ada, words="archived"))
    draft = Post.objects.create(author=ada, words="Hello", draft=True)
    draft.save()
    draft.delete()
    deliver(network)
    network.assert_not_sent(catalogue.erase_user_data)
    assert archive.find(["1"])


def test_the_author_is_sent_with_a_posts_key_if_the_row_has_it(network: Tasks) -> None:
    post = Post.objects.create(author=person("Ada"), words="Hello")
    by_author = mirrors.Posts("project.Post", author_id="author", created_at="made")
    by_path = mirrors.Posts("project.Post", author_id="author__email", created_at="made")
    assert by_author.sent_of(post) == ("1", "1")
    assert by_path.sent_of(post) == ("1",)
    Post.objects.only("pk").get().delete()  # the author is not loaded, and after the deletion cannot be
    deliver(network)
    assert posts.get("1") is None


# --- order, failures, races ---


def change(chance: random.Random, people: list[Any], step: int) -> None:
    """One random change by a user."""
    ada, bob = chance.sample(people, 2)
    there = list(Post.objects.order_by("pk"))
    post: Any = chance.choice(there) if there else Post.objects.create(author=ada, words=f"words #{step}")
    match chance.randrange(8):
        case 0:
            ada.last, ada.wants_digest = f"number {step}", not ada.wants_digest
            ada.save()
        case 1:
            Post.objects.create(author=ada, words=f"words #{step}")
        case 2:
            post.words, post.for_followers, post.draft = f"other {step}", step % 2 == 0, step % 5 == 0
            post.save()
        case 3:
            Comment.objects.filter(post=post).delete() if step % 3 else post.delete()
        case 4:
            Follow.objects.get_or_create(follower=ada, followed=bob)
        case 5:
            Follow.objects.filter(follower=ada).delete()
        case 6:
            Comment.objects.create(post=post, author=ada, words=f"comment {step}")
        case _:
            post.likers.set(chance.sample(people, chance.randrange(4)))


@pytest.mark.parametrize("seed", range(6))
def test_messages_delivered_in_any_order_and_twice_leave_what_the_rows_say(network: Tasks, seed: int) -> None:
    chance = random.Random(seed)
    people = [person(name) for name in ("Ada", "Bob", "Cy")]
    letters = list[str]()
    for step in range(25):
        change(chance, people, step)
        if step % 5 == 0:  # some are delivered before the next change, some after it
            letters += Outbox.objects.values_list("args", flat=True)
            deliver(network)
    letters += Outbox.objects.values_list("args", flat=True)
    Outbox.objects.all().delete()
    for letter in chance.sample(letters, len(letters)) + letters[:10]:
        kind, keys = json.loads(letter)["args"]
        mirroring.mirror.enqueue(kind, keys)
    network.drain()
    assert differing() == []


def test_a_write_that_a_later_change_overtook_is_made_again(network: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    post = Post.objects.create(author=person("Ada"), words="first")
    deliver(network)
    post.words = "second"
    post.save()
    edit, seen = application.edit_post, list[str]()

    def overtaken(post_id: str, text: str, **options: Any) -> bool:
        seen.append(text)
        if len(seen) == 1:  # between this run's reading and its writing, a later change is written by another run
            Post.objects.filter(pk=post_id).update(words="third")
            edit(post_id, "third")
        return edit(post_id, text, **options)

    monkeypatch.setattr(application, "edit_post", overtaken)
    deliver(network)
    assert seen == ["second", "third"]
    assert differing() == []


def test_a_dual_write_that_fails_repairs_itself(network: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    failing, get = [True] * 3, users.get

    def sometimes(user_id: str, **options: Any) -> Any:
        if failing:
            failing.pop()
            raise OSError("DynamoDB cannot be reached")
        return get(user_id, **options)

    monkeypatch.setattr(users, "get", sometimes)
    person("Ada")
    with network.sends_failing(), pytest.raises(CommandError, match="cannot be reached"):
        call_command("nexus_outbox", stdout=StringIO())
    assert Outbox.objects.count() == 1
    deliver(network)
    assert failing == []
    assert differing() == []


def test_a_row_and_its_message_are_saved_in_one_transaction_without_atomic_too(
    network: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "add", full)
        with pytest.raises(OSError, match="the disk is full"):
            person("Ada")
    assert not Person.objects.exists()
    with transaction.atomic():
        person("Bob")
        transaction.set_rollback(True)
    assert not Outbox.objects.exists()


def test_an_invalid_row_is_a_dead_letter_with_the_reason_and_other_rows_are_written(network: Tasks) -> None:
    with transaction.atomic():
        people = Person.objects.bulk_create([Person(first="A", email="none"), Person(first="B", email="b@example.com")])
        assert mirrors.mirrored(people) == 2
    deliver(network, raising=False)
    ((_, letter),) = network.dead_letters
    assert letter.attributes["ErrorType"] == "Reject"
    assert "project.Person 1: email" in letter.attributes["ErrorMessage"]
    assert users.get("2") is not None


def test_rows_of_a_bulk_creation_that_leaves_out_their_keys_are_refused(network: Tasks) -> None:
    people = Person.objects.bulk_create([Person(first="A", email="a@example.com")], ignore_conflicts=True)
    with pytest.raises(ValueError, match=r"project\.Person: a row has no primary key"):
        mirrors.mirrored(people)
    assert mirrors.mirrored(Person.objects.all()) == 1


def test_a_row_that_cannot_be_written_now_holds_up_no_other(network: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, seen, refused = mirrors.conf.mirrors()["users"], list[Any](), [True]
    sync = mirror.sync

    def later(key: Any) -> None:
        seen.append(key)
        if key == ("1",) and refused:
            refused.pop()
            raise Retry("it is being archived", after=60.0)
        sync(key)

    monkeypatch.setattr(mirror, "sync", later)
    with transaction.atomic():
        people = Person.objects.bulk_create([Person(first=name, email=f"{name}@example.com") for name in "AB"])
        mirrors.mirrored(people)
    deliver(network)
    assert seen == [("1",), ("2",)] * 2
    assert users.get("1") is not None


def test_a_comment_or_like_that_arrives_before_its_post_mirrors_the_post(network: Tasks) -> None:
    post = Post.objects.create(author=person("Ada"), words="Hello")
    Outbox.objects.all().delete()
    Comment.objects.create(post=post, author=post.author, words="Hi")
    deliver(network)
    assert posts.get("1") is not None
    posts.TABLE.delete({"post_id": "1"})  # as when it was archived
    post.likers.add(post.author)
    Outbox.objects.filter(args__contains="comments").delete()
    deliver(network)
    there = posts.get("1")
    assert there is not None
    assert there.counters == Counters(likes=1, comments=1)


def test_several_deleted_comments_are_all_removed(network: Tasks) -> None:
    ada = person("Ada")
    post = Post.objects.create(author=ada, words="Hello")
    for n in range(3):
        Comment.objects.create(post=post, author=ada, words=str(n))
    deliver(network)
    Comment.objects.all().delete()
    deliver(network)  # the first message sets the post's count to the number of its rows: none
    assert differing() == []


def test_a_post_that_is_being_archived_is_retried_until_it_is_archived(network: Tasks) -> None:
    post = Post.objects.create(author=person("Ada"), words="Hello")
    deliver(network)
    posts.TABLE.update(Write("1", set={"archived_as": "archive/object"}))
    post.words = "Hello again"
    post.save()
    call_command("nexus_outbox", stdout=StringIO())
    network.advance(timedelta(seconds=30))
    posts.TABLE.delete({"post_id": "1"})
    network.drain()
    found = posts.get("1")
    assert found is not None
    assert found.text == "Hello again"


def test_a_moved_edge_leaves_nothing_behind(network: Tasks) -> None:
    ada, bob, cy = person("Ada"), person("Bob"), person("Cy")
    follow = Follow.objects.create(follower=ada, followed=bob)
    deliver(network)
    follow.followed = cy
    follow.save()
    deliver(network)
    assert differing() == []


def test_an_edge_that_the_database_moves_leaves_nothing_behind(network: Tasks) -> None:
    ada, bob, _ = person("Ada"), person("Bob"), person("Cy")
    edge: Any = Follow.objects.create(follower=ada, followed=bob)
    deliver(network)
    edge.followed_id = F("followed_id") + 1
    edge.save()
    deliver(network)
    assert differing() == []


def test_an_edge_that_is_saved_over_another_by_its_key_leaves_nothing_of_that(network: Tasks) -> None:
    ada, bob, cy = person("Ada"), person("Bob"), person("Cy")
    edge = Follow.objects.create(follower=ada, followed=bob)
    deliver(network)
    Follow(pk=edge.pk, follower=bob, followed=cy).save()
    deliver(network)
    assert differing() == []


def test_a_many_to_many_field_is_mirrored_from_both_ends(network: Tasks) -> None:
    ada, bob = person("Ada"), person("Bob")
    one, two = (Post.objects.create(author=ada, words=str(n)) for n in range(2))
    for edit in (
        lambda: bob.liked.set([one, two]),
        lambda: ada.liked.add(one),
        lambda: one.likers.remove(bob),
        bob.liked.clear,
        lambda: one.likers.set([ada, bob]),
        one.likers.clear,
        lambda: two.likers.set([ada, bob]),
        lambda: ada.blocked_by.add(bob),
    ):
        edit()
        deliver(network)
        assert differing() == []
    assert blocks.has_blocked("2", "1")
    bob.delete()
    deliver(network)
    assert differing() == []
    assert not blocks.has_blocked("2", "1")


# --- changes without signals, and existing rows ---


class ReadingFromAReplica:
    """Reads the project's rows from the database that refuses writes."""

    def db_for_read(self, model: Any, **_: Any) -> str | None:
        return "replica" if model._meta.app_label == "project" else None

    def db_for_write(self, model: Any, **_: Any) -> str | None:
        return "default" if model._meta.app_label == "project" else None


@pytest.fixture(params=["project.Member", "project.MemberByAnotherName"])
def members(request: pytest.FixtureRequest, network: Tasks, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tasks]:
    """Members in place of people: with a UUID, a symmetrical many-to-many field, and a proxy class."""
    found: list[Any] = [
        mirrors.Users(request.param, email="email", created_at="made"),
        mirrors.Follows("project.Member_friends", follower_id="from_member", followed_id="to_member"),
    ]
    monkeypatch.setattr(mirrors.conf, "mirrors", lambda: {mirror.kind: mirror for mirror in found})
    kept = [(signal, signal.receivers[:]) for signal in (pre_save, post_save, pre_delete, post_delete, m2m_changed)]
    signals.connect()
    yield network
    for signal, receivers in kept:
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


def member(name: str) -> Any:
    return Member.objects.create(email=f"{name}@example.com")


def friends(one: Any) -> set[str]:
    """The friends of a member in the network."""
    return set(follows.followed_by(str(one.pk)))


def test_both_rows_of_a_symmetrical_field_are_mirrored(members: Tasks) -> None:
    ada, bob, cy = map(member, ("ada", "bob", "cy"))
    ada.friends.add(bob, cy)
    deliver(members)
    assert [friends(one) for one in (ada, bob, cy)] == [{str(bob.pk), str(cy.pk)}, {str(ada.pk)}, {str(ada.pk)}]
    bob.friends.remove(ada)
    deliver(members)
    assert [friends(one) for one in (ada, bob, cy)] == [{str(cy.pk)}, set(), {str(ada.pk)}]
    cy.friends.clear()
    deliver(members)
    assert [friends(one) for one in (ada, bob, cy)] == [set(), set(), set()]


@pytest.mark.parametrize("model", [Member, MemberByAnotherName])
def test_a_user_deleted_through_a_proxy_or_parent_model_leaves_nothing(members: Tasks, model: Any) -> None:
    ada, bob = map(member, ("ada", "bob"))
    ada.friends.add(bob)
    deliver(members)
    assert friends(bob) == {str(ada.pk)}
    model.objects.get(pk=ada.pk).delete()
    deliver(members)
    assert users.get(str(ada.pk)) is None
    assert friends(bob) == friends(ada) == set()


def test_an_id_that_is_given_as_text_is_the_same_id(members: Tasks) -> None:
    ada = Member.objects.create(id=uuid.uuid4().hex, email="ada@example.com")
    user_id = str(uuid.UUID(ada.id))
    deliver(members)
    assert users.get(user_id) is not None
    ada.delete()
    deliver(members)
    members.assert_sent(catalogue.erase_user_data, user_id=user_id)
    assert users.get(user_id) is None


def test_no_message_has_more_than_the_maximum_of_rows(members: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "KEYS", 3)
    ada, *others = map(member, ("ada", "bob", "cy", "dan", "eve", "fay"))
    ada.friends.add(*others)
    deliver(members)
    assert len(friends(ada)) == 5
    ada.delete()
    numbers = [len(json.loads(args)["args"][1]) for args in Outbox.objects.values_list("args", flat=True)]
    assert max(numbers) == 3
    deliver(members)
    assert [friends(one) for one in (ada, *others)] == [set()] * 6


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # the settings' replica is a read-only SQLite file
def test_rows_read_from_a_replica_are_sent_in_the_transaction_of_the_primary(network: Tasks) -> None:
    person("Ada")
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.ReadingFromAReplica"]), transaction.atomic():
        replicated = Person.objects.get()
        assert replicated._state.db == "replica"
        Outbox.objects.all().delete()
        assert mirrors.mirrored([replicated]) == 1
        Person.objects.update(first="Ida")
        assert mirrors.mirrored(Person.objects.all()) == 1
        assert Outbox.objects.using("default").count() == 2
    connections["replica"].close()


def test_changes_without_signals_are_mirrored_when_they_are_named(network: Tasks) -> None:
    ada = person("Ada")
    with transaction.atomic():
        made = Post.objects.bulk_create([Post(author=ada, words=str(n)) for n in range(250)])
        assert mirrors.mirrored(made) == 250
    assert Outbox.objects.count() == 1 + 3
    deliver(network)
    assert len(list(posts.get_many([str(post.pk) for post in made]))) == 250

    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        Post.objects.filter(pk__lte=20).update(words=F("pk"), for_followers=True)
        assert mirrors.mirrored(Post.objects.filter(pk__lte=20)) == 20
    assert not any("picture" in query["sql"] for query in queries.captured_queries)
    deliver(network)
    assert differing() == []
    assert mirrors.mirrored([]) == 0
    with pytest.raises(LookupError, match=r"project\.Tag has no mirror"):
        mirrors.mirrored(Tag.objects.all())


@pytest.fixture
def unseen(network: Tasks, monkeypatch: pytest.MonkeyPatch) -> Tasks:
    """Rows from before the mirrors, and pages of ten."""
    monkeypatch.setattr(filling, "PAGE", 10)
    monkeypatch.setattr(signals, "send", lambda *_: None)
    people = [person(f"p{n}") for n in range(25)]
    for n, one in enumerate(people):
        Follow.objects.create(follower=one, followed=people[n - 1])
        post = Post.objects.create(author=one, words=f"#{n} words", picture=bytes(1000))
        post.likers.add(*people[: n % 3])
        Comment.objects.create(post=post, author=one, words="Hi")
    monkeypatch.undo()
    monkeypatch.setenv("NEXUS_CATALOGUE", CATALOGUES)
    monkeypatch.setattr(filling, "PAGE", 10)
    return network


def backfill(*words: str) -> str:
    out = StringIO()
    call_command("social_backfill", *words, stdout=out, stderr=out)
    return out.getvalue()


def test_a_backfill_mirrors_existing_rows_page_by_page_without_reading_pictures(unseen: Tasks) -> None:
    with CaptureQueriesContext(connection) as queries:
        said = backfill()
    assert "users: 25 rows done, 0 faulty\n" in said
    assert "likes: 24 rows done, 0 faulty\n" in said
    assert differing() == []
    assert not any("picture" in query["sql"] for query in queries.captured_queries)
    assert not Progress.objects.exists()
    assert len(queries) < 250
    with pytest.raises(CommandError, match="no mirror of colours"):
        backfill("colours")


def test_a_backfill_that_was_killed_continues_after_its_last_page(
    unseen: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, written = mirrors.conf.mirrors()["posts"], list[str]()
    put = type(mirror).put

    def killed(self: Any, rows: Any) -> None:
        written.extend(row.post_id for row in rows)
        put(self, rows)
        if len(written) == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(type(mirror), "put", killed)
    with pytest.raises(KeyboardInterrupt):
        backfill("posts")
    assert Progress.objects.get().rows == 10
    said = backfill("posts")
    assert "posts: continues an interrupted run after 10 rows" in said
    assert "posts: 25 rows done" in said
    assert "continues" not in backfill("posts")
    assert len(written) == 35 + 25, "the page that was not known to be done comes again, and no other"
    backfill()
    assert differing() == []


def test_rows_that_change_during_a_backfill_are_mirrored_as_they_are_afterwards(
    unseen: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = mirrors.conf.mirrors()["posts"]
    put = type(mirror).put

    def meanwhile(self: Any, rows: Any) -> None:
        if rows[0].post_id == "1":
            Post.objects.filter(pk=3).update(words="changed")
            Comment.objects.filter(post=4).delete()
            Post.objects.filter(pk=4).delete()
        put(self, rows)

    monkeypatch.setattr(type(mirror), "put", meanwhile)
    backfill()
    unseen.drain()
    Outbox.objects.all().delete()  # what the signals would repair, the backfill has repaired itself
    assert differing() == []


def test_invalid_rows_are_counted_and_left_out_of_a_backfill(unseen: Tasks) -> None:
    Person.objects.filter(pk=2).update(email="none")
    with pytest.raises(CommandError, match="1 rows are invalid"):
        backfill("users")
    assert users.get("2") is None
    assert users.get("25") is not None


@pytest.mark.parametrize("year", [1969, 2100])
def test_a_follow_with_an_implausible_time_is_counted_as_invalid(
    unseen: Tasks, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    mirror = mirrors.conf.mirrors()["follows"]
    when = Case(
        When(pk=Follow.objects.earliest("pk").pk, then=Value(datetime(year, 1, 1, tzinfo=UTC))), default=Value(MADE)
    )
    monkeypatch.setitem(mirror.fields, "created_at", when)
    with pytest.raises(CommandError, match="1 rows are invalid"):
        backfill("follows")
    assert sum(len(page.items) for page in follows.TABLE.scan()) == 24


def test_a_backfill_since_a_time_mirrors_changes_without_signals(unseen: Tasks) -> None:
    backfill()
    before = timezone.now()
    Post.objects.filter(pk__in=[2, 3]).update(words="changed", saved=before + timedelta(seconds=1))
    assert "posts: 2 rows done" in backfill("posts", "--since", before.isoformat())
    assert differing() == []
    with pytest.raises(CommandError, match="follows: --since needs a mirror with changed_at"):
        backfill("follows", "--since", "2026-01-01")
    Person.objects.filter(pk=1).update(first="Changed")
    backfill("users")
    assert differing() != []
    backfill("users", "--again")
    assert differing() == []


# --- reading back ---


def test_results_of_the_jobs_are_copied_into_models_in_few_requests(
    network: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [person(f"p{n}") for n in range(150)]
    Post.objects.create(author=people[0], words="Hello")
    deliver(network)
    users.set_counts([Counts(str(one.pk), one.pk, 0, 0, 100) for one in people])
    posts.set_media("1", Media(status="ready", width=3), "0A")
    posts.TABLE.update(Write("1", set={"engagement_score": 12}))
    hashtags.set_trending(hashtags.Trend("new", 5, 50), 1000)
    Tag.objects.create(name="old", score=9, uses=9)
    asked = list[str]()
    dynamodb = sdk.client("dynamodb")
    dynamodb.meta.events.register("before-parameter-build.dynamodb", lambda model, **_: asked.append(model.name))

    out = StringIO()
    call_command("social_read_back", stdout=out)

    assert out.getvalue().splitlines() == [
        "project.Person: 150 rows changed", "project.Post: 1 rows changed", "project.Tag: 2 rows changed"
    ]  # fmt: skip
    assert sorted(asked) == ["BatchGetItem"] * 3 + ["Query"]
    assert Person.objects.filter(followers_count=F("pk")).count() == 150
    post = Post.objects.get()
    assert (post.score, post.media) == (12, {"status": "ready", "width": 3, "renditions": {}})
    assert dict(Tag.objects.values_list("name", "score")) == {"old": 0, "new": 50}
    assert not Outbox.objects.exists(), "reading back mirrors nothing"
    call_command("social_read_back", stdout=StringIO())

    page: list[Any] = mirrors.attach(Post.objects.all(), "users", by="author_id", to="who")
    assert page[0].who.followers_count == people[0].pk
    mirrors.attach(page, "posts")
    assert page[0].network.engagement_score == 12
    assert vars(mirrors.attach([Post(pk=99)], "posts")[0])["network"] is None


# --- mapping and settings ---


def test_valid_mirrors_pass_the_checks() -> None:
    assert checks.run_checks() == []


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (lambda: mirrors.Follows("project.Follow", follower_id="nobody", followed_id="followed"), "social.E001"),
        (lambda: mirrors.Follows("project.Follow", follower_id=F("follower"), followed_id="followed"), "social.E001"),
        (lambda: mirrors.Likes("project.Post_likers", post_id="post", where=Q(colour=1)), "social.E001"),
        (lambda: mirrors.Users("project.Pair", email="one__email", created_at="one__made"), "social.E001"),
        (lambda: mirrors.Likes("project.Post_likers", post_id="post", changed_at="never"), "social.E002"),
        (lambda: mirrors.UserCounts("project.Person", "pk", posts_count="nothing"), "social.E003"),
    ],
)
def test_a_wrong_mapping_is_found_at_start_up(made: Any, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = made()
    if isinstance(wrong, reading.ReadBack):
        monkeypatch.setattr(mirrors.conf, "read_backs", lambda: [wrong])
    else:
        monkeypatch.setattr(mirrors.conf, "mirrors", lambda: {wrong.kind: wrong})
    assert code in [found.id for found in checks.run_checks()]


def test_a_replaced_user_model_is_found_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = mirrors.Users("auth.User", email="email", created_at="date_joined")
    monkeypatch.setattr(mirrors.conf, "mirrors", lambda: {wrong.kind: wrong})
    assert checks.run_checks() == []
    monkeypatch.setattr(User._meta, "swappable", "ANOTHER_USER_MODEL")
    with override_settings(ANOTHER_USER_MODEL="project.Person"):
        (found,) = [one for one in checks.run_checks() if one.id == "social.E006"]
    assert found.msg == "users: auth.User has no rows: project.Person has taken its place"


@pytest.mark.skipif(django.VERSION < (6, 1), reason="Django has it from 6.1 on")
def test_a_deletion_by_the_database_is_found_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    author = Comment._meta.get_field("author").remote_field
    monkeypatch.setattr(author, "on_delete", models.DB_CASCADE)
    assert [found.msg for found in checks.run_checks() if found.id == "social.W001"] == [
        "comments: the database deletes or changes project.Comment by author, without a signal"
    ]


def test_the_checks_report_that_the_mirrors_task_is_not_served() -> None:
    with override_settings(NEXUS={"STACK": "test", "MODULES": ["tests.support.django_project.tasks"]}):
        assert "social.E005" in [found.id for found in checks.run_checks()]
    for wrong in (None, {}, {"MIRRORS": "x", "COLOUR": "red"}):
        with override_settings(SOCIAL=wrong), pytest.raises(ImproperlyConfigured, match="SOCIAL must be"):
            mirrors.conf.given()


def test_an_unknown_or_missing_field_of_a_mirror_is_refused_in_its_declaration() -> None:
    with pytest.raises(TypeError, match=r"Posts of project\.Post has no colour"):
        mirrors.Posts("project.Post", author_id="author", created_at="made", colour="red")
    with pytest.raises(TypeError, match=r"Posts of project\.Post lacks author_id, created_at"):
        mirrors.Posts("project.Post", text="words")
    with pytest.raises(TypeError, match=r"UserCounts of project\.Person has no score"):
        mirrors.UserCounts("project.Person", "pk", score="score")


def test_a_kind_without_a_mirror_is_a_dead_letter(network: Tasks) -> None:
    with pytest.raises(Reject, match="colours"):
        mirroring.mirror.call("colours", [["1"]])


def test_the_function_serves_only_the_projects_tasks_although_it_knows_the_networks(
    environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUS_CATALOGUE", conf.CATALOGUE)
    settings.cache_clear()
    served = registry.served_by("default")
    assert mirroring.mirror.module_path in served
    assert catalogue.send_notification.name not in served
    assert "analytics" not in registry.queues()


def test_the_networks_tables_are_used_only_within_its_block(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_STACK", "project")
    settings.cache_clear()
    assert posts.TABLE.name == "project-posts"
    with mirrors.network():
        assert posts.TABLE.name == "nexus-test-posts"
        with another_stack("third"):
            assert settings().queue_name("users") == "third-users"
        assert settings().catalogue == ()
    assert posts.TABLE.name == "project-posts"
