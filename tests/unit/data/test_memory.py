"""The tables in memory: the application's functions have the same effect on them as on moto's."""

import inspect
import sys
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from nexus.aws.dynamodb import Condition, Write
from nexus.aws.sdk import client
from nexus.settings import settings
from nexus.testing import in_memory
from social.data import analytics, archive, comments, follows, hashtags, notifications, posts, sessions, users
from social.data.archive import ArchivedPost
from tests.support.template import resolved, resources
from tests.unit.data import test_application

for _name, _test in inspect.getmembers(test_application, inspect.isfunction):
    if _name.startswith("test_") and "database" in inspect.signature(_test).parameters:
        setattr(sys.modules[__name__], _name, _test)


@pytest.fixture
def database() -> Iterator[None]:
    """The tables in memory, empty."""
    with in_memory():
        yield


@pytest.mark.parametrize("values", [{"user_id": "", "email": "a@example.com"}, {"user_id": "a", "email": ""}])
def test_an_empty_string_is_refused_as_a_key_of_a_table_and_of_an_index(database: None, values: dict[str, str]) -> None:
    with pytest.raises(ClientError, match="ValidationException"):
        users.TABLE.put(values)


def test_a_span_that_ends_before_it_begins_is_refused(database: None) -> None:
    analytics.TABLE.put({"kind": "content", "period": "2026-11-28"})
    with pytest.raises(ClientError, match="BETWEEN"):
        list(analytics.TABLE.query("content", between=("2026-11-28", "2026-11-27")))


def test_the_tables_declare_the_keys_that_the_template_gives_them() -> None:
    declared = {one.TABLE.entity: one.TABLE for one in (analytics, comments, follows, hashtags, notifications, posts)}
    declared |= {one.entity: one for one in (users.TABLE, sessions.SESSIONS, sessions.TOKENS)}
    for body in resources("AWS::DynamoDB::Table").values():
        properties = resolved(body["Properties"])
        entity = properties["TableName"].partition("-test-")[2]
        if entity not in declared:
            continue
        table = declared.pop(entity)
        assert table.key == tuple(key["AttributeName"] for key in properties["KeySchema"])
        indexes = properties.get("GlobalSecondaryIndexes", ())
        assert table.indexes == {
            index["IndexName"]: tuple(key["AttributeName"] for key in index["KeySchema"]) for index in indexes
        }
    assert not declared


def test_tables_in_memory_end_with_their_block() -> None:
    with in_memory():
        follows.add("a", "b", 1)
        with in_memory():
            assert follows.followed_by("a") == []
        assert follows.followed_by("a") == ["b"]


def test_a_page_begins_where_the_last_one_ended(database: None) -> None:
    follows.put_many([("a", f"b{n:02}", n) for n in range(25)])
    pages = list(follows.TABLE.query("a", limit=10, newest_first=True))
    assert [len(page.items) for page in pages] == [10, 10, 5]
    assert pages[1].items[0]["followed_id"]["S"] == "b14"
    scanned = [item for n in range(3) for page in follows.edges(segment=n, total=3) for item in page.items]
    assert len(scanned) == 25


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_page_begins_after_an_item_that_was_deleted(database: None, newest_first: bool) -> None:
    follows.put_many([("a", f"b{n}", n) for n in range(9)])
    seen = []
    for page in follows.TABLE.query("a", limit=2, newest_first=newest_first):
        seen += [item["followed_id"]["S"] for item in page.items]
        follows.remove("a", seen[-1])
    assert sorted(seen) == [f"b{n}" for n in range(9)]


def test_conditional_statements_return_whether_each_row_was_there(database: None) -> None:
    follows.add("a", "b", 7)
    keys = [{"follower_id": "a", "followed_id": other} for other in ("b", "c")]
    kept = [Write(key, delete=True, when=(Condition("created_at", "<", 5),)) for key in keys]
    assert follows.TABLE.update_many(kept) == [False, False]
    assert follows.TABLE.delete_each(keys, when=(Condition("created_at", "=", 7),)) == [True, False]


def test_an_archived_post_reads_back(database: None) -> None:
    one = ArchivedPost({"post_id": {"S": "p"}, "text": {"S": "é"}})
    key = archive.write("2025-01-01", [one], 1)
    assert archive.read(key) == {"p": one}
    assert archive.find(["p", "q"]) == {"p": key}
    assert posts.get("p") is None


def test_an_operation_that_is_not_implemented_in_memory_is_named(database: None) -> None:
    with pytest.raises(NotImplementedError, match="does not implement GetBucketAcl"):
        client("s3").get_bucket_acl(Bucket=settings().bucket("media"))
