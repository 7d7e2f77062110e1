"""The stores of run records in DynamoDB and in memory: the same writes, single or batched, have the same effect."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.aws.dynamodb import Condition, equals
from nexus.backend.memory import MemoryStore
from nexus.backend.store import Applied, DynamoStore, Refused, Write
from tests.support import moto_cloud

KEYS = ("a", "b", "c")

conditions = st.one_of(
    st.builds(equals, st.just("status"), st.sampled_from(["PENDING", "STARTED", None])),
    st.builds(Condition, st.just("n"), st.sampled_from(["missing", "exists"])),
    st.builds(
        Condition,
        st.just("n"),
        st.sampled_from(["=", "<", "<=", ">", "missing or <", "missing or <="]),
        st.integers(0, 3),
    ),
    st.builds(Condition, st.just("done"), st.just("lacks"), st.integers(0, 2)),
)
changes = st.fixed_dictionaries({"status": st.sampled_from(["PENDING", "STARTED"])}, optional={"n": st.integers(0, 3)})
updates = st.builds(
    Write,
    st.sampled_from(KEYS),
    set=changes,
    remove=st.sampled_from([(), ("seen",)]),
    add=st.dictionaries(st.just("done"), st.frozensets(st.integers(0, 2), min_size=1)),
    when=st.lists(conditions, max_size=2).map(tuple),
)
inserts = st.builds(Write, st.sampled_from(KEYS), set=changes, insert=st.just(True))
batches = st.lists(updates | inserts, max_size=3, unique_by=lambda write: write.key)


@pytest.mark.usefixtures("deployment")
@settings(max_examples=60)
@given(st.lists(batches, max_size=6))
def test_dynamodb_and_memory_agree_on_every_write(story: list[list[Write]]) -> None:
    moto_cloud.clear()
    dynamodb, memory = DynamoStore(), MemoryStore()
    for batch in story:
        for mine, theirs in zip(dynamodb.apply_all(batch), memory.apply_all(batch), strict=True):
            assert type(mine) is type(theirs)
            if isinstance(mine, Applied) or mine.item is not None:
                assert mine == theirs
        assert dynamodb.get(KEYS) == memory.get(KEYS)


@pytest.mark.usefixtures("deployment")
def test_a_refused_write_returns_the_existing_item() -> None:
    moto_cloud.clear()
    store = DynamoStore()
    store.apply(Write("a", set={"status": "SUCCESS"}, insert=True))

    claims = [Write(key, set={"status": "STARTED"}, when=(equals("status", "PENDING"),)) for key in ("a", "b")]

    assert store.apply_all(claims) == [Refused({"id": "a", "status": "SUCCESS"}), Refused(None)]
