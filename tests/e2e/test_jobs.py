"""Every job on the deployed stack: from its rule, through its queue, and by direct event, over seeded data."""

import json
import random
import time
import uuid
from typing import Any

import boto3
import pytest

from nexus.aws.dynamodb import from_item
from nexus.backend import backend
from nexus.backend.transport import Message
from nexus.client import AsyncResult
from nexus.envelope import Envelope, Segment
from nexus.ids import derived_id
from nexus.settings import Settings
from nexus.tasks import Arguments, Result, Task
from ops.social.seed import seed
from social import application, catalogue
from social.data import archive, comments, notifications, objects, posts
from social.data.comments import Comment
from social.data.days import buckets_of, day_of, start_of
from social.data.notifications import Notification
from social.data.posts import Media, Post, Rendition
from social.parts import ReviewDays
from tests.support import network
from tests.support.patience import PATIENCE, eventually
from tests.support.stack import in_its_place

NEEDS_SES = {catalogue.send_content_digest_email.name: pytest.mark.emulator}
"""On AWS, no sender of the tests' stack is verified."""
JOBS = [
    pytest.param(task, id=task.name, marks=NEEDS_SES.get(task.name, ()))
    for task in network.tasks().values()
    if task.schedule
]


@pytest.fixture(scope="module", autouse=True)
def data(stack: Settings) -> None:
    """A small social network: the same rows each time, so a second run finds them there."""
    seed(120, 7, lambda *_: None)


@pytest.mark.parametrize("task", JOBS)
def test_a_job_on_demand_runs_its_segments_and_reports(task: Task[Any, Any]) -> None:
    handle = in_its_place(task.delay)
    assert handle.get() is not None
    done, total = handle.progress
    assert done == total


@pytest.mark.parametrize("task", JOBS)
def test_a_job_takes_a_direct_event(task: Task[Any, Any], outputs: dict[str, str]) -> None:
    function = outputs[f"{task.queue.capitalize()}FunctionName"]
    payload = json.dumps({"task": task.name, "args": {}})

    def invoked() -> AsyncResult[Any]:
        answer = boto3.client("lambda").invoke(FunctionName=function, Payload=payload)
        run = json.load(answer["Payload"])
        # A job that fans out is waiting for its segments when the direct invocation ends.
        assert run["status"] in ("SUCCESS", "STARTED", "REVOKED"), run
        return AsyncResult(run["id"])

    assert in_its_place(invoked).get() is not None


def test_a_rule_of_eventbridge_starts_its_task(stack: Settings) -> None:
    """The deployed rule, its schedule made a minute's for the test and then put back."""
    events, name = boto3.client("events"), f"{stack.stack}-cleanup_expired_tokens"
    rule = events.describe_rule(Name=name)
    since = time.time()
    events.put_rule(Name=name, ScheduleExpression="rate(1 minute)", State="ENABLED")
    try:
        run = eventually(lambda: _runs("cleanup_expired_tokens", stack, since), every=2)
    finally:
        events.put_rule(Name=name, ScheduleExpression=rule["ScheduleExpression"], State=rule["State"])
    uuid.UUID(str(run["id"]))
    assert run["queue"] == "maintenance"


def _runs(task: str, stack: Settings, since: float) -> dict[str, Any] | None:
    """A run of the task that began after `since`, has ended, and was sent by the rule."""
    pages = boto3.client("dynamodb").get_paginator("scan").paginate(TableName=stack.table("task-runs"))
    for page in pages:
        for item in map(from_item, page["Items"]):
            mine = item.get("task") == task and "parent" not in item and float(item.get("started_at", 0)) >= since
            if mine and item.get("status") == "SUCCESS" and item.get("origin") == "rule":
                return dict(item)
    return None


def part[R: Result](task: Task[Any, R, ...], args: Arguments) -> AsyncResult[R]:
    """Sends one segment of a job by itself, as the job's own run would."""
    envelope = Envelope(
        id=derived_id("part", uuid.uuid4()),
        task=task.name,
        args=args.model_dump(mode="json", exclude_defaults=True),
        segment=Segment(index=0, total=1),
    )
    assert not backend().transport.send(task.queue, [Message.of(envelope)])
    return AsyncResult(envelope.id, task.result)


def test_an_old_post_is_archived_with_all_that_it_has_and_brought_back() -> None:
    """With only the function's rights, and on a separate day, so that the seeded posts stay."""
    day, post_id = day_of(86_400 * random.randrange(11_000, 18_000)), f"p-{uuid.uuid4().hex[:12]}"
    key = f"media/{post_id}/hash/w320.webp"
    rendition = Rendition(key=key, width=320, height=200, bytes=7, content_type="image/webp")
    media = Media(status="ready", kind="image", renditions={"w320": rendition})
    posts.put_many([Post(post_id, "u-e2e", start_of(day) + 5, media=media)], now=0)
    comments.put_many([Comment(post_id, "c", "u-e2e", start_of(day) + 6, deleted=True)])
    objects.put("media", key, b"picture")

    segment = ReviewDays(mode="archive", buckets=tuple(buckets_of(day)), since=day, today=day_of(time.time()))
    archived = part(catalogue.cleanup_old_posts, segment).get(timeout=PATIENCE)
    assert archived is not None
    assert (archived.archived, posts.get(post_id, consistent=True)) == (1, None)
    assert not [*objects.keys("media", f"media/{post_id}/"), *comments.items_of_post(post_id)]

    restored = in_its_place(lambda: catalogue.cleanup_old_posts.delay(mode="restore", post_ids=[post_id])).get()
    assert restored is not None
    assert restored.restored == 1
    assert posts.get(post_id, consistent=True) is not None
    assert objects.get("media", key) == b"picture"
    assert len(comments.items_of_post(post_id)) == 1


def test_a_deleted_user_is_erased_by_a_role_with_only_those_rights() -> None:
    mark = uuid.uuid4().hex[:12]
    user, other = (application.register(f"{name}@example.com", name, user_id=f"{name}-{mark}") for name in ("u", "o"))
    now = int(time.time())
    post = application.new_post(user.user_id, "words #tea")
    elsewhere = application.new_post(other.user_id, "theirs")
    old = Post(f"old-{mark}", user.user_id, now - 400 * 86_400, "quiet")
    posts.put_many([old], now=now)
    application.comment(elsewhere.post_id, user.user_id, "said")
    application.follow(other.user_id, user.user_id)
    application.block(user.user_id, "somebody")
    application.record_login(user.user_id, "token")
    notifications.add(Notification(other.user_id, mark, "like", "U likes it", now, actor_id=user.user_id))
    for key in (f"uploads/{user.user_id}/{post.post_id}/note.txt", f"quarantine/uploads/{user.user_id}/x/bad.jpg"):
        objects.put("uploads", key, b"no picture")
    objects.put("media", f"media/{post.post_id}/h/w320.webp", b"rendition")
    since = day_of(now - 400 * 86_400)
    assert in_its_place(lambda: catalogue.cleanup_old_posts.delay(mode="archive", since=since)).get() is not None
    held = archive.find([old.post_id])
    assert held

    erasing = application.delete_user(user.user_id)

    assert erasing is not None
    report = erasing.get(timeout=PATIENCE)
    assert report is not None
    assert report.erased["archived"] == 1
    assert {"posts", "comments", "follows", "blocks", "notifications", "sessions", "tokens"} <= set(report.erased)
    assert report.kept == catalogue.KEPT_AFTER_ERASURE
    assert archive.find([old.post_id]) == {}
    assert not archive.exists(held[old.post_id])
    assert list(objects.keys("uploads", f"uploads/{user.user_id}/")) == []
    assert list(objects.keys("media", f"media/{post.post_id}/")) == []
    left = posts.get(elsewhere.post_id, consistent=True)
    assert left is not None
    assert left.counters.comments == 0


def test_on_demand_tasks_of_one_user() -> None:
    name = f"u-{uuid.uuid4().hex[:12]}"
    user = application.register(f"{name}@example.com", "Ada", user_id=name)
    counts = catalogue.refresh_user_statistics.delay(user_id=user.user_id).get(timeout=PATIENCE)
    revoked = catalogue.revoke_user_tokens.delay(user_id=user.user_id).get(timeout=PATIENCE)
    noted = catalogue.send_notification.delay(user_id=user.user_id, kind="like", text="hello").get(timeout=PATIENCE)

    assert counts is not None
    assert counts.user_id == user.user_id
    assert revoked is not None
    assert noted is not None
    assert noted.notification_id
