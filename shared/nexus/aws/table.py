"""What every repository stands on: requests to one DynamoDB table, paged, retried when throttled, and metered.

Items stay DynamoDB's own JSON ({"user_id": {"S": "u"}}) until a repository reads the attributes that it needs
(`nexus.aws.rows`): building Python objects of every attribute is nine tenths of what a scan costs.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import batched
from typing import Any

from nexus.aws.clients import CONNECTIONS, client
from nexus.aws.dynamodb import (
    ITEMS_PER_READ,
    STATEMENTS_PER_REQUEST,
    Change,
    Condition,
    Item,
    Value,
    conditions,
    to_attribute,
    to_item,
    update_request,
    update_statement,
)
from nexus.errors import NexusError
from nexus.settings import settings

ITEMS_PER_WRITE = 25

# A throttled request was not carried out. The SDK has tried five times when one of these comes up here.
THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ProvisionedThroughputExceeded",
        "ThrottlingException",
        "ThrottlingError",
        "RequestLimitExceeded",
        "InternalServerError",
        "TransactionConflict",
        "TransactionConflictException",
    }
)
MAX_TRIES = 12
FIRST_WAIT = 0.05
LONGEST_WAIT = 5.0


class Throttled(NexusError):
    """DynamoDB refused the same request for half a minute. Nothing of it was carried out: try the run again later."""


@dataclass(slots=True)
class Meter:
    """What was asked of DynamoDB, as DynamoDB counted it. Safe to share between threads.

    `requests` are those that were answered, `throttled` the refusals and unprocessed remainders among them;
    units are request units, a read of 4 KiB (eventually consistent: half) and a write of 1 KiB, indexes included.
    """

    requests: int = 0
    throttled: int = 0
    read_units: float = 0.0
    write_units: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, operation: str, answer: Mapping[str, Any]) -> None:
        capacity = answer.get("ConsumedCapacity") or ()
        units = sum(
            one.get("CapacityUnits", 0.0) for one in ([capacity] if isinstance(capacity, Mapping) else capacity)
        )
        with self._lock:
            self.requests += 1
            if operation in _READS:
                self.read_units += units
            else:
                self.write_units += units

    def refused(self) -> None:
        with self._lock:
            self.requests += 1
            self.throttled += 1


_METERED = {"ReturnConsumedCapacity": "TOTAL"}
_UNMETERED = frozenset({"describe_table"})
_READS = frozenset({"get_item", "batch_get_item", "query", "scan"})


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a Query or Scan. `next_key` continues after it; None at the end. `scanned` is before filters."""

    items: Sequence[Item]
    scanned: int
    next_key: Item | None


@dataclass(frozen=True, slots=True)
class Table:
    """The table of one entity. `key` names its key attributes, the partition key first.

    Every method raises Throttled when DynamoDB keeps refusing, and botocore's ClientError for what only an operator can
    mend (a missing table, a denied permission).
    """

    entity: str
    key: tuple[str, ...]

    @property
    def name(self) -> str:
        return settings().table(self.entity)

    def size(self, index: str | None = None, *, meter: Meter | None = None) -> tuple[int, int]:
        """(items, bytes) of the table, or of one of its indexes. DynamoDB brings them up to date every six hours."""
        described = call("describe_table", meter, TableName=self.name)["Table"]
        if index is None:
            return described.get("ItemCount", 0), described.get("TableSizeBytes", 0)
        for one in described.get("GlobalSecondaryIndexes", ()):
            if one["IndexName"] == index:
                return one.get("ItemCount", 0), one.get("IndexSizeBytes", 0)
        raise LookupError(f"{self.name}: no index {index}")

    def get(
        self,
        key: Mapping[str, str],
        *,
        attributes: Sequence[str] = (),
        consistent: bool = False,
        meter: Meter | None = None,
    ) -> Item | None:
        """The item at `key`, or None."""
        parameters = _projected(attributes)
        answer = call("get_item", meter, TableName=self.name, Key=to_item(key), ConsistentRead=consistent, **parameters)
        return answer.get("Item")

    def get_many(
        self,
        keys: Sequence[Mapping[str, str]],
        *,
        attributes: Sequence[str] = (),
        consistent: bool = False,
        meter: Meter | None = None,
        threads: int = 1,
    ) -> Iterator[Item]:
        """Those of the items at `keys` (no two alike) that exist, in no order; a request for each 100."""
        pages = list(batched(keys, ITEMS_PER_READ))
        for items in in_threads(lambda page: self._get_page(page, attributes, consistent, meter), pages, threads):
            yield from items

    def _get_page(
        self, keys: Sequence[Mapping[str, str]], attributes: Sequence[str], consistent: bool, meter: Meter | None
    ) -> list[Item]:
        found: list[Item] = []
        request: dict[str, Any] = {
            "Keys": [to_item(key) for key in keys],
            "ConsistentRead": consistent,
            **_projected(attributes),
        }
        for wait in _waits(meter):
            answer = call("batch_get_item", meter, RequestItems={self.name: request})
            found += answer["Responses"].get(self.name, ())
            left = (answer.get("UnprocessedKeys") or {}).get(self.name)
            if not left:
                return found
            request = left
            wait()
        raise Throttled(f"{self.name}: {len(request['Keys'])} keys still unprocessed")

    def query(
        self,
        partition: str,
        *,
        index: str | None = None,
        key: tuple[str, ...] | None = None,
        between: tuple[Value, Value] | None = None,
        attributes: Sequence[str] = (),
        newest_first: bool = False,
        consistent: bool = False,
        counted: bool = False,
        limit: int | None = None,
        start: Item | None = None,
        meter: Meter | None = None,
    ) -> Iterator[Page]:
        """The pages of one partition, in order of the sort key; `between` bounds the sort key, both ends included.

        `key` names the index's key attributes when `index` is given; `limit` bounds the items of one page; `counted`
        pages have their counts (`scanned`) alone and no items.
        """
        names = key or self.key
        aliases = {"#p": names[0]}
        values: dict[str, Any] = {":p": {"S": partition}}
        condition = "#p = :p"
        if between is not None:
            aliases["#s"] = names[1]
            values |= {":low": to_attribute(between[0]), ":high": to_attribute(between[1])}
            condition += " AND #s BETWEEN :low AND :high"
        projection = _projected(attributes)
        parameters: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": values,
            "ScanIndexForward": not newest_first,
            **projection,
            "ExpressionAttributeNames": aliases | projection.get("ExpressionAttributeNames", {}),
        }
        if index:
            parameters["IndexName"] = index
        elif consistent:
            parameters["ConsistentRead"] = True
        if counted:
            parameters["Select"] = "COUNT"
        if limit:
            parameters["Limit"] = limit
        yield from _pages("query", parameters, start, meter)

    def scan(
        self,
        *,
        index: str | None = None,
        segment: int = 0,
        total: int = 1,
        attributes: Sequence[str] = (),
        limit: int | None = None,
        start: Item | None = None,
        meter: Meter | None = None,
    ) -> Iterator[Page]:
        """The pages of one segment of a parallel scan: all items of a partition key are in one segment, in a row."""
        parameters: dict[str, Any] = {"TableName": self.name, **_projected(attributes)}
        if total > 1:
            parameters |= {"Segment": segment, "TotalSegments": total}
        if index:
            parameters["IndexName"] = index
        if limit:
            parameters["Limit"] = limit
        yield from _pages("scan", parameters, start, meter)

    def put_request(self, values: Mapping[str, Value], *, new: bool = False) -> dict[str, Any]:
        """The item as PutItem's parameters, which are also those of a Put in TransactWriteItems."""
        there_is_none = (Condition(self.key[0], "missing"),) if new else ()
        return {"TableName": self.name, "Item": to_item(values), **conditions(there_is_none)}

    def put(self, values: Mapping[str, Value], *, new: bool = False, meter: Meter | None = None) -> bool:
        """Writes the item; with `new`, only if there is none at its key. False when there was."""
        return _conditional("put_item", meter, self.put_request(values, new=new))

    def put_item(self, item: Item, *, new: bool = False, meter: Meter | None = None) -> bool:
        """As `put`, an item in DynamoDB's JSON: one that was read is written back as it was."""
        return _conditional("put_item", meter, self.put_request({}, new=new) | {"Item": item})

    def update(self, change: Change, *, create: bool = False, meter: Meter | None = None) -> bool:
        """Makes the change. False when a condition did not hold, or (unless `create`) when there is no such item."""
        return _conditional("update_item", meter, self.update_request(change, create=create))

    def update_request(self, change: Change, *, create: bool = False) -> dict[str, Any]:
        """The change as UpdateItem's parameters, which are also those of an Update in TransactWriteItems."""
        there_is_one = () if create else (Condition(self.key[0], "exists"),)
        return update_request(self.name, replace(change, when=(*there_is_one, *change.when)))

    def delete(self, key: Mapping[str, str], *, when: tuple[Condition, ...] = (), meter: Meter | None = None) -> bool:
        """Removes the item; False when a condition did not hold. Without any, an absent item is as good as removed."""
        return _conditional("delete_item", meter, self.delete_request(key, when=when))

    def delete_request(self, key: Mapping[str, str], *, when: tuple[Condition, ...] = ()) -> dict[str, Any]:
        """The removal as DeleteItem's parameters, which are also those of a Delete in TransactWriteItems."""
        return {"TableName": self.name, "Key": to_item(key), **conditions(when)}

    def put_many(self, items: Iterable[Mapping[str, Value]], *, meter: Meter | None = None, threads: int = 1) -> int:
        """Writes the items (no two of one key), replacing what is there; a request for each 25. Returns how many."""
        return self._write_many([{"PutRequest": {"Item": to_item(item)}} for item in items], meter, threads)

    def put_items(self, items: Iterable[Item], *, meter: Meter | None = None, threads: int = 1) -> int:
        """As `put_many`, items in DynamoDB's JSON."""
        return self._write_many([{"PutRequest": {"Item": item}} for item in items], meter, threads)

    def delete_many(self, keys: Iterable[Mapping[str, str]], *, meter: Meter | None = None, threads: int = 1) -> int:
        """Removes the items at `keys` (no two alike) whatever they hold; a request for each 25. Returns how many."""
        return self._write_many([{"DeleteRequest": {"Key": to_item(key)}} for key in keys], meter, threads)

    def _write_many(self, writes: Sequence[Mapping[str, Any]], meter: Meter | None, threads: int) -> int:
        def write(page: Sequence[Mapping[str, Any]]) -> int:
            left: Sequence[Mapping[str, Any]] = page
            for wait in _waits(meter):
                answer = call("batch_write_item", meter, RequestItems={self.name: left})
                left = (answer.get("UnprocessedItems") or {}).get(self.name, ())
                if not left:
                    return len(page)
                wait()
            raise Throttled(f"{self.name}: {len(left)} writes still unprocessed")

        return sum(in_threads(write, list(batched(writes, ITEMS_PER_WRITE)), threads))

    def update_many(self, changes: Sequence[Change], *, meter: Meter | None = None, threads: int = 1) -> list[bool]:
        """Makes each change (no two of one item) by itself, 25 a request; True where it was made.

        False means what it means for `update`: a condition did not hold, or there is no such item.
        """
        pages = list(batched(changes, STATEMENTS_PER_REQUEST))
        made = in_threads(lambda page: self._update_page(page, meter), pages, threads)
        return [one for page in made for one in page]

    def delete_each(
        self,
        keys: Sequence[Mapping[str, str]],
        *,
        when: tuple[Condition, ...],
        meter: Meter | None = None,
        threads: int = 1,
    ) -> list[bool]:
        """Removes each item (no two alike) for which the conditions hold, 25 a request; True where it was removed."""
        return self.update_many([Change(key, when=when) for key in keys], meter=meter, threads=threads)

    def _update_page(self, changes: Sequence[Change], meter: Meter | None) -> list[bool]:
        made = [False] * len(changes)
        waiting = list(range(len(changes)))
        for wait in _waits(meter):
            statements = [update_statement(self.name, changes[place]) for place in waiting]
            answers = call("batch_execute_statement", meter, Statements=statements)["Responses"]
            again: list[int] = []
            for place, answer in zip(waiting, answers, strict=True):
                error = answer.get("Error")
                if error is None:
                    made[place] = True
                elif error["Code"] in THROTTLES:
                    again.append(place)
                elif error["Code"] != "ConditionalCheckFailed":
                    raise RuntimeError(
                        f"{self.name} {dict(changes[place].key)}: {error['Code']}: {error.get('Message')}"
                    )
            if not again:
                return made
            waiting = again
            wait()
        raise Throttled(f"{self.name}: {len(waiting)} updates still refused")


def transact(actions: Sequence[Mapping[str, Any]], token: str | None = None, *, meter: Meter | None = None) -> bool:
    """All of the writes or none of them; False when a condition did not hold. `token` makes a repeat one and the same.

    An action is an element of TransactWriteItems, e.g. {"Update": table.update_request(change)}; at most 100.
    """
    parameters: dict[str, Any] = {"TransactItems": list(actions)}
    if token:
        parameters["ClientRequestToken"] = token
    from botocore.exceptions import ClientError

    for wait in _waits(meter):
        try:
            call("transact_write_items", meter, **parameters)
        except ClientError as error:
            if error.response["Error"]["Code"] != "TransactionCanceledException":
                raise
            reasons = {reason.get("Code") for reason in error.response.get("CancellationReasons", ())} - {"None", None}
            if "ConditionalCheckFailed" in reasons:
                return False
            if not reasons <= THROTTLES:
                raise
            wait()
        else:
            return True
    raise Throttled("a transaction met others on the same items, again and again")


def call(operation: str, meter: Meter | None = None, **parameters: object) -> dict[str, Any]:
    """One request, tried again while DynamoDB throttles it."""
    from botocore.exceptions import ClientError

    method = getattr(client("dynamodb"), operation)
    for wait in _waits(meter):
        try:
            answer: dict[str, Any] = method(**parameters, **({} if operation in _UNMETERED else _METERED))
        except ClientError as error:
            if error.response["Error"]["Code"] not in THROTTLES:
                raise
            wait()
            continue
        if meter is not None:
            meter.count(operation, answer)
        return answer
    raise Throttled(f"{operation} {parameters.get('TableName', '')}".strip())


def _conditional(operation: str, meter: Meter | None, parameters: Mapping[str, Any]) -> bool:
    from botocore.exceptions import ClientError

    try:
        call(operation, meter, **parameters)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise
        if meter is not None:
            meter.count(operation, {})
        return False
    return True


def _pages(operation: str, parameters: dict[str, Any], start: Item | None, meter: Meter | None) -> Iterator[Page]:
    while True:
        if start:
            parameters["ExclusiveStartKey"] = start
        answer = call(operation, meter, **parameters)
        start = answer.get("LastEvaluatedKey")
        yield Page(answer.get("Items", ()), answer.get("ScannedCount", answer.get("Count", 0)), start)
        if not start:
            return


def sleep(seconds: float) -> None:
    """Between two tries; a test replaces it."""
    time.sleep(seconds)


def _waits(meter: Meter | None) -> Iterator[Callable[[], None]]:
    """One element a try, each to be called when the try was refused: exponential backoff with full jitter."""
    for attempt in range(MAX_TRIES):

        def wait(attempt: int = attempt) -> None:
            if meter is not None:
                meter.refused()
            if attempt + 1 < MAX_TRIES:
                sleep(random.uniform(0.0, min(LONGEST_WAIT, FIRST_WAIT * 2.0**attempt)))  # noqa: S311 - jitter

        yield wait


def in_threads[A, B](work: Callable[[A], B], values: Sequence[A], threads: int) -> Iterator[B]:
    """`work` of each value, in order, on up to `threads` threads (each holds a connection while it waits)."""
    if threads <= 1 or len(values) <= 1:
        yield from map(work, values)
        return
    with ThreadPoolExecutor(min(threads, CONNECTIONS, len(values))) as pool:
        yield from pool.map(work, values)


def _projected(attributes: Sequence[str]) -> dict[str, Any]:
    """The projection; every name is aliased, for DynamoDB reserves 573 words, `name` and `views` among them."""
    if not attributes:
        return {}
    names = {f"#{name}": name for name in attributes}
    return {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}
