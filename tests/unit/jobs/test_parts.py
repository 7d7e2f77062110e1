"""The jobs' parts: nobody can send one, and those that were sent before the parts had models of their own still run."""

from typing import Any

import pytest

from nexus.errors import InvalidMessage
from nexus.registry import registry
from social import catalogue, parts
from tests.support import network

SCAN: dict[str, Any] = {"table": "follows", "segment": 1, "total": 3}
STATISTICS: dict[str, Any] = {"work": "work/r", "started_at": 1_790_000_000, "parts": {"follows": 3, "users": 1}}
DAY: dict[str, Any] = {"day": "2026-11-20", "work": "r", "parts": 9, "counted_at": 1_790_000_000}
OLD: dict[str, Any] = {"mode": "archive", "today": "2026-11-20", "since": "2024-01-01"}
EDITION: dict[str, Any] = {"edition": "e.gz", "since": 1, "until": 2, "segment": 0, "total": 1, "per_second": 14.0}

IN_FLIGHT = [
    ("update_user_statistics", {**STATISTICS, "part": SCAN}, parts.CountScan),
    ("update_user_statistics", {**STATISTICS, "ranges": 4, "range": 0}, parts.MergeRange),
    ("update_user_statistics", {**STATISTICS, "ranges": 4}, parts.PlanRanges),
    ("update_trending_hashtags", {"at": 1_790_000_000, "hours": [497_222, 497_223]}, parts.CountHours),
    ("update_trending_hashtags", {"at": 1_790_000_000, "top": 5}, parts.Rank),
    ("generate_content_analytics", {**DAY, "bucket": "2026-11-20#1"}, parts.CountBucket),
    ("generate_content_analytics", {**DAY, "users": {**SCAN, "table": "users"}}, parts.CountUsers),
    ("generate_content_analytics", DAY, parts.PublishDay),
    ("update_post_engagement_scores", {"shard": 0}, parts.ScoreShard),
    ("cleanup_expired_tokens", {"now": 1_790_000_000, "part": SCAN}, parts.CleanUp),
    ("cleanup_old_posts", {**OLD, "days": ["2024-02-01"]}, parts.ReviewDays),
    ("cleanup_old_posts", {**OLD, "shard": 0}, parts.ReviewShard),
    ("cleanup_old_posts", {**OLD, "finish": True}, parts.RaiseWatermark),
    ("erase_user_data", {"user_id": "u", "store": "posts", "post_ids": ["p"], "again": True}, parts.EraseShare),
    ("erase_user_data", {"user_id": "u", "look_again": True}, parts.LookAgain),
    ("send_content_digest_email", {"week": "2026-W47", "part": EDITION}, parts.DigestSegment),
]


@pytest.mark.parametrize(("task", "args", "model"), IN_FLIGHT, ids=lambda value: getattr(value, "__name__", None))
def test_a_part_is_read_as_what_it_is_and_refused_as_the_tasks_own_arguments(
    task: str, args: dict[str, Any], model: type[Any]
) -> None:
    assert type(registry.task(task).check_part(args)) is model
    if model is not parts.Rank:  # what to rank, and when, may be said by a person too
        with pytest.raises(InvalidMessage):
            registry.task(task).check(args)


def test_every_part_has_a_row_here() -> None:
    rows = {model for _, _, model in IN_FLIGHT}
    declared = {
        model
        for task in network.tasks().values()
        if task.part is not None
        for model in getattr(task.part, "__args__", (task.part,))
    }
    assert rows == declared
    assert catalogue.__name__


def test_no_task_shows_an_inner_field_to_its_senders() -> None:
    inner = {
        "work",
        "range",
        "ranges",
        "part",
        "parts",
        "shard",
        "finish",
        "today",
        "hours",
        "counted_at",
        "now",
        "store",
        "look_again",
    }
    for task in network.tasks().values():
        assert not inner & set(task.arguments.model_fields), task.name
