"""How members are counted: the ids they have, the tallies that a number of them needs, and who is a member."""

from collections.abc import Iterator, Sequence

import pytest

from nexus.backend.store import Outcome, Write
from nexus.envelope import Envelope, Segment
from nexus.ids import derived_id, new_id
from nexus.runs import tallies
from nexus.runs.record import RunRecord
from nexus.testing import SentTasks, memory_backend

PARENT = new_id()


@pytest.fixture
def run_table() -> Iterator[SentTasks]:
    with memory_backend() as sent:
        yield sent


def test_a_tally_counts_a_hundred_members() -> None:
    assert [tallies.chunks(total) for total in (1, 99, 100, 101, 200, 10_000)] == [1, 1, 1, 2, 2, 100]
    made = tallies.new_tallies(PARENT, 2, 250, keep_until=5)
    assert made == [
        Write(f"{PARENT}/2/tally/0", {"size": 100, "expires": 5}),
        Write(f"{PARENT}/2/tally/1", {"size": 100, "expires": 5}),
        Write(f"{PARENT}/2/tally/2", {"size": 50, "expires": 5}),
    ]
    assert [write.set["size"] for write in tallies.new_tallies(PARENT, 1, 200, keep_until=5)] == [100, 100]


def test_a_message_is_a_members_only_with_the_id_of_its_place() -> None:
    segment = Segment(index=3, total=9, phase=2)
    own = tallies.member(PARENT, 2, 3)

    def claims(run_id: str, parent: str | None, segment: Segment | None) -> bool:
        return tallies.is_member(Envelope(id=run_id, task="count", parent=parent, segment=segment))

    assert claims(own, PARENT, segment)
    assert not claims(own, PARENT, None)
    assert not claims(own, None, segment)
    assert not claims(own, None, None)
    assert not claims(own, new_id(), segment)
    assert not claims(own, PARENT, Segment(index=4, total=9, phase=2))
    assert not claims(own, PARENT, Segment(index=3, total=9, phase=1))
    assert not claims(new_id(), PARENT, segment)


def test_the_ids_of_a_members_earlier_steps_are_derived_from_its_id() -> None:
    first, _, third = (tallies.member(PARENT, 1, index) for index in range(3))
    record = RunRecord(PARENT, "STARTED", phase=1, total=3, earlier=(2, 0, 1))
    assert tallies.earlier(record) == [
        derived_id(first, "step", 0),
        derived_id(first, "step", 1),
        derived_id(third, "step", 0),
    ]
    assert tallies.earlier(RunRecord(PARENT, "STARTED", phase=1, total=3)) == []


def test_progress_is_the_sum_of_all_tallies(run_table: SentTasks) -> None:
    tallies.put_all(tallies.new_tallies(PARENT, 1, 250, keep_until=5))
    for chunk, done in ((0, {1, 2}), (2, {201})):
        run_table.store.apply(Write(tallies.tally(PARENT, 1, chunk), add={"done": frozenset(done)}))
    record = RunRecord(PARENT, "STARTED", phase=1, total=250)
    assert tallies.progress(record) == (3, 250)
    assert tallies.progress(RunRecord(PARENT, "STARTED", phase=2, total=250)) == (0, 250)


def test_items_are_inserted_together_and_only_those_that_exist_are_overwritten(
    run_table: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = [Write(key, {"size": 7}) for key in ("one", "two", "three")]
    run_table.store.apply(Write("two", {"size": 1, "expires": 5}))
    inserted: list[Write] = []
    overwritten: list[Write] = []
    apply = run_table.store.apply

    def insert(inserts: Sequence[Write]) -> list[Outcome]:
        inserted.extend(inserts)
        return [apply(write) for write in inserts]

    def overwrite(write: Write) -> Outcome:
        overwritten.append(write)
        return apply(write)

    monkeypatch.setattr(run_table.store, "apply_all", insert)
    monkeypatch.setattr(run_table.store, "apply", overwrite)

    tallies.put_all(writes)

    assert inserted == [Write(key, {"size": 7}, insert=True) for key in ("one", "two", "three")]
    assert overwritten == [Write("two", {"size": 7})]
    items = run_table.store.get(["one", "two", "three"])
    assert [items[key].get("size") for key in ("one", "two", "three")] == [7, 7, 7]
