"""Paging, unprocessed items, conditional batches, the meter."""

from contextlib import nullcontext
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bench.jobs.stand_in import StandIn
from nexus import clock
from nexus.aws import table
from nexus.aws.dynamodb import Condition, Write, from_item
from nexus.aws.sdk import Throttled
from nexus.aws.table import MAX_TRIES, Meter, throttled_since, transact
from social.data import follows, users
from tests.support import sandboxes

USERS = users.TABLE
FOLLOWS = follows.TABLE


def people(count: int) -> list[dict[str, str | int]]:
    return [{"user_id": f"u{n:05}", "email": f"{n}@example.com", "n": n} for n in range(count)]


def test_unprocessed_items_of_a_batch_are_sent_again_until_all_are_done(strict: StandIn) -> None:
    strict.throttle = 0.1  # with 0.4, one item in some runs was refused at every try
    meter = Meter()
    assert USERS.put_many(people(203), meter=meter, threads=4) == 203
    keys = [{"user_id": f"u{n:05}"} for n in range(210)]
    found = list(USERS.get_many(keys, attributes=("user_id", "n"), meter=meter, threads=4))
    assert sorted(int(item["n"]["N"]) for item in found) == list(range(203))
    assert meter.throttled > 0
    changes = [Write({"user_id": f"u{n:05}"}, set={"n": -1}, when=(Condition("n", "<", 100),)) for n in range(203)]
    assert USERS.update_many(changes, meter=meter) == [n < 100 for n in range(203)]
    assert USERS.delete_many(keys[:203], meter=meter) == 203
    assert [item for page in USERS.scan() for item in page.items] == []


def test_a_writer_that_is_always_refused_gets_an_error_and_nothing_is_half_done(strict: StandIn) -> None:
    before = clock.monotonic()
    strict.throttle = 2.0
    with pytest.raises(Throttled):
        USERS.put({"user_id": "a"})
    assert throttled_since(before) == f"put_item {USERS.name}"
    with pytest.raises(Throttled):
        USERS.update_many([Write({"user_id": "a"}, set={"n": 1})])
    strict.throttle = 0.0
    assert USERS.get({"user_id": "a"}) is None
    assert throttled_since(clock.monotonic()) is None


def test_a_scan_reads_every_item_once_in_any_number_of_segments(strict: StandIn) -> None:
    rows = [{"follower_id": f"f{n % 97:03}", "followed_id": f"t{n:05}", "pad": "x" * 900} for n in range(3000)]
    FOLLOWS.put_many(rows)
    for total in (1, 3, 16):
        pages = [page for segment in range(total) for page in FOLLOWS.scan(segment=segment, total=total)]
        seen = [item["followed_id"]["S"] for page in pages for item in page.items]
        assert sorted(seen) == [f"t{n:05}" for n in range(3000)]
        homes: dict[str, set[int]] = {}
        for segment in range(total):
            for page in FOLLOWS.scan(segment=segment, total=total):
                for item in page.items:
                    homes.setdefault(item["follower_id"]["S"], set()).add(segment)
        assert all(len(segments) == 1 for segments in homes.values()), "a partition key is in one segment"
    assert len(list(FOLLOWS.scan())) > 2, "pages end at 1 MB"


def test_a_query_continues_where_a_page_ended_in_both_directions(strict: StandIn) -> None:
    FOLLOWS.put_many([{"follower_id": "f", "followed_id": f"t{n:04}", "pad": "x" * 900} for n in range(2500)])
    up = [item["followed_id"]["S"] for page in FOLLOWS.query("f") for item in page.items]
    down = [item["followed_id"]["S"] for page in FOLLOWS.query("f", newest_first=True) for item in page.items]
    assert up == down[::-1] == [f"t{n:04}" for n in range(2500)]
    some = [
        item["followed_id"]["S"]
        for page in FOLLOWS.query("f", between=("t0010", "t0019"), limit=3)
        for item in page.items
    ]
    assert some == [f"t{n:04}" for n in range(10, 20)]
    assert sum(page.scanned for page in FOLLOWS.query("f", counted=True)) == 2500


def test_the_meter_counts_the_requests_and_units_that_the_service_charges(strict: StandIn) -> None:
    meter = Meter()
    USERS.put_many(people(60), meter=meter)
    USERS.get({"user_id": "u00001"}, meter=meter)
    USERS.update(Write({"user_id": "u00001"}, set={"n": 7}, when=(Condition("n", "=", 8),)), meter=meter)
    list(USERS.scan(meter=meter))
    assert meter.requests == strict.spent.dynamodb_requests
    assert meter.read_units == strict.spent.read_units
    # by-email is keys alone, so each put is two units; a refused update is charged like one that was made.
    assert (meter.write_units, strict.spent.write_units) == (120.0, 121.0)


def test_an_update_makes_no_item_and_an_insertion_replaces_none(database: None) -> None:
    assert not USERS.update(Write({"user_id": "a"}, set={"n": 1}))
    assert USERS.update_many([Write({"user_id": "a"}, set={"n": 1})]) == [False]
    assert USERS.insert({"user_id": "a", "n": 1}) is None
    assert USERS.insert({"user_id": "a", "n": 2}) == {"user_id": "a", "n": 1}
    assert USERS.update(Write({"user_id": "b"}, set={"n": 1}, add={"seen": 2}), create=True)
    item = USERS.get({"user_id": "b"})
    assert item is not None
    assert from_item(item) == {"user_id": "b", "n": 1, "seen": 2}


def test_each_change_of_a_batch_succeeds_or_fails_independently(database: None) -> None:
    USERS.put_many(people(30))
    changes = [
        Write(
            {"user_id": f"u{n:05}"},
            set={"flag": True},
            remove=("email",),
            when=(Condition("n", ">", 9), Condition("flag", "missing"), Condition("email", "exists")),
        )
        for n in range(35)
    ]
    assert USERS.update_many(changes) == [9 < n < 30 for n in range(35)]
    assert USERS.update_many(changes) == [False] * 35
    assert USERS.delete_each([{"user_id": "u00005"}, {"user_id": "u00015"}], when=(Condition("flag", "=", True),)) == [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("code", "times", "raised"),
    [
        ("TransactionConflict", MAX_TRIES - 1, None),
        ("TransactionConflict", MAX_TRIES, Throttled),
        ("ThrottlingError", MAX_TRIES - 1, None),
        ("ItemCollectionSizeLimitExceeded", 1, ClientError),
    ],
)
def test_a_transaction_is_tried_again_after_a_conflict_or_throttling_only(
    database: None, monkeypatch: pytest.MonkeyPatch, code: str, times: int, raised: type[Exception] | None
) -> None:
    sandboxes.no_sleep(monkeypatch)
    left, call = iter(range(times)), table.call

    def canceled(operation: Any, meter: Meter | None, **parameters: Any) -> Any:
        if operation == "transact_write_items" and next(left, None) is not None:
            reasons = [{"Code": "None"}, {"Code": code}]
            response: Any = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons}
            raise ClientError(response, "TransactWriteItems")
        return call(operation, meter, **parameters)

    monkeypatch.setattr(table, "call", canceled)
    with pytest.raises(raised) if raised else nullcontext():
        assert transact([{"Put": USERS.put_request({"user_id": "a", "n": 1})}])
    assert (USERS.get({"user_id": "a"}) is None) == bool(raised)


def test_a_transaction_is_all_or_nothing(database: None) -> None:
    USERS.put({"user_id": "a", "n": 1})

    def both(expected: int) -> bool:
        change = Write({"user_id": "a"}, set={"n": 2}, when=(Condition("n", "=", expected),))
        put = FOLLOWS.put_request({"follower_id": "a", "followed_id": "b"}, new=True)
        return transact([{"Update": USERS.update_request(change)}, {"Put": put}])

    assert not both(5)
    assert FOLLOWS.get({"follower_id": "a", "followed_id": "b"}) is None
    assert both(1)
    assert FOLLOWS.get({"follower_id": "a", "followed_id": "b"}) is not None
