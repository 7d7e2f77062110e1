"""erase_user_data: a user's data stays only where the report says, and counts stay correct."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

import cleanup_old_posts
import erase_user_data as job
import generate_content_analytics
import update_post_engagement_scores
import update_trending_hashtags
import update_user_statistics
from nexus.aws.dynamodb import Row, Write, from_item
from nexus.aws.table import Table
from nexus.errors import InvalidMessage, Reject
from nexus.settings import settings
from nexus.testing import SandboxDied, SentTasks, memory_backend, run_task
from social import application, catalogue
from social.catalogue import KEPT_AFTER_ERASURE
from social.data import (
    analytics,
    archive,
    comments,
    follows,
    hashtags,
    mail_ledger,
    notifications,
    objects,
    posts,
    users,
)
from social.data.comments import Comment
from social.data.days import DAY_SECONDS, HOUR_SECONDS, add_days, day_of
from social.data.notifications import Notification
from social.data.posts import Counters, Media, Post
from tests.support.sandboxes import Queue, requests, small_pages
from tests.support.template import STACK, resolved, resources
from tests.unit.jobs.conftest import NOW

GONE, STAYS = "gone-user-7f3", "stays-user"
ADDRESS, NAME, WORDS = "zebedee@example.org", "Zebedee Quillfeather", "marmalade"
TRACES = (GONE, ADDRESS, NAME, WORDS)
OLD = NOW - 368 * DAY_SECONDS
YESTERDAY = add_days(day_of(NOW), -1)


@pytest.fixture(autouse=True)
def sent(empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[SentTasks]:
    for module in (job, archive):  # moto's tables must not be changed by one thread while another reads
        monkeypatch.setattr(module, "THREADS", 1)
    with memory_backend() as tasks:
        yield tasks


def stores() -> Iterator[tuple[str, str]]:
    """(where, text) of every item of every table and every version of every object that template.yaml declares.

    Without the partial sums that KEPT_AFTER_ERASURE names.
    """
    for body in resources("AWS::DynamoDB::Table").values():
        name = resolved(body["Properties"])["TableName"]
        for page in boto3.client("dynamodb").get_paginator("scan").paginate(TableName=name):
            for item in page["Items"]:
                if not item.get("kind", {}).get("S", "").startswith("part#"):
                    yield name.removeprefix(f"{STACK}-"), json.dumps(item, ensure_ascii=False)
    s3 = boto3.client("s3")
    for body in resources("AWS::S3::Bucket").values():
        name = resolved(body["Properties"])["BucketName"]
        for listed in s3.get_paginator("list_object_versions").paginate(Bucket=name):
            for marker in listed.get("DeleteMarkers", ()):
                yield name, marker["Key"]
            for version in listed.get("Versions", ()):
                yield name, version["Key"]
                where = f"{name}/{version['Key']}"
                if "/work/" in where:
                    continue
                got = s3.get_object(Bucket=name, Key=version["Key"], VersionId=version["VersionId"])["Body"].read()
                content = gzip.decompress(got) if version["Key"].endswith(".gz") else got
                yield where, content.decode("utf-8", "replace")


def left(*traces: str) -> list[tuple[str, str]]:
    """Where data is left."""
    return [(where, text) for where, text in stores() if any(trace in text for trace in traces)]


def a_life() -> None:
    """Two users who have done everything that a user can do, some of it long ago."""
    for user_id, email, name in ((GONE, ADDRESS, NAME), (STAYS, "ann@example.org", "Ann")):
        application.register(email, name, user_id=user_id, at=OLD)
        application.record_login(user_id, f"token-of-{user_id}", at=NOW - 100)
    for other in (GONE, STAYS):
        author = STAYS if other == GONE else GONE
        texts = (f"{WORDS} #{'tea' if author == GONE else 'jam'}", "words of somebody")
        text = texts[0] if author == GONE else texts[1] + " #jam"
        for at, post_id in ((OLD, f"old-{author}"), (NOW - DAY_SECONDS, f"new-{author}")):
            posts.put_many([Post(post_id, author, at, text, hashtags=("tea",))], now=0)
            files: list[tuple[objects.Bucket, str]] = [
                ("media", f"media/{post_id}/h/w320.webp"),
                ("uploads", f"uploads/{author}/{post_id}/holiday.jpg"),
                ("uploads", f"quarantine/uploads/{author}/{post_id}/bad.jpg"),
            ]
            for bucket, key in files:
                objects.put(bucket, key, b"first")
                objects.put(bucket, key, b"second")
            media = {"status": "ready", "source": f"uploads/{author}/{post_id}/holiday.jpg"}
            posts.TABLE.update(Write(post_id, set={"media": media}))
        said = application.comment(f"new-{author}", other, f"said by {other}: {WORDS if other == GONE else 'hm'}")
        assert said is not None
        gone = Comment(f"old-{author}", f"stone-{other}", other, OLD, deleted=True)
        comments.put_many([gone])
        application.follow(other, author)
        application.block(f"blocks-{author}", author)
        application.block(author, f"blocked-by-{author}")
        follows.add(f"fan-of-{author}", author, NOW)
        notifications.add(Notification(author, "n-1", "like", f"to {author}", NOW))
        acted = f"{NAME} likes it" if other == GONE else "Ann likes it"
        notifications.add(Notification(author, "n-2", "like", acted, NOW, actor_id=other))
        mail_ledger.claim(mail_ledger.WELCOME, author, "run", OLD)
        mail_ledger.claim(mail_ledger.digest("2026-W47"), author, "run", NOW, ["new-x"])
    application.count(f"new-{GONE}", likes=3)
    application.count(f"new-{STAYS}", likes=2)
    run_task(cleanup_old_posts.cleanup_old_posts, {"mode": "archive", "since": day_of(OLD)})
    run_task(update_trending_hashtags.update_trending_hashtags)
    run_task(generate_content_analytics.generate_content_analytics)


EVERYWHERE = {
    *("users", "posts", "follows", "blocks", "comments", "sessions", "tokens", "analytics", "notifications"),
    "mail-ledger",
}


def of_others() -> dict[str, int]:
    """How often each trace of somebody else is stored."""
    traces = ("words of somebody", "ann@example.org", f"fan-of-{STAYS}")
    found = left(*traces)
    return {trace: sum(trace in text for _, text in found) for trace in traces}


def test_no_store_has_anything_left_of_a_deleted_user(sent: SentTasks) -> None:
    a_life()
    before = {where for where, _ in left(*TRACES)}
    assert before >= EVERYWHERE, "the walk sees everything that is to be erased"
    assert {where.split("/")[1] for where in before if "/" in where} >= {"reports", "posts"}
    others = of_others()

    assert application.delete_user(GONE) is not None
    assert users.get(GONE) is None, "at once"
    (call,) = sent.calls
    report = run_task(job.erase_user_data, call[1])

    assert left(*TRACES) == []
    assert report.kept == KEPT_AFTER_ERASURE
    counted = ("posts", "comments", "follows", "notifications", "sessions", "tokens", "archived", "reports")
    assert set(counted) <= set(report.erased)
    assert of_others() == others, "and no one else's data is deleted"
    assert objects.get("media", f"media/new-{STAYS}/h/w320.webp") == b"second"
    assert application.delete_user(GONE) is None, "the second time there is nobody"
    assert run_task(job.erase_user_data, call[1]).erased == {}


def test_no_store_has_anything_left_of_a_deleted_post_and_its_authors_other_data_stays(sent: SentTasks) -> None:
    a_life()
    post_id = f"new-{GONE}"
    application.new_post(GONE, "another", post_id="another", at=NOW)
    assert application.delete_post(post_id) is not None
    assert posts.get(post_id) is None, "at once"
    assert list(posts.get_many([post_id])) == []
    assert post_id not in {one.post_id for one in posts.feed(10)}
    assert not application.count(post_id, likes=1)
    assert not application.edit_post(post_id, "never mind")
    assert not application.set_visibility(post_id, "public")
    assert application.comment(post_id, STAYS, "too late") is None
    assert posts.set_media(post_id, Media(status="processing"), "1") is posts.MediaOutcome.NO_POST
    assert application.delete_post(post_id) is None

    run_task(job.erase_user_data, sent.calls[0][1])
    assert left(post_id) == []
    assert users.get(GONE) is not None
    assert posts.get("another") is not None
    assert f"old-{GONE}" in archive.find([f"old-{GONE}"]), "another post's archive stays"
    assert run_task(job.erase_user_data, {"user_id": GONE, "post_id": f"old-{GONE}"}).erased["archived"] == 1
    assert [where for where, text in left(f"old-{GONE}")] == []
    assert archive.find([f"old-{STAYS}"]), "what was archived with it is there still"


def test_a_user_and_posts_created_again_under_the_same_ids_are_not_erased(sent: SentTasks) -> None:
    """As by a mirror of rows that were hidden and shown again: an account, a post, and a post in the archive."""
    a_life()
    old, new = f"old-{GONE}", f"new-{GONE}"
    for post_id in (new, old):
        assert application.delete_post(post_id, author_id=GONE) is not None
    run_task(job.erase_user_data, sent.calls[0][1])
    for post_id in (new, old):
        application.new_post(GONE, "shown again", post_id=post_id, at=NOW)
        objects.put("media", f"media/{post_id}/h/w320.webp", b"uploaded again")
    assert [args.get("post_id") for _, args in sent.calls] == [new, old, new]
    for _, args in sent.calls[1:]:
        assert run_task(job.erase_user_data, args).shortfall == "the post exists again"
    assert all(posts.get(post_id) and objects.get("media", f"media/{post_id}/h/w320.webp") for post_id in (new, old))

    sent.transport.sent.clear()
    application.delete_user(GONE)
    run_task(job.erase_user_data, sent.calls[0][1])
    application.register(ADDRESS, NAME, user_id=GONE, at=NOW)
    application.new_post(GONE, "back", post_id="back", at=NOW)
    for _, args in sent.calls[1:]:
        run_task(job.erase_user_data, args)
    assert users.get(GONE) is not None
    assert posts.get("back") is not None


def test_a_post_that_is_restored_while_it_is_being_erased_is_erased_by_the_second_pass(sent: SentTasks) -> None:
    a_life()
    post_id = f"old-{GONE}"
    assert application.delete_post(post_id, author_id=GONE) is not None
    run_task(cleanup_old_posts.cleanup_old_posts, {"mode": "restore", "post_ids": [post_id]})
    assert posts.get(post_id) is not None
    for _, args in sent.calls:
        run_task(job.erase_user_data, args)
    assert left(post_id) == []


def test_another_users_post_is_refused(sent: SentTasks) -> None:
    a_life()
    with pytest.raises(Reject, match="does not belong to user"):
        run_task(job.erase_user_data, {"user_id": GONE, "post_id": f"new-{STAYS}"})
    with pytest.raises(Reject, match="does not belong to user"):
        run_task(job.erase_user_data, {"user_id": GONE, "post_id": f"old-{STAYS}"})
    assert objects.get("archive", f"media/old-{STAYS}/h/w320.webp") == b"second", "archived, and not theirs"
    assert archive.find([f"old-{STAYS}"])


@pytest.mark.parametrize("ids", [{"user_id": f"{STAYS}/new-post"}, {"user_id": GONE, "post_id": "new-post/h"}])
def test_an_id_that_is_a_place_in_somebody_elses_folder_is_refused(ids: dict[str, str]) -> None:
    with pytest.raises(InvalidMessage, match=f"{[*ids][-1]}: "):
        catalogue.erase_user_data.apply_async(ids)


@pytest.mark.simulation
def test_sandboxes_that_die_and_messages_that_come_twice_leave_nothing(empty: Callable[[], None]) -> None:
    for seed in range(2):
        empty()
        a_life()
        queue = Queue.unreliable(seed, one_in=15)
        with small_pages(2):
            queue.run(job.erase_user_data, {"user_id": GONE})
        assert queue.deaths > 3
        assert left(*TRACES) == []
        assert archive.find([f"old-{STAYS}"])


def test_rows_that_no_job_can_read_go_too(sent: SentTasks) -> None:
    application.register(ADDRESS, NAME, user_id=GONE, at=NOW)
    faulty: dict[str, dict[str, str | int]] = {
        "p": {"hashtags": "tea"},
        "q": {"created_at": -5},
        "r": {"likes_count": "many"},
    }
    for post_id, change in faulty.items():
        posts.put_many([Post(post_id, GONE, NOW, WORDS, hashtags=("tea",))], now=NOW)
        posts.TABLE.update(Write(post_id, set=change))
    assert run_task(job.erase_user_data, {"user_id": GONE}).erased == {"posts": 3}
    assert left(*TRACES) == []


def test_an_erasure_that_continues_after_every_page_reports_the_same(empty: Callable[[], None]) -> None:
    a_life()
    queue = Queue(short=lambda: True)
    with small_pages(2):
        continued = queue.run(job.erase_user_data, {"user_id": GONE})
    assert queue.continued > 10
    assert left(*TRACES) == []
    empty()
    a_life()
    assert run_task(job.erase_user_data, {"user_id": GONE}).erased == continued.erased


def test_a_user_with_many_rows_is_erased_in_segments(sent: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    a_life()
    monkeypatch.setattr(job, "ALONE", 2)
    posts.put_many([Post(f"p{n}", GONE, NOW - n, WORDS) for n in range(5)], now=NOW)
    queue = Queue()
    report = queue.run(job.erase_user_data, {"user_id": GONE})
    kinds, by_twos = len(job.STEPS) - 1, 4
    assert queue.runs == 1 + kinds + by_twos + 1, "the plan, and after all of them the second look"
    assert report.erased["posts"] == 6, "and one that was archived, of which the uploads are left"
    assert left(*TRACES) == []
    assert sent.calls == [("erase_user_data", {"user_id": GONE, "again": False})]


@pytest.mark.simulation
def test_rows_written_during_an_erasure_are_found_by_its_second_pass(sent: SentTasks) -> None:
    """Another user's action, or one in progress, before each request of the erasure."""
    for moment in range(3, 400, 53):
        a_life_again(sent)
        seen = [0]

        def meanwhile(_: str, seen: list[int] = seen, moment: int = moment) -> None:
            seen[0] += 1
            if seen[0] != moment + 1:
                return
            application.follow("late-fan", GONE)
            application.comment(f"new-{STAYS}", GONE, WORDS)
            application.count(f"new-{STAYS}", likes=1)
            objects.put("uploads", f"uploads/{GONE}/new-{GONE}/late.jpg", b"late")
            posts.put_many([Post("late-post", GONE, NOW, WORDS)], now=NOW)
            notifications.add(Notification(STAYS, "late", "like", f"{NAME} too", NOW, actor_id=GONE))

        with requests(meanwhile):
            run_task(job.erase_user_data, {"user_id": GONE})
        if seen[0] <= moment:
            assert moment > 60
            return
        (call,) = sent.calls
        run_task(job.erase_user_data, call[1])
        assert left(*TRACES) == [], moment
        counts_are_true()
    pytest.fail("an erasure of more than 400 requests")


def a_life_again(sent: SentTasks) -> None:
    from tests.support import moto_cloud

    moto_cloud.clear()
    sent.transport.sent.clear()
    a_life()


def test_an_upload_that_begins_just_before_its_post_is_hidden_leaves_no_renditions(sent: SentTasks) -> None:
    application.register(ADDRESS, NAME, user_id=GONE, at=NOW)
    application.new_post(GONE, WORDS, post_id="p", at=NOW)
    seen: list[str] = []

    def upload(operation: str) -> None:
        seen.append(operation)
        if operation == "UpdateItem" and seen.count("UpdateItem") == 1:  # the posts have been read
            order = posts.upload_order(NOW - 3 * HOUR_SECONDS)
            assert posts.set_media("p", Media(status="processing"), order) is posts.MediaOutcome.WRITTEN

    with requests(upload):
        run_task(job.erase_user_data, {"user_id": GONE})
    assert "UpdateItem" in seen
    objects.put("media", "media/p/h/w320.webp", b"what the sandbox had begun to write")
    for _, args in sent.calls:
        run_task(job.erase_user_data, args)
    assert left(*TRACES, "media/p/") == []


@pytest.mark.parametrize(
    ("media", "order", "again"),
    [
        ({"status": "processing"}, posts.upload_order(NOW - 3 * HOUR_SECONDS), True),
        ({"status": "ready"}, posts.upload_order(NOW - 3 * HOUR_SECONDS), False),
        ({"status": "ready"}, posts.upload_order(NOW - job.SECOND_LOOK), False),
        ({"status": "ready"}, posts.upload_order(NOW - job.SECOND_LOOK + 1), True),  # an earlier one may be in progress
        ({"status": "ready"}, "no order", True),
        ({"status": "ready"}, 7, True),
        (None, None, False),
    ],
)
def test_a_post_is_erased_again_later_if_an_upload_may_still_write(
    sent: SentTasks, media: dict[str, str] | None, order: str | int | None, again: bool
) -> None:
    application.new_post(GONE, WORDS, post_id="p", at=NOW)
    if media and order:
        posts.TABLE.update(Write("p", set={"media": media, "media_order": order}))
    run_task(job.erase_user_data, {"user_id": GONE})
    assert [args.get("post_id") for _, args in sent.calls] == ["p"] * again + [None]


def counts_are_true() -> None:
    """The counts of followers, posts, comments and votes after the nightly jobs."""
    run_task(update_user_statistics.update_user_statistics)
    run_task(update_post_engagement_scores.update_post_engagement_scores)
    edges = [(item["follower_id"]["S"], item["followed_id"]["S"]) for item in rows(follows.TABLE)]
    stays = users.get(STAYS)
    assert stays is not None
    assert stays.followers_count == len([one for one in edges if one[1] == STAYS])
    assert stays.following_count == len([one for one in edges if one[0] == STAYS]) == 0
    for item in rows(posts.TABLE):
        stand = [one for one in comments.items_of_post(item["post_id"]["S"]) if "bucket" in one]
        assert item["comments_count"] == {"N": str(len(stand))}
    assert users.get(GONE) is None, "no count brings a user back"


def rows(table: Table) -> list[Row]:
    return [item for page in table.scan() for item in page.items]


def test_deletions_cost_the_trending_job_nothing_and_leave_the_votes_of_counted_hours(sent: SentTasks) -> None:
    hours = 30
    for hour in range(hours):
        for post_id in (f"goes-{hour}", f"stays-{hour}"):
            application.new_post(f"author-of-{post_id}", "#tea", post_id=post_id, at=NOW - hour * HOUR_SECONDS)
    run_task(update_trending_hashtags.update_trending_hashtags)
    assert [(trend.tag, trend.uses) for trend in hashtags.trending()] == [("tea", 2 * hours)]
    for hour in range(hours):
        application.delete_post(f"goes-{hour}")
    for _, args in sent.calls[:hours]:
        run_task(job.erase_user_data, args)
    report = run_task(update_trending_hashtags.update_trending_hashtags)
    assert report.rows_read == 2, "the posts that are left of the two hours that are not stored yet"
    assert [(trend.tag, trend.uses) for trend in hashtags.trending()] == [("tea", 2 * hours - 2)]


# --- the archive -----------------------------------------------------------------------------------------------------


def test_an_archived_post_is_deleted_through_its_author(sent: SentTasks) -> None:
    a_life()
    post_id = f"old-{GONE}"
    assert posts.get(post_id) is None
    before = {where.split("/")[0] for where, _ in left(post_id)}
    assert before == {"analytics", settings().bucket("archive"), settings().bucket("uploads")}
    assert application.delete_post(post_id) is None, "nobody says whose it was"
    assert application.delete_post("never", author_id=GONE) is None
    assert sent.calls == []

    assert application.delete_post(post_id, author_id=GONE) is not None
    first = sent.calls[0][1]
    assert run_task(job.erase_user_data, first).erased["archived"] == 1
    run_task(job.erase_user_data, sent.calls[1][1])
    assert left(post_id) == []
    assert archive.find([f"old-{STAYS}"]), "what was archived with it is there still"
    assert application.delete_post(post_id, author_id=GONE) is None
    assert run_task(job.erase_user_data, first).erased == {}


def test_an_archived_post_of_somebody_else_stays(sent: SentTasks) -> None:
    """Whether the caller names the wrong author, or an upload of another user's lies under its id."""
    a_life()
    assert application.delete_post(f"old-{GONE}", author_id=STAYS) is None
    for again in (True, False):
        with pytest.raises(Reject, match="does not belong to user"):
            run_task(job.erase_user_data, {"user_id": STAYS, "post_id": f"old-{GONE}", "again": again})
    assert sent.calls == [], "no second pass"
    run_task(job.erase_user_data, {"user_id": STAYS})
    objects.put("uploads", f"uploads/{STAYS}/old-{GONE}/x.jpg", b"a picture")
    run_task(job.erase_user_data, {"user_id": STAYS, "again": False})
    assert objects.get("archive", f"media/old-{GONE}/h/w320.webp") == b"second"
    assert archive.find([f"old-{GONE}"])


def test_an_archived_posts_pictures_stay_when_somebody_without_archived_data_names_it(sent: SentTasks) -> None:
    a_life()
    for again in (True, False):
        run_task(job.erase_user_data, {"user_id": "newcomer", "post_id": f"old-{GONE}", "again": again})
    assert objects.get("archive", f"media/old-{GONE}/h/w320.webp") == b"second"
    objects.put("archive", "media/new/h/w320.webp", b"copied before the archiving run found the post erased")
    report = run_task(job.erase_user_data, {"user_id": "newcomer", "post_id": "new", "again": False})
    assert report.erased == {"renditions": 1}


def many_archived(number: int) -> None:
    """Objects that each have one post of the user to be erased and one of another user."""
    for n in range(number):
        made = [Post(f"p{n}", GONE, OLD, WORDS), Post(f"q{n}", STAYS, OLD, "words of somebody")]
        posts.put_many(made, now=0)
        items = list(posts.in_full([post.post_id for post in made]))
        archive.write(add_days(day_of(OLD), n), [archive.ArchivedPost(item) for item in items], NOW)
        for post in made:
            posts.TABLE.delete(post.post_id)


def test_an_erasure_from_many_objects_continues_after_each(sent: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    many_archived(7)
    queue, rewrite, by_run = Queue(short=lambda: True), archive._rewrite, Counter[int]()

    def counted(*args: Any) -> bool:
        done = rewrite(*args)
        by_run[queue.runs] += done
        return done

    monkeypatch.setattr(archive, "_rewrite", counted)
    report = queue.run(job.erase_user_data, {"user_id": GONE})
    assert report.erased["archived"] == sum(by_run.values()) == 7
    assert max(by_run.values()) == 1
    assert left(*TRACES) == []
    assert len(archive.find([f"q{n}" for n in range(7)])) == 7


def test_erasing_one_post_reads_only_the_objects_that_have_it(sent: SentTasks) -> None:
    many_archived(5)
    application.new_post(GONE, "new", post_id="new", at=NOW)
    for post_id, read in (("new", 0), ("p3", 2)):  # the object, and what was written in its place
        asked: list[str] = []
        queue = Queue(short=lambda: True)
        with requests(asked.append):
            queue.run(job.erase_user_data, {"user_id": GONE, "post_id": post_id})
        assert asked.count("GetObject") == read, post_id
        assert queue.continued > 0
        assert left(f'"{post_id}"') == []
    assert archive.find(["p2", "p3", "q3"]).keys() == {"p2", "q3"}


def test_erasing_an_archived_post_makes_the_same_requests_for_any_number_of_objects(
    sent: SentTasks,
) -> None:
    erasures = []
    for number, post_id in ((5, "p3"), (50, "p33")):
        many_archived(number)
        asked: list[str] = []
        with requests(asked.append):
            assert application.delete_post("never", author_id=GONE) is None
            assert application.delete_post(post_id, author_id=STAYS) is None
            assert application.delete_post(post_id, author_id=GONE) is not None
        assert asked == ["GetItem", "Query"] * 3
        asked.clear()
        with requests(asked.append):
            run_task(job.erase_user_data, sent.calls[-1][1])
        erasures.append(Counter(asked))
    assert erasures[0] == erasures[1]


def test_an_archived_post_is_found_by_entries_that_were_written_before_they_had_ids(sent: SentTasks) -> None:
    many_archived(5)
    for page in archive.LISTS.query(f"archived-by#{GONE}"):
        for item in page.items:
            key = {name: item[name]["S"] for name in archive.LISTS.key}
            archive.LISTS.update(Write(key, remove=("posts",)))
    asked: list[str] = []
    with requests(asked.append):
        assert application.delete_post("never", author_id=GONE) is None
        assert application.delete_post("p3", author_id=GONE) is not None
    assert asked == ["GetItem", "Query", "BatchGetItem"] * 2
    run_task(job.erase_user_data, sent.calls[0][1])
    assert left('"p3"') == []


def test_a_post_that_may_be_on_its_way_to_the_archive_is_looked_for_again_even_if_the_sandbox_dies(
    sent: SentTasks,
) -> None:
    """The item leads a retry to the post, so the second look is sent before the item is deleted."""
    posts.put_many([Post("p", GONE, OLD, WORDS)], now=0)
    deletions = count(1)

    def dies(operation: str) -> None:
        if operation == "DeleteItem" and next(deletions) == 2:  # the first is the user's
            raise SandboxDied

    with requests(dies), pytest.raises(SandboxDied):
        run_task(job.erase_user_data, {"user_id": GONE})
    assert ("erase_user_data", {"user_id": GONE, "post_id": "p", "again": False}) in sent.calls
    assert [item["post_id"]["S"] for item in rows(posts.TABLE)] == ["p"]


def test_a_day_that_was_counted_before_names_were_stored_is_erased_from(sent: SentTasks) -> None:
    a_life()
    key = {"kind": "content", "period": YESTERDAY}
    item = analytics.TABLE.get(key)
    assert item is not None
    popular = [{name: post[name] for name in post if name != "author"} for post in from_item(item)["popular"]]
    assert {post["author_id"] for post in popular} == {GONE, STAYS}
    analytics.TABLE.update(Write(key, set={"popular": popular}))
    assert run_task(job.erase_user_data, {"user_id": GONE}).erased["reports"] == 1
    assert left(*TRACES) == []


@pytest.mark.simulation
def test_a_post_that_is_erased_while_it_is_being_archived_leaves_no_copy(empty: Callable[[], None]) -> None:
    """An erasure before each request of the archiving; the erasure's second pass comes after both."""
    for moment in range(0, 120, 7):
        empty()
        old = Post("p", GONE, OLD, WORDS, counters=Counters(views=1))
        posts.put_many([old, replace(old, post_id="q", author_id=STAYS, text="q")], now=0)
        objects.put("media", "media/p/h/w320.webp", b"picture")
        posts.TABLE.update(Write("p", set={"media": {"status": "ready"}}))
        seen = [0]

        def erase(_: str, seen: list[int] = seen, moment: int = moment) -> None:
            seen[0] += 1
            if seen[0] == moment + 1:
                run_task(job.erase_user_data, {"user_id": GONE})
                seen[0] = moment + 1  # those of the erasure are not counted

        archiving = {"mode": "archive", "since": day_of(OLD)}
        with requests(erase):
            try:
                run_task(cleanup_old_posts.cleanup_old_posts, archiving)
            except (LookupError, ClientError):  # what it read back or copied was deleted: it is retried
                run_task(cleanup_old_posts.cleanup_old_posts, archiving)
        for call in [{"user_id": GONE}, {"user_id": GONE, "post_id": "p"}]:
            run_task(job.erase_user_data, {**call, "again": False})
        assert left(*TRACES, "media/p/") == [], moment
        assert archive.find(["q"]), "the other post is archived as ever"
        if seen[0] <= moment:
            assert moment > 15
            return
    pytest.fail("120 requests for two posts")


@pytest.mark.simulation
def test_an_interrupted_archiving_is_resumed_although_its_object_was_rewritten(empty: Callable[[], None]) -> None:
    for fatal in range(4, 200, 8):
        empty()
        old = Post("p", STAYS, OLD, "stays", counters=Counters(views=1))
        posts.put_many([old, replace(old, post_id="q", author_id=GONE, text=WORDS)], now=0)
        for post_id in ("p", "q"):
            posts.TABLE.update(Write(post_id, set={"media": {"status": "ready"}}))
        queue = Queue.dying_at(fatal)
        died = queue.dies

        def dies(died: Callable[[], bool] = died) -> bool:
            if not died():
                return False
            with memory_backend():
                run_task(job.erase_user_data, {"user_id": GONE, "again": False})
            return True

        queue.dies = dies
        queue.run(cleanup_old_posts.cleanup_old_posts, {"mode": "archive", "since": day_of(OLD)})
        run_task(job.erase_user_data, {"user_id": GONE, "again": False})
        assert left(*TRACES) == [], fatal
        assert rows(posts.TABLE) == [], fatal
        assert archive.read(archive.find(["p"])["p"])["p"].post["text"] == {"S": "stays"}
        if not queue.deaths:
            assert fatal > 15
            return
    pytest.fail("200 requests for two posts")


def test_two_users_in_one_archive_object_are_erased_at_once(empty: Callable[[], None]) -> None:
    """Each rewrites the object that the other is rewriting; the second passes find the result."""
    for moment in range(0, 30, 3):
        empty()
        people = (GONE, "other-gone", STAYS)
        made: list[Any] = [Post(f"p-{who}", who, OLD, f"{WORDS} {who}") for who in people]
        posts.put_many(made, now=0)
        run_task(cleanup_old_posts.cleanup_old_posts, {"mode": "archive", "since": day_of(OLD)})
        seen = [0]

        def other(_: str, seen: list[int] = seen, moment: int = moment) -> None:
            seen[0] += 1
            if seen[0] == moment + 1:
                list(archive.erase("other-gone", last=False))

        with requests(other):
            list(archive.erase(GONE, last=False))
        for who in ("other-gone", GONE, "other-gone"):
            list(archive.erase(who, last=True))
        assert left(GONE, "other-gone") == [], moment
        assert archive.read(archive.find([f"p-{STAYS}"])[f"p-{STAYS}"]).keys() == {f"p-{STAYS}"}
        if seen[0] <= moment:
            return


def test_this_test_searches_every_table_and_bucket_of_the_template() -> None:
    """A new table or bucket must be considered here and in the task."""
    known = EVERYWHERE | {"hashtags", "task-runs"}
    named = {resolved(body["Properties"])["TableName"] for body in resources("AWS::DynamoDB::Table").values()}
    assert {name.removeprefix(f"{STACK}-") for name in named} == known
    buckets = {resolved(body["Properties"])["BucketName"] for body in resources("AWS::S3::Bucket").values()}
    assert buckets == {settings().bucket(name) for name in ("uploads", "media", "archive")}
